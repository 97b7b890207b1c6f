//! The menu in the user's session on Linux: follows the agent over its local socket, draws
//! `toktra_menu` as a StatusNotifierItem, shows its notices, and passes clicks on. The only part
//! of this program that speaks D-Bus; the daemon never runs it.
//!
//! Invariants: what it shows is `toktra_menu`'s, word for word; it survives an agent and a
//! StatusNotifierWatcher that are away and comes back with them; a notice counts as said only
//! once the desktop has taken it.

mod link;
mod memory;
mod notifications;
mod reason;
mod tray;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use jiff::tz::TimeZone;
use ksni::TrayMethods as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};
use toktra_menu::{Action, Announced, MenuModel, Notice, Situation, Urgency};
use toktra_protocol::local::Status;
use toktra_protocol::personal::control::PersonalAsk;

use crate::clock::Clock;
use memory::Memory;
use tray::Tray;

/// Owned by the one menu of a session.
const BUS_NAME: &str = "com.toktra.agent.Menu";
/// How often ages and distances are written anew, and whether the session still is there.
const TICK: Duration = Duration::from_secs(30);
/// Between attempts to register with a desktop that has a broken watcher.
const REGISTER_PAUSE: Duration = Duration::from_secs(10);
/// Clicks that may wait.
const CLICKS: usize = 4;

/// Shows the menu until the session ends or SIGTERM comes.
pub async fn run(socket: PathBuf, clock: Clock) -> anyhow::Result<()> {
    let session = zbus::Connection::session()
        .await
        .context("no desktop session answers over D-Bus; run this within one")?;
    if !is_only_menu(&session).await? {
        tracing::info!("The menu runs in this session already.");
        return Ok(());
    }
    let (heard, status) = watch::channel(None);
    let (clicks, clicked) = mpsc::channel(CLICKS);
    let follower = tokio::spawn(link::follow(socket.clone(), heard));
    let memory = Memory::of_user();
    let announced = memory.recall();
    let menu = Menu { session, socket, clock, status, announced, memory };
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let ended = tokio::select! {
        ended = menu.show(clicks, clicked) => ended,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    follower.abort();
    ended
}

/// Takes the session's one place for a menu, if it is free.
async fn is_only_menu(session: &zbus::Connection) -> anyhow::Result<bool> {
    const DO_NOT_QUEUE: u32 = 4;
    const PRIMARY_OWNER: u32 = 1;
    let bus = Some("org.freedesktop.DBus");
    let asked = (BUS_NAME, DO_NOT_QUEUE);
    let reply = session.call_method(bus, "/org/freedesktop/DBus", bus, "RequestName", &asked).await?;
    Ok(reply.body().deserialize::<u32>()? == PRIMARY_OWNER)
}

struct Menu {
    session: zbus::Connection,
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
        let handle = register(Tray::new(self.model(), clicks)).await?;
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                changed = self.status.changed() => changed?,
                Some(action) = clicked.recv() => self.act(action),
                _ = tick.tick() => {
                    notifications::ping(&self.session).await.context("the desktop session has ended")?;
                }
            }
            let model = self.model();
            if handle.update(|tray| tray.show(model)).await.is_none() {
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
            if let Err(error) = notifications::show(&self.session, notice).await {
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
        let (session, socket, now) = (self.session.clone(), self.socket.clone(), self.clock.now());
        tokio::spawn(async move {
            let notice = match action {
                Action::RequestMore { budget } => request_more(socket, budget).await,
                Action::ConfigureSchedule { windows } => configure_schedule(socket, &windows).await,
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
                && let Err(error) = notifications::show(&session, &notice).await
            {
                tracing::warn!("The desktop shows no notification: {error:#}");
            }
        });
    }
}

/// Puts the icon up. A desktop whose watcher is there but does not work is asked again.
async fn register(mut tray: Tray) -> anyhow::Result<ksni::Handle<Tray>> {
    loop {
        let again = tray.clone();
        match tray.assume_sni_available(true).spawn().await {
            Ok(handle) => return Ok(handle),
            Err(ksni::Error::Dbus(error)) => return Err(error).context("cannot put the icon up"),
            Err(error) => tracing::warn!(%error, "The desktop does not take the icon."),
        }
        sleep(REGISTER_PAUSE).await;
        tray = again;
    }
}

/// Asks the user for a reason and the agent for more; what there is to say of it.
async fn request_more(socket: PathBuf, budget: String) -> Option<Notice> {
    let (summary, body) = match reason::ask(&reason::REQUEST, "").await {
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
async fn configure_schedule(socket: PathBuf, windows: &str) -> Option<Notice> {
    let (summary, body) = match reason::ask(&reason::SCHEDULE, windows).await {
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
