//! The package as others read it: `packaging/macos/read_package.py`, which shares nothing with the packager.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{Artefacts, Check, Findings, MOBILECONFIG};

pub fn check(artefacts: &Artefacts, root: &Path, python: &Path, findings: &mut Findings) -> Result<()> {
    let mut python = Command::new(python);
    python.arg(root.join("packaging/macos/read_package.py"));
    python.arg(artefacts.directory.join(&artefacts.package));
    python.arg(artefacts.directory.join(MOBILECONFIG));
    python.args(&artefacts.certificates[1]);
    let output = python.output().context("python cannot be started: run scripts/setup macos")?;
    let said = String::from_utf8_lossy(&output.stdout);
    for line in said.lines().filter(|line| !line.is_empty()) {
        findings.add(Check::Package, line);
    }
    if !output.status.success() && said.trim().is_empty() {
        findings.add(Check::Package, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
