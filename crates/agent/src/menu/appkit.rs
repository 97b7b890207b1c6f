//! The desktop of macOS. AppKit has the main thread; the menu's own loop runs on another, and a third sees to
//! the system extension: it activates the first one at once, and another version's successor when the machine
//! starts or wakes, since activation drops connections.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use anyhow::{Context as _, anyhow};
use rustix::fs::FlockOperation;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use toktra_mac::activation::{Moment, Outcome, Task, is_due};
use toktra_mac::{extension, status_item};
use toktra_menu::{Action, MenuModel, Notice, Urgency};

use super::reason::{Question, Reason};
use super::{CLICKS, memory, serve, unknown};
use crate::clock::Clock;
use crate::commands;

/// Shows the menu until the session ends.
pub fn run(socket: PathBuf, clock: Clock) -> anyhow::Result<()> {
    let Some(_only) = lock()? else {
        tracing::info!("The menu runs in this session already.");
        return Ok(());
    };
    let (clicks, clicked) = mpsc::channel(CLICKS);
    let sender = clicks.clone();
    // Whoever clicks faster than dialogs open has clicked enough.
    let on_click = move |action| drop(sender.try_send(action));
    let (moments, moment) = channel();
    let on_wake = {
        let moments = moments.clone();
        move || {
            let _ = moments.send(Moment::Wake);
        }
    };
    let begin = move || {
        let _ = moments.send(Moment::Start { since_boot: clock.elapsed() });
        let asked = socket.clone();
        thread::spawn(move || keep_extension(&asked, &moment));
        thread::spawn(move || {
            let served = commands::runtime()
                .and_then(|runtime| runtime.block_on(serve(Desktop, socket, clock, clicks, clicked)));
            if let Err(error) = served {
                tracing::error!("The menu ends: {error:#}");
            }
            status_item::end();
        });
    };
    status_item::run(&unknown(clock), on_click, on_wake, begin).map_err(|error| anyhow!(error))
}

/// The one menu of a user; `None` if there is one.
fn lock() -> anyhow::Result<Option<File>> {
    let directory = memory::directory().context("this user has no home")?;
    std::fs::create_dir_all(&directory)?;
    let file = File::create(directory.join("menu.lock"))?;
    Ok(rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok().then_some(file))
}

/// Sees to the extension at each of these moments.
fn keep_extension(socket: &Path, moments: &Receiver<Moment>) {
    for moment in moments {
        match extension::look() {
            Ok(installed) if is_due(&installed, crate::VERSION, moment) => {
                let outcome = commands::extension::activate(&installed, socket, &mut tell);
                if outcome != Outcome::NeedsApproval {
                    tell(&outcome);
                }
            }
            Ok(_) => {}
            Err(error) => tracing::warn!("It is not known which extension is active: {error}"),
        }
    }
}

fn tell(outcome: &Outcome) {
    let words = outcome.words(Task::Activate);
    tracing::info!("{words}");
    let urgency = if *outcome == Outcome::Completed { Urgency::Normal } else { Urgency::Critical };
    status_item::notify(&Notice { urgency, summary: "Toktra".to_owned(), body: words });
}

/// The session that this process is in.
#[derive(Clone)]
pub struct Desktop;

/// The status item, which is up as long as the process lives.
pub struct Icon;

impl Desktop {
    /// It is up already; clicks come from there.
    pub async fn put_up(&self, model: MenuModel, _: mpsc::Sender<Action>) -> anyhow::Result<Icon> {
        status_item::show(model);
        Ok(Icon)
    }

    /// The process ends with its session.
    pub async fn ping(&self) -> anyhow::Result<()> {
        Ok(())
    }

    /// Shows a notice.
    pub async fn notify(&self, notice: &Notice) -> anyhow::Result<()> {
        status_item::notify(notice);
        Ok(())
    }

    /// Asks for a line of text, and waits for as long as the user takes.
    pub async fn ask(&self, question: &Question, filled: &str) -> Reason {
        let answer = status_item::ask(question.title, question.text, filled);
        match spawn_blocking(move || answer.recv()).await {
            Ok(Ok(Some(words))) => Reason::Given(words),
            Ok(Ok(None)) => Reason::Withheld,
            Ok(Err(_)) | Err(_) => Reason::NoDialog,
        }
    }
}

impl Icon {
    /// Shows another model.
    pub async fn show(&self, model: MenuModel) -> bool {
        status_item::show(model);
        true
    }
}
