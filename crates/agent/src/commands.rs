//! The command line: what each command does, and the exit status that tells a script why not.

mod budget;
mod documents;
pub(crate) mod enroll;
#[cfg(target_os = "macos")]
pub(crate) mod extension;
mod personal;
mod privacy;
mod records;

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use std::{fmt, io};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use toktra_identity::{DeviceStore, Store as _};
use toktra_protocol::SignedDirective;
use toktra_protocol::local::{self, Answer, Ask, CONTROL_SOCKET, Frames, START_AGENT, Status};

use crate::board::{self, Policy};
use crate::clock::Clock;
use crate::config::{Config, Source};
use crate::daemon::{self, Places};
use crate::{life, menu, report};

/// Anything that has no status of its own.
const FAILED: u8 = 1;
/// No domain or token, or not enrolled.
const NOT_ENROLLED: u8 = 3;
/// The backend refused; the same command will not succeed.
const REFUSED: u8 = 4;
/// The backend was not reached or is busy; the same command may succeed later.
const UNREACHABLE: u8 = 5;
/// The device is enrolled already.
const ENROLLED_ALREADY: u8 = 6;
/// The daemon is not running.
const NOT_RUNNING: u8 = 7;
/// What was asked for is not offered here.
const UNAVAILABLE: u8 = 8;
/// An administrator has yet to approve the device; the daemon goes on asking.
const AWAITS_APPROVAL: u8 = 9;

/// A flush may take a minute.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(70);

/// Toktra's agent: identity, spool, uplink.
#[derive(Debug, Parser)]
#[command(name = "toktra-agent", version, about)]
#[cfg_attr(not(target_os = "macos"), command(subcommand_required = true, arg_required_else_help = true))]
pub struct CommandLine {
    #[command(flatten)]
    places: PlaceOptions,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Args)]
struct PlaceOptions {
    /// Configuration file [default: /etc/toktra/agent.toml; on macOS the preferences com.toktra.agent].
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of credential, directive and spool.
    #[arg(long, global = true, value_name = "DIRECTORY", default_value = local::STATE_DIRECTORY)]
    state_dir: PathBuf,
    /// Directory of the local sockets.
    #[arg(long, global = true, value_name = "DIRECTORY", default_value = local::RUN_DIRECTORY)]
    run_dir: PathBuf,
    /// Where the login manager says who sits at the machine.
    #[arg(long, global = true, hide = true, value_name = "FILE", default_value = crate::privacy::SEAT)]
    seat: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Enrol this device with a backend, by a one-time token.
    Enroll(enroll::Enroll),
    /// Run the daemon.
    Run,
    /// Say what is true of the agent.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Send what waits, now.
    Flush,
    /// Show the budgets that apply to this device, or ask for more of one.
    Budget(budget::Budget),
    /// Show the hours in which nothing is recorded, or set your own.
    Privacy(privacy::Privacy),
    /// Show every record that was sent of late or waits to be sent, as it leaves this device.
    Records(records::Records),
    /// Show personal mode, use it, and see your own records.
    Personal(personal::Personal),
    /// Show the menu and notifications in this desktop session. On macOS also without a command.
    Menu,
    /// The system extension: what is active, and putting this version in force, or away.
    #[cfg(target_os = "macos")]
    Extension(extension::Extension),
    /// Print a shell's completions.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Write the manual pages into a directory.
    #[command(hide = true)]
    Man {
        /// The directory.
        directory: PathBuf,
    },
}

impl CommandLine {
    /// Does what was asked.
    pub fn run(self) -> ExitCode {
        let PlaceOptions { config, state_dir, run_dir, seat } = self.places;
        let config = config.map_or_else(Source::default, Source::File);
        let places = Places { config, state: state_dir, run: run_dir, seat };
        // An app that is opened shows its menu.
        let done = match self.command.unwrap_or(Command::Menu) {
            Command::Enroll(options) => enroll::enroll(&places, options),
            Command::Run => run(&places),
            Command::Status { json } => status(&places, json),
            Command::Flush => flush(&places),
            Command::Budget(options) => budget::budget(&places, options),
            Command::Privacy(options) => privacy::privacy(&places, options),
            Command::Records(options) => records::records(&places, &options),
            Command::Personal(options) => personal::personal(&places, options),
            Command::Menu => show_menu(&places),
            #[cfg(target_os = "macos")]
            Command::Extension(options) => extension::extension(&places, options),
            Command::Completions { shell } => Ok(documents::completions(shell)),
            Command::Man { directory } => documents::manual(&directory),
        };
        match done {
            Ok(code) => ExitCode::from(code),
            Err(error) => {
                complain(format_args!("{error:#}"));
                ExitCode::from(FAILED)
            }
        }
    }
}

fn run(places: &Places) -> anyhow::Result<u8> {
    runtime()?.block_on(daemon::run(places, Clock::System))?;
    Ok(0)
}

fn show_menu(places: &Places) -> anyhow::Result<u8> {
    menu::run(places.run.join(CONTROL_SOCKET), Clock::System)?;
    Ok(0)
}

/// One thread is enough, and the smallest.
pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")
}

fn status(places: &Places, json: bool) -> anyhow::Result<u8> {
    let (status, code) = known(places)?;
    if json {
        say(format_args!("{}", serde_json::to_string_pretty(&status)?))?;
    } else {
        let zone = jiff::tz::TimeZone::system();
        say(format_args!("{}", report::text(&status, Clock::System.now(), &zone).trim_end()))?;
    }
    Ok(code)
}

/// What is known, and the exit status that says from where.
fn known(places: &Places) -> anyhow::Result<(Status, u8)> {
    let (status, running) = match ask(places, &Ask::Status) {
        Ok(Answer::Status(status)) => (*status, true),
        Ok(Answer::Refused { reason } | Answer::Done { message: reason }) => anyhow::bail!(reason),
        Ok(Answer::Records(_) | Answer::Personal(_)) => anyhow::bail!("the agent answered something else"),
        Err(_) => (status_at_rest(places), false),
    };
    let code = match (running, status.device) {
        (false, _) => NOT_RUNNING,
        (true, None) => NOT_ENROLLED,
        (true, Some(_)) => 0,
    };
    Ok((status, code))
}

/// What the disk tells while the daemon is not running.
fn status_at_rest(places: &Places) -> Status {
    let now = Clock::System.now();
    let mut degraded = vec![format!("the agent is not running: {START_AGENT}")];
    let config = places.config.read().unwrap_or_else(|error| {
        degraded.push(board::misconfigured(&format!("{error:#}")));
        Config::default()
    });
    let store = DeviceStore::new(&places.state);
    let credential = match store.credential() {
        Ok(Some(credential)) => {
            degraded.extend(board::expiry(&credential, now));
            Some(credential)
        }
        Ok(None) => {
            degraded.push(board::NOT_ENROLLED.to_owned());
            None
        }
        Err(error) => {
            degraded.push(error.to_string());
            None
        }
    };
    let mut status = Status { degraded, ..Status::default() };
    board::describe(&mut status, credential.as_ref(), config.domain.as_ref());
    if let (Some(credential), Ok(Some(signed))) = (&credential, store.directive()) {
        in_force_at_rest(&mut status, credential, &signed, now);
    }
    let term = credential.as_ref().map(toktra_identity::Credential::term);
    let applied = store.application().is_ok_and(|application| application.is_some());
    status.identity = life::at_rest(term, applied, now);
    status
}

fn in_force_at_rest(
    status: &mut Status,
    credential: &toktra_identity::Credential,
    signed: &SignedDirective,
    now: toktra_protocol::UnixSeconds,
) {
    if let Ok(directive) = credential.directive_key().verify(signed, credential.enrolled().device) {
        board::in_force(status, Policy::stored(directive), now);
    }
}

fn flush(places: &Places) -> anyhow::Result<u8> {
    match ask(places, &Ask::Flush) {
        Ok(Answer::Status(status)) => match &status.last_error {
            Some(error) => {
                complain(format_args!("Not sent, {} events wait: {error}", status.events_waiting));
                Ok(UNREACHABLE)
            }
            None => {
                say(format_args!("Sent; {} events wait.", status.events_waiting))?;
                Ok(0)
            }
        },
        Ok(Answer::Records(_) | Answer::Personal(_)) => anyhow::bail!("the agent answered something else"),
        Ok(Answer::Refused { reason } | Answer::Done { message: reason }) => {
            complain(format_args!("Not sent: {reason}"));
            Ok(FAILED)
        }
        Err(error) => {
            complain(format_args!("The agent does not answer ({error:#}). Start it: {START_AGENT}"));
            Ok(NOT_RUNNING)
        }
    }
}

fn ask(places: &Places, ask: &Ask) -> anyhow::Result<Answer> {
    ask_at(&places.run.join(CONTROL_SOCKET), ask)
}

fn ask_at(socket: &Path, ask: &Ask) -> anyhow::Result<Answer> {
    let mut stream = connect(socket)?;
    stream.write_all(&local::encode(ask)?)?;
    let mut frames = Frames::default();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        if let Some(answer) = frames.take()? {
            return Ok(answer);
        }
        let read = io::Read::read(&mut stream, &mut buffer)?;
        anyhow::ensure!(read > 0, "it closed the connection");
        frames.push(&buffer[..read]);
    }
}

fn connect(path: &Path) -> anyhow::Result<UnixStream> {
    let stream = UnixStream::connect(path).with_context(|| path.display().to_string())?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    Ok(stream)
}

fn say(words: fmt::Arguments<'_>) -> io::Result<()> {
    writeln!(io::stdout(), "{words}")
}

fn complain(words: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{words}");
}
