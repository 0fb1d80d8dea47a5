//! Where trust begins: the root that the device's owner has put into its configuration.

use starling_wire::Digest;

use super::{Trusted, as_root, check_origin_of_root};
use crate::bundle::Bundle;
use crate::document::Document;
use crate::refused::Refused;

impl Trusted {
    /// Begins with the root that the device's owner put into its configuration, of any version, and with the roots that follow it in
    /// the same file. Signatures of the first are checked for accidents; the trust comes from the owner.
    ///
    /// # Errors
    /// When it holds something else than roots or none, one is not signed by its own threshold, or one does not follow the one before.
    pub fn pin(roots: &[u8]) -> Result<Self, Refused> {
        let mut roots = Bundle::parse(roots)?.documents;
        roots.iter().try_for_each(|document| as_root(document).map(|_| ()))?;
        roots.sort_by_key(|document| document.statement().head().version);
        let mut roots = roots.into_iter();
        let mut trusted = Self::begin(roots.next().ok_or(Refused::Malformed("it holds no root"))?)?;
        roots.try_for_each(|document| trusted.take_root(&document))?;
        Ok(trusted)
    }

    fn begin(document: Document) -> Result<Self, Refused> {
        let root = as_root(&document)?.clone();
        document.check(&root, root.root_quorum())?;
        let head = *root.head();
        let origin = if head.version == 1 { document.digest() } else { head.origin };
        check_origin_of_root(&root, origin)?;
        let (seen, held) = Default::default();
        Ok(Self { origin, root: (document, root), current: None, floor_unix_s: head.issued_unix_s, seen, held })
    }

    /// This state, which an earlier start has left, under the root that the owner has pinned now.
    ///
    /// An older root of the same fleet changes nothing: the device has been led on from there. A newer one is taken as the owner's
    /// word, as after a rotation. A root of another fleet begins anew, and nothing that was held counts.
    #[must_use]
    pub fn under(mut self, pinned: Trusted) -> Self {
        let version = |trusted: &Trusted| trusted.root().head().version;
        let digest = |trusted: &Trusted| -> Digest { trusted.root.0.digest() };
        if pinned.origin != self.origin {
            return pinned;
        }
        if version(&pinned) < version(&self) || digest(&pinned) == digest(&self) {
            return self;
        }
        let old = std::mem::replace(&mut self.root, pinned.root).1;
        self.forgive(&old);
        self
    }
}
