//! What a device believes, and how it comes to believe more: a state machine without clock or files.
//!
//! ```text
//!  bundle ─▶ each root that follows the trusted one   signed by thresholds of the old and of the new ─▶ trusted root
//!        └─▶ a freshness statement                     newer than the one seen, in date, signed       ─▶ what is current
//!        └─▶ the release or plan of the task asked for  not older than seen, in date, signed, current  ─▶ Permit
//! ```
//!
//! What was believed stays when something after it is refused: a new root is kept though the release behind it is bad.

mod pin;
mod record;

use std::collections::BTreeMap;

use starling_wire::Digest;

use crate::bundle::Bundle;
use crate::document::Document;
use crate::limits::REMEMBERED_MAX;
use crate::permit::{Permit, Verified};
use crate::refused::{Refused, within};
use crate::root::Root;
use crate::statement::{Artefact, Current, Kind, Named, Statement, Subject};

/// What a device believes. It has to be durable before what it permitted is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trusted {
    origin: Digest,
    root: (Document, Root),
    current: Option<(Document, Current)>,
    /// The latest moment that a believed statement vouches for. Not raised by the device's own clock: one leap into
    /// the future would make everything expired for good.
    floor_unix_s: u64,
    /// The newest statement seen of each release and plan.
    seen: BTreeMap<(Subject, String), Named>,
    /// What was verified and may be run again after a restart: version, length, digest of the artefact itself.
    held: BTreeMap<(Subject, String), (u64, u64, Digest)>,
}

/// What became of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What is believed now, to be stored even when the artefact is refused.
    pub trusted: Trusted,
    /// The artefact asked for, or why not.
    pub permit: Result<Permit, Refused>,
}

impl Trusted {
    /// The root in force.
    pub fn root(&self) -> &Root {
        &self.root.1
    }

    /// The digest of the fleet's first root, which every document names.
    pub fn origin(&self) -> Digest {
        self.origin
    }

    /// The newest freshness statement.
    pub fn current(&self) -> Option<&Current> {
        self.current.as_ref().map(|(_, current)| current)
    }

    /// When what says what is newest runs out: the root or the freshness statement, whichever is earlier. From then on the
    /// device cannot know whether something newer is held back from it. `None` before the first freshness statement.
    pub fn expires_unix_s(&self) -> Option<u64> {
        let current = self.current()?;
        Some(current.head.expires_unix_s.min(self.root().head().expires_unix_s))
    }

    /// The time that expiry is compared with when the clock says `clock_unix_s`.
    pub fn now_unix_s(&self, clock_unix_s: u64) -> u64 {
        clock_unix_s.max(self.floor_unix_s)
    }

    /// Judges a bundle for the release or plan of one task.
    pub fn take(&self, bundle: &[u8], subject: Subject, task: &str, clock_unix_s: u64) -> Outcome {
        let mut trusted = self.clone();
        let permit = Bundle::parse(bundle).and_then(|bundle| trusted.judge(&bundle, subject, task, clock_unix_s));
        Outcome { trusted, permit }
    }

    /// Remembers what was verified, so that it may be run again after a restart.
    ///
    /// # Errors
    /// [`Refused::TooLarge`] beyond [`REMEMBERED_MAX`].
    pub fn hold(&mut self, verified: &Verified) -> Result<(), Refused> {
        let key = (verified.subject(), verified.task().to_owned());
        if !self.held.contains_key(&key) {
            within("the artefacts held", self.held.len() + 1, REMEMBERED_MAX)?;
        }
        self.held.insert(key, (verified.version(), verified.length(), verified.digest()));
        Ok(())
    }

    /// Bytes from the device's own disk that it verified earlier. Neither dates nor a newer statement turn off what
    /// already serves; changed bytes do.
    ///
    /// # Errors
    /// [`Refused::NotHeld`].
    pub fn held(&self, subject: Subject, task: &str, bytes: &[u8]) -> Result<Verified, Refused> {
        self.held_as(subject, task, bytes.len() as u64, Digest::of(bytes))
    }

    /// The same for bytes whose digest the caller has computed, or will compare.
    ///
    /// # Errors
    /// [`Refused::NotHeld`].
    pub fn held_as(&self, subject: Subject, task: &str, length: u64, digest: Digest) -> Result<Verified, Refused> {
        match self.held.get(&(subject, task.to_owned())) {
            Some(&(version, known_length, known)) if (known_length, known) == (length, digest) => {
                Ok(Verified::new(subject, task.to_owned(), version, length, digest))
            }
            _ => Err(Refused::NotHeld { what: subject.kind().word(), task: task.to_owned() }),
        }
    }

    /// Whether the freshness statement names a later version than the one that is held.
    pub fn is_superseded(&self, held: &Verified) -> bool {
        let entry = self.current().and_then(|current| current.entry(held.task()));
        entry.and_then(|entry| entry.named(held.subject())).is_some_and(|named| named.version > held.version())
    }

    fn judge(&mut self, bundle: &Bundle, subject: Subject, task: &str, clock: u64) -> Result<Permit, Refused> {
        let of = |kind: Kind| bundle.documents.iter().filter(move |document| document.statement().kind() == kind);
        let mut roots: Vec<&Document> = of(Kind::Root).collect();
        roots.sort_by_key(|document| document.statement().head().version);
        roots.into_iter().try_for_each(|document| self.take_root(document))?;
        // Only the last root of a chain has to be in date: the older ones lead to it.
        self.in_date("root", self.root().head().expires_unix_s, clock)?;
        of(Kind::Current).try_for_each(|document| self.take_current(document, clock))?;
        let mut wanted = of(subject.kind());
        let document = wanted.next().ok_or(Refused::Malformed("the bundle lacks the statement asked for"))?;
        if wanted.next().is_some() {
            return Err(Refused::Malformed("the bundle holds several statements of the kind asked for"));
        }
        self.take_artefact(document, task, clock)
    }

    fn take_root(&mut self, document: &Document) -> Result<(), Refused> {
        let next = as_root(document)?;
        let (got, trusted) = (next.head().version, self.root().head().version);
        if got < trusted {
            // A bundle serves devices that are further behind, too.
            return Ok(());
        }
        if got == trusted {
            return if document.digest() == self.root.0.digest() {
                Ok(())
            } else {
                Err(Refused::Equivocation { what: "root", version: got })
            };
        }
        if got != trusted.saturating_add(1) {
            return Err(Refused::RootGap { trusted, got });
        }
        check_origin_of_root(next, self.origin)?;
        document.check(self.root(), self.root().root_quorum())?;
        document.check(next, next.root_quorum())?;
        let old = std::mem::replace(&mut self.root, (document.clone(), next.clone())).1;
        self.forgive(&old);
        Ok(())
    }

    /// Where a key has lost its word, what it may have said is forgotten: a stolen key could have named the highest version
    /// there is, or a time far ahead, and nothing newer would ever be believed (TUF's fast-forward attack).
    fn forgive(&mut self, old: &Root) {
        let root = &self.root.1;
        let issued = root.head().issued_unix_s;
        let freshness = root.has_lost_a_member(Some(root.freshness_quorum()), old, Some(old.freshness_quorum()));
        let mut forgotten = freshness;
        if freshness {
            self.current = None;
        }
        self.seen.retain(|(_, task), _| {
            let lost = root.has_lost_a_member(root.publisher_quorum(task), old, old.publisher_quorum(task));
            forgotten |= lost;
            !lost
        });
        self.floor_unix_s = if forgotten { issued } else { self.floor_unix_s.max(issued) };
    }

    fn take_current(&mut self, document: &Document, clock: u64) -> Result<(), Refused> {
        let Statement::Current(next) = document.statement() else { return Err(wrong_kind(Kind::Current, document)) };
        self.check_origin(next.head.origin)?;
        document.check(self.root(), self.root().freshness_quorum())?;
        let got = next.head.version;
        if let Some((known, current)) = &self.current {
            let seen = current.head.version;
            if got < seen {
                return Err(Refused::Rollback { what: "freshness statement", got, seen });
            }
            if got == seen && document.digest() != known.digest() {
                return Err(Refused::Equivocation { what: "freshness statement", version: got });
            }
        }
        self.in_date("freshness statement", next.head.expires_unix_s, clock)?;
        let trusted = self.root().head().version;
        if next.root_version > trusted {
            return Err(Refused::StaleRoot { trusted, newest: next.root_version });
        }
        for entry in &next.entries {
            for subject in [Subject::Release, Subject::Plan] {
                let seen = self.seen.get(&(subject, entry.task.clone()));
                if let (Some(named), Some(seen)) = (entry.named(subject), seen) {
                    not_older(subject.kind().word(), named, *seen)?;
                }
            }
        }
        self.floor_unix_s = self.floor_unix_s.max(next.head.issued_unix_s);
        self.current = Some((document.clone(), next.clone()));
        Ok(())
    }

    fn take_artefact(&mut self, document: &Document, task: &str, clock: u64) -> Result<Permit, Refused> {
        let Statement::Artefact(artefact) = document.statement() else {
            return Err(wrong_kind(Kind::Release, document));
        };
        let what = artefact.subject.kind().word();
        self.check_origin(artefact.head.origin)?;
        if artefact.task != task {
            return Err(Refused::WrongTask { expected: task.to_owned(), got: artefact.task.clone() });
        }
        let quorum = self.root().publisher_quorum(task).ok_or_else(|| Refused::NoPublisher(task.to_owned()))?;
        document.check(self.root(), quorum)?;
        let own = Named { version: artefact.head.version, digest: document.digest() };
        let key = (artefact.subject, task.to_owned());
        match self.seen.get(&key) {
            Some(seen) => not_older(what, own, *seen)?,
            None => within("the artefacts remembered", self.seen.len() + 1, REMEMBERED_MAX)?,
        }
        self.in_date(what, artefact.head.expires_unix_s, clock)?;
        self.is_current(artefact, own, clock)?;
        self.seen.insert(key, own);
        Ok(Permit::new(artefact.clone()))
    }

    fn is_current(&self, artefact: &Artefact, own: Named, clock: u64) -> Result<(), Refused> {
        let current = self.current().ok_or(Refused::NoCurrent)?;
        // The one that is known may have run out since it came.
        self.in_date("freshness statement", current.head.expires_unix_s, clock)?;
        let named = current.entry(&artefact.task).and_then(|entry| entry.named(artefact.subject));
        if named == Some(own) {
            return Ok(());
        }
        Err(Refused::NotCurrent { what: artefact.subject.kind().word(), task: artefact.task.clone() })
    }

    fn check_origin(&self, origin: Digest) -> Result<(), Refused> {
        if origin == self.origin { Ok(()) } else { Err(Refused::OtherOrigin) }
    }

    fn in_date(&self, what: &'static str, expires_unix_s: u64, clock: u64) -> Result<(), Refused> {
        let now_unix_s = self.now_unix_s(clock);
        if now_unix_s < expires_unix_s { Ok(()) } else { Err(Refused::Expired { what, expires_unix_s, now_unix_s }) }
    }
}

fn not_older(what: &'static str, got: Named, seen: Named) -> Result<(), Refused> {
    if got.version < seen.version {
        return Err(Refused::Rollback { what, got: got.version, seen: seen.version });
    }
    if got.version == seen.version && got.digest != seen.digest {
        return Err(Refused::Equivocation { what, version: got.version });
    }
    Ok(())
}

/// The first root names no origin, it is one; every later one names it.
fn check_origin_of_root(root: &Root, origin: Digest) -> Result<(), Refused> {
    let head = root.head();
    let expected = if head.version == 1 { Digest([0; 32]) } else { origin };
    if head.origin == expected { Ok(()) } else { Err(Refused::OtherOrigin) }
}

fn as_root(document: &Document) -> Result<&Root, Refused> {
    match document.statement() {
        Statement::Root(root) => Ok(root),
        _ => Err(wrong_kind(Kind::Root, document)),
    }
}

fn wrong_kind(expected: Kind, document: &Document) -> Refused {
    Refused::WrongKind { expected: expected.word(), got: document.statement().kind().word() }
}
