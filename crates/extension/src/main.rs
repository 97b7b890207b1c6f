//! The extension process.

fn main() {}
