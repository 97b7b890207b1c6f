//! The menu in the user's session: follows the agent over its local socket, draws `toktra_menu`, shows its
//! notices, and passes clicks on. `desktop` is the system's side of it: a StatusNotifierItem over D-Bus on
//! Linux, AppKit's status item on macOS. The daemon runs neither.
//!
//! Invariants: what it shows is `toktra_menu`'s, word for word; it survives an agent and a
//! StatusNotifierWatcher that are away and comes back with them; a notice counts as said only
//! once the desktop has taken it.

#[cfg_attr(target_os = "linux", path = "menu/freedesktop.rs")]
#[cfg_attr(target_os = "macos", path = "menu/appkit.rs")]
mod desktop;
mod link;
mod memory;
#[cfg(target_os = "linux")]
mod notifications;
mod reason;
#[cfg(target_os = "linux")]
mod tray;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use jiff::tz::TimeZone;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};
use toktra_menu::{Action, Announced, MenuModel, Notice, Situation, Urgency};
use toktra_protocol::local::Status;
use toktra_protocol::personal::control::PersonalAsk;

use crate::clock::Clock;
use desktop::Desktop;
pub use desktop::run;
use memory::Memory;

/// How often ages and distances are written anew, and whether the session still is there.
const TICK: Duration = Duration::from_secs(30);
/// Clicks that may wait.
const CLICKS: usize = 4;

/// Shows the menu until the desktop session ends.
async fn serve(
    desktop: Desktop,
    socket: PathBuf,
    clock: Clock,
    clicks: mpsc::Sender<Action>,
    clicked: mpsc::Receiver<Action>,
) -> anyhow::Result<()> {
    let (heard, status) = watch::channel(None);
    let follower = tokio::spawn(link::follow(socket.clone(), heard));
    let memory = Memory::of_user();
    let announced = memory.recall();
    let menu = Menu { desktop, socket, clock, status, announced, memory };
    let ended = menu.show(clicks, clicked).await;
    follower.abort();
    ended
}

/// The menu of a situation in which nothing is known yet.
#[cfg(target_os = "macos")]
fn unknown(clock: Clock) -> MenuModel {
    let zone = TimeZone::system();
    MenuModel::new(&Situation { status: None, now: clock.now(), zone: &zone })
}

struct Menu {
    desktop: Desktop,
    socket: PathBuf,
    clock: Clock,
    status: watch::Receiver<Option<Arc<Status>>>,
    announced: Announced,
    memory: Memory,
}

impl Menu {
    async fn show(
        mut self,
        clicks: mpsc::Sender<Action>,
        mut clicked: mpsc::Receiver<Action>,
    ) -> anyhow::Result<()> {
        let icon = self.desktop.put_up(self.model(), clicks).await?;
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                changed = self.status.changed() => changed?,
                Some(action) = clicked.recv() => self.act(action),
                _ = tick.tick() => {
                    self.desktop.ping().await.context("the desktop session has ended")?;
                }
            }
            let model = self.model();
            if !icon.show(model).await {
                bail!("the desktop has dropped the icon");
            }
            self.announce().await;
        }
    }

    fn situation<R>(&self, of: impl FnOnce(&Situation<'_>) -> R) -> R {
        let status = self.status.borrow().clone();
        let (now, zone) = (self.clock.now(), TimeZone::system());
        of(&Situation { status: status.as_deref(), now, zone: &zone })
    }

    fn model(&self) -> MenuModel {
        self.situation(MenuModel::new)
    }

    /// Tells what is new. What the desktop did not take is told again next time.
    async fn announce(&mut self) {
        let mut announced = self.announced.clone();
        let news = self.situation(|situation| announced.news(situation));
        for notice in &news {
            if let Err(error) = self.desktop.notify(notice).await {
                tracing::warn!("The desktop shows no notification: {error:#}");
                return;
            }
        }
        if announced != self.announced {
            self.announced = announced;
            self.memory.keep(&self.announced);
        }
    }

    fn act(&self, action: Action) {
        let (desktop, socket, now) = (self.desktop.clone(), self.socket.clone(), self.clock.now());
        tokio::spawn(async move {
            let notice = match action {
                Action::RequestMore { budget } => request_more(&desktop, socket, budget).await,
                Action::ConfigureSchedule { windows } => configure_schedule(&desktop, socket, &windows).await,
                Action::PersonalOn { for_s } => {
                    let until = for_s.map(|for_s| now.plus(for_s));
                    change_personal(socket, PersonalAsk::On { until }).await
                }
                Action::PersonalOff => change_personal(socket, PersonalAsk::Off).await,
                Action::WhenExhausted { choice } => {
                    change_personal(socket, PersonalAsk::WhenExhausted { choice }).await
                }
            };
            if let Some(notice) = notice
                && let Err(error) = desktop.notify(&notice).await
            {
                tracing::warn!("The desktop shows no notification: {error:#}");
            }
        });
    }
}

/// Asks the user for a reason and the agent for more; what there is to say of it.
async fn request_more(desktop: &Desktop, socket: PathBuf, budget: String) -> Option<Notice> {
    let (summary, body) = match desktop.ask(&reason::REQUEST, "").await {
        reason::Reason::Given(reason) => match link::request_more(&socket, budget, reason).await {
            Ok(message) => ("You asked for more", message),
            Err(error) => ("You did not get through", format!("{error:#}")),
        },
        reason::Reason::Withheld => return None,
        reason::Reason::NoDialog => (
            "Say why you need more",
            "Run in a terminal: toktra-agent budget request --reason \"your reason\"".to_owned(),
        ),
    };
    Some(Notice { urgency: Urgency::Normal, summary: summary.to_owned(), body })
}

/// Changes personal mode; only what did not come of it is to be said, since the icon says the rest.
async fn change_personal(socket: PathBuf, ask: PersonalAsk) -> Option<Notice> {
    let error = link::change_personal(&socket, ask).await.err()?;
    let summary = "Personal mode is as before".to_owned();
    Some(Notice { urgency: Urgency::Normal, summary, body: format!("{error:#}") })
}

/// Asks the user for other privacy hours and sets them; what there is to say of it.
async fn configure_schedule(desktop: &Desktop, socket: PathBuf, windows: &str) -> Option<Notice> {
    let (summary, body) = match desktop.ask(&reason::SCHEDULE, windows).await {
        reason::Reason::Given(text) => {
            let windows = text.split(';').map(str::trim).filter(|window| !window.is_empty());
            match link::set_privacy(&socket, windows.map(str::to_owned).collect()).await {
                Ok(()) => ("Privacy hours are set", "Nothing is recorded in them.".to_owned()),
                Err(error) => ("Privacy hours are as before", format!("{error:#}")),
            }
        }
        reason::Reason::Withheld => return None,
        reason::Reason::NoDialog => (
            "Set privacy hours in a terminal",
            "Run: toktra-agent privacy set \"mon-fri 18:00-09:00\"".to_owned(),
        ),
    };
    Some(Notice { urgency: Urgency::Normal, summary: summary.to_owned(), body })
}
