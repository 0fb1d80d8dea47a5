//! The aggregator's own certificate: renewed from its authority after a third of its life, with a new key, and swapped
//! while connections go on.

use starling_certs::{Key, Pair};
use starling_net::{Credentials, Endpoint, TlsFiles};

use super::acts::{self, Act};
use super::registry::Issuer;

/// What it takes to renew it.
pub(super) struct Own {
    pub(super) files: TlsFiles,
    pub(super) endpoint: Endpoint,
}

impl Own {
    /// Renews it if it is time, and says how many seconds to look again after, and what was done.
    pub(super) fn renew(&self, issuer: &mut Issuer, now_s: u64) -> anyhow::Result<(u64, Option<Act>)> {
        let old = self.endpoint.credentials();
        let leaf = old.leaf();
        let due_s = leaf.not_before_unix_s + leaf.not_after_unix_s.saturating_sub(leaf.not_before_unix_s) / 3;
        // A certificate that was issued by hand for longer than ours last is not cut short.
        if now_s < due_s {
            return Ok((due_s - now_s, None));
        }
        issuer.refresh();
        let key = Key::generate()?;
        let certificate = issuer.certify(now_s, old.identity(), key.public())?;
        let pair = Pair { certificate: self.files.certificate.clone(), key: self.files.key.clone() };
        pair.replace(&certificate, &key.to_pem())?;
        let new = Credentials::load(&self.files)?.with_clock(old.clock().clone());
        self.endpoint.replace_credentials(&new)?;
        Ok((1, Some(acts::own_renewed(new.leaf().not_after_unix_s))))
    }
}
