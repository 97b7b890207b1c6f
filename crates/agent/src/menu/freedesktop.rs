//! The desktop of Linux: D-Bus, and whatever program asks questions. The only part of this program, with what
//! it draws, that speaks D-Bus.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use ksni::TrayMethods as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::sleep;
use toktra_menu::{Action, MenuModel, Notice};

use super::reason::{self, Question, Reason};
use super::tray::Tray;
use super::{CLICKS, notifications, serve};
use crate::clock::Clock;

/// Owned by the one menu of a session.
const BUS_NAME: &str = "com.toktra.agent.Menu";
/// Between attempts to register with a desktop that has a broken watcher.
const REGISTER_PAUSE: Duration = Duration::from_secs(10);

/// Shows the menu until the session ends or SIGTERM comes.
pub fn run(socket: PathBuf, clock: Clock) -> anyhow::Result<()> {
    crate::commands::runtime()?.block_on(async {
        let session = zbus::Connection::session()
            .await
            .context("no desktop session answers over D-Bus; run this within one")?;
        if !is_only_menu(&session).await? {
            tracing::info!("The menu runs in this session already.");
            return Ok(());
        }
        let (clicks, clicked) = mpsc::channel(CLICKS);
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::select! {
            ended = serve(Desktop { session }, socket, clock, clicks, clicked) => ended,
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
        }
    })
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

/// A desktop session.
#[derive(Clone)]
pub struct Desktop {
    session: zbus::Connection,
}

/// The icon in its panel.
pub struct Icon(ksni::Handle<Tray>);

impl Desktop {
    /// Puts the icon up. A desktop whose watcher is there but does not work is asked again.
    pub async fn put_up(&self, model: MenuModel, clicks: mpsc::Sender<Action>) -> anyhow::Result<Icon> {
        let mut tray = Tray::new(model, clicks);
        loop {
            let again = tray.clone();
            match tray.assume_sni_available(true).spawn().await {
                Ok(handle) => return Ok(Icon(handle)),
                Err(ksni::Error::Dbus(error)) => return Err(error).context("cannot put the icon up"),
                Err(error) => tracing::warn!(%error, "The desktop does not take the icon."),
            }
            sleep(REGISTER_PAUSE).await;
            tray = again;
        }
    }

    /// Whether the session still is there.
    pub async fn ping(&self) -> anyhow::Result<()> {
        notifications::ping(&self.session).await
    }

    /// Shows a notice. An error where the desktop did not take it.
    pub async fn notify(&self, notice: &Notice) -> anyhow::Result<()> {
        notifications::show(&self.session, notice).await
    }

    /// Asks for a line of text, and waits for as long as the user takes.
    pub async fn ask(&self, question: &Question, filled: &str) -> Reason {
        reason::ask(question, filled).await
    }
}

impl Icon {
    /// Shows another model; false if the icon is gone.
    pub async fn show(&self, model: MenuModel) -> bool {
        self.0.update(|tray| tray.show(model)).await.is_some()
    }
}
