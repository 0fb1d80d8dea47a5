//! The trusted state as bytes, for the device's own store.
//!
//! The store vouches for them (durability, and secrecy where it is sealed); they are parsed as strictly as a peer's, so that a
//! torn record is refused and never half believed.

use std::collections::BTreeMap;

use starling_wire::Digest;

use super::{Trusted, as_root, check_origin_of_root, wrong_kind};
use crate::document::Document;
use crate::encoding::{put_count, put_name, read_count, read_name};
use crate::limits::{DOCUMENT_BYTES_MAX, REMEMBERED_MAX, TRUSTED_BYTES_MAX};
use crate::refused::{Refused, within};
use crate::statement::{Kind, Named, Statement, Subject};
use starling_wire::Reader;

const MAGIC: [u8; 8] = *b"StTrust1";

impl Trusted {
    /// The bytes to store.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&self.origin.0);
        out.extend_from_slice(&self.floor_unix_s.to_le_bytes());
        put_document(&mut out, Some(&self.root.0));
        put_document(&mut out, self.current.as_ref().map(|(document, _)| document));
        put_count(&mut out, self.seen.len());
        for ((subject, task), named) in &self.seen {
            put_key(&mut out, *subject, task);
            out.extend_from_slice(&named.version.to_le_bytes());
            out.extend_from_slice(&named.digest.0);
        }
        put_count(&mut out, self.held.len());
        for ((subject, task), (version, length, digest)) in &self.held {
            put_key(&mut out, *subject, task);
            out.extend_from_slice(&version.to_le_bytes());
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(&digest.0);
        }
        out
    }

    /// Reads what [`Trusted::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`Refused::TooLarge`], [`Refused::Malformed`]: the record is torn, or of a later version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Refused> {
        within("the trusted state", bytes.len(), TRUSTED_BYTES_MAX)?;
        let mut reader = Reader::new(bytes);
        if reader.array()? != MAGIC {
            return Err(Refused::Malformed("it is no trusted state of this version"));
        }
        let (origin, floor_unix_s) = (reader.digest()?, reader.u64()?);
        let document = read_document(&mut reader)?.ok_or(Refused::Malformed("it has no root"))?;
        let root = as_root(&document)?.clone();
        document.check(&root, root.root_quorum())?;
        check_origin_of_root(&root, origin)?;
        if root.head().version == 1 && document.digest() != origin {
            return Err(Refused::OtherOrigin);
        }
        let current = match read_document(&mut reader)? {
            None => None,
            Some(document) => match document.statement() {
                Statement::Current(current) => Some((document.clone(), current.clone())),
                _ => return Err(wrong_kind(Kind::Current, &document)),
            },
        };
        let seen = read_map(&mut reader, |reader| Ok(Named { version: reader.u64()?, digest: reader.digest()? }))?;
        let held = read_map(&mut reader, |reader| {
            Ok::<(u64, u64, Digest), Refused>((reader.u64()?, reader.u64()?, reader.digest()?))
        })?;
        reader.end()?;
        Ok(Self { origin, root: (document, root), current, floor_unix_s, seen, held })
    }
}

fn put_document(out: &mut Vec<u8>, document: Option<&Document>) {
    let bytes = document.map(Document::to_bytes).unwrap_or_default();
    out.extend_from_slice(&u32::try_from(bytes.len()).expect("at most DOCUMENT_BYTES_MAX").to_le_bytes());
    out.extend_from_slice(&bytes);
}

fn read_document(reader: &mut Reader<'_>) -> Result<Option<Document>, Refused> {
    let length = usize::try_from(reader.u32()?).unwrap_or(usize::MAX);
    within("a document", length, DOCUMENT_BYTES_MAX)?;
    if length == 0 { Ok(None) } else { Document::parse(reader.bytes(length)?).map(Some) }
}

fn put_key(out: &mut Vec<u8>, subject: Subject, task: &str) {
    out.push(subject.kind().number());
    put_name(out, task);
}

fn read_map<T>(
    reader: &mut Reader<'_>,
    mut value: impl FnMut(&mut Reader<'_>) -> Result<T, Refused>,
) -> Result<BTreeMap<(Subject, String), T>, Refused> {
    let count = read_count(reader, "the remembered artefacts", REMEMBERED_MAX)?;
    let mut map: BTreeMap<(Subject, String), T> = BTreeMap::new();
    for _ in 0..count {
        let subject = match Kind::from_number(reader.u8()?)? {
            Kind::Release => Subject::Release,
            Kind::Plan => Subject::Plan,
            _ => return Err(Refused::Malformed("it remembers something that is no artefact")),
        };
        let key = (subject, read_name(reader)?);
        if map.last_key_value().is_some_and(|(before, _)| *before >= key) {
            return Err(Refused::Malformed("its artefacts are not in order, each once"));
        }
        map.insert(key, value(reader)?);
    }
    Ok(map)
}
