//! Hellos, records and datagrams to read, made by hand or by rustls.

pub mod initial;
pub mod message;
pub mod record;

use toktra_hello::{Answer, Prelude};

/// The answer to expect when a name arrived.
pub fn name(name: &str) -> Answer<'_> {
    named(name, false, Prelude::None)
}

/// The same, with all its facts.
pub fn named(name: &str, ech: bool, prelude: Prelude) -> Answer<'_> {
    Answer::Name { name: name.into(), ech, prelude }
}
