//! Shows that every check can fail: breaks a copy of the artefacts in one way after the other, and demands
//! that the check whose matter it is says so. `cargo xtask macos --faults` runs them all on what was just built.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::bundle::{APP_EXECUTABLE, EXTENSION, EXTENSION_EXECUTABLE, ICON, PROFILE};
use super::check::{self, APP, Artefacts, Check, MOBILECONFIG};
use super::tree::Tree;
use super::{bom, cpio, package, xar};

/// One way to break things, and the check that must notice.
struct Fault {
    what: &'static str,
    noticed_by: Check,
    /// Gets the app's files.
    on_app: fn(&mut Tree) -> Result<()>,
}

const APP_PLIST: &str = "Contents/Info.plist";

/// Breaks of the app, each by editing its files.
const APP_FAULTS: [Fault; 21] = [
    Fault {
        what: "one architecture is gone",
        noticed_by: Check::Architectures,
        // The count of slices in the header of the universal file.
        on_app: |app| edit(app, APP_EXECUTABLE, |file| file[7] = 1),
    },
    Fault {
        what: "a program that only loads at one address",
        noticed_by: Check::Architectures,
        on_app: |app| in_slices(app, APP_EXECUTABLE, |slice| slice[26] &= !0x20), // MH_PIE
    },
    Fault {
        what: "the oldest macOS is 14",
        noticed_by: Check::Versions,
        on_app: |app| in_slices(app, &extension(EXTENSION_EXECUTABLE), |slice| set_version(slice, 12, 14)),
    },
    Fault {
        what: "another SDK",
        noticed_by: Check::Versions,
        on_app: |app| in_slices(app, APP_EXECUTABLE, |slice| set_version(slice, 16, 11)),
    },
    Fault {
        what: "a library that macOS does not have",
        noticed_by: Check::Libraries,
        on_app: |app| {
            replace(app, APP_EXECUTABLE, b"/usr/lib/libSystem.B.dylib", b"/usr/lib/libSystem.Z.dylib")
        },
    },
    Fault {
        what: "a symbol that the list does not have",
        noticed_by: Check::Symbols,
        on_app: |app| {
            replace(app, &extension(EXTENSION_EXECUTABLE), b"\0_pthread_self\0", b"\0_pthread_elfs\0")
        },
    },
    Fault {
        what: "the provider's class under another name",
        noticed_by: Check::ClassName,
        on_app: |app| replace(app, &extension(APP_PLIST), b"FilterDataProvider<", b"FilterDataProvidor<"),
    },
    Fault {
        what: "an Info.plist that is none",
        noticed_by: Check::Plists,
        on_app: |app| replace(app, APP_PLIST, b"</plist>", b"</plisp>"),
    },
    Fault {
        what: "no usage description",
        noticed_by: Check::Plists,
        on_app: |app| {
            replace(app, &extension(APP_PLIST), b"NSSystemExtensionUsage", b"NXSystemExtensionUsage")
        },
    },
    Fault {
        what: "a Mach service in no group",
        noticed_by: Check::Plists,
        on_app: |app| {
            replace(
                app,
                &extension(APP_PLIST),
                b"com.toktra.agent.extension</string>\n\t\t<key>NEProv",
                b"com.taktra.agent.extension</string>\n\t\t<key>NEProv",
            )
        },
    },
    Fault {
        what: "an icon in the Dock",
        noticed_by: Check::Plists,
        on_app: |app| replace(app, APP_PLIST, b"LSUIElement", b"LSXIElement"),
    },
    Fault {
        what: "a byte of code",
        noticed_by: Check::Signature,
        on_app: |app| in_slices(app, APP_EXECUTABLE, |slice| slice[slice.len() / 3] ^= 1),
    },
    Fault {
        what: "an Info.plist other than the signed one",
        noticed_by: Check::Signature,
        on_app: |app| replace(app, APP_PLIST, b"<string>en<", b"<string>de<"),
    },
    Fault {
        what: "a byte of the CMS signature",
        noticed_by: Check::Signature,
        on_app: |app| {
            in_slices(app, &extension(EXTENSION_EXECUTABLE), |slice| {
                // The signature ends in zeros; what comes before them is the signer's signature.
                if let Some(last) = slice.iter().rposition(|byte| *byte != 0) {
                    slice[last - 8] ^= 1;
                }
            })
        },
    },
    Fault {
        what: "no hardened runtime",
        noticed_by: Check::Signature,
        on_app: |app| {
            in_slices(app, APP_EXECUTABLE, |slice| {
                // Flags of the code directory, big-endian, after magic, length and version.
                if let Some(directory) = find(slice, &[0xFA, 0xDE, 0x0C, 0x02]) {
                    slice[directory + 13] &= !1;
                }
            })
        },
    },
    Fault {
        what: "an entitlement that was not meant",
        noticed_by: Check::Entitlements,
        on_app: |app| {
            replace(app, APP_EXECUTABLE, b"system-extension.install<", b"system-extension.destroy<")
        },
    },
    Fault {
        what: "a provisioning profile that allows less",
        noticed_by: Check::Profile,
        on_app: |app| {
            replace(
                app,
                &extension(PROFILE),
                b"content-filter-provider-systemextension",
                b"content-filter-provider-systemextensioN",
            )
        },
    },
    Fault {
        what: "no provisioning profile",
        noticed_by: Check::Profile,
        on_app: |app| app.remove(PROFILE).context("there is none"),
    },
    Fault {
        what: "a file that changed after it was sealed",
        noticed_by: Check::Resources,
        on_app: |app| edit(app, "Contents/Resources/uninstall", |file| file.push(b'\n')),
    },
    Fault {
        what: "a file that was added",
        noticed_by: Check::Resources,
        on_app: |app| {
            app.file("Contents/Resources/more", 0o644, "");
            Ok(())
        },
    },
    Fault {
        what: "16 MiB more",
        noticed_by: Check::Size,
        on_app: |app| {
            app.file("Contents/Resources/large", 0o644, vec![0; 16 << 20]);
            Ok(())
        },
    },
];

/// Breaks everything in turn. Says how many faults were noticed.
pub fn run(artefacts: &Artefacts, root: &Path, python: &Path) -> Result<usize> {
    let place = tempfile::tempdir()?;
    let broken = Artefacts { directory: place.path().to_owned(), ..artefacts.clone() };
    let app = Tree::read(&artefacts.directory.join(APP))?;
    let mut count = 0;
    for fault in APP_FAULTS {
        let mut copy = app.clone();
        (fault.on_app)(&mut copy).with_context(|| format!("cannot make the fault: {}", fault.what))?;
        ensure!(copy != app, "the fault changes nothing: {}", fault.what);
        copy.write(&place.path().join(APP))?;
        let findings = check::app(&broken, root, python)?;
        let noticed = findings.0.iter().any(|finding| finding.check == fault.noticed_by);
        ensure!(noticed, "{} is not noticed by {:?}, but: {findings:?}", fault.what, fault.noticed_by);
        count += 1;
    }
    app.write(&place.path().join(APP))?;
    count += deployment_faults(artefacts, &broken, root, python)?;
    Ok(count)
}

/// Breaks of the package, of what is in it and of the MDM profile. A package that is assembled anew has
/// no signature, so who must have signed is not asked then.
fn deployment_faults(artefacts: &Artefacts, broken: &Artefacts, root: &Path, python: &Path) -> Result<usize> {
    let original = |name: &str| fs::read(artefacts.directory.join(name)).with_context(|| name.to_owned());
    let (package, profile) = (original(&artefacts.package)?, original(MOBILECONFIG)?);
    let unsigned = Artefacts { certificates: [None, None], ..broken.clone() };
    let mut count = 0;
    let mut notices =
        |artefacts: &Artefacts, what: &str, check: Check, says: &str, package: &[u8], profile: &[u8]| {
            fs::write(artefacts.directory.join(&artefacts.package), package)?;
            fs::write(artefacts.directory.join(MOBILECONFIG), profile)?;
            let findings = check::deployment(artefacts, root, python)?;
            let noticed =
                findings.0.iter().any(|finding| finding.check == check && finding.what.contains(says));
            ensure!(noticed, "{what} is not noticed by {check:?}, but: {findings:?}");
            count += 1;
            anyhow::Ok(())
        };

    // Header of 28 bytes, table, then the heap: the table's checksum, two signatures, the members.
    let table = u64::from_be_bytes(package.get(8..16).context("no package")?.try_into()?) as usize;
    let flipped = |at: usize| {
        let mut package = package.clone();
        package[at] ^= 1;
        package
    };
    let half = package.len() / 2;
    for (what, says, package) in [
        ("a package that is cut short", "", package[..half].to_vec()),
        ("a byte of the payload", "Payload: its checksum", flipped(half)),
        (
            "a byte of the package's signature",
            "RSA signature does not verify",
            flipped(28 + table + 20 + 100),
        ),
    ] {
        notices(broken, what, Check::Package, says, &package, &profile)?;
    }

    let packaging = root.join("packaging/macos");
    let payload = package::payload(&packaging, Tree::read(&artefacts.directory.join(APP))?)?;
    let members = package::members(&packaging, &payload, env!("CARGO_PKG_VERSION"))?;
    for fault in &MEMBER_FAULTS {
        let (mut payload, mut members) = (payload.clone(), members.clone());
        (fault.on_members)(&mut payload, &mut members)
            .with_context(|| format!("cannot make: {}", fault.what))?;
        notices(&unsigned, fault.what, Check::Package, fault.says, &xar::archive(&members)?, &profile)?;
    }

    let profile = String::from_utf8(profile)?;
    for (what, check, from, to) in [
        ("no filter", Check::MobileConfig, "com.apple.webcontent-filter", "com.apple.webcontent-other"),
        (
            "another program's filter",
            Check::MobileConfig,
            "identifier \"com.toktra",
            "identifier \"com.other",
        ),
        ("a comment that Apple's parser refuses", Check::Package, "<!-- ", "<!-- -- "),
    ] {
        let broken_profile = profile.replacen(from, to, 1);
        ensure!(broken_profile != profile, "the fault changes nothing: {what}");
        notices(broken, what, check, "", &package, broken_profile.as_bytes())?;
    }
    Ok(count)
}

/// One way to break what a package holds, and the words by which it is noticed.
struct MemberFault {
    what: &'static str,
    says: &'static str,
    /// Gets the payload, to make members of, and the members.
    on_members: fn(&mut Tree, &mut Tree) -> Result<()>,
}

const MEMBER_FAULTS: [MemberFault; 7] = [
    MemberFault {
        what: "a byte of the icon",
        says: "the icon's",
        on_members: |payload, members| {
            edit(payload, &format!("Applications/{APP}/{ICON}"), |icon| {
                let last = icon.len() - 30;
                icon[last] ^= 1;
            })?;
            edit(members, "agent.pkg/Payload", |archive| {
                *archive = cpio::gzipped(payload).unwrap_or_default()
            })
        },
    },
    MemberFault {
        what: "a bill with a file that is not installed",
        says: "bill and payload differ",
        on_members: |payload, members| {
            payload.file("Applications/more", 0o644, "");
            edit(members, "agent.pkg/Bom", |bill| *bill = bom::bill(payload).unwrap_or_default())
        },
    },
    MemberFault {
        what: "a bill with another checksum",
        says: "the bill says",
        on_members: |payload, members| {
            replace(payload, "Library/LaunchDaemons/com.toktra.agent.plist", b"Label", b"Lebal")?;
            edit(members, "agent.pkg/Bom", |bill| *bill = bom::bill(payload).unwrap_or_default())
        },
    },
    MemberFault {
        what: "logs elsewhere",
        says: "StandardErrorPath",
        on_members: |payload, members| {
            replace(
                payload,
                "Library/LaunchDaemons/com.toktra.agent.plist",
                b"agent-error.log",
                b"agent-other.log",
            )?;
            edit(members, "agent.pkg/Payload", |archive| {
                *archive = cpio::gzipped(payload).unwrap_or_default()
            })
        },
    },
    MemberFault {
        what: "a script that is none",
        says: "postinstall",
        on_members: |_, members| {
            let mut scripts = Tree::default();
            scripts.file("preinstall", 0o755, "exit 0");
            scripts.file("postinstall", 0o755, "if");
            edit(members, "agent.pkg/Scripts", |archive| {
                *archive = cpio::gzipped(&scripts).unwrap_or_default()
            })
        },
    },
    MemberFault {
        what: "an older macOS",
        says: "the oldest macOS",
        on_members: |_, members| replace(members, "Distribution", b"min=\"13.0\"", b"min=\"12.0\""),
    },
    MemberFault {
        what: "an app that may be installed over a copy elsewhere",
        says: "elsewhere",
        on_members: |_, members| {
            replace(members, "agent.pkg/PackageInfo", b"<relocate/>", b"<relocate><a/></relocate>")
        },
    },
];

fn extension(path: &str) -> String {
    format!("{EXTENSION}/{path}")
}

fn edit(tree: &mut Tree, path: &str, change: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
    change(tree.content_mut(path).with_context(|| format!("there is no {path}"))?);
    Ok(())
}

/// Replaces every occurrence.
fn replace(tree: &mut Tree, path: &str, from: &[u8], to: &[u8]) -> Result<()> {
    edit(tree, path, |file| {
        let mut start = 0;
        while let Some(at) = find(&file[start..], from) {
            let at = start + at;
            file.splice(at..at + from.len(), to.iter().copied());
            start = at + to.len();
        }
    })
}

/// Changes each slice of a universal file.
fn in_slices(app: &mut Tree, path: &str, change: impl Fn(&mut [u8])) -> Result<()> {
    edit(app, path, |file| {
        let word = |file: &[u8], at: usize| {
            file[at..at + 4].iter().fold(0, |word, byte| word << 8 | usize::from(*byte))
        };
        for index in 0..word(file, 4) {
            let (offset, length) = (word(file, 8 + 20 * index + 8), word(file, 8 + 20 * index + 12));
            change(&mut file[offset..offset + length]);
        }
    })
}

/// Sets a version of the command LC_BUILD_VERSION at an offset in it, little-endian xxxx.yy.zz.
fn set_version(slice: &mut [u8], at: usize, major: u8) {
    const BUILD_VERSION: [u8; 12] = [0x32, 0, 0, 0, 32, 0, 0, 0, 1, 0, 0, 0]; // one tool; macOS
    if let Some(command) = find(slice, &BUILD_VERSION) {
        slice[command + at + 2] = major;
    }
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}
