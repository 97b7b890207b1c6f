//! Datagrams, sealed by rustls.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use toktra_hello::{Answer, QuicFlow, Reason};

use crate::support::initial::{Initial, crypto, long_header, opaque};
use crate::support::message::Hello;
use crate::support::{name, named, no_name};

const ID: &[u8] = &[0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08];
const OTHER_ID: &[u8] = &[0xf0, 0x67, 0xa5, 0x50, 0x2a, 0x42, 0x62, 0xb5];
/// Early data of version 1.
const ZERO_RTT: u8 = 0xd0;
const HANDSHAKE: u8 = 0xe0;

/// A hello over so many datagrams, each with one CRYPTO frame.
fn datagrams(message: &[u8], count: usize) -> Vec<Initial> {
    let size = message.len().div_ceil(count);
    let pieces = message.chunks(size).enumerate();
    pieces
        .map(|(at, piece)| Initial { number: at as u32, ..Initial::new(ID, crypto(at * size, piece)) })
        .collect()
}

#[test]
fn every_version_that_rustls_knows_is_opened() {
    for version in [1, 0x6b33_43cf, 0xff00_001d, 0xff00_001e, 0xff00_0020, 0xff00_0021, 0xff00_0022] {
        let frames = crypto(0, &Hello::new("api.openai.com").message());
        let packet = Initial { version, ..Initial::new(ID, frames) }.padded_to(1200).seal();
        assert_eq!(QuicFlow::new().push(&packet), name("api.openai.com"), "{version:x}");
    }
}

#[test]
fn a_name_that_arrives_whole_is_borrowed_and_the_flow_forgets_it() {
    let packet = Initial::new(ID, crypto(0, &Hello::new("api.openai.com").with_ech().message())).seal();
    let mut flow = QuicFlow::new();
    for _retransmission in 0..3 {
        assert_eq!(flow.push(&packet), named("api.openai.com", true, toktra_hello::Prelude::None));
    }
    assert_eq!(flow.push(&[0x40; 60]), Answer::NotTls);
}

#[test]
fn two_datagrams_may_come_in_either_order() {
    let message = Hello::like_a_browser("chatgpt.com").with_post_quantum_share().message();
    let sealed: Vec<Vec<u8>> = datagrams(&message, 2).iter().map(Initial::seal).collect();
    for order in [[0, 1], [1, 0]] {
        let mut flow = QuicFlow::new();
        assert_eq!(flow.push(&sealed[order[0]]), Answer::NeedMore);
        assert_eq!(flow.push(&sealed[order[1]]), name("chatgpt.com"));
    }
}

#[test]
fn frames_shuffled_and_overlapping_inside_a_datagram_are_put_together() {
    let message = Hello::like_a_browser("gemini.google.com").padded_to(410).message();
    let mut frames = Vec::new();
    for start in [200, 0, 300, 100, 90, 210] {
        frames.extend(crypto(start, &message[start.min(message.len())..(start + 110).min(message.len())]));
        frames.extend([1, 0, 0, 0]); // PING and PADDING between them
    }
    let acknowledgement = [2, 5, 0, 1, 0, 1, 1];
    frames.extend(acknowledgement);
    frames.extend(crypto(300, &message[300..]));
    let mut flow = QuicFlow::new();
    assert_eq!(flow.push(&Initial::new(ID, frames).seal()), name("gemini.google.com"));
}

#[test]
fn a_hello_cut_into_frames_of_one_byte_in_reverse_is_put_together() {
    let message = Hello::new("api.openai.com").message();
    let frames: Vec<u8> = (0..message.len()).rev().flat_map(|at| crypto(at, &message[at..=at])).collect();
    assert_eq!(QuicFlow::new().push(&Initial::new(ID, frames).seal()), name("api.openai.com"));
}

#[test]
fn early_data_first_and_five_datagrams_out_of_order_while_the_identifier_changes() {
    let message = Hello::new("api.openai.com").padded_to(5000).message();
    let mut packets = datagrams(&message, 5);
    for packet in &mut packets[2..] {
        packet.destination_id = OTHER_ID.to_vec(); // the keys stay those of the first identifier
    }
    let mut flow = QuicFlow::new();
    assert_eq!(flow.push(&opaque(ZERO_RTT, 1, ID, 1100)), Answer::NeedMore);
    for at in [1, 4, 2, 0] {
        assert_eq!(flow.push(&packets[at].seal()), Answer::NeedMore);
        assert_eq!(flow.push(&opaque(ZERO_RTT, 1, ID, 300)), Answer::NeedMore);
    }
    assert_eq!(flow.push(&packets[3].seal()), name("api.openai.com"));
}

#[test]
fn after_a_retry_the_keys_follow_from_the_new_identifier() {
    let message = Hello::new("api.openai.com").padded_to(2000).message();
    let first = datagrams(&message, 2);
    let mut flow = QuicFlow::new();
    assert_eq!(flow.push(&first[0].seal()), Answer::NeedMore);
    for (at, packet) in first.into_iter().enumerate() {
        let again = Initial {
            destination_id: OTHER_ID.to_vec(),
            key_id: OTHER_ID.to_vec(),
            token: vec![0xab; 90],
            number: 2 + at as u32,
            ..packet
        };
        let expected = if at == 0 { Answer::NeedMore } else { name("api.openai.com") };
        assert_eq!(flow.push(&again.seal()), expected);
    }
}

#[test]
fn after_version_negotiation_the_new_version_is_read() {
    let mut flow = QuicFlow::new();
    let reserved = [long_header(0xc0, 0x1a2a_3a4a, ID), vec![0; 1200]].concat();
    assert_eq!(flow.push(&reserved), Answer::NeedMore);
    let unknown = [long_header(0xc0, 0x1234_5678, ID), vec![0; 1200]].concat();
    assert_eq!(flow.push(&unknown), Answer::NeedMore);
    let packet = Initial::new(ID, crypto(0, &Hello::new("api.openai.com").message())).seal();
    assert_eq!(flow.push(&packet), name("api.openai.com"));
}

#[test]
fn coalesced_packets_are_walked() {
    let message = Hello::new("api.openai.com").message();
    let (head, tail) = message.split_at(70);
    let datagram = [
        opaque(ZERO_RTT, 1, ID, 200),
        Initial::new(ID, crypto(0, head)).seal(),
        opaque(HANDSHAKE, 1, ID, 50),
        Initial { number: 1, ..Initial::new(ID, crypto(70, tail)) }.seal(),
        vec![0; 30],
    ]
    .concat();
    assert_eq!(QuicFlow::new().push(&datagram), name("api.openai.com"));
}

#[test]
fn connections_on_one_flow_are_kept_apart() {
    let hellos =
        ["a.example", "b.example", "c.example"].map(|name| Hello::new(name).padded_to(600).message());
    let mut flow = QuicFlow::new();
    let packet = |at: usize, half: usize| {
        let frames = crypto(half * 300, &hellos[at][half * 300..(half + 1) * 300]);
        Initial::new(&[at as u8; 8], frames).seal()
    };
    for at in 0..3 {
        assert_eq!(flow.push(&packet(at, 0)), Answer::NeedMore);
    }
    for (at, expected) in [(1, "b.example"), (2, "c.example"), (0, "a.example")] {
        assert_eq!(flow.push(&packet(at, 1)), name(expected));
    }
}

#[test]
fn a_flipped_bit_anywhere_gives_no_name() {
    let packet = Initial::new(ID, crypto(0, &Hello::new("api.openai.com").message())).seal();
    for bit in 0..packet.len() * 8 {
        let mut broken = packet.clone();
        broken[bit / 8] ^= 1 << (bit % 8);
        let answer = QuicFlow::new().push(&broken).into_owned();
        assert!(matches!(answer, Answer::NeedMore | Answer::NotTls), "bit {bit}: {answer:?}");
    }
}

#[test]
fn a_packet_cut_anywhere_gives_no_name() {
    let packet = Initial::new(ID, crypto(0, &Hello::new("api.openai.com").message())).seal();
    for length in 0..packet.len() {
        assert_eq!(QuicFlow::new().push(&packet[..length]), Answer::NotTls, "{length}");
    }
}

#[test]
fn a_missing_datagram_never_gives_a_name() {
    let packets = datagrams(&Hello::new("api.openai.com").padded_to(4000).message(), 4);
    for missing in 0..4 {
        let mut flow = QuicFlow::new();
        let mut answers = Vec::new();
        for _retransmission in 0..40 {
            for (_, packet) in packets.iter().enumerate().filter(|(at, _)| *at != missing) {
                answers.push(flow.push(&packet.seal()).into_owned());
            }
        }
        assert!(answers[..31].iter().all(|answer| *answer == Answer::NeedMore));
        assert_eq!(answers[31], no_name(Reason::Malformed));
        assert!(!answers.iter().any(|answer| matches!(answer, Answer::Name { .. })));
    }
}

#[test]
fn a_flow_that_cannot_be_opened_is_given_up() {
    let server_chosen = Initial { key_id: OTHER_ID.to_vec(), ..Initial::new(ID, vec![1; 40]) }.seal();
    let mut flow = QuicFlow::new();
    for _ in 0..31 {
        assert_eq!(flow.push(&server_chosen), Answer::NeedMore);
    }
    assert_eq!(flow.push(&server_chosen), Answer::NotTls);
}

#[test]
fn what_is_no_long_header_is_no_quic() {
    for datagram in [
        &b""[..],
        b"\x16\xfe\xff\x00\x00\x00\x00\x00\x00\x00\x00\x00",
        b"\x00\x01\x00\x00\x21\x12\xa4\x42",
        b"\x40\x01\x02\x03\x04\x05\x06\x07",
        b"\x80\x60\x12\x34\x00\x00\x00\x01\x00\x00\x00\x02",
        b"\xc3\x00\x00\x00\x01",
        b"\xc3\x00\x00\x00\x01\xff",
        b"\xf0\x00\x00\x00\x01\x00\x00\x00\x00",
        b"\xc0\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01",
    ] {
        assert_eq!(QuicFlow::new().push(datagram), Answer::NotTls, "{}", datagram.escape_ascii());
    }
}

#[test]
fn a_short_header_is_waited_through_while_a_hello_is_incomplete() {
    let packets = datagrams(&Hello::new("api.openai.com").message(), 2);
    let mut flow = QuicFlow::new();
    assert_eq!(flow.push(&packets[0].seal()), Answer::NeedMore);
    assert_eq!(flow.push(&[0x40; 60]), Answer::NeedMore);
    assert_eq!(flow.push(&packets[1].seal()), name("api.openai.com"));
}

#[test]
fn a_hello_longer_than_the_limit_is_given_up() {
    let header = [1, 0, 0x40, 1];
    let mut flow = QuicFlow::new();
    assert_eq!(flow.push(&Initial::new(ID, crypto(0, &header)).seal()), no_name(Reason::TooLong));
    assert_eq!(flow.push(&Initial::new(ID, crypto(0, &[2, 0, 0, 9])).seal()), no_name(Reason::Malformed));
}

#[test]
fn pieces_of_many_connections_are_bounded() {
    let mut flow = QuicFlow::new();
    let piece = crypto(100, &[7; 100]);
    let mut answers = Vec::new();
    for id in 0..=255_u8 {
        answers.push(flow.push(&Initial::new(&[id; 8], piece.clone()).seal()).into_owned());
    }
    assert_eq!(answers.iter().filter(|answer| **answer == no_name(Reason::Malformed)).count(), 8);
    assert_eq!(answers.iter().filter(|answer| **answer == Answer::NeedMore).count(), 248);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn a_hello_in_any_frames_over_any_datagrams_gives_its_name(
        padding in 0_usize..3000,
        cuts in vec(any::<Index>(), 0..20),
        order in vec(any::<Index>(), 0..20),
        overlap in 0_usize..30,
        per_datagram in 1_usize..6,
    ) {
        let message = Hello::new("api.openai.com").with_extension(21, vec![0; padding]).message();
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(message.len() + 1)).collect();
        ends.push(message.len());
        ends.sort_unstable();
        let starts = [0].into_iter().chain(ends.clone());
        let mut frames: Vec<Vec<u8>> = starts
            .zip(&ends)
            .map(|(start, end)| crypto(start, &message[start..(end + overlap).min(message.len())]))
            .collect();
        for index in order {
            let moved = frames.remove(index.index(frames.len()));
            frames.push(moved);
        }
        let mut flow = QuicFlow::new();
        let mut answer = Answer::NeedMore;
        for (number, frames) in frames.chunks(per_datagram).enumerate() {
            prop_assert_eq!(&answer, &Answer::NeedMore);
            let packet = Initial { number: number as u32, ..Initial::new(ID, frames.concat()) };
            answer = flow.push(&packet.seal()).into_owned();
            if answer != Answer::NeedMore {
                break;
            }
        }
        prop_assert_eq!(answer, name("api.openai.com"));
    }

    #[test]
    fn no_authentic_content_panics(frames in vec(vec(any::<u8>(), 0..60), 1..5), start in 0..6_usize) {
        let starts: [&[u8]; 6] = [&[], &[6, 0], &[6, 0, 20, 1, 0, 0], &[2, 1, 1], &[0x1c, 0], &[6, 0xff, 0xff]];
        let mut flow = QuicFlow::new();
        for bytes in frames {
            let frames = [starts[start], &bytes].concat();
            let answer = flow.push(&Initial::new(ID, frames).seal()).into_owned();
            prop_assert!(!matches!(answer, Answer::Name { .. } | Answer::NotTls), "{:?}", answer);
        }
    }
}
