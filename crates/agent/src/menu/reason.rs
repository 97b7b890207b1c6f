//! Asks the user for a reason with whatever dialog the desktop has.

use std::io::ErrorKind;
use std::process::Stdio;

use tokio::process::Command;

const TITLE: &str = "Toktra: request more";
const QUESTION: &str = "Why do you need more of this budget? Your administrators will read it.";

/// What came of asking.
#[derive(Debug, PartialEq, Eq)]
pub enum Reason {
    /// The user's words, not empty.
    Given(String),
    /// The user thought better of it.
    Withheld,
    /// There is no program to ask with.
    NoDialog,
}

/// Asks, and waits for as long as the user takes.
pub async fn ask() -> Reason {
    let mut zenity = Command::new("zenity");
    zenity.args(["--entry", "--title", TITLE, "--text", QUESTION]);
    let mut kdialog = Command::new("kdialog");
    kdialog.args(["--title", TITLE, "--inputbox", QUESTION]);
    for mut dialog in [zenity, kdialog] {
        match dialog.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).output().await {
            Ok(output) if output.status.success() => return given(&output.stdout),
            Ok(_) => return Reason::Withheld,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(%error, "The dialog does not start."),
        }
    }
    Reason::NoDialog
}

fn given(output: &[u8]) -> Reason {
    match String::from_utf8_lossy(output).trim() {
        "" => Reason::Withheld,
        words => Reason::Given(words.to_owned()),
    }
}
