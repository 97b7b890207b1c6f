//! What a device and the backend's vault say to each other, on the ingest host: JSON, errors as
//! [`Problem`](crate::Problem)s. The certificate says only whether a device may; whose the data is, the
//! [`Member`] says, and the backend keeps no more of it than a hash.
//!
//! Invariants: a body is read within its limit and checked before it is used; a sealed record begins as
//! such, so that nothing in clear gets here by mistake; no time is finer than a month. What is
//! secret prints nothing.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::Month;
use crate::UnixSeconds;

/// Path of [`PersonalBatch`].
pub const RECORDS_PATH: &str = "/v1/vault/records";
/// Path of [`PersonalQuery`].
pub const LIST_PATH: &str = "/v1/vault/list";
/// Path of [`PersonalTotal`].
pub const TOTAL_PATH: &str = "/v1/vault/total";
/// Path of [`PersonalLeave`].
pub const LEAVE_PATH: &str = "/v1/vault/leave";
/// Largest sealed record, in bytes.
pub const SEALED_LIMIT: usize = 8 * 1024;
/// Most records in a batch, or on a page.
pub const RECORDS_LIMIT: usize = 64;
/// Largest body of a [`PersonalBatch`] or a [`PersonalPage`], in bytes: [`RECORDS_LIMIT`] records in base64, and their names.
pub const RECORDS_BODY_LIMIT: usize = 720 * 1024;
/// Largest body of any other message, in bytes.
pub const BODY_LIMIT: usize = 1024;
/// Most tokens of a device's month; beyond, it is no use of a person, and the backend could not add it up.
pub const TOKENS_LIMIT: u64 = 1_000_000_000_000;
/// First line of a sealed record, which says the version of what follows.
pub const SEALED_HEAD: &[u8] = b"toktra sealed v1\n";

/// Whose personal records these are: 32 secret bytes that only the user's devices can make, from the
/// user's private key (HKDF-SHA256) and the organisation's name. Whoever has them can list and delete.
/// The backend keeps their SHA-256. As text, base64url without padding.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Member([u8; 32]);

/// Which of a member's devices: 16 random bytes, made when the user opts in
/// there, which tell it to nobody else. As text, base64url without padding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot([u8; 16]);

/// A record, sealed on the device to the user's public key: [`SEALED_HEAD`] and what follows it, at most
/// [`SEALED_LIMIT`] bytes. As text, base64.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(Vec<u8>);

/// Sealed records of one device of a member, without a gap.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PersonalBatch {
    /// Whose they are.
    pub member: Member,
    /// Which of the member's devices.
    pub slot: Slot,
    /// Number of the first record; a slot's numbers begin at 1.
    pub first: u64,
    /// The records, each sealed; at most [`RECORDS_LIMIT`].
    pub records: Vec<Sealed>,
}

/// The server's answer to a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersonalAck {
    /// Highest number of the slot that is durably stored, with all before it.
    pub acknowledged: u64,
}

/// Asks for a member's sealed records.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PersonalQuery {
    /// Whose.
    pub member: Member,
    /// Those after this place; 0: from the first.
    pub after: u64,
}

/// Some of a member's sealed records, in the order in which they came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersonalPage {
    /// The records; at most [`RECORDS_LIMIT`].
    pub records: Vec<StoredRecord>,
    /// What to ask for next: the last one's place.
    pub next: u64,
    /// Whether there are more.
    pub more: bool,
}

/// A sealed record as the backend has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredRecord {
    /// Its place among the member's.
    pub place: u64,
    /// Which of the member's devices sent it.
    pub slot: Slot,
    /// Its number there.
    pub number: u64,
    /// The record.
    pub sealed: Sealed,
}

/// Tells how much of its allowance a device of a member used.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PersonalTotal {
    /// Whose use it is.
    pub member: Member,
    /// Which of the member's devices.
    pub slot: Slot,
    /// The month, as the directive has it.
    pub month: Month,
    /// Tokens of the slot in that month so far, by the best guess; the backend keeps the highest. At most [`TOKENS_LIMIT`].
    pub tokens: u64,
}

/// What a device cannot know of the member's month by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersonalStanding {
    /// Tokens of the member's other devices in that month.
    pub others: u64,
    /// Tokens that the month before left over, within the tier's ceiling.
    pub carried: u64,
}

/// Has the backend forget a member: sealed records are deleted, and monthly totals stay as nobody's.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PersonalLeave {
    /// Whom.
    pub member: Member,
}

/// What a device's user may use personally: in the directive while the organisation has the flag
/// [`FF_TOKEN_PERKS`](crate::directive::FF_TOKEN_PERKS) and an administrator enrolled the user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Perks {
    /// The tier's name.
    pub tier: String,
    /// The month for which the rest holds, in the organisation's time zone.
    pub month: Month,
    /// When the month ends, by the backend's clock.
    pub month_end: UnixSeconds,
    /// Tokens of every month.
    pub monthly_tokens: u64,
    /// Tokens that this month has besides.
    pub bonus_tokens: u64,
    /// Most that a month may leave to the next one.
    pub rollover_tokens: u64,
}

/// Why bytes are not one of these messages.
#[derive(Debug, thiserror::Error)]
pub enum PersonalError {
    /// More bytes or records than may be.
    #[error("the body exceeds {limit} bytes, or {RECORDS_LIMIT} records; send less at once")]
    TooLarge {
        /// Largest body of the message, in bytes.
        limit: usize,
    },
    /// Not the JSON of the message. Only where, since what stands there may be a secret.
    #[error("the body is not the JSON of this message, at line {line}, column {column}")]
    Json {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// No record, or numbers that do not begin at 1 or do not fit a signed 64-bit column.
    #[error("a batch has records, and their numbers begin at 1")]
    Order,
    /// A number does not fit a signed 64-bit column, or is more than [`TOKENS_LIMIT`].
    #[error("a number is out of range; a month has at most {TOKENS_LIMIT} tokens")]
    Range,
}

/// Why a secret, a slot or a record is not one. Says nothing of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// Not base64url of exactly so many bytes.
    #[error("a member is 32 bytes and a slot 16, in base64url without padding")]
    Name,
    /// Not base64 of a sealed record within [`SEALED_LIMIT`].
    #[error("a record is sealed and of at most {SEALED_LIMIT} bytes, in base64")]
    Sealed,
}

impl Member {
    /// Of the secret bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The secret bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for Member {
    /// In a time that says nothing of where they differ.
    fn eq(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).fold(0, |differences, (one, two)| differences | (one ^ two)) == 0
    }
}

impl Eq for Member {}

impl Slot {
    /// Of its bytes.
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl Sealed {
    /// Of what the device has sealed.
    pub fn new(bytes: Vec<u8>) -> Result<Self, ShapeError> {
        let is_sealed = bytes.len() <= SEALED_LIMIT && bytes.starts_with(SEALED_HEAD);
        if is_sealed { Ok(Self(bytes)) } else { Err(ShapeError::Sealed) }
    }

    /// As the device has sealed it.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A message that a device sends to the vault.
pub trait Body: DeserializeOwned + Serialize {
    /// Largest body, in bytes.
    const LIMIT: usize = BODY_LIMIT;

    /// Checks what the types cannot: counts and ranges.
    fn check(&self) -> Result<(), PersonalError>;

    /// Reads and checks a body.
    fn decode(body: &[u8]) -> Result<Self, PersonalError> {
        if body.len() > Self::LIMIT {
            return Err(PersonalError::TooLarge { limit: Self::LIMIT });
        }
        let message: Self = serde_json::from_slice(body).map_err(not_json)?;
        message.check()?;
        Ok(message)
    }

    /// Checks and writes the body, which holds a secret.
    fn encode(&self) -> Result<Zeroizing<Vec<u8>>, PersonalError> {
        self.check()?;
        serde_json::to_vec(self).map(Zeroizing::new).map_err(not_json)
    }
}

impl Body for PersonalBatch {
    const LIMIT: usize = RECORDS_BODY_LIMIT;

    fn check(&self) -> Result<(), PersonalError> {
        if self.records.len() > RECORDS_LIMIT {
            return Err(PersonalError::TooLarge { limit: Self::LIMIT });
        }
        let fits = self.first >= 1 && self.first <= i64::MAX as u64 - RECORDS_LIMIT as u64;
        if fits && !self.records.is_empty() { Ok(()) } else { Err(PersonalError::Order) }
    }
}

impl Body for PersonalQuery {
    fn check(&self) -> Result<(), PersonalError> {
        if self.after <= i64::MAX as u64 { Ok(()) } else { Err(PersonalError::Range) }
    }
}

impl Body for PersonalTotal {
    fn check(&self) -> Result<(), PersonalError> {
        if self.tokens <= TOKENS_LIMIT { Ok(()) } else { Err(PersonalError::Range) }
    }
}

impl Body for PersonalLeave {
    fn check(&self) -> Result<(), PersonalError> {
        Ok(())
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Member")
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Slot")
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealed")
    }
}

fn not_json(error: serde_json::Error) -> PersonalError {
    PersonalError::Json { line: error.line(), column: error.column() }
}

/// Exactly `N` bytes of base64url without padding.
pub(super) fn named<const N: usize>(text: &str) -> Result<[u8; N], ShapeError> {
    let mut bytes = [0; N];
    // The encoding of N bytes has one length, so that no text makes this allocate.
    if text.len() != (N * 4).div_ceil(3) {
        return Err(ShapeError::Name);
    }
    match URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) {
        Ok(length) if length == N => Ok(bytes),
        _ => {
            bytes.zeroize();
            Err(ShapeError::Name)
        }
    }
}

impl Serialize for Member {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(URL_SAFE_NO_PAD.encode(self.0)))
    }
}

impl<'de> Deserialize<'de> for Member {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        named(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

impl Serialize for Slot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl<'de> Deserialize<'de> for Slot {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        named(&String::deserialize(deserializer)?).map(Self).map_err(serde::de::Error::custom)
    }
}

impl Serialize for Sealed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Sealed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes =
            if text.len() <= SEALED_LIMIT.div_ceil(3) * 4 { STANDARD.decode(&text).ok() } else { None };
        bytes.ok_or(ShapeError::Sealed).and_then(Self::new).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(length: usize) -> Sealed {
        let mut bytes = SEALED_HEAD.to_vec();
        bytes.resize(length, 7);
        Sealed::new(bytes).unwrap()
    }

    fn batch(first: u64, records: Vec<Sealed>) -> PersonalBatch {
        PersonalBatch { member: Member::new([1; 32]), slot: Slot::new([2; 16]), first, records }
    }

    #[test]
    fn the_largest_batch_fits_its_limit_and_survives_the_wire() {
        let largest = batch(i64::MAX as u64 - 64, vec![sealed(SEALED_LIMIT); RECORDS_LIMIT]);
        let body = largest.encode().unwrap();
        assert!(body.len() <= RECORDS_BODY_LIMIT);
        let read = PersonalBatch::decode(&body).unwrap();
        assert_eq!((read.member.bytes(), read.slot, read.first), (&[1; 32], largest.slot, largest.first));
        assert_eq!(read.records, largest.records);
    }

    #[test]
    fn what_is_too_much_or_out_of_order_is_refused_by_its_name() {
        let refused = |batch: PersonalBatch| {
            let body = serde_json::to_vec(&batch).unwrap();
            PersonalBatch::decode(&body).unwrap_err()
        };
        let few = || vec![sealed(100)];
        assert!(matches!(refused(batch(1, vec![sealed(100); 65])), PersonalError::TooLarge { .. }));
        assert!(matches!(refused(batch(1, Vec::new())), PersonalError::Order));
        assert!(matches!(refused(batch(0, few())), PersonalError::Order));
        assert!(matches!(refused(batch(i64::MAX as u64, few())), PersonalError::Order));
        let long = vec![b' '; RECORDS_BODY_LIMIT + 1];
        assert!(matches!(PersonalBatch::decode(&long), Err(PersonalError::TooLarge { .. })));
        let total = PersonalTotal {
            member: Member::new([1; 32]),
            slot: Slot::new([2; 16]),
            month: Month::new(2026, 11).unwrap(),
            tokens: TOKENS_LIMIT + 1,
        };
        assert!(matches!(total.encode(), Err(PersonalError::Range)));
        let query = PersonalQuery { member: Member::new([1; 32]), after: u64::MAX };
        assert!(matches!(query.encode(), Err(PersonalError::Range)));
    }

    #[test]
    fn only_exact_names_and_sealed_records_are_read() {
        let name = |text: &str| serde_json::from_value::<Slot>(text.into()).is_ok();
        assert!(name("AgICAgICAgICAgICAgICAg"));
        for text in [
            "",
            "AgICAgICAgICAgICAgICAg==",
            "AgICAgICAgICAgICAgICAgIC",
            "AgICAgICAgICAgICAgICA+",
            "AgICAgICAgICAgICAgICAh",
        ] {
            assert!(!name(text), "{text:?}");
        }
        for bytes in [b"".to_vec(), b"openai".to_vec(), [SEALED_HEAD, &[0; SEALED_LIMIT]].concat()] {
            let text = STANDARD.encode(&bytes);
            assert!(serde_json::from_value::<Sealed>(text.into()).is_err(), "{} bytes", bytes.len());
        }
    }

    #[test]
    fn nothing_of_a_member_is_printed_by_a_message_or_by_an_error() {
        let batch = batch(1, vec![sealed(100)]);
        let printed = format!("{batch:?} {:?}", PersonalLeave { member: batch.member.clone() });
        assert_eq!(
            printed,
            "PersonalBatch { member: Member, slot: Slot, first: 1, records: [Sealed] } PersonalLeave { member: Member }"
        );
        let secret = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlYw";
        for body in [
            format!(r#"{{"member":"{secret}="}}"#),
            format!(r#"{{"member":"{secret}","after":"{secret}"}}"#),
            format!(r#"{{"member":"{secret}","after":1,"more":1}}"#),
        ] {
            let error = PersonalQuery::decode(body.as_bytes()).unwrap_err();
            assert!(!format!("{error} {error:?}").contains(secret), "{error}");
        }
    }
}
