//! Real clients over TCP on loopback, on the live kernel. Needs root and a cgroup v2.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "tests and their lab")]

mod lab;

use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::Instant;

use lab::{Cgroup, PlainServer, TlsServer, Watch, contains, python};
use toktra_engine::Verdict;

const NAME: &str = "api.openai.com";

fn curl(cgroup: &Cgroup, name: &str, address: &str, port: u16, extra: &[&str]) -> std::process::Child {
    cgroup
        .command("curl")
        .args(["-sk", "--noproxy", "*", "--max-time", "15", "-w", "%{time_total} %{size_request}"])
        .args(["-o", "/dev/null", "--resolve", &format!("{name}:{port}:{address}")])
        .args(extra)
        .arg(format!("https://{name}:{port}/"))
        .stdout(Stdio::piped())
        .spawn()
        .expect("install the package `curl`")
}

#[test]
fn the_hello_of_curl_arrives_with_its_owner_over_both_versions_of_ip() {
    let server = TlsServer::start(&[]);
    let mut watch = Watch::new(&[server.port], &[(NAME, Verdict::Meter)]);
    for (count, address) in ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]"].into_iter().enumerate() {
        // As long as a real request; a shorter burst is no turn.
        let header = format!("X-Padding: {}", "x".repeat(200));
        let child = curl(&watch.cgroup, NAME, address, server.port, &["-H", &header]);
        let (status, _) = watch.finish(child);
        assert!(status.success(), "curl to {address}: {status}");
        watch.until("the flow closed", |stories| stories.len() == count + 1 && stories[count].closed);
        let story = &watch.stories[count];
        assert!(contains(&story.outbound, NAME));
        assert_eq!(story.application.as_deref(), Some("curl"));
        assert_eq!(story.user.as_deref(), Some("root"));
        assert!(!story.preexisting);
        assert_eq!(story.remote.unwrap().port(), server.port);
        assert_eq!(story.counters.turns, Some(1), "one request: {story:?}");
        assert!(story.counters.handshake.unwrap().bytes_in > 0);
    }
    watch.until_forgotten();
}

#[test]
fn counts_equal_what_the_server_saw_and_sent() {
    for at in ["127.0.0.1:0", "[::1]:0"] {
        let server = PlainServer::start(at, 1_000_000);
        let mut watch = Watch::new(&[server.address.port()], &[("count me", Verdict::Meter)]);
        let program = format!(
            "import socket\n\
             s = socket.create_connection(('{}', {}))\n\
             s.sendall(b'count me\\n'); s.recv(1000000, socket.MSG_WAITALL)\n\
             for _ in range(3):\n\
             \x20   s.sendall(b'x' * 3000000 + b'\\n'); s.recv(1000000, socket.MSG_WAITALL)\n\
             s.close()",
            server.address.ip(),
            server.address.port()
        );
        let child = python(&watch.cgroup, &program);
        let (status, _) = watch.finish(child);
        assert!(status.success());
        watch.until("the flow closed", |stories| stories.len() == 1 && stories[0].closed);
        let counters = watch.stories[0].counters;
        assert_eq!(counters.bytes_out, server.received.load(Ordering::SeqCst));
        assert_eq!(counters.bytes_out, 9 + 3 * 3_000_001);
        assert_eq!(counters.bytes_in, 4_000_000);
        assert_eq!(counters.turns, Some(3));
        assert_eq!(counters.handshake.unwrap().bytes_out, 9);
        watch.until_forgotten();
    }
}

#[test]
fn a_blocked_connection_fails_at_once_and_its_request_never_leaves() {
    let server = PlainServer::start("127.0.0.1:0", 1);
    let mut watch = Watch::new(&[server.address.port()], &[(NAME, Verdict::Block)]);
    watch.capture.set_strict(true);
    let started = Instant::now();
    let child = curl(&watch.cgroup, NAME, "127.0.0.1", server.address.port(), &[]);
    let (status, _) = watch.finish(child);
    let took = started.elapsed();
    // 35: the TLS handshake failed; 56: receiving failed.
    assert!(matches!(status.code(), Some(35 | 56)), "curl: {status}");
    assert_eq!(watch.capture.counts().sockets_left, 0);
    assert_eq!(watch.capture.counts().flows_blocked, 1);
    // Nothing but the hello, if that, had left.
    let received = server.received.load(Ordering::SeqCst);
    assert!(received <= watch.stories[0].outbound.len() as u64);
    println!("curl failed after {took:?}");
    watch.until_forgotten();
}

#[test]
fn an_open_connection_is_cut() {
    let server = PlainServer::start("127.0.0.1:0", 5);
    let mut watch = Watch::new(&[server.address.port()], &[("count me", Verdict::Meter)]);
    let program = format!(
        "import socket\n\
         s = socket.create_connection(('127.0.0.1', {}))\n\
         s.sendall(b'count me\\n'); s.recv(5)\n\
         try: print(s.recv(5))\n\
         except OSError as e: print(e.errno)",
        server.address.port()
    );
    let child = python(&watch.cgroup, &program);
    watch.until("the reply came", |stories| stories.iter().any(|story| story.counters.bytes_in == 5));
    let id = toktra_engine::FlowId(watch.stories[0].id);
    watch.capture.set_verdict(id, Verdict::Block);
    let (_, said) = watch.finish(child);
    assert_eq!(said.trim(), libc::ECONNABORTED.to_string());
    watch.until_forgotten();
}

#[test]
fn an_ignored_connection_leaves_no_trace_in_the_maps() {
    let server = TlsServer::start(&[]);
    let mut watch = Watch::new(&[server.port], &[("example.org", Verdict::Ignore)]);
    let child = curl(&watch.cgroup, "example.org", "127.0.0.1", server.port, &[]);
    assert!(watch.finish(child).0.success());
    watch.until_forgotten();
    assert!(!watch.stories[0].closed, "of an ignored flow nothing more is said");
    let counts = watch.capture.counts();
    assert_eq!(counts.verdicts, 1);
    println!("verdict in the map {} us after the packet", counts.verdict_ns / 1000);
}

#[test]
fn a_connection_older_than_the_capture_is_seen_and_marked() {
    let server = PlainServer::start("127.0.0.1:0", 100);
    let cgroup = Cgroup::new();
    let program = format!(
        "import socket, sys\n\
         s = socket.create_connection(('127.0.0.1', {}))\n\
         s.sendall(b'before\\n'); s.recv(100); print('ready'); sys.stdin.readline()\n\
         s.sendall(b'after\\n'); s.recv(100); s.close()",
        server.address.port()
    );
    let mut child = python(&cgroup, &program);
    let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut output, &mut String::new()).unwrap();

    let mut watch = Watch::on(cgroup, &[server.address.port()], &[("after", Verdict::Meter)]);
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"go\n").unwrap();
    watch.finish(child);
    watch.until("the flow closed", |stories| stories.len() == 1 && stories[0].closed);
    let story = &watch.stories[0];
    assert!(story.preexisting);
    assert_eq!(story.user.as_deref(), Some("root"));
    assert_eq!((story.counters.bytes_out, story.counters.bytes_in), (6, 100));
    watch.until_forgotten();
}

#[test]
fn a_socket_handed_to_a_forked_process_is_one_flow_of_the_process_that_connected() {
    let server = PlainServer::start("127.0.0.1:0", 10);
    let mut watch = Watch::new(&[server.address.port()], &[("parent", Verdict::Meter)]);
    let program = format!(
        "import os, socket\n\
         s = socket.create_connection(('127.0.0.1', {}))\n\
         s.sendall(b'parent\\n'); s.recv(10)\n\
         if os.fork() == 0:\n\
         \x20   s.sendall(b'child\\n'); s.recv(10); os._exit(0)\n\
         s.close(); os.wait()",
        server.address.port()
    );
    let child = python(&watch.cgroup, &program);
    assert!(watch.finish(child).0.success());
    watch.until("the flow closed", |stories| stories.len() == 1 && stories[0].closed);
    let story = &watch.stories[0];
    assert_eq!((story.counters.bytes_out, story.counters.bytes_in), (13, 20));
    assert!(story.application.as_deref().unwrap().starts_with("python3"));
    watch.until_forgotten();
}

#[test]
fn a_dropped_capture_leaves_nothing_in_the_kernel() {
    let watch = Watch::new(&[443], &[]);
    let listing = |arguments: &[&str]| {
        let output = Command::new("bpftool").args(arguments).output().expect("install the package `bpftool`");
        String::from_utf8(output.stdout).unwrap()
    };
    let cgroup = watch.cgroup.0.to_str().unwrap().to_owned();
    let attached = listing(&["cgroup", "show", &cgroup]);
    let ids: Vec<String> = attached
        .lines()
        .filter(|line| line.contains("toktra_"))
        .map(|line| line.split_whitespace().next().unwrap().to_owned())
        .collect();
    assert_eq!(ids.len(), 8, "{attached}");
    let program = listing(&["prog", "show", "id", &ids[0]]);
    let maps = program.split("map_ids ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();

    let lab::Watch { capture, cgroup: kept, .. } = watch;
    drop(capture);
    assert!(!listing(&["cgroup", "show", kept.0.to_str().unwrap()]).contains("toktra_"));
    // The kernel frees programs and maps after a grace period.
    let deadline = Instant::now() + lab::PATIENCE;
    let gone = |kind: &str, id: &str| listing(&[kind, "show", "id", id]).trim().is_empty();
    while !(ids.iter().all(|id| gone("prog", id)) && maps.split(',').all(|id| gone("map", id))) {
        assert!(Instant::now() < deadline, "programs {ids:?} or maps {maps} remain");
    }
}

#[test]
fn a_container_in_a_child_cgroup_and_a_network_of_its_own_is_cut_too() {
    // Nobody outside this network has that port, so any will do.
    let mut watch = Watch::new(&[4433], &[(NAME, Verdict::Block)]);
    std::fs::create_dir(watch.cgroup.0.join("container")).unwrap();
    let program = "import socket, subprocess, threading\n\
                   subprocess.run(['ip', 'link', 'set', 'lo', 'up'], check=True)\n\
                   l = socket.create_server(('127.0.0.1', 4433))\n\
                   kept = []\n\
                   threading.Thread(target=lambda: kept.append(l.accept()), daemon=True).start()\n\
                   s = socket.create_connection(('127.0.0.1', 4433))\n\
                   s.sendall(b'api.openai.com')\n\
                   try: print(s.recv(5))\n\
                   except OSError as e: print(e.errno)";
    let child = Command::new("sh")
        .args(["-c", "echo $$ > \"$0/container/cgroup.procs\" && exec unshare -n python3 -u -c \"$1\""])
        .arg(&watch.cgroup.0)
        .arg(program)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (_, said) = watch.finish(child);
    assert_eq!(said.trim(), libc::ECONNABORTED.to_string());
    assert_eq!(watch.capture.counts().sockets_left, 0);
    watch.until_forgotten();
}

#[test]
fn while_strict_what_follows_the_first_segment_waits_for_the_verdict() {
    let server = PlainServer::start("127.0.0.1:0", 1);
    let mut watch = Watch::new(&[server.address.port()], &[(NAME, Verdict::Meter)]);
    watch.capture.set_strict(true);
    let program = format!(
        "import socket\n\
         s = socket.create_connection(('127.0.0.1', {}))\n\
         s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)\n\
         s.sendall(b'hello api.openai.com'); s.sendall(b'request\\n'); s.recv(1)",
        server.address.port()
    );
    let child = python(&watch.cgroup, &program);
    // Nobody answers the kernel yet.
    let deadline = Instant::now() + lab::PATIENCE;
    while watch.capture.counts().packets_dropped == 0 {
        assert!(Instant::now() < deadline, "nothing was held");
    }
    assert!(server.received.load(Ordering::SeqCst) <= 20, "the request waits");
    assert!(watch.finish(child).0.success());
    assert_eq!(server.received.load(Ordering::SeqCst), 28);
    watch.until_forgotten();
}

#[test]
fn while_strict_a_prelude_and_its_answer_pass() {
    let server = PlainServer::start("127.0.0.1:0", 4);
    let mut watch = Watch::new(&[server.address.port()], &[(NAME, Verdict::Meter)]);
    watch.capture.set_strict(true);
    let program = format!(
        "import socket\n\
         s = socket.create_connection(('127.0.0.1', {}))\n\
         for text in (b'CONNECT\\n', b'again\\n', b'api.openai.com\\n'): s.sendall(text); s.recv(4)",
        server.address.port()
    );
    let child = python(&watch.cgroup, &program);
    assert!(watch.finish(child).0.success());
    watch.until("the flow closed", |stories| stories.iter().any(|story| story.closed));
    assert_eq!(watch.stories[0].counters.bytes_in, 12);
    watch.until_forgotten();
}

#[test]
fn a_hello_of_many_segments_arrives_whole() {
    let server = PlainServer::start("127.0.0.1:0", 1);
    let mut watch = Watch::new(&[server.address.port()], &[("end of hello", Verdict::Meter)]);
    let program = format!(
        "import socket\n\
         s = socket.create_connection(('127.0.0.1', {}))\n\
         s.sendall(bytes(i * 7 % 251 for i in range(15000)) + b'end of hello\\n'); s.recv(1)",
        server.address.port()
    );
    let child = python(&watch.cgroup, &program);
    assert!(watch.finish(child).0.success());
    let expected: Vec<u8> = (0..15_000_u32).map(|i| (i * 7 % 251) as u8).collect();
    assert_eq!(watch.stories[0].outbound[..15_000], expected);
    watch.until_forgotten();
}

#[test]
fn an_ignored_connection_that_turns_out_to_be_a_providers_is_counted_from_then_on() {
    let server = PlainServer::start("127.0.0.1:0", 10);
    let mut watch = Watch::new(&[server.address.port()], &[("ignore", Verdict::Ignore)]);
    let program = format!(
        "import socket, sys\n\
         s = socket.create_connection(('127.0.0.1', {}))\n\
         s.sendall(b'ignore me\\n'); s.recv(10); print('ready'); sys.stdin.readline()\n\
         s.sendall(b'x' * 500 + b'\\n'); s.recv(10); s.close()",
        server.address.port()
    );
    let mut child = python(&watch.cgroup, &program);
    watch.until("it was ignored", |stories| {
        stories.iter().any(|story| story.verdict == Some(Verdict::Ignore))
    });
    let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut output, &mut String::new()).unwrap();
    watch.stories[0].verdict = Some(Verdict::Meter);
    watch.capture.set_verdict(toktra_engine::FlowId(watch.stories[0].id), Verdict::Meter);
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"go\n").unwrap();
    watch.finish(child);
    watch.until("the flow closed", |stories| stories[0].closed);
    let counters = watch.stories[0].counters;
    assert_eq!((counters.bytes_out, counters.bytes_in), (501, 10));
    watch.until_forgotten();
}
