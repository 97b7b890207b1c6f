//! Answers a user's asks about personal mode. Who may ask what:
//!
//! | ask | who |
//! | --- | --- |
//! | opt in | who sits at the machine; root only where root does |
//! | turn on and off, choose, see what waits, opt out | who opted in |
//! | see what the vault has | whoever knows the member, which only the user's key gives |

use std::time::Duration;

use tokio::time::timeout;
use toktra_protocol::local::Answer;
use toktra_protocol::personal::control::{PersonalAnswer, PersonalAsk};
use toktra_protocol::personal::wire::{LEAVE_PATH, LIST_PATH};
use toktra_protocol::personal::{PersonalLeave, PersonalPage, PersonalQuery};

use super::uplink::{self, VaultError};
use super::{Candidate, Change, PersonalError};
use crate::board::Board;
use crate::{privacy, records};

/// How long a user waits for the vault.
const PATIENCE: Duration = Duration::from_secs(40);
/// How long it is waited for the extension to take a mode up.
const TAKE_UP: Duration = Duration::from_secs(3);
/// Most bytes of sealed records in an answer; base64 makes them a third more, and a frame has its limit.
const PAGE_BYTES: usize = 128 * 1024;
/// Records of a page of what waits.
const PAGE: usize = 16;

/// Why a user was not answered. In words for the user.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// Not this user.
    #[error("only who sits at this machine may opt in, in their own session and not as root")]
    NotAtTheMachine,
    /// Nothing was changed.
    #[error(transparent)]
    Personal(#[from] PersonalError),
    /// No session with a backend.
    #[error("{}", crate::board::NOT_ENROLLED)]
    NotEnrolled,
    /// The vault.
    #[error("the backend cannot be asked, nothing was changed; try again later: {0}")]
    Vault(#[from] VaultError),
}

/// Answers one ask of a user's.
pub async fn answer(board: &Board, uid: u32, ask: PersonalAsk) -> Answer {
    match answered(board, uid, ask).await {
        Ok(answer) => answer,
        Err(error) => Answer::Refused { reason: error.to_string() },
    }
}

async fn answered(board: &Board, uid: u32, ask: PersonalAsk) -> Result<Answer, DeskError> {
    let change = match ask {
        PersonalAsk::OptIn { recipient, member, when_exhausted } => {
            if !privacy::sits_here(uid, &board.seat) {
                return Err(DeskError::NotAtTheMachine);
            }
            let account = records::account_of(uid);
            let candidate = Candidate { uid, account, recipient, member, when_exhausted };
            board.personal.opt_in(candidate, &board.offer())?;
            return Ok(status(board, uid));
        }
        PersonalAsk::On { until } => Change::On(until),
        PersonalAsk::Off => Change::Off,
        PersonalAsk::WhenExhausted { choice } => Change::WhenExhausted(choice),
        PersonalAsk::Waiting { after } => return waiting(board, uid, after),
        PersonalAsk::Stored { member, after } => return stored(board, PersonalQuery { member, after }).await,
        PersonalAsk::OptOut { here_only } => return opt_out(board, uid, here_only).await,
    };
    board.personal.change(uid, change, &board.offer())?;
    board.settle_personal();
    taken_up(board, uid).await;
    Ok(status(board, uid))
}

fn status(board: &Board, uid: u32) -> Answer {
    Answer::Status(Box::new(board.status(Some(uid))))
}

/// Until the extension has taken the mode up, so that who was answered can rely on it; not for long, since
/// it may be away.
async fn taken_up(board: &Board, uid: u32) {
    let mut news = board.personal.news();
    let waited = async {
        loop {
            news.borrow_and_update();
            let status = board.personal.status(Some(uid), &board.offer());
            let ledger = status.ledger;
            if ledger.is_none_or(|ledger| ledger.taken_up) || news.changed().await.is_err() {
                return;
            }
        }
    };
    let _ = timeout(TAKE_UP, waited).await;
}

fn waiting(board: &Board, uid: u32, after: u64) -> Result<Answer, DeskError> {
    let found = board.personal.waiting(uid, after, PAGE)?;
    let (next, more) = (found.last().map_or(after, |(place, _)| *place), found.len() == PAGE);
    let records = found.into_iter().map(|(_, sealed)| sealed).collect();
    Ok(Answer::Personal(PersonalAnswer::Waiting { records, next, more }))
}

async fn stored(board: &Board, query: PersonalQuery) -> Result<Answer, DeskError> {
    let vault = board.vault().ok_or(DeskError::NotEnrolled)?;
    let asked = async {
        let body = uplink::ask(&mut *vault.lock().await, LIST_PATH, &query).await?;
        uplink::read::<PersonalPage>(&body)
    };
    let page = uplink::within(PATIENCE, asked).await?;
    Ok(Answer::Personal(PersonalAnswer::Stored(cut(page))))
}

/// As much of a page as fits an answer; at least one record.
fn cut(mut page: PersonalPage) -> PersonalPage {
    let mut bytes = 0;
    let fits = page.records.iter().take_while(|record| {
        bytes += record.sealed.bytes().len();
        bytes <= PAGE_BYTES
    });
    let count = fits.count().max(1);
    if count < page.records.len() {
        page.records.truncate(count);
        page.next = page.records.last().map_or(page.next, |record| record.place);
        page.more = true;
    }
    page
}

async fn opt_out(board: &Board, uid: u32, here_only: bool) -> Result<Answer, DeskError> {
    let member = board.personal.member_of(uid)?;
    if !here_only {
        let vault = board.vault().ok_or(DeskError::NotEnrolled)?;
        let leave = PersonalLeave { member };
        let asked = async { uplink::ask(&mut *vault.lock().await, LEAVE_PATH, &leave).await };
        uplink::within(PATIENCE, asked).await?;
    }
    board.personal.forget(uid)?;
    board.settle_personal();
    let message = if here_only {
        "You have opted out on this device. What the backend has stays there, sealed; it goes when you opt out on a device that reaches it."
    } else {
        "You have opted out. The backend has deleted your records; the totals of months are kept as nobody's."
    };
    Ok(Answer::Done { message: message.to_owned() })
}
