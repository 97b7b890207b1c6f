//! Who asks for more of a budget, whom that was granted, and the buttons that decide. Only of
//! budgets that the session reaches; audited under the administrator's name.

use std::sync::Arc;

use axum::extract::rejection::FormRejection;
use axum::extract::{Form, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::Deserialize;
use toktra_protocol::UnixSeconds;
use toktra_store::budgets::BudgetRow;
use toktra_store::directory::Organisation;
use toktra_store::exemptions::{self, Decision, Exemption, ExemptionError};
use toktra_store::{Store, StoreError};

use super::super::failure::Failure;
use super::super::figures;
use super::super::session::Administrator;
use super::Console;

/// Longest exemption that the page's buttons grant, in hours; the command line takes any.
const HOURS_LIMIT: u64 = 31 * 24;

/// A request that waits.
pub(super) struct Waiting {
    pub(super) id: String,
    /// The person, or the device that has none.
    pub(super) whom: String,
    pub(super) hostname: String,
    pub(super) budget: String,
    pub(super) reason: String,
    pub(super) since: String,
    pub(super) full: String,
}

/// An exemption in force.
pub(super) struct Granted {
    pub(super) id: String,
    pub(super) whom: String,
    pub(super) budget: String,
    pub(super) until: String,
    pub(super) until_machine: String,
    pub(super) by: String,
}

/// What waits, and what is in force, of these budgets.
pub(super) async fn of_budgets(
    store: &Store,
    organisation: &Organisation,
    budgets: &[BudgetRow],
    now: UnixSeconds,
) -> Result<(Vec<Waiting>, Vec<Granted>), StoreError> {
    let mut rows = exemptions::of_organisation(store, organisation, false, now).await?;
    rows.retain(|row| budgets.iter().any(|budget| budget.id == row.budget_id));
    let (waiting, granted): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.state == "requested");
    let now = i64::try_from(now.0).unwrap_or(i64::MAX);
    let waiting = waiting.into_iter().map(|row: Exemption| Waiting {
        id: row.id,
        whom: row.user.unwrap_or_else(|| row.hostname.clone()),
        hostname: row.hostname,
        budget: row.budget,
        reason: row.reason,
        since: figures::ago(row.requested_at, now),
        full: figures::full_time(row.requested_at),
    });
    let granted = granted.into_iter().map(|row: Exemption| {
        let until = row.until.unwrap_or_default();
        Granted {
            id: row.id,
            whom: row.user.unwrap_or(row.hostname),
            budget: row.budget,
            until: figures::full_time(until),
            until_machine: figures::machine_time(until),
            by: row.decided_by.unwrap_or_default(),
        }
    });
    Ok((waiting.collect(), granted.collect()))
}

/// What a button sends.
#[derive(Deserialize)]
pub(in crate::console) struct Decided {
    exemption: String,
    decision: String,
    /// For how long, when granted.
    #[serde(default)]
    hours: u64,
}

/// `POST /budgets/exemptions`
pub(in crate::console) async fn decide(
    State(console): State<Arc<Console>>,
    administrator: Administrator,
    form: Result<Form<Decided>, FormRejection>,
) -> Result<Response, Failure> {
    let Form(Decided { exemption, decision, hours }) = form.map_err(|_| Failure::BadForm)?;
    let now = console.clock.now();
    let decision = match decision.as_str() {
        "grant" if (1..=HOURS_LIMIT).contains(&hours) => Decision::GrantUntil(now.plus(hours * 3_600)),
        "deny" => Decision::Deny,
        "end" => Decision::End,
        _ => return Err(Failure::BadForm),
    };
    let organisation = administrator.organisation(&console.store).await?;
    let (store, actor) = (&console.store, &administrator.session.administrator);
    let all = exemptions::of_organisation(store, &organisation, true, now).await?;
    let row = all.iter().find(|row| row.id == exemption).ok_or(Failure::NotFound)?;
    super::budget(&console, &administrator, &row.budget_id).await?;
    match exemptions::decide(store, &organisation, &exemption, decision, actor, now).await {
        // Somebody else was quicker: the page shows how it stands.
        Ok(()) | Err(ExemptionError::State(_)) => Ok(Redirect::to("/budgets").into_response()),
        Err(ExemptionError::Store(StoreError::NotFound { .. })) => Err(Failure::NotFound),
        Err(ExemptionError::Store(error)) => Err(error.into()),
        Err(_) => Err(Failure::BadForm),
    }
}
