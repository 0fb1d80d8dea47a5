//! Documents that travel together: what a device needs to believe one release or plan.

use crate::document::Document;
use crate::limits::{BUNDLE_BYTES_MAX, DOCUMENTS_MAX};
use crate::refused::{Refused, within};

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
}
