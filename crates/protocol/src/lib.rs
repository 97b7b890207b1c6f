//! What crosses the wire and the local socket: usage events, batches, directives,
//! enrolment, and the names derived from `ToktraDomain`.
//!
//! Invariants: nothing here does I/O or reads a clock. No message holds a sequence of
//! numbers, a time finer than a minute, a payload byte, or a path, query or header; the
//! types leave no place for them. Everything that is decoded has a limit.

pub mod budget;
pub mod codec;
pub mod dictionary;
pub mod directive;
pub mod domain;
pub mod enrol;
pub mod event;
pub mod local;
pub mod personal;
pub mod privacy;
pub mod problem;
mod time;

pub use budget::Budget;
pub use codec::{Ack, Batch};
pub use directive::{Block, BlockReason, Directive, Lock, SignedDirective};
pub use domain::ToktraDomain;
pub use event::{Estimate, Event, EventBody, NameSource, Usage};
pub use problem::{Code, Problem};
pub use time::{Minute, UnixSeconds};

/// The identifier the server gives a device at enrolment; it is bound to the device's key.
pub type DeviceId = uuid::Uuid;
