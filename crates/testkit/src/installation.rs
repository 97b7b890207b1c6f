//! A whole installation of the real binaries on one lab: a backend on its embedded database,
//! an organisation with a department, an enrolled agent, and the extension on the lab's
//! client cgroup. Everything it writes is in the lab's directory and goes with it.

use std::ffi::OsString;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use serde_json::Value;
use toktra_protocol::local::EXTENSION_SOCKET;

use crate::lab::{Lab, PROXY_PORT};
use crate::past::Past;
use crate::process::{Process, binary, output, until};

/// The organisation.
pub const ORGANISATION: &str = "Acme";
/// Its department, which the device belongs to.
pub const DEPARTMENT: &str = "Research";
/// The console's administrator.
pub const ADMINISTRATOR: &str = "admin";

/// Longest wait for a process to be up. Generous: it bounds a failure, not a success.
pub(crate) const START_LIMIT: Duration = Duration::from_secs(30);

/// Variables for processes, beside this one's own.
pub type Environment = Vec<(&'static str, OsString)>;

/// A user's command at a device of this lab: a home of its own, and no desktop.
pub(crate) fn at_home(lab: &Lab, command: &mut Command) {
    command.env("HOME", lab.client_directory()).env("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent");
    command.env_remove("XDG_CONFIG_HOME");
}

/// One of the three processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// `toktra-server serve`.
    Server,
    /// `toktra-agent run`.
    Agent,
    /// `toktra-extension run`.
    Extension,
}

impl Part {
    /// All three, in the order in which they start.
    pub const ALL: [Self; 3] = [Self::Server, Self::Agent, Self::Extension];

    fn name(self) -> &'static str {
        match self {
            Self::Server => "toktra-server",
            Self::Agent => "toktra-agent",
            Self::Extension => "toktra-extension",
        }
    }
}

/// An event as `toktra-server events` prints it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[allow(missing_docs, reason = "toktra_store::events says what they are")]
pub struct Event {
    pub sequence: i64,
    pub kind: String,
    pub provider: Option<String>,
    pub service: Option<String>,
    pub host: Option<String>,
    pub name_source: Option<String>,
    pub user_account: Option<String>,
    pub application: Option<String>,
    pub exchanges: Option<u64>,
    pub bytes_out: Option<u64>,
    pub bytes_in: Option<u64>,
    pub bytes_handshake: Option<u64>,
    pub streaming: Option<u64>,
    pub partial: Option<u64>,
    pub tokens_in_low: Option<u64>,
    pub tokens_in_point: Option<u64>,
    pub tokens_in_high: Option<u64>,
    pub tokens_out_low: Option<u64>,
    pub tokens_out_point: Option<u64>,
    pub tokens_out_high: Option<u64>,
    pub calibration: Option<String>,
    pub reason: Option<String>,
    pub cut: Option<u64>,
}

impl Event {
    /// All its bytes: both directions, handshake included.
    pub fn bytes(&self) -> u64 {
        [self.bytes_out, self.bytes_in, self.bytes_handshake].into_iter().flatten().sum()
    }
}

/// The running installation.
#[derive(Debug)]
pub struct Installation {
    // First, so that the processes stop before the lab goes.
    processes: [Option<Process>; 3],
    port: u16,
    password: String,
    pub(crate) device: String,
    /// The last event that was looked at.
    pub(crate) seen: i64,
    /// Variables of all processes, those of further devices too.
    pub(crate) environment: Environment,
    /// `TZ` of the device's processes, from their next start on.
    zone: Option<String>,
    /// The lab it lives in.
    pub lab: Lab,
}

/// Setting up, in order.
impl Installation {
    /// Sets everything up, telling each step, and waits until traffic would be metered.
    pub fn start(step: impl FnMut(&str)) -> anyhow::Result<Self> {
        Self::start_with(Environment::new(), step)
    }

    /// The same, with more variables for the processes of all parts.
    pub fn start_with(environment: Environment, mut step: impl FnMut(&str)) -> anyhow::Result<Self> {
        let mut installation = Self::with_backend(environment, &mut step)?;
        step("a one-time token, and an agent that enrols with it");
        installation.enrol()?;
        installation.restart(Part::Agent)?;
        step("the extension on the live kernel, limited to the lab's cgroup");
        installation.restart(Part::Extension)?;
        Ok(installation)
    }

    /// A device that enrolled so long ago and has been off since, at a moment at which the backend
    /// is away.
    pub fn start_after(age: Duration) -> anyhow::Result<Self> {
        let mut installation = Self::with_backend(Environment::new(), &mut |_: &str| ())?;
        installation.processes[Part::Server as usize] = None;
        let past = Past::serve(&installation.state("server"), installation.port, age)?;
        installation.enrol()?;
        past.end()?;
        installation.restart(Part::Agent)?;
        installation.restart(Part::Extension)?;
        Ok(installation)
    }

    fn with_backend(environment: Environment, step: &mut impl FnMut(&str)) -> anyhow::Result<Self> {
        step("network namespaces, a cgroup and the provider simulator");
        let lab = Lab::new()?;
        let mut installation = Self {
            processes: [None, None, None],
            port: free_port()?,
            password: uuid::Uuid::new_v4().simple().to_string(),
            device: String::new(),
            seen: 0,
            environment,
            zone: None,
            lab,
        };
        step("a backend on its embedded database, with an organisation and a department");
        installation.start_backend()?;
        Ok(installation)
    }

    fn start_backend(&mut self) -> anyhow::Result<()> {
        let password = self.lab.directory().join("password");
        fs::write(&password, &self.password)?;
        let (domain, password) = (self.domain(), password.display().to_string());
        self.server(
            &[
                &["init", "--domain", &domain, "--organisation", ORGANISATION][..],
                &["--admin", ADMINISTRATOR, "--password-file", &password],
            ]
            .concat(),
        )?;
        self.server(&["department", "add", DEPARTMENT])?;
        self.restart(Part::Server)
    }

    fn enrol(&mut self) -> anyhow::Result<()> {
        let token = self.server(&["token", "create", "--department", DEPARTMENT])?;
        let ca = self.root_certificate().display().to_string();
        let said =
            self.agent(&["enroll", "--domain", &self.domain(), "--token", token.trim(), "--ca", &ca])?;
        // "Enrolled with DOMAIN as DEVICE: ORGANISATION."
        let device = said.split(" as ").nth(1).and_then(|rest| rest.split(':').next());
        self.device = device.context("the agent did not say which device it is")?.to_owned();
        Ok(())
    }
}

/// Running it.
impl Installation {
    /// Runs a command of `toktra-server` and returns what it printed.
    pub fn server(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(binary(Part::Server.name())?);
        output(command.args(arguments).arg("--data").arg(self.state("server")))
    }

    /// Runs a command of `toktra-agent` and returns what it printed.
    pub fn agent(&self, arguments: &[&str]) -> anyhow::Result<String> {
        output(&mut self.agent_command(arguments)?)
    }

    /// The same, not yet run.
    pub fn agent_command(&self, arguments: &[&str]) -> anyhow::Result<Command> {
        let mut command = Command::new(binary(Part::Agent.name())?);
        command.args(arguments).args(self.agent_places());
        Ok(command)
    }

    /// The agent's status.
    pub fn status(&self) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.agent(&["status", "--json"])?)?)
    }

    /// Has the agent send what waits.
    pub fn flush(&self) -> anyhow::Result<()> {
        self.agent(&["flush"]).map(drop)
    }

    /// The device's events beyond the number `after`, as the backend has them.
    pub fn events(&self, after: i64) -> anyhow::Result<Vec<Event>> {
        let lines = self.server(&["events", &self.device, "--after", &after.to_string()])?;
        lines.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    /// The device's identifier.
    pub fn device_id(&self) -> &str {
        &self.device
    }

    /// A part's process identifier, while it runs.
    pub fn id(&self, part: Part) -> Option<u32> {
        self.processes[part as usize].as_ref().map(Process::id)
    }

    /// Whether every acknowledged event is stored and booked exactly once; an error says which is not.
    pub fn check_ledger(&self) -> anyhow::Result<String> {
        self.server(&["check"])
    }

    /// The console's address.
    pub fn console(&self) -> String {
        format!("https://api.{}/", self.domain())
    }

    /// The password of [`ADMINISTRATOR`].
    pub fn password(&self) -> &str {
        &self.password
    }

    /// The backend's root certificate.
    pub fn root_certificate(&self) -> PathBuf {
        self.state("server").join("root.pem")
    }

    /// Files of the three processes (databases, spools, logs) that hold a text anywhere.
    pub fn traces_of(&self, text: &str) -> anyhow::Result<Vec<PathBuf>> {
        let mut open: Vec<PathBuf> = ["server", "agent", "run", "logs"].map(|name| self.state(name)).into();
        let mut found = Vec::new();
        while let Some(place) = open.pop() {
            if place.is_dir() {
                for entry in fs::read_dir(&place)? {
                    open.push(entry?.path());
                }
            } else if place.is_file() && String::from_utf8_lossy(&fs::read(&place)?).contains(text) {
                found.push(place);
            }
        }
        Ok(found)
    }

    /// `kill -9`, without a farewell.
    pub fn kill(&mut self, part: Part) -> anyhow::Result<()> {
        match &mut self.processes[part as usize] {
            Some(process) => process.kill(),
            None => Ok(()),
        }
    }

    /// Keeps a part from running, and so from answering, without ending it; or lets it go on.
    pub fn freeze(&self, part: Part, frozen: bool) -> anyhow::Result<()> {
        self.processes[part as usize].as_ref().map_or(Ok(()), |process| process.freeze(frozen))
    }

    /// Starts a part again, or for the first time, and waits until it is up.
    pub fn restart(&mut self, part: Part) -> anyhow::Result<()> {
        self.processes[part as usize] = None;
        let logs = self.state("logs");
        let mut process = Process::start(part.name(), &mut self.command(part)?, &logs)?;
        until(&format!("{} to be up", part.name()), START_LIMIT, || {
            process.check()?;
            Ok(self.is_up(part, &process).then_some(()))
        })?;
        self.processes[part as usize] = Some(process);
        Ok(())
    }

    /// Takes the device to another time zone, as `TZ` names or describes it: starts its two parts again there.
    pub fn travel(&mut self, zone: &str) -> anyhow::Result<()> {
        self.zone = Some(zone.to_owned());
        self.restart(Part::Agent)?;
        self.restart(Part::Extension)
    }

    /// Stops all three as a service manager would, the last first.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        for part in Part::ALL.into_iter().rev() {
            if let Some(mut process) = self.processes[part as usize].take() {
                let status = process.stop()?;
                ensure!(status.success(), "{} ended with {status}: {}", part.name(), process.log());
            }
        }
        Ok(())
    }

    /// Starts all three again after [`Self::stop`]; those that run stay as they are.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        for part in Part::ALL {
            if self.processes[part as usize].is_none() {
                self.restart(part)?;
            }
        }
        Ok(())
    }

    /// The `ToktraDomain`.
    pub fn domain(&self) -> String {
        format!("toktra.localhost:{}", self.port)
    }

    /// Where on loopback the backend listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    fn state(&self, name: &str) -> PathBuf {
        self.lab.directory().join(name)
    }

    fn command(&self, part: Part) -> anyhow::Result<Command> {
        let mut command = self.lab.service(&binary(part.name())?);
        command.envs(self.environment.iter().cloned());
        match part {
            Part::Server => {
                command.args(["serve", "--listen", &format!("127.0.0.1:{}", self.port)]);
                command.arg("--data").arg(self.state("server"));
            }
            Part::Agent => {
                command.arg("run").args(self.agent_places());
            }
            Part::Extension => {
                command.arg("run").arg("--cgroup").arg(self.lab.client_cgroup());
                command.args(["--ports", &format!("443,{PROXY_PORT}")]);
                command.arg("--socket").arg(self.state("run").join(EXTENSION_SOCKET));
            }
        }
        if let Some(zone) = self.zone.as_ref().filter(|_| part != Part::Server) {
            command.env("TZ", zone);
        }
        Ok(command)
    }

    fn agent_places(&self) -> Vec<OsString> {
        let mut arguments = Vec::new();
        for (option, name) in
            [("--config", "agent.toml"), ("--state-dir", "agent"), ("--run-dir", "run"), ("--seat", "seat")]
        {
            arguments.extend([option.into(), self.state(name).into_os_string()]);
        }
        arguments
    }

    fn is_up(&self, part: Part, process: &Process) -> bool {
        match part {
            Part::Server => TcpStream::connect(("127.0.0.1", self.port)).is_ok(),
            Part::Agent => self.status().is_ok_and(|status| !status["device"].is_null()),
            Part::Extension => {
                // It says how it is once it has its seed, before which it records nothing.
                process.log().contains("capturing")
                    && self.status().is_ok_and(|status| !status["health"].is_null())
            }
        }
    }
}

fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("find a free port")?;
    Ok(listener.local_addr()?.port())
}
