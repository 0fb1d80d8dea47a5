//! The next certificate: asked for after a third of the life of the present one, over the open connection, for a new key.
//!
//! The new key and certificate are on the disk before the first handshake that uses them, and the aggregator accepts the
//! old key until it has seen the new one: a crash or a lost answer at any instant leaves one pair that is good. Connections
//! and rounds go on.

use std::time::Duration;

use starling_certs::{Key, Pair, request};
use starling_net::join::{Authority, ask};
use starling_net::{Credentials, Endpoint, Transport};
use starling_wire::enrol::CHANNEL_BYTES;
use starling_wire::{Credential, FromAuthority, LateRenewal, Refusal, RenewRequest, ToAuthority};
use tokio::time::Instant;

use crate::agent::Agent;
use crate::join::check;
use crate::learner::with_causes;
use crate::state::set_clock_floor;

/// How long an answer is waited for before it is asked again.
const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// The longest pause after a refusal: an operator may switch enrolment on.
const REFUSED_WAIT_S_MAX: u64 = 3600;

/// Where the renewal stands.
pub(crate) struct Renewal {
    /// When to ask.
    pub(crate) due: Instant,
    /// The key of the request that is under way. Its certificate has not come yet.
    pending: Option<Key>,
}

impl Renewal {
    /// For the certificate in use.
    pub(crate) fn new(credentials: &Credentials) -> Self {
        let leaf = credentials.leaf();
        let life_s = leaf.not_after_unix_s.saturating_sub(leaf.not_before_unix_s);
        let due_unix_s = leaf.not_before_unix_s + life_s / 3;
        let wait_s = due_unix_s.saturating_sub(credentials.clock().now_unix_s());
        Self { due: Instant::now() + Duration::from_secs(wait_s), pending: None }
    }
}

impl Agent {
    /// What to send for the next certificate, bound to the connection.
    pub(crate) fn new_request(&mut self, channel: &[u8; CHANNEL_BYTES]) -> Option<RenewRequest> {
        self.renewal.due = Instant::now() + ANSWER_WAIT;
        let keys = self.pair().read_key().and_then(|old| Ok((old, Key::generate()?)));
        match keys {
            Ok((old, new)) => {
                let request = request::renew(channel, self.device, &old, &new);
                self.renewal.pending = Some(new);
                Some(request)
            }
            Err(error) => {
                tracing::error!(error = with_causes(&error), "no request for the next certificate can be made");
                None
            }
        }
    }

    /// The next certificate is here: to the disk, then into use.
    pub(crate) fn handle_renewed(&mut self, endpoint: &Endpoint, credential: &Credential) {
        match self.take_over(endpoint, credential) {
            Ok(until_unix_s) => tracing::info!(until_unix_s, "the certificate was renewed"),
            Err(error) => tracing::error!(error, "the renewed certificate cannot be used; the old one stays in use"),
        }
    }

    /// There is none.
    pub(crate) fn handle_not_renewed(&mut self, endpoint: &Endpoint, refusal: Refusal) {
        self.renewal.pending = None;
        let credentials = endpoint.credentials();
        let left_s = credentials.leaf().not_after_unix_s.saturating_sub(credentials.clock().now_unix_s());
        let wait_s = (left_s / 10).clamp(1, REFUSED_WAIT_S_MAX);
        self.renewal.due = Instant::now() + Duration::from_secs(wait_s);
        tracing::warn!(%refusal, left_s, wait_s, "the certificate was not renewed");
    }

    /// With an expired certificate: asks on a connection of a joining machine, with the old key's proof.
    ///
    /// # Errors
    /// In words, what the trouble is: an expired certificate that is not renewed, or clocks that differ.
    pub(crate) async fn renew_late(&mut self, endpoint: &Endpoint) -> Result<(), String> {
        let credentials = endpoint.credentials();
        let (leaf, clock) = (credentials.leaf(), credentials.clock().clone());
        let now_s = clock.now_unix_s();
        if now_s <= leaf.not_after_unix_s {
            return Err(format!(
                "by this machine's clock ({now_s} s since 1970) its own certificate is valid from {} to {}: \
                 compare the clocks of this machine and of the aggregator",
                leaf.not_before_unix_s, leaf.not_after_unix_s
            ));
        }
        let failed = |error: &dyn std::error::Error| format!("renewing the expired certificate failed: {error}");
        let old = self.pair().read_key().map_err(|error| failed(&error))?;
        let new = Key::generate().map_err(|error| failed(&error))?;
        let device = self.device;
        let question = |channel: &[u8; CHANNEL_BYTES]| {
            ToAuthority::Renew(LateRenewal { device, request: request::renew(channel, device, &old, &new) })
        };
        let transport = Transport::on(self.config.path);
        let authority = Authority::CaPem(credentials.ca_pem());
        let asked = ask(self.config.aggregator, &authority, &clock, &transport, question).await;
        match asked.map_err(|error| failed(&error))? {
            FromAuthority::Issued(credential) => {
                self.renewal.pending = Some(new);
                let until_unix_s = self.take_over(endpoint, &credential)?;
                tracing::info!(until_unix_s, "the expired certificate was renewed");
                Ok(())
            }
            FromAuthority::Refused(refusal) => Err(format!("the expired certificate is not renewed: {refusal}")),
            _ => Err("the aggregator's answer is not understood".to_owned()),
        }
    }

    fn take_over(&mut self, endpoint: &Endpoint, credential: &Credential) -> Result<u64, String> {
        let key = self.renewal.pending.take().ok_or("nobody has asked for it")?;
        let identity = check(credential, &key).map_err(|error| with_causes(&error))?;
        if identity.id != self.device {
            return Err(format!("it is for device {}", identity.id));
        }
        self.pair().replace(&credential.certificate_pem, &key.to_pem()).map_err(|error| with_causes(&error))?;
        let clock = endpoint.credentials().clock().clone();
        if clock.raise_floor(credential.now_unix_s)
            && let Err(error) = set_clock_floor(self.shelf.store(), credential.now_unix_s)
        {
            tracing::warn!(%error, "the aggregator's time could not be written down");
        }
        let credentials = Credentials::load(&self.config.tls).map_err(|error| with_causes(&error))?.with_clock(clock);
        endpoint.replace_credentials(&credentials).map_err(|error| with_causes(&error))?;
        self.renewal = Renewal::new(&credentials);
        self.credentials = credentials.clone();
        Ok(credentials.leaf().not_after_unix_s)
    }

    fn pair(&self) -> Pair {
        Pair { certificate: self.config.tls.certificate.clone(), key: self.config.tls.key.clone() }
    }
}
