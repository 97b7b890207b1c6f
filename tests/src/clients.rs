//! Real clients, as commands in the lab's client namespace. None is told of the simulator:
//! they use the providers' own addresses, and trust the simulator's root by the environment.

use std::path::PathBuf;
use std::process::Command;

use toktra_testkit::lab::Lab;

/// A chat completion of so many tokens, streamed, as a body for curl.
pub fn chat(tokens: u32) -> String {
    let messages = r#"[{"role":"user","content":"Say something."}]"#;
    format!(r#"{{"model":"gpt-4o-mini","max_tokens":{tokens},"stream":true,"messages":{messages}}}"#)
}

/// curl, quiet and with a limit on its time.
pub fn curl(lab: &Lab, arguments: &[&str]) -> Command {
    let mut command = lab.client("curl");
    command.args(["-sS", "--fail", "--no-buffer", "--max-time", "120"]).args(arguments);
    command
}

/// `openssl s_client`, which sends the request and reads to the server's end.
pub fn s_client(lab: &Lab, host: &str, request: &str, arguments: &[&str]) -> Command {
    let mut command = lab.client("sh");
    command.args(["-c", r#"printf %s "$0" | exec openssl s_client "$@""#, request]);
    command.args(["-quiet", "-servername", host, "-connect", &format!("{host}:443")]).args(arguments);
    command
}

/// A program of `tests/python` on the interpreter that has the providers' SDKs.
pub fn python(lab: &Lab, program: &str, arguments: &[&str]) -> Command {
    let mut command = lab.client(&venv().display().to_string());
    command.arg(script(program)).args(arguments);
    command
}

/// A program of `tests/python`, for another interpreter.
pub fn script(program: &str) -> PathBuf {
    folder("python").join(program)
}

/// A program of `tests/node`.
pub fn node(lab: &Lab, program: &str, arguments: &[&str]) -> Command {
    let mut command = lab.client("node");
    command.arg(folder("node").join(program)).args(arguments);
    command
}

/// Headless Chromium that prints the page, or `None` where `TOKTRA_NO_BROWSER` is set.
pub fn chromium(lab: &Lab, url: &str, arguments: &[&str]) -> Option<Command> {
    if std::env::var_os("TOKTRA_NO_BROWSER").is_some() {
        return None;
    }
    let program = ["chromium", "google-chrome"]
        .into_iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok_and(|out| out.status.success()))
        .expect("chromium or google-chrome, or TOKTRA_NO_BROWSER=1");
    let mut command = lab.client(program);
    command.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"]);
    command.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
    command.arg(format!("--user-data-dir={}", lab.client_directory().join("chromium").display()));
    command.arg(format!("--ignore-certificate-errors-spki-list={}", lab.authority().leaf_key_hash()));
    command.args(arguments).args(["--dump-dom", url]);
    Some(command)
}

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The interpreter of the `venv` beside the profile's folder, where `scripts/setup` made it.
pub fn venv() -> PathBuf {
    let target = toktra_testkit::process::binary_folder().expect("this program has a folder");
    let python = target.parent().expect("a target directory").join("venv/bin/python");
    assert!(python.exists(), "{} is missing: run scripts/setup test", python.display());
    python
}
