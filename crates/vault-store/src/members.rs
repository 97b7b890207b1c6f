//! Members and their devices' slots, as transactions find or make them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sqlx::{Sqlite, Transaction};
use toktra_protocol::personal::Slot;

use crate::{Pseudonym, VaultError};

/// Most devices of a member, and most in a month's totals.
pub const SLOTS_LIMIT: i64 = 32;

/// What whoever knows the user says of a member whom the vault has not seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Newcomer {
    /// The user's first: counts as a person.
    Person,
    /// Another name of a user who has one; counts in sums, but not as a person.
    OtherName,
    /// One too many.
    Refused,
}

#[derive(Clone, Copy, Debug, sqlx::FromRow)]
pub(crate) struct MemberRow {
    pub(crate) person: i64,
    pub(crate) last_place: i64,
    pub(crate) records: i64,
    pub(crate) bytes: i64,
}

/// The member's row; a newcomer's is made.
pub(crate) async fn find_or_make(
    transaction: &mut Transaction<'static, Sqlite>,
    organisation: &str,
    member: &Pseudonym,
    newcomer: impl FnOnce() -> Newcomer,
) -> Result<MemberRow, VaultError> {
    let known = sqlx::query_as(
        "SELECT person, last_place, records, bytes FROM vault_members WHERE organisation_id = $1 AND member = $2",
    )
    .bind(organisation)
    .bind(member.as_str())
    .fetch_optional(&mut **transaction)
    .await?;
    if let Some(known) = known {
        return Ok(known);
    }
    let person = match newcomer() {
        Newcomer::Person => 1,
        Newcomer::OtherName => 0,
        Newcomer::Refused => return Err(VaultError::NoNewcomer),
    };
    sqlx::query(
        "INSERT INTO vault_members (organisation_id, member, person, last_place, records, bytes)
         VALUES ($1, $2, $3, 0, 0, 0)",
    )
    .bind(organisation)
    .bind(member.as_str())
    .bind(person)
    .execute(&mut **transaction)
    .await?;
    Ok(MemberRow { person, last_place: 0, records: 0, bytes: 0 })
}

pub(crate) fn slot_text(slot: Slot) -> String {
    URL_SAFE_NO_PAD.encode(slot.bytes())
}

pub(crate) fn slot_of(text: &str) -> Option<Slot> {
    Some(Slot::new(URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?))
}
