//! The manifest: what was made, so that two machines can compare it and a person can see it at a glance.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use ring::digest::{SHA256, digest};
use serde::Serialize;

use super::bundle::{APP_EXECUTABLE, EXTENSION, EXTENSION_EXECUTABLE};
use super::check::{APP, Artefacts, MOBILECONFIG};
use super::link::{MINIMUM, SDK};
use super::macho::slices;
use super::tree::{Tree, hex};

/// As it is printed and written.
#[derive(Debug, Serialize)]
pub struct Manifest {
    version: &'static str,
    /// Of the sources; `-dirty` if they were changed since.
    commit: String,
    team_id: String,
    /// Trusted by nobody.
    test_identity: bool,
    minimum_macos: String,
    sdk: String,
    /// SHA-256 over the app's tree before it was signed: equal for two builds of a commit.
    unsigned_app_sha256: String,
    app_bytes: u64,
    programs: Vec<Program>,
    files: Vec<File>,
}

#[derive(Debug, Serialize)]
struct Program {
    name: &'static str,
    architecture: &'static str,
    bytes: usize,
    imported_symbols: usize,
    libraries: Vec<String>,
}

#[derive(Debug, Serialize)]
struct File {
    name: String,
    bytes: usize,
    sha256: String,
}

impl Manifest {
    /// Of what lies among the artefacts.
    pub fn of(artefacts: &Artefacts, unsigned: &Tree, test_identity: bool) -> Result<Self> {
        let app = Tree::read(&artefacts.directory.join(APP))?;
        let executables = [
            ("ToktraAgent", APP_EXECUTABLE.to_owned()),
            ("ToktraExtension", format!("{EXTENSION}/{EXTENSION_EXECUTABLE}")),
        ];
        let mut programs = Vec::new();
        for (name, path) in &executables {
            for slice in slices(app.content(path).context("no executable")?)? {
                programs.push(Program {
                    name,
                    architecture: slice.architecture,
                    bytes: slice.bytes.len(),
                    imported_symbols: slice.imports.len(),
                    libraries: slice.libraries,
                });
            }
        }
        let files = [&artefacts.package, MOBILECONFIG].map(|name| -> Result<File> {
            let content = fs::read(artefacts.directory.join(name)).with_context(|| name.to_owned())?;
            let sha256 = hex(digest(&SHA256, &content).as_ref());
            Ok(File { name: name.to_owned(), bytes: content.len(), sha256 })
        });
        Ok(Self {
            version: env!("CARGO_PKG_VERSION"),
            commit: commit(),
            team_id: artefacts.team_id.clone(),
            test_identity,
            minimum_macos: MINIMUM.to_string(),
            sdk: SDK.to_string(),
            unsigned_app_sha256: unsigned.digest(),
            app_bytes: app.size(),
            programs,
            files: files.into_iter().collect::<Result<_>>()?,
        })
    }

    /// Writes it to a file and to standard output.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        fs::write(path, &text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(std::io::stdout().write_all(text.as_bytes())?)
    }
}

fn commit() -> String {
    let git =
        Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]).output();
    match git {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => "unknown".to_owned(),
    }
}
