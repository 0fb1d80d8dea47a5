//! A document: a body, kept as the bytes that were signed, and signatures.
//!
//! ```text
//!  0  4  "StTr"
//!  4  1  format version, 1
//!  5  1  kind: 1 root, 2 release, 3 plan, 4 freshness
//!  6  2  signatures
//!  8  4  length of the body
//! 12  …  body
//!     96 each signature: key id 32, Ed25519 64; in the order of key ids, each once
//! ```

use starling_wire::Digest;

use crate::key::{KeyId, PublicKey, SigningKey};
use crate::limits::{BODY_BYTES_MAX, DOCUMENT_BYTES_MAX, PREFIX_BYTES, SIGNATURE_BYTES, SIGNATURES_MAX};
use crate::refused::{Refused, within};
use crate::root::{Quorum, Root};
use crate::statement::{Kind, Statement};
use starling_wire::Reader;

const MAGIC: [u8; 4] = *b"StTr";
const FORMAT: u8 = 1;

/// What every signature is made for: no other message of ours begins like this (invariant 9).
const PURPOSE: &[u8] = b"starling/1 trust statement\0";

/// One signature. That it is there says nothing; a quorum checks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature {
    /// Whose it claims to be.
    pub key: KeyId,
    bytes: [u8; 64],
}

/// A statement with its signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    body: Vec<u8>,
    statement: Statement,
    signatures: Vec<Signature>,
}

impl Document {
    /// An unsigned document.
    ///
    /// # Errors
    /// When a device would refuse the statement: dates, limits, the order of a list.
    pub fn new(statement: Statement) -> Result<Self, Refused> {
        let body = statement.to_body()?;
        within("the body", body.len(), BODY_BYTES_MAX)?;
        Ok(Self { body, statement, signatures: Vec::new() })
    }

    /// Parses all of `bytes`.
    ///
    /// # Errors
    /// [`Refused::TooLarge`] before anything is read; [`Refused::Malformed`] for anything but the one encoding.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refused> {
        let (document, rest) = Self::parse_first(bytes)?;
        if rest.is_empty() { Ok(document) } else { Err(Refused::Malformed("bytes follow its end")) }
    }

    /// Parses the document that `bytes` begin with, and returns what follows it.
    pub(crate) fn parse_first(bytes: &[u8]) -> Result<(Self, &[u8]), Refused> {
        let mut prefix = Reader::new(bytes);
        if prefix.array()? != MAGIC {
            return Err(Refused::Malformed("it does not begin as a trust document"));
        }
        if prefix.u8()? != FORMAT {
            return Err(Refused::Malformed("its format is of a later version; update this program"));
        }
        let kind = Kind::from_number(prefix.u8()?)?;
        let count = usize::from(prefix.u16()?);
        within("the signatures", count, SIGNATURES_MAX)?;
        let length = usize::try_from(prefix.u32()?).unwrap_or(usize::MAX);
        within("the body", length, BODY_BYTES_MAX)?;
        // Both terms are small by now.
        let whole = PREFIX_BYTES + length + count * SIGNATURE_BYTES;
        let (own, rest) = bytes.split_at_checked(whole).ok_or(Refused::Malformed("it ends too early"))?;
        let (body, signed) = own[PREFIX_BYTES..].split_at(length);
        let statement = Statement::read(kind, body)?;
        let mut reader = Reader::new(signed);
        let mut signatures: Vec<Signature> = Vec::new();
        for _ in 0..count {
            let signature = Signature { key: KeyId(reader.digest()?), bytes: reader.array()? };
            if signatures.last().is_some_and(|before| before.key >= signature.key) {
                return Err(Refused::Malformed("its signatures are not in the order of key ids, each once"));
            }
            signatures.push(signature);
        }
        Ok((Self { body: body.to_vec(), statement, signatures }, rest))
    }

    /// The one encoding.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&[FORMAT, self.statement.kind().number()]);
        let count = u16::try_from(self.signatures.len()).expect("at most SIGNATURES_MAX");
        out.extend_from_slice(&count.to_le_bytes());
        out.extend_from_slice(&u32::try_from(self.body.len()).expect("at most BODY_BYTES_MAX").to_le_bytes());
        out.extend_from_slice(&self.body);
        for signature in &self.signatures {
            out.extend_from_slice(&signature.key.0.0);
            out.extend_from_slice(&signature.bytes);
        }
        debug_assert!(out.len() <= DOCUMENT_BYTES_MAX, "both lists are limited");
        out
    }

    /// What it states. Whether to believe it is another question.
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// The digest of its body, by which a freshness statement names it. Signatures are no part of it.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.body)
    }

    /// Its signatures, unchecked.
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// Signs it, or signs it again.
    ///
    /// # Errors
    /// [`Refused::TooLarge`] when it has [`SIGNATURES_MAX`] others.
    pub fn sign(&mut self, key: &SigningKey) -> Result<(), Refused> {
        let bytes = key.sign(&self.message());
        self.add(Signature { key: key.public().id(), bytes })
    }

    /// Takes over the signatures that `other`, a copy of the same statement, has gathered elsewhere.
    ///
    /// # Errors
    /// When it is another statement.
    pub fn merge(&mut self, other: &Document) -> Result<(), Refused> {
        if self.statement.kind() != other.statement.kind() || self.body != other.body {
            return Err(Refused::Malformed("the two files are not the same statement; sign copies of one file"));
        }
        other.signatures.iter().try_for_each(|signature| self.add(*signature))
    }

    fn add(&mut self, signature: Signature) -> Result<(), Refused> {
        match self.signatures.binary_search_by_key(&signature.key, |present| present.key) {
            Ok(index) => self.signatures[index] = signature,
            Err(index) => {
                within("the signatures", self.signatures.len() + 1, SIGNATURES_MAX)?;
                self.signatures.insert(index, signature);
            }
        }
        Ok(())
    }

    /// How many keys of `quorum` have signed. A signature by a key that does not count here is passed over: it may count
    /// under another root.
    ///
    /// # Errors
    /// [`Refused::WrongSignature`] when a key that counts has a signature that is not its own.
    pub fn signers(&self, root: &Root, quorum: Quorum) -> Result<usize, Refused> {
        let message = self.message();
        let mut have = 0;
        for member in root.members(quorum) {
            let id = member.id();
            let Ok(index) = self.signatures.binary_search_by_key(&id, |present| present.key) else { continue };
            if !member.verifies(&message, &self.signatures[index].bytes) {
                return Err(Refused::WrongSignature(id));
            }
            have += 1;
        }
        Ok(have)
    }

    /// Whether `key` has signed, whatever any root says of it.
    pub fn is_signed_by(&self, key: &PublicKey) -> bool {
        let index = self.signatures.binary_search_by_key(&key.id(), |present| present.key);
        index.is_ok_and(|index| key.verifies(&self.message(), &self.signatures[index].bytes))
    }

    /// Whether enough keys of `quorum` have signed.
    ///
    /// # Errors
    /// [`Refused::TooFewSignatures`], [`Refused::WrongSignature`].
    pub fn check(&self, root: &Root, quorum: Quorum) -> Result<(), Refused> {
        let (have, need) = (self.signers(root, quorum)?, quorum.threshold());
        if have >= need { Ok(()) } else { Err(Refused::TooFewSignatures { have, need }) }
    }

    /// What is signed: purpose, format, kind, and the body, which begins with version, dates and origin.
    fn message(&self) -> Vec<u8> {
        [PURPOSE, &[FORMAT, self.statement.kind().number()], &self.body].concat()
    }
}
