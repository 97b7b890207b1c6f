//! eBPF programs on a cgroup, and their loader.
//!
//! The programs (`bpf/toktra.bpf.c`) copy the first outbound payload of each flow to a watched
//! port into a ring buffer; [`Capture::poll`] hands it to the engine and writes the engine's
//! verdict into a map, where the next packet of the flow finds it. Invariants: one thread, no
//! clock of its own beyond the one that renews strictness; a flow that is ignored is forgotten
//! here and counted nowhere; whatever fails, packets pass; dropped, or killed, nothing of it
//! remains in the kernel.

mod abi;
mod capture;
mod cgroup;
mod people;
mod programs;
mod socket;

use std::path::PathBuf;

pub use capture::{Capture, Counts};
pub use cgroup::{default_cgroup, find_mount};

/// Where and what to capture.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory of a cgroup v2; it and everything below it is captured.
    pub cgroup: PathBuf,
    /// Remote ports, TCP and UDP, whose flows are looked at.
    pub ports: Vec<u16>,
    /// Makes the names of UDP flows unpredictable.
    pub seed: u64,
}

/// Why nothing can be captured.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The cgroup's directory cannot be opened.
    #[error("the cgroup `{0}` cannot be opened; name a directory of a mounted cgroup v2")]
    Cgroup(PathBuf, #[source] std::io::Error),
    /// The kernel refused the maps or the object.
    #[error(
        "the eBPF object cannot be loaded; it takes root or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, and kernel 5.10 or later"
    )]
    Load(#[source] aya::EbpfError),
    /// The kernel refused the one program that cannot be missed.
    #[error("the egress program cannot be attached; it takes CAP_NET_ADMIN and a cgroup v2")]
    Attach(#[source] Box<aya::programs::ProgramError>),
    /// A map cannot be used.
    #[error("a map of the eBPF object cannot be used")]
    Map(#[source] aya::maps::MapError),
    /// The object is not the one that this crate was built with.
    #[error("the eBPF object has no map `{0}`; rebuild this crate")]
    MissingMap(&'static str),
    /// Waiting failed.
    #[error("waiting for the kernel failed")]
    Wait(#[source] std::io::Error),
}
