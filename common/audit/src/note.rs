//! Signed notes, as C2SP `signed-note` and `tlog-cosignature` define them: a text, a blank line, and lines of signatures.
//!
//! ```text
//! starling-audit/00…0d              the text: for a checkpoint, origin, size and root
//! 42
//! q83vEjRW…=
//!                                   a blank line
//! — starling-audit/00…0d c2lnbm…    name of the key, base64(key id ‖ signature)
//! — witness.example d2l0bm…         name of a witness, base64(key id ‖ seconds since 1970 ‖ signature)
//! ```
//!
//! A key's id is the first four bytes of `SHA-256(name ‖ "\n" ‖ algorithm ‖ public key)`. The log signs the text itself (algorithm 1);
//! a witness signs it with the time at which it saw it (algorithm 4). Both are Ed25519.

use std::fmt;
use std::str::FromStr;

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use starling_wire::Digest;
use zeroize::Zeroizing;

use crate::base64;

/// Bytes of the longest note: a checkpoint and [`SIGNATURES_MAX`] signatures of keys with long names.
pub const NOTE_BYTES_MAX: usize = 16 * 1024;

/// Signatures under one note: the log's, and one a witness.
pub const SIGNATURES_MAX: usize = 32;

/// Bytes of a key's name.
const NAME_BYTES_MAX: usize = 128;

const SIGNATURE_BYTES: usize = 64;
const TIME_BYTES: usize = 8;
const KEY_BYTES: usize = 32;

/// A key that cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyError {
    /// A name that notes cannot carry.
    #[error("{0:?} is no name of a key: expected 1 to {NAME_BYTES_MAX} printable characters without blank and `+`")]
    Name(String),
    /// Not the text of a key.
    #[error("the key is not written as NAME+ID+KEY (a private one as PRIVATE+KEY+NAME+ID+KEY)")]
    Text,
    /// The id is not the key's.
    #[error("the key's id does not belong to its name and bytes: it was copied wrongly")]
    Id,
}

/// A note that cannot be read, or does not bear a signature.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NoteError {
    /// Longer than any.
    #[error("the note has {bytes} bytes, expected at most {bytes_max}")]
    Long {
        /// How long it is.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// Not a text with signatures below.
    #[error("the note is not a text, a blank line and 1 to {SIGNATURES_MAX} lines of signatures")]
    Form,
    /// No signature of that key.
    #[error("the note bears no signature of {0}")]
    Unsigned(String),
    /// A signature that does not hold.
    #[error("the signature of {0} does not hold: the text was changed, or another key made it")]
    Signature(String),
}

/// How a key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// The text as it is: the log's key.
    Log,
    /// The text and the time: a witness's key.
    Witness,
}

impl Algorithm {
    fn byte(self) -> u8 {
        match self {
            Algorithm::Log => 1,
            Algorithm::Witness => 4,
        }
    }

    fn of(byte: u8) -> Option<Self> {
        [Algorithm::Log, Algorithm::Witness].into_iter().find(|algorithm| algorithm.byte() == byte)
    }
}

/// The public half of a key, by which signatures are checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    algorithm: Algorithm,
    public: [u8; KEY_BYTES],
}

impl VerifierKey {
    fn new(name: &str, algorithm: Algorithm, public: [u8; KEY_BYTES]) -> Result<Self, KeyError> {
        if is_name(name) {
            Ok(Self { name: name.to_owned(), algorithm, public })
        } else {
            Err(KeyError::Name(name.chars().take(NAME_BYTES_MAX).collect()))
        }
    }

    /// The key's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it signs.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The key's id.
    pub fn id(&self) -> [u8; 4] {
        let whole = Digest::of_parts(&[self.name.as_bytes(), b"\n", &[self.algorithm.byte()], &self.public]);
        let mut id = [0; 4];
        id.copy_from_slice(&whole.0[..4]);
        id
    }

    fn holds(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.public).verify(message, signature).is_ok()
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = [&[self.algorithm.byte()], &self.public[..]].concat();
        write!(f, "{}+{:08x}+{}", self.name, u32::from_be_bytes(self.id()), base64::encode(&key))
    }
}

impl FromStr for VerifierKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (name, id, algorithm, key) = parts(text)?;
        let key = Self::new(name, algorithm, *key)?;
        if format!("{:08x}", u32::from_be_bytes(key.id())) == id { Ok(key) } else { Err(KeyError::Id) }
    }
}

/// A private key. It is not `Debug`, and its seed is wiped on drop (invariant 10).
pub struct SigningKey {
    seed: Zeroizing<[u8; KEY_BYTES]>,
    pair: Ed25519KeyPair,
    verifier: VerifierKey,
}

impl SigningKey {
    /// The key of a seed: 32 bytes of the system's entropy, which the caller draws.
    ///
    /// # Errors
    /// [`KeyError::Name`].
    pub fn from_seed(name: &str, algorithm: Algorithm, seed: Zeroizing<[u8; KEY_BYTES]>) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_ref()).expect("a seed of 32 bytes is a key");
        let mut public = [0; KEY_BYTES];
        public.copy_from_slice(pair.public_key().as_ref());
        let verifier = VerifierKey::new(name, algorithm, public)?;
        Ok(Self { seed, pair, verifier })
    }

    /// The public half.
    pub fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    /// The key as a line of text, for a file that only its owner reads.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut key = Zeroizing::new(Vec::with_capacity(1 + KEY_BYTES));
        key.push(self.verifier.algorithm.byte());
        key.extend_from_slice(self.seed.as_ref());
        let (name, id) = (&self.verifier.name, u32::from_be_bytes(self.verifier.id()));
        let key = Zeroizing::new(base64::encode(&key));
        Zeroizing::new(format!("PRIVATE+KEY+{name}+{id:08x}+{}", key.as_str()))
    }

    /// Reads what [`SigningKey::to_text`] writes.
    ///
    /// # Errors
    /// Says what is wrong, and nothing of the key.
    pub fn from_text(text: &str) -> Result<Self, KeyError> {
        let rest = text.trim().strip_prefix("PRIVATE+KEY+").ok_or(KeyError::Text)?;
        let (name, id, algorithm, seed) = parts(rest)?;
        let key = Self::from_seed(name, algorithm, seed)?;
        if format!("{:08x}", u32::from_be_bytes(key.verifier.id())) == id { Ok(key) } else { Err(KeyError::Id) }
    }

    /// Signs `text` as the log does, and makes a note of it.
    ///
    /// # Panics
    /// If the key is a witness's, or `text` does not end in a line's end: the caller made both.
    pub fn sign(&self, text: &str) -> Note {
        assert_eq!(self.verifier.algorithm, Algorithm::Log, "a witness co-signs");
        assert!(text.ends_with('\n'), "a note's text ends with its last line");
        let signature = self.pair.sign(text.as_bytes()).as_ref().to_vec();
        Note { text: text.to_owned(), signatures: vec![self.line(signature)] }
    }

    /// Adds a witness's signature, which says that the note was seen at `time_unix_s`. An older one of the same key is replaced.
    ///
    /// # Errors
    /// [`NoteError::Form`] when the note can bear no further signature.
    ///
    /// # Panics
    /// If the key is a log's.
    pub fn cosign(&self, note: &mut Note, time_unix_s: u64) -> Result<(), NoteError> {
        assert_eq!(self.verifier.algorithm, Algorithm::Witness, "a log's key does not witness");
        let signature = self.pair.sign(&witnessed(time_unix_s, &note.text));
        let line = self.line([&time_unix_s.to_be_bytes()[..], signature.as_ref()].concat());
        note.add(line)
    }

    fn line(&self, signature: Vec<u8>) -> Signature {
        Signature { name: self.verifier.name.clone(), id: self.verifier.id(), bytes: signature }
    }
}

/// One line below a note.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Signature {
    name: String,
    id: [u8; 4],
    bytes: Vec<u8>,
}

/// A text and who has signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<Signature>,
}

impl Note {
    /// The text, with its last line's end. Nothing is known of it before [`Note::verify`].
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The names of those who claim to have signed.
    pub fn signers(&self) -> impl Iterator<Item = &str> {
        self.signatures.iter().map(|signature| signature.name.as_str())
    }

    /// Name and key id of those who claim to have signed: two keys may have one name.
    pub fn signatures(&self) -> impl Iterator<Item = (&str, [u8; 4])> {
        self.signatures.iter().map(|signature| (signature.name.as_str(), signature.id))
    }

    /// Reads a note.
    ///
    /// # Errors
    /// [`NoteError::Long`] over [`NOTE_BYTES_MAX`], [`NoteError::Form`].
    pub fn parse(note: &str) -> Result<Self, NoteError> {
        Self::parse_within(note, NOTE_BYTES_MAX)
    }

    /// The same for a note of another kind, which may be longer.
    pub(crate) fn parse_within(note: &str, bytes_max: usize) -> Result<Self, NoteError> {
        if note.len() > bytes_max {
            return Err(NoteError::Long { bytes: note.len(), bytes_max });
        }
        let cut = note.rfind("\n\n").ok_or(NoteError::Form)?;
        let (text, below) = (&note[..=cut], &note[cut + 2..]);
        let below = below.strip_suffix('\n').ok_or(NoteError::Form)?;
        let signatures = below.split('\n').map(|line| {
            let (name, base) = line.strip_prefix("— ")?.split_once(' ')?;
            let bytes = base64::decode(base)?;
            let (id, signature) = bytes.split_first_chunk::<4>()?;
            is_name(name).then(|| Signature { name: name.to_owned(), id: *id, bytes: signature.to_vec() })
        });
        let signatures: Vec<_> = signatures.collect::<Option<_>>().ok_or(NoteError::Form)?;
        if signatures.len() > SIGNATURES_MAX {
            return Err(NoteError::Form);
        }
        Ok(Self { text: text.to_owned(), signatures })
    }

    /// Checks the signature of `key`. A witness's says when it was made, in seconds since 1970; signatures of other keys count for nothing.
    ///
    /// # Errors
    /// [`NoteError::Unsigned`], [`NoteError::Signature`].
    pub fn verify(&self, key: &VerifierKey) -> Result<Option<u64>, NoteError> {
        let id = key.id();
        let mut found = self.signatures.iter().filter(|line| line.name == key.name && line.id == id);
        let line = found.next().ok_or_else(|| NoteError::Unsigned(key.name.clone()))?;
        let wrong = || NoteError::Signature(key.name.clone());
        match key.algorithm {
            Algorithm::Log if line.bytes.len() == SIGNATURE_BYTES => {
                key.holds(self.text.as_bytes(), &line.bytes).then_some(None).ok_or_else(wrong)
            }
            Algorithm::Witness if line.bytes.len() == TIME_BYTES + SIGNATURE_BYTES => {
                let (time, signature) = line.bytes.split_first_chunk::<TIME_BYTES>().ok_or_else(wrong)?;
                let time = u64::from_be_bytes(*time);
                key.holds(&witnessed(time, &self.text), signature).then_some(Some(time)).ok_or_else(wrong)
            }
            _ => Err(wrong()),
        }
    }

    /// Takes the signatures of another note over the same text.
    ///
    /// # Errors
    /// [`NoteError::Form`] when the text differs or there would be too many.
    pub fn merge(&mut self, other: Note) -> Result<(), NoteError> {
        if other.text != self.text {
            return Err(NoteError::Form);
        }
        other.signatures.into_iter().try_for_each(|signature| self.add(signature))
    }

    fn add(&mut self, signature: Signature) -> Result<(), NoteError> {
        let known = self.signatures.iter().position(|line| line.name == signature.name && line.id == signature.id);
        match known {
            Some(place) => self.signatures[place] = signature,
            None if self.signatures.len() < SIGNATURES_MAX => self.signatures.push(signature),
            None => return Err(NoteError::Form),
        }
        Ok(())
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|line| {
            writeln!(f, "— {} {}", line.name, base64::encode(&[&line.id[..], &line.bytes].concat()))
        })
    }
}

/// What a witness signs.
fn witnessed(time_unix_s: u64, text: &str) -> Vec<u8> {
    format!("cosignature/v1\ntime {time_unix_s}\n{text}").into_bytes()
}

fn is_name(name: &str) -> bool {
    let fine = |character: char| !character.is_whitespace() && !character.is_control() && character != '+';
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(fine)
}

/// Name, id, algorithm and bytes of a key.
type Parts<'a> = (&'a str, &'a str, Algorithm, Zeroizing<[u8; KEY_BYTES]>);

/// Takes a key's text apart.
fn parts(text: &str) -> Result<Parts<'_>, KeyError> {
    let mut parts = text.trim().splitn(3, '+');
    let (Some(name), Some(id), Some(base)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(KeyError::Text);
    };
    let bytes = Zeroizing::new(base64::decode(base).ok_or(KeyError::Text)?);
    let (algorithm, rest) = bytes.split_first().ok_or(KeyError::Text)?;
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    if rest.len() != KEY_BYTES {
        return Err(KeyError::Text);
    }
    key.copy_from_slice(rest);
    Ok((name, id, Algorithm::of(*algorithm).ok_or(KeyError::Text)?, key))
}
