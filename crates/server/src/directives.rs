//! `GET /v1/directive?after=VERSION&applied=VERSION`: the long poll that brings a device its
//! directive within a second of a change.
//!
//! Answers at once when there is a newer version than `after`; otherwise after
//! [`POLL_TIMEOUT`] with the same version, freshly issued, so that a device that keeps
//! polling always holds a directive that is far from lapsing.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::{Extension, Json};
use toktra_protocol::directive::DirectivePoll;
use toktra_protocol::{Code, DeviceId, Directive, SignedDirective};
use toktra_store::book::{Book, Hold};
use toktra_store::devices::Device;

use crate::app::{App, SharedApp};
use crate::peer::{Caller, Peer, revoked};
use crate::refusal::Refusal;

/// How long a poll waits for news.
pub const POLL_TIMEOUT: Duration = Duration::from_secs(25);
/// How long a block holds on a device that no longer reaches the backend.
const VALID_S: u64 = 15 * 60;

/// Waits for news and answers with the directive.
pub async fn directive(
    State(app): State<SharedApp>,
    Extension(peer): Extension<Peer>,
    poll: Result<Query<DirectivePoll>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<SignedDirective>, Refusal> {
    let caller = Caller::admit(&app, &peer).await?;
    let Ok(Query(poll)) = poll else {
        return Err(Refusal::new(
            Code::BadRequest,
            "Send `?after=VERSION&applied=VERSION`, both whole numbers.",
        ));
    };
    if caller.entry.is_news(poll.applied, app.clock.now()) {
        app.ledger.seen(caller.identity.device, poll.applied);
    }
    let device = newer(&app, &caller, poll.after).await?;
    if device.is_revoked() {
        return Err(revoked());
    }
    let book = app.budgets.fresh(&app.store, &device, app.clock.now()).await;
    let directive = document(&app, &book, caller.identity.device, &device);
    app.authority().directive().sign(&directive).map(Json).map_err(|error| Refusal::internal(&error))
}

async fn newer(app: &App, caller: &Caller, after: u64) -> Result<Arc<Device>, Refusal> {
    let mut standing = caller.entry.subscribe();
    let mut stop = app.stop.subscribe();
    let is_news = |device: &Arc<Device>| version(device) > after || device.is_revoked();
    tokio::select! {
        changed = tokio::time::timeout(POLL_TIMEOUT, standing.wait_for(is_news)) => match changed {
            Ok(Ok(device)) => Ok(Arc::clone(&device)),
            _ => Ok(caller.entry.device()),
        },
        _ = stop.wait_for(|stop| *stop) => {
            Err(Refusal::new(Code::Busy, "The server is stopping. Ask again in a moment.").retry_after(1))
        }
    }
}

fn document(app: &App, book: &Book, id: DeviceId, device: &Device) -> Directive {
    let now = app.clock.now();
    let budgets = book.applying(device);
    let Hold { lock, block } = book.hold_of(device, &budgets, now);
    let counted = u64::try_from(device.acknowledged_sequence).unwrap_or_default();
    Directive {
        version: version(device),
        device: id,
        issued_at: now,
        valid_until: now.plus(VALID_S),
        lock,
        block,
        flags: book.flags(&device.organisation_id),
        counted: book.seen(id).map_or(counted, |seen| seen.acknowledged),
        budgets,
        renew_before: app.authority().renew_before(),
        perks: book.perks(device).map(|standing| standing.perks()),
    }
}

fn version(device: &Device) -> u64 {
    u64::try_from(device.directive_version).unwrap_or_default()
}
