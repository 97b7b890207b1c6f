//! The filter's decisions against a simulated host, which delivers flows as Apple documents it
//! (NEFilterDataProvider.h, NEFilterFlow.h, NEFilterReport.h): bytes in pieces smaller than asked for, shown
//! again from where the filter left off, in calls of several threads, with reports that come late, twice or
//! never, and names of flows that are used anew.
#![allow(clippy::explicit_write, clippy::panic, clippy::unwrap_used, reason = "test code")]

#[path = "../../../engine/tests/support/mod.rs"]
mod hellos;
#[path = "../../../hello/tests/hello/support/message.rs"]
#[allow(dead_code, reason = "a part is used here")]
mod message;

mod corpus;
mod host;
mod life;
mod privacy;
mod verdicts;
