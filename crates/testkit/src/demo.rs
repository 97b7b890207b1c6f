//! `make demo`: the whole product on this machine, with real traffic of real clients at the
//! simulator, and what was metered beside what the simulator really sent.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::installation::{ADMINISTRATOR, DEPARTMENT, Event, Installation};
use crate::lab::{Lab, NO_PROVIDER};
use crate::metered::Metered;
use crate::process::{output, until};

/// OpenAI's own SDK against its own host name.
const PYTHON_CLIENT: &str = include_str!("../../../tests/python/openai_chat.py");
const OPENAI: &str = "https://api.openai.com/v1/chat/completions";
/// Bounds a failure, not a success.
const BLOCK_LIMIT: Duration = Duration::from_secs(20);
const ANTHROPIC: &str = "https://api.anthropic.com/v1/messages";

/// Sets everything up, drives traffic, prints what came of it. What it returns is running;
/// dropping it undoes everything.
pub fn run(python: &Path) -> anyhow::Result<Installation> {
    ensure!(python.exists(), "{} is missing: run scripts/setup demo", python.display());
    let start = Instant::now();
    let mut installation =
        Installation::start(|step| println!("demo: {step} ({} s)", start.elapsed().as_secs()))?;
    println!("demo: real clients at the providers' real host names ({} s)\n", start.elapsed().as_secs());
    output(&mut curl(&installation.lab, &["-o", "/dev/null", &format!("https://{NO_PROVIDER}/")]))?;
    let rows = traffic(&mut installation, python)?;
    print!("{}", table(&rows));
    println!("\n{}", silence(&installation)?);
    println!("\n{}", cap(&installation)?);
    installation.check_ledger().context("balance the ledger")?;
    print_console(&installation);
    Ok(installation)
}

/// A client, what it did and what became of it.
struct Row {
    client: &'static str,
    host: &'static str,
    metered: Metered,
}

fn traffic(installation: &mut Installation, python: &Path) -> anyhow::Result<Vec<Row>> {
    let lab = &installation.lab;
    let openai = |mode: &str, tokens: &str| {
        let mut command = lab.client(&python.display().to_string());
        command.args(["-c", PYTHON_CLIENT, mode, tokens]);
        command
    };
    let clients: Vec<(&str, &str, Command)> = vec![
        ("curl, HTTP/1.1, stream", "api.openai.com", curl(lab, &["--http1.1", "-d", &chat(120), OPENAI])),
        ("curl, HTTP/2, stream", "api.openai.com", curl(lab, &["--http2", "-d", &chat(400), OPENAI])),
        ("openai SDK, stream", "api.openai.com", openai("stream", "250")),
        ("openai SDK, whole reply", "api.openai.com", openai("whole", "250")),
        ("curl, HTTP/2, stream", "api.anthropic.com", curl(lab, &["--http2", "-d", &chat(150), ANTHROPIC])),
    ];
    let mut rows = Vec::new();
    for (client, host, mut command) in clients {
        let metered = installation.meter(&mut command).with_context(|| format!("{client} to {host}"))?;
        rows.push(Row { client, host, metered });
    }
    Ok(rows)
}

fn curl(lab: &Lab, arguments: &[&str]) -> Command {
    let mut command = lab.client("curl");
    command.args(["-sS", "--fail", "--no-buffer", "--max-time", "60"]).args(arguments);
    command
}

fn chat(tokens: u32) -> String {
    format!(
        r#"{{"max_tokens":{tokens},"stream":true,"messages":[{{"role":"user","content":"Say something."}}]}}"#
    )
}

fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<24} {:<18} {:>10} {:>10} {:>12} {:>24}\n{:<24} {:<18} {:>10} {:>10} {:>12} {:>24}\n",
        "",
        "",
        "bytes",
        "bytes",
        "reply tokens",
        "reply tokens",
        "client",
        "host as metered",
        "simulated",
        "metered",
        "simulated",
        "metered (low to high)",
    );
    for row in rows {
        let host = row.metered.events.first().and_then(|event| event.host.as_deref()).unwrap_or("MISSING");
        let tokens: u64 = row.metered.connections.iter().map(|one| one.tokens_out).sum();
        let sum =
            |part: fn(&Event) -> Option<u64>| -> u64 { row.metered.events.iter().filter_map(part).sum() };
        let estimate = format!(
            "{} ({} to {})",
            sum(|event| event.tokens_out_point),
            sum(|event| event.tokens_out_low),
            sum(|event| event.tokens_out_high),
        );
        let wrong = if host == row.host { "" } else { "  WRONG HOST" };
        text += &format!(
            "{:<24} {host:<18} {:>10} {:>10} {tokens:>12} {estimate:>24}{wrong}\n",
            row.client,
            row.metered.bytes(),
            row.metered.event_bytes(),
        );
    }
    text
}

/// That nothing knows of the connection to no provider.
fn silence(installation: &Installation) -> anyhow::Result<String> {
    let traces = installation.traces_of(NO_PROVIDER)?;
    ensure!(traces.is_empty(), "a trace of {NO_PROVIDER} is in {traces:?}");
    Ok(format!(
        "Before those, curl fetched https://{NO_PROVIDER}/, which is no provider:\n\
         no database, spool or log of the three processes holds that name."
    ))
}

/// A department that is blocked and unblocked.
fn cap(installation: &Installation) -> anyhow::Result<String> {
    let mut client = curl(&installation.lab, &["-o", "/dev/null", "-d", &chat(3), OPENAI]);
    client.stdout(Stdio::null()).stderr(Stdio::null());
    let passes = |client: &mut Command| -> anyhow::Result<bool> { Ok(client.status()?.success()) };
    let requests = || -> u64 { installation.lab.connections().iter().map(|one| one.requests).sum() };
    let start = Instant::now();
    installation.server(&["department", "block", DEPARTMENT, "--message", "The budget is spent."])?;
    until("the block to be in force", BLOCK_LIMIT, || Ok((!passes(&mut client)?).then_some(())))?;
    let (blocked_ms, seen) = (start.elapsed().as_millis(), requests());
    ensure!(!passes(&mut client)? && requests() == seen, "a blocked request got through");
    installation.server(&["department", "unblock", DEPARTMENT])?;
    until("the block to be lifted", BLOCK_LIMIT, || Ok(passes(&mut client)?.then_some(())))?;
    Ok(format!(
        "Then department {DEPARTMENT} was blocked. Within {blocked_ms} ms of the command curl failed at once and\n\
         no request of it reached the provider; unblocked, it works again."
    ))
}

fn print_console(installation: &Installation) {
    println!("\nConsole:   {}", installation.console());
    println!("Login:     {ADMINISTRATOR}");
    println!("Password:  {}", installation.password());
    println!("The browser will warn, since its certificate is of this demo's own authority:");
    println!("           {}", installation.root_certificate().display());
}

/// Waits for Ctrl-C or SIGTERM, unless `DEMO_EXIT=1`.
pub fn wait() -> anyhow::Result<()> {
    if std::env::var_os("DEMO_EXIT").is_some_and(|value| value == "1") {
        return Ok(());
    }
    println!("\nCtrl-C ends the demo and undoes everything it changed on this machine.");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            result = tokio::signal::ctrl_c() => result?,
            _ = terminate.recv() => {}
        }
        println!("\ndemo: cleaning up");
        Ok(())
    })
}
