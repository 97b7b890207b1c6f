//! The icons, drawn from shapes at whatever size. Each state has an outline and a glyph of its
//! own, so that none depends on its colour; each outline has a dark edge and a light one
//! around it, so that it stands out on a light panel and on a dark one.

use crate::State;
use crate::shape::{Point, diamond, disc, octagon, rectangle, ring, sector, stroke, triangle};

/// Widths in which panels ask for icons, in pixels.
pub const SIZES: [u16; 4] = [22, 32, 48, 64];
/// Samples of a pixel in each direction.
const SAMPLES: u16 = 4;
/// Shares are drawn in steps of so many percent, so that an icon changes seldom.
const STEP_PERCENT: u8 = 5;

type Colour = [u8; 3];
const LIGHT: Colour = [0xff, 0xff, 0xff];
const DARK: Colour = [0x16, 0x1b, 0x22];
const GREEN: Colour = [0x3f, 0xc3, 0x80];
const AMBER: Colour = [0xff, 0xc1, 0x2e];
const RED: Colour = [0xd0, 0x24, 0x2f];
const INDIGO: Colour = [0x5b, 0x6c, 0xf0];
const TEAL: Colour = [0x1a, 0xa3, 0xa8];
const VIOLET: Colour = [0x8b, 0x3f, 0xc7];
const ORANGE: Colour = [0xf2, 0x84, 0x30];
const GREY: Colour = [0x9a, 0xa2, 0xad];

/// Which icon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Icon {
    /// What it shows.
    state: State,
    /// The share of the budget that is left, in percent, where the icon shows it.
    left_percent: Option<u8>,
}

/// A square image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pixmap {
    /// Width and height, in pixels.
    pub size: u16,
    /// Four bytes a pixel, row by row: alpha, red, green, blue; not premultiplied.
    pub argb: Vec<u8>,
}

impl Icon {
    /// The icon of a state; [`State::Normal`] and [`State::Warning`] show what is left.
    pub fn new(state: State, left_percent: Option<u8>) -> Self {
        let shows = matches!(state, State::Normal | State::Warning);
        let step = |percent: u8| percent.min(100).div_ceil(STEP_PERCENT) * STEP_PERCENT;
        Self { state, left_percent: left_percent.filter(|_| shows).map(step) }
    }

    /// The icon in every size of [`SIZES`].
    pub fn pixmaps(self) -> Vec<Pixmap> {
        SIZES.map(|size| self.draw(size)).into()
    }

    /// The icon in one size.
    pub fn draw(self, size: u16) -> Pixmap {
        let pixels = (0..size).flat_map(|row| (0..size).map(move |column| (column, row)));
        Pixmap { size, argb: pixels.flat_map(|(column, row)| self.pixel(column, row, size)).collect() }
    }

    /// The mean of a pixel's samples.
    fn pixel(self, column: u16, row: u16, size: u16) -> [u8; 4] {
        let mut sums = [0_u32; 4];
        let step = 2.0 / f32::from(size * SAMPLES);
        for sample in 0..SAMPLES * SAMPLES {
            let x = column * SAMPLES + sample % SAMPLES;
            let y = row * SAMPLES + sample / SAMPLES;
            let point = ((f32::from(x) + 0.5) * step - 1.0, (f32::from(y) + 0.5) * step - 1.0);
            if let Some(colour) = self.colour(point) {
                sums[0] += 1;
                colour.iter().zip(&mut sums[1..]).for_each(|(&part, sum)| *sum += u32::from(part));
            }
        }
        let covered = sums[0].max(1);
        let alpha = sums[0] * 255 / u32::from(SAMPLES * SAMPLES);
        [alpha, sums[1] / covered, sums[2] / covered, sums[3] / covered].map(|part| part as u8)
    }

    /// What is seen at a point, from the glyph down to the light edge.
    fn colour(self, point: Point) -> Option<Colour> {
        let outline = self.outline(point);
        match outline {
            ..-0.08 => Some(self.glyph(point).unwrap_or(self.fill())),
            -0.08..0.02 => Some(DARK),
            0.02..0.11 => Some(LIGHT),
            _ => None,
        }
    }

    fn outline(self, point: Point) -> f32 {
        match self.state {
            State::Normal => disc(point, (0.0, 0.0), 0.84),
            State::Warning => match self.left_percent {
                None => triangle(point, -0.84, 0.72, 0.84),
                Some(_) => triangle(point, -0.86, 0.36, 0.76).min(bar(point)),
            },
            State::Blocked => octagon(point, 0.82),
            State::PrivacyHours => disc(point, (0.0, 0.0), 0.84).max(-disc(point, (0.42, -0.3), 0.62)),
            State::Personal => {
                let shoulders = disc(point, (0.0, 0.92), 0.76).max(point.1 - 0.82);
                disc(point, (0.0, -0.42), 0.42).min(shoulders)
            }
            State::Locked => {
                let shackle = ring(point, (0.0, -0.26), 0.42, 0.3).max(point.1);
                rectangle(point, (-0.7, -0.14), (0.7, 0.82)).min(shackle)
            }
            State::Degraded => diamond(point, 0.9),
            State::Offline => {
                let slash = stroke(point, (-0.66, -0.66), (0.66, 0.66), 0.3);
                ring(point, (0.0, 0.0), 0.62, 0.34).min(slash)
            }
        }
    }

    fn glyph(self, point: Point) -> Option<Colour> {
        let left = self.left_percent.map(|percent| f32::from(percent) / 100.0);
        match self.state {
            State::Normal => match left {
                Some(left) => (sector(point, left) < 0.0).then_some(GREEN),
                None => (disc(point, (0.0, 0.0), 0.34) < 0.0).then_some(GREEN),
            },
            State::Warning => match left {
                Some(left) if bar(point) < 0.0 => {
                    (point.0 < -0.74 + 1.48 * left).then_some(AMBER).or(Some(DARK))
                }
                Some(_) => exclamation(point, -0.42, 0.0, 0.2).then_some(DARK),
                None => exclamation(point, -0.36, 0.18, 0.44).then_some(DARK),
            },
            State::Blocked => (rectangle(point, (-0.5, -0.16), (0.5, 0.16)) < 0.0).then_some(LIGHT),
            State::Locked => {
                let keyhole =
                    disc(point, (0.0, 0.24), 0.15).min(stroke(point, (0.0, 0.24), (0.0, 0.54), 0.14));
                (keyhole < 0.0).then_some(LIGHT)
            }
            State::Degraded => question(point).then_some(DARK),
            State::PrivacyHours | State::Personal | State::Offline => None,
        }
    }

    fn fill(self) -> Colour {
        match self.state {
            State::Normal => [0x3a, 0x43, 0x50],
            State::Warning => AMBER,
            State::Blocked => RED,
            State::PrivacyHours => INDIGO,
            State::Personal => TEAL,
            State::Locked => VIOLET,
            State::Degraded => ORANGE,
            State::Offline => GREY,
        }
    }
}

/// Below the triangle: where the share that is left is drawn.
fn bar(point: Point) -> f32 {
    rectangle(point, (-0.84, 0.5), (0.84, 0.88))
}

fn exclamation(point: Point, top: f32, bottom: f32, dot: f32) -> bool {
    stroke(point, (0.0, top), (0.0, bottom), 0.18).min(disc(point, (0.0, dot), 0.11)) < 0.0
}

fn question(point: Point) -> bool {
    let (x, y) = point;
    let bow = ring(point, (0.0, -0.2), 0.24, 0.17).max((y + 0.2).min(-x));
    let stem = stroke(point, (0.0, 0.04), (0.0, 0.16), 0.17);
    bow.min(stem).min(disc(point, (0.0, 0.43), 0.115)) < 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const PANELS: [Colour; 4] = [[0xff; 3], [0x00; 3], [0x2e, 0x34, 0x40], [0xbf, 0xbf, 0xbf]];

    fn all() -> Vec<Icon> {
        let mut icons: Vec<Icon> = State::ALL.iter().map(|&state| Icon::new(state, None)).collect();
        icons.extend(
            [(State::Normal, 60), (State::Warning, 10)].map(|(state, left)| Icon::new(state, Some(left))),
        );
        icons
    }

    /// Luminance (WCAG 2, relative) of each pixel over a panel.
    fn seen(pixmap: &Pixmap, panel: Colour) -> Vec<f64> {
        let linear = |part: f64| {
            if part <= 0.04045 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
        };
        let luminance = |pixel: &[u8]| {
            let alpha = f64::from(pixel[0]) / 255.0;
            let over = |index: usize| {
                let part = f64::from(pixel[index + 1]) * alpha + f64::from(panel[index]) * (1.0 - alpha);
                linear(part / 255.0)
            };
            0.2126 * over(0) + 0.7152 * over(1) + 0.0722 * over(2)
        };
        pixmap.argb.chunks(4).map(luminance).collect()
    }

    #[test]
    fn any_two_states_differ_without_colour_on_every_panel_at_the_smallest_size() {
        let pixmaps: Vec<Pixmap> =
            State::ALL.iter().map(|&state| Icon::new(state, None).draw(SIZES[0])).collect();
        for panel in PANELS {
            for (index, one) in pixmaps.iter().enumerate() {
                for (other_index, other) in pixmaps.iter().enumerate().skip(index + 1) {
                    let apart = seen(one, panel)
                        .iter()
                        .zip(seen(other, panel))
                        .filter(|&(a, b)| (a.max(b) + 0.05) / (a.min(b) + 0.05) >= 2.0)
                        .count();
                    let share = apart as f64 / one.argb.len() as f64 * 4.0;
                    assert!(
                        share > 0.12,
                        "{:?} and {:?} differ in {share:.2} on {panel:?}",
                        State::ALL[index],
                        State::ALL[other_index]
                    );
                }
            }
        }
    }

    #[test]
    fn every_icon_stands_out_on_every_panel() {
        for icon in all() {
            for panel in PANELS {
                let pixmap = icon.draw(SIZES[0]);
                let ground = seen(&Pixmap { size: 1, argb: vec![0; 4] }, panel)[0];
                let strong = seen(&pixmap, panel)
                    .iter()
                    .filter(|&&seen| (seen.max(ground) + 0.05) / (seen.min(ground) + 0.05) >= 3.0)
                    .count();
                // WCAG 2.2, 1.4.11: three to one for what a graphic needs to be understood.
                assert!(strong * 12 > usize::from(pixmap.size).pow(2), "{icon:?} on {panel:?}: {strong}");
            }
        }
    }

    #[test]
    fn the_icon_shows_what_is_left_in_steps() {
        let icon = |left| Icon::new(State::Normal, Some(left));
        assert_eq!(icon(61), icon(65));
        assert_ne!(icon(60), icon(65));
        assert_ne!(icon(0), icon(1), "a rest is not nothing");
        assert_ne!(icon(20).draw(22), icon(80).draw(22));
        assert_eq!(Icon::new(State::Blocked, Some(3)), Icon::new(State::Blocked, None));
        assert_eq!(icon(255), icon(100));
    }

    #[test]
    fn a_sheet_of_all_icons_can_be_looked_at() {
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
        std::fs::create_dir_all(&directory).unwrap();
        let (icons, cell) = (all(), 72);
        let row_width = icons.len() * cell * 3;
        let mut sheet: Vec<u8> = Vec::new();
        for panel in PANELS {
            for size in [64, 22] {
                let mut band = vec![panel; icons.len() * cell * cell];
                for (index, icon) in icons.iter().enumerate() {
                    let pixmap = icon.draw(size);
                    for (at, pixel) in pixmap.argb.chunks(4).enumerate() {
                        let (x, y) = (at % usize::from(size), at / usize::from(size));
                        let place = &mut band[(y + 4) * icons.len() * cell + index * cell + x + 4];
                        let alpha = u32::from(pixel[0]);
                        *place = std::array::from_fn(|part| {
                            ((u32::from(pixel[part + 1]) * alpha + u32::from(panel[part]) * (255 - alpha))
                                / 255) as u8
                        });
                    }
                }
                sheet.extend(band.as_flattened());
            }
        }
        let header = format!("P6\n{} {}\n255\n", row_width / 3, sheet.len() / row_width);
        std::fs::write(directory.join("menu-icons.ppm"), [header.as_bytes(), &sheet].concat()).unwrap();
    }
}
