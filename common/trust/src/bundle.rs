//! Documents that travel together: what a device needs to believe one release or plan.

use crate::document::Document;
use crate::limits::{BUNDLE_BYTES_MAX, DOCUMENTS_MAX};
use crate::permit::Permit;
use crate::refused::{Refused, within};
use crate::statement::{Artefact, Kind, Statement, Subject};
use crate::trusted::Trusted;

/// Documents, one after the other: roots that a device may be missing, a freshness statement, a release or plan. The order in
/// which they are judged is the device's, not the bundle's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bundle {
    /// The documents.
    pub documents: Vec<Document>,
}

impl Bundle {
    /// Parses all of `bytes`.
    ///
    /// # Errors
    /// [`Refused::TooLarge`] before anything is read, [`Refused::Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Refused> {
        within("the bundle", bytes.len(), BUNDLE_BYTES_MAX)?;
        let (mut documents, mut rest) = (Vec::new(), bytes);
        while !rest.is_empty() {
            within("the documents", documents.len() + 1, DOCUMENTS_MAX)?;
            let (document, after) = Document::parse_first(rest)?;
            documents.push(document);
            rest = after;
        }
        Ok(Self { documents })
    }

    /// Its bytes.
    ///
    /// # Errors
    /// [`Refused::TooLarge`] when a device would not take it in: then older roots have to be left out.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Refused> {
        within("the documents", self.documents.len(), DOCUMENTS_MAX)?;
        let bytes = self.documents.iter().flat_map(Document::to_bytes).collect::<Vec<_>>();
        within("the bundle", bytes.len(), BUNDLE_BYTES_MAX)?;
        Ok(bytes)
    }

    /// The documents of a kind.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &Document> {
        self.documents.iter().filter(move |document| document.statement().kind() == kind)
    }

    /// What the bundle states of a release or a plan, unchecked.
    pub fn artefact(&self, subject: Subject) -> Option<&Artefact> {
        self.of(subject.kind()).find_map(|document| match document.statement() {
            Statement::Artefact(artefact) => Some(artefact),
            _ => None,
        })
    }

    /// This bundle's release or plan with the roots and the freshness statement of `newer`, where that has any.
    #[must_use]
    pub fn renewed(&self, newer: &Bundle) -> Bundle {
        let mut documents = Vec::new();
        for kind in [Kind::Root, Kind::Current] {
            let from = if newer.of(kind).next().is_some() { newer } else { self };
            documents.extend(from.of(kind).cloned());
        }
        documents.extend([Kind::Release, Kind::Plan].into_iter().flat_map(|kind| self.of(kind)).cloned());
        Bundle { documents }
    }

    /// What a device would say that has pinned the bundle's own oldest root and seen nothing else: for whoever forwards bundles and
    /// wants to know early. It proves nothing, since anybody can make a root.
    ///
    /// # Errors
    /// What that device would refuse it for.
    pub fn foresee(&self, subject: Subject, task: &str, clock_unix_s: u64) -> Result<Permit, Refused> {
        let first = self.of(Kind::Root).min_by_key(|document| document.statement().head().version);
        let first = first.ok_or(Refused::Malformed("the bundle holds no root"))?;
        Trusted::pin(&first.to_bytes())?.take(&self.to_bytes()?, subject, task, clock_unix_s).permit
    }
}
