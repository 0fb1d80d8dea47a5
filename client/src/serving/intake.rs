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
mod tests {
    use starling_net::CloseReason;
    use starling_wire::CodecId;

    use super::*;
    use crate::serving::model::tests::{binding, offer, release_bytes, unrunnable_bytes};

    struct Device {
        intake: Intake,
        releases: Arc<Releases>,
        _folder: tempfile::TempDir,
    }

    fn device(bytes_max: u64) -> Device {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Arc::new(crate::state::tests::open_store(folder.path()).expect("a store"));
        let releases = Arc::new(Releases::open(store, vec![binding("embedded:optdigits")], None).expect("releases"));
        let policy = AllowList::new(["digits".to_owned()]);
        let mut intake = Intake::new(Arc::clone(&releases), policy, bytes_max);
        intake.set_serving(true);
        Device { intake, releases, _folder: folder }
    }

    fn header(offer: &ReleaseOffer, offset: u64) -> BlobHeader {
        let codec = CodecId { family: 0, parameter: 0 };
        let ReleaseOffer { digest, length, .. } = *offer;
        BlobHeader { kind: BlobKind::Release, codec, run: RELEASE_RUN, round: 0, attempt: 0, offset, length, digest }
    }

    fn report(message: Option<ToAggregator>) -> (u64, Standing, Option<u64>) {
        match message {
            Some(ToAggregator::Release(report)) => (report.version, report.standing, report.serves),
            other => panic!("{other:?}"),
        }
    }

    impl Device {
        /// An offer that nobody signed, to a device that asks for no signatures.
        fn offer(&mut self, offer: ReleaseOffer) {
            self.intake.handle_offer(OfferedRelease { offer, bundle: Vec::new() });
        }

        fn fetch(&mut self) -> Fetch {
            match self.intake.poll() {
                Some(ToAggregator::Fetch(fetch)) => fetch,
                other => panic!("{other:?}"),
            }
        }

        /// Takes `bytes` as version `version` all the way.
        fn take(&mut self, version: u64, bytes: &[u8]) -> (u64, Standing, Option<u64>) {
            let offer = offer(version, bytes);
            self.offer(offer.clone());
            if self.releases.held("digits").is_none_or(|held| held.digest != offer.digest) {
                assert_eq!(self.fetch().digest, offer.digest);
                self.intake.admit(&header(&offer, 0)).expect("asked for");
                self.intake.handle_arrival(Ok((Bytes::copy_from_slice(bytes), offer.digest)));
            }
            let next = self.intake.poll_installation().expect("to install");
            let bytes = next.bytes.map_or_else(|| self.releases.file(&offer.digest).expect("held"), Vec::from);
            let result = self.releases.install(&next.candidate.offer, &bytes, None);
            self.intake.handle_installed(result);
            report(self.intake.poll())
        }
    }

    #[test]
    fn a_release_is_fetched_installed_and_reported_and_a_bad_one_leaves_the_old_serving() {
        let mut device = device(1 << 20);
        let good = release_bytes(1.0);
        assert_eq!(device.take(1, &good), (1, Standing::Served, Some(1)));
        let refused = device.take(2, &unrunnable_bytes());
        assert_eq!(refused, (2, Standing::Refused(ReleaseRefusal::NotRunnable), Some(1)));
        assert_eq!(device.intake.problem("digits"), Some(ReleaseRefusal::NotRunnable.text()));
        assert_eq!(device.take(3, &good), (3, Standing::Served, Some(3)), "the file that is held, under a new number");
        assert_eq!(device.intake.problem("digits"), None);
        device.offer(offer(2, &good));
        assert_eq!(report(device.intake.poll()), (2, Standing::Refused(ReleaseRefusal::Older), Some(3)));
        device.offer(offer(3, &good));
        assert_eq!(report(device.intake.poll()), (3, Standing::Served, Some(3)), "held already: nothing is fetched");
        assert_eq!(device.intake.poll(), None);
    }

    #[test]
    fn inv13_the_policy_is_asked_before_anything_else() {
        let mut device = device(1 << 20);
        device.offer(ReleaseOffer { task: "other".into(), ..offer(1, b"x") });
        assert_eq!(report(device.intake.poll()), (1, Standing::Refused(ReleaseRefusal::Policy), None));
        assert_eq!(device.intake.poll(), None);
    }

    #[test]
    fn inv8_a_length_over_the_owners_limit_or_another_than_announced_is_refused() {
        let bytes = release_bytes(1.0);
        let mut small = device(bytes.len() as u64 - 1);
        small.offer(offer(1, &bytes));
        assert_eq!(report(small.intake.poll()), (1, Standing::Refused(ReleaseRefusal::TooLarge), None));
        let mut device = device(u64::MAX);
        device.offer(ReleaseOffer { length: RELEASE_BYTES_MAX + 1, ..offer(1, &bytes) });
        assert_eq!(report(device.intake.poll()).1, Standing::Refused(ReleaseRefusal::TooLarge));
        assert_eq!(device.intake.admit(&header(&offer(1, &bytes), 0)), Err(Refusal::UnknownBlob), "not asked for");
        device.offer(offer(1, &bytes));
        device.fetch();
        let longer = BlobHeader { length: bytes.len() as u64 + 1, ..header(&offer(1, &bytes), 0) };
        assert_eq!(device.intake.admit(&longer), Err(Refusal::LengthMismatch));
        assert_eq!(report(device.intake.poll()).1, Standing::Refused(ReleaseRefusal::DigestMismatch), "it is told");
        device.offer(offer(1, &bytes));
        device.fetch();
        let model = BlobHeader { kind: BlobKind::Model, ..header(&offer(1, &bytes), 0) };
        assert_eq!(device.intake.admit(&model), Err(Refusal::UnknownBlob));
        assert!(device.intake.admit(&header(&offer(1, &bytes), 0)).is_ok());
        assert!(device.intake.admit(&header(&offer(1, &bytes), 0)).is_err(), "one at a time");
    }

    #[test]
    fn a_transfer_goes_on_where_its_connection_broke() {
        let mut device = device(1 << 20);
        let said = ReleaseOffer { length: 8000, ..offer(1, b"long") };
        device.offer(said.clone());
        assert_eq!(device.fetch().offset, 0);
        device.intake.admit(&header(&said, 0)).expect("asked for");
        let reason = CloseReason { refusal: None, by_peer: false, text: "silence".into() };
        let error = ReceiveError { cause: TransferError::Closed(reason), kept: vec![7; 3000] };
        device.intake.handle_arrival(Err(error));
        device.intake.handle_disconnected();
        assert_eq!(device.intake.poll(), None);
        device.offer(said.clone());
        assert_eq!(device.fetch().offset, 2048, "whole units of 1 KiB");
        assert_eq!(device.intake.admit(&header(&said, 2048)).expect("asked for").0.len(), 3000);
    }

    #[test]
    fn inv6_only_the_newest_offer_of_a_task_waits() {
        let mut device = device(1 << 20);
        device.offer(offer(1, b"one"));
        device.fetch();
        (2..100).for_each(|version| device.offer(offer(version, b"more")));
        assert_eq!(device.intake.wanted.len(), 1);
        assert!(device.intake.handle_fetch_refused(Digest::of(b"one")));
        assert_eq!(report(device.intake.poll()).1, Standing::Refused(ReleaseRefusal::Unavailable));
        assert_eq!(device.fetch().digest, Digest::of(b"more"));
        assert!(!device.intake.handle_fetch_refused(Digest::of(b"a model")), "another fetch");
    }
}
