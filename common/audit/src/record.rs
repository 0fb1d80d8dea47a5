//! One record of the log and its one encoding: a line of JSON without a blank in it.
//!
//! The tree is built over the bytes of that line, so an export is the log itself, readable by eye, by `jq` and by twenty lines of any
//! language. There is one line for a record and one record for a line: reading writes the record again and compares.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use starling_wire::{DeviceId, Digest, Refusal, Role};

use crate::renewal::RenewalProof;

/// Bytes of the longest record. All fields at their longest take 900, but for a renewal's proof: that takes 331, and those records have few others.
pub const RECORD_BYTES_MAX: usize = 1024;

/// Bytes of the longest word ([`About::word`]).
const WORD_BYTES_MAX: usize = 64;

/// Why a line is no record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Longer than any.
    #[error("the line has {0} bytes and a record at most {RECORD_BYTES_MAX}")]
    Long(usize),
    /// Not the JSON of a record; perhaps one of a later version.
    #[error("the line is no record: {0}")]
    Json(#[from] serde_json::Error),
    /// The same record is written differently.
    #[error("the line is not written as this record is written")]
    Canonical,
    /// A word that is none.
    #[error("{0:?} is no word: expected 1 to {WORD_BYTES_MAX} of a-z, 0-9 and . _ : / -")]
    Word(String),
}

/// Who did it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Who {
    /// The daemon itself.
    System,
    /// A user of the aggregator's machine, over the local socket.
    LocalUser(u32),
    /// The holder of a certificate.
    Certificate(Role, DeviceId),
    /// Somebody without a certificate that counts here.
    Stranger,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Who::System => f.write_str("system"),
            Who::LocalUser(user) => write!(f, "uid:{user}"),
            Who::Certificate(role, id) => write!(f, "{role}:{id}"),
            Who::Stranger => f.write_str("stranger"),
        }
    }
}

impl FromStr for Who {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is nobody: expected system, stranger, uid:N or ROLE:ID");
        match text.split_once(':') {
            None if text == "system" => Ok(Who::System),
            None if text == "stranger" => Ok(Who::Stranger),
            Some(("uid", user)) => user.parse().map(Who::LocalUser).map_err(|_| wrong()),
            Some((role, id)) => {
                let role = Role::from_word(role).ok_or_else(wrong)?;
                Ok(Who::Certificate(role, id.parse().map_err(|_| wrong())?))
            }
            None => Err(wrong()),
        }
    }
}

macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident = $word:literal;)*) => {
        /// What was done. The list is closed; new acts are added at its end, and no word is ever given a second meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Action { $($(#[$doc])* $name),* }

        impl Action {
            /// Every act there is.
            pub const ALL: &[Action] = &[$(Action::$name),*];

            /// Its word in the log.
            pub fn word(self) -> &'static str {
                match self { $(Action::$name => $word),* }
            }
        }
    };
}

actions! {
    /// The log begins, or a key was made for it: `digest` is that of the key's public half in its text form.
    LogOpened = "log-opened";
    /// The daemon has started; `count` is its epoch.
    DaemonStarted = "daemon-started";
    /// The daemon stops on purpose.
    DaemonStopped = "daemon-stopped";
    /// A device connected for the first time on a day (UTC).
    DeviceConnected = "device-connected";
    /// Peers were turned away: `count` of them with this code since `since_unix_ms`.
    PeerTurnedAway = "peer-turned-away";
    /// A run began.
    RunStarted = "run-started";
    /// A run was stopped by its operator.
    RunStopped = "run-stopped";
    /// A run is complete.
    RunFinished = "run-finished";
    /// A run cannot go on.
    RunFailed = "run-failed";
    /// An update may be folded: who sent it is the actor, `digest` that of its bytes.
    UpdateAdmitted = "update-admitted";
    /// An update was not taken.
    UpdateRefused = "update-refused";
    /// An admitted update was taken out of its round again, because the device was thrown out: `digest` says which.
    UpdateWithdrawn = "update-withdrawn";
    /// An attempt at a round was given up; its updates are in no version.
    AttemptAbandoned = "attempt-abandoned";
    /// A version is durable. Its contributors are the updates of the same run, round and attempt that were admitted and not withdrawn.
    VersionCommitted = "version-committed";
    /// A release was published.
    ReleasePublished = "release-published";
    /// An operator asked for something; `word` is the verb.
    AdminRequest = "admin-request";
    /// An invitation to enrol was made.
    InviteIssued = "invite-issued";
    /// A device was let into the fleet; once it has a certificate, `digest` is that of its public key. With `shown`, it was seen using one that was
    /// not issued here.
    DeviceEnrolled = "device-enrolled";
    /// A device was not let into the fleet.
    EnrolmentRefused = "enrolment-refused";
    /// A certificate was issued for an enrolled device's next period or key; `digest` is that of its public key.
    CertificateRenewed = "certificate-renewed";
    /// A device may not take part until further notice.
    DeviceSuspended = "device-suspended";
    /// A suspended device may take part again.
    DeviceResumed = "device-resumed";
    /// A device's certificates count no more.
    DeviceRevoked = "device-revoked";
    /// What was held of a device was destroyed.
    DeviceErased = "device-erased";
    /// A backup was made.
    BackupCreated = "backup-created";
    /// The state was restored from a backup.
    BackupRestored = "backup-restored";
    /// A key was replaced; `word` is its purpose.
    KeyRotated = "key-rotated";
    /// Somebody asked for what its role may not do.
    PermissionDenied = "permission-denied";
    /// A witness has co-signed a checkpoint; `count` is its size.
    CheckpointCosigned = "checkpoint-cosigned";
    /// The log was found damaged at the start; `count` is the number of the first record concerned.
    DamageFound = "damage-found";
    /// An administrator's certificate was issued; `word` is its role.
    CertificateIssued = "certificate-issued";
    /// A device has other tags; `count` is how many.
    DeviceTagged = "device-tagged";
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Action {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Action::ALL.iter().copied().find(|action| action.word() == text);
        found.ok_or_else(|| format!("{text:?} is no act that this version knows"))
    }
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was refused; the code says why.
    Refused,
    /// It could not be done.
    Failed,
}

/// What it was done to. Only what is known is written.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// The run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<u32>,
    /// The round, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round: Option<u32>,
    /// The attempt, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u16>,
    /// The version of the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// The device, where it is not the actor.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_text")]
    pub device: Option<DeviceId>,
    /// The digest of the bytes concerned.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_text")]
    pub digest: Option<Digest>,
    /// The weight (examples), or the sum of weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u64>,
    /// How many updates are in the version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contributors: Option<u32>,
    /// [`contributors_root`](crate::contributors_root) of these updates.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_text")]
    pub contributors_root: Option<Digest>,
    /// How many times, or a number that the act explains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// The start of the interval that `count` counts in, ms since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_unix_ms: Option<u64>,
    /// One word: a verb, a purpose. Never a name of a person or machine: those are [`Personal`](crate::Personal).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub word: Option<String>,
    /// In a renewal: that the key before has signed for the next one.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_text")]
    pub proof: Option<RenewalProof>,
}

/// What is to be recorded; the log gives it its number, its time and its place in the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Who.
    pub who: Who,
    /// The commitment to a personal field of the actor or device.
    pub personal: Option<Digest>,
    /// What.
    pub action: Action,
    /// How it ended.
    pub outcome: Outcome,
    /// The stable code of the refusal; 0 without one.
    pub code: u16,
    /// What it was done to.
    pub about: About,
}

impl Entry {
    /// An act that was done.
    pub fn done(who: Who, action: Action, about: About) -> Self {
        Self { who, personal: None, action, outcome: Outcome::Done, code: 0, about }
    }

    /// An act that was refused.
    pub fn refused(who: Who, action: Action, reason: Refusal, about: About) -> Self {
        Self { who, personal: None, action, outcome: Outcome::Refused, code: reason.code(), about }
    }

    /// An act that could not be done.
    pub fn failed(who: Who, action: Action, about: About) -> Self {
        Self { who, personal: None, action, outcome: Outcome::Failed, code: Refusal::Internal.code(), about }
    }

    /// The same with a commitment to a personal field.
    pub fn with_personal(mut self, commitment: Digest) -> Self {
        self.personal = Some(commitment);
        self
    }
}

/// A record: the fields in the order in which they are written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Its number, from 0: the index of its leaf.
    pub seq: u64,
    /// When, in milliseconds since 1970 by the aggregator's clock.
    pub time_unix_ms: u64,
    /// The leaf hash of the record before; zeros in the first.
    #[serde(with = "text")]
    pub prev: Digest,
    /// Who.
    #[serde(with = "text")]
    pub who: Who,
    /// The commitment to a personal field, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_text")]
    pub personal: Option<Digest>,
    /// What.
    #[serde(with = "text")]
    pub what: Action,
    /// How it ended.
    pub outcome: Outcome,
    /// The stable code of the refusal; 0 without one.
    pub code: u16,
    /// What it was done to.
    pub about: About,
}

impl Record {
    /// The line, without a line's end.
    ///
    /// # Errors
    /// [`RecordError::Word`] when `about.word` is none.
    pub fn encode(&self) -> Result<Vec<u8>, RecordError> {
        if let Some(word) = self.about.word.as_deref().filter(|word| !is_word(word)) {
            return Err(RecordError::Word(word.chars().take(WORD_BYTES_MAX).collect()));
        }
        let line = serde_json::to_vec(self)?;
        if line.len() > RECORD_BYTES_MAX { Err(RecordError::Long(line.len())) } else { Ok(line) }
    }

    /// Reads what [`Record::encode`] writes, and nothing else.
    ///
    /// # Errors
    /// Says what the line is instead.
    pub fn decode(line: &[u8]) -> Result<Self, RecordError> {
        if line.len() > RECORD_BYTES_MAX {
            return Err(RecordError::Long(line.len()));
        }
        let record: Self = serde_json::from_slice(line)?;
        if record.encode()? == line { Ok(record) } else { Err(RecordError::Canonical) }
    }
}

/// Whether `text` may be written as [`About::word`].
pub fn is_word(text: &str) -> bool {
    let fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._:/-".contains(&byte);
    (1..=WORD_BYTES_MAX).contains(&text.len()) && text.bytes().all(fine)
}

/// Values that are written as the text they print.
pub(crate) mod text {
    use super::*;

    pub(crate) fn serialize<T: fmt::Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(crate) fn deserialize<'de, T: FromStr<Err: fmt::Display>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The same, where there may be none.
mod optional_text {
    use super::*;

    pub(super) fn serialize<T: fmt::Display, S: Serializer>(
        value: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => serializer.collect_str(value),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, T: FromStr<Err: fmt::Display>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<T>, D::Error> {
        super::text::deserialize(deserializer).map(Some)
    }
}
