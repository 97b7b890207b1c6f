//! Who opted in to personal mode on this device and what they chose: `personal` in the state directory,
//! JSON, 0600, replaced as a whole. The agent seals with what is in it, and can open nothing.
//!
//! A file that cannot be read is left as it is and personal mode is off until somebody opts in anew; then
//! it is kept beside, as `personal.unreadable`.

use std::fs::File;
use std::io::{self, ErrorKind, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};
use toktra_protocol::personal::control::{Recipient, WhenExhausted};
use toktra_protocol::personal::{Member, Month};
use toktra_protocol::{Minute, UnixSeconds};
use zeroize::Zeroizing;

/// Name of the file in the state directory.
pub const FILE: &str = "personal";
/// Where a file that could not be read is kept.
const ASIDE: &str = "personal.unreadable";
/// Far more than a membership takes, in bytes.
const LIMIT: u64 = 16 * 1024;

/// Who opted in, and what they chose.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Membership {
    /// With whom the device was enrolled then: it means nothing to another organisation.
    pub tenant: String,
    /// The user.
    pub uid: u32,
    /// The user's account, as the extension names accounts.
    pub account: String,
    /// What records are sealed to.
    pub recipient: Recipient,
    /// Under what the backend files them.
    pub member: Member,
    /// What was recorded before is somebody else's.
    pub since: Minute,
    /// Whether the user wants the mode.
    pub on: bool,
    /// Until when, by the device's clock.
    pub until: Option<UnixSeconds>,
    /// What is to happen when the allowance is used up.
    pub when_exhausted: WhenExhausted,
    /// The organisation ended the mode while it was on.
    pub ended: bool,
    /// What the backend last said of a month.
    pub standing: Option<Standing>,
    /// From when use counts for the organisation, because this month's allowance is used up.
    pub closing: Option<Closing>,
}

/// What the backend said of a month.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Standing {
    /// The month.
    pub month: Month,
    /// Tokens of the user's other devices.
    pub others: u64,
    /// Tokens that the month before left over.
    pub carried: u64,
}

/// When a month's allowance was used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Closing {
    /// The month.
    pub month: Month,
    /// From when use counts for the organisation, by the device's clock.
    pub at: UnixSeconds,
}

/// Reads the membership; none if nobody opted in. The error says what is wrong in words.
pub fn read(state: &Path) -> Result<Option<Membership>, String> {
    let file = state.join(FILE);
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    match file.metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(&error)),
        Ok(metadata) if metadata.len() > LIMIT => return Err(failed(&"it is too large")),
        Ok(_) => {}
    }
    let json = std::fs::read(&file).map(Zeroizing::new).map_err(|error| failed(&error))?;
    // What the parser says may quote a secret.
    serde_json::from_slice(&json).map(Some).map_err(|error| {
        failed(&format_args!("it is damaged, at line {}, column {}", error.line(), error.column()))
    })
}

/// Puts a membership in place of what is there.
pub fn write(state: &Path, membership: &Membership) -> io::Result<()> {
    std::fs::create_dir_all(state)?;
    let json = serde_json::to_vec(membership).map(Zeroizing::new)?;
    let mut new = tempfile::Builder::new().prefix(".new-").tempfile_in(state)?;
    new.write_all(&json)?;
    new.as_file().sync_all()?;
    new.persist(state.join(FILE)).map_err(|error| error.error)?;
    File::open(state)?.sync_all()
}

/// Keeps a file that cannot be read out of the way.
pub fn put_aside(state: &Path) -> io::Result<()> {
    std::fs::rename(state.join(FILE), state.join(ASIDE))
}

/// Forgets who opted in.
pub fn remove(state: &Path) -> io::Result<()> {
    match std::fs::remove_file(state.join(FILE)) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    File::open(state)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_membership_is_private_survives_and_prints_no_secret() {
        let state = tempfile::tempdir().unwrap();
        assert!(read(state.path()).unwrap().is_none());
        let membership = Membership {
            tenant: "acme.example/Acme".into(),
            uid: 1000,
            account: "ada".into(),
            recipient: Recipient::new([1; 32]),
            member: Member::new([2; 32]),
            since: Minute(1),
            on: true,
            until: Some(UnixSeconds(9)),
            when_exhausted: WhenExhausted::Corporate,
            ended: false,
            standing: None,
            closing: None,
        };
        write(state.path(), &membership).unwrap();
        let read_again = read(state.path()).unwrap().unwrap();
        assert_eq!(serde_json::to_value(&read_again).unwrap(), serde_json::to_value(&membership).unwrap());
        let mode = state.path().join(FILE).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(format!("{membership:?}").contains("member: Member,"), "{membership:?}");
        remove(state.path()).unwrap();
        remove(state.path()).unwrap();
    }

    #[test]
    fn what_cannot_be_read_is_said_without_its_words_and_left() {
        let state = tempfile::tempdir().unwrap();
        for damage in [&b"{\"member\":\"c2VjcmV0\"}"[..], b"\xff", &[b' '; 20_000]] {
            std::fs::write(state.path().join(FILE), damage).unwrap();
            let error = read(state.path()).unwrap_err();
            assert!(!error.contains("c2VjcmV0"), "{error}");
            assert_eq!(std::fs::read(state.path().join(FILE)).unwrap(), damage);
        }
    }
}
