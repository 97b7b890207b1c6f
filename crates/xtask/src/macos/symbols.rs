//! What we use of Apple's libraries: `packaging/macos/symbols.toml`, which names each library, each symbol
//! that is imported from it, the version of macOS that has it and where that is known from. It is both the
//! stub that the linker reads (none of Apple's own files is used) and the list that the built programs are
//! checked against: what it lacks does not link.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::tbd;
use super::tree::Tree;

/// A version of macOS: major and minor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u16, pub u8);

impl std::fmt::Display for Version {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}.{}", self.0, self.1)
    }
}

impl std::str::FromStr for Version {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (major, minor) = text.split_once('.').context("a version is written as major.minor")?;
        Ok(Self(major.parse()?, minor.parse()?))
    }
}

/// All libraries that may be linked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Symbols {
    library: Vec<Library>,
}

/// One library of the system.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Library {
    /// Its path on a Mac, by which a program asks for it.
    pub install_name: String,
    /// For `lib….dylib`: the names of `-l` that lead to it. A framework has its own name.
    #[serde(default)]
    link: Vec<String>,
    /// Where the versions below are from.
    #[serde(rename = "source")]
    _source: String,
    /// Symbols by a version of macOS that has them; an older one may have them too.
    #[serde(default)]
    since: BTreeMap<String, Vec<String>>,
}

impl Symbols {
    /// Reads the list of this repository.
    pub fn read(root: &Path) -> Result<Self> {
        let path = root.join("packaging/macos/symbols.toml");
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).context("packaging/macos/symbols.toml")
    }

    /// Reads a list.
    pub fn parse(text: &str) -> Result<Self> {
        let symbols: Self = toml::from_str(text)?;
        for version in symbols.library.iter().flat_map(|library| library.since.keys()) {
            version.parse::<Version>().with_context(|| format!("since {version}"))?;
        }
        Ok(symbols)
    }

    /// The library with this path.
    pub fn library(&self, install_name: &str) -> Option<&Library> {
        self.library.iter().find(|library| library.install_name == install_name)
    }

    /// The stubs as the linker looks for them below `-syslibroot`.
    pub fn stubs(&self) -> Result<Tree> {
        let mut tree = Tree::default();
        for library in &self.library {
            for path in library.stub_paths()? {
                tree.file(path.to_str().context("not UTF-8")?, 0o644, library.stub());
            }
        }
        Ok(tree)
    }
}

impl Library {
    /// The version that has this symbol; `None` if the list lacks it.
    pub fn since(&self, symbol: &str) -> Option<Version> {
        let (version, _) = self.since.iter().find(|(_, symbols)| symbols.iter().any(|one| one == symbol))?;
        version.parse().ok()
    }

    fn stub_paths(&self) -> Result<Vec<PathBuf>> {
        let relative = Path::new(self.install_name.trim_start_matches('/'));
        if !self.link.is_empty() {
            return Ok(self
                .link
                .iter()
                .map(|name| PathBuf::from(format!("usr/lib/lib{name}.tbd")))
                .collect());
        }
        let framework = relative
            .ancestors()
            .find(|path| path.extension().is_some_and(|extension| extension == "framework"))
            .with_context(|| format!("{} is no framework and has no `link`", self.install_name))?;
        let name = framework.file_stem().context("a framework has a name")?;
        Ok(vec![framework.join(name).with_extension("tbd")])
    }

    fn stub(&self) -> String {
        tbd::stub(&self.install_name, self.since.values().flatten())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code")]

    use super::*;

    const LIST: &str = r#"
        [[library]]
        install_name = "/usr/lib/libSystem.B.dylib"
        link = ["System", "m"]
        source = "a page"
        since."13.0" = ["_read"]
        [[library]]
        install_name = "/System/Library/Frameworks/AppKit.framework/Versions/C/AppKit"
        source = "a page"
    "#;

    #[test]
    fn a_library_has_a_stub_for_each_name_and_a_framework_one() {
        let stubs = Symbols::parse(LIST).unwrap().stubs().unwrap();
        let paths: Vec<&str> =
            stubs.iter().filter(|(_, entry)| entry.content.is_some()).map(|(path, _)| path).collect();
        let appkit = "System/Library/Frameworks/AppKit.framework/AppKit.tbd";
        assert_eq!(paths, [appkit, "usr/lib/libSystem.tbd", "usr/lib/libm.tbd"]);
        let system = String::from_utf8(stubs.content("usr/lib/libm.tbd").unwrap().to_vec()).unwrap();
        assert!(system.contains("symbols: [ '_read' ]"), "{system}");
    }

    #[test]
    fn a_symbol_has_the_version_that_the_list_gives_it() {
        let symbols = Symbols::parse(LIST).unwrap();
        let library = symbols.library("/usr/lib/libSystem.B.dylib").unwrap();
        assert_eq!(library.since("_read"), Some(Version(13, 0)));
        assert_eq!(library.since("_write"), None);
    }

    #[test]
    fn a_version_that_is_none_is_refused() {
        assert!(Symbols::parse(&LIST.replace("13.0", "ventura")).is_err());
    }

    #[test]
    fn this_repositorys_list_can_be_read() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        assert!(Symbols::read(&root).unwrap().stubs().is_ok());
    }
}
