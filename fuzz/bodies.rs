//! What each fuzz target does with its input. The tests of `toktra-hello` replay the corpus through the same
//! functions on the stable toolchain.

use toktra_hello::{Answer, LIMIT, QuicFlow, Stream, read_stream};

/// Reads the input as a stream; more bytes never change a decision.
pub fn stream(input: &[u8]) {
    let whole = read_stream(input);
    check(&whole);
    for length in [1, 5, 9, input.len() / 2, input.len().saturating_sub(1)] {
        let Some(prefix) = input.get(..length) else { continue };
        let answer = read_stream(prefix);
        assert!(
            answer == Answer::NeedMore || answer == whole,
            "{answer:?} after {length} bytes became {whole:?}"
        );
    }
}

/// Reads the input as a stream in pieces. The first byte says how many cuts there are; two bytes each say where
/// a piece ends and, by their lowest bit, whether it waits until those behind it have come.
pub fn split_stream(input: &[u8]) {
    let Some((count, rest)) = input.split_first() else { return };
    let Some((cuts, bytes)) = rest.split_at_checked(2 * usize::from(count % 16)) else { return };
    let cuts: Vec<usize> =
        cuts.chunks_exact(2).map(|cut| usize::from(u16::from_be_bytes([cut[0], cut[1]]))).collect();
    let mut ends: Vec<usize> =
        cuts.iter().map(|cut| (cut >> 1) % (bytes.len() + 1)).chain([bytes.len()]).collect();
    ends.sort_unstable();

    let mut pieces: Vec<(usize, &[u8])> = Vec::new();
    let mut start = 0;
    for (at, end) in ends.into_iter().enumerate() {
        let waits = cuts.get(at).is_some_and(|cut| cut & 1 == 1);
        pieces.insert(if waits { 0 } else { pieces.len() }, (start, &bytes[start..end]));
        start = end;
    }
    let mut stream = Stream::new();
    let mut answer = Answer::NeedMore;
    for (position, piece) in pieces {
        answer = stream.push(position as u64, piece).into_owned();
        check(&answer);
        if answer != Answer::NeedMore {
            break;
        }
    }
    if bytes.len() <= LIMIT {
        assert_eq!(answer, read_stream(bytes));
    }
}

/// Reads the input as datagrams of one flow, each behind its length in two bytes.
pub fn quic_flow(input: &[u8]) {
    let mut flow = QuicFlow::new();
    let mut rest = input;
    while let Some((length, after)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes(*length)).min(after.len());
        let (datagram, after) = after.split_at(length);
        check(&flow.push(datagram));
        rest = after;
    }
}

/// A name is one that can be shown and matched.
fn check(answer: &Answer<'_>) {
    if let Answer::Name { name, .. } = answer {
        assert!((1..=254).contains(&name.len()));
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)));
        assert!(!name.starts_with('.') && !name.contains(".."));
    }
}
