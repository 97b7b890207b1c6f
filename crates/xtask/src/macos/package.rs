//! Assembles the installer package: one component (payload, bill of materials, scripts) inside a
//! distribution that asks for macOS 13 and the system's own volume. Equal apps give equal packages; a
//! signature comes after. Layout: <https://developer.apple.com/documentation/xcode/packaging-mac-software-for-distribution>,
//! `pkgbuild(1)` and `productbuild(1)`.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::bundle::filled;
use super::tree::{ADMIN, Tree};
use super::{bom, cpio, xar};

/// Files of `packaging/macos/system` and where they are installed.
const SYSTEM: [(&str, &str); 3] = [
    ("com.toktra.agent.plist", "Library/LaunchDaemons/com.toktra.agent.plist"),
    ("com.toktra.agent.menu.plist", "Library/LaunchAgents/com.toktra.agent.menu.plist"),
    ("com.toktra.agent.newsyslog.conf", "private/etc/newsyslog.d/com.toktra.agent.conf"),
];

/// The unsigned package of a signed app.
pub fn assemble(packaging: &Path, app: Tree, version: &str) -> Result<Vec<u8>> {
    xar::archive(&members(packaging, &payload(packaging, app)?, version)?)
}

/// What the package's archive holds.
pub fn members(packaging: &Path, payload: &Tree, version: &str) -> Result<Tree> {
    let mut scripts = Tree::default();
    for name in ["preinstall", "postinstall"] {
        scripts.file(
            name,
            0o755,
            filled(packaging, &format!("package/scripts/{name}"), &[("TOKTRA_VERSION", version)])?,
        );
    }
    // The top directory counts too.
    let files = (payload.iter().count() + 1).to_string();
    let kilobytes = payload.size().div_ceil(1024).to_string();
    let values = [("TOKTRA_VERSION", version), ("TOKTRA_FILES", &files), ("TOKTRA_KILOBYTES", &kilobytes)];

    let mut package = Tree::default();
    package.file("Distribution", 0o644, filled(packaging, "package/Distribution", &values)?);
    package.file("agent.pkg/PackageInfo", 0o644, filled(packaging, "package/PackageInfo", &values)?);
    package.file("agent.pkg/Bom", 0o644, bom::bill(payload)?);
    package.file("agent.pkg/Payload", 0o644, cpio::gzipped(payload)?);
    package.file("agent.pkg/Scripts", 0o644, cpio::gzipped(&scripts)?);
    Ok(package)
}

/// Everything that is installed, from the root of the volume. Directories of the system's have the
/// system's modes and groups.
pub fn payload(packaging: &Path, app: Tree) -> Result<Tree> {
    let mut payload = Tree::default();
    payload.directory("Applications", 0o775, ADMIN);
    payload.graft("Applications/ToktraAgent.app", app);
    for (name, place) in SYSTEM {
        let path = packaging.join("system").join(name);
        let content = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        payload.file(place, 0o644, content);
    }
    // launchd does not make the directory of a log.
    payload.directory("private/var/log/toktra", 0o755, 0);
    Ok(payload)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code")]

    use super::*;

    #[test]
    fn equal_apps_give_equal_packages_and_others_do_not() {
        let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/macos");
        let app = |content: &str| {
            let mut tree = Tree::default();
            tree.file("Contents/MacOS/ToktraAgent", 0o755, content);
            tree
        };
        let package = |content| assemble(&packaging, app(content), "1.2.3").unwrap();
        assert_eq!(package("code"), package("code"));
        assert_ne!(package("code"), package("other"));
    }

    #[test]
    fn the_script_tells_an_older_version_from_a_newer_one_by_numbers() {
        let script = include_str!("../../../../packaging/macos/package/scripts/preinstall");
        let (_, function) = script.split_once("older() {").unwrap();
        let (function, _) = function.split_once("\n}\n").unwrap();
        let is_older = |left: &str, right: &str| {
            let command = format!("older() {{{function}\n}}\nolder {left} {right}");
            std::process::Command::new("sh").args(["-c", &command]).status().unwrap().success()
        };
        for (left, right) in [("0.1.0", "0.2.0"), ("0.9.0", "0.10.0"), ("1.2.3", "1.2.4"), ("1.9.9", "2.0.0")]
        {
            assert!(is_older(left, right) && !is_older(right, left), "{left} {right}");
            assert!(!is_older(left, left));
        }
    }
}
