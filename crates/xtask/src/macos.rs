//! `cargo xtask macos`: from the sources to what an administrator deploys on Macs, on any machine: universal
//! binaries, ToktraAgent.app with the extension inside, signatures, an installer package, the MDM profile,
//! a manifest, and checks of all of it. Everything lands in `dist/` of cargo's target directory;
//! what goes in lies in `packaging/macos`. docs/macos-packaging.md says how to use it.

mod bom;
mod bundle;
mod check;
mod cpio;
mod faults;
mod icon;
mod identity;
mod link;
mod macho;
mod manifest;
mod package;
mod rcodesign;
mod symbols;
mod tbd;
mod tree;
mod universal;
mod xar;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Subcommand};

use check::{APP, Artefacts, MOBILECONFIG};
use identity::Identity;
use link::Linker;
use manifest::Manifest;

/// Options of `macos`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Options {
    #[command(subcommand)]
    deed: Option<Deed>,
    #[command(flatten)]
    build: Build,
}

#[derive(Debug, Subcommand)]
enum Deed {
    /// Submit a signed package to Apple's notary, wait for the verdict, staple it to the package.
    Notarize {
        /// The package.
        package: PathBuf,
        /// The key for App Store Connect, from `rcodesign encode-app-store-connect-api-key`.
        #[arg(long)]
        api_key: PathBuf,
        /// How long to wait for the verdict.
        #[arg(long, default_value_t = 1_800)]
        max_wait_s: u32,
    },
}

#[derive(Debug, Args)]
struct Build {
    /// A directory with application.p12, installer.p12, password, team-id and, for each bundle,
    /// agent.provisionprofile and extension.provisionprofile. Without it a test identity signs.
    #[arg(long)]
    identity: Option<PathBuf>,
    /// Break the artefacts in every way that the checks are for, and see that each is noticed.
    #[arg(long)]
    faults: bool,
    /// Build it all again in another directory, and see that it comes out the same.
    #[arg(long)]
    twice: bool,
}

/// Runs the chore in this repository.
pub fn run(options: &Options) -> Result<()> {
    let root = fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))?;
    let target = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(target) => std::path::absolute(target)?,
        None => root.join("target"),
    };
    match &options.deed {
        Some(Deed::Notarize { package, api_key, max_wait_s }) => {
            rcodesign::notarize(package, api_key, *max_wait_s)
        }
        None => Workshop::new(root, target).make(&options.build),
    }
}

/// Where things are made.
struct Workshop {
    root: PathBuf,
    target: PathBuf,
    output: PathBuf,
    python: PathBuf,
}

impl Workshop {
    fn new(root: PathBuf, target: PathBuf) -> Self {
        Self { output: target.join("dist"), python: target.join("venv/bin/python"), root, target }
    }

    fn make(&self, options: &Build) -> Result<()> {
        let packaging = self.root.join("packaging/macos");
        let identity = match &options.identity {
            Some(directory) => Identity::open(directory)?,
            None => Identity::test(&self.output.join("identity"), &packaging)?,
        };
        let [agent_profile, extension_profile] = identity.profiles()?;
        let has_profiles = agent_profile.is_some() && extension_profile.is_some();

        say("building for arm64 and x86_64")?;
        let [agent, extension] = self.linker(&self.target).build()?;
        if options.twice {
            self.build_again([&agent, &extension])?;
        }
        let version = env!("CARGO_PKG_VERSION");
        let parts = bundle::Parts {
            agent,
            extension,
            agent_profile,
            extension_profile,
            team_id: &identity.team_id,
            version,
        };
        let unsigned = bundle::assemble(&packaging, parts)?;

        say("signing and packaging")?;
        let signed = self.sign(&packaging, &unsigned, &identity)?;
        let package = format!("ToktraAgent-{version}.pkg");
        let before = self.output.join("unsigned.pkg");
        fs::write(&before, package::assemble(&packaging, signed, version)?)?;
        rcodesign::sign_package(&before, &self.output.join(&package), &identity)?;
        fs::copy(packaging.join(MOBILECONFIG), self.output.join(MOBILECONFIG))?;

        say("checking")?;
        let artefacts = Artefacts {
            directory: self.output.clone(),
            package,
            team_id: identity.team_id.clone(),
            certificates: ["application", "installer"].map(|which| identity.certificate(which)),
            has_profiles,
        };
        let findings = check::all(&artefacts, &self.root, &self.python)?;
        for finding in &findings.0 {
            say(&format!("{:?}: {}", finding.check, finding.what))?;
        }
        ensure!(findings.0.is_empty(), "{} findings", findings.0.len());
        if options.faults {
            let count = faults::run(&artefacts, &self.root, &self.python)?;
            say(&format!("{count} faults, each noticed by its check"))?;
        }
        if !has_profiles {
            say("NOT checked: there are no provisioning profiles; without them no Mac runs the extension")?;
        }
        let manifest = Manifest::of(&artefacts, &unsigned, identity.is_test)?;
        manifest.write(&self.output.join("manifest.json"))
    }

    fn linker<'parts>(&'parts self, target: &'parts Path) -> Linker<'parts> {
        Linker { root: &self.root, python: &self.python, target, output: &self.output }
    }

    fn build_again(&self, first: [&Vec<u8>; 2]) -> Result<()> {
        say("building once more, elsewhere")?;
        let elsewhere = tempfile::tempdir_in(&self.output)?;
        let second = self.linker(elsewhere.path()).build()?;
        for (name, (first, second)) in link::PROGRAMS.into_iter().zip(first.into_iter().zip(&second)) {
            ensure!(first == second, "two builds of {name} differ");
        }
        say("both builds are the same, byte for byte")
    }

    /// Signs the extension and then the app around it, and reads it back.
    fn sign(&self, packaging: &Path, unsigned: &tree::Tree, identity: &Identity) -> Result<tree::Tree> {
        let team = [("TOKTRA_TEAM_ID", identity.team_id.as_str())];
        let place = self.output.join("unsigned");
        unsigned.write(&place.join(APP))?;
        let entitlements_of = |folder: &str| -> Result<PathBuf> {
            let path = place.join(format!("{folder}.entitlements"));
            fs::write(&path, bundle::filled(packaging, &format!("{folder}/entitlements.plist"), &team)?)?;
            Ok(path)
        };
        let (half, signed) = (place.join("half-signed.app"), self.output.join(APP));
        unsigned.write(&half)?;
        let [from, to] = [place.join(APP), half.clone()].map(|app| app.join(bundle::EXTENSION));
        rcodesign::sign_bundle(&from, &to, identity, &entitlements_of("extension")?)?;
        if signed.exists() {
            fs::remove_dir_all(&signed)?;
        }
        rcodesign::sign_bundle(&half, &signed, identity, &entitlements_of("app")?)?;
        fs::remove_dir_all(&half)?;
        tree::Tree::read(&signed)
    }
}

fn say(what: &str) -> Result<()> {
    writeln!(std::io::stderr(), "macos: {what}").context("cannot write")
}
