//! Writes the bill of materials of an installer package: which files it installs, with their modes,
//! owners, sizes and checksums. The format is Apple's and undocumented; the layout follows what
//! `lsbom(8)` and the Installer are known to read: a store of numbered blocks with named roots, of which
//! `Paths` is a tree with a single leaf, sorted by parent and name. All numbers are big-endian.

use anyhow::{Context as _, Result};

use super::tree::{Entry, Tree};

/// Blocks that every bill has, by number; a path's three follow. Block 0 is null.
const INFO: u32 = 1;
const PATHS: u32 = 2;
const PATHS_LEAF: u32 = 3;
const HARD_LINKS: u32 = 4;
const HARD_LINKS_LEAF: u32 = 5;
const VIRTUAL: u32 = 6;
const VIRTUAL_TREE: u32 = 7;
const VIRTUAL_LEAF: u32 = 8;
const SIZES: u32 = 9;
const SIZES_LEAF: u32 = 10;

const ROOTS: [(&str, u32); 5] =
    [("BomInfo", INFO), ("Paths", PATHS), ("HLIndex", HARD_LINKS), ("VIndex", VIRTUAL), ("Size64", SIZES)];

/// A path with its number and that of its directory; the top is number 1 in 0.
struct Listed<'tree> {
    number: u32,
    parent: u32,
    name: &'tree str,
    entry: &'tree Entry,
}

/// The bill of a tree below `.`.
pub fn bill(tree: &Tree) -> Result<Vec<u8>> {
    let top = Entry { mode: 0o755, group: 0, content: None };
    let listed = list(tree, &top)?;
    let count = u32::try_from(listed.len())?;

    // A tree for nothing points to an empty leaf.
    let mut blocks = vec![
        Vec::new(),
        words(&[1, count + 1, 0]),
        root(PATHS_LEAF, count, 4096),
        Vec::new(),
        root(HARD_LINKS_LEAF, 0, 4096),
        leaf(&[])?,
        [words(&[1, VIRTUAL_TREE]), vec![0]].concat(),
        root(VIRTUAL_LEAF, 0, 128),
        leaf(&[])?,
        root(SIZES_LEAF, 0, 4096),
        leaf(&[])?,
    ];
    let mut keyed = Vec::with_capacity(listed.len());
    for path in &listed {
        let attributes = u32::try_from(blocks.len())?;
        blocks.push(attributes_of(path.entry)?);
        blocks.push([&path.parent.to_be_bytes(), path.name.as_bytes(), &[0]].concat());
        blocks.push(words(&[path.number, attributes]));
        keyed.push(((path.parent, path.name), [attributes + 2, attributes + 1]));
    }
    keyed.sort_unstable();
    let pairs: Vec<[u32; 2]> = keyed.into_iter().map(|(_, pair)| pair).collect();
    blocks[PATHS_LEAF as usize] = leaf(&pairs)?;
    store(&blocks)
}

/// Numbers the paths in their order. A directory comes before what is in it, so its number is known.
fn list<'tree>(tree: &'tree Tree, top: &'tree Entry) -> Result<Vec<Listed<'tree>>> {
    let mut listed = vec![Listed { number: 1, parent: 0, name: ".", entry: top }];
    let mut numbers = std::collections::BTreeMap::new();
    for ((path, entry), number) in tree.iter().zip(2..) {
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = match above {
            "" => 1,
            above => *numbers.get(above).with_context(|| format!("{path} has no directory"))?,
        };
        numbers.insert(path, number);
        listed.push(Listed { number, parent, name, entry });
    }
    Ok(listed)
}

/// Type, architecture, mode, owner, group, time, size, checksum, and no link's name; a file has one
/// more word.
fn attributes_of(entry: &Entry) -> Result<Vec<u8>> {
    let file = entry.content.as_deref();
    let (kind, checksum) = match file {
        Some(content) => (1, cksum(content)),
        None => (2, 0),
    };
    let mut block = vec![kind, 1, 0, 3];
    block.extend(u16::try_from(entry.st_mode())?.to_be_bytes());
    block.extend(words(&[0, entry.group, 0, u32::try_from(entry.len())?]));
    block.push(1);
    block.extend(words(&[checksum, 0]));
    if file.is_some() {
        block.extend(words(&[0]));
    }
    Ok(block)
}

fn root(leaf: u32, paths: u32, block_size: u32) -> Vec<u8> {
    [b"tree".to_vec(), words(&[1, leaf, block_size, paths]), vec![0]].concat()
}

/// A leaf has no neighbours here: one holds all.
fn leaf(pairs: &[[u32; 2]]) -> Result<Vec<u8>> {
    let count = u16::try_from(pairs.len()).context("more paths than a leaf has room for")?;
    let mut block = vec![0, 1];
    block.extend(count.to_be_bytes());
    block.extend(words(&[0, 0]));
    block.extend(words(pairs.as_flattened()));
    Ok(block)
}

/// The header of 32 bytes, the blocks, the named roots, then the table of blocks and an empty list of
/// free ones.
fn store(blocks: &[Vec<u8>]) -> Result<Vec<u8>> {
    const HEADER: usize = 32;
    let mut body = Vec::new();
    let mut table = words(&[u32::try_from(blocks.len())?]);
    for block in blocks {
        let place = if block.is_empty() { 0 } else { u32::try_from(HEADER + body.len())? };
        table.extend(words(&[place, u32::try_from(block.len())?]));
        body.extend(block);
    }
    table.extend(words(&[0]));
    let mut roots = words(&[u32::try_from(ROOTS.len())?]);
    for (name, block) in ROOTS {
        roots.extend(words(&[block]));
        roots.push(u8::try_from(name.len())?);
        roots.extend(name.as_bytes());
    }
    let roots_at = u32::try_from(HEADER + body.len())?;
    let (roots_length, table_length) = (u32::try_from(roots.len())?, u32::try_from(table.len())?);
    let used = u32::try_from(blocks.len() - 1)?;
    let header = words(&[1, used, roots_at + roots_length, table_length, roots_at, roots_length]);
    Ok([b"BOMStore".to_vec(), header, body, roots, table].concat())
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// The checksum of POSIX `cksum`: CRC-32, most significant bit first, over the content and its length.
fn cksum(content: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x04C1_1DB7;
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut index = 0;
        while index < 256 {
            let mut remainder = (index as u32) << 24;
            let mut bit = 0;
            while bit < 8 {
                let overflows = remainder >> 31 == 1;
                remainder = (remainder << 1) ^ if overflows { POLYNOMIAL } else { 0 };
                bit += 1;
            }
            table[index] = remainder;
            index += 1;
        }
        table
    };
    let step = |crc: u32, byte: u8| (crc << 8) ^ TABLE[usize::from((crc >> 24) as u8 ^ byte)];
    let mut crc = content.iter().copied().fold(0, step);
    let mut length = content.len();
    while length != 0 {
        crc = step(crc, length as u8);
        length >>= 8;
    }
    !crc
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code")]

    use super::*;

    #[test]
    fn checksums_are_those_of_cksum() {
        // `printf '' | cksum` and so on, of GNU coreutils.
        assert_eq!(cksum(b""), 4_294_967_295);
        assert_eq!(cksum(b"123456789"), 930_766_865);
        assert_eq!(cksum(&[0; 70_000]), 1_774_371_287);
    }

    #[test]
    fn every_block_lies_in_the_file_and_the_roots_name_five_of_them() {
        let mut tree = Tree::default();
        tree.file("a/run", 0o755, "code");
        let bill = bill(&tree).unwrap();
        let word = |at: usize| u32::from_be_bytes(bill[at..at + 4].try_into().unwrap()) as usize;
        assert_eq!(&bill[..8], b"BOMStore");
        let (table, roots) = (word(16), word(24));
        assert_eq!(word(roots), ROOTS.len());
        let count = word(table);
        assert_eq!(count, 11 + 3 * 3);
        for block in 1..count {
            let (place, length) = (word(table + 4 + 8 * block), word(table + 8 + 8 * block));
            assert!(place >= 32 && length > 0 && place + length <= roots);
        }
        assert_eq!(table + word(20), bill.len());
    }

    #[test]
    fn paths_are_sorted_by_parent_and_name_whatever_their_order_in_the_tree() {
        // "a-b" sorts between "a" and "a/z" as a path, but after "a" as a name.
        let mut tree = Tree::default();
        tree.file("a/z", 0o644, "");
        tree.file("a-b", 0o644, "");
        let listed = list(&tree, &Entry { mode: 0o755, group: 0, content: None }).unwrap();
        let parents: Vec<(u32, &str)> = listed.iter().map(|path| (path.parent, path.name)).collect();
        assert_eq!(parents, [(0, "."), (1, "a"), (1, "a-b"), (2, "z")]);
    }
}
