//! The whole process on the live kernel, speaking to an agent that this test plays. Needs root
//! and a cgroup v2. Traffic stays on loopback.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests and their helpers")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use toktra_protocol::event::Blocked;
use toktra_protocol::local::{self, Frames, FromExtension, Health, Record, Seed, ToExtension};
use toktra_protocol::{Block, BlockReason, EventBody, Lock};

const PATIENCE: Duration = Duration::from_secs(20);
const NAME: &str = "api.openai.com";

/// A cgroup, a socket, and the extension's process between them.
struct Scene {
    cgroup: PathBuf,
    directory: tempfile::TempDir,
    listener: UnixListener,
    process: Child,
}

impl Scene {
    fn start(port: u16) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mount = toktra_capture_linux::default_cgroup().expect("no cgroup v2 is mounted");
        let cgroup = mount.join(format!("toktra-test-{}-run{number}", std::process::id()));
        fs::create_dir(&cgroup).expect("this test makes a cgroup: run it as root");
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("extension.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let process = extension()
            .args(["run", "--log", "debug", "--ports", &port.to_string(), "--cgroup"])
            .arg(&cgroup)
            .arg("--socket")
            .arg(&socket)
            .spawn()
            .unwrap();
        Self { cgroup, directory, listener, process }
    }

    /// A command that will run in the cgroup.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("sh");
        command.arg("-c").arg("echo $$ > \"$0/cgroup.procs\" && exec \"$@\"").arg(&self.cgroup).arg(program);
        command
    }

    /// A client that connects to the provider's name and stays.
    fn stay_connected(&self, port: u16) -> Child {
        self.command("openssl")
            .args(["s_client", "-quiet", "-servername", NAME, "-connect", &format!("127.0.0.1:{port}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("install the package `openssl`")
    }

    fn curl(&self, name: &str, port: u16) -> Child {
        self.command("curl")
            .args(["-sk", "--noproxy", "*", "--max-time", "15", "-o", "/dev/null"])
            .args(["-H", &format!("X-Padding: {}", "x".repeat(300))])
            .args(["--resolve", &format!("{name}:{port}:127.0.0.1"), &format!("https://{name}:{port}/")])
            .spawn()
            .expect("install the package `curl`")
    }

    fn accept(&self) -> Agent {
        let (stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut agent = Agent { stream, frames: Frames::default(), health: Health::default() };
        match agent.next() {
            FromExtension::Hello { version, .. } => assert_eq!(version, local::VERSION),
            other => panic!("the first frame is {other:?}"),
        }
        agent
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.process.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    fn is_attached(&self) -> bool {
        let listing = Command::new("bpftool").args(["cgroup", "show"]).arg(&self.cgroup).output();
        let listing = listing.expect("install the package `bpftool`");
        String::from_utf8_lossy(&listing.stdout).contains("toktra_")
    }
}

/// The extension with the capabilities that its systemd unit leaves it.
fn extension() -> Command {
    let mut command = Command::new("setpriv");
    command
        .args([
            "--bounding-set=-all,+bpf,+net_admin,+perfmon,+sys_ptrace",
            "--inh-caps=-all",
            "--no-new-privs",
        ])
        .arg(env!("CARGO_BIN_EXE_toktra-extension"));
    command
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let deadline = Instant::now() + PATIENCE;
        while fs::remove_dir(&self.cgroup).is_err() && Instant::now() < deadline {
            thread::yield_now();
        }
    }
}

/// The agent's side of a connection.
struct Agent {
    stream: UnixStream,
    frames: Frames,
    health: Health,
}

impl Agent {
    fn next(&mut self) -> FromExtension {
        let mut buffer = [0; 4096];
        loop {
            if let Some(message) = self.frames.take::<FromExtension>().unwrap() {
                if let FromExtension::Health(health) = &message {
                    self.health = health.clone();
                }
                return message;
            }
            let length = self.stream.read(&mut buffer).expect("the extension said nothing in time");
            assert_ne!(length, 0, "the extension closed the connection");
            self.frames.push(&buffer[..length]);
        }
    }

    fn say(&mut self, message: &ToExtension) {
        self.stream.write_all(&local::encode(message).unwrap()).unwrap();
    }

    fn seed(&mut self, seed: Seed) {
        self.say(&ToExtension::Seed(Seed { version: local::VERSION, ..seed }));
    }

    fn until_health(&mut self, condition: impl Fn(&Health) -> bool) {
        while !condition(&self.health) {
            self.next();
        }
    }

    fn record(&mut self) -> Record {
        loop {
            if let FromExtension::Record(record) = self.next() {
                return record;
            }
        }
    }

    /// The next record of a block; records of usage before it are skipped.
    fn blocked(&mut self) -> Blocked {
        loop {
            if let EventBody::Blocked(blocked) = self.record().body {
                return blocked;
            }
        }
    }
}

/// `openssl s_server -www`.
struct TlsServer {
    port: u16,
    process: Child,
    _directory: tempfile::TempDir,
}

impl TlsServer {
    fn start() -> Self {
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
        Self { port, process, _directory: directory }
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn wait(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < deadline, "a process does not end");
        thread::yield_now();
    }
}

fn usage(record: &Record) -> &toktra_protocol::Usage {
    match &record.body {
        EventBody::Usage(usage) => usage,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_provider_connection_becomes_a_record_and_another_does_not() {
    let server = TlsServer::start();
    let scene = Scene::start(server.port);
    let mut agent = scene.accept();
    agent.seed(Seed::default());
    agent.until_health(|health| health.degraded.is_empty());

    assert!(wait(&mut scene.curl("intranet.example", server.port)).success());
    assert!(wait(&mut scene.curl(NAME, server.port)).success());
    let record = agent.record();
    assert_eq!(record.number, 1);
    let usage = usage(&record);
    assert_eq!((usage.provider.as_str(), usage.host.as_str()), ("openai", NAME));
    assert_eq!(usage.application.as_deref(), Some("curl"));
    assert_eq!(usage.user_account.as_deref(), Some("root"));
    assert!(usage.bytes_out > 300 && usage.bytes_in > 0 && usage.bytes_handshake > 0 && !usage.partial);
    agent.until_health(|health| health.flows_seen == 2 && health.flows_metered == 1);
}

#[test]
fn before_its_first_seed_and_in_privacy_hours_it_records_nothing() {
    let server = TlsServer::start();
    let scene = Scene::start(server.port);
    let mut agent = scene.accept();
    assert!(wait(&mut scene.curl(NAME, server.port)).success());
    let lock = Some(Lock { message: "locked".into() });
    let always = vec!["00:00-24:00".parse().unwrap()];
    let within =
        [Seed { privacy: always, ..Seed::default() }, Seed { privacy_unreadable: true, ..Seed::default() }];
    for private in within {
        // That a lock holds shows that a seed is in force, and that it is lifted, the next.
        agent.seed(Seed { lock: lock.clone(), ..private.clone() });
        while wait(&mut scene.curl(NAME, server.port)).success() {}
        agent.seed(private);
        while !wait(&mut scene.curl(NAME, server.port)).success() {}
    }
    let other = "api.anthropic.com";
    agent.seed(Seed { lock, ..Seed::default() });
    while wait(&mut scene.curl(other, server.port)).success() {}
    let record = agent.record();
    assert_eq!(record.number, 1, "{record:?}");
    let EventBody::Blocked(blocked) = record.body else { panic!("{record:?}") };
    assert_eq!(blocked.host, other);
}

#[test]
fn what_was_not_acknowledged_comes_again_and_what_was_does_not() {
    let server = TlsServer::start();
    let scene = Scene::start(server.port);
    let mut agent = scene.accept();
    agent.seed(Seed::default());
    for number in 1..=2 {
        assert!(wait(&mut scene.curl(NAME, server.port)).success());
        assert_eq!(agent.record().number, number);
    }
    agent.say(&ToExtension::Acknowledged { number: 1 });
    drop(agent);
    let mut agent = scene.accept();
    agent.seed(Seed { acknowledged: 1, ..Seed::default() });
    assert_eq!(agent.record().number, 2);
}

#[test]
fn a_block_ends_new_and_open_connections_at_once_and_is_recorded() {
    let server = TlsServer::start();
    let scene = Scene::start(server.port);
    let mut agent = scene.accept();
    agent.seed(Seed::default());
    let mut client = scene.stay_connected(server.port);
    agent.until_health(|health| health.flows_metered == 1);

    let block = Block {
        reason: BlockReason::Budget,
        message: "spent".into(),
        providers: Vec::new(),
        until: None,
        budget: None,
    };
    let until = toktra_protocol::UnixSeconds(u64::MAX);
    agent.seed(Seed { block: Some(block), block_until: Some(until), ..Seed::default() });
    wait(&mut client);
    assert!(agent.blocked().cut);
    let status = wait(&mut scene.curl(NAME, server.port));
    assert!(matches!(status.code(), Some(35 | 56)), "curl: {status}");
    let refused = agent.blocked();
    assert_eq!((refused.host.as_str(), refused.cut), (NAME, false));
    assert!(wait(&mut scene.curl("intranet.example", server.port)).success());
}

#[test]
fn a_container_of_another_user_is_named_and_blocked_too() {
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let scene = Scene::start(unused);
    let mut agent = scene.accept();
    let lock = Lock { message: "locked".into() };
    agent.seed(Seed { lock: Some(lock), ..Seed::default() });
    agent.until_health(|health| health.degraded.is_empty());
    let program = "import os, socket, ssl, subprocess, sys, threading\n\
                   subprocess.run(['ip', 'link', 'set', 'lo', 'up'], check=True)\n\
                   'x'.encode('idna')\n\
                   os.setgid(65534); os.setuid(65534)\n\
                   port = int(sys.argv[1])\n\
                   l = socket.create_server(('127.0.0.1', port)); kept = []\n\
                   threading.Thread(target=lambda: kept.append(l.accept()), daemon=True).start()\n\
                   c = ssl._create_unverified_context()\n\
                   try: c.wrap_socket(socket.create_connection(('127.0.0.1', port)), server_hostname=sys.argv[2])\n\
                   except OSError: print('refused')";
    let mut child = scene
        .command("unshare")
        .args(["-n", "python3", "-c", program, &unused.to_string(), NAME])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let refused = agent.blocked();
    assert_eq!(refused.user_account.as_deref(), Some("nobody"));
    assert!(refused.application.as_deref().unwrap().starts_with("python3"), "{refused:?}");
    wait(&mut child);
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said.trim(), "refused");
    agent.until_health(|health| health.flows_blocked == 1);
    assert!(agent.health.degraded.is_empty());
}

#[test]
fn told_to_stop_it_sends_the_last_counts_and_detaches() {
    let server = TlsServer::start();
    let mut scene = Scene::start(server.port);
    let mut agent = scene.accept();
    agent.seed(Seed::default());
    let mut client = scene.stay_connected(server.port);
    agent.until_health(|health| health.flows_metered == 1);
    scene.signal("TERM");
    let record = agent.record();
    assert_eq!(usage(&record).host, NAME);
    agent.say(&ToExtension::Acknowledged { number: record.number });
    assert_eq!(wait(&mut scene.process).code(), Some(0));
    assert!(!scene.is_attached());
    client.kill().unwrap();
    client.wait().unwrap();
}

#[test]
fn killed_it_leaves_the_network_working_and_nothing_attached() {
    let server = TlsServer::start();
    let mut scene = Scene::start(server.port);
    let mut agent = scene.accept();
    let block = Block {
        reason: BlockReason::Lock,
        message: "locked".into(),
        providers: Vec::new(),
        until: None,
        budget: None,
    };
    let until = toktra_protocol::UnixSeconds(u64::MAX);
    agent.seed(Seed { block: Some(block), block_until: Some(until), ..Seed::default() });
    agent.until_health(|health| health.degraded.is_empty());
    assert!(scene.is_attached());
    scene.signal("KILL");
    wait(&mut scene.process);
    let deadline = Instant::now() + PATIENCE;
    while scene.is_attached() {
        assert!(Instant::now() < deadline, "programs remain attached");
    }
    assert!(wait(&mut scene.curl(NAME, server.port)).success());
}

#[test]
fn while_the_agent_is_away_connections_pass_and_are_counted() {
    let server = TlsServer::start();
    let scene = Scene::start(server.port);
    let mut agent = scene.accept();
    agent.seed(Seed::default());
    agent.until_health(|health| health.degraded.is_empty());
    drop(agent);
    assert!(wait(&mut scene.curl(NAME, server.port)).success());
    let mut agent = scene.accept();
    agent.seed(Seed::default());
    agent.until_health(|health| health.flows_seen == 1);
}

#[test]
fn a_peer_of_a_foreign_account_is_not_spoken_to() {
    // The socket's owner is the account that listens: nobody, 65534.
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut scene = Scene::start(unused);
    let socket = scene.directory.path().join("foreign.sock");
    scene.process.kill().unwrap();
    scene.process.wait().unwrap();
    fs::set_permissions(scene.directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let program = "import os, socket, sys\n\
                   os.setgid(65534); os.setuid(65534)\n\
                   s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); os.chmod(sys.argv[1], 0o777); s.listen(); print('up', flush=True)\n\
                   c, _ = s.accept(); print(len(c.recv(1)), flush=True)";
    let mut foreign = Command::new("python3")
        .args(["-c", program])
        .arg(&socket)
        .stdout(Stdio::piped())
        .spawn()
        .expect("install the package `python3`");
    let mut output = BufReader::new(foreign.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    scene.process = extension()
        .args(["run", "--ports", &unused.to_string(), "--cgroup"])
        .arg(&scene.cgroup)
        .arg("--socket")
        .arg(&socket)
        .spawn()
        .unwrap();
    line.clear();
    output.read_line(&mut line).unwrap();
    assert_eq!(line.trim(), "0", "it hung up without a byte");
    wait(&mut foreign);
    drop(TcpStream::connect(("127.0.0.1", unused)));
}
