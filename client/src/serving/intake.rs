//! Releases on their way in: what was offered, what is fetched, and what the aggregator is told.
//!
//! ```text
//!  offer ─▶ policy, signatures, version, size ─▶ wanted ─▶ Fetch ─▶ blob ─▶ installing (a thread of its own) ─▶ report
//!              └──────── refused ─────────────────────────────┴────────┴───────────┴──────────────────────────────▶ report
//! ```
//!
//! It reads no socket and no clock, and no disk but the one that what is believed is written to: the agent hands it what comes and sends
//! what [`Intake::poll`] gives. Where a root of trust is pinned, the signed statement decides before a byte is asked for. One release is
//! fetched at a time, and one is installed at a time; what waits is bounded by the tasks that are bound.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use starling_net::{ReceiveError, TransferError, resume_offset};
use starling_trust::{Permit, Subject};
use starling_wire::limits::RELEASE_BYTES_MAX;
use starling_wire::{
    BlobHeader, BlobKind, Digest, Distrust, Fetch, OfferedRelease, RELEASE_RUN, Refusal, ReleaseOffer, ReleaseRefusal,
    ReleaseReport, Standing, ToAggregator,
};

use super::releases::Releases;
use crate::policy::AllowList;

/// A release that may be taken in, as far as its announcement goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) offer: ReleaseOffer,
    /// What publishers stated of it, where the owner asks for that.
    pub(crate) permit: Option<Permit>,
}

/// What is to be installed, on another thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Installation {
    pub(crate) candidate: Candidate,
    /// The bytes that came; without any, the file is on the disk under the same digest already.
    pub(crate) bytes: Option<Bytes>,
}

/// A release that is being fetched.
struct Fetching {
    candidate: Candidate,
    receiving: bool,
}

/// Everything about releases that the agent decides.
pub(crate) struct Intake {
    releases: Arc<Releases>,
    policy: AllowList,
    bytes_max: u64,
    /// Whether the local socket answers.
    serving: bool,
    wanted: VecDeque<Candidate>,
    fetching: Option<Fetching>,
    /// The first bytes of a file whose transfer broke off with its connection.
    partial: Option<(Digest, Vec<u8>)>,
    installing: Option<ReleaseOffer>,
    ready: VecDeque<Installation>,
    outbox: VecDeque<ToAggregator>,
    /// Why the last release of a task was refused, in words.
    problems: BTreeMap<String, String>,
}

impl Intake {
    pub(crate) fn new(releases: Arc<Releases>, policy: AllowList, bytes_max: u64) -> Self {
        Self {
            releases,
            policy,
            bytes_max,
            serving: false,
            wanted: VecDeque::new(),
            fetching: None,
            partial: None,
            installing: None,
            ready: VecDeque::new(),
            outbox: VecDeque::new(),
            problems: BTreeMap::new(),
        }
    }

    /// Whether the local socket answers, from now on.
    pub(crate) fn set_serving(&mut self, serving: bool) {
        self.serving = serving;
    }

    /// Why the newest release of a task was refused, if it was.
    pub(crate) fn problem(&self, task: &str) -> Option<&str> {
        self.problems.get(task).map(String::as_str)
    }

    /// The aggregator offers a release. Blocks where what came along is believed and has to be written down.
    pub(crate) fn handle_offer(&mut self, OfferedRelease { offer, bundle }: OfferedRelease) {
        if !self.policy.allows(&offer.task) {
            // Not remembered: what is remembered is bounded by the tasks that are bound.
            return self.report(&offer, Standing::Refused(ReleaseRefusal::Policy));
        }
        let permit = match self.permit(&offer, &bundle) {
            Ok(permit) => permit,
            Err((reason, text)) => return self.refuse_as(&offer, reason, text),
        };
        let held = self.releases.held(&offer.task);
        match &held {
            Some(held) if *held == offer => {
                self.problems.remove(&offer.task);
                return self.report_taken(&offer);
            }
            // Signed statements say themselves what is older.
            Some(held) if permit.is_none() && held.version >= offer.version => {
                return self.refuse(&offer, ReleaseRefusal::Older);
            }
            _ => {}
        }
        let others = self.releases.bytes_besides(&offer.task);
        if offer.length > RELEASE_BYTES_MAX || offer.length.saturating_add(others) > self.bytes_max {
            return self.refuse(&offer, ReleaseRefusal::TooLarge);
        }
        let under_way = self.fetching.iter().map(|fetching| &fetching.candidate.offer).chain(&self.installing);
        if under_way.chain(self.ready.iter().map(|next| &next.candidate.offer)).any(|under_way| *under_way == offer) {
            return;
        }
        self.wanted.retain(|wanted| wanted.offer.task != offer.task);
        let same_file = held.is_some_and(|held| held.digest == offer.digest && held.length == offer.length);
        let candidate = Candidate { offer, permit };
        if same_file {
            // The same file under a new number.
            self.ready.retain(|next| next.candidate.offer.task != candidate.offer.task);
            self.ready.push_back(Installation { candidate, bytes: None });
        } else {
            self.wanted.push_back(candidate);
        }
    }

    /// What publishers stated of the offer, if the owner asks for that; or why it is not believed.
    fn permit(&self, offer: &ReleaseOffer, bundle: &[u8]) -> Result<Option<Permit>, (ReleaseRefusal, String)> {
        let Some(trust) = self.releases.trust() else { return Ok(None) };
        let permit = trust.take(bundle, Subject::Release, &offer.task).map_err(|why| (why.release(), why.parts().1))?;
        let stated = permit.artefact();
        if (stated.head.version, stated.length, stated.digest) != (offer.version, offer.length, offer.digest) {
            return Err((ReleaseRefusal::Untrusted(Distrust::NotAsSigned), Distrust::NotAsSigned.to_string()));
        }
        Ok(Some(permit))
    }

    /// What says what is newest has run out: the aggregator is told for each release that is held.
    pub(crate) fn handle_expired(&mut self) {
        for offer in self.releases.all() {
            self.refuse(&offer, ReleaseRefusal::Untrusted(Distrust::Expired));
        }
    }

    /// What to send next.
    pub(crate) fn poll(&mut self) -> Option<ToAggregator> {
        if self.outbox.is_empty()
            && self.fetching.is_none()
            && self.ready.is_empty()
            && let Some(candidate) = self.wanted.pop_front()
        {
            let offer = &candidate.offer;
            let kept = self.partial.as_ref().filter(|(digest, _)| *digest == offer.digest);
            let offset = kept.map_or(0, |(_, bytes)| resume_offset(bytes.len()));
            let fetch = Fetch { run: RELEASE_RUN, digest: offer.digest, held: None, offset };
            self.outbox.push_back(ToAggregator::Fetch(fetch));
            self.fetching = Some(Fetching { candidate, receiving: false });
        }
        self.outbox.pop_front()
    }

    /// What to install next; its end is told by [`Intake::handle_installed`].
    pub(crate) fn poll_installation(&mut self) -> Option<Installation> {
        if self.installing.is_some() {
            return None;
        }
        let next = self.ready.pop_front()?;
        self.installing = Some(next.candidate.offer.clone());
        Some(next)
    }

    /// Whether the blob of this header is the release that was asked for; then the bytes of it that are here already, and the
    /// most bytes that it may have.
    pub(crate) fn admit(&mut self, header: &BlobHeader) -> Result<(Vec<u8>, u64), Refusal> {
        let fetching = self.fetching.as_mut().filter(|fetching| !fetching.receiving).ok_or(Refusal::UnknownBlob)?;
        let offer = &fetching.candidate.offer;
        if header.kind != BlobKind::Release || header.run != RELEASE_RUN || header.digest != offer.digest {
            return Err(Refusal::UnknownBlob);
        }
        if header.length != offer.length {
            let (candidate, header_length) = (fetching.candidate.clone(), header.length);
            self.fetching = None;
            self.refuse(&candidate.offer, length_mismatch(&candidate, header_length));
            return Err(Refusal::LengthMismatch);
        }
        let kept = self.partial.take().filter(|(digest, _)| *digest == offer.digest && header.offset > 0);
        fetching.receiving = true;
        Ok((kept.map(|(_, bytes)| bytes).unwrap_or_default(), offer.length))
    }

    /// A transfer that was admitted has ended, well or not.
    pub(crate) fn handle_arrival(&mut self, result: Result<(Bytes, Digest), ReceiveError>) {
        let Some(Fetching { candidate, .. }) = self.fetching.take() else { return };
        let offer = &candidate.offer;
        match result {
            // What they are is checked when they are verified.
            Ok((bytes, _)) => self.ready.push_back(Installation { candidate, bytes: Some(bytes) }),
            // The aggregator offers it again at the next connection.
            Err(ReceiveError { cause: TransferError::Closed(_), kept }) => self.partial = Some((offer.digest, kept)),
            Err(error) => {
                tracing::warn!(task = offer.task, version = offer.version, error = %error.cause, "a release's transfer failed");
                let reason = match error.cause {
                    TransferError::Length { declared, actual } => {
                        length_mismatch(&candidate, offer.length.saturating_sub(declared).saturating_add(actual))
                    }
                    _ => ReleaseRefusal::Unavailable,
                };
                self.refuse(&candidate.offer, reason);
            }
        }
    }

    /// A fetch was refused. Whether it was one of a release.
    pub(crate) fn handle_fetch_refused(&mut self, digest: Digest) -> bool {
        let Some(fetching) = self.fetching.take_if(|fetching| fetching.candidate.offer.digest == digest) else {
            return false;
        };
        self.refuse(&fetching.candidate.offer, ReleaseRefusal::Unavailable);
        true
    }

    /// The connection is gone; what is installed goes on.
    pub(crate) fn handle_disconnected(&mut self) {
        self.fetching = None;
        self.wanted.clear();
        self.outbox.clear();
    }

    /// What became of the installation.
    pub(crate) fn handle_installed(&mut self, result: Result<(), ReleaseRefusal>) {
        let Some(offer) = self.installing.take() else { return };
        match result {
            Ok(()) => {
                tracing::info!(task = offer.task, version = offer.version, digest = %offer.digest, "a release serves");
                self.problems.remove(&offer.task);
                self.report_taken(&offer);
            }
            Err(reason) => self.refuse(&offer, reason),
        }
    }

    fn report_taken(&mut self, offer: &ReleaseOffer) {
        self.report(offer, if self.serving { Standing::Served } else { Standing::Held });
    }

    fn refuse(&mut self, offer: &ReleaseOffer, reason: ReleaseRefusal) {
        let text = match reason {
            ReleaseRefusal::Untrusted(reason) => reason.to_string(),
            reason => reason.to_string(),
        };
        self.refuse_as(offer, reason, text);
    }

    /// The same with figures for the device's owner.
    fn refuse_as(&mut self, offer: &ReleaseOffer, reason: ReleaseRefusal, text: String) {
        tracing::warn!(task = offer.task, version = offer.version, reason = text, "a release is refused");
        self.problems.insert(offer.task.clone(), text);
        self.report(offer, Standing::Refused(reason));
    }

    fn report(&mut self, offer: &ReleaseOffer, standing: Standing) {
        let serves = self.releases.serves(&offer.task).filter(|_| self.serving);
        let ReleaseOffer { task, version, digest, .. } = offer.clone();
        self.outbox.push_back(ToAggregator::Release(ReleaseReport { task, version, digest, standing, serves }));
    }
}

/// What a release is refused for whose bytes are not as many as were announced.
fn length_mismatch(candidate: &Candidate, came: u64) -> ReleaseRefusal {
    match &candidate.permit {
        None => ReleaseRefusal::DigestMismatch,
        Some(permit) if came > permit.length() => ReleaseRefusal::Untrusted(Distrust::TooLong),
        Some(_) => ReleaseRefusal::Untrusted(Distrust::TooShort),
    }
}

#[cfg(test)]
mod tests;
