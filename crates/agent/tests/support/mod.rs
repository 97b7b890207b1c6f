//! What the tests of the agent share: a backend, a device, an extension.
#![allow(dead_code, unused_imports, reason = "each test binary uses a part")]

mod authority;
mod backend;
mod device;
mod extension;
mod vault;

use std::time::Duration;

use toktra_protocol::{DeviceId, UnixSeconds};

pub use authority::{Authority, DAY};
pub use backend::{Backend, Books, Next};
pub use device::{Device, Inside};
pub use extension::Extension;
pub use vault::Vault;

pub const DEVICE: DeviceId = DeviceId::from_u128(7);
pub const TOKEN: &str = "the-one-time-token";
const PATIENCE: Duration = Duration::from_secs(60);

fn now() -> UnixSeconds {
    toktra_agent::clock::Clock::System.now()
}
