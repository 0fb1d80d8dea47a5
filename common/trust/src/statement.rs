//! What can be stated: a root, an artefact (release or plan), and what is current. Each is the body of a document.

use starling_wire::Digest;

use crate::encoding::{check_name, put_count, put_name, read_count, read_name};
use crate::limits::{ARTEFACT_BYTES_MAX, TASKS_MAX};
use crate::refused::{Refused, within};
use crate::root::Root;
use starling_wire::Reader;

/// The kinds of documents. The number is part of what is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Keys, thresholds, rules.
    Root,
    /// A release that a device may run.
    Release,
    /// A plan that a device may train.
    Plan,
    /// What is newest.
    Current,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::Root, Kind::Release, Kind::Plan, Kind::Current];

    /// Its number in the encoding.
    pub(crate) fn number(self) -> u8 {
        match self {
            Kind::Root => 1,
            Kind::Release => 2,
            Kind::Plan => 3,
            Kind::Current => 4,
        }
    }

    pub(crate) fn from_number(number: u8) -> Result<Self, Refused> {
        Self::ALL.into_iter().find(|kind| kind.number() == number).ok_or(Refused::Malformed("its kind is unknown"))
    }

    /// The word of messages.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Root => "root",
            Kind::Release => "release",
            Kind::Plan => "plan",
            Kind::Current => "freshness",
        }
    }
}

/// How every body begins, 56 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Only ever increases: of the root, of the freshness statement, or of one task's releases or plans. From 1.
    pub version: u64,
    /// When it was made, seconds since 1970: once believed, a device takes no earlier time for the present.
    pub issued_unix_s: u64,
    /// From this second on it is not taken in any more.
    pub expires_unix_s: u64,
    /// The digest of the body of the fleet's first root, so that a key that serves two fleets confuses none; zeros in
    /// that root itself.
    pub origin: Digest,
}

impl Head {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Refused> {
        let (version, issued_unix_s, expires_unix_s) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let head = Self { version, issued_unix_s, expires_unix_s, origin: reader.digest()? };
        head.check()?;
        Ok(head)
    }

    pub(crate) fn check(&self) -> Result<(), Refused> {
        if self.version == 0 {
            return Err(Refused::Malformed("its version is 0, expected 1 or more"));
        }
        if self.expires_unix_s <= self.issued_unix_s {
            return Err(Refused::Malformed("it expires before it was issued"));
        }
        Ok(())
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        for number in [self.version, self.issued_unix_s, self.expires_unix_s] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.origin.0);
    }
}

/// Which of a task's two artefacts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// The model that devices run.
    Release,
    /// The plan that devices train by.
    Plan,
}

impl Subject {
    /// The kind of the statements about it.
    pub fn kind(self) -> Kind {
        match self {
            Subject::Release => Kind::Release,
            Subject::Plan => Kind::Plan,
        }
    }
}

/// A publisher's word for the bytes of a release or a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artefact {
    /// Version, dates, origin.
    pub head: Head,
    /// Release or plan; it is the document's kind and not in the body.
    pub subject: Subject,
    /// The task's name.
    pub task: String,
    /// Bytes of the artefact.
    pub length: u64,
    /// Its SHA-256.
    pub digest: Digest,
}

/// A document by its version and the digest of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named {
    /// The version in its head.
    pub version: u64,
    /// SHA-256 of its body.
    pub digest: Digest,
}

/// What is newest for one task, and belongs together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The task's name.
    pub task: String,
    /// Its release, if it has one.
    pub release: Option<Named>,
    /// Its plan, if it has one.
    pub plan: Option<Named>,
}

/// The freshness statement: TUF's timestamp and snapshot in one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Current {
    /// Version, dates, origin.
    pub head: Head,
    /// The newest root.
    pub root_version: u64,
    /// Each task once, in the order of their names.
    pub entries: Vec<Entry>,
}

/// The body of a document, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// Keys, thresholds, rules.
    Root(Root),
    /// A release or a plan.
    Artefact(Artefact),
    /// What is newest.
    Current(Current),
}

impl Statement {
    /// The kind of document that carries it.
    pub fn kind(&self) -> Kind {
        match self {
            Statement::Root(_) => Kind::Root,
            Statement::Artefact(artefact) => artefact.subject.kind(),
            Statement::Current(_) => Kind::Current,
        }
    }

    /// Version, dates and origin.
    pub fn head(&self) -> &Head {
        match self {
            Statement::Root(root) => root.head(),
            Statement::Artefact(artefact) => &artefact.head,
            Statement::Current(current) => &current.head,
        }
    }

    pub(crate) fn read(kind: Kind, body: &[u8]) -> Result<Self, Refused> {
        let mut reader = Reader::new(body);
        let statement = match kind {
            Kind::Root => Statement::Root(Root::read(&mut reader)?),
            Kind::Release => Statement::Artefact(Artefact::read(Subject::Release, &mut reader)?),
            Kind::Plan => Statement::Artefact(Artefact::read(Subject::Plan, &mut reader)?),
            Kind::Current => Statement::Current(Current::read(&mut reader)?),
        };
        reader.end()?;
        Ok(statement)
    }

    /// The body's bytes, after the same checks that a reader makes.
    pub(crate) fn to_body(&self) -> Result<Vec<u8>, Refused> {
        let mut body = Vec::new();
        match self {
            Statement::Root(root) => root.put(&mut body),
            Statement::Artefact(artefact) => artefact.put(&mut body)?,
            Statement::Current(current) => current.put(&mut body)?,
        }
        // What a device would refuse is refused here first: the lists' orders, dates, limits.
        Statement::read(self.kind(), &body)?;
        Ok(body)
    }
}

impl Artefact {
    fn read(subject: Subject, reader: &mut Reader<'_>) -> Result<Self, Refused> {
        let head = Head::read(reader)?;
        let (task, length, digest) = (read_name(reader)?, reader.u64()?, reader.digest()?);
        if length == 0 || length > ARTEFACT_BYTES_MAX {
            return Err(Refused::TooLarge { what: "the artefact", got: length, max: ARTEFACT_BYTES_MAX });
        }
        Ok(Self { head, subject, task, length, digest })
    }

    fn put(&self, out: &mut Vec<u8>) -> Result<(), Refused> {
        check_name(&self.task)?;
        self.head.put(out);
        put_name(out, &self.task);
        out.extend_from_slice(&self.length.to_le_bytes());
        out.extend_from_slice(&self.digest.0);
        Ok(())
    }
}

impl Entry {
    /// What the entry names.
    pub fn named(&self, subject: Subject) -> Option<Named> {
        match subject {
            Subject::Release => self.release,
            Subject::Plan => self.plan,
        }
    }
}

impl Current {
    /// The entry of a task.
    pub fn entry(&self, task: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.task == task)
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Refused> {
        let (head, root_version) = (Head::read(reader)?, reader.u64()?);
        let count = read_count(reader, "the tasks", TASKS_MAX)?;
        let mut entries: Vec<Entry> = Vec::new();
        for _ in 0..count {
            let task = read_name(reader)?;
            if entries.last().is_some_and(|before| before.task >= task) {
                return Err(Refused::Malformed("its tasks are not in the order of their names, each once"));
            }
            let which = reader.u8()?;
            if which == 0 || which > 3 {
                return Err(Refused::Malformed("an entry names neither a release nor a plan"));
            }
            let mut named = |bit: u8| match which & bit {
                0 => Ok(None),
                _ => Ok::<_, Refused>(Some(Named { version: reader.u64()?, digest: reader.digest()? })),
            };
            entries.push(Entry { release: named(1)?, plan: named(2)?, task });
        }
        Ok(Self { head, root_version, entries })
    }

    fn put(&self, out: &mut Vec<u8>) -> Result<(), Refused> {
        within("the tasks", self.entries.len(), TASKS_MAX)?;
        self.head.put(out);
        out.extend_from_slice(&self.root_version.to_le_bytes());
        put_count(out, self.entries.len());
        for entry in &self.entries {
            check_name(&entry.task)?;
            put_name(out, &entry.task);
            out.push(u8::from(entry.release.is_some()) | u8::from(entry.plan.is_some()) << 1);
            for named in [entry.release, entry.plan].into_iter().flatten() {
                out.extend_from_slice(&named.version.to_le_bytes());
                out.extend_from_slice(&named.digest.0);
            }
        }
        Ok(())
    }
}
