//! The local sockets: extension to agent, and command line to agent.
//!
//! A frame is a little-endian `u32` length and that many bytes of JSON. The extension
//! connects to the agent's `extension.sock` and says [`FromExtension::Hello`]; the agent
//! answers with [`ToExtension::Seed`], everything the extension must know, whatever went
//! before. Each record has a number within the extension's run; the agent acknowledges
//! after its spool has it, and the extension sends again what was not acknowledged when
//! it connects anew. The spool remembers the highest number of a run, so that nothing
//! counts twice.

use serde::{Deserialize, Serialize};

use crate::personal::control::{PersonalAnswer, PersonalAsk, PersonalStatus};
use crate::personal::local::{PersonalMode, PersonalRecord};
use crate::privacy::{PrivacyHours, Window};
use crate::{Block, Budget, Code, DeviceId, Event, EventBody, Lock, Minute, UnixSeconds};

/// Version of these messages; peers of another version are refused with a clear error. An extension
/// of version 1 knows no privacy hours and would record in them; one of version 2 knows no personal mode,
/// and would give the organisation what is the user's own.
pub const VERSION: u32 = 3;
const MACOS: bool = cfg!(target_os = "macos");
/// Largest frame, in bytes.
pub const FRAME_LIMIT: usize = 256 * 1024;
/// Directory of the sockets.
pub const RUN_DIRECTORY: &str = if MACOS { "/var/run/toktra" } else { "/run/toktra" };
/// Directory of what outlives a restart.
pub const STATE_DIRECTORY: &str =
    if MACOS { "/Library/Application Support/com.toktra.agent" } else { "/var/lib/toktra" };
/// What a person does to start the agent.
pub const START_AGENT: &str =
    if MACOS { "sudo launchctl kickstart system/com.toktra.agent" } else { "systemctl start toktra-agent" };
/// What a person does to start the extension.
pub const START_EXTENSION: &str = if MACOS {
    "/Applications/ToktraAgent.app/Contents/MacOS/ToktraAgent extension activate"
} else {
    "systemctl start toktra-extension"
};
/// What a person does to have the extension of this release run in place of another.
pub const REPLACE_EXTENSION: &str = if MACOS {
    "this Mac replaces it after its next sleep or restart, or now with ToktraAgent extension activate"
} else {
    "systemctl restart toktra-extension"
};
/// The extension's socket, readable by root and the agent's account.
pub const EXTENSION_SOCKET: &str = "extension.sock";
/// The command line's socket, open to every local user; peers' uids decide what they may ask.
pub const CONTROL_SOCKET: &str = "agent.sock";

/// What the extension says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromExtension {
    /// First frame of a connection.
    Hello {
        /// [`VERSION`] of the sender.
        version: u32,
        /// Random identifier of this run of the extension.
        run: uuid::Uuid,
        /// Version of the extension's binary.
        extension_version: String,
    },
    /// A record to spool.
    Record(Record),
    /// A record to seal for the vault.
    Personal(PersonalRecord),
    /// What the last seed said of personal mode is in force; after the first, and whenever it changes.
    /// Nothing that a connection carries from now on goes elsewhere.
    PersonalInForce {
        /// As in [`Seed::personal`].
        mode: Option<PersonalMode>,
    },
    /// How the capture is doing; at connect, on change, and at least once a minute.
    Health(Health),
}

/// A record to spool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// 1, 2, 3… within the run.
    pub number: u64,
    /// The minute in which it was made.
    pub minute: Minute,
    /// What happened.
    pub body: EventBody,
}

/// How the capture is doing. Counts only, never a name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// What could not be loaded or done, in words for an administrator.
    pub degraded: Vec<String>,
    /// Connections seen since the start of the run.
    pub flows_seen: u64,
    /// Of those, with a provider.
    pub flows_metered: u64,
    /// Of those, blocked or cut.
    pub flows_blocked: u64,
    /// Pieces of a hello that the kernel's buffer had no room for.
    pub hellos_lost: u64,
    /// Records that the extension had to drop because the agent was away too long.
    pub records_dropped: u64,
    /// Connections let through unread, because too many hellos were not whole.
    #[serde(default)]
    pub flows_unread: u64,
    /// Connections older than the capture that too many others kept from being attributed.
    #[serde(default)]
    pub flows_unattributed: u64,
    /// Connections with a provider that were not counted, and records lost, because the
    /// extension's tables were full.
    #[serde(default)]
    pub records_lost: u64,
}

impl Health {
    /// Each limit that was hit, in words for an administrator.
    pub fn limits_hit(&self) -> Vec<String> {
        let limits = [
            (self.hellos_lost, "pieces of hellos were lost: the kernel's buffer was full"),
            (self.flows_unread, "connections passed unread: too many hellos were not whole"),
            (
                self.flows_unattributed,
                "connections older than the capture cannot be attributed: too many wait",
            ),
            (self.records_lost, "records were lost: the extension's tables were full"),
            (self.records_dropped, "records were dropped: the agent was away too long"),
        ];
        limits.iter().filter(|(hits, _)| *hits > 0).map(|(hits, words)| format!("{hits} {words}")).collect()
    }
}

/// What the agent says to the extension.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(clippy::large_enum_variant, reason = "a seed is applied and dropped, there are never many")]
pub enum ToExtension {
    /// Everything the extension must know; sent at connect and at every change.
    Seed(Seed),
    /// The spool has every record of this run up to this number.
    Acknowledged {
        /// Number of the record.
        number: u64,
    },
    /// The same of personal records: they are sealed and on disk.
    PersonalAcknowledged {
        /// Number of the personal record.
        number: u64,
    },
}

/// Everything the extension must know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed {
    /// [`VERSION`] of the sender.
    pub version: u32,
    /// The highest record of this run that the spool has.
    pub acknowledged: u64,
    /// A lock, if one is in force.
    pub lock: Option<Lock>,
    /// A block, if one is in force.
    pub block: Option<Block>,
    /// When the block lapses, by the device's clock.
    pub block_until: Option<UnixSeconds>,
    /// Hosts that are never blocked and never metered: the backend's own.
    pub own_hosts: Vec<String>,
    /// When nothing is recorded, whosever the windows are: the extension acts on them alone.
    #[serde(default)]
    pub privacy: Vec<Window>,
    /// The user's windows cannot be read, so that nothing may be recorded at all.
    #[serde(default)]
    pub privacy_unreadable: bool,
    /// Personal mode, if it is on.
    #[serde(default)]
    pub personal: Option<PersonalMode>,
    /// The highest personal record of this run that is sealed and on disk.
    #[serde(default)]
    pub personal_acknowledged: u64,
    /// Remote ports to watch beside 443. On Linux the extension's own command line says.
    #[serde(default)]
    pub ports: Vec<u16>,
}

/// What a command line asks of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Everyone may.
    Status,
    /// Send what waits, now, and answer when it is acknowledged or has failed. Root only.
    Flush,
    /// Everyone may: an [`Answer::Status`] now and at every change, until the connection ends.
    Watch,
    /// Everyone may: ask an administrator to exempt this device from a budget for a while.
    RequestMore {
        /// [`Budget::id`]; the one with least left if it is left out.
        budget: Option<String>,
        /// Why, in the user's words.
        reason: String,
    },
    /// Everyone may, and sees what is theirs: records that were sent of late, then those that wait.
    Records {
        /// Only those beyond this place.
        after: RecordPlace,
    },
    /// Put these in place of the user's own privacy hours; none are none. Root, and who sits at the machine.
    SetPrivacy {
        /// As [`Window`] is written.
        windows: Vec<String>,
    },
    /// About personal mode: each says who may.
    Personal(PersonalAsk),
}

/// What the agent answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To [`Ask::Status`], and to [`Ask::Flush`] after it.
    Status(Box<Status>),
    /// To [`Ask::Records`]: a page of them.
    Records(RecordsPage),
    /// To [`Ask::Personal`], where records were asked for.
    Personal(PersonalAnswer),
    /// Done; what comes of it, in words.
    Done {
        /// For the user.
        message: String,
    },
    /// Not done, and why.
    Refused {
        /// What to do next.
        reason: String,
    },
}

/// Up to where records were listed. The default is the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordPlace {
    /// Sent ones since the agent started.
    pub sent: u64,
    /// Place in the spool.
    pub waiting: u64,
}

/// Some records, and where to go on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RecordsPage {
    /// In order; those that the asker may not see are left out.
    pub records: Vec<Listed>,
    /// Where the next page begins.
    pub next: RecordPlace,
    /// Whether there is a next page now.
    pub more: bool,
}

/// A record, exactly as it leaves the device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listed {
    /// Whether it has left.
    pub state: RecordState,
    /// One that waits may yet get another number, if others are dropped before it.
    pub event: Event,
}

/// Whether a record has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordState {
    /// The backend has acknowledged it.
    Sent,
    /// It waits, or is on its way and not acknowledged.
    Waiting,
}

/// What is true of the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the agent.
    pub agent_version: String,
    /// `ToktraDomain` as configured.
    pub domain: Option<String>,
    /// The device's identifier, once enrolled.
    pub device: Option<DeviceId>,
    /// The organisation's name.
    pub organisation: Option<String>,
    /// The department's name.
    pub department: Option<String>,
    /// End of the certificate's validity.
    pub certificate_until: Option<UnixSeconds>,
    /// When the backend last acknowledged a batch.
    pub last_flush: Option<UnixSeconds>,
    /// Why the last attempt failed, if it did.
    pub last_error: Option<String>,
    /// Events on disk that the backend has not acknowledged.
    pub events_waiting: u64,
    /// Highest sequence number that the backend has acknowledged.
    pub acknowledged: u64,
    /// Events dropped by a limit since enrolment.
    pub events_dropped: u64,
    /// Version of the directive in force.
    pub directive_version: Option<u64>,
    /// When the backend made it.
    pub directive_issued_at: Option<UnixSeconds>,
    /// A lock in force.
    pub lock: Option<Lock>,
    /// A block in force.
    pub block: Option<Block>,
    /// Whether the extension is connected.
    pub extension_connected: bool,
    /// How the capture is doing.
    pub health: Option<Health>,
    /// What is not as it should be, in words.
    pub degraded: Vec<String>,
    /// Where the device's identity stands.
    #[serde(default)]
    pub identity: Identity,
    /// The budgets that apply, the device's own count since the directive added, least left first.
    #[serde(default)]
    pub budgets: Vec<Budget>,
    /// When the block in force ends by itself, by the device's clock.
    #[serde(default)]
    pub block_until: Option<UnixSeconds>,
    /// A hard cap was in force, but the backend has been out of reach for so long that it was opened.
    #[serde(default)]
    pub cap_opened: bool,
    /// Privacy hours; `None` while the agent is not running.
    #[serde(default)]
    pub privacy: Option<PrivacyHours>,
    /// Personal mode, as far as it is to be told to who asks; `None` where there is nothing to tell.
    #[serde(default)]
    pub personal: Option<PersonalStatus>,
    /// Version of the extension that is connected, or was refused because it is not of the agent's release.
    #[serde(default)]
    pub extension_version: Option<String>,
}

impl Status {
    /// Whether the extension is of another release than the agent.
    pub fn has_other_extension(&self) -> bool {
        self.extension_version.as_ref().is_some_and(|version| *version != self.agent_version)
    }
}

/// Where the device's identity stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// What is going on.
    pub phase: IdentityPhase,
    /// When the certificate is to be renewed, by the device's clock.
    pub renews_at: Option<UnixSeconds>,
    /// Why the backend refused last, if it did.
    pub refused: Option<Code>,
    /// By how much the device's clock is ahead of the backend's (negative: behind), in seconds.
    pub clock_ahead_s: i64,
}

/// What is going on with a device's identity. Drawn in `docs/identity.md`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdentityPhase {
    /// No credential, and nobody has asked for one.
    #[default]
    Unenrolled,
    /// Asked for; an administrator has yet to approve.
    Pending,
    /// All is well.
    Enrolled,
    /// It is time for a new certificate; the old one still serves.
    Renewing,
    /// The certificate has expired; the device recovers with its old key.
    Recovering,
    /// An administrator revoked the device. Nothing is sent; what waits is kept.
    Revoked,
    /// The backend does not know the device, or will not let it recover: enrol it again.
    Lost,
}

/// Why bytes are not a frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The length exceeds [`FRAME_LIMIT`].
    #[error("a frame of {0} bytes exceeds the limit of {FRAME_LIMIT}")]
    TooLarge(usize),
    /// The bytes are not the JSON of the message.
    #[error("a frame is not the expected message")]
    Json(#[source] serde_json::Error),
}

/// Puts a message into a frame.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message).map_err(FrameError::Json)?;
    let length = frame.len() - 4;
    if length > FRAME_LIMIT {
        return Err(FrameError::TooLarge(length));
    }
    frame[..4].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(frame)
}

/// Takes frames apart, however they arrive. Holds at most one frame and what came with it.
#[derive(Debug, Default)]
pub struct Frames {
    buffer: Vec<u8>,
}

impl Frames {
    /// Adds what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message, if there is one. After an error the connection is of no more use.
    pub fn take<T: for<'de> Deserialize<'de>>(&mut self) -> Result<Option<T>, FrameError> {
        let Some(&prefix) = self.buffer.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(prefix) as usize;
        if length > FRAME_LIMIT {
            return Err(FrameError::TooLarge(length));
        }
        let Some(json) = self.buffer.get(4..4 + length) else { return Ok(None) };
        let message = serde_json::from_slice(json).map_err(FrameError::Json)?;
        self.buffer.drain(..4 + length);
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_whole_however_they_arrive() {
        let frame = encode(&Ask::Status).unwrap();
        let twice = [frame.clone(), frame].concat();
        for cut in 0..twice.len() {
            let mut frames = Frames::default();
            let mut seen = 0;
            for part in [&twice[..cut], &twice[cut..]] {
                frames.push(part);
                while let Some(ask) = frames.take::<Ask>().unwrap() {
                    assert_eq!(ask, Ask::Status);
                    seen += 1;
                }
            }
            assert_eq!(seen, 2);
        }
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_it_is_read() {
        let mut frames = Frames::default();
        frames.push(&u32::MAX.to_le_bytes());
        assert!(matches!(frames.take::<Ask>(), Err(FrameError::TooLarge(_))));
    }
}
