//! Names of things: devices, tasks, runs, rounds, digests, roles.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A text that is not the id it was read as.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("expected {expected} hexadecimal digits, got {got:?}")]
pub struct ParseIdError {
    expected: usize,
    got: String,
}

macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; $bytes]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let wrong = || ParseIdError { expected: $bytes * 2, got: text.chars().take(80).collect() };
                if text.len() != $bytes * 2 || !text.is_ascii() {
                    return Err(wrong());
                }
                let mut id = [0u8; $bytes];
                for (index, byte) in id.iter_mut().enumerate() {
                    *byte = u8::from_str_radix(&text[index * 2..index * 2 + 2], 16).map_err(|_| wrong())?;
                }
                Ok(Self(id))
            }
        }
    };
}

byte_id!(
    /// One enrolled machine. Its certificate vouches for it, and it survives a new key.
    DeviceId,
    16
);
byte_id!(
    /// What is learnt: the first half of the digest of the task's plan.
    TaskId,
    16
);
byte_id!(
    /// SHA-256 of a blob's bytes.
    Digest,
    32
);

impl Digest {
    /// The SHA-256 of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_ring(&ring::digest::digest(&ring::digest::SHA256, bytes))
    }

    /// The SHA-256 of all `parts`, one after the other.
    pub fn of_parts(parts: &[&[u8]]) -> Self {
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        parts.iter().for_each(|part| context.update(part));
        Self::from_ring(&context.finish())
    }

    /// The same digest as ring computed it, for callers that hash as the bytes arrive.
    pub fn from_ring(digest: &ring::digest::Digest) -> Self {
        let mut bytes = [0u8; 32];
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }
}

impl DeviceId {
    /// The id of the `index`-th device of a seeded world: `simulate` and `demo` name their devices alike, so that a
    /// seed draws the same cohorts in both.
    pub fn seeded(seed: u64, index: u32) -> Self {
        let mut text = b"starling/device/".to_vec();
        text.extend_from_slice(&seed.to_le_bytes());
        text.extend_from_slice(&index.to_le_bytes());
        let mut id = [0u8; 16];
        id.copy_from_slice(&Digest::of(&text).0[..16]);
        Self(id)
    }
}

/// One execution of a task. Ids only increase on an aggregator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RunId(pub u32);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a frame or a blob is about. A round that has to be tried again keeps its number and takes the next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Address {
    /// The task that the run executes.
    pub task: TaskId,
    /// The run.
    pub run: RunId,
    /// The round of the run, from 1.
    pub round: u32,
    /// The attempt at the round, from 1.
    pub attempt: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "run {} round {}", self.run, self.round)?;
        if self.attempt > 1 {
            write!(f, " attempt {}", self.attempt)?;
        }
        Ok(())
    }
}

/// What a certificate entitles its holder to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Role {
    /// Trains and infers.
    Device,
    /// Coordinates rounds.
    Aggregator,
    /// Administers an aggregator.
    Operator,
    /// Signs and releases models.
    Publisher,
    /// Reads, and changes nothing.
    Auditor,
}

impl Role {
    /// Every role there is.
    pub const ALL: &[Role] = &[Role::Device, Role::Aggregator, Role::Operator, Role::Publisher, Role::Auditor];

    /// The word that certificates, configurations and logs use.
    pub fn word(self) -> &'static str {
        match self {
            Role::Device => "device",
            Role::Aggregator => "aggregator",
            Role::Operator => "operator",
            Role::Publisher => "publisher",
            Role::Auditor => "auditor",
        }
    }

    /// The role that `word` names.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|role| role.word() == word)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Who holds a certificate, as the certificate says it (invariant 9).
///
/// In X.509: a URI in the subject alternative name, `starling://<role>/<id>`, and the name as the common name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The stable id.
    pub id: DeviceId,
    /// The role.
    pub role: Role,
    /// The name that people use for it.
    pub name: String,
}

impl Identity {
    /// The URI of the subject alternative name.
    pub fn uri(&self) -> String {
        format!("starling://{}/{}", self.role, self.id)
    }

    /// The role and id of a URI that [`Identity::uri`] wrote.
    pub fn parse_uri(uri: &str) -> Option<(Role, DeviceId)> {
        let (role, id) = uri.strip_prefix("starling://")?.split_once('/')?;
        Some((Role::from_word(role)?, id.parse().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_what_it_writes() {
        let id = DeviceId::seeded(7, 3);
        assert_eq!(id.to_string().parse::<DeviceId>(), Ok(id));
    }

    #[test]
    fn an_id_of_the_wrong_length_says_what_was_expected() {
        let error = "abc".parse::<DeviceId>().expect_err("too short");
        assert_eq!(error.to_string(), "expected 32 hexadecimal digits, got \"abc\"");
    }

    #[test]
    fn an_identity_uri_reads_what_it_writes() {
        let identity = Identity { id: DeviceId::seeded(1, 2), role: Role::Device, name: "pump-4".into() };
        assert_eq!(Identity::parse_uri(&identity.uri()), Some((Role::Device, identity.id)));
        assert_eq!(Identity::parse_uri("starling://emperor/00"), None);
    }

    #[test]
    fn a_digest_is_sha256() {
        // FIPS 180-4, the vector for "abc".
        assert_eq!(Digest::of(b"abc").to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
