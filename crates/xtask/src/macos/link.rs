//! Builds `toktra-agent` and `toktra-extension` for both architectures of a Mac, on any machine: rustc with
//! its own `rust-lld` against the stubs of `symbols`, and Zig's C compiler with its headers for the
//! few C files of ring and zstd. No SDK of Apple's is used. The paths of this machine are not in what comes
//! out, so two clones of a commit give the same bytes.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::symbols::{Symbols, Version};
use super::universal::universal;

/// The oldest macOS that the programs run on.
pub const MINIMUM: Version = Version(13, 0);
/// The SDK that the programs claim, by which AppKit decides how they look and behave.
pub const SDK: Version = Version(14, 5);

/// Cargo's profile for what ships.
const PROFILE: &str = "macos";

/// The names of the executables as cargo knows them.
pub const PROGRAMS: [&str; 2] = ["toktra-agent", "toktra-extension"];

/// Targets of rustc, and what Zig calls them.
const TARGETS: [(&str, &str); 2] =
    [("aarch64-apple-darwin", "aarch64-macos"), ("x86_64-apple-darwin", "x86_64-macos")];

/// Where things are, and how to build.
pub struct Linker<'linker> {
    /// The repository.
    pub root: &'linker Path,
    /// Python with the C compiler, as `scripts/setup` installs it.
    pub python: &'linker Path,
    /// Cargo's target directory.
    pub target: &'linker Path,
    /// What this chore makes, below `target`.
    pub output: &'linker Path,
}

impl Linker<'_> {
    /// The universal binaries, in the order of [`PROGRAMS`].
    pub fn build(&self) -> Result<[Vec<u8>; 2]> {
        let sdk = self.output.join("sdk");
        Symbols::read(self.root)?.stubs()?.write(&sdk)?;
        self.compile(&sdk)?;
        let universal_of = |program: &str| -> Result<Vec<u8>> {
            let [arm, intel] = TARGETS.map(|(target, _)| self.built(target, program));
            universal(&[arm?, intel?]).with_context(|| program.to_owned())
        };
        Ok([universal_of(PROGRAMS[0])?, universal_of(PROGRAMS[1])?])
    }

    /// All at once, so that what runs on this machine is built once and the last steps, which each take one
    /// processor, run beside each other.
    fn compile(&self, sdk: &Path) -> Result<()> {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo
            .current_dir(self.root)
            .args(["build", "--locked", "--quiet", "--profile", PROFILE])
            .args(PROGRAMS.iter().flat_map(|program| ["--package", program, "--bin", program]))
            .env("CARGO_TARGET_DIR", self.target)
            .env("CARGO_ENCODED_RUSTFLAGS", self.rustflags()?)
            .env("SDKROOT", sdk)
            .env("MACOSX_DEPLOYMENT_TARGET", MINIMUM.to_string())
            .env("ZIG_GLOBAL_CACHE_DIR", self.output.join("zig"))
            .env("ZIG_LOCAL_CACHE_DIR", self.output.join("zig"))
            // Flags that are clang's but not Zig's.
            .env("CRATE_CC_NO_DEFAULTS", "1");
        for (target, zig_target) in TARGETS {
            let variable = target.replace('-', "_");
            cargo
                .args(["--target", target])
                .env(format!("CC_{variable}"), self.c_compiler(target, zig_target)?)
                .env(format!("AR_{variable}"), self.script("ar", "ar")?);
        }
        let status = cargo.status().context("cargo cannot be started")?;
        ensure!(
            status.success(),
            "not built. Of a symbol that is undefined, write its library and the macOS that has it into \
             packaging/macos/symbols.toml"
        );
        Ok(())
    }

    /// Joined by the unit separator, as cargo wants flags that may hold spaces.
    fn rustflags(&self) -> Result<OsString> {
        let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cargo")));
        let mut flags = vec![
            "-Clinker=rust-lld".to_owned(),
            "-Clinker-flavor=ld64.lld".to_owned(),
            "-Clink-arg=-platform_version".to_owned(),
            "-Clink-arg=macos".to_owned(),
            format!("-Clink-arg={MINIMUM}"),
            format!("-Clink-arg={SDK}"),
            "-Clink-arg=--error-limit=0".to_owned(),
        ];
        // The last that fits counts, and the target directory is mostly inside the repository.
        let homes = [home.as_deref(), Some(self.root), Some(self.target)];
        for (path, name) in homes.into_iter().zip(["/cargo", "/toktra", "/target"]) {
            let path = path.and_then(Path::to_str).context("a path is not UTF-8, or there is no home")?;
            flags.push(format!("--remap-path-prefix={path}={name}"));
        }
        Ok(flags.join("\u{1f}").into())
    }

    fn c_compiler(&self, target: &str, zig_target: &str) -> Result<PathBuf> {
        let flags = format!("cc -target {zig_target}.{MINIMUM} -O2 -g0 -fno-sanitize=undefined");
        self.script(&format!("cc-{target}"), &flags)
    }

    /// A program of one line that calls Zig, since cargo takes a compiler as one path.
    fn script(&self, name: &str, arguments: &str) -> Result<PathBuf> {
        let python = self.python.display();
        ensure!(self.python.exists(), "there is no {python}: run scripts/setup macos");
        let directory = self.output.join("tools");
        fs::create_dir_all(&directory)?;
        let script = directory.join(name);
        fs::write(&script, format!("#!/bin/sh\nexec '{python}' -m ziglang {arguments} \"$@\"\n"))?;
        fs::set_permissions(&script, Permissions::from_mode(0o755))?;
        Ok(script)
    }

    fn built(&self, target: &str, program: &str) -> Result<Vec<u8>> {
        let path = self.target.join(target).join(PROFILE).join(program);
        fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    }
}
