//! Desktop notifications (Desktop Notifications Specification 1.2).

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::timeout;
use toktra_menu::{Notice, Urgency};
use zbus::zvariant::Value;
use zbus::{Connection, Message};

const SERVICE: &str = "org.freedesktop.Notifications";
const PATH: &str = "/org/freedesktop/Notifications";
/// A desktop that takes longer has no notification server that works.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Shows a notice. An error where the desktop did not take it.
pub async fn show(session: &Connection, notice: &Notice) -> anyhow::Result<()> {
    let capabilities: Vec<String> = call(session, "GetCapabilities", &()).await?.body().deserialize()?;
    let body = if capabilities.iter().any(|capability| capability == "body-markup") {
        escaped(&notice.body)
    } else {
        notice.body.clone()
    };
    let urgency: u8 = match notice.urgency {
        Urgency::Normal => 1,
        Urgency::Critical => 2,
    };
    let hints = HashMap::from([
        ("urgency", Value::from(urgency)),
        ("desktop-entry", Value::from("com.toktra.agent.menu")),
    ]);
    let actions: Vec<&str> = Vec::new();
    let by_the_server = -1_i32;
    let notification = ("Toktra", 0_u32, "", notice.summary.as_str(), body, actions, hints, by_the_server);
    call(session, "Notify", &notification).await?;
    Ok(())
}

/// Whether the session's bus still answers.
pub async fn ping(session: &Connection) -> anyhow::Result<()> {
    let bus = "org.freedesktop.DBus";
    let asked = session.call_method(Some(bus), "/org/freedesktop/DBus", Some(bus), "GetId", &());
    timeout(CALL_TIMEOUT, asked).await.context("it does not answer")??;
    Ok(())
}

async fn call<B>(session: &Connection, method: &str, body: &B) -> anyhow::Result<Message>
where
    B: serde::Serialize + zbus::zvariant::DynamicType,
{
    let called = session.call_method(Some(SERVICE), PATH, Some(SERVICE), method, body);
    Ok(timeout(CALL_TIMEOUT, called).await.context("the notification server does not answer")??)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
