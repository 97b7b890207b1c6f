//! The content filter of macOS (`docs/macos.md`).
//!
//! Whatever is decided is decided in [`Flows`] and [`told`], plain functions over plain values, which are
//! built and tested on every system; `provider` is the `NEFilterDataProvider` that asks them, on macOS alone,
//! one line for each of the framework's calls.
//!
//! How a flow fares. The system's own rules ([`Settings`]) hand over outbound TCP and UDP to the watched
//! ports and nothing else. A new flow is asked for its outbound bytes only; each piece is let go as soon as it
//! was seen, so that a client that waits for an answer gets one, and the last piece of a hello waits for the
//! verdict. Whoever is nobody's is allowed and forgotten: neither reports nor counts are asked for. A
//! provider's flow is allowed with reports, whose cumulative counts go to the engine.
//!
//! Invariants: a callback that fails allows; nothing ever pauses; no byte of a flow is kept here; a flow that
//! is ignored has no entry, but for QUIC without a readable name, which may yet have to be cut; the table has
//! a limit, and what exceeds it is let through and counted. With `unsafe` only at the edge to the frameworks.

mod filter;
mod flows;
mod settings;
pub mod told;

#[cfg(target_os = "macos")]
pub mod log;
#[cfg(target_os = "macos")]
mod people;
#[cfg(target_os = "macos")]
pub mod provider;

pub use filter::Filter;
pub use flows::{DataVerdict, Effect, FIRST_PEEK, Flows, NewVerdict, Report};
pub use settings::{PORTS_LIMIT, Rule, Settings};
