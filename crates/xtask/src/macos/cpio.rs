//! Writes the cpio archives inside an installer package: the portable ASCII format ("odc" of POSIX.1-1988,
//! `pax(1)`), which Apple's Installer reads. Times are none, so equal trees give equal bytes.

use std::io::Write as _;

use anyhow::{Context as _, Result, ensure};
use flate2::{Compression, GzBuilder};

use super::tree::Tree;

/// The archive of a tree below `.`, compressed with gzip.
pub fn gzipped(tree: &Tree) -> Result<Vec<u8>> {
    let mut gzip = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    gzip.write_all(&archive(tree)?)?;
    Ok(gzip.finish()?)
}

fn archive(tree: &Tree) -> Result<Vec<u8>> {
    let mut archive = Vec::new();
    member(&mut archive, ".", Attributes { inode: 1, mode: 0o040_755, group: 0, links: 2 }, &[])?;
    for ((path, entry), inode) in tree.iter().zip(2..) {
        let links = if entry.content.is_some() { 1 } else { 2 };
        let attributes = Attributes { inode, mode: entry.st_mode(), group: entry.group, links };
        member(&mut archive, &format!("./{path}"), attributes, entry.content.as_deref().unwrap_or_default())?;
    }
    member(&mut archive, "TRAILER!!!", Attributes { inode: 0, mode: 0, group: 0, links: 1 }, &[])?;
    Ok(archive)
}

struct Attributes {
    inode: u32,
    mode: u32,
    group: u32,
    links: u32,
}

fn member(archive: &mut Vec<u8>, name: &str, attributes: Attributes, content: &[u8]) -> Result<()> {
    let Attributes { inode, mode, group, links } = attributes;
    let (device, owner, time) = (0, 0, 0);
    let (name_length, length) = (name.len() + 1, content.len());
    ensure!(inode < 1 << 18 && name_length < 1 << 18, "{name}: more than this format has room for");
    u32::try_from(length).context("a file of four gigabytes does not fit this format")?;
    write!(archive, "070707{device:06o}{inode:06o}{mode:06o}{owner:06o}{group:06o}{links:06o}")?;
    write!(archive, "{device:06o}{time:011o}{name_length:06o}{length:011o}{name}\0")?;
    archive.extend(content);
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code")]

    use super::*;

    #[test]
    fn a_member_is_a_header_of_octal_digits_a_name_and_the_content() {
        let mut tree = Tree::default();
        tree.file("run", 0o755, "code");
        let archive = String::from_utf8(archive(&tree).unwrap()).unwrap();
        let header = |fields: &str| fields.replace(' ', "");
        // Magic, device, inode, mode, owner, group, links, device, time, name's length, length.
        let top =
            header("070707 000000 000001 040755 000000 000000 000002 000000 00000000000 000002 00000000000");
        let run =
            header("070707 000000 000002 100755 000000 000000 000001 000000 00000000000 000006 00000000004");
        let end =
            header("070707 000000 000000 000000 000000 000000 000001 000000 00000000000 000013 00000000000");
        assert_eq!(archive, format!("{top}.\0{run}./run\0code{end}TRAILER!!!\0"));
    }
}
