//! The agent process: identity, spool, uplink, local sockets, command line.
//!
//! One way in and one way out: records come from the extension over a local socket, are
//! made durable by the [`spooler`], and leave by the [`uplink`]; directives come back by the
//! [`directives`] task, and go to the extension as a new seed. Everything that is true at
//! the moment stands on the [`board`], from which `status` reads.
//!
//! Invariants: the agent never sees a packet and has no privilege; only `dial` opens
//! network connections, and only to the hosts derived from `ToktraDomain`; a token or key is
//! never logged.

pub mod backoff;
pub mod board;
pub mod budget;
pub mod clock;
pub mod commands;
pub mod config;
pub mod control;
pub mod daemon;
pub mod dial;
pub mod directives;
pub mod enrolment;
pub mod exemption;
pub mod extension;
pub mod keyring;
pub mod life;
pub mod menu;
pub mod personal;
pub mod privacy;
pub mod records;
pub mod report;
pub mod selftest;
pub mod settings;
pub mod spooler;
pub mod tls;
pub mod uplink;
pub mod watchers;

/// Version of the agent.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
