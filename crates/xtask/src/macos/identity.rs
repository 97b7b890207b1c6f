//! Who signs. An identity is a directory: `application.p12` and `installer.p12` (Apple's "Developer ID
//! Application" and "Developer ID Installer"), `password` of both, `team-id`, and, if Apple gave them,
//! `agent.provisionprofile` and `extension.provisionprofile`. The test identity has the same files, made by
//! us and trusted by nobody: what it signs proves the tools, and no Mac runs it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::bundle::{APP_ID, EXTENSION_ID, filled};
use super::rcodesign;

/// Ten letters and digits, as Apple gives them.
const TEST_TEAM: &str = "TOKTRATEST";

/// A directory that was looked at.
#[derive(Debug)]
pub struct Identity {
    directory: PathBuf,
    /// The Team ID.
    pub team_id: String,
    /// Whether it is the test identity, for which nobody outside is asked anything.
    pub is_test: bool,
}

impl Identity {
    /// The identity in a directory.
    pub fn open(directory: &Path) -> Result<Self> {
        let team_id = fs::read_to_string(directory.join("team-id"))
            .with_context(|| format!("{} has no team-id", directory.display()))?
            .trim()
            .to_owned();
        let well_formed = |character: char| character.is_ascii_uppercase() || character.is_ascii_digit();
        ensure!(
            team_id.len() == 10 && team_id.chars().all(well_formed),
            "{team_id} is no Team ID: it has ten capital letters and digits"
        );
        let identity = Self { directory: directory.to_owned(), is_test: team_id == TEST_TEAM, team_id };
        for file in [identity.application(), identity.installer(), identity.password()] {
            ensure!(file.exists(), "the identity lacks {}", file.display());
        }
        Ok(identity)
    }

    /// The test identity, made in this directory unless it is there.
    pub fn test(directory: &Path, packaging: &Path) -> Result<Self> {
        if !directory.join("team-id").exists() {
            make_test(directory, packaging)?;
        }
        Self::open(directory)
    }

    /// Signs code.
    pub fn application(&self) -> PathBuf {
        self.directory.join("application.p12")
    }

    /// Signs packages.
    pub fn installer(&self) -> PathBuf {
        self.directory.join("installer.p12")
    }

    /// A file with the password of both.
    pub fn password(&self) -> PathBuf {
        self.directory.join("password")
    }

    /// The certificate that code is signed with, if it was put there as PEM: to verify what was signed.
    pub fn certificate(&self, which: &str) -> Option<PathBuf> {
        Some(self.directory.join(format!("{which}.crt"))).filter(|path| path.exists())
    }

    /// The app's and the extension's provisioning profile.
    pub fn profiles(&self) -> Result<[Option<Vec<u8>>; 2]> {
        let read = |name: &str| match fs::read(self.directory.join(name)) {
            Ok(profile) => Ok(Some(profile)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| name.to_owned()),
        };
        Ok([read("agent.provisionprofile")?, read("extension.provisionprofile")?])
    }
}

fn make_test(directory: &Path, packaging: &Path) -> Result<()> {
    const PASSWORD: &str = "test";
    fs::create_dir_all(directory)?;
    fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    fs::write(directory.join("password"), PASSWORD)?;
    for kind in ["application", "installer"] {
        rcodesign::run([
            "generate-self-signed-certificate",
            "--algorithm=rsa",
            &format!("--profile=developer-id-{kind}"),
            &format!("--team-id={TEST_TEAM}"),
            "--person-name=Toktra test identity",
            "--validity-days=3650",
            &format!("--pem-filename={}", directory.join(kind).display()),
            &format!("--p12-file={}", directory.join(format!("{kind}.p12")).display()),
            &format!("--p12-password={PASSWORD}"),
        ])?;
    }
    for (name, folder, id) in [("agent", "app", APP_ID), ("extension", "extension", EXTENSION_ID)] {
        let entitlements =
            filled(packaging, &format!("{folder}/entitlements.plist"), &[("TOKTRA_TEAM_ID", TEST_TEAM)])?;
        let profile = directory.join(format!("{name}.plist"));
        fs::write(&profile, test_profile(&entitlements, id)?)?;
        sign_profile(directory, &profile, &directory.join(format!("{name}.provisionprofile")))?;
    }
    // Last, since it says that the identity is whole.
    Ok(fs::write(directory.join("team-id"), TEST_TEAM)?)
}

/// A profile as Apple makes them, with what the checks read.
fn test_profile(entitlements: &str, id: &str) -> Result<Vec<u8>> {
    let entitlements = plist::Value::from_reader_xml(entitlements.as_bytes())?;
    let mut profile = plist::Dictionary::new();
    profile.insert("Name".into(), format!("Test of {id}").into());
    profile.insert("TeamIdentifier".into(), plist::Value::Array(vec![TEST_TEAM.into()]));
    profile.insert("Platform".into(), plist::Value::Array(vec!["OSX".into()]));
    profile.insert("ProvisionsAllDevices".into(), true.into());
    profile.insert("Entitlements".into(), entitlements);
    let mut bytes = Vec::new();
    plist::Value::Dictionary(profile).to_writer_xml(&mut bytes)?;
    Ok(bytes)
}

fn sign_profile(directory: &Path, plist: &Path, profile: &Path) -> Result<()> {
    let output = Command::new("openssl")
        .args(["cms", "-sign", "-nodetach", "-binary", "-outform", "DER"])
        .arg("-signer")
        .arg(directory.join("application.crt"))
        .arg("-inkey")
        .arg(directory.join("application.key"))
        .arg("-in")
        .arg(plist)
        .arg("-out")
        .arg(profile)
        .output()
        .context("openssl cannot be started: run scripts/setup macos")?;
    if !output.status.success() {
        bail!("openssl: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
