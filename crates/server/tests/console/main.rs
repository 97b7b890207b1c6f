//! The console: its pages as an HTTP client sees them, and as a browser shows them.

mod browser;
mod client;
mod fleet;
mod look;
mod pages;
mod safety;
