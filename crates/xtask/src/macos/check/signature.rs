//! Verifies the code signature of each slice with nothing of the tool that made it: hashes by ring, the CMS
//! signature by OpenSSL. Structures and numbers are those of xnu's `osfmk/kern/cs_blobs.h`; all are
//! big-endian.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use ring::digest::{SHA256, digest};

use super::{Artefacts, Bundle, Check, Findings};
use crate::macos::bundle::filled;
use crate::macos::macho::{Slice, slices};

const EMBEDDED_SIGNATURE: u32 = 0xFADE_0CC0; // CSMAGIC_EMBEDDED_SIGNATURE
const CODE_DIRECTORY: u32 = 0xFADE_0C02; // CSMAGIC_CODEDIRECTORY

// Slots of the signature, which the code directory hashes too, at minus the number.
const DIRECTORY_SLOT: u32 = 0; // CSSLOT_CODEDIRECTORY
const INFO_PLIST: u32 = 1; // CSSLOT_INFOSLOT
const REQUIREMENTS: u32 = 2; // CSSLOT_REQUIREMENTS
const RESOURCES: u32 = 3; // CSSLOT_RESOURCEDIR
const ENTITLEMENTS: u32 = 5; // CSSLOT_ENTITLEMENTS
const DER_ENTITLEMENTS: u32 = 7; // CSSLOT_DER_ENTITLEMENTS
const CMS: u32 = 0x1_0000; // CSSLOT_SIGNATURESLOT

const RUNTIME: u32 = 0x1_0000; // CS_RUNTIME
const SHA_256: u8 = 2; // CS_HASHTYPE_SHA256
const HASH_SIZE: usize = 32;

pub fn check(bundle: &Bundle<'_>, artefacts: &Artefacts, root: &Path, findings: &mut Findings) -> Result<()> {
    // The check of programs says what is wrong with a file that has no slices.
    let Some(Ok(slices)) = bundle.content(bundle.executable).map(slices) else {
        return Ok(());
    };
    let intended = filled(
        &root.join("packaging/macos"),
        &format!("{}/entitlements.plist", bundle.folder),
        &[("TOKTRA_TEAM_ID", &artefacts.team_id)],
    )?;
    let intended = plist::Value::from_reader_xml(intended.as_bytes())?;
    for slice in &slices {
        let place = format!("{} ({})", bundle.id, slice.architecture);
        let signature = match Signature::read(slice) {
            Ok(signature) => signature,
            Err(error) => {
                findings.add(Check::Signature, format!("{place}: {error:#}"));
                continue;
            }
        };
        for problem in signature.problems(bundle, &artefacts.team_id) {
            findings.add(Check::Signature, format!("{place}: {problem}"));
        }
        if let Err(error) = signature.verify_cms(artefacts.certificates[0].as_deref()) {
            findings.add(Check::Signature, format!("{place}: {error:#}"));
        }
        findings.unless(signature.entitlements().as_ref() == Some(&intended), Check::Entitlements, || {
            format!("{place}: its entitlements are not those of {}/entitlements.plist", bundle.folder)
        });
        findings.unless(signature.slots.contains_key(&DER_ENTITLEMENTS), Check::Entitlements, || {
            format!("{place}: no entitlements in DER, which macOS reads")
        });
    }
    Ok(())
}

/// The entitlements that the first slice of an executable is signed with.
pub fn entitlements_of(executable: &[u8]) -> Option<plist::Dictionary> {
    let slices = slices(executable).ok()?;
    Signature::read(slices.first()?).ok()?.entitlements()?.into_dictionary()
}

struct Signature<'data> {
    slice: &'data Slice<'data>,
    /// Where the signature begins, and so the signed code ends.
    offset: usize,
    /// Whole blobs with their headers.
    slots: BTreeMap<u32, &'data [u8]>,
    directory: Directory<'data>,
}

/// What is signed: hashes of the code's pages and of the other slots.
struct Directory<'data> {
    blob: &'data [u8],
    flags: u32,
    hashes: usize,
    special_count: usize,
    page_count: usize,
    code_limit: usize,
    page_size: usize,
    identifier: &'data str,
    team: Option<&'data str>,
}

impl<'data> Signature<'data> {
    fn read(slice: &'data Slice<'data>) -> Result<Self> {
        let (offset, data) = slice.signature.context("not signed")?;
        ensure!(word(data, 0) == Some(EMBEDDED_SIGNATURE), "its signature is none");
        let count = word(data, 8).context("cut short")?.min(64);
        let mut slots = BTreeMap::new();
        for index in 0..count as usize {
            let (slot, place) =
                word(data, 12 + 8 * index).zip(word(data, 16 + 8 * index)).context("cut short")?;
            let blob = data.get(place as usize..).context("a blob outside of the signature")?;
            let length = word(blob, 4).context("cut short")? as usize;
            slots.insert(slot, blob.get(..length).context("a blob is cut short")?);
        }
        let directory = Directory::read(slots.get(&DIRECTORY_SLOT).context("no code directory")?)?;
        Ok(Self { slice, offset, slots, directory })
    }

    fn problems(&self, bundle: &Bundle<'_>, team_id: &str) -> Vec<String> {
        let directory = &self.directory;
        let mut problems = Vec::new();
        if directory.identifier != bundle.id {
            problems.push(format!("signed as {}", directory.identifier));
        }
        if directory.team != Some(team_id) {
            problems.push(format!("signed for the team {:?}, not {team_id}", directory.team));
        }
        if directory.flags & RUNTIME == 0 {
            problems.push("no hardened runtime".to_owned());
        }
        if directory.code_limit != self.offset {
            problems.push(format!("{} bytes are signed of {}", directory.code_limit, self.offset));
        }
        problems.extend(self.wrong_page());
        for (slot, content, what) in [
            (INFO_PLIST, bundle.content("Contents/Info.plist"), "Info.plist"),
            (RESOURCES, bundle.content("Contents/_CodeSignature/CodeResources"), "the seal of its resources"),
            (REQUIREMENTS, self.slots.get(&REQUIREMENTS).copied(), "its requirements"),
            (ENTITLEMENTS, self.slots.get(&ENTITLEMENTS).copied(), "its entitlements"),
            (DER_ENTITLEMENTS, self.slots.get(&DER_ENTITLEMENTS).copied(), "its entitlements in DER"),
        ] {
            let hash = directory.special(slot as usize);
            if content.is_none() || hash != content.map(sha256).as_deref() {
                problems.push(format!("{what} is not as it was signed"));
            }
        }
        problems
    }

    fn wrong_page(&self) -> Option<String> {
        let directory = &self.directory;
        let code = self.slice.bytes.get(..directory.code_limit)?;
        let pages = code.chunks(directory.page_size);
        if pages.len() != directory.page_count {
            return Some(format!("{} pages are signed of {}", directory.page_count, pages.len()));
        }
        let wrong = pages.enumerate().find(|(index, page)| directory.page(*index) != Some(&sha256(page)))?;
        Some(format!("the code's page {} is not as it was signed", wrong.0))
    }

    fn entitlements(&self) -> Option<plist::Value> {
        plist::Value::from_reader_xml(self.slots.get(&ENTITLEMENTS)?.get(8..)?).ok()
    }

    /// With a certificate, its key must have signed; without one any may have.
    fn verify_cms(&self, certificate: Option<&Path>) -> Result<()> {
        let blob = self.slots.get(&CMS).and_then(|blob| blob.get(8..)).context("no CMS signature")?;
        verify_cms(blob, self.directory.blob, certificate)
    }
}

/// Verifies a CMS signature over content that it does not hold, with OpenSSL.
pub fn verify_cms(cms: &[u8], content: &[u8], certificate: Option<&Path>) -> Result<()> {
    let place = tempfile::tempdir()?;
    let (signature, signed) = (place.path().join("cms"), place.path().join("content"));
    fs::write(&signature, cms)?;
    fs::write(&signed, content)?;
    let mut openssl = Command::new("openssl");
    openssl.args([
        "cms",
        "-verify",
        "-binary",
        "-inform",
        "DER",
        "-purpose",
        "any",
        "-out",
        "/dev/null",
        "-in",
    ]);
    openssl.arg(&signature).arg("-content").arg(&signed);
    match certificate {
        // Its own issuer, so it is both who must have signed and whom to trust; nothing else in the
        // signature counts.
        Some(certificate) => openssl.arg("-noverify").arg("-nointern").arg("-certfile").arg(certificate),
        None => openssl.arg("-noverify"),
    };
    let output = openssl.output().context("openssl cannot be started: run scripts/setup macos")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the CMS signature does not verify: {}", said.trim());
    Ok(())
}

impl<'data> Directory<'data> {
    fn read(blob: &'data [u8]) -> Result<Self> {
        let field = |at: usize| word(blob, at).context("the code directory is cut short");
        ensure!(field(0)? == CODE_DIRECTORY, "its code directory is none");
        let version = field(8)?;
        let byte = |at: usize| blob.get(at).copied().context("the code directory is cut short");
        ensure!((byte(36)?, byte(37)?) == (HASH_SIZE as u8, SHA_256), "hashes other than SHA-256");
        let page_bits = byte(39)?;
        ensure!((10..=16).contains(&page_bits), "pages of 2^{page_bits} bytes");
        let text = |offset: u32| {
            let bytes = blob.get(offset as usize..)?;
            std::str::from_utf8(bytes.split(|byte| *byte == 0).next()?).ok()
        };
        // The team's name came with version 2.2.
        let team = if version >= 0x2_0200 { Some(field(48)?) } else { None };
        Ok(Self {
            blob,
            flags: field(12)?,
            hashes: field(16)? as usize,
            special_count: field(24)? as usize,
            page_count: field(28)? as usize,
            code_limit: field(32)? as usize,
            page_size: 1 << page_bits,
            identifier: text(field(20)?).context("the code directory has no identifier")?,
            team: team.filter(|offset| *offset != 0).and_then(text),
        })
    }

    fn page(&self, index: usize) -> Option<&'data [u8]> {
        let start = self.hashes.checked_add(index.checked_mul(HASH_SIZE)?)?;
        self.blob.get(start..start.checked_add(HASH_SIZE)?)
    }

    /// Hashes of other slots lie before those of the pages.
    fn special(&self, slot: usize) -> Option<&'data [u8]> {
        let start = self.hashes.checked_sub(slot * HASH_SIZE)?;
        if slot > self.special_count { None } else { self.blob.get(start..start + HASH_SIZE) }
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    digest(&SHA256, bytes).as_ref().to_vec()
}
