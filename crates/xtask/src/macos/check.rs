//! Whether what was built, signed and packaged is what a Mac and an MDM expect. A check reads the artefacts
//! as they are on disk and says what is wrong; `faults` shows that each of them can.

mod package;
mod plists;
mod profile;
mod programs;
mod resources;
mod signature;

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::bundle;
use super::tree::Tree;

/// What can be wrong, by the check that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Both architectures, each a position-independent program.
    Architectures,
    /// Oldest macOS and SDK.
    Versions,
    /// Libraries that are loaded.
    Libraries,
    /// Imported symbols, each in macOS 13.
    Symbols,
    /// The provider's class is in the extension under the name that its Info.plist says.
    ClassName,
    /// Property lists are valid and have what the system asks for.
    Plists,
    /// Each slice's signature covers its code, its Info.plist and its resources, for the right team.
    Signature,
    /// Signed entitlements are those that were meant.
    Entitlements,
    /// The provisioning profile covers the entitlements.
    Profile,
    /// Every file is sealed, and nothing else is.
    Resources,
    /// The app's size.
    Size,
    /// Independent tools read the package, and what they find agrees.
    Package,
    /// The MDM profile.
    MobileConfig,
}

/// Something that is wrong.
#[derive(Debug)]
pub struct Finding {
    /// The check that found it.
    pub check: Check,
    /// What is wrong, and where.
    pub what: String,
}

/// Findings as they are made.
#[derive(Debug, Default)]
pub struct Findings(pub Vec<Finding>);

impl Findings {
    fn add(&mut self, check: Check, what: impl Into<String>) {
        self.0.push(Finding { check, what: what.into() });
    }

    fn unless(&mut self, holds: bool, check: Check, what: impl FnOnce() -> String) {
        if !holds {
            self.add(check, what());
        }
    }
}

/// What is to be checked, and against what.
#[derive(Debug, Clone)]
pub struct Artefacts {
    /// Where the app, the package and the profile lie.
    pub directory: PathBuf,
    /// The package's file name.
    pub package: String,
    /// The Team ID that signs.
    pub team_id: String,
    /// Certificates (PEM) that must have signed code and package; without them whichever did is taken.
    pub certificates: [Option<PathBuf>; 2],
    /// Whether both bundles must have a provisioning profile.
    pub has_profiles: bool,
}

/// The app's directory among the artefacts.
pub const APP: &str = "ToktraAgent.app";
/// The MDM profile among the artefacts.
pub const MOBILECONFIG: &str = "com.toktra.agent.mobileconfig";

/// A bundle inside the app, and what it should be.
struct Bundle<'app> {
    id: &'static str,
    /// The prefix of its files in the app's tree: nothing, or a directory with its slash.
    prefix: String,
    executable: &'static str,
    /// Its folder in `packaging/macos`.
    folder: &'static str,
    app: &'app Tree,
}

impl<'app> Bundle<'app> {
    fn all(app: &'app Tree) -> [Self; 2] {
        [
            Self {
                id: bundle::APP_ID,
                prefix: String::new(),
                executable: bundle::APP_EXECUTABLE,
                folder: "app",
                app,
            },
            Self {
                id: bundle::EXTENSION_ID,
                prefix: format!("{}/", bundle::EXTENSION),
                executable: bundle::EXTENSION_EXECUTABLE,
                folder: "extension",
                app,
            },
        ]
    }

    fn content(&self, path: &str) -> Option<&'app [u8]> {
        self.app.content(&format!("{}{path}", self.prefix))
    }
}

/// Checks everything. `root` is the repository, for what was meant.
pub fn all(artefacts: &Artefacts, root: &Path, python: &Path) -> Result<Findings> {
    let mut findings = app(artefacts, root, python)?;
    findings.0.extend(deployment(artefacts, root, python)?.0);
    Ok(findings)
}

/// Checks what an MDM delivers.
pub fn deployment(artefacts: &Artefacts, root: &Path, python: &Path) -> Result<Findings> {
    let mut findings = Findings::default();
    package::check(artefacts, root, python, &mut findings)?;
    profile::mobileconfig(artefacts, &mut findings)?;
    Ok(findings)
}

/// Checks the app and the extension inside it.
pub fn app(artefacts: &Artefacts, root: &Path, python: &Path) -> Result<Findings> {
    let mut findings = Findings::default();
    let known = programs::Known::read(root, python)?;
    let app = Tree::read(&artefacts.directory.join(APP))?;
    programs::size(&app, &mut findings);
    for bundle in Bundle::all(&app) {
        plists::check(&bundle, &mut findings);
        programs::check(&bundle, &known, &mut findings);
        resources::check(&bundle, &mut findings);
        signature::check(&bundle, artefacts, root, &mut findings)?;
        profile::covers(&bundle, artefacts, &mut findings);
    }
    Ok(findings)
}
