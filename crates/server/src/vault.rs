//! Personal mode on the ingest host: sealed records that nobody here can read, each member's total of
//! the month, and a member's leave (`docs/personal.md`). The state of these endpoints is their own;
//! nothing else of the server, the console least of all, can reach the vault's database.
//!
//! Invariants: a device's certificate and its user's enrolment say only whether something may be sent.
//! Neither is kept beside what was sent, and nothing here is logged or audited but a fault of ours. What
//! was stored can be listed and deleted by any device of the organisation that knows the member's
//! secret, whether or not its user is still enrolled. Limits: a body's, [`rates::PER_MINUTE`] requests
//! of a device, [`newcomers::PER_MONTH`] new members of a user, and what the vault keeps of a member.

mod newcomers;
mod rates;
mod sweep;

use std::path::Path;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Extension, Json, Router};
use toktra_protocol::Code;
use toktra_protocol::personal::wire::{Body, LEAVE_PATH, LIST_PATH, RECORDS_PATH, TOTAL_PATH};
use toktra_protocol::personal::{
    Month, PersonalAck, PersonalBatch, PersonalError, PersonalLeave, PersonalPage, PersonalQuery,
    PersonalStanding, PersonalTotal,
};
use toktra_store::allowances::Allowance;
use toktra_vault_store::records::Run;
use toktra_vault_store::sums::PEOPLE;
use toktra_vault_store::totals::Claim;
use toktra_vault_store::{Pseudonym, VaultError, VaultStore, leaving, records, totals};

use crate::app::SharedApp;
use crate::ingest::{read_body, require_json};
use crate::peer::{Caller, Peer};
use crate::refusal::Refusal;
use newcomers::Newcomers;
use rates::Rates;

pub(crate) use sweep::keep_sweeping;

/// The database's file in the data directory.
const DATABASE: &str = "vault.db";
const DAY_S: u64 = 24 * 60 * 60;
/// How long devices wait for a vault that somebody has to restore, in seconds.
const AWAY_S: u64 = 60;

/// What these endpoints share.
pub(crate) struct Vault {
    app: SharedApp,
    store: VaultStore,
    newcomers: Newcomers,
    rates: Rates,
}

/// A user who is enrolled, as far as these endpoints need to know.
struct Enrolled {
    organisation: String,
    user: String,
    month: Month,
    open_since: Month,
    tier: Option<String>,
    before: Option<Allowance>,
}

impl Vault {
    /// Opens the vault of a data directory. One that cannot be opened is left as it is: what is for it waits
    /// on its devices, and nothing else of the backend is held up.
    pub(crate) async fn open(app: SharedApp) -> Option<Arc<Self>> {
        let file = app.data().join(DATABASE);
        match VaultStore::open(&file).await {
            Ok(store) => {
                Some(Arc::new(Self { app, store, newcomers: Newcomers::default(), rates: Rates::default() }))
            }
            Err(error) => {
                let error = anyhow::Error::from(error);
                tracing::error!(
                    "{} cannot be opened: {error:#}. Personal records wait on their devices until it is restored from a backup and the server started again; all else goes on.",
                    file.display()
                );
                None
            }
        }
    }

    /// Waits until what is under way is done.
    pub(crate) async fn close(&self) {
        self.store.close().await;
    }

    async fn admit(&self, peer: &Peer) -> Result<Caller, Refusal> {
        let caller = Caller::admit(&self.app, peer).await?;
        match self.rates.may_ask(caller.identity.device, self.app.clock.now()) {
            Ok(()) => Ok(caller),
            Err(seconds) => Err(Refusal::new(
                Code::RateLimited,
                format!("{} requests of this device within a minute. Wait.", rates::PER_MINUTE),
            )
            .retry_after(seconds)),
        }
    }

    /// Whether the device's user may use personal mode, from the newest snapshot.
    async fn enrolled(&self, caller: &Caller) -> Result<Enrolled, Refusal> {
        let device = caller.entry.device();
        let book = self.app.budgets.fresh(&self.app.store, &device, self.app.clock.now()).await;
        let (Some(standing), Some(user)) = (book.perks(&device), &device.user_id) else {
            return Err(Refusal::new(
                Code::PerksNotEnrolled,
                "The device's user is not enrolled in perks, or the organisation has them off. Ask an administrator.",
            ));
        };
        // A tier of a few would say whose a total is.
        let tier = (standing.people >= PEOPLE).then(|| standing.allowance.tier_id.to_string());
        Ok(Enrolled {
            organisation: device.organisation_id.clone(),
            user: user.clone(),
            month: standing.month,
            open_since: standing.open_since,
            tier,
            before: standing.before.cloned(),
        })
    }
}

/// Copies a data directory's vault, as of one moment, into a backup. The file's name; `None`: no server
/// has run in the directory yet.
pub(crate) async fn back_up(data: &Path, to: &Path) -> Result<Option<&'static Path>, VaultError> {
    if !data.join(DATABASE).exists() {
        return Ok(None);
    }
    let store = VaultStore::open(&data.join(DATABASE)).await?;
    let copied = store.copy_to(&to.join(DATABASE)).await;
    store.close().await;
    copied.map(|()| Some(Path::new(DATABASE)))
}

/// Checks every page of a data directory's vault, if there is one.
pub(crate) async fn check_pages(data: &Path) -> Result<(), VaultError> {
    if !data.join(DATABASE).exists() {
        return Ok(());
    }
    let store = VaultStore::open(&data.join(DATABASE)).await?;
    let checked = store.check_pages().await;
    store.close().await;
    checked
}

/// The endpoints. Without a vault all say that it is away.
pub(crate) fn router(vault: Option<Arc<Vault>>) -> Router {
    let Some(vault) = vault else {
        let paths = [RECORDS_PATH, LIST_PATH, TOTAL_PATH, LEAVE_PATH];
        return paths.into_iter().fold(Router::new(), |router, path| router.route(path, post(away)));
    };
    Router::new()
        .route(RECORDS_PATH, post(append))
        .route(LIST_PATH, post(list))
        .route(TOTAL_PATH, post(total))
        .route(LEAVE_PATH, post(leave))
        .with_state(vault)
}

/// `POST /v1/vault/records`: answered once the records are durable.
async fn append(
    State(vault): State<Arc<Vault>>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Result<Json<PersonalAck>, Refusal> {
    let caller = vault.admit(&peer).await?;
    let enrolled = vault.enrolled(&caller).await?;
    let batch: PersonalBatch = read(request).await?;
    let run = Run { slot: batch.slot, first: batch.first, records: &batch.records };
    let member = Pseudonym::of(&batch.member);
    let newcomer = || vault.newcomers.judge(&enrolled.user, enrolled.month);
    let stored =
        records::append(&vault.store, &enrolled.organisation, &member, run, enrolled.month, newcomer).await;
    Ok(Json(PersonalAck { acknowledged: stored.map_err(|error| refusal(&error))? }))
}

/// `POST /v1/vault/total`: answered once the total is durable.
async fn total(
    State(vault): State<Arc<Vault>>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Result<Json<PersonalStanding>, Refusal> {
    let caller = vault.admit(&peer).await?;
    let enrolled = vault.enrolled(&caller).await?;
    let said: PersonalTotal = read(request).await?;
    if !(enrolled.open_since..=enrolled.month).contains(&said.month) {
        return Err(refusal(&VaultError::Closed));
    }
    let tier = enrolled.tier.as_deref();
    let claim = Claim { slot: said.slot, month: said.month, tokens: said.tokens, tier };
    let member = Pseudonym::of(&said.member);
    let newcomer = || vault.newcomers.judge(&enrolled.user, enrolled.month);
    let known = totals::note(&vault.store, &enrolled.organisation, &member, claim, newcomer)
        .await
        .map_err(|error| refusal(&error))?;
    let before = enrolled.before.filter(|_| said.month == enrolled.month);
    let carried = before.zip(known.before).map(|(allowance, used)| allowance.left_over(used));
    Ok(Json(PersonalStanding { others: known.others, carried: carried.unwrap_or_default() }))
}

/// `POST /v1/vault/list`
async fn list(
    State(vault): State<Arc<Vault>>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Result<Json<PersonalPage>, Refusal> {
    let caller = vault.admit(&peer).await?;
    let query: PersonalQuery = read(request).await?;
    let organisation = &caller.entry.device().organisation_id;
    let member = Pseudonym::of(&query.member);
    let page = records::page(&vault.store, organisation, &member, query.after).await;
    Ok(Json(page.map_err(|error| refusal(&error))?))
}

/// `POST /v1/vault/leave`: answered once the member is forgotten, whether or not there was one.
async fn leave(
    State(vault): State<Arc<Vault>>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Result<StatusCode, Refusal> {
    let caller = vault.admit(&peer).await?;
    let leave: PersonalLeave = read(request).await?;
    let organisation = &caller.entry.device().organisation_id;
    leaving::leave(&vault.store, organisation, &Pseudonym::of(&leave.member))
        .await
        .map_err(|error| refusal(&error))?;
    Ok(StatusCode::NO_CONTENT)
}

async fn away() -> Refusal {
    Refusal::new(
        Code::Busy,
        "The vault cannot be opened. Nothing of it is lost; try again when it is restored.",
    )
    .retry_after(AWAY_S)
}

async fn read<T: Body>(request: Request) -> Result<T, Refusal> {
    require_json(request.headers())?;
    let body = read_body(request.into_body(), T::LIMIT).await?;
    T::decode(&body).map_err(|error| {
        let code = match error {
            PersonalError::TooLarge { .. } => Code::TooLarge,
            PersonalError::Json { .. } => Code::BadRequest,
            PersonalError::Order => Code::BatchOrder,
            PersonalError::Range => Code::BadEvent,
        };
        Refusal::new(code, format!("Nothing was stored: {error}."))
    })
}

fn refusal(error: &VaultError) -> Refusal {
    match error {
        VaultError::Gap { acknowledged } => {
            let next = acknowledged.saturating_add(1);
            Refusal::new(Code::BatchOrder, format!("Nothing was stored: {error}. Send from {next} on."))
                .acknowledged(*acknowledged)
        }
        VaultError::Full => Refusal::new(
            Code::VaultFull,
            format!("Nothing was stored: {error}. Keep what waits until the oldest have passed their time."),
        ),
        VaultError::NoNewcomer => Refusal::new(
            Code::RateLimited,
            format!(
                "{} new members of this user in a month. Import the recovery phrase.",
                newcomers::PER_MONTH
            ),
        )
        .retry_after(DAY_S),
        VaultError::Closed => Refusal::new(
            Code::MonthClosed,
            "The month has not begun, or ended over a week ago. Take the month from the directive.",
        ),
        error if error.is_busy() => {
            Refusal::new(Code::Busy, "Too much waits to be stored. Send it again later.").retry_after(5)
        }
        VaultError::Database(_)
        | VaultError::Migration(_)
        | VaultError::Randomness
        | VaultError::Damaged
        | VaultError::Corrupt(_) => Refusal::internal(error),
    }
}
