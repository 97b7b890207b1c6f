//! The same hello, however records and segments cut it and in whichever order the segments come.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use toktra_hello::{Answer, Prelude, Reason, Stream, read_stream};

use crate::support::message::Hello;
use crate::support::record::{record, records_cut_at};
use crate::support::{name, named, no_name};

#[test]
fn a_record_boundary_at_every_byte_changes_nothing() {
    let message = Hello::new("api.anthropic.com").message();
    for cut in 1..message.len() {
        assert_eq!(read_stream(&records_cut_at(&message, &[cut])), name("api.anthropic.com"), "cut at {cut}");
    }
    let every_byte: Vec<usize> = (1..message.len()).collect();
    assert_eq!(read_stream(&records_cut_at(&message, &every_byte)), name("api.anthropic.com"));
}

#[test]
fn two_record_boundaries_anywhere_about_the_name_change_nothing() {
    let message = Hello::new("api.anthropic.com").padded_to(300).message();
    let at = message.windows(4).position(|bytes| bytes == b"api.").unwrap();
    for first in at - 9..at + 18 {
        for second in first..at + 20 {
            let stream = records_cut_at(&message, &[first, second]);
            assert_eq!(read_stream(&stream), name("api.anthropic.com"), "cut at {first} and {second}");
        }
    }
}

#[test]
fn two_segments_cut_at_every_byte_may_come_in_either_order() {
    let message = Hello::new("api.openai.com").message();
    for bytes in [record(&message), records_cut_at(&message, &[message.len() / 2])] {
        for cut in 1..bytes.len() {
            let (head, tail) = bytes.split_at(cut);
            let mut in_order = Stream::new();
            assert_eq!(in_order.push(0, head), Answer::NeedMore);
            assert_eq!(in_order.push(cut as u64, tail), name("api.openai.com"));
            let mut swapped = Stream::new();
            assert_eq!(swapped.push(cut as u64, tail), Answer::NeedMore);
            assert_eq!(swapped.push(0, head), name("api.openai.com"));
        }
    }
}

#[test]
fn one_byte_at_a_time_is_enough_in_either_direction() {
    let bytes = records_cut_at(&Hello::new("api.openai.com").message(), &[1, 2, 3, 4, 5, 50]);
    let mut forwards = Stream::new();
    let mut backwards = Stream::new();
    for at in 0..bytes.len() {
        let last = at + 1 == bytes.len();
        let expected = if last { name("api.openai.com") } else { Answer::NeedMore };
        assert_eq!(forwards.push(at as u64, &bytes[at..=at]), expected);
        let mirrored = bytes.len() - 1 - at;
        assert_eq!(backwards.push(mirrored as u64, &bytes[mirrored..=mirrored]), expected);
    }
}

#[test]
fn a_hello_of_eleven_kilobytes_in_twelve_segments_is_put_together() {
    let bytes = record(&Hello::new("api.openai.com").padded_to(11_500).message());
    let segments: Vec<(usize, &[u8])> = bytes.chunks(960).enumerate().collect();
    assert_eq!(segments.len(), 12);
    let mut stream = Stream::new();
    for (at, segment) in segments.iter().skip(1).rev() {
        assert_eq!(stream.push(*at as u64 * 960, segment), Answer::NeedMore);
    }
    assert_eq!(stream.push(0, segments[0].1), name("api.openai.com"));
}

#[test]
fn a_hello_with_a_missing_fragment_never_gives_a_name() {
    let bytes = record(&Hello::like_a_browser("api.openai.com").padded_to(1200).message());
    for missing in 0..12 {
        let mut stream = Stream::new();
        for (at, segment) in bytes.chunks(101).enumerate().filter(|(at, _)| *at != missing) {
            assert_eq!(stream.push(at as u64 * 101, segment), Answer::NeedMore);
        }
        assert_eq!(stream.push(1205, &[0; 1000]), Answer::NeedMore);
        let given_up = if missing == 0 { Answer::NotTls } else { no_name(Reason::TooLong) };
        assert_eq!(stream.push(1 << 20, &[0; 10]), given_up);
    }
}

#[test]
fn the_first_copy_of_a_segment_is_the_one_that_counts() {
    let first = record(&Hello::new("api.openai.com").message());
    let second = record(&Hello::new("api.nobody.com").message());
    let mut stream = Stream::new();
    assert_eq!(stream.push(90, &first[90..]), Answer::NeedMore);
    assert_eq!(stream.push(90, &second[90..]), Answer::NeedMore);
    assert_eq!(stream.push(0, &second), name("api.openai.com"));
}

/// A hello, and what to expect of it.
fn any_hello() -> impl Strategy<Value = (Hello, Answer<'static>)> {
    let sent = prop_oneof![Just(None), "[a-z][a-z0-9-]{0,20}[a-z]\\.example".prop_map(Some)];
    (sent, any::<[bool; 3]>(), 0_usize..3000).prop_map(|(sent, [grease, post_quantum, ech], padding)| {
        let mut hello = sent.as_deref().map_or_else(Hello::without_name, Hello::new);
        if grease {
            hello = hello.with_grease();
        }
        if post_quantum {
            hello = hello.with_post_quantum_share();
        }
        if ech {
            hello = hello.with_ech();
        }
        let hello = hello.with_extension(21, vec![0; padding]);
        let expected = match sent {
            Some(sent) => named(&sent, ech, Prelude::None).into_owned(),
            None => Answer::NoName { reason: Reason::NoExtension, ech, refused: None },
        };
        (hello, expected)
    })
}

/// Sorted positions within a length.
fn positions(within: usize, indexes: &[Index]) -> Vec<usize> {
    let mut positions: Vec<usize> = indexes.iter().map(|index| index.index(within + 1)).collect();
    positions.sort_unstable();
    positions
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn records_segments_and_their_order_change_nothing(
        (hello, expected) in any_hello(),
        record_cuts in vec(any::<Index>(), 0..12),
        segment_cuts in vec(any::<Index>(), 0..12),
        overlap in 0_usize..40,
        order in vec(any::<Index>(), 0..12),
    ) {
        let message = hello.message();
        let bytes = records_cut_at(&message, &positions(message.len(), &record_cuts));
        prop_assert_eq!(&read_stream(&bytes), &expected);

        let mut cuts = positions(bytes.len(), &segment_cuts);
        cuts.insert(0, 0);
        cuts.push(bytes.len());
        let mut segments: Vec<(usize, usize)> =
            cuts.windows(2).map(|pair| (pair[0], (pair[1] + overlap).min(bytes.len()))).collect();
        for index in &order {
            let moved = segments.remove(index.index(segments.len()));
            segments.push(moved);
            segments.insert(0, moved); // and once more
        }
        let mut stream = Stream::new();
        let mut answer = Answer::NeedMore;
        for (start, end) in segments {
            answer = stream.push(start as u64, &bytes[start..end]).into_owned();
            if answer != Answer::NeedMore {
                break;
            }
        }
        prop_assert_eq!(answer, expected);
    }

    #[test]
    fn a_decision_is_final_and_no_input_panics(bytes in vec(any::<u8>(), 0..200), start in 0_usize..5) {
        let starts: [&[u8]; 5] = [b"", b"\x16\x03\x01\x00\x20\x01", b"CONNECT a", b"\x05\x01", b"\x16\x03\x01\x00\x01"];
        let bytes = [starts[start], &bytes].concat();
        let whole = read_stream(&bytes);
        let mut stream = Stream::new();
        let mut answer = Answer::NeedMore;
        for (at, byte) in bytes.iter().enumerate() {
            answer = stream.push(at as u64, &[*byte]).into_owned();
            if answer != Answer::NeedMore {
                break;
            }
        }
        prop_assert_eq!(answer, whole);
    }
}
