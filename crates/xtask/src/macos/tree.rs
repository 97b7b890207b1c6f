//! A tree of files as a value, between the disk and the archives. Its order is that of the paths, its
//! times are none and its owners are root's, so what is made from it depends on its content alone.
//! Invariants: a path is relative, with `/` and without `.` or `..`; every entry but those at the top has
//! its directory in the tree; there is no link of any kind.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use ring::digest::{self, SHA256};

/// `wheel`, the group of what the system owns.
const WHEEL: u32 = 0;
/// `admin`, the group that may write to `/Applications`.
pub const ADMIN: u32 = 80;

/// Directories and files by their paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    entries: BTreeMap<String, Entry>,
}

/// One directory or file; its owner is root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Permission bits, such as `0o755`.
    pub mode: u32,
    /// The owning group's number.
    pub group: u32,
    /// A file's bytes; `None` for a directory.
    pub content: Option<Vec<u8>>,
}

impl Entry {
    /// The type's bits and the permissions', as in `st_mode`.
    pub fn st_mode(&self) -> u32 {
        self.mode | if self.content.is_some() { 0o100_000 } else { 0o040_000 }
    }

    /// A file's length in bytes; a directory has none.
    pub fn len(&self) -> usize {
        self.content.as_ref().map_or(0, Vec::len)
    }
}

impl Tree {
    /// Adds a file, and the directories above it that are missing.
    pub fn file(&mut self, path: &str, mode: u32, content: impl Into<Vec<u8>>) {
        if let Some((above, _)) = path.rsplit_once('/') {
            self.directory(above, 0o755, WHEEL);
        }
        let entry = Entry { mode, group: WHEEL, content: Some(content.into()) };
        self.entries.insert(path.to_owned(), entry);
    }

    /// Adds a directory, and those above it, unless it is there.
    pub fn directory(&mut self, path: &str, mode: u32, group: u32) {
        if self.entries.contains_key(path) {
            return;
        }
        if let Some((above, _)) = path.rsplit_once('/') {
            self.directory(above, 0o755, WHEEL);
        }
        self.entries.insert(path.to_owned(), Entry { mode, group, content: None });
    }

    /// Adds another tree below a directory.
    pub fn graft(&mut self, below: &str, other: Self) {
        self.directory(below, 0o755, WHEEL);
        self.entries
            .extend(other.entries.into_iter().map(|(path, entry)| (format!("{below}/{path}"), entry)));
    }

    /// What a directory on disk holds. Of permissions only whether a file may be executed is taken.
    pub fn read(directory: &Path) -> Result<Self> {
        let mut tree = Self::default();
        let mut open = vec![directory.to_owned()];
        while let Some(place) = open.pop() {
            for entry in fs::read_dir(&place).with_context(|| format!("cannot list {}", place.display()))? {
                let path = entry?.path();
                let name = path.strip_prefix(directory)?.to_str().context("a name is not UTF-8")?.to_owned();
                let metadata = fs::symlink_metadata(&path)?;
                if metadata.is_dir() {
                    tree.directory(&name, 0o755, WHEEL);
                    open.push(path);
                } else if metadata.is_file() {
                    let executable = metadata.permissions().mode() & 0o111 != 0;
                    let content =
                        fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
                    tree.file(&name, if executable { 0o755 } else { 0o644 }, content);
                } else {
                    bail!("{} is neither a file nor a directory", path.display());
                }
            }
        }
        Ok(tree)
    }

    /// Writes the tree into a directory that it makes anew: what was there is deleted.
    pub fn write(&self, directory: &Path) -> Result<()> {
        if directory.exists() {
            fs::remove_dir_all(directory).with_context(|| format!("cannot clear {}", directory.display()))?;
        }
        fs::create_dir_all(directory)?;
        for (path, entry) in &self.entries {
            let place = directory.join(path);
            match &entry.content {
                None => fs::create_dir(&place),
                Some(content) => fs::write(&place, content)
                    .and_then(|()| fs::set_permissions(&place, Permissions::from_mode(entry.mode))),
            }
            .with_context(|| format!("cannot write {}", place.display()))?;
        }
        Ok(())
    }

    /// All entries in the order of their paths: a directory before what is in it.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(path, entry)| (path.as_str(), entry))
    }

    /// A file's bytes.
    pub fn content(&self, path: &str) -> Option<&[u8]> {
        self.entries.get(path)?.content.as_deref()
    }

    /// A file's bytes, to be changed.
    pub fn content_mut(&mut self, path: &str) -> Option<&mut Vec<u8>> {
        self.entries.get_mut(path)?.content.as_mut()
    }

    /// Takes a file or an empty directory out.
    pub fn remove(&mut self, path: &str) -> Option<()> {
        self.entries.remove(path).map(|_| ())
    }

    /// The sum of all files' lengths in bytes.
    pub fn size(&self) -> u64 {
        self.entries.values().map(|entry| entry.len() as u64).sum()
    }

    /// SHA-256 over every path, mode, group and content, in hexadecimal.
    pub fn digest(&self) -> String {
        let mut context = digest::Context::new(&SHA256);
        for (path, entry) in &self.entries {
            let head = format!("{path}\0{:o} {} {}\0", entry.st_mode(), entry.group, entry.len());
            context.update(head.as_bytes());
            context.update(entry.content.as_deref().unwrap_or_default());
        }
        hex(context.finish().as_ref())
    }
}

/// Bytes in lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code")]

    use super::*;

    fn tree() -> Tree {
        let mut tree = Tree::default();
        tree.file("a/b/run", 0o755, "code");
        tree.file("a/text", 0o644, "words");
        tree
    }

    #[test]
    fn a_directory_comes_before_what_is_in_it() {
        let paths: Vec<&str> = [("a"), ("a/b"), ("a/b/run"), ("a/text")].into();
        assert_eq!(tree().iter().map(|(path, _)| path).collect::<Vec<_>>(), paths);
    }

    #[test]
    fn what_was_written_is_read_back_and_what_was_there_before_is_gone() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("tree");
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("old"), "").unwrap();
        tree().write(&directory).unwrap();
        assert_eq!(Tree::read(&directory).unwrap(), tree());
    }

    #[test]
    fn every_part_of_a_tree_changes_its_digest() {
        let mut others = vec![tree(), tree(), tree(), tree()];
        others[0].file("a/text", 0o644, "wordz");
        others[1].file("a/text", 0o755, "words");
        others[2].file("a/more", 0o644, "");
        others[3].entries.get_mut("a").unwrap().group = ADMIN;
        for other in &others {
            assert_ne!(other.digest(), tree().digest());
        }
        assert_eq!(tree().digest(), tree().digest());
    }

    #[test]
    fn a_link_is_refused() {
        let place = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("nowhere", place.path().join("link")).unwrap();
        assert!(Tree::read(place.path()).is_err());
    }
}
