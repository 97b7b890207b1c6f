//! Line charts as SVG, written by a template: crisp at every width without a script, because
//! lines stretch with the page and texts do not; coloured by the style sheet, light and dark;
//! named and described for those who do not see them, with a table of the same numbers.

use toktra_store::usage::Interval;

/// Height of the plot, in pixels; the template's numbers follow it.
const HEIGHT: i128 = 180;
/// Room above the highest value, in pixels.
const HEADROOM: i128 = 10;
/// Width of the stretched plot, in its own units.
const WIDTH: i128 = 10_000;
/// Up to so many points are marked with dots.
const DOTTED: usize = 31;

/// One value of the series.
#[derive(Clone, Debug)]
pub(super) struct Point {
    /// For the axis, for example `23 Nov`.
    pub(super) label: String,
    /// For the table and the tool tip, for example `23 Nov 2026`.
    pub(super) name: String,
    /// The estimate.
    pub(super) value: Interval,
    /// The estimate in words.
    pub(super) text: String,
    /// Low, point and high with every digit, for the table.
    pub(super) cells: [String; 3],
}

/// What a chart says about itself.
#[derive(Clone, Debug)]
pub(super) struct Words {
    /// Prefix of identifiers in the page, and the class that colours it.
    pub(super) id: &'static str,
    /// Its heading.
    pub(super) title: &'static str,
    /// What it shows, in a sentence or two.
    pub(super) description: String,
    /// Heading of the table's first column.
    pub(super) moment: String,
    /// Heading of the numbers.
    pub(super) quantity: &'static str,
}

/// A level to compare with.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    pub(super) value: i64,
    /// What it is.
    pub(super) text: String,
}

/// The vertical axis.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    /// Finer steps would read the same.
    pub(super) least_step: i64,
    /// Words a value.
    pub(super) word: fn(i64) -> String,
}

/// A chart ready for its template.
#[derive(Clone, Debug)]
pub(super) struct Chart {
    pub(super) words: Words,
    pub(super) points: Vec<Point>,
    pub(super) grid: Vec<GridLine>,
    pub(super) labels: Vec<Label>,
    pub(super) columns: Vec<Column>,
    pub(super) band: String,
    pub(super) line: String,
    /// The stretch to the moment that is not over yet.
    pub(super) unfinished: String,
    /// Where the level is that the values compare with, in pixels; `None` where it is far above them.
    pub(super) pace: Option<i128>,
    /// What it is; empty: there is none.
    pub(super) pace_text: String,
}

#[derive(Clone, Debug)]
pub(super) struct GridLine {
    pub(super) y: i128,
    pub(super) text: String,
}

#[derive(Clone, Debug)]
pub(super) struct Label {
    pub(super) x: String,
    pub(super) text: String,
}

#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) left: String,
    pub(super) width: String,
    pub(super) centre: String,
    pub(super) y: i128,
    pub(super) dot: bool,
    pub(super) tip: String,
}

impl Chart {
    /// Draws `points`, of which the last is unfinished, and `pace` where it does not flatten them.
    pub(super) fn draw(words: Words, points: Vec<Point>, pace: Option<Pace>, axis: Axis) -> Self {
        let slots = points.len().max(1);
        let highest = points.iter().map(|point| point.value.high.max(point.value.point)).max().unwrap_or(0);
        let near = pace.as_ref().map(|pace| pace.value).filter(|&value| value <= highest.saturating_mul(2));
        let highest = highest.max(near.unwrap_or(0));
        let step = step(highest).max(axis.least_step);
        let scale = Scale { slots: slots as i128, top: i128::from(highest).max(i128::from(step) * 2) };
        Self {
            grid: grid(step, &scale, axis.word),
            labels: labels(&points, &scale),
            columns: columns(&points, &scale),
            band: band(&points, &scale),
            line: path(&points, &scale, 0..points.len().saturating_sub(1)),
            pace: near.map(|value| scale.y(value)),
            pace_text: match (pace, near) {
                (Some(pace), Some(_)) => format!("Dashed: {}", pace.text),
                (Some(pace), None) => format!("Not drawn, for it is far above: {}", pace.text),
                (None, _) => String::new(),
            },
            unfinished: path(&points, &scale, points.len().saturating_sub(2)..points.len()),
            words,
            points,
        }
    }
}

/// From slots and values to places.
struct Scale {
    slots: i128,
    top: i128,
}

impl Scale {
    /// Middle of a slot in the plot's own units.
    fn x(&self, slot: usize) -> i128 {
        (slot as i128 * 2 + 1) * WIDTH / (self.slots * 2)
    }

    fn y(&self, value: i64) -> i128 {
        let value = i128::from(value.max(0)).min(self.top);
        HEIGHT - value * (HEIGHT - HEADROOM) / self.top
    }
}

fn grid(step: i64, scale: &Scale, word: fn(i64) -> String) -> Vec<GridLine> {
    let lines = i64::try_from(scale.top / i128::from(step)).unwrap_or(0).min(5);
    (0..=lines)
        .map(|line| line.saturating_mul(step))
        .map(|value| GridLine {
            y: scale.y(value),
            text: if value == 0 { String::new() } else { word(value) },
        })
        .collect()
}

fn labels(points: &[Point], scale: &Scale) -> Vec<Label> {
    // As many as a telephone has room for.
    let every = match usize::try_from(scale.slots).unwrap_or(1) {
        ..=7 => 1,
        8..=24 => 4,
        slots => slots.div_ceil(5),
    };
    let last = points.len().saturating_sub(1);
    points
        .iter()
        .enumerate()
        .filter(|(slot, _)| (last - slot).is_multiple_of(every))
        .map(|(slot, point)| Label { x: percent(scale.x(slot)), text: point.label.clone() })
        .collect()
}

fn columns(points: &[Point], scale: &Scale) -> Vec<Column> {
    let width = WIDTH / scale.slots;
    let place = |(slot, point): (usize, &Point)| Column {
        left: percent(slot as i128 * WIDTH / scale.slots),
        width: percent(width),
        centre: percent(scale.x(slot)),
        y: scale.y(point.value.point),
        dot: points.len() <= DOTTED,
        tip: format!("{}: {}", point.name, point.text),
    };
    points.iter().enumerate().map(place).collect()
}

/// The area between low and high.
fn band(points: &[Point], scale: &Scale) -> String {
    let there = points.iter().enumerate().map(|(slot, point)| (scale.x(slot), scale.y(point.value.high)));
    let back = points.iter().enumerate().rev().map(|(slot, point)| (scale.x(slot), scale.y(point.value.low)));
    let mut path = join(there.chain(back));
    if !path.is_empty() {
        path.push('Z');
    }
    path
}

fn path(points: &[Point], scale: &Scale, slots: std::ops::Range<usize>) -> String {
    let places = points.iter().enumerate().skip(slots.start).take(slots.len());
    join(places.map(|(slot, point)| (scale.x(slot), scale.y(point.value.point))))
}

fn join(places: impl Iterator<Item = (i128, i128)>) -> String {
    let mut path = String::new();
    for (x, y) in places {
        path.push(if path.is_empty() { 'M' } else { 'L' });
        path.push_str(&format!("{x} {y}"));
    }
    path
}

/// A round step, 1, 2 or 5 times a power of ten, that fits two to five times below `highest`.
fn step(highest: i64) -> i64 {
    let mut power: i64 = 1;
    loop {
        for factor in [1, 2, 5] {
            let step = power.saturating_mul(factor);
            if highest / step <= 4 {
                return step;
            }
        }
        match power.checked_mul(10) {
            Some(next) => power = next,
            None => return i64::MAX / 4,
        }
    }
}

/// Hundredths of the width as SVG writes them: `12.34%`.
fn percent(x: i128) -> String {
    format!("{}.{:02}%", x / 100, x % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(low: i64, middle: i64, high: i64) -> Point {
        Point {
            label: "23 Nov".to_owned(),
            name: "23 Nov 2026".to_owned(),
            value: Interval { low, point: middle, high },
            text: middle.to_string(),
            cells: [low, middle, high].map(|number| number.to_string()),
        }
    }

    fn draw(points: Vec<Point>, pace: Option<i64>) -> Chart {
        let words = Words {
            id: "tokens",
            title: "Tokens",
            description: String::new(),
            moment: "Day".to_owned(),
            quantity: "Tokens",
        };
        let pace = pace.map(|value| Pace { value, text: "Budget.".to_owned() });
        Chart::draw(words, points, pace, Axis { least_step: 1, word: |value| value.to_string() })
    }

    #[test]
    fn the_axis_has_a_few_round_steps() {
        for (highest, expected) in [(0, 1), (4, 1), (9, 2), (10, 5), (24, 5), (25, 10), (1_400_000, 500_000)]
        {
            assert_eq!(step(highest), expected, "{highest}");
        }
        assert!(i64::MAX / step(i64::MAX) <= 5);
    }

    #[test]
    fn every_place_lies_inside_the_plot_whatever_the_values() {
        for values in [vec![], vec![0], vec![-5, 3], vec![i64::MAX, 0, i64::MIN], vec![1; 90]] {
            let points: Vec<_> =
                values.iter().map(|value| point(*value, *value, value.saturating_add(2))).collect();
            let chart = draw(points, Some(1_000));
            assert_eq!(chart.columns.len(), values.len());
            assert!(chart.columns.iter().all(|column| (0..=HEIGHT).contains(&column.y)));
            assert!(chart.grid.iter().all(|line| (0..=HEIGHT).contains(&line.y)));
        }
    }

    #[test]
    fn the_band_goes_there_on_the_highs_and_back_on_the_lows() {
        let chart = draw(vec![point(1, 2, 4), point(2, 3, 4)], None);
        assert_eq!(chart.band, "M2500 10L7500 10L7500 95L2500 138Z");
        assert_eq!(chart.line, "M2500 95");
        assert_eq!(chart.unfinished, "M2500 95L7500 53");
    }

    #[test]
    fn a_level_is_drawn_unless_it_would_flatten_the_line() {
        let chart = draw(vec![point(1, 2, 4); 6], Some(8));
        assert_eq!((chart.pace, chart.pace_text.as_str()), (Some(HEADROOM), "Dashed: Budget."));
        let chart = draw(vec![point(1, 2, 4); 6], Some(9));
        assert_eq!(chart.pace, None);
        assert!(chart.pace_text.contains("far above"));
        assert_eq!(chart.columns[0].y, 95);
    }
}
