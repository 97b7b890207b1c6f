//! Personal records, sealed on the device so that nobody but their user can read them: neither the
//! organisation, nor the backend that keeps them, nor the agent that sealed them.
//!
//! A [`UserKey`] is 32 random bytes and everything else comes out of it: the [`Recipient`] that
//! records are sealed to, the member under which a backend files them, and the 24 words from which
//! another device makes the key anew. [`seal`] needs the recipient alone; [`open`] needs the key.
//!
//! Invariants: no I/O, no clock, no randomness of its own; a key and what was opened are zeroised when
//! dropped and print as nothing; what was sealed says by its length no more than how many KiB it has;
//! any bytes in, a typed error and never a panic out.

mod key;
mod phrase;
mod sealed;

pub use key::{Recipient, UserKey};
pub use phrase::{PhraseError, WORDS};
pub use sealed::{CONTENT_LIMIT, OpenError, SEALED_LIMIT, SealError, open, seal};
