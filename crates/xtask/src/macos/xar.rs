//! Writes the XAR archive that an installer package is: a header of 28 bytes, a table of contents in XML
//! compressed with zlib, and a heap that begins with the table's SHA-1 (what a signature of the package
//! signs). Members are stored as they are, since what is large in a package is compressed already.
//! Format: <https://github.com/mackyle/xar/wiki/xarformat>. SHA-1 is what every Installer reads; what vouches
//! for a package is its signature.

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::Result;
use flate2::{Compression, write::ZlibEncoder};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY as SHA1, digest};

use super::tree::{Tree, hex};

const CHECKSUM_SIZE: usize = 20;

/// The archive of a tree.
pub fn archive(tree: &Tree) -> Result<Vec<u8>> {
    let mut table = Table { heap: vec![0; CHECKSUM_SIZE], xml: String::new(), members: 0 };
    write!(table.xml, r#"<?xml version="1.0" encoding="UTF-8"?><xar><toc>"#)?;
    write!(table.xml, "<creation-time>1970-01-01T00:00:00Z</creation-time>")?;
    write!(table.xml, r#"<checksum style="sha1"><offset>0</offset><size>{CHECKSUM_SIZE}</size></checksum>"#)?;
    table.members_of(tree, None)?;
    write!(table.xml, "</toc></xar>")?;

    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::best());
    zlib.write_all(table.xml.as_bytes())?;
    let compressed = zlib.finish()?;
    table.heap[..CHECKSUM_SIZE].copy_from_slice(digest(&SHA1, &compressed).as_ref());

    let mut archive = b"xar!".to_vec();
    archive.extend(28_u16.to_be_bytes());
    archive.extend(1_u16.to_be_bytes()); // version
    archive.extend((compressed.len() as u64).to_be_bytes());
    archive.extend((table.xml.len() as u64).to_be_bytes());
    archive.extend(1_u32.to_be_bytes()); // the checksum is SHA-1
    archive.extend(compressed);
    archive.extend(table.heap);
    Ok(archive)
}

struct Table {
    heap: Vec<u8>,
    xml: String,
    members: u32,
}

impl Table {
    fn members_of(&mut self, tree: &Tree, directory: Option<&str>) -> Result<()> {
        for (path, entry) in tree.iter() {
            let (above, name) = match path.rsplit_once('/') {
                Some((above, name)) => (Some(above), name),
                None => (None, path),
            };
            if above != directory {
                continue;
            }
            self.members += 1;
            write!(self.xml, r#"<file id="{}"><name>{}</name>"#, self.members, escaped(name))?;
            write!(self.xml, "<mode>{:04o}</mode><uid>0</uid><gid>{}</gid>", entry.mode, entry.group)?;
            match &entry.content {
                Some(content) => self.file(content)?,
                None => {
                    write!(self.xml, "<type>directory</type>")?;
                    self.members_of(tree, Some(path))?;
                }
            }
            write!(self.xml, "</file>")?;
        }
        Ok(())
    }

    fn file(&mut self, content: &[u8]) -> Result<()> {
        let (offset, length) = (self.heap.len(), content.len());
        let checksum = hex(digest(&SHA1, content).as_ref());
        write!(self.xml, "<type>file</type><data>")?;
        write!(self.xml, "<length>{length}</length><offset>{offset}</offset><size>{length}</size>")?;
        write!(self.xml, r#"<encoding style="application/octet-stream"/>"#)?;
        for which in ["extracted-checksum", "archived-checksum"] {
            write!(self.xml, r#"<{which} style="sha1">{checksum}</{which}>"#)?;
        }
        write!(self.xml, "</data>")?;
        self.heap.extend(content);
        Ok(())
    }
}

/// Text as XML's content.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code")]

    use std::io::Read as _;

    use super::*;

    #[test]
    fn the_heap_begins_with_the_checksum_of_the_table_and_holds_the_members() {
        let mut tree = Tree::default();
        tree.file("Distribution", 0o644, "<a/>");
        tree.file("one.pkg/Bom", 0o644, "bill");
        let archive = archive(&tree).unwrap();

        let compressed = u64::from_be_bytes(archive[8..16].try_into().unwrap()) as usize;
        let (table, heap) = archive[28..].split_at(compressed);
        assert_eq!(&heap[..CHECKSUM_SIZE], digest(&SHA1, table).as_ref());
        assert_eq!(&heap[CHECKSUM_SIZE..], b"<a/>bill");

        let mut xml = String::new();
        flate2::read::ZlibDecoder::new(table).read_to_string(&mut xml).unwrap();
        assert_eq!(u64::from_be_bytes(archive[16..24].try_into().unwrap()) as usize, xml.len());
        let nested = r#"<file id="2"><name>one.pkg</name><mode>0755</mode><uid>0</uid><gid>0</gid><type>directory</type><file id="3"><name>Bom</name>"#;
        assert!(xml.contains(nested), "{xml}");
        assert!(xml.contains("<length>4</length><offset>24</offset><size>4</size>"), "{xml}");
    }

    #[test]
    fn names_are_escaped() {
        assert_eq!(escaped("a<&>b"), "a&lt;&amp;&gt;b");
    }
}
