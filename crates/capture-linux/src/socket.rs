//! A socket as the kernel's socket diagnostics (`sock_diag(7)`) know it, and its end: an open
//! socket is destroyed, so that its application fails at once instead of waiting for packets
//! that are dropped. Invariants: the socket's cookie is part of the request, so no other socket
//! can be hit; a socket in another network namespace is reached from a thread of its own, which
//! ends with the request and pins nothing.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::thread;

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags};
use rustix::thread::LinkNameSpaceType;
use toktra_engine::Transport;

const SOCK_DESTROY: u16 = 21;
/// Most descriptors of a process that are looked through for a socket.
const DESCRIPTORS_LIMIT: usize = 65_536;

/// One connected socket.
#[derive(Clone, Debug)]
pub struct Socket {
    /// The kernel's name for it.
    pub cookie: u64,
    /// TCP or UDP.
    pub transport: Transport,
    /// This side.
    pub local: SocketAddr,
    /// The other side.
    pub remote: SocketAddr,
    /// The device it is bound to, or zero.
    pub interface: u32,
    /// Who connected it.
    pub process: Option<u32>,
}

/// An address from the 16 bytes that the eBPF programs send.
pub fn address(bytes: [u8; 16], port: u16) -> SocketAddr {
    SocketAddr::new(Ipv6Addr::from(bytes).to_canonical(), port)
}

impl Socket {
    /// Ends it; its application sees `ECONNABORTED`. A socket that is already gone is no error.
    pub fn destroy(&self) -> io::Result<()> {
        let namespace = self.process.and_then(foreign_network);
        let outcome = match namespace {
            None => diagnostics().and_then(|link| self.destroy_by(&link)),
            Some(namespace) => diagnostics_in(&namespace).and_then(|link| self.destroy_by(&link)),
        };
        match outcome {
            Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::OPNOTSUPP | Errno::NOENT)) => {
                self.shut_down(error)
            }
            other => other,
        }
    }

    fn destroy_by(&self, link: &OwnedFd) -> io::Result<()> {
        net::send(link, &self.request(), SendFlags::empty())?;
        let mut answer = [0; 256];
        let (length, _) = net::recv(link, &mut answer[..], RecvFlags::DONTWAIT)?;
        // nlmsghdr (16 bytes), then nlmsgerr, which begins with the negated error.
        let code =
            answer[..length].get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
        match code {
            Some(0) => Ok(()),
            Some(code) => Err(io::Error::from_raw_os_error(-code)),
            None => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
        }
    }

    /// nlmsghdr and inet_diag_req_v2 of `<linux/inet_diag.h>`.
    fn request(&self) -> [u8; 72] {
        let mut message = [0; 72];
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
        message[0..4].copy_from_slice(&72_u32.to_ne_bytes());
        message[4..6].copy_from_slice(&SOCK_DESTROY.to_ne_bytes());
        message[6..8].copy_from_slice(&flags.to_ne_bytes());
        let (family, protocol) = (self.family(), self.protocol());
        message[16] = family as u8;
        message[17] = protocol as u8;
        message[20..24].copy_from_slice(&u32::MAX.to_ne_bytes());
        message[24..26].copy_from_slice(&self.local.port().to_be_bytes());
        message[26..28].copy_from_slice(&self.remote.port().to_be_bytes());
        put_address(&mut message[28..44], self.local.ip());
        put_address(&mut message[44..60], self.remote.ip());
        message[60..64].copy_from_slice(&self.interface.to_ne_bytes());
        message[64..72].copy_from_slice(&cookie_words(self.cookie));
        message
    }

    fn family(&self) -> i32 {
        if self.remote.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }
    }

    fn protocol(&self) -> i32 {
        match self.transport {
            Transport::Tcp => libc::IPPROTO_TCP,
            Transport::Udp => libc::IPPROTO_UDP,
        }
    }

    /// For kernels without `SOCK_DESTROY`: borrows the descriptor from its process and shuts it down.
    fn shut_down(&self, cause: io::Error) -> io::Result<()> {
        let gone = Errno::from_io_error(&cause) == Some(Errno::NOENT);
        let Some(process) = self.process.and_then(|process| Pid::from_raw(process as i32)) else {
            return if gone { Ok(()) } else { Err(cause) };
        };
        let Ok(handle) = rustix::process::pidfd_open(process, PidfdFlags::empty()) else {
            return if gone { Ok(()) } else { Err(cause) };
        };
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", process.as_raw_pid()))?;
        for entry in descriptors.take(DESCRIPTORS_LIMIT).flatten() {
            let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let target = std::fs::read_link(entry.path()).unwrap_or_default();
            if !target.as_os_str().as_encoded_bytes().starts_with(b"socket:") {
                continue;
            }
            let Ok(descriptor) = rustix::process::pidfd_getfd(&handle, number, PidfdGetfdFlags::empty())
            else {
                continue;
            };
            if net::sockopt::socket_cookie(&descriptor) == Ok(self.cookie) {
                net::shutdown(&descriptor, net::Shutdown::Both)?;
                return Ok(());
            }
        }
        if gone { Ok(()) } else { Err(cause) }
    }
}

/// Whether this kernel destroys sockets on request (`CONFIG_INET_DIAG_DESTROY`).
pub fn can_destroy() -> bool {
    let nobody = Socket {
        cookie: u64::MAX - 1,
        transport: Transport::Tcp,
        local: address([0; 16], 1),
        remote: address([0; 16], 1),
        interface: 0,
        process: None,
    };
    let outcome = diagnostics().and_then(|link| nobody.destroy_by(&link));
    matches!(outcome.map_err(|error| Errno::from_io_error(&error)), Ok(()) | Err(Some(Errno::NOENT)))
}

fn diagnostics() -> io::Result<OwnedFd> {
    let protocol = net::netlink::SOCK_DIAG;
    Ok(net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol))?)
}

/// A diagnostics socket of another network namespace. The thread that enters it ends here.
fn diagnostics_in(namespace: &File) -> io::Result<OwnedFd> {
    let enter = || -> io::Result<OwnedFd> {
        rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        diagnostics()
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("namespace".into()).spawn_scoped(scope, enter)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that enters a namespace failed")))
    })
}

/// The process's network namespace, if it is not this process's own.
fn foreign_network(process: u32) -> Option<File> {
    let own = std::fs::metadata("/proc/self/ns/net").ok()?;
    let file = File::open(format!("/proc/{process}/ns/net")).ok()?;
    let theirs = file.metadata().ok()?;
    (theirs.ino() != own.ino()).then_some(file)
}

fn put_address(to: &mut [u8], address: IpAddr) {
    match address {
        IpAddr::V4(address) => to[..4].copy_from_slice(&address.octets()),
        IpAddr::V6(address) => to.copy_from_slice(&address.octets()),
    }
}

/// Low word first, each in the machine's order, as the kernel has it.
fn cookie_words(cookie: u64) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&(cookie as u32).to_ne_bytes());
    bytes[4..].copy_from_slice(&((cookie >> 32) as u32).to_ne_bytes());
    bytes
}
