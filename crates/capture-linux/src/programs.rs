//! Loading the eBPF programs and attaching them to a cgroup by link: a link lives as long as its
//! descriptor, so that whatever ends this process leaves nothing behind. Invariant: what could
//! not be loaded or attached is named in `degraded`, and only the egress program is indispensable.

use std::fs::File;

use aya::maps::{Array, HashMap, MapData, PerCpuArray, RingBuf};
use aya::programs::cgroup_skb::CgroupSkbAttachType;
use aya::programs::{CgroupAttachMode, Program, ProgramError};
use aya::{Ebpf, EbpfLoader, VerifierLogLevel, include_bytes_aligned};
use rustix::process::{Resource, Rlimit};

use crate::CaptureError;
use crate::abi::{RawFlow, RawOwner, RawVerdict};

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/toktra.bpf.o"));

const EGRESS: &str = "toktra_egress";

/// Programs and what an administrator loses without each.
const PROGRAMS: [(&str, &str); 8] = [
    (EGRESS, "nothing is captured"),
    ("toktra_ingress", "replies are not counted"),
    ("toktra_connect4", "IPv4 connections have no user and no application"),
    ("toktra_connect6", "IPv6 connections have no user and no application"),
    ("toktra_sendmsg4", "IPv4 datagrams of unconnected sockets have no user and no application"),
    ("toktra_sendmsg6", "IPv6 datagrams of unconnected sockets have no user and no application"),
    ("toktra_sockops", "the end of a connection is seen up to a second late"),
    ("toktra_release", "the end of datagram sockets is not seen"),
];

/// The programs, attached, and the maps that user space works with.
pub struct Programs {
    /// What to do with a flow.
    pub verdicts: HashMap<MapData, u64, RawVerdict>,
    /// Counts of tracked flows.
    pub flows: HashMap<MapData, u64, RawFlow>,
    /// Who connected.
    pub owners: HashMap<MapData, u64, RawOwner>,
    /// From the kernel.
    pub events: RingBuf<MapData>,
    /// Counts per processor.
    pub stats: PerCpuArray<MapData, u64>,
    /// Monotonic nanoseconds.
    pub strict_until: Array<MapData, u64>,
    /// What does not work, in words.
    pub degraded: Vec<String>,
    // Holds programs and links; dropped, they are gone.
    _object: Ebpf,
}

impl Programs {
    /// Loads and attaches.
    pub fn attach(cgroup: &File, ports: &[u16], seed: u64) -> Result<Self, CaptureError> {
        let mut bitmap = [0_u8; 8192];
        for port in ports {
            bitmap[usize::from(port >> 3)] |= 1 << (port & 7);
        }
        // Kernels before 5.11 count maps as locked memory. Refused, the maps fail with their own error.
        let unlimited = Rlimit { current: None, maximum: None };
        let _ = rustix::process::setrlimit(Resource::Memlock, unlimited);
        let mut object = EbpfLoader::new()
            .btf(None)
            .verifier_log_level(VerifierLogLevel::STATS)
            .override_global("watched_ports", &bitmap[..], true)
            .override_global("id_seed", &seed, true)
            .load(OBJECT)
            .map_err(CaptureError::Load)?;
        let mut degraded = Vec::new();
        for (name, loss) in PROGRAMS {
            match attach(&mut object, name, cgroup) {
                Ok(()) => {}
                Err(error) if name == EGRESS => return Err(CaptureError::Attach(Box::new(error))),
                Err(error) => {
                    tracing::warn!(program = name, error = &error as &dyn std::error::Error, "not attached");
                    degraded.push(format!("the kernel refused `{name}`: {loss}"));
                }
            }
        }
        Ok(Self {
            verdicts: take(&mut object, "verdicts")?,
            flows: take(&mut object, "flows")?,
            owners: take(&mut object, "owners")?,
            events: take(&mut object, "events")?,
            stats: take(&mut object, "stats")?,
            strict_until: take(&mut object, "strict_until")?,
            degraded,
            _object: object,
        })
    }
}

/// By link: `Single` is the mode without flags, which a link needs; links share a cgroup all the same.
fn attach(object: &mut Ebpf, name: &str, cgroup: &File) -> Result<(), ProgramError> {
    let Some(program) = object.program_mut(name) else {
        return Err(ProgramError::UnexpectedProgramType);
    };
    let mode = CgroupAttachMode::Single;
    match program {
        Program::CgroupSkb(program) => {
            program.load()?;
            let inbound = name == "toktra_ingress";
            let side = if inbound { CgroupSkbAttachType::Ingress } else { CgroupSkbAttachType::Egress };
            program.attach(cgroup, side, mode)?;
        }
        Program::CgroupSockAddr(program) => {
            program.load()?;
            program.attach(cgroup, mode)?;
        }
        Program::CgroupSock(program) => {
            program.load()?;
            program.attach(cgroup, mode)?;
        }
        Program::SockOps(program) => {
            program.load()?;
            program.attach(cgroup, mode)?;
        }
        _ => return Err(ProgramError::UnexpectedProgramType),
    }
    Ok(())
}

fn take<M: TryFrom<aya::maps::Map, Error = aya::maps::MapError>>(
    object: &mut Ebpf,
    name: &'static str,
) -> Result<M, CaptureError> {
    let map = object.take_map(name).ok_or(CaptureError::MissingMap(name))?;
    M::try_from(map).map_err(CaptureError::Map)
}
