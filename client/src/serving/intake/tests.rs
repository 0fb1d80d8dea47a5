//! The intake without a connection: offers, transfers that break, and what the owner allows.

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
