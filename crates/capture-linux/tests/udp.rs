//! Datagrams on loopback, on the live kernel. Needs root and a cgroup v2.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "tests and their lab")]

mod lab;

use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::Instant;

use lab::{PATIENCE, Watch, contains, python};
use toktra_engine::Verdict;

const NAME: &str = "api.openai.com";

/// Answers each datagram with `reply` bytes.
fn echo(at: &str, reply: usize) -> SocketAddr {
    let socket = UdpSocket::bind(at).unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 65536];
        while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&vec![b'r'; reply], peer);
        }
    });
    address
}

fn client(to: &[SocketAddr], body: &str) -> String {
    let peers: Vec<_> = to.iter().map(|peer| format!("('{}', {})", peer.ip(), peer.port())).collect();
    let family = if to[0].is_ipv4() { "AF_INET" } else { "AF_INET6" };
    format!(
        "import socket\npeers = [{}]\ns = socket.socket(socket.{family}, socket.SOCK_DGRAM)\ns.settimeout(10)\n{body}",
        peers.join(", ")
    )
}

#[test]
fn datagrams_of_a_connected_socket_are_shown_counted_and_forgotten_with_the_socket() {
    for at in ["127.0.0.1:0", "[::1]:0"] {
        let server = echo(at, 300);
        let mut watch = Watch::new(&[server.port()], &[(NAME, Verdict::Meter)]);
        let program = client(
            &[server],
            "s.connect(peers[0])\n\
             for _ in range(4): s.send(b'x' * 1000 + b'api.openai.com'); s.recv(1000)",
        );
        let child = python(&watch.cgroup, &program);
        assert!(watch.finish(child).0.success());
        watch.until("the socket closed", |stories| stories.len() == 1 && stories[0].closed);
        let story = &watch.stories[0];
        assert!(story.udp && !story.preexisting && contains(&story.outbound, NAME));
        assert_eq!((story.counters.bytes_out, story.counters.bytes_in), (4 * 1014, 4 * 300));
        assert_eq!(story.counters.turns, Some(3));
        assert!(story.application.as_deref().unwrap().starts_with("python3"));
        watch.until_forgotten();
    }
}

#[test]
fn one_socket_with_several_peers_is_several_flows() {
    let servers = [echo("127.0.0.1:0", 10), echo("127.0.0.1:0", 20)];
    let ports = servers.map(|server| server.port());
    let mut watch = Watch::new(&ports, &[("meter", Verdict::Meter), ("ignore", Verdict::Ignore)]);
    let program = client(
        &servers,
        "for text in (b'meter', b'ignore'):\n\
         \x20   peer = peers[0] if text == b'meter' else peers[1]\n\
         \x20   for _ in range(3): s.sendto(text, peer); s.recv(100)",
    );
    let child = python(&watch.cgroup, &program);
    assert!(watch.finish(child).0.success());
    watch.until("the socket closed", |stories| stories.iter().any(|story| story.closed));
    assert_eq!(watch.stories.len(), 2);
    let metered = watch.stories.iter().find(|story| story.remote == Some(servers[0])).unwrap();
    assert_eq!((metered.counters.bytes_out, metered.counters.bytes_in), (15, 30));
    let ignored = watch.stories.iter().find(|story| story.remote == Some(servers[1])).unwrap();
    assert!(!ignored.closed);
    watch.until_forgotten();
}

#[test]
fn a_flow_that_the_engine_gave_up_undecided_is_forgotten_while_its_socket_lives() {
    let server = echo("127.0.0.1:0", 10);
    let mut watch = Watch::new(&[server.port()], &[]);
    let program = client(&[server], "s.sendto(b'half', peers[0]); s.recv(100); input()");
    let mut child = python(&watch.cgroup, &program);
    watch.until("the datagram was shown", |stories| stories.iter().any(|story| story.outbound == b"half"));
    watch.stories[0].verdict = Some(Verdict::Ignore);
    let deadline = Instant::now() + PATIENCE;
    while watch.capture.entries()[1] != 0 && Instant::now() < deadline {
        watch.step();
    }
    assert_eq!(watch.capture.entries()[1], 0);
    assert!(child.try_wait().unwrap().is_none(), "its socket lives");
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert!(watch.finish(child).0.success());
    watch.until_forgotten();
}

#[test]
fn a_blocked_connected_socket_fails_at_once() {
    let server = echo("127.0.0.1:0", 10);
    let mut watch = Watch::new(&[server.port()], &[(NAME, Verdict::Meter)]);
    let program = client(
        &[server],
        "s.connect(peers[0]); s.send(b'api.openai.com'); s.recv(100)\n\
         try: s.recv(100); print('data')\n\
         except OSError as e: print(e.errno)",
    );
    let child = python(&watch.cgroup, &program);
    watch.until("the reply came", |stories| stories.iter().any(|story| story.counters.bytes_in == 10));
    watch.capture.set_verdict(toktra_engine::FlowId(watch.stories[0].id), Verdict::Block);
    assert_eq!(watch.finish(child).1.trim(), libc::ECONNABORTED.to_string());
    watch.until_forgotten();
}

#[test]
fn a_blocked_peer_of_an_unconnected_socket_is_refused_and_its_other_peers_are_not() {
    let servers = [echo("127.0.0.1:0", 10), echo("127.0.0.1:0", 20)];
    let ports = servers.map(|server| server.port());
    let mut watch = Watch::new(&ports, &[(NAME, Verdict::Block), ("other", Verdict::Ignore)]);
    let program = client(
        &servers,
        "s.sendto(b'other', peers[1]); s.recv(100)\n\
         import time\n\
         end = time.time() + 10\n\
         while time.time() < end:\n\
         \x20   try: s.sendto(b'api.openai.com', peers[0])\n\
         \x20   except OSError as e: print(e.errno); break\n\
         s.settimeout(0.05)\n\
         try:\n\
         \x20   while True: s.recv(100)\n\
         except OSError: pass\n\
         s.settimeout(10); s.sendto(b'other', peers[1]); print(len(s.recv(100)))",
    );
    let child = python(&watch.cgroup, &program);
    let (_, said) = watch.finish(child);
    let said: Vec<&str> = said.split_whitespace().collect();
    assert_eq!(said, [libc::EPERM.to_string().as_str(), "20"]);
    watch.until_forgotten();
}

#[test]
fn a_batch_of_segments_arrives_as_the_datagrams_it_is() {
    let server = echo("127.0.0.1:0", 1);
    let mut watch = Watch::new(&[server.port()], &[("end", Verdict::Ignore)]);
    // SOL_UDP 17, UDP_SEGMENT 103: the kernel parts one send into datagrams of 1200 bytes.
    let program = client(
        &[server],
        "s.setsockopt(17, 103, 1200); s.connect(peers[0])\n\
         s.send(b'a' * 1200 + b'b' * 1200 + b'end'); s.recv(100)",
    );
    let child = python(&watch.cgroup, &program);
    assert!(watch.finish(child).0.success());
    let outbound = &watch.stories[0].outbound;
    assert_eq!(outbound.len(), 2403);
    assert!(outbound.starts_with(&[b'a'; 1200]) && outbound.ends_with(b"bbend"));
    watch.until_forgotten();
}
