//! The command line. Commands work on the database beside a running server, which notices
//! their changes within a fraction of a second.

mod accounts;
mod arguments;
mod audit;
mod authority;
mod backup;
mod budget;
mod demo;
mod devices;
mod directory;
mod documents;
mod exemption;
mod initialise;
mod ledger;
mod perks;
mod prices;
mod retention;
mod tables;
mod tokens;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use tokio::signal::unix::{SignalKind, signal};
use toktra_pki::PassphraseFile;
use toktra_store::Store;

pub use arguments::Arguments;

use crate::app::{App, Clock, DATABASE};
use crate::config::Config;
use crate::notify::notify;
use crate::serve::Server;
use arguments::Command;

/// Whom the audit trail names for what a command did.
const ACTOR: &str = "cli";

/// Runs a command to its end.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(dispatch(arguments))
}

async fn dispatch(Arguments { data, passphrase_file, command }: Arguments) -> anyhow::Result<()> {
    let passphrase = passphrase_of(passphrase_file.as_deref(), &data);
    match command {
        Command::Init(options) => initialise::init(&data, &passphrase, options).await,
        Command::Serve { listen, metrics } => serve(&data, &passphrase, listen, metrics).await,
        Command::Ca(command) => authority::run(&data, &passphrase, command).await,
        Command::Token(command) => tokens::token(&open(&data).await?, command).await,
        Command::Org(command) => directory::organisation(&open(&data).await?, command).await,
        Command::Department(command) => directory::department(&open(&data).await?, command).await,
        Command::User(command) => directory::user(&open(&data).await?, command).await,
        Command::Account(command) => accounts::account(&open(&data).await?, command).await,
        Command::Device(command) => devices::device(&open(&data).await?, command).await,
        Command::Price(prices::Price::List { service }) => prices::list(&service),
        Command::Price(prices::Price::Mix(command)) => prices::mix(&open(&data).await?, command).await,
        Command::Budget(command) => budget::budget(&open(&data).await?, command).await,
        Command::Exemption(command) => exemption::exemption(&open(&data).await?, command).await,
        Command::Perks(command) => perks::perks(&open(&data).await?, command).await,
        Command::Flag(command) => exemption::flag(&open(&data).await?, command).await,
        Command::Lock { whom, message } => exemption::lock(&open(&data).await?, &whom, Some(&message)).await,
        Command::Unlock { whom } => exemption::lock(&open(&data).await?, &whom, None).await,
        Command::Events { device, after } => ledger::events(&open(&data).await?, device, after).await,
        Command::Check => ledger::check(&open(&data).await?).await,
        Command::Retention(command) => retention::retention(&open(&data).await?, command).await,
        Command::Backup { to } => backup::backup(&data, &to).await,
        Command::Restore { from } => backup::restore(&data, &passphrase, &from).await,
        Command::DemoData(options) => demo::demo_data(&open(&data).await?, options).await,
        Command::Audit(command) => audit::audit(&open(&data).await?, command).await,
        Command::Completions { shell } => {
            documents::completions(shell);
            Ok(())
        }
        Command::Man { directory } => documents::manual(&directory),
    }
}

async fn open(data: &Path) -> anyhow::Result<Store> {
    Config::read(data)?;
    Ok(Store::open(&data.join(DATABASE)).await?)
}

/// Where the CA keys' passphrase is.
fn passphrase_of(named: Option<&Path>, data: &Path) -> PassphraseFile {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    PassphraseFile::choose(named, credentials.as_deref(), data)
}

async fn serve(
    data: &Path,
    passphrase: &PassphraseFile,
    listen: SocketAddr,
    metrics: Option<SocketAddr>,
) -> anyhow::Result<()> {
    log_to_stderr();
    ensure!(
        !matches!(passphrase, PassphraseFile::StandardInput),
        "the running server reads the passphrase again after a rotation, which standard input does not \
         allow; give a file, or systemd's LoadCredential=passphrase:FILE"
    );
    let app = App::open(data, passphrase, Clock::System).await?;
    let server = Server::bind(Arc::clone(&app), listen).await?;
    // Whoever started it may have gone, or read no more than it needed.
    let _ = say(format_args!("listening on {}", server.address()?));
    if let Some(address) = metrics {
        let address = crate::metrics::serve(Arc::clone(&app), address).await?;
        let _ = say(format_args!("metrics on {address}"));
    }
    tracing::info!(console = app.domain.api_url(), "The server is ready.");
    notify("READY=1");
    stop_on_signals(Arc::clone(&app))?;
    server.run().await;
    ensure!(!app.ledger.has_failed(), "the ledger failed; its log has the cause");
    Ok(())
}

fn stop_on_signals(app: Arc<App>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        notify("STOPPING=1");
        app.stop.send_replace(true);
    });
    Ok(())
}

fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("TOKTRA_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,sqlx=warn"));
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}

/// Prints a line to standard output.
fn say(line: impl std::fmt::Display) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()?;
    Ok(())
}

/// Prints a line to standard error, beside output that a script may read.
fn note(line: impl std::fmt::Display) -> anyhow::Result<()> {
    writeln!(std::io::stderr(), "{line}")?;
    Ok(())
}
