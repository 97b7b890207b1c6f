//! From bytes to tokens. A reply is a token stream, or it came whole, or it cannot be told;
//! each has its own constants, and what cannot be told spans both. Bounds of several replies
//! add: errors of one endpoint go the same way, so nothing is taken off for their number.

use toktra_catalog::{Calibration, Tokens};

/// The calibration's name where there is none.
pub const UNCALIBRATED: &str = "uncalibrated-2026-11";

/// A calibration's residual counts double when it is older than this.
const STALE_S: u64 = 90 * 86_400;
/// Residuals that a bound lies away from the point: 95 % of replies.
const DEVIATIONS: u64 = 2;

/// What an estimate rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Basis<'a> {
    /// The endpoint's calibration; `None` widens the interval to [`UNCALIBRATED`]'s.
    pub calibration: Option<&'a Calibration>,
    /// Programs call the service: its bytes are mostly requests and replies. Otherwise they
    /// are mostly a site's own, and the lower bound is nothing.
    pub is_api: bool,
    /// The wall clock, in seconds since 1970.
    pub wall_unix_s: u64,
}

/// How a reply came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Token by token.
    Streamed,
    /// All at once.
    Whole,
    /// It cannot be told.
    #[default]
    Unsure,
}

/// Bytes that carry no token in each exchange, and bytes for each token. `low` is the
/// constant that makes the lower bound, so it is the larger number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Constants {
    pub(crate) base: Bound,
    pub(crate) milli_bytes_per_token: Bound,
}

/// A constant for each of the three numbers of an estimate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bound {
    pub(crate) low: u64,
    pub(crate) point: u64,
    pub(crate) high: u64,
}

/// Requests: headers, then JSON of some 4.5 bytes a token; code and other scripts take fewer,
/// tool schemas and escapes more. Images are seen to elsewhere.
const REQUEST: Constants = Constants {
    base: Bound { low: 1_500, point: 700, high: 200 },
    milli_bytes_per_token: Bound { low: 12_000, point: 4_500, high: 2_000 },
};
/// Replies that came whole: headers and an envelope, then JSON, often compressed.
const WHOLE: Constants = Constants {
    base: Bound { low: 2_500, point: 1_500, high: 500 },
    milli_bytes_per_token: Bound { low: 8_000, point: 4_500, high: 1_500 },
};
/// Streamed replies of an endpoint that nobody has calibrated: published event shapes run from
/// some 30 bytes for several tokens to 450 bytes for one.
const UNCALIBRATED_STREAM: Constants = Constants {
    base: Bound { low: 4_000, point: 1_800, high: 200 },
    milli_bytes_per_token: Bound { low: 600_000, point: 150_000, high: 8_000 },
};
/// A reply of which it cannot be told how it came is likelier a stream from this size on:
/// whole replies of 200 to 500 tokens are some 3 KB, streamed ones some 100 KB.
const LIKELY_STREAM_BYTES: u64 = 12_000;

impl<'a> Basis<'a> {
    /// The identifier that an estimate carries.
    pub fn id(&self) -> &'a str {
        self.calibration.map_or(UNCALIBRATED, |calibration| calibration.id.as_str())
    }

    /// Tokens of `bytes` sent in `exchanges` requests.
    pub(crate) fn request(&self) -> Constants {
        self.site(REQUEST)
    }

    /// The constants of replies of a mean size that came in this manner.
    pub(crate) fn reply(&self, manner: Manner, bytes_per_exchange: u64) -> Constants {
        let constants = match manner {
            Manner::Streamed => self.streamed(),
            Manner::Whole => WHOLE,
            Manner::Unsure => {
                let likely = if bytes_per_exchange >= LIKELY_STREAM_BYTES { self.streamed() } else { WHOLE };
                span(likely, self.streamed(), WHOLE)
            }
        };
        self.site(constants)
    }

    fn streamed(&self) -> Constants {
        let Some(calibration) = self.calibration else { return UNCALIBRATED_STREAM };
        let milli = |bytes: u32| u64::from(bytes) * 1_000;
        let base = u64::from(calibration.base_bytes);
        let error = u64::from(calibration.base_error_bytes);
        let point = milli(calibration.bytes_per_token);
        let sparsest = calibration.sparsest_bytes_per_token.map_or(point, milli).max(point);
        let densest = calibration.densest_bytes_per_token.map_or(point, milli).min(point);
        let spread = DEVIATIONS * self.residual_permille(calibration);
        Constants {
            base: Bound { low: base + error, point: base, high: base.saturating_sub(error) },
            milli_bytes_per_token: Bound {
                low: sparsest * (1_000 + spread) / 1_000,
                point,
                high: (densest * 1_000 / (1_000 + spread)).max(1),
            },
        }
    }

    fn residual_permille(&self, calibration: &Calibration) -> u64 {
        let captured = calibration.captured_at().unwrap_or(0);
        let stale = self.wall_unix_s.saturating_sub(captured) > STALE_S;
        u64::from(calibration.residual_permille) * if stale { 2 } else { 1 }
    }

    /// A site's bytes may all be its own.
    fn site(&self, mut constants: Constants) -> Constants {
        if !self.is_api {
            constants.milli_bytes_per_token.low = u64::MAX;
        }
        constants
    }
}

/// The widest of two around a point.
fn span(point: Constants, a: Constants, b: Constants) -> Constants {
    let widest = |point: Bound, a: Bound, b: Bound| Bound {
        low: a.low.max(b.low),
        point: point.point,
        high: a.high.min(b.high),
    };
    Constants {
        base: widest(point.base, a.base, b.base),
        milli_bytes_per_token: widest(
            point.milli_bytes_per_token,
            a.milli_bytes_per_token,
            b.milli_bytes_per_token,
        ),
    }
}

impl Constants {
    /// Tokens of the bytes that are left when the bases are taken off.
    pub(crate) fn tokens(&self, net: Bound) -> Tokens {
        let per = self.milli_bytes_per_token;
        let milli = |bytes: u64| u128::from(bytes) * 1_000;
        let whole = |tokens: u128| u64::try_from(tokens).unwrap_or(u64::MAX);
        let point = whole((milli(net.point) + u128::from(per.point) / 2) / u128::from(per.point.max(1)));
        let low = whole(milli(net.low) / u128::from(per.low.max(1))).min(point);
        let high = whole(milli(net.high).div_ceil(u128::from(per.high.max(1)))).max(point);
        Tokens { low, point, high }
    }
}
