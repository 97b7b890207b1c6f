//! A cgroup of our own, clients in it, servers outside it, and a capture on it. Traffic stays on
//! loopback. Everything is undone when it is dropped.

#![allow(dead_code, reason = "each test file uses its part")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use toktra_capture_linux::{Capture, Options};
use toktra_engine::{Counters, FlowEvent, FlowId, Verdict};

pub const PATIENCE: Duration = Duration::from_secs(20);

/// A directory of the cgroup v2 hierarchy.
pub struct Cgroup(pub PathBuf);

impl Cgroup {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mount = toktra_capture_linux::default_cgroup()
            .expect("no cgroup v2 is mounted; `mount -t cgroup2 none /sys/fs/cgroup/unified` and run again");
        let name = format!("toktra-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = mount.join(name);
        fs::create_dir(&path).expect("this test makes a cgroup: run it as root");
        Self(path)
    }

    /// A command that will run inside.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("sh");
        command.arg("-c").arg("echo $$ > \"$0/cgroup.procs\" && exec \"$@\"").arg(&self.0).arg(program);
        command
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        for child in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            if child.path().is_dir() {
                let _ = fs::remove_dir(child.path());
            }
        }
        // A process that has just been reaped may still be listed.
        while fs::remove_dir(&self.0).is_err() && Instant::now() < deadline {
            thread::yield_now();
        }
    }
}

/// A child process that is stopped with its owner.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the capture said of one flow.
#[derive(Clone, Debug, Default)]
pub struct Story {
    pub id: u64,
    pub opened: bool,
    pub udp: bool,
    pub preexisting: bool,
    pub user: Option<String>,
    pub application: Option<String>,
    pub remote: Option<SocketAddr>,
    pub outbound: Vec<u8>,
    pub counters: Counters,
    pub closed: bool,
    pub verdict: Option<Verdict>,
}

/// A capture on a cgroup, and what it said.
pub struct Watch {
    pub capture: Capture,
    pub cgroup: Cgroup,
    pub stories: Vec<Story>,
    /// Text in the outbound bytes, and the verdict that it brings.
    pub rules: Vec<(&'static str, Verdict)>,
    /// For flows without any such text, once they have sent this much.
    pub otherwise: (usize, Verdict),
    last_refresh: Instant,
}

impl Watch {
    pub fn new(ports: &[u16], rules: &[(&'static str, Verdict)]) -> Self {
        Self::on(Cgroup::new(), ports, rules)
    }

    pub fn on(cgroup: Cgroup, ports: &[u16], rules: &[(&'static str, Verdict)]) -> Self {
        let options = Options { cgroup: cgroup.0.clone(), ports: ports.to_vec(), seed: 0x5eed };
        let capture = Capture::attach(&options).unwrap();
        assert_eq!(capture.degraded(), [""; 0], "this kernel should offer everything");
        Self {
            capture,
            cgroup,
            stories: Vec::new(),
            rules: rules.to_vec(),
            otherwise: (usize::MAX, Verdict::Ignore),
            last_refresh: Instant::now(),
        }
    }

    /// Takes in what the kernel says until a condition holds.
    pub fn until(&mut self, what: &str, condition: impl Fn(&[Story]) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition(&self.stories) {
            assert!(Instant::now() < deadline, "waited in vain until {what}: {:?}", self.stories);
            self.step();
        }
    }

    pub fn step(&mut self) {
        let Self { capture, stories, rules, otherwise, .. } = self;
        let mut decide = |flow: FlowId, event: FlowEvent<'_>| tell(stories, rules, *otherwise, flow, event);
        capture.poll(Duration::from_millis(20), &mut decide).unwrap();
        if self.last_refresh.elapsed() > Duration::from_millis(100) {
            self.last_refresh = Instant::now();
            capture.refresh(&mut decide);
        }
    }

    /// Takes in what the kernel says until a child has ended; its standard output.
    pub fn finish(&mut self, mut child: Child) -> (std::process::ExitStatus, String) {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "the client does not end: {:?}", self.stories);
            self.step();
        };
        let mut text = String::new();
        if let Some(mut output) = child.stdout.take() {
            output.read_to_string(&mut text).unwrap();
        }
        (status, text)
    }

    /// Takes in what the kernel says until its tables are empty.
    pub fn until_forgotten(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while self.capture.entries() != [0; 3] {
            assert!(Instant::now() < deadline, "left in the maps: {:?}", self.capture.entries());
            self.step();
        }
    }
}

fn tell(
    stories: &mut Vec<Story>,
    rules: &[(&'static str, Verdict)],
    otherwise: (usize, Verdict),
    flow: FlowId,
    event: FlowEvent<'_>,
) -> Verdict {
    if let FlowEvent::Opened(opened) = event {
        stories.push(Story {
            id: flow.0,
            opened: true,
            udp: opened.transport == toktra_engine::Transport::Udp,
            preexisting: opened.preexisting,
            user: opened.user_account.map(Into::into),
            application: opened.application.map(Into::into),
            remote: Some(opened.remote),
            ..Story::default()
        });
        return Verdict::NeedMore;
    }
    let story = stories.iter_mut().rev().find(|story| story.id == flow.0).expect("opened before all else");
    match event {
        FlowEvent::Outbound { position, bytes } => {
            let end = position as usize + bytes.len();
            story.outbound.resize(story.outbound.len().max(end), 0);
            story.outbound[position as usize..end].copy_from_slice(bytes);
        }
        FlowEvent::Datagram(bytes) => story.outbound.extend_from_slice(bytes),
        FlowEvent::Counters(counters) => story.counters = counters,
        FlowEvent::Closed(counters) => {
            story.counters = counters;
            story.closed = true;
        }
        FlowEvent::Opened(_) => {}
    }
    if let Some(verdict) = story.verdict {
        return verdict;
    }
    let found = rules.iter().find(|(text, _)| contains(&story.outbound, text));
    let verdict = match found {
        Some((_, verdict)) => *verdict,
        None if story.outbound.len() >= otherwise.0 => otherwise.1,
        None => return Verdict::NeedMore,
    };
    story.verdict = Some(verdict);
    verdict
}

pub fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// `openssl s_server` with a certificate of its own; answers HTTP.
pub struct TlsServer {
    pub port: u16,
    _process: Running,
    _directory: tempfile::TempDir,
}

impl TlsServer {
    pub fn start(extra: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let made = Command::new("openssl")
            .args(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=t".split(' '),
            )
            .args(["-keyout", "key.pem", "-out", "cert.pem"])
            .current_dir(&directory)
            .stderr(Stdio::null())
            .status()
            .expect("install the package `openssl`");
        assert!(made.success());
        let mut process = Command::new("openssl")
            .args("s_server -accept 0 -www -key key.pem -cert cert.pem".split(' '))
            .args(extra)
            .current_dir(&directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        while !line.starts_with("ACCEPT") {
            line.clear();
            assert_ne!(lines.read_line(&mut line).unwrap(), 0, "openssl s_server ended");
        }
        let port = line.trim().rsplit(':').next().unwrap().parse().unwrap();
        thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        Self { port, _process: Running(process), _directory: directory }
    }
}

/// Counts what arrives and answers each connection's first bytes with `reply` bytes, in pieces.
pub struct PlainServer {
    pub address: SocketAddr,
    pub received: Arc<AtomicU64>,
    pub connections: Arc<AtomicU64>,
}

impl PlainServer {
    pub fn start(at: &str, reply: usize) -> Self {
        let listener = TcpListener::bind(at).unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::new(AtomicU64::new(0));
        let connections = Arc::new(AtomicU64::new(0));
        let (count, number) = (Arc::clone(&received), Arc::clone(&connections));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                number.fetch_add(1, Ordering::SeqCst);
                let count = Arc::clone(&count);
                thread::spawn(move || {
                    let mut buffer = vec![0; 65536];
                    while let Ok(length @ 1..) = stream.read(&mut buffer) {
                        count.fetch_add(length as u64, Ordering::SeqCst);
                        let ends = buffer[..length].ends_with(b"\n");
                        if ends && stream.write_all(&vec![b'r'; reply]).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, received, connections }
    }
}

/// A Python program in the cgroup, with its standard input and output piped.
pub fn python(cgroup: &Cgroup, program: &str) -> Child {
    cgroup
        .command("python3")
        .args(["-u", "-c", program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("install the package `python3`")
}
