//! Joins one Mach-O file for each architecture into a universal one: a header in big-endian words (of
//! `<mach-o/fat.h>`) and the files, each at a multiple of the largest page that either architecture has.

use anyhow::{Context as _, Result, ensure};

const MAGIC: u32 = 0xCAFE_BABE; // FAT_MAGIC
const MACH_O_64: [u8; 4] = 0xFEED_FACF_u32.to_le_bytes(); // MH_MAGIC_64
/// 16 KiB, as a power of two.
const ALIGNMENT: u32 = 14;

/// The universal file of these slices, in their order.
pub fn universal(slices: &[Vec<u8>]) -> Result<Vec<u8>> {
    let mut header = vec![MAGIC, u32::try_from(slices.len())?];
    let mut body = Vec::new();
    let start = 1 << ALIGNMENT;
    for slice in slices {
        ensure!(slice.starts_with(&MACH_O_64), "a slice is not a Mach-O file of 64 bits");
        let word = |at: usize| Some(u32::from_le_bytes(slice.get(at..at + 4)?.try_into().ok()?));
        let (kind, subkind) = word(4).zip(word(8)).context("a slice is cut short")?;
        body.resize(body.len().next_multiple_of(start), 0);
        header.extend([kind, subkind, u32::try_from(start + body.len())?, u32::try_from(slice.len())?]);
        header.push(ALIGNMENT);
        body.extend(slice);
    }
    let mut file: Vec<u8> = header.into_iter().flat_map(u32::to_be_bytes).collect();
    file.resize(start, 0);
    file.extend(body);
    Ok(file)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code")]

    use object::read::macho::{FatArch as _, MachOFatFile32};

    use super::*;

    fn slice(kind: u32, length: usize) -> Vec<u8> {
        let mut slice = [MACH_O_64, kind.to_le_bytes(), 0_u32.to_le_bytes()].concat();
        slice.resize(length, 7);
        slice
    }

    #[test]
    fn another_reader_finds_the_slices_again() {
        let slices = [slice(0x0100_000C, 20_000), slice(0x0100_0007, 300)];
        let file = universal(&slices).unwrap();
        let fat = MachOFatFile32::parse(file.as_slice()).unwrap();
        let found: Vec<&[u8]> = fat.arches().iter().map(|arch| arch.data(file.as_slice()).unwrap()).collect();
        assert_eq!(found, slices);
        assert!(fat.arches().iter().all(|arch| arch.offset.get(object::BigEndian) % (1 << ALIGNMENT) == 0));
    }

    #[test]
    fn what_is_no_mach_o_file_is_refused() {
        assert!(universal(&[b"\x7fELF".to_vec()]).is_err());
        assert!(universal(&[MACH_O_64.to_vec()]).is_err());
    }
}
