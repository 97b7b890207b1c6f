//! Draws the app's icon, as Finder, System Settings and notifications show it: the menu's own icon with
//! three quarters of a budget left, in Apple's format for icons, in which each size is a PNG. Nothing drawn is kept
//! in the repository. Sources: `iconutil(1)` for sizes and kinds; PNG, third edition (W3C), for the rest.

use std::io::Write as _;

use anyhow::Result;
use flate2::write::ZlibEncoder;
use flate2::{Compression, Crc};
use toktra_menu::{Icon, Pixmap, State};

/// Kinds of an icon's images and their widths in pixels: 16 and 32 points on screens of two pixels a point, then 128,
/// 256 and 512 points. Other sizes the system scales.
const IMAGES: [([u8; 4], u16); 5] =
    [(*b"ic11", 32), (*b"ic12", 64), (*b"ic07", 128), (*b"ic08", 256), (*b"ic09", 512)];

/// The icon's file.
pub fn icon() -> Result<Vec<u8>> {
    let icon = Icon::new(State::Normal, Some(75));
    let mut images = Vec::new();
    for (kind, pixels) in IMAGES {
        let png = png(&icon.draw(pixels))?;
        images.extend(kind);
        images.extend(u32::try_from(png.len() + 8)?.to_be_bytes());
        images.extend(png);
    }
    let length = u32::try_from(images.len() + 8)?.to_be_bytes();
    Ok([b"icns", &length[..], &images].concat())
}

/// An image of eight bits a channel, red, green, blue and alpha.
fn png(pixmap: &Pixmap) -> Result<Vec<u8>> {
    let size = u32::from(pixmap.size).to_be_bytes();
    let header = [&size[..], &size, &[8, 6, 0, 0, 0]].concat();
    let mut pixels = ZlibEncoder::new(Vec::new(), Compression::best());
    for row in pixmap.argb.chunks(4 * usize::from(pixmap.size)) {
        // No filter.
        pixels.write_all(&[0])?;
        for pixel in row.chunks(4) {
            let [alpha, colour @ ..] = pixel else { continue };
            pixels.write_all(colour)?;
            pixels.write_all(&[*alpha])?;
        }
    }
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, content) in [(b"IHDR", header), (b"IDAT", pixels.finish()?), (b"IEND", Vec::new())] {
        let mut checksum = Crc::new();
        checksum.update(kind);
        checksum.update(&content);
        png.extend(u32::try_from(content.len())?.to_be_bytes());
        png.extend(kind);
        png.extend(content);
        png.extend(checksum.sum().to_be_bytes());
    }
    Ok(png)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code")]

    use super::*;

    #[test]
    fn the_pixels_of_an_image_are_found_again_by_its_own_format() {
        let pixmap = Pixmap { size: 2, argb: (0..16).collect() };
        let png = png(&pixmap).unwrap();
        let data = png.windows(4).position(|kind| kind == b"IDAT").unwrap() + 4;
        let mut rows = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::ZlibDecoder::new(&png[data..]), &mut rows).unwrap();
        assert_eq!(rows, [0, 1, 2, 3, 0, 5, 6, 7, 4, 0, 9, 10, 11, 8, 13, 14, 15, 12]);
        assert!(png.ends_with(b"\0\0\0\0IEND\xae\x42\x60\x82"), "the checksum that every PNG ends with");
    }

    #[test]
    fn the_icon_is_its_images_one_after_the_other() {
        let icon = icon().unwrap();
        let mut at = 8;
        for (kind, pixels) in IMAGES {
            assert_eq!(icon[at..at + 4], kind);
            assert_eq!(icon[at + 24..at + 28], u32::from(pixels).to_be_bytes());
            at += u32::from_be_bytes(icon[at + 4..at + 8].try_into().unwrap()) as usize;
        }
        assert_eq!(at, icon.len());
    }
}
