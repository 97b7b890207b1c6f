//! The executables, slice by slice: architectures, versions, libraries, imports, the provider's class.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{Bundle, Check, Findings};
use crate::macos::link::{MINIMUM, SDK};
use crate::macos::macho::{Import, Slice, slices};
use crate::macos::symbols::Symbols;
use crate::macos::tbd;
use crate::macos::tree::Tree;

/// Both architectures together, in bytes.
const LARGEST_APP: u64 = 15 * 1024 * 1024;

/// Frameworks without which a program cannot do what it is for, by the bundle's identifier. Classes are
/// looked up by name at run time, so nothing but this load command brings them in.
const REQUIRED: [(&str, &[&str]); 2] = [
    ("com.toktra.agent", &["AppKit", "NetworkExtension", "SystemExtensions", "UserNotifications"]),
    ("com.toktra.agent.extension", &["NetworkExtension"]),
];

const LIBSYSTEM: &str = "/usr/lib/libSystem.B.dylib";

/// What is known of Apple's libraries: our list, and for libSystem somebody else's of macOS 13 too.
pub struct Known {
    symbols: Symbols,
    /// Exports of macOS 13's libSystem for an architecture.
    libsystem: Vec<(&'static str, BTreeSet<String>)>,
}

impl Known {
    /// Our list, and the one that comes with Zig.
    pub fn read(root: &Path, python: &Path) -> Result<Self> {
        let print = "import ziglang; print(ziglang.__path__[0])";
        let output = Command::new(python).args(["-c", print]).output().context("run scripts/setup macos")?;
        let directory = Path::new(std::str::from_utf8(&output.stdout)?.trim()).to_owned();
        let path = directory.join("lib/libc/darwin/libSystem.13.tbd");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let exports = |architecture| (architecture, tbd::exports(&text, &format!("{architecture}-macos")));
        Ok(Self { symbols: Symbols::read(root)?, libsystem: vec![exports("arm64"), exports("x86_64")] })
    }

    /// What is wrong with importing this symbol from there.
    fn wrong(&self, import: &Import, architecture: &str) -> Option<String> {
        let symbol = &import.symbol;
        let Some(library) = &import.library else {
            return Some(format!("{symbol} comes from no library in particular"));
        };
        match self.symbols.library(library)?.since(symbol) {
            Some(since) if since <= MINIMUM => {}
            Some(since) => return Some(format!("{symbol} of {library} needs macOS {since}")),
            None => return Some(format!("{symbol} of {library} is not in packaging/macos/symbols.toml")),
        }
        let mut others =
            self.libsystem.iter().filter(|(name, _)| *name == architecture && library == LIBSYSTEM);
        let is_missing = others.any(|(_, exports)| !exports.contains(symbol));
        is_missing.then(|| format!("{symbol} is not in the libSystem of macOS 13 that Zig knows"))
    }
}

pub fn size(app: &Tree, findings: &mut Findings) {
    let size = app.size();
    findings.unless(size <= LARGEST_APP, Check::Size, || {
        format!("the app has {size} bytes, more than {LARGEST_APP}")
    });
}

pub fn check(bundle: &Bundle<'_>, known: &Known, findings: &mut Findings) {
    let Some(file) = bundle.content(bundle.executable) else {
        return findings.add(Check::Architectures, format!("{}: no executable", bundle.id));
    };
    let slices = match slices(file) {
        Ok(slices) => slices,
        Err(error) => return findings.add(Check::Architectures, format!("{}: {error:#}", bundle.id)),
    };
    let architectures: Vec<&str> = slices.iter().map(|slice| slice.architecture).collect();
    findings.unless(architectures == ["arm64", "x86_64"], Check::Architectures, || {
        format!("{}: architectures {architectures:?}", bundle.id)
    });
    for slice in &slices {
        let place = format!("{} ({})", bundle.id, slice.architecture);
        findings.unless(slice.is_pie, Check::Architectures, || format!("{place}: no program at any address"));
        findings.unless(slice.minimum == Some(MINIMUM), Check::Versions, || {
            format!("{place}: the oldest macOS is {:?}, not {MINIMUM}", slice.minimum)
        });
        findings.unless(slice.sdk == Some(SDK), Check::Versions, || {
            format!("{place}: the SDK is {:?}, not {SDK}", slice.sdk)
        });
        libraries(bundle, slice, &known.symbols, &place, findings);
        for import in &slice.imports {
            if let Some(wrong) = known.wrong(import, slice.architecture) {
                findings.add(Check::Symbols, format!("{place}: {wrong}"));
            }
        }
    }
    if let Some(class) = provider_class(bundle) {
        let name = [class.as_bytes(), b"\0"].concat();
        for slice in &slices {
            let found = slice.bytes.windows(name.len()).any(|bytes| bytes == name);
            findings.unless(found, Check::ClassName, || {
                format!("{} ({}): no class {class}", bundle.id, slice.architecture)
            });
        }
    }
}

fn libraries(
    bundle: &Bundle<'_>,
    slice: &Slice<'_>,
    symbols: &Symbols,
    place: &str,
    findings: &mut Findings,
) {
    for library in &slice.libraries {
        findings.unless(symbols.library(library).is_some(), Check::Libraries, || {
            format!("{place}: loads {library}, which packaging/macos/symbols.toml does not have")
        });
    }
    let required = REQUIRED.iter().find(|(id, _)| *id == bundle.id).map_or(&[][..], |(_, names)| names);
    for name in required {
        let ending = format!("/{name}");
        findings.unless(slice.libraries.iter().any(|one| one.ends_with(&ending)), Check::Libraries, || {
            format!("{place}: does not load {name}")
        });
    }
}

fn provider_class(bundle: &Bundle<'_>) -> Option<String> {
    let plist = plist::Value::from_reader_xml(bundle.content("Contents/Info.plist")?).ok()?;
    let classes =
        plist.as_dictionary()?.get("NetworkExtension")?.as_dictionary()?.get("NEProviderClasses")?;
    let class = classes.as_dictionary()?.get("com.apple.networkextension.filter-data")?;
    Some(class.as_string()?.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code")]

    use super::*;

    #[test]
    fn an_import_is_wrong_without_a_library_if_unlisted_if_newer_and_if_zig_does_not_know_it() {
        let list = r#"
            [[library]]
            install_name = "/usr/lib/libSystem.B.dylib"
            link = ["System"]
            source = "a page"
            since."13.0" = ["_read", "_invented"]
            since."14.0" = ["_newer"]
        "#;
        let libsystem = vec![("arm64", BTreeSet::from(["_read".to_owned()])), ("x86_64", BTreeSet::new())];
        let known = Known { symbols: Symbols::parse(list).unwrap(), libsystem };
        let wrong = |symbol: &str, library: Option<&str>, architecture: &str| {
            let import = Import { symbol: symbol.to_owned(), library: library.map(str::to_owned) };
            known.wrong(&import, architecture).unwrap_or_default()
        };
        assert_eq!(wrong("_read", Some(LIBSYSTEM), "arm64"), "");
        assert!(wrong("_read", None, "arm64").contains("no library"));
        assert!(wrong("_write", Some(LIBSYSTEM), "arm64").contains("is not in packaging"));
        assert!(wrong("_newer", Some(LIBSYSTEM), "arm64").contains("needs macOS 14.0"));
        assert!(wrong("_invented", Some(LIBSYSTEM), "arm64").contains("Zig"));
        assert!(wrong("_read", Some(LIBSYSTEM), "x86_64").contains("Zig"));
    }
}
