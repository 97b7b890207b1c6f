//! A socket as the kernel's socket diagnostics (`sock_diag(7)`) know it, and its end: an open
//! socket is destroyed, so that its application fails at once instead of waiting for packets
//! that are dropped. Invariants: the socket's cookie is part of the request, so no other socket
//! can be hit; a socket in another network namespace is reached from a thread of its own, which
//! ends with the request and pins nothing. Where the kernel or our capabilities do not allow
//! either, the socket is borrowed from its process (`pidfd_getfd(2)`) and shut down.

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

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
/// Descriptors of a process that are looked through for a socket.
const DESCRIPTORS_LIMIT: i32 = 8192;
/// Behind nlmsghdr (16 bytes): the negated error of nlmsgerr.
const ERROR_AT: usize = 16;
/// Behind nlmsghdr: `idiag_uid` of inet_diag_msg.
const USER_AT: usize = 80;

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
        let Err(error) = self.diagnostics().and_then(|link| self.destroy_by(&link)) else { return Ok(()) };
        match Errno::from_io_error(&error) {
            // Gone, or not in this namespace after all.
            Some(Errno::NOENT) => match self.shut_down() {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
                _ => Ok(()),
            },
            _ if self.shut_down()? => Ok(()),
            _ => Err(error),
        }
    }

    /// The user that made it.
    pub fn user(&self) -> io::Result<u32> {
        let answer = self.ask(&self.diagnostics()?, SOCK_DIAG_BY_FAMILY, 0)?;
        let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
        match (kind, word(&answer, USER_AT)) {
            (Some(SOCK_DIAG_BY_FAMILY), Some(user)) => Ok(user),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn destroy_by(&self, link: &OwnedFd) -> io::Result<()> {
        let answer = self.ask(link, SOCK_DESTROY, libc::NLM_F_ACK)?;
        match word(&answer, ERROR_AT) {
            Some(0) => Ok(()),
            Some(code) => Err(io::Error::from_raw_os_error((code as i32).wrapping_neg())),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn ask(&self, link: &OwnedFd, kind: u16, flags: i32) -> io::Result<Vec<u8>> {
        net::send(link, &self.request(kind, flags), SendFlags::empty())?;
        let mut answer = vec![0; 1024];
        let (length, _) = net::recv(link, &mut answer[..], RecvFlags::DONTWAIT)?;
        answer.truncate(length);
        Ok(answer)
    }

    /// nlmsghdr and inet_diag_req_v2 of `<linux/inet_diag.h>`.
    fn request(&self, kind: u16, flags: i32) -> [u8; 72] {
        let mut message = [0; 72];
        let flags = (libc::NLM_F_REQUEST | flags) as u16;
        message[0..4].copy_from_slice(&72_u32.to_ne_bytes());
        message[4..6].copy_from_slice(&kind.to_ne_bytes());
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

    /// A diagnostics socket of the network that this socket lives in.
    fn diagnostics(&self) -> io::Result<OwnedFd> {
        match self.process.and_then(foreign_network) {
            None => diagnostics(),
            Some(namespace) => diagnostics_in(&namespace),
        }
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

    /// Borrows its descriptor from its process and shuts it down. `false` if it was not found.
    fn shut_down(&self) -> io::Result<bool> {
        let process = self.process.and_then(|process| Pid::from_raw(process as i32));
        let Some(process) = process else { return Ok(false) };
        let process = rustix::process::pidfd_open(process, PidfdFlags::empty())?;
        // By number, because listing them takes more rights.
        for number in 0..DESCRIPTORS_LIMIT {
            match rustix::process::pidfd_getfd(&process, number, PidfdGetfdFlags::empty()) {
                Ok(descriptor) if net::sockopt::socket_cookie(&descriptor) == Ok(self.cookie) => {
                    net::shutdown(&descriptor, net::Shutdown::Both)?;
                    return Ok(true);
                }
                Ok(_) | Err(Errno::BADF) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(false)
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

fn word(answer: &[u8], at: usize) -> Option<u32> {
    answer.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes)
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

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn pair() -> (TcpStream, TcpStream, Socket) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (theirs, _) = listener.accept().unwrap();
        let socket = Socket {
            cookie: net::sockopt::socket_cookie(&ours).unwrap(),
            transport: Transport::Tcp,
            local: ours.local_addr().unwrap(),
            remote: ours.peer_addr().unwrap(),
            interface: 0,
            process: Some(std::process::id()),
        };
        (ours, theirs, socket)
    }

    #[test]
    fn the_kernel_says_whose_a_socket_is() {
        let (_ours, _theirs, socket) = pair();
        assert_eq!(socket.user().unwrap(), rustix::process::getuid().as_raw());
        assert!(Socket { cookie: 1, ..socket }.user().is_err());
    }

    #[test]
    fn a_borrowed_socket_is_shut_down() {
        let (mut ours, _theirs, socket) = pair();
        assert!(socket.shut_down().unwrap());
        assert_eq!(ours.read(&mut [0; 1]).unwrap(), 0);
        assert!(!Socket { cookie: 1, ..socket }.shut_down().unwrap());
    }

    #[test]
    fn a_destroyed_socket_fails_and_a_socket_that_is_gone_is_no_error() {
        let (mut ours, _theirs, socket) = pair();
        socket.destroy().unwrap();
        let error = ours.read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ECONNABORTED));
        drop(ours);
        socket.destroy().unwrap();
    }
}
