//! Hellos, records and datagrams to read.

pub mod initial;
pub mod message;
pub mod record;

use toktra_hello::{Answer, Prelude, Reason};

/// The answer to expect when a name arrived.
pub fn name(name: &str) -> Answer<'_> {
    named(name, false, Prelude::None)
}

/// The same, with all its facts.
pub fn named(name: &str, ech: bool, prelude: Prelude) -> Answer<'_> {
    Answer::Name { name: name.into(), ech, prelude }
}

/// The answer to expect for a hello without a name.
pub fn no_name(reason: Reason) -> Answer<'static> {
    Answer::NoName { reason, ech: false, refused: None }
}

/// The same where something was sent that is no name.
pub fn refused(reason: Reason, sent: &str) -> Answer<'_> {
    Answer::NoName { reason, ech: false, refused: Some(sent.into()) }
}
