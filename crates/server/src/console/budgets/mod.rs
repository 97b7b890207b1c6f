//! The budgets of the organisation: where each stands, what it warned of and whether it blocks, and who
//! asks for more. Every form here changes what `toktra-server budget`, `exemption` and `flag` change,
//! by the same functions of the store. A budget owner sees and changes what their departments, those below
//! them and the people in these have; nothing else is there for them.

mod draft;
mod requests;
mod rows;
mod tree;

use std::sync::Arc;

use askama::Template;
use axum::extract::rejection::FormRejection;
use axum::extract::{Form, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::Deserialize;
use toktra_protocol::directive::FF_BUDGET_HARD_CAPS;
use toktra_store::book::Book;
use toktra_store::budgets::{self, BudgetError, BudgetRow};
use toktra_store::directory::{self, Organisation};
use toktra_store::roles::Reach;
use toktra_store::{StoreError, flags};

use super::failure::{Failure, render};
use super::session::Administrator;
use super::{Console, assets};
use draft::{Draft, PERIODS};
pub(super) use requests::decide;
use requests::{Granted, Waiting};
use rows::Row;
use tree::{Place, Tree};

#[derive(Template)]
#[template(path = "budgets.html")]
struct BudgetsPage<'a> {
    style: &'a str,
    live: &'a str,
    administrator: &'a Administrator,
    form_token: String,
    section: &'static str,
    zone: String,
    caps: bool,
    /// Whether a budget of the whole organisation may be made.
    reaches_all: bool,
    waiting: Vec<Waiting>,
    granted: Vec<Granted>,
    rows: Vec<Row>,
    places: Vec<&'a Place>,
    periods: &'static [(&'static str, &'static str)],
    draft: Draft,
    complaint: String,
}

/// `GET /budgets`
pub(super) async fn page(
    State(console): State<Arc<Console>>,
    administrator: Administrator,
) -> Result<Response, Failure> {
    show(&console, &administrator, StatusCode::OK, Draft::fresh(), String::new()).await
}

/// `POST /budgets/add`
pub(super) async fn add(
    State(console): State<Arc<Console>>,
    administrator: Administrator,
    form: Result<Form<Draft>, FormRejection>,
) -> Result<Response, Failure> {
    let Form(draft) = form.map_err(|_| Failure::BadForm)?;
    let organisation = administrator.organisation(&console.store).await?;
    let made = match draft.settings() {
        Err(complaint) => Err(complaint),
        Ok(settings) => match draft.scope(&console.store, &organisation, &administrator.reach).await? {
            Err(complaint) => Err(complaint),
            Ok(scope) => {
                let (name, actor) = (draft.name.trim(), &administrator.session.administrator);
                let now = console.clock.now();
                match budgets::create(&console.store, name, &scope, &settings, actor, now).await {
                    Ok(made) => Ok(made.id),
                    Err(error) => Err(complaint_of(error)?),
                }
            }
        },
    };
    match made {
        Ok(id) => Ok(Redirect::to(&format!("/budgets#budget-{id}")).into_response()),
        Err(complaint) => {
            show(&console, &administrator, StatusCode::UNPROCESSABLE_ENTITY, draft, complaint).await
        }
    }
}

/// `POST /budgets/set`
pub(super) async fn set(
    State(console): State<Arc<Console>>,
    administrator: Administrator,
    form: Result<Form<Draft>, FormRejection>,
) -> Result<Response, Failure> {
    let Form(draft) = form.map_err(|_| Failure::BadForm)?;
    let budget = budget(&console, &administrator, &draft.budget).await?;
    let set = match draft.settings() {
        Err(complaint) => Err(complaint),
        Ok(settings) => {
            let (actor, now) = (&administrator.session.administrator, console.clock.now());
            match budgets::set(&console.store, &budget, &settings, actor, now).await {
                Ok(()) => Ok(()),
                Err(error) => Err(complaint_of(error)?),
            }
        }
    };
    match set {
        Ok(()) => Ok(Redirect::to(&format!("/budgets#budget-{}", budget.id)).into_response()),
        Err(complaint) => {
            let complaint = format!("“{}” was not changed: {complaint}", budget.name);
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            show(&console, &administrator, status, Draft::fresh(), complaint).await
        }
    }
}

/// What a form sends that names a budget alone.
#[derive(Deserialize)]
pub(super) struct Named {
    budget: String,
}

/// `POST /budgets/remove`
pub(super) async fn remove(
    State(console): State<Arc<Console>>,
    administrator: Administrator,
    form: Result<Form<Named>, FormRejection>,
) -> Result<Response, Failure> {
    let Form(Named { budget: id }) = form.map_err(|_| Failure::BadForm)?;
    let budget = budget(&console, &administrator, &id).await?;
    let (actor, now) = (&administrator.session.administrator, console.clock.now());
    budgets::remove(&console.store, &budget, actor, now).await?;
    Ok(Redirect::to("/budgets").into_response())
}

/// What the switch of hard caps sends.
#[derive(Deserialize)]
pub(super) struct Caps {
    on: bool,
}

/// `POST /budgets/caps`
pub(super) async fn caps(
    State(console): State<Arc<Console>>,
    administrator: Administrator,
    form: Result<Form<Caps>, FormRejection>,
) -> Result<Response, Failure> {
    let Form(Caps { on }) = form.map_err(|_| Failure::BadForm)?;
    let organisation = administrator.organisation(&console.store).await?;
    let (actor, now) = (&administrator.session.administrator, console.clock.now());
    flags::set(&console.store, &organisation, FF_BUDGET_HARD_CAPS, on, actor, now).await?;
    Ok(Redirect::to("/budgets").into_response())
}

async fn show(
    console: &Console,
    administrator: &Administrator,
    status: StatusCode,
    draft: Draft,
    complaint: String,
) -> Result<Response, Failure> {
    let (store, now) = (&console.store, console.clock.now());
    let organisation = administrator.organisation(&console.store).await?;
    // One snapshot, however many budgets there are.
    let book = Book::read(store, now).await?;
    let names = directory::scope_names(store, &organisation).await?;
    let tree = Tree::new(&organisation, directory::departments(store, &organisation.id).await?);
    let caps = flags::of_organisation(store, &organisation).await?[FF_BUDGET_HARD_CAPS];
    let mut budgets = reached(console, administrator, &organisation).await?;
    budgets.sort_by_cached_key(|budget| tree.order(&budget.scope, &names.of(&budget.scope)));
    let row = |budget: BudgetRow| {
        let standing = book.standing(&budget.id)?.clone();
        let (of, depth) = (names.of(&budget.scope), tree.depth(&budget.scope));
        Some(Row::new(&budget, standing, of, depth, caps))
    };
    let (waiting, granted) = requests::of_budgets(store, &organisation, &budgets, now).await?;
    let page = BudgetsPage {
        style: assets::style_href(),
        live: assets::live_href(),
        form_token: administrator.form_token(),
        administrator,
        section: "budgets",
        zone: directory::time_zone(store, &organisation).await?,
        caps,
        reaches_all: administrator.reach == Reach::Organisation,
        waiting,
        granted,
        rows: budgets.into_iter().filter_map(row).collect(),
        places: tree
            .places()
            .iter()
            .filter(|place| administrator.reach.department(Some(&place.id)))
            .collect(),
        periods: &PERIODS,
        draft,
        complaint,
    };
    Ok(render(status, &page))
}

/// The budgets that the session reaches.
async fn reached(
    console: &Console,
    administrator: &Administrator,
    organisation: &Organisation,
) -> Result<Vec<BudgetRow>, StoreError> {
    let mut budgets = budgets::of_organisation(&console.store, organisation).await?;
    if let reach @ Reach::Departments(_) = &administrator.reach {
        let users = directory::users(&console.store, &organisation.id).await?;
        budgets.retain(|budget| reach.scope(&budget.scope, &users));
    }
    Ok(budgets)
}

/// One of them.
async fn budget(console: &Console, administrator: &Administrator, id: &str) -> Result<BudgetRow, Failure> {
    let organisation = administrator.organisation(&console.store).await?;
    let all = reached(console, administrator, &organisation).await?;
    all.into_iter().find(|budget| budget.id == id).ok_or(Failure::NotFound)
}

/// What to tell whoever filled in the form; a fault of ours stays one.
fn complaint_of(error: BudgetError) -> Result<String, Failure> {
    match error {
        BudgetError::Store(error @ StoreError::Exists { .. }) => Ok(sentence(&error)),
        BudgetError::Store(error) => Err(error.into()),
        error => Ok(sentence(&error)),
    }
}

/// An error's words as a sentence.
fn sentence(words: impl std::fmt::Display) -> String {
    let words = words.to_string();
    let mut letters = words.chars();
    let first = letters.next().map(|letter| letter.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}
