//! Certificates of erasure: what was destroyed of a device, what still carries its influence, and from when on nobody can undo it.
//!
//! A certificate is a signed note ([`crate::note`]) of the log's own key. Its text is a line that no checkpoint begins with, then JSON:
//!
//! ```text
//! starling-erasure/1
//! { "device": "…32 hex…", "erased_unix_s": …, … }
//!
//! — starling-audit/00…0d c2lnbm…
//! ```
//!
//! It names the device by its id alone, a random number that means nothing once what it stood for is gone.

use serde::{Deserialize, Serialize};
use starling_wire::{DeviceId, Digest};

use crate::note::{Note, NoteError, SigningKey, VerifierKey};
use crate::record::text;

/// The first line: a certificate is never taken for another text that the key signs.
const HEADER: &str = "starling-erasure/1\n";

/// Bytes of the longest certificate: 32 runs with [`RANGES_MAX`] ranges of rounds each, and a thousand releases.
pub const CERTIFICATE_BYTES_MAX: usize = 1 << 20;

/// Ranges of rounds that one run's line names; further ones are merged with the last, so that it says too much rather than too little.
pub const RANGES_MAX: usize = 1024;

/// Why a text is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum ErasureError {
    /// Not the text of one.
    #[error("this is no certificate of erasure: expected the line {:?}, then JSON", HEADER.trim_end())]
    Form,
    /// JSON of something else, or of a later version.
    #[error("the certificate's JSON")]
    Json(#[from] serde_json::Error),
    /// The note around it.
    #[error(transparent)]
    Note(#[from] NoteError),
}

/// What was destroyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Destroyed {
    /// Whether there was a data key; not where a crash came between its end and this certificate.
    pub key: bool,
    /// Records that it sealed.
    pub records: u64,
    /// Blobs that it sealed.
    pub blobs: u64,
    /// Fields behind the audit log's commitments that named the device before it was known.
    pub strangers_fields: u64,
}

/// A run whose model learnt from the device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunInfluence {
    /// The run.
    pub run: u32,
    /// The rounds whose committed version has an update of the device in it: `1-7,9`.
    pub rounds: String,
    /// How many those are.
    pub rounds_count: u64,
    /// The first version with an update of the device in it. Every later one of the run was made from it.
    pub version_first: u64,
    /// The newest version of the run.
    pub version_last: u64,
    /// Its digest.
    #[serde(with = "text")]
    pub version_last_digest: Digest,
    /// The run that takes this one's place without the device, where unlearning was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unlearned: Option<Unlearned>,
}

/// The run that learns anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unlearned {
    /// Its number.
    pub run: u32,
    /// The version that it began from, which no update of the device had gone into.
    pub version: u64,
}

/// A release that may have learnt from the device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseInfluence {
    /// Its version among the releases of its task.
    pub version: u64,
    /// The digest of its file.
    #[serde(with = "text")]
    pub digest: Digest,
    /// Whether devices are offered it still.
    pub offered: bool,
}

/// A certificate of erasure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// Whose data were erased.
    #[serde(with = "text")]
    pub device: DeviceId,
    /// When its data key was destroyed.
    pub erased_unix_s: u64,
    /// When the last escrow copy expires that can hold the key: from then on the erasure is final.
    pub final_unix_s: u64,
    /// How: the data key and its wraps were destroyed (NIST SP 800-88, cryptographic erase).
    pub method: String,
    /// The file system of the state folder, as far as it is known.
    pub file_system: String,
    /// What was destroyed.
    pub destroyed: Destroyed,
    /// Models that carry what the device has contributed. It cannot be subtracted: later updates were computed from them.
    pub runs: Vec<RunInfluence>,
    /// Releases of the same tasks that were published after the device's first contribution.
    pub releases: Vec<ReleaseInfluence>,
    /// Records of the audit log that were searched for contributions.
    pub log_records: u64,
    /// Parts of the log that could not be read: contributions in them are not listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<String>,
    /// What stays on purpose.
    pub kept: Vec<String>,
    /// What this does not reach.
    pub not_reached: Vec<String>,
}

impl Certificate {
    /// The certificate, signed.
    ///
    /// # Panics
    /// If `key` is a witness's.
    pub fn sign(&self, key: &SigningKey) -> Note {
        let json = serde_json::to_string_pretty(self).expect("it holds numbers and texts only");
        key.sign(&format!("{HEADER}{json}\n"))
    }

    /// Reads a certificate that one of `keys` has signed.
    ///
    /// # Errors
    /// [`ErasureError`]; for a signature, what the last of the keys found.
    pub fn verified(note: &str, keys: &[VerifierKey]) -> Result<Self, ErasureError> {
        let note = Note::parse_within(note, CERTIFICATE_BYTES_MAX)?;
        let json = note.text().strip_prefix(HEADER).ok_or(ErasureError::Form)?;
        let mut signed = Err(NoteError::Form);
        for key in keys {
            signed = note.verify(key);
            if signed.is_ok() {
                break;
            }
        }
        signed?;
        Ok(serde_json::from_str(json)?)
    }
}

/// Rounds in ascending order as `1-7,9`.
pub fn ranges(rounds: impl IntoIterator<Item = u32>) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for round in rounds {
        let full = ranges.len() >= RANGES_MAX;
        match ranges.last_mut() {
            Some((_, last)) if full || *last + 1 >= round => *last = (*last).max(round),
            _ => ranges.push((round, round)),
        }
    }
    let range = |(first, last): &(u32, u32)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    ranges.iter().map(range).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::note::Algorithm;
    use crate::{Checkpoint, CheckpointError};

    fn certificate() -> Certificate {
        let run = RunInfluence {
            run: 3,
            rounds: ranges([1, 2, 3, 7]),
            rounds_count: 4,
            version_first: 1,
            version_last: 9,
            version_last_digest: Digest([4; 32]),
            unlearned: Some(Unlearned { run: 4, version: 0 }),
        };
        Certificate {
            device: DeviceId([7; 16]),
            erased_unix_s: 1_000,
            final_unix_s: 605_800,
            method: "the data key was destroyed".into(),
            file_system: "ext4".into(),
            destroyed: Destroyed { key: true, records: 4, blobs: 0, strangers_fields: 1 },
            runs: vec![run],
            releases: vec![ReleaseInfluence { version: 2, digest: Digest([5; 32]), offered: true }],
            log_records: 100,
            unreadable: Vec::new(),
            kept: vec!["the id".into()],
            not_reached: Vec::new(),
        }
    }

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed("starling-audit/7", Algorithm::Log, Zeroizing::new([seed; 32])).expect("a key")
    }

    #[test]
    fn a_certificate_is_read_back_and_any_change_or_other_key_is_refused() {
        let keys = [key(2).verifier().clone(), key(1).verifier().clone()];
        let note = certificate().sign(&key(1)).to_string();
        assert_eq!(Certificate::verified(&note, &keys).expect("signed"), certificate());
        let refused = Certificate::verified(&note, &keys[..1]).expect_err("another key");
        assert!(matches!(refused, ErasureError::Note(NoteError::Unsigned(_))), "{refused}");
        assert!(Certificate::verified(&note, &[]).is_err());
        let signed = note.rfind("\n\n").expect("a blank line");
        for at in 0..signed {
            let mut bytes = note.clone().into_bytes();
            bytes[at] ^= 1;
            let Ok(changed) = String::from_utf8(bytes) else { continue };
            assert!(Certificate::verified(&changed, &keys).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_certificate_is_no_checkpoint_and_a_checkpoint_no_certificate() {
        let key = key(1);
        let note = certificate().sign(&key);
        assert!(matches!(Checkpoint::verified(&note, key.verifier()), Err(CheckpointError::Text)));
        let checkpoint = Checkpoint { origin: key.verifier().name().into(), size: 1, root: Digest([0; 32]) };
        let signed = key.sign(&checkpoint.to_string()).to_string();
        let refused = Certificate::verified(&signed, &[key.verifier().clone()]);
        assert!(matches!(refused, Err(ErasureError::Form)));
    }

    #[test]
    fn rounds_are_written_as_ranges_and_too_many_say_more_and_not_less() {
        assert_eq!(ranges([]), "");
        assert_eq!(ranges([3]), "3");
        assert_eq!(ranges([1, 2, 3, 5, 7, 8]), "1-3,5,7-8");
        let many = ranges((0..10_000).map(|index| 2 * index));
        assert_eq!(many.split(',').count(), RANGES_MAX);
        assert!(many.ends_with("-19998"), "the last one reaches to the end");
    }
}
