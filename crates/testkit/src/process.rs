//! The real binaries, as processes with a log each, and waiting for what is to become true.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// How often a condition is looked at.
const GLANCE: Duration = Duration::from_millis(20);

/// Looks until there is a `Some`, at most for `limit`. `what` completes "waited for …".
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = look().with_context(|| format!("waited for {what}"))? {
            return Ok(found);
        }
        ensure!(Instant::now() < end, "waited {} s for {what} in vain", limit.as_secs());
        pause(GLANCE);
    }
}

/// Lets `time` pass, where nothing can be waited for.
pub fn pause(time: Duration) {
    let (_open, never) = mpsc::channel::<()>();
    let _ = never.recv_timeout(time);
}

/// Runs a command to its end and returns what it printed; its error output becomes the error.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("start {command:?}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} ended with {}: {}", output.status, said.trim());
    }
    String::from_utf8(output.stdout).context("the output is not text")
}

/// Where the binaries under test are: `TOKTRA_BINARIES`, or where cargo put this program.
pub fn binary_folder() -> anyhow::Result<PathBuf> {
    if let Some(folder) = std::env::var_os("TOKTRA_BINARIES") {
        return Ok(folder.into());
    }
    let own = std::env::current_exe()?;
    let folder = own.parent().context("this program has no folder")?;
    Ok(if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder }.to_owned())
}

/// A binary under test.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let path = binary_folder()?.join(name);
    ensure!(path.exists(), "{} is missing: build it with `cargo build --workspace --bins`", path.display());
    Ok(path)
}

/// A process that runs until it is told to stop; ended for good when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    log_start: usize,
}

impl Process {
    /// Starts it with both outputs appended to `NAME.log` in `logs`.
    pub fn start(name: &str, command: &mut Command, logs: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(logs)?;
        let log = logs.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log)?;
        let log_start = file.metadata()?.len() as usize;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        Ok(Self { name: name.to_owned(), child, log, log_start })
    }

    /// Everything that it has said since it started.
    pub fn log(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(bytes.get(self.log_start..).unwrap_or_default()).into_owned()
    }

    /// An error if it has ended.
    pub fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended with {status}; it said:\n{}", self.name, tail(&self.log())),
        }
    }

    /// `kill -9`.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Keeps it from running, and so from answering, without ending it; or lets it go on.
    pub fn freeze(&self, frozen: bool) -> anyhow::Result<()> {
        let pid = Pid::from_raw(self.child.id() as i32).context("it has no process identifier")?;
        Ok(kill_process(pid, if frozen { Signal::STOP } else { Signal::CONT })?)
    }

    /// SIGTERM, and the status with which it ended.
    pub fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        if let (None, Some(pid)) = (self.child.try_wait()?, Pid::from_raw(self.child.id() as i32)) {
            kill_process(pid, Signal::TERM)?;
        }
        let name = self.name.clone();
        until(&format!("the end of {name}"), Duration::from_secs(10), || Ok(self.child.try_wait()?))
    }

    /// Its process identifier.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.stop().is_err() {
            let _ = self.kill();
        }
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
