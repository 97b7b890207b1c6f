//! Every route of the console, with the roles that it is open to: the one place where that is said.
//! What serves a route is reached through [`guard`] alone, and pages show only the links and buttons
//! whose route is open to the session ([`is_open`]).
//!
//! Invariants: a route cannot be stated without its roles; all but [`Access::Anyone`] need a session; a
//! request that changes something needs the session's token besides, in its form's field `token`.

use std::sync::Arc;

use axum::Form;
use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest as _, Request, State};
use axum::http::Method;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{MethodRouter, Router, get, post};
use serde::Deserialize;
use toktra_store::roles::Role;

use super::failure::Failure;
use super::session::Administrator;
use super::{Console, assets, budgets, devices, locks, overview, pending, perks, sign_in, usage};

/// Largest form that is read, in bytes.
pub(super) const FORM_LIMIT: usize = 8 * 1024;

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Whoever asks.
    Anyone,
    /// A session whose account has one of these roles.
    Roles(&'static [Role]),
}

/// A route of the console.
#[derive(Clone, Debug)]
pub struct Route {
    /// `GET` only shows, `POST` changes something.
    pub method: Method,
    /// The path, without parameters.
    pub path: &'static str,
    /// Who may use it.
    pub access: Access,
    serve: fn() -> MethodRouter<Arc<Console>>,
}

const EVERY_ROLE: Access = Access::Roles(&Role::ALL);
const READERS: Access = Access::Roles(&[Role::Owner, Role::Admin, Role::Auditor]);
const KEEPERS: Access = Access::Roles(&[Role::Owner, Role::Admin, Role::BudgetOwner]);
const ADMINS: Access = Access::Roles(&[Role::Owner, Role::Admin]);

static ROUTES: &[Route] = &[
    Route::shows("/", EVERY_ROLE, || get(overview::page)),
    Route::shows("/budgets", EVERY_ROLE, || get(budgets::page)),
    Route::changes("/budgets/add", KEEPERS, || post(budgets::add)),
    Route::changes("/budgets/caps", ADMINS, || post(budgets::caps)),
    Route::changes("/budgets/exemptions", KEEPERS, || post(budgets::decide)),
    Route::changes("/budgets/remove", KEEPERS, || post(budgets::remove)),
    Route::changes("/budgets/set", KEEPERS, || post(budgets::set)),
    Route::shows("/devices", READERS, || get(devices::page)),
    Route::changes("/devices/approve", ADMINS, || post(pending::approve)),
    Route::changes("/devices/deny", ADMINS, || post(pending::deny)),
    Route::changes("/devices/lock", ADMINS, || post(locks::lock)),
    Route::changes("/devices/unlock", ADMINS, || post(locks::unlock)),
    Route::shows("/perks", READERS, || get(perks::page)),
    Route::changes("/perks/tiers", ADMINS, || post(perks::set_tier)),
    Route::changes("/perks/tiers/remove", ADMINS, || post(perks::remove_tier)),
    Route::changes("/perks/enrol", ADMINS, || post(perks::enrol)),
    Route::changes("/perks/remove", ADMINS, || post(perks::remove)),
    Route::shows("/usage", EVERY_ROLE, || get(usage::page)),
    Route::shows("/usage.csv", EVERY_ROLE, || get(usage::csv)),
    Route::shows("/usage.json", EVERY_ROLE, || get(usage::json)),
    Route::shows("/login", Access::Anyone, || get(sign_in::page)),
    Route::changes("/login", Access::Anyone, || post(sign_in::sign_in)),
    Route::changes("/logout", EVERY_ROLE, || post(sign_in::sign_out)),
    Route::shows("/style.css", Access::Anyone, || get(|| async { assets::style() })),
    Route::shows("/live.js", Access::Anyone, || get(|| async { assets::live() })),
    Route::shows("/favicon.svg", Access::Anyone, || get(|| async { assets::favicon() })),
];

impl Route {
    const fn shows(path: &'static str, access: Access, serve: fn() -> MethodRouter<Arc<Console>>) -> Self {
        Self { method: Method::GET, path, access, serve }
    }

    const fn changes(path: &'static str, access: Access, serve: fn() -> MethodRouter<Arc<Console>>) -> Self {
        Self { method: Method::POST, path, access, serve }
    }
}

/// Every route.
pub fn routes() -> &'static [Route] {
    ROUTES
}

/// All of them, each behind its guard.
pub(super) fn router(console: &Arc<Console>) -> Router<Arc<Console>> {
    ROUTES.iter().fold(Router::new(), |router, route| {
        let guard = from_fn_with_state((Arc::clone(console), route), guard);
        router.route(route.path, (route.serve)().route_layer(guard))
    })
}

/// Whether whatever is at a path is open to a role.
pub(super) fn is_open(path: &str, role: Role) -> bool {
    ROUTES.iter().filter(|route| route.path == path).all(|route| match route.access {
        Access::Anyone => true,
        Access::Roles(roles) => roles.contains(&role),
    })
}

/// Why a request did not reach its handler.
enum Refused {
    /// There is another page for whoever asked.
    Elsewhere(&'static str),
    Because(Failure),
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self::Because(failure)
    }
}

/// Lets a request through to its handler if its session may use the route, and gives the handler the
/// session.
async fn guard(
    State((console, route)): State<(Arc<Console>, &'static Route)>,
    request: Request,
    next: Next,
) -> Response {
    match admit(&console, route, request).await {
        Ok(request) => next.run(request).await,
        Err(Refused::Elsewhere(path)) => Redirect::to(path).into_response(),
        Err(Refused::Because(failure)) => failure.into_response(),
    }
}

async fn admit(console: &Console, route: &Route, mut request: Request) -> Result<Request, Refused> {
    let Access::Roles(roles) = route.access else {
        return Ok(request);
    };
    let Some(administrator) = Administrator::find(console, request.headers()).await? else {
        return Err(Refused::Elsewhere("/login"));
    };
    if !roles.contains(&administrator.session.role) {
        return Err(Failure::Role.into());
    }
    if route.method != Method::GET {
        request = check_form(&administrator, request).await?;
    }
    request.extensions_mut().insert(administrator);
    Ok(request)
}

/// What every form of ours holds.
#[derive(Deserialize)]
struct Tokened {
    token: String,
}

/// Refuses a form that was not made for this session.
async fn check_form(administrator: &Administrator, request: Request) -> Result<Request, Failure> {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, FORM_LIMIT).await.map_err(|_| Failure::BadForm)?;
    let mut copy = Request::new(Body::from(body.clone()));
    *copy.method_mut() = parts.method.clone();
    *copy.headers_mut() = parts.headers.clone();
    let form = Form::<Tokened>::from_request(copy, &()).await;
    let Form(Tokened { token }) = form.map_err(|_| Failure::ForeignOrigin)?;
    if !administrator.owns(&token) {
        return Err(Failure::ForeignOrigin);
    }
    Ok(Request::from_parts(parts, Body::from(body)))
}
