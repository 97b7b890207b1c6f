//! The devices of the organisation: what they are, whose they are and how they are.

use std::sync::Arc;

use askama::Template;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use toktra_protocol::BlockReason;
use toktra_store::fleet::{self, DEVICES_PER_PAGE, Device, Fleet};

use super::failure::{Failure, render};
use super::pending::Pending;
use super::session::Administrator;
use super::{Console, assets, figures};

/// A device that was not heard of for so long is called quiet, in seconds.
const QUIET_AFTER_S: i64 = 7 * 24 * 3_600;
/// A certificate that ends sooner is pointed out, in seconds.
const SOON_S: i64 = 14 * 24 * 3_600;
/// The last page that an address may ask for.
const LAST_PAGE: i64 = 10_000;

/// What the address may ask for.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Choice {
    page: Option<String>,
}

#[derive(Template)]
#[template(path = "devices.html")]
struct DevicesPage<'a> {
    style: &'a str,
    live: &'a str,
    administrator: &'a Administrator,
    form_token: String,
    section: &'static str,
    fleet: Fleet,
    pending: Pending,
    rows: Vec<Row>,
    page: i64,
    pages: i64,
}

struct Row {
    device: Device,
    badges: Vec<Badge>,
    certificate: Option<When>,
    certificate_tone: &'static str,
    seen: Option<When>,
    directive: String,
    directive_tone: &'static str,
    acknowledged: String,
}

struct Badge {
    tone: &'static str,
    text: String,
}

/// A moment as people and machines read it.
struct When {
    text: String,
    full: String,
    machine: String,
}

/// `GET /devices`
pub(super) async fn page(
    State(console): State<Arc<Console>>,
    administrator: Administrator,
    choice: Result<Query<Choice>, QueryRejection>,
) -> Result<Response, Failure> {
    let now = i64::try_from(console.clock.now().0).unwrap_or(i64::MAX);
    let organisation = administrator.session.organisation_id.as_str();
    let fleet = fleet::fleet(&console.store, organisation, now - QUIET_AFTER_S, console.clock.now()).await?;
    let pages = ((fleet.devices - 1).max(0) / DEVICES_PER_PAGE + 1).min(LAST_PAGE);
    let asked = choice.ok().and_then(|Query(choice)| choice.page);
    let page = asked.as_deref().and_then(|page| page.parse().ok()).unwrap_or(1).clamp(1, pages);
    let devices = fleet::devices(&console.store, organisation, page - 1, console.clock.now()).await?;
    let page = DevicesPage {
        style: assets::style_href(),
        live: assets::live_href(),
        form_token: administrator.form_token(),
        administrator: &administrator,
        section: "devices",
        fleet,
        pending: Pending::of(&console.store, organisation, console.clock.now()).await?,
        rows: devices.into_iter().map(|device| row(device, now)).collect(),
        page,
        pages,
    };
    Ok(render(StatusCode::OK, &page))
}

fn row(device: Device, now: i64) -> Row {
    let (directive, directive_tone) = directive(&device);
    Row {
        badges: badges(&device, now),
        certificate: device.certificate_until.map(|at| When {
            text: figures::full_day(at.div_euclid(86_400)),
            full: figures::full_time(at),
            machine: figures::machine_time(at),
        }),
        certificate_tone: match device.certificate_until {
            Some(at) if at > now + SOON_S => "",
            Some(at) if at > now => "warn",
            _ => "bad",
        },
        seen: device.last_seen_at.map(|at| When {
            text: figures::ago(at, now),
            full: figures::full_time(at),
            machine: figures::machine_time(at),
        }),
        directive,
        directive_tone,
        acknowledged: figures::grouped(device.acknowledged_sequence),
        device,
    }
}

/// What state the device is in, the gravest first.
fn badges(device: &Device, now: i64) -> Vec<Badge> {
    let badge = |tone, text: &str| Badge { tone, text: text.to_owned() };
    let mut badges = Vec::new();
    match device.state.as_str() {
        "revoked" => return vec![badge("bad", "Revoked")],
        "enrolled" => {}
        other => badges.push(badge("warn", other)),
    }
    match device.flag.as_deref() {
        Some("cloned_hardware") => badges.push(badge("warn", "Hardware seen twice")),
        Some("superseded_certificate") => badges.push(badge("bad", "Old certificate came back")),
        Some(_) => badges.push(badge("warn", "Flagged")),
        None => {}
    }
    if device.lock_message.is_some() {
        badges.push(badge("bad", "Locked"));
    }
    if device.user_lock_message.is_some() {
        badges.push(badge("bad", "User locked"));
    }
    match device.hold.block.as_ref().map(|block| block.reason) {
        Some(BlockReason::Budget) => badges.push(badge("bad", "Blocked: budget")),
        Some(BlockReason::Provider) => badges.push(badge("warn", "Provider blocked")),
        Some(BlockReason::Lock) | None => {}
    }
    if device.certificate_until.is_some_and(|until| until <= now) {
        badges.push(badge("bad", "Certificate expired"));
    }
    match device.last_seen_at {
        None => badges.push(badge("idle", "Never seen")),
        Some(at) if at < now - QUIET_AFTER_S => badges.push(badge("idle", "Quiet")),
        Some(_) if badges.is_empty() => badges.push(badge("good", "Active")),
        Some(_) => {}
    }
    badges
}

fn directive(device: &Device) -> (String, &'static str) {
    let newest = device.directive_version;
    match device.directive_applied {
        Some(applied) if applied == newest => (format!("v{newest}, applied"), ""),
        Some(applied) => (format!("v{newest}, runs v{applied}"), "warn"),
        None => (format!("v{newest}, not applied yet"), "warn"),
    }
}

#[cfg(test)]
mod tests {
    use toktra_protocol::Block;
    use toktra_store::book::Hold;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn device() -> Device {
        Device {
            id: "d".to_owned(),
            hostname: "host".to_owned(),
            platform: "linux".to_owned(),
            agent_version: "0.1.0".to_owned(),
            department: None,
            user: None,
            state: "enrolled".to_owned(),
            enrolled_at: NOW - 1_000_000,
            last_seen_at: Some(NOW - 60),
            certificate_until: Some(NOW + 80 * 86_400),
            acknowledged_sequence: 1_234,
            directive_version: 3,
            directive_applied: Some(3),
            lock_message: None,
            user_lock_message: None,
            hold: Hold::default(),
            flag: None,
        }
    }

    fn texts(device: &Device) -> Vec<String> {
        badges(device, NOW).into_iter().map(|badge| badge.text).collect()
    }

    #[test]
    fn a_healthy_device_is_active_and_nothing_else() {
        assert_eq!(texts(&device()), ["Active"]);
        assert_eq!(row(device(), NOW).certificate_tone, "");
    }

    #[test]
    fn whatever_is_wrong_is_said_and_a_revoked_device_is_only_that() {
        let mut device = device();
        device.lock_message = Some(String::new());
        device.hold.block = Some(Block {
            reason: BlockReason::Budget,
            message: "m".to_owned(),
            providers: Vec::new(),
            until: None,
            budget: None,
        });
        device.certificate_until = Some(NOW);
        device.last_seen_at = None;
        device.flag = Some("cloned_hardware".to_owned());
        let all = ["Hardware seen twice", "Locked", "Blocked: budget", "Certificate expired", "Never seen"];
        assert_eq!(texts(&device), all);
        device.state = "revoked".to_owned();
        assert_eq!(texts(&device), ["Revoked"]);
    }

    #[test]
    fn a_device_behind_its_directive_shows_both_versions() {
        let mut device = device();
        assert_eq!(directive(&device), ("v3, applied".to_owned(), ""));
        device.directive_applied = Some(2);
        assert_eq!(directive(&device), ("v3, runs v2".to_owned(), "warn"));
        device.directive_applied = None;
        assert_eq!(directive(&device), ("v3, not applied yet".to_owned(), "warn"));
    }
}
