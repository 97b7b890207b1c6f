use proptest::prelude::*;
use toktra_catalog::{Calibration, Catalog};

use super::*;

const HELLO: u64 = 517;
const APRIL_2026: u64 = 1_775_000_000;
const NOVEMBER_2026: u64 = 1_795_392_000;

fn openai() -> &'static Calibration {
    let catalog = Catalog::builtin();
    catalog.calibration(catalog.service("openai-api").unwrap()).unwrap()
}

fn basis(calibration: Option<&Calibration>) -> Basis<'_> {
    Basis { calibration, is_api: true, wall_unix_s: APRIL_2026 }
}

const TOLD: Option<Handshake> = Some(Handshake { bytes_out: 600, bytes_in: 4_000 });

/// Counts of a connection whose handshake is told and whose requests are counted.
fn counts(turns: u32, sent: u64, received: u64, active_ms: u64) -> Counters {
    Counters {
        bytes_out: 600 + sent,
        bytes_in: 4_000 + received,
        turns: Some(turns),
        handshake: TOLD,
        inbound_active_ms: Some(active_ms),
    }
}

fn encloses(tokens: Tokens, truth: u64) -> bool {
    tokens.low <= truth && truth <= tokens.high && tokens.low <= tokens.point && tokens.point <= tokens.high
}

fn near(point: u64, truth: u64, percent: u64) -> bool {
    point.abs_diff(truth) * 100 <= truth * percent
}

#[test]
fn a_streamed_reply_of_a_calibrated_endpoint_is_counted_closely() {
    let basis = basis(Some(openai()));
    for truth in [100, 500, 2_000, 10_000] {
        let mut meter = Meter::new(0, HELLO);
        meter.sample(100, counts(1, 2_000, 0, 0), &basis);
        meter.sample(9_000, counts(1, 2_000, 1_800 + 328 * truth, 8_000), &basis);
        let delta = meter.take(&basis).unwrap();
        assert!(delta.streaming);
        assert_eq!((delta.exchanges, delta.bytes_handshake), (1, 4_600));
        assert!(near(delta.tokens_out.point, truth, 1), "{truth}: {:?}", delta.tokens_out);
        assert!(encloses(delta.tokens_out, truth), "{truth}: {:?}", delta.tokens_out);
        assert!(delta.tokens_out.high < truth * 3 / 2 + 10, "{truth}: {:?}", delta.tokens_out);
    }
}

#[test]
fn the_bound_covers_the_published_spread_of_bytes_per_token() {
    let basis = basis(Some(openai()));
    for milli_bytes in [318_500, 329_000, 330_600] {
        let truth = 1_000;
        let mut meter = Meter::new(0, HELLO);
        meter.sample(1, counts(1, 2_000, 0, 0), &basis);
        meter.sample(20_000, counts(1, 2_000, 1_800 + milli_bytes * truth / 1_000, 15_000), &basis);
        assert!(encloses(meter.take(&basis).unwrap().tokens_out, truth));
    }
}

#[test]
fn a_reply_that_came_at_once_is_not_divided_by_a_streams_constant() {
    let basis = basis(Some(openai()));
    let truth = 300;
    let mut meter = Meter::new(0, HELLO);
    meter.sample(3_000, counts(1, 1_500, 1_800 + truth * 9 / 2, 12), &basis);
    let delta = meter.take(&basis).unwrap();
    assert!(!delta.streaming);
    assert!(encloses(delta.tokens_out, truth), "{:?}", delta.tokens_out);
}

#[test]
fn what_cannot_be_told_spans_both_manners() {
    let basis = basis(Some(openai()));
    let mut meter = Meter::new(0, HELLO);
    let counters = Counters { inbound_active_ms: None, ..counts(1, 1_000, 20_000, 0) };
    meter.sample(2_000, counters, &basis);
    let tokens = meter.take(&basis).unwrap().tokens_out;
    let (streamed, whole) = (20_000 / 328, 20_000 * 2 / 9);
    assert!(encloses(tokens, streamed - 5) && encloses(tokens, whole), "{tokens:?}");
}

#[test]
fn a_stream_is_told_by_readings_where_nothing_else_tells() {
    let basis = basis(Some(openai()));
    let mut meter = Meter::new(0, HELLO);
    for step in 1..=5 {
        let counters = Counters { inbound_active_ms: None, ..counts(1, 1_000, step * 8_000, 0) };
        meter.sample(step * 1_000, counters, &basis);
    }
    assert!(meter.take(&basis).unwrap().streaming);
    let tail = Counters { inbound_active_ms: None, ..counts(1, 1_000, 40_000 + 3_280, 0) };
    meter.sample(6_000, tail, &basis);
    let delta = meter.take(&basis).unwrap();
    assert!(delta.streaming, "its tail keeps the manner");
    assert_eq!(delta.tokens_out.point, 10);
}

#[test]
fn an_old_calibration_and_none_widen_the_interval() {
    let width = |basis: Basis<'_>| {
        let mut meter = Meter::new(0, HELLO);
        meter.sample(60_000, counts(1, 1_000, 328_000, 50_000), &basis);
        let tokens = meter.take(&basis).unwrap().tokens_out;
        tokens.high - tokens.low
    };
    let fresh = width(basis(Some(openai())));
    let old = width(Basis { wall_unix_s: NOVEMBER_2026, ..basis(Some(openai())) });
    let none = width(basis(None));
    assert!(fresh < old && old * 4 < none, "{fresh} {old} {none}");
    assert_eq!(basis(None).id(), UNCALIBRATED);
}

#[test]
fn a_sites_bytes_have_no_lower_bound() {
    let basis = Basis { is_api: false, ..basis(None) };
    let mut meter = Meter::new(0, HELLO);
    meter.sample(60_000, counts(9, 100_000, 5_000_000, 50_000), &basis);
    let delta = meter.take(&basis).unwrap();
    assert_eq!((delta.tokens_in.low, delta.tokens_out.low), (0, 0));
    assert!(delta.tokens_out.high > delta.tokens_out.point);
}

#[test]
fn an_image_in_a_request_stays_above_the_lower_bound() {
    let basis = basis(Some(openai()));
    let mut meter = Meter::new(0, HELLO);
    meter.sample(9_000, counts(1, 2_000_000, 10_000, 1_000), &basis);
    let tokens = meter.take(&basis).unwrap().tokens_in;
    // A picture of 1024 by 1024 pixels, 1.5 MB before base64, is 765 tokens at high detail by OpenAI's
    // rule; with a hundred tokens of text around it. All text, it would be some 444,000.
    assert!(tokens.low <= 865 && tokens.point > 400_000, "{tokens:?}");
    let mut meter = Meter::new(0, HELLO);
    meter.sample(9_000, counts(1, 700 + 4_500, 10_000, 1_000), &basis);
    let tokens = meter.take(&basis).unwrap().tokens_in;
    assert!(encloses(tokens, 1_000) && near(tokens.point, 1_000, 1), "{tokens:?}");
}

#[test]
fn many_exchanges_on_one_connection_are_counted() {
    let basis = basis(Some(openai()));
    let mut meter = Meter::new(0, HELLO);
    let truth_each = 200;
    for turn in 1..=10 {
        let received = u64::from(turn) * (1_800 + 328 * truth_each);
        meter.sample(
            u64::from(turn) * 4_000,
            counts(turn, u64::from(turn) * 3_000, received, u64::from(turn) * 2_000),
            &basis,
        );
    }
    let delta = meter.take(&basis).unwrap();
    assert_eq!(delta.exchanges, 10);
    assert!(near(delta.tokens_out.point, 10 * truth_each, 2), "{:?}", delta.tokens_out);
    assert!(encloses(delta.tokens_out, 10 * truth_each));
}

#[test]
fn a_reply_longer_than_a_minute_is_given_out_in_parts_that_add_up() {
    let basis = basis(Some(openai()));
    let mut meter = Meter::new(0, HELLO);
    let mut sum = Tokens::default();
    let mut exchanges = 0;
    for step in 1..=40u64 {
        meter.sample(step * 5_000, counts(1, 2_000, 1_800 + 328 * 50 * step, step * 5_000), &basis);
        if step.is_multiple_of(10) {
            let delta = meter.take(&basis).unwrap();
            sum = plus(sum, delta.tokens_out);
            exchanges += delta.exchanges;
            assert!(delta.streaming);
        }
    }
    assert_eq!(exchanges, 1);
    assert!(near(sum.point, 2_000, 1), "{sum:?}");
    assert!(encloses(sum, 2_000), "{sum:?}");
}

#[test]
fn a_handshake_without_a_request_is_all_handshake() {
    let basis = basis(None);
    let mut meter = Meter::new(0, HELLO);
    let counters = Counters { bytes_out: 600, bytes_in: 4_100, turns: Some(0), ..Counters::default() };
    meter.sample(100, counters, &basis);
    let delta = meter.take(&basis).unwrap();
    assert_eq!((delta.exchanges, delta.bytes_out, delta.bytes_in, delta.bytes_handshake), (0, 0, 0, 4_700));
    assert_eq!(delta.tokens_out, Tokens::default());
    assert_eq!(meter.take(&basis), None);
}

#[test]
fn without_counts_of_requests_replies_and_silences_part_them() {
    let basis = basis(None);
    let mut meter = Meter::new(0, HELLO);
    let mut sample = |at, bytes_out, bytes_in| {
        meter.sample(at, Counters { bytes_out, bytes_in, ..Counters::default() }, &basis);
    };
    sample(100, 600, 0);
    sample(200, 600, 4_000);
    sample(300, 2_000, 4_000);
    sample(900, 2_000, 30_000);
    sample(1_000, 2_050, 31_000);
    sample(9_000, 3_500, 31_000);
    sample(9_500, 3_500, 60_000);
    let delta = meter.take(&basis).unwrap();
    assert_eq!(delta.exchanges, 2);
    assert_eq!(delta.bytes_handshake, HELLO + HANDSHAKE_AFTER_HELLO_BYTES + HANDSHAKE_IN_BYTES);
}

#[test]
fn one_reading_at_the_end_is_enough() {
    let basis = basis(Some(openai()));
    let mut meter = Meter::new(0, HELLO);
    let counters = Counters { bytes_out: 2_600, bytes_in: 100_000, ..Counters::default() };
    meter.sample(5_000, counters, &basis);
    let delta = meter.take(&basis).unwrap();
    assert_eq!(delta.exchanges, 1);
    assert!(encloses(delta.tokens_out, 290), "{:?}", delta.tokens_out);
}

#[test]
fn an_old_flow_has_no_handshake_and_its_first_request_counts() {
    let basis = basis(None);
    let mut meter = Meter::of_old_flow(0);
    let count = |turns, bytes_out, bytes_in| Counters {
        bytes_out,
        bytes_in,
        turns: Some(turns),
        handshake: (turns > 0).then_some(Handshake { bytes_out: 2_000, bytes_in: 90_000 }),
        ..Counters::default()
    };
    meter.sample(5_000, count(0, 2_000, 90_000), &basis);
    meter.sample(9_000, count(1, 4_000, 100_000), &basis);
    let delta = meter.take(&basis).unwrap();
    assert_eq!((delta.exchanges, delta.bytes_out, delta.bytes_in), (2, 4_000, 100_000));
    assert_eq!(delta.bytes_handshake, 0);
}

#[test]
fn it_is_small_and_keeps_no_sequence() {
    assert!(std::mem::size_of::<Meter>() <= 512, "{}", std::mem::size_of::<Meter>());
    // Nothing in it is on the heap, so nothing in it can grow.
    assert!(!std::mem::needs_drop::<Meter>());
}

#[derive(Clone, Debug)]
enum Step {
    Sample { ms: u64, sent: u64, received: u64, turns: Option<u32>, told: bool, active_ms: Option<u64> },
    Take,
}

fn step() -> impl Strategy<Value = Step> {
    let sizes = || prop_oneof![3 => 0..200u64, 3 => 0..100_000u64, 1 => Just(0u64)];
    let sample = (
        0..100_000u64,
        sizes(),
        sizes(),
        proptest::option::of(0..3u32),
        any::<bool>(),
        proptest::option::of(0..5_000u64),
    );
    prop_oneof![
        4 => sample.prop_map(|(ms, sent, received, turns, told, active_ms)| Step::Sample { ms, sent, received, turns, told, active_ms }),
        1 => Just(Step::Take),
    ]
}

proptest! {
    #[test]
    fn what_is_given_out_adds_up_however_it_was_sampled(
        steps in proptest::collection::vec(step(), 0..40),
        old: bool,
        calibrated: bool,
        is_api: bool,
    ) {
        let basis = Basis { is_api, ..basis(calibrated.then(openai)) };
        let mut meter = if old { Meter::of_old_flow(0) } else { Meter::new(0, HELLO) };
        let (mut now, mut counters) = (0, Counters::default());
        let mut sum = (0, 0, 0);
        for step in steps.into_iter().chain([Step::Take]) {
            match step {
                Step::Sample { ms, sent, received, turns, told, active_ms } => {
                    now += ms;
                    counters.bytes_out += sent;
                    counters.bytes_in += received;
                    counters.turns = turns.map(|turns| counters.turns.unwrap_or(0) + turns);
                    counters.handshake = told.then_some(Handshake { bytes_out: 600, bytes_in: 3_000 });
                    counters.inbound_active_ms = active_ms.map(|ms| counters.inbound_active_ms.unwrap_or(0) + ms);
                    meter.sample(now, counters, &basis);
                }
                Step::Take => {
                    let Some(delta) = meter.take(&basis) else { continue };
                    sum = (sum.0 + delta.bytes_out, sum.1 + delta.bytes_in, sum.2 + delta.bytes_handshake);
                    for tokens in [delta.tokens_in, delta.tokens_out] {
                        prop_assert!(tokens.low <= tokens.point && tokens.point <= tokens.high, "{tokens:?}");
                    }
                }
            }
        }
        let total = counters.bytes_out + counters.bytes_in;
        prop_assert_eq!(sum.0 + sum.1 + sum.2, total);
        prop_assert_eq!(meter.take(&basis), None);
        prop_assert!(!old || sum.2 == 0);
    }

    #[test]
    fn counts_of_any_size_and_order_never_make_it_panic(
        samples in proptest::collection::vec((any::<u64>(), any::<u64>(), any::<u64>(), any::<Option<u32>>(), any::<Option<u64>>()), 0..20),
    ) {
        let basis = basis(Some(openai()));
        let mut meter = Meter::new(u64::MAX / 2, u64::from(u32::MAX));
        let mut sum = 0u64;
        for (ms, bytes_out, bytes_in, turns, inbound_active_ms) in samples {
            meter.sample(ms, Counters { bytes_out, bytes_in, turns, handshake: None, inbound_active_ms }, &basis);
            if let Some(delta) = meter.take(&basis) {
                sum += delta.bytes_out + delta.bytes_in + delta.bytes_handshake;
                prop_assert!(delta.tokens_in.high <= i64::MAX as u64 && delta.tokens_out.high <= i64::MAX as u64);
            }
        }
        prop_assert!(sum <= i64::MAX as u64);
    }
}
