//! Calls `rcodesign`, which signs for Apple's platforms on any machine: bundles, each with its own
//! entitlements and the hardened runtime; the package; and the submission to Apple's notary. Passwords stay in
//! files.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::identity::Identity;

/// Signs a bundle, from one directory to another; bundles inside it stay as they are.
///
/// So the extension is signed before the app: in one go, `rcodesign` 0.29 seals the app without the
/// extension's own seal, which it has not written then, and macOS would call that a file that was added.
pub fn sign_bundle(from: &Path, to: &Path, identity: &Identity, entitlements: &Path) -> Result<()> {
    let mut rcodesign = signing(identity, &identity.application());
    rcodesign.args(["--code-signature-flags=runtime", "--exclude=**"]);
    if !identity.is_test {
        rcodesign.arg("--for-notarization");
    }
    say_if_it_fails(rcodesign.arg("--entitlements-xml-file").arg(entitlements).arg(from).arg(to))
}

/// Signs a package.
pub fn sign_package(from: &Path, to: &Path, identity: &Identity) -> Result<()> {
    say_if_it_fails(signing(identity, &identity.installer()).arg(from).arg(to))
}

/// Submits a package to Apple's notary, waits for the verdict and staples it to the package.
pub fn notarize(package: &Path, api_key: &Path, max_wait_s: u32) -> Result<()> {
    let mut rcodesign = Command::new("rcodesign");
    rcodesign.arg("notary-submit").arg("--api-key-file").arg(api_key);
    rcodesign.arg(format!("--max-wait-seconds={max_wait_s}")).arg("--staple").arg(package);
    say_if_it_fails(&mut rcodesign)
        .context("if it has no notary-submit: cargo install --locked --force apple-codesign@0.29.0")
}

/// Any other verb.
pub fn run(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<()> {
    say_if_it_fails(Command::new("rcodesign").args(arguments))
}

fn signing(identity: &Identity, key: &Path) -> Command {
    let mut rcodesign = Command::new("rcodesign");
    rcodesign.arg("sign").arg("--p12-file").arg(key);
    rcodesign.arg("--p12-password-file").arg(identity.password());
    rcodesign.arg("--team-name").arg(&identity.team_id);
    if identity.is_test {
        // Nobody outside is asked for the time.
        rcodesign.args(["--timestamp-url", "none"]);
    }
    rcodesign
}

fn say_if_it_fails(rcodesign: &mut Command) -> Result<()> {
    let output = rcodesign.output().context("rcodesign cannot be started: run scripts/setup macos")?;
    let said = [output.stdout, output.stderr].concat();
    ensure!(output.status.success(), "rcodesign: {}", String::from_utf8_lossy(&said).trim());
    Ok(())
}
