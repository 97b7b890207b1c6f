//! One more device of an installation: a lab of its own, so that its traffic and its cgroup are its
//! own, and an agent and an extension of its own that speak to the installation's backend.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;
use serde_json::Value;
use toktra_protocol::local::EXTENSION_SOCKET;

use crate::installation::{Environment, Event, Installation, Part, START_LIMIT, at_home};
use crate::lab::{Lab, PROXY_PORT};
use crate::process::{Process, binary, output, until};

/// The device.
#[derive(Debug)]
pub struct Member {
    // First, so that the processes stop before the lab goes.
    agent: Option<Process>,
    extension: Option<Process>,
    device: String,
    environment: Environment,
    /// The lab it lives in.
    pub lab: Lab,
}

impl Member {
    /// Enrols a device in a department of the installation, and waits until its traffic would be metered.
    /// More options go to `toktra-server token create`.
    pub fn join(installation: &Installation, department: &str, options: &[&str]) -> anyhow::Result<Self> {
        let environment = installation.environment.clone();
        let mut member =
            Self { agent: None, extension: None, device: String::new(), environment, lab: Lab::new()? };
        let token =
            installation.server(&[&["token", "create", "--department", department][..], options].concat())?;
        let ca = installation.root_certificate().display().to_string();
        let domain = installation.domain();
        let said = member.agent(&["enroll", "--domain", &domain, "--token", token.trim(), "--ca", &ca])?;
        // "Enrolled with DOMAIN as DEVICE: ORGANISATION."
        let device = said.split(" as ").nth(1).and_then(|rest| rest.split(':').next());
        member.device = device.context("the agent did not say which device it is")?.to_owned();
        member.restart(Part::Agent)?;
        member.restart(Part::Extension)?;
        Ok(member)
    }

    /// Its identifier.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// A part's process identifier, while it runs; none of the backend's.
    pub fn id(&self, part: Part) -> Option<u32> {
        let process = match part {
            Part::Agent => &self.agent,
            Part::Extension => &self.extension,
            Part::Server => return None,
        };
        process.as_ref().map(Process::id)
    }

    /// Runs a command of `toktra-agent` and returns what it printed.
    pub fn agent(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(binary("toktra-agent")?);
        at_home(&self.lab, &mut command);
        output(command.args(arguments).args(self.places()))
    }

    /// The agent's status.
    pub fn status(&self) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.agent(&["status", "--json"])?)?)
    }

    /// Its events, as the backend has them.
    pub fn events(&self, installation: &Installation) -> anyhow::Result<Vec<Event>> {
        self.agent(&["flush"])?;
        let lines = installation.server(&["events", &self.device, "--after", "0"])?;
        lines.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    /// `kill -9`, without a farewell.
    pub fn kill(&mut self, part: Part) -> anyhow::Result<()> {
        let process = match part {
            Part::Agent => &mut self.agent,
            Part::Extension => &mut self.extension,
            Part::Server => return Ok(()),
        };
        process.take().map_or(Ok(()), |mut process| process.kill())
    }

    /// Starts the agent or the extension again, or for the first time, and waits until it is up.
    pub fn restart(&mut self, part: Part) -> anyhow::Result<()> {
        match part {
            Part::Agent => {
                self.agent = None;
                let mut command = self.lab.service(&binary("toktra-agent")?);
                command.arg("run").args(self.places());
                self.agent = Some(self.start("toktra-agent", &mut command, |member, _| {
                    member.status().is_ok_and(|status| !status["device"].is_null())
                })?);
            }
            Part::Extension => {
                self.extension = None;
                let mut command = self.lab.service(&binary("toktra-extension")?);
                command.arg("run").arg("--cgroup").arg(self.lab.client_cgroup());
                command.args(["--ports", &format!("443,{PROXY_PORT}")]);
                command.arg("--socket").arg(self.state("run").join(EXTENSION_SOCKET));
                self.extension = Some(self.start("toktra-extension", &mut command, |member, process| {
                    process.log().contains("capturing")
                        && member.status().is_ok_and(|status| status["extension_connected"] == true)
                })?);
            }
            Part::Server => {}
        }
        Ok(())
    }

    fn start(
        &self,
        name: &str,
        command: &mut Command,
        is_up: impl Fn(&Self, &Process) -> bool,
    ) -> anyhow::Result<Process> {
        command.envs(self.environment.iter().cloned());
        let mut process = Process::start(name, command, &self.state("logs"))?;
        until(&format!("{name} to be up"), START_LIMIT, || {
            process.check()?;
            Ok(is_up(self, &process).then_some(()))
        })?;
        Ok(process)
    }

    fn state(&self, name: &str) -> PathBuf {
        self.lab.directory().join(name)
    }

    fn places(&self) -> Vec<OsString> {
        let mut arguments = Vec::new();
        for (option, name) in
            [("--config", "agent.toml"), ("--state-dir", "agent"), ("--run-dir", "run"), ("--seat", "seat")]
        {
            arguments.extend([option.into(), self.state(name).into_os_string()]);
        }
        arguments
    }
}
