//! What the fuzz targets of the messages do with their input. The tests of `toktra-protocol`
//! replay the corpus through the same functions on the stable toolchain.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use toktra_protocol::local::{Answer, Ask, Frames, FromExtension, ToExtension};
use toktra_protocol::personal::wire::Body;
use toktra_protocol::personal::{PersonalBatch, PersonalLeave, PersonalPage, PersonalQuery, PersonalTotal};
use toktra_protocol::{Batch, SignedDirective};

/// Reads the input as a batch, compressed and not; what is accepted survives the wire.
pub fn batch(input: &[u8]) {
    for batch in [Batch::decode(input), Batch::from_json(input)].into_iter().flatten() {
        match batch.encode() {
            Ok(body) => assert_eq!(Batch::decode(&body).unwrap(), batch),
            // JSON of ours may be longer than the one that was read.
            Err(error) => assert!(matches!(error, toktra_protocol::codec::CodecError::TooLarge)),
        }
    }
}

/// Reads the input as frames of every message. The first byte says in which pieces they arrive,
/// which makes no difference.
pub fn frames(input: &[u8]) {
    let Some((&piece, bytes)) = input.split_first() else { return };
    let piece = usize::from(piece).max(1);
    same_in_pieces::<FromExtension>(bytes, piece);
    same_in_pieces::<ToExtension>(bytes, piece);
    same_in_pieces::<Ask>(bytes, piece);
    same_in_pieces::<Answer>(bytes, piece);
}

/// Reads the input as the document of a directive; what is accepted survives being written again.
pub fn directive(input: &[u8]) {
    let Ok(payload) = std::str::from_utf8(input) else { return };
    let read = |payload: String| SignedDirective { payload, signature: String::new() }.document();
    if let Ok(directive) = read(payload.to_owned()) {
        assert_eq!(read(serde_json::to_string(&directive).unwrap()).unwrap(), directive);
    }
}

/// Reads the input as every message to the vault, and as its answer; what is accepted survives the wire.
pub fn personal(input: &[u8]) {
    same_again::<PersonalBatch>(input);
    same_again::<PersonalQuery>(input);
    same_again::<PersonalTotal>(input);
    same_again::<PersonalLeave>(input);
    if let Ok(page) = serde_json::from_slice::<PersonalPage>(input) {
        assert_eq!(
            serde_json::from_slice::<PersonalPage>(&serde_json::to_vec(&page).unwrap()).unwrap(),
            page
        );
    }
}

fn same_again<T: Body>(input: &[u8]) {
    let Ok(message) = T::decode(input) else { return };
    let body = message.encode().unwrap();
    assert_eq!(T::decode(&body).unwrap().encode().unwrap(), body);
}

fn same_in_pieces<T: Serialize + DeserializeOwned + Debug + PartialEq>(bytes: &[u8], piece: usize) {
    let whole = messages::<T>(std::iter::once(bytes));
    assert_eq!(messages::<T>(bytes.chunks(piece)), whole);
    for message in &whole.0 {
        if let Ok(frame) = toktra_protocol::local::encode(message) {
            assert_eq!(messages::<T>(std::iter::once(&frame[..])).0.first(), Some(message));
        }
    }
}

/// The messages before the first error, and whether there was one.
fn messages<'a, T: DeserializeOwned>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<T>, bool) {
    let mut frames = Frames::default();
    let mut messages = Vec::new();
    for piece in pieces {
        frames.push(piece);
        loop {
            match frames.take() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(_) => return (messages, true),
            }
        }
    }
    (messages, false)
}
