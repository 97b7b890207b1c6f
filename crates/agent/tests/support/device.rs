//! A device: the agent as a process or in the test's own, and its directories.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use toktra_agent::clock::{Clock, Moved};
use toktra_agent::config::Source;
use toktra_agent::daemon::{self, Places};
use toktra_protocol::local::{self, Status};

use super::{Backend, PATIENCE, TOKEN};

/// The agent in the test's own process, whose clocks the test moves. Ends when it is dropped.
pub struct Inside {
    clocks: &'static Mutex<Moved>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Inside {
    pub fn clock(&self) -> Clock {
        Clock::Moved(self.clocks)
    }

    /// The machine sleeps.
    pub fn sleep(&self, asleep: Duration) {
        self.clocks.lock().unwrap().slept += asleep;
    }

    /// Somebody sets the wall clock.
    pub fn set_clock(&self, ahead_s: i64) {
        self.clocks.lock().unwrap().ahead_s = ahead_s;
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A device: its directories, and the agent when it runs.
pub struct Device {
    pub directory: tempfile::TempDir,
    pub child: Option<Child>,
}

impl Device {
    /// With domain, authority and token in its configuration file.
    pub fn configured(backend: &Backend) -> Self {
        let device = Self::new();
        std::fs::write(device.path("ca.pem"), backend.ca_pem()).unwrap();
        let config =
            format!("domain = \"{}\"\nca = \"{}\"\n", backend.domain(), device.path("ca.pem").display());
        std::fs::write(device.path("agent.toml"), config + &format!("token = \"{TOKEN}\"\n")).unwrap();
        device
    }

    /// Enrolled, by way of the configuration file.
    pub fn enrolled(backend: &Backend) -> Self {
        let device = Self::configured(backend);
        let output = device.command(&["enroll"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        device
    }

    pub fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), child: None }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn agent(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_toktra-agent"));
        // A home of its own, and no desktop.
        command.env("HOME", self.path("home"));
        for name in ["DBUS_SESSION_BUS_ADDRESS", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"] {
            command.env_remove(name);
        }
        for (option, name) in
            [("--config", "agent.toml"), ("--state-dir", "state"), ("--run-dir", "run"), ("--seat", "seat")]
        {
            command.arg(option).arg(self.path(name));
        }
        command
    }

    pub fn command(&self, arguments: &[&str]) -> Output {
        self.agent().args(arguments).output().unwrap()
    }

    /// Gives a command something to read.
    pub fn command_with(&self, arguments: &[&str], input: &str) -> Output {
        let piped = Stdio::piped;
        let mut child =
            self.agent().args(arguments).stdin(piped()).stdout(piped()).stderr(piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// Somebody sits at the machine.
    pub fn seat(&self, uid: u32) {
        std::fs::write(self.path("seat"), format!("ACTIVE_UID={uid}\n")).unwrap();
    }

    pub fn start(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.path("log")).unwrap();
        self.child = Some(self.agent().arg("run").stdout(log).stderr(Stdio::inherit()).spawn().unwrap());
    }

    pub fn places(&self) -> Places {
        let [config, state, run, seat] = ["agent.toml", "state", "run", "seat"].map(|name| self.path(name));
        Places { config: Source::File(config), state, run, seat }
    }

    pub fn start_inside(&self, ahead_s: i64) -> Inside {
        let clocks: &'static Mutex<Moved> = Box::leak(Box::default());
        clocks.lock().unwrap().ahead_s = ahead_s;
        let (stop, stopped) = oneshot::channel::<()>();
        let places = self.places();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let run = async {
                    // A process that another test is just starting may hold a copy of the last lock.
                    loop {
                        match daemon::run(&places, Clock::Moved(clocks)).await {
                            Err(error) if error.to_string().contains("another toktra-agent") => {
                                tokio::task::yield_now().await;
                            }
                            outcome => return outcome.unwrap(),
                        }
                    }
                };
                tokio::select! {
                    () = run => {}
                    _ = stopped => {}
                }
            });
        });
        Inside { clocks, stop: Some(stop), thread: Some(thread) }
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub fn status(&self) -> Status {
        serde_json::from_slice(&self.command(&["status", "--json"]).stdout).unwrap()
    }

    pub fn until(&self, what: &str, is_true: impl Fn(&Status) -> bool) -> Status {
        let start = Instant::now();
        loop {
            let status = self.status();
            if is_true(&status) {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "never: {what}: {status:?}\n{}", self.log());
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.path("run").join(local::EXTENSION_SOCKET)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.kill();
    }
}
