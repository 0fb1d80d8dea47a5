//! A device that has pinned a root and serves a signed release, and the hostile aggregator that it is connected to.

use std::path::PathBuf;

use starling_client::serving::ask::Asker;
use starling_client::status::Status;
use starling_testkit::fleet::PATIENCE;
use starling_testkit::process::Process;
use starling_testkit::{Fleet, until};
use starling_trust::Document;
use starling_wire::{
    Digest, Distrust, OfferedRelease, ReleaseOffer, ReleaseRefusal, ReleaseReport, Role, Standing, ToAggregator,
    ToClient,
};

use crate::hostile::{Hostile, header};
use crate::publisher::{ENOUGH, Publisher, TASK, bundle, release_bytes};

/// The version that serves before each attack.
pub(crate) const OLD: u64 = 5;

const NAME: &str = "device-0";

pub(crate) struct Scene {
    pub(crate) publisher: Publisher,
    pub(crate) hostile: Hostile,
    fleet: Fleet,
    device: Process,
    config: PathBuf,
    /// What the device answers before the attack.
    old: Vec<f32>,
}

impl Scene {
    /// A device that serves version [`OLD`], signed as it should be.
    #[track_caller]
    pub(crate) fn new(seed: u64) -> Self {
        Self::with(seed, "")
    }

    /// The same with more lines in `[trust]`.
    #[track_caller]
    pub(crate) fn with(seed: u64, more: &str) -> Self {
        let mut scene = Self::connected(seed, more);
        let bytes = release_bytes(1.0);
        let release = scene.publisher.release(OLD, &bytes, ENOUGH);
        let (current, offer) = (scene.publisher.current(OLD, &release), offer(OLD, &bytes));
        scene.offer(&offer, bundle(&[&current, &release]));
        scene.deliver(&offer, &bytes);
        scene.old = scene.ask(OLD);
        scene
    }

    /// A device that serves nothing yet.
    #[track_caller]
    pub(crate) fn connected(seed: u64, more: &str) -> Self {
        let data = format!(
            r#"
            [trust]
            root = "../root.bundle"
            {more}
            [[task]]
            name = "{TASK}"
            [task.data]
            format = "csv"
            train = "embedded:optdigits"
            "#
        );
        let fleet = Fleet::new(env!("CARGO_BIN_EXE_starling"), seed, &data);
        let publisher = Publisher::new();
        std::fs::write(fleet.folder().join("root.bundle"), publisher.root.to_bytes()).expect("written");
        let mut hostile = Hostile::new(&fleet.pki.issue(Role::Aggregator, 1_000_000));
        let issued = fleet.pki.issue(Role::Device, 0);
        let config = fleet.configure_client_towards(NAME, &issued, 0, hostile.address());
        let device = fleet.spawn_client(NAME, &config);
        assert_eq!(hostile.welcome(), [TASK]);
        Self { publisher, hostile, fleet, device, config, old: Vec::new() }
    }

    /// Kills the device and starts it again with its state.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        self.device.kill();
        self.device = self.fleet.spawn_client(NAME, &self.config);
        assert_eq!(self.hostile.welcome(), [TASK]);
    }

    /// Offers a release.
    #[track_caller]
    pub(crate) fn offer(&mut self, offer: &ReleaseOffer, bundle: Vec<u8>) {
        self.hostile.send(&ToClient::Release(OfferedRelease { offer: offer.clone(), bundle }));
    }

    /// Offers a release with its statement and a freshness statement.
    #[track_caller]
    pub(crate) fn offer_signed(&mut self, version: u64, bytes: &[u8], documents: &[&Document]) -> ReleaseOffer {
        let offer = offer(version, bytes);
        self.offer(&offer, bundle(documents));
        offer
    }

    /// Sends the bytes that the device fetches, and waits until it serves them.
    #[track_caller]
    pub(crate) fn deliver(&mut self, offer: &ReleaseOffer, bytes: &[u8]) {
        assert_eq!(self.hostile.fetch().digest, offer.digest);
        self.hostile.serve(&header(offer), bytes);
        let report = self.report();
        assert_eq!(
            (report.version, report.standing, report.serves),
            (offer.version, Standing::Served, Some(offer.version))
        );
    }

    /// Where the device stands with what it was offered: it says so next.
    #[track_caller]
    pub(crate) fn report(&mut self) -> ReleaseReport {
        match self.hostile.next() {
            ToAggregator::Release(report) => report,
            other => panic!("expected where the device stands, got {other:?}"),
        }
    }

    /// The attack is refused with `reason`, to the aggregator and in the status, and the old model answers as before. Nothing
    /// was fetched since the offer, or what was fetched is the test's to serve.
    #[track_caller]
    pub(crate) fn assert_refused(&mut self, reason: Distrust) {
        let report = self.report();
        assert_eq!(report.standing, Standing::Refused(ReleaseRefusal::Untrusted(reason)));
        self.assert_serves_on(&report);
        until("the reason in the status", PATIENCE, || {
            let status = self.status()?;
            let release = status.releases.get(TASK)?;
            let named = release.problem.as_ref().is_some_and(|problem| problem.contains(reason.name()));
            (named && release.version == Some(OLD) && release.serving && release.signed).then_some(())
        });
    }

    /// The old model answers as before the attack.
    #[track_caller]
    pub(crate) fn assert_serves_on(&self, report: &ReleaseReport) {
        assert_eq!(report.serves, Some(OLD));
        assert_eq!(self.ask(OLD), self.old, "the old model keeps serving");
    }

    /// What the device answers, from that version.
    #[track_caller]
    pub(crate) fn ask(&self, version: u64) -> Vec<f32> {
        let (shape, outputs) = self.predict().expect("an answer");
        assert_eq!(shape, version);
        outputs
    }

    /// Version and outputs of a prediction, or why there is none.
    pub(crate) fn predict(&self) -> Result<(u64, Vec<f32>), String> {
        let mut asker = Asker::connect(&self.state_dir().join("serve.sock")).map_err(|error| error.to_string())?;
        let answer = asker.ask(TASK, 1, &[8.0; 64]).map(|(shape, outputs)| (shape.version, outputs.to_vec()));
        answer.map_err(|error| error.to_string())
    }

    pub(crate) fn status(&self) -> Option<Status> {
        Status::read(&self.state_dir()).ok()
    }

    fn state_dir(&self) -> PathBuf {
        self.fleet.folder().join(NAME).join("state")
    }
}

pub(crate) fn offer(version: u64, bytes: &[u8]) -> ReleaseOffer {
    ReleaseOffer { task: TASK.into(), version, digest: Digest::of(bytes), length: bytes.len() as u64 }
}
