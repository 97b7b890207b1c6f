//! What ToktraAgent has on macOS alone: [`preferences`], the life of the system extension ([`activation`]),
//! and the status item with its menu, dialogs and notifications.
//!
//! What is decided stands in plain functions over plain values, which are built and tested on every system;
//! the modules below `macos` ask the frameworks and draw, and decide nothing.
//!
//! Invariants: a preference that an administrator forces wins over one that somebody wrote; an activation,
//! which drops the machine's connections, happens only when [`activation::is_due`] says so or a person asks;
//! AppKit is used on the main thread alone. `unsafe` only below `macos`.

pub mod activation;
pub mod preferences;

#[cfg(target_os = "macos")]
mod macos;

#[cfg(target_os = "macos")]
pub use macos::{extension, preferences::read, serve_main_queue, status_item};
