//! What the user is asked for a line of text, and how desktops on Linux ask it.

#[cfg(target_os = "linux")]
use std::{io::ErrorKind, process::Stdio};

#[cfg(target_os = "linux")]
use tokio::process::Command;

/// Why more of a budget is needed.
pub const REQUEST: Question = Question {
    title: "Toktra: request more",
    text: "Why do you need more of this budget? Your administrators will read it.",
};
/// When nothing is to be recorded.
pub const SCHEDULE: Question = Question {
    title: "Toktra: privacy hours",
    text: "When is nothing to be recorded? For example: mon-fri 18:00-09:00; sat,sun 00:00-24:00. A single semicolon for never.",
};

/// What to ask.
#[derive(Debug)]
pub struct Question {
    /// Of the dialog.
    pub title: &'static str,
    /// The question.
    pub text: &'static str,
}

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

/// Asks with the programs of Linux desktops, and waits for as long as the user takes. The answer begins as `filled`.
#[cfg(target_os = "linux")]
pub async fn ask(question: &Question, filled: &str) -> Reason {
    let Question { title, text } = question;
    let mut zenity = Command::new("zenity");
    zenity.args(["--entry", "--title", title, "--text", text, "--entry-text", filled]);
    let mut kdialog = Command::new("kdialog");
    kdialog.args(["--title", title, "--inputbox", text, filled]);
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

#[cfg(target_os = "linux")]
fn given(output: &[u8]) -> Reason {
    match String::from_utf8_lossy(output).trim() {
        "" => Reason::Withheld,
        words => Reason::Given(words.to_owned()),
    }
}
