//! Provider simulator, lab of network namespaces, and handles on the real processes: what
//! the end-to-end tests and `make demo` share. Development only; nothing here ships.

pub mod authority;
pub mod capture_file;
pub mod lab;
pub mod process;
mod proxy;
mod quic;
pub mod reply;
pub mod simulator;
pub mod tally;
