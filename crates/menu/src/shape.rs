//! Shapes as signed distances on the square from -1 to 1, y downwards: negative inside. What
//! the icons are made of.

/// A point of the square.
pub type Point = (f32, f32);

/// A disc.
pub fn disc((x, y): Point, (cx, cy): Point, radius: f32) -> f32 {
    (x - cx).hypot(y - cy) - radius
}

/// A ring of half the given thickness to either side of its radius.
pub fn ring(point: Point, centre: Point, radius: f32, thickness: f32) -> f32 {
    disc(point, centre, radius).abs() - thickness / 2.0
}

/// A line with round ends.
pub fn stroke((x, y): Point, (ax, ay): Point, (bx, by): Point, thickness: f32) -> f32 {
    let (dx, dy) = (bx - ax, by - ay);
    let along = (((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy)).clamp(0.0, 1.0);
    (x - ax - along * dx).hypot(y - ay - along * dy) - thickness / 2.0
}

/// A box between two corners.
pub fn rectangle((x, y): Point, (left, top): Point, (right, bottom): Point) -> f32 {
    (left - x).max(x - right).max(top - y).max(y - bottom)
}

/// A triangle that stands on its base.
pub fn triangle((x, y): Point, top: f32, base: f32, half_width: f32) -> f32 {
    let height = base - top;
    let slope = half_width.hypot(height);
    let side = (x.abs() * height - (y - top) * half_width) / slope;
    side.max(y - base)
}

/// A regular octagon on a side.
pub fn octagon((x, y): Point, radius: f32) -> f32 {
    x.abs().max(y.abs()).max((x.abs() + y.abs()) * std::f32::consts::FRAC_1_SQRT_2) - radius
}

/// A square on a corner.
pub fn diamond((x, y): Point, radius: f32) -> f32 {
    (x.abs() + y.abs() - radius) * std::f32::consts::FRAC_1_SQRT_2
}

/// What lies in the given share of a turn, clockwise from above: negative inside.
pub fn sector((x, y): Point, share: f32) -> f32 {
    let turn = x.atan2(-y).rem_euclid(std::f32::consts::TAU) / std::f32::consts::TAU;
    turn - share
}
