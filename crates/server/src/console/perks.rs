//! Token Perks: tiers, who is enrolled, and sums of finished months. Who uses personal mode is not here
//! and cannot be: this page reads the ledger, which does not know it.

use std::collections::BTreeMap;
use std::sync::Arc;

use askama::Template;
use axum::extract::rejection::FormRejection;
use axum::extract::{Form, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::Deserialize;
use toktra_protocol::directive::FF_TOKEN_PERKS;
use toktra_store::directory::{self, Organisation, User};
use toktra_store::perks::{self, Enrolled, PerkError, Tier, TierTerms};
use toktra_store::{StoreError, flags};

use super::failure::{Failure, render};
use super::session::Administrator;
use super::{Console, assets, figures};
use crate::amount;

#[derive(Template)]
#[template(path = "perks.html")]
struct PerksPage<'a> {
    style: &'a str,
    administrator: &'a Administrator,
    form_token: String,
    section: &'static str,
    is_on: bool,
    tiers: Vec<TierRow>,
    enrolled: Vec<Enrolled>,
    months: Vec<MonthRows>,
}

struct TierRow {
    tier: Tier,
    monthly: String,
    rollover: String,
    bonus: String,
}

/// The sums of a month.
struct MonthRows {
    month: String,
    rows: Vec<SumRow>,
}

struct SumRow {
    of: String,
    tokens: u64,
    text: String,
}

/// What a tier's form sends.
#[derive(Deserialize)]
pub(super) struct TierForm {
    name: String,
    monthly: String,
    rollover: String,
}

/// What the enrolment's form sends.
#[derive(Deserialize)]
pub(super) struct EnrolForm {
    email: String,
    tier: String,
}

/// What the button beside a name sends.
#[derive(Deserialize)]
pub(super) struct NameForm {
    name: String,
}

/// `GET /perks`
pub(super) async fn page(
    State(console): State<Arc<Console>>,
    administrator: Administrator,
) -> Result<Response, Failure> {
    let (store, now) = (&console.store, console.clock.now());
    let organisation = administrator.organisation(&console.store).await?;
    let tiers = perks::tiers(store, &organisation, now).await?;
    let mut months: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for sum in perks::sums(store, &organisation).await? {
        let row = SumRow { of: sum.of, tokens: sum.tokens, text: text(sum.tokens) };
        months.entry(sum.month).or_default().push(row);
    }
    let page = PerksPage {
        style: assets::style_href(),
        form_token: administrator.form_token(),
        administrator: &administrator,
        section: "perks",
        is_on: flags::of_organisation(store, &organisation).await?.get(FF_TOKEN_PERKS) == Some(&true),
        tiers: tiers.into_iter().map(tier_row).collect(),
        enrolled: perks::enrolled(store, &organisation, now).await?,
        months: months
            .into_iter()
            .rev()
            .map(|(month, rows)| MonthRows { month: month.to_string(), rows })
            .collect(),
    };
    Ok(render(StatusCode::OK, &page))
}

fn tier_row(tier: Tier) -> TierRow {
    TierRow {
        monthly: text(tier.terms.monthly_tokens),
        rollover: text(tier.terms.rollover_tokens),
        bonus: text(tier.bonus_tokens),
        tier,
    }
}

/// `POST /perks/tiers`: adds a tier, or changes the one of this name.
pub(super) async fn set_tier(
    State(console): State<Arc<Console>>,
    administrator: Administrator,
    form: Result<Form<TierForm>, FormRejection>,
) -> Result<Response, Failure> {
    let Form(form) = form.map_err(|_| Failure::BadForm)?;
    let terms =
        TierTerms { monthly_tokens: tokens(&form.monthly)?, rollover_tokens: tokens(&form.rollover)? };
    let (store, now, actor) = (&console.store, console.clock.now(), &administrator.session.administrator);
    let (organisation, name) = (administrator.organisation(&console.store).await?, form.name.trim());
    let done = match perks::tier(store, &organisation, name, now).await {
        Ok(known) => perks::set_tier(store, &organisation, &known, terms, actor, now).await,
        Err(StoreError::NotFound { .. }) => {
            perks::add_tier(store, &organisation, name, terms, actor, now).await
        }
        Err(error) => Err(error.into()),
    };
    answer(done)
}

/// `POST /perks/tiers/remove`
pub(super) async fn remove_tier(
    State(console): State<Arc<Console>>,
    administrator: Administrator,
    form: Result<Form<NameForm>, FormRejection>,
) -> Result<Response, Failure> {
    let Form(form) = form.map_err(|_| Failure::BadForm)?;
    let (store, now, actor) = (&console.store, console.clock.now(), &administrator.session.administrator);
    let organisation = administrator.organisation(&console.store).await?;
    let tier = perks::tier(store, &organisation, &form.name, now).await.map_err(missing)?;
    answer(perks::remove_tier(store, &organisation, &tier, actor, now).await)
}

/// `POST /perks/enrol`
pub(super) async fn enrol(
    State(console): State<Arc<Console>>,
    administrator: Administrator,
    form: Result<Form<EnrolForm>, FormRejection>,
) -> Result<Response, Failure> {
    let Form(form) = form.map_err(|_| Failure::BadForm)?;
    let (store, now, actor) = (&console.store, console.clock.now(), &administrator.session.administrator);
    let organisation = administrator.organisation(&console.store).await?;
    let tier = perks::tier(store, &organisation, &form.tier, now).await.map_err(missing)?;
    let user = user(&console, &organisation, form.email.trim()).await?;
    answer(perks::enrol(store, &organisation, &user, &tier, actor, now).await)
}

/// `POST /perks/remove`
pub(super) async fn remove(
    State(console): State<Arc<Console>>,
    administrator: Administrator,
    form: Result<Form<NameForm>, FormRejection>,
) -> Result<Response, Failure> {
    let Form(form) = form.map_err(|_| Failure::BadForm)?;
    let (store, now, actor) = (&console.store, console.clock.now(), &administrator.session.administrator);
    let organisation = administrator.organisation(&console.store).await?;
    let user = user(&console, &organisation, &form.name).await?;
    answer(perks::remove(store, &organisation, &user, actor, now).await)
}

async fn user(console: &Console, organisation: &Organisation, email: &str) -> Result<User, Failure> {
    directory::user(&console.store, &organisation.id, email).await.map_err(missing)
}

/// As on the command line; spaces and commas may part the digits too.
fn tokens(text: &str) -> Result<u64, Failure> {
    amount::tokens(&amount::ungrouped(text)).map_err(|_| Failure::BadForm)
}

fn missing(error: StoreError) -> Failure {
    match error {
        StoreError::NotFound { .. } => Failure::NotFound,
        error => error.into(),
    }
}

fn answer(done: Result<(), PerkError>) -> Result<Response, Failure> {
    match done {
        Ok(()) => Ok(Redirect::to("/perks").into_response()),
        Err(PerkError::Store(error)) => Err(missing(error)),
        Err(PerkError::NotEnrolled) => Err(Failure::NotFound),
        Err(PerkError::Name | PerkError::Amount | PerkError::InUse(_) | PerkError::Month) => {
            Err(Failure::BadForm)
        }
    }
}

fn text(tokens: u64) -> String {
    figures::grouped(i64::try_from(tokens).unwrap_or(i64::MAX))
}
