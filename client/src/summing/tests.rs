//! Devices with real certificates and journals, and an aggregator that is honest or not, without sockets.

use std::path::Path;

use starling_testkit::pki::Pki;
use starling_update::SecureRound;
use starling_wire::{Digest, ModelRef, PolicyRule, Role, RoundKind, TaskId, UpdateReport};

mod witness;

use super::*;
use crate::learner::Trained;
use crate::ledger::Budget;
use crate::state::tests::open_store;

const PARAMETERS: usize = 10;

fn plan() -> Arc<TaskPlan> {
    plan_with("clip = 10.0")
}

/// One whose devices add noise, more than five clipping norms of it in the smallest sum.
fn noisy_plan() -> Arc<TaskPlan> {
    plan_with(
        "weights = \"uniform\"\ndp = { mode = \"distributed\", clip = 10.0, noise_multiplier = 5.0, delta = 1e-5 }",
    )
}

fn plan_with(more: &str) -> Arc<TaskPlan> {
    let secure = r#"
        [federation]
        devices = 4
        [update]
        codec = "q8"
        weight_max = 100
        [privacy]
        secure_aggregation = true
        dropout = 0.3
    "#;
    Arc::new(starling_testkit::plan::small(&format!("{secure}{more}")))
}

fn start(attempt: u16) -> RoundStart {
    let address = Address { task: TaskId(plan().id()), run: RunId(1), round: 1, attempt };
    let codec = starling_wire::CodecId { family: 1, parameter: 0 };
    let base = ModelRef { version: 0, digest: Digest::of(b"model"), length: 40, codec };
    RoundStart { address, kind: RoundKind::Train, base, deadline_ms: 1000, weight_max: 100, clip: None }
}

/// A device, its folder and its keeper.
struct Device {
    folder: tempfile::TempDir,
    credentials: Credentials,
    plan: Arc<TaskPlan>,
    keeper: Keeper,
}

/// Two releases with noise of five clipping norms cost an ε of 1.16 at this δ, and three 1.45.
const BUDGET: Budget = Budget {
    per_run: None,
    lifetime: Some(1.4),
    delta: 1e-5,
    trust_aggregator_noise: false,
    drawn_here: crate::worker::NOISE_DRAWN_HERE,
};

fn keeper(folder: &Path, device: DeviceId, plan: &TaskPlan) -> Keeper {
    let store = Arc::new(open_store(folder).expect("a store"));
    let noisy = plan.privacy.as_ref().is_some_and(|privacy| privacy.asked.dp.is_some());
    let budget = if noisy { BUDGET } else { Budget { lifetime: None, ..BUDGET } };
    let ledger = Arc::new(Ledger::open(Arc::clone(&store), folder, budget).expect("a ledger"));
    let owed = Owed::new(Arc::clone(&store));
    Keeper { journal: Journal::new(store), device, ledger, owed, rounds: BTreeMap::new() }
}

impl Device {
    fn new(pki: &Pki, index: u32) -> Self {
        Self::under(plan(), pki, index)
    }

    fn under(plan: Arc<TaskPlan>, pki: &Pki, index: u32) -> Self {
        let issued = pki.issue(Role::Device, index);
        let folder = tempfile::tempdir().expect("a folder");
        let tls = starling_testkit::pki::deploy(&issued, &folder.path().join("tls"), None);
        let files = starling_net::TlsFiles { ca: tls.ca, certificate: tls.certificate, key: tls.key };
        let credentials = Credentials::load(&files).expect("credentials");
        let keeper = keeper(folder.path(), credentials.identity().id, &plan);
        Self { folder, credentials, plan, keeper }
    }

    fn id(&self) -> DeviceId {
        self.credentials.identity().id
    }

    /// The process ends, and another one begins on the same disk.
    fn restart(self) -> Self {
        let Self { folder, credentials, plan, keeper: before } = self;
        drop(before);
        let keeper = keeper(folder.path(), credentials.identity().id, &plan);
        Self { folder, credentials, plan, keeper }
    }

    fn carry_out(&mut self, order: Order) -> Result<Option<SecureMail>, Refusal> {
        let reports = self.keeper.carry_out(order);
        match reports.into_iter().next() {
            Some(Report::Secure { result, .. }) => result,
            _ => panic!("an order of an attempt is answered"),
        }
    }

    fn enter(&mut self, attempt: u16) -> Result<SecureMail, Refusal> {
        let credentials = Box::new(self.credentials.clone());
        let start = RoundStart { weight_max: self.plan.update.weight_max, ..start(attempt) };
        let order = Order::Enter { plan: Arc::clone(&self.plan), start, credentials, terms: Terms::default() };
        self.carry_out(order).map(|mail| mail.expect("keys"))
    }

    fn answer(&mut self, attempt: u16, letter: SecureLetter) -> Result<Option<SecureMail>, Refusal> {
        self.carry_out(Order::Answer { address: start(attempt).address, letter })
    }

    /// The update of this device: all of it `value`.
    fn mask(&mut self, value: f32) -> Arc<Sealed> {
        self.try_mask(value).expect("the shares are there, so the update is masked")
    }

    fn try_mask(&mut self, value: f32) -> Result<Arc<Sealed>, Decline> {
        let report = UpdateReport { weight: 100, train_loss: 1.0, steps: 1, within_clip: false };
        let trained = Trained { delta: vec![value; PARAMETERS], report };
        let trained = Box::new(ToMask { trained, figures: None });
        let job = job();
        let mut reports = self.keeper.carry_out(Order::Mask { job, run: RunId(1), round: 1, trained });
        match reports.pop() {
            Some(Report::Trained { result, .. }) => result,
            _ => panic!("the shares are there"),
        }
    }
}

/// A job's name, which only a participant gives.
fn job() -> JobId {
    use starling_protocol::participant::{Action, Consent, Participant};
    struct Yes;
    impl Consent for Yes {
        fn consent(&self, _: &TaskPlan, _: &RoundStart) -> Result<(), Decline> {
            Ok(())
        }
    }
    let mut participant = Participant::new(Box::new(Yes));
    participant.handle_connected(1);
    let (task, name) = (start(1).address.task, plan().name.clone());
    let announced = starling_wire::RunPlan {
        run: RunId(1),
        owner_epoch: 1,
        task,
        name,
        plan: plan().to_json(),
        bundle: Vec::new(),
    };
    participant.handle_plan(&announced, Some(start(1).base.digest));
    participant.handle_round_start(&start(1), 0);
    let actions = std::iter::from_fn(|| participant.poll_action());
    let job =
        actions.filter_map(|action| if let Action::Train(order) = action { Some(order.job) } else { None }).next();
    job.expect("it trains")
}

/// An aggregator in one attempt.
struct Aggregator {
    round: SecureRound,
    certified: Certified,
    certificates: Vec<Vec<u8>>,
    rolls: Vec<starling_wire::Roll>,
    judge: Credentials,
}

impl Aggregator {
    fn new(plan: &TaskPlan, pki: &Pki, attempt: u16) -> Self {
        let issued = pki.issue(Role::Aggregator, 99);
        let folder = tempfile::tempdir().expect("a folder");
        let tls = starling_testkit::pki::deploy(&issued, &folder.path().join("tls"), None);
        let files = starling_net::TlsFiles { ca: tls.ca, certificate: tls.certificate, key: tls.key };
        let sums = SecureSums::of(plan, PARAMETERS).expect("numbers").expect("secure sums");
        let round = SecureRound::new(&sums.setup(start(attempt).address, start(attempt).base.digest)).expect("a setup");
        let judge = Credentials::load(&files).expect("credentials");
        Self { round, certified: Certified::default(), certificates: Vec::new(), rolls: Vec::new(), judge }
    }

    fn take(&mut self, device: DeviceId, mail: &SecureMail) {
        let chain: Vec<&[u8]> = mail.chain.iter().map(|certificate| certificate.as_slice()).collect();
        self.certificates.extend(chain.iter().map(|certificate| certificate.to_vec()));
        self.certified.extend(Certified::check(&self.judge, chain));
        self.round.take(device, &mail.message, &self.certified).expect("it is taken");
    }

    fn letter(&self, device: &DeviceId) -> SecureLetter {
        let message = self.round.message(device).expect("it is asked").to_vec();
        let named = self.round.names_members();
        let certificates = if named { self.certificates.clone() } else { Vec::new() };
        SecureLetter { message, certificates, rolls: self.rolls.iter().filter(|_| named).cloned().collect() }
    }
}

/// Devices that have shown their keys, and the aggregator with the roster.
fn advertised(pki: &Pki, count: u32) -> (Aggregator, Vec<Device>) {
    let mut devices: Vec<Device> = (0..count).map(|index| Device::new(pki, index)).collect();
    (begin(pki, 1, &mut devices), devices)
}

/// The aggregator of an attempt with the roster of these devices.
fn begin(pki: &Pki, attempt: u16, devices: &mut [Device]) -> Aggregator {
    let mut aggregator = Aggregator::new(&devices[0].plan, pki, attempt);
    for device in devices {
        let mail = device.enter(attempt).expect("it enters");
        aggregator.take(device.id(), &mail);
    }
    aggregator.round.close().expect("a roster");
    aggregator
}

/// All of them answer what the open stage asks, and it is closed.
fn stage(aggregator: &mut Aggregator, devices: &mut [Device]) {
    stage_of(1, aggregator, devices);
}

fn stage_of(attempt: u16, aggregator: &mut Aggregator, devices: &mut [Device]) {
    for device in devices {
        let letter = aggregator.letter(&device.id());
        let mail = device.answer(attempt, letter).expect("an answer").expect("a message");
        aggregator.take(device.id(), &mail);
    }
    aggregator.round.close().expect("enough");
}

#[test]
fn devices_with_certificates_give_their_sum_and_nothing_else() {
    let pki = Pki::new(1);
    let (mut aggregator, mut devices) = advertised(&pki, 4);
    stage(&mut aggregator, &mut devices);
    for (device, value) in devices.iter_mut().zip([0.5, -0.25, 1.0, 0.75]) {
        assert_eq!(device.answer(1, aggregator.letter(&device.id())), Ok(None), "envelopes are not answered");
        let sealed = device.mask(value);
        let mail = SecureMail { address: start(1).address, message: sealed.bytes().to_vec(), chain: Vec::new() };
        aggregator.take(device.id(), &mail);
    }
    aggregator.round.close().expect("survivors");
    stage(&mut aggregator, &mut devices);
    stage(&mut aggregator, &mut devices);
    let sums = SecureSums::of(&plan(), PARAMETERS).expect("numbers").expect("secure sums");
    let summed = aggregator.round.summed(&sums).expect("a sum").expect("a mean");
    assert_eq!((summed.weight, summed.within_clip), (400, Some(1.0)));
    for value in summed.mean {
        assert!((f64::from(value) - 0.5).abs() < 4.0 * sums.numerics().scale(), "{value}");
    }
}

#[test]
fn a_roster_with_a_member_of_another_ca_is_left() {
    let (pki, foreign) = (Pki::new(1), Pki::new(1));
    let (mut aggregator, mut devices) = advertised(&pki, 3);
    // The same id with a certificate of a CA that the aggregator made for itself.
    let stranger = Device::new(&foreign, 2);
    let chain = stranger.credentials.chain();
    aggregator.certificates = devices[..2].iter().flat_map(|device| device.credentials.chain()).chain(chain).collect();
    let letter = aggregator.letter(&devices[0].id());
    assert_eq!(devices[0].answer(1, letter), Err(Refusal::SecureUncertifiedMember));
    let letter = aggregator.letter(&devices[0].id());
    assert_eq!(devices[0].answer(1, letter), Err(Refusal::SecureBurned), "the keys are gone");
}

#[test]
fn a_member_under_two_certified_keys_counts_as_none() {
    let pki = Pki::new(1);
    let (mut aggregator, mut devices) = advertised(&pki, 3);
    let twin = Device::new(&pki, 1);
    aggregator.certificates.extend(twin.credentials.chain());
    let letter = aggregator.letter(&devices[0].id());
    assert_eq!(devices[0].answer(1, letter), Err(Refusal::SecureUncertifiedMember));
}

#[test]
fn inv5_a_process_that_starts_again_repeats_itself_and_says_nothing_new() {
    let pki = Pki::new(1);
    let (mut aggregator, mut devices) = advertised(&pki, 3);
    stage(&mut aggregator, &mut devices);
    let device = devices.remove(0);
    let letter = aggregator.letter(&device.id());
    let said = device.keeper.journal.restored(&setup()).expect("a journal");
    let (keys, shares) = (said.advertisement().expect("keys").to_vec(), said.handle(&[1, 2]).expect("shares").to_vec());
    let mut device = device.restart();
    let again = device.enter(1).expect("it says what it said");
    assert_eq!(again.message, keys);
    let roster = SecureLetter { message: vec![1, 2], ..SecureLetter::default() };
    assert_eq!(device.answer(1, roster).expect("what it said").expect("shares").message, shares);
    assert_eq!(device.answer(1, letter), Err(Refusal::SecureBurned), "its keys died with the process");
}

#[test]
fn inv5_a_masked_update_is_sent_again_as_the_update_that_it_is() {
    let pki = Pki::new(1);
    let (mut aggregator, mut devices) = advertised(&pki, 3);
    stage(&mut aggregator, &mut devices);
    let mut device = devices.remove(0);
    let letter = aggregator.letter(&device.id());
    assert_eq!(device.answer(1, letter.clone()), Ok(None), "envelopes are not answered");
    let masked = device.mask(0.5);
    let mut device = device.restart();
    device.enter(1).expect("it says what it said");
    assert_eq!(device.answer(1, letter), Ok(None), "an update is no letter: it may be longer than any frame");
    // Training again may come to something else; what was masked stays what it is.
    let again = device.mask(0.25);
    assert_eq!((again.bytes(), again.digest()), (masked.bytes(), masked.digest()));
}

fn setup() -> starling_secagg::Setup {
    let sums = SecureSums::of(&plan(), PARAMETERS).expect("numbers").expect("secure sums");
    sums.setup(start(1).address, start(1).base.digest)
}

#[test]
fn an_attempt_before_the_latest_is_never_entered_again() {
    let pki = Pki::new(1);
    let mut device = Device::new(&pki, 0);
    device.enter(2).expect("it enters");
    assert_eq!(device.enter(1), Err(Refusal::SecureReplayedRound), "nothing was said in it, and nothing will be");
    device.enter(3).expect("a later one");
}

#[test]
fn a_disk_from_before_the_attempt_makes_other_keys_and_masks_nothing_twice() {
    let pki = Pki::new(1);
    let mut device = Device::new(&pki, 0);
    let keys = device.enter(1).expect("it enters").message;
    // The folder as it was before: nothing of the attempt is in it.
    let id = device.id();
    let old = tempfile::tempdir().expect("a folder");
    device.keeper = keeper(old.path(), id, &plan());
    let mail = device.enter(1).expect("it cannot know");
    assert_ne!(mail.message, keys, "fresh keys, so no mask is the same");
}

#[test]
fn leaving_keeps_that_the_attempt_was_begun_and_drops_what_was_said() {
    let pki = Pki::new(1);
    let (_, mut devices) = advertised(&pki, 3);
    let device = &mut devices[0];
    assert_eq!(device.keeper.carry_out(Order::Leave(start(1).address)).len(), 0);
    assert!(device.keeper.journal.restored(&setup()).expect("a journal").advertisement().is_none());
    assert_eq!(device.enter(1), Err(Refusal::SecureReplayedRound));
}

#[test]
fn inv5_each_masked_update_with_noise_is_charged_and_none_is_made_beyond_the_budget() {
    let pki = Pki::new(1);
    let mut devices: Vec<Device> = (0..4).map(|index| Device::under(noisy_plan(), &pki, index)).collect();
    let mut masked = Vec::new();
    for attempt in 1..=3 {
        let mut aggregator = begin(&pki, attempt, &mut devices);
        stage_of(attempt, &mut aggregator, &mut devices);
        let device = &mut devices[0];
        let letter = aggregator.letter(&device.id());
        assert_eq!(device.answer(attempt, letter), Ok(None), "envelopes are not answered");
        let made = device.try_mask(0.5);
        let spent = &device.keeper.ledger.status().runs[0];
        if attempt < 3 {
            masked.push(made.expect("there is budget left"));
            assert_eq!(spent.rounds, u32::from(attempt), "each attempt has noise of its own");
        } else {
            assert!(matches!(made, Err(Decline::Policy(PolicyRule::EpsilonLifetime))), "the budget is gone");
            assert_eq!(spent.rounds, 2);
            let letter = aggregator.letter(&device.id());
            assert_eq!(device.answer(3, letter), Err(Refusal::SecureBurned), "and the keys with it");
        }
    }
    assert_ne!(masked[0].bytes(), masked[1].bytes());
}

#[test]
fn a_sum_of_zeros_has_the_noise_of_its_survivors_and_says_nothing_else() {
    let pki = Pki::new(1);
    let mut devices: Vec<Device> = (0..4).map(|index| Device::under(noisy_plan(), &pki, index)).collect();
    let mut aggregator = begin(&pki, 1, &mut devices);
    stage(&mut aggregator, &mut devices);
    for device in &mut devices {
        let letter = aggregator.letter(&device.id());
        assert_eq!(device.answer(1, letter), Ok(None), "envelopes are not answered");
        let message = device.mask(0.0).bytes().to_vec();
        aggregator.take(device.id(), &SecureMail { address: start(1).address, message, chain: Vec::new() });
    }
    aggregator.round.close().expect("survivors");
    stage(&mut aggregator, &mut devices);
    stage(&mut aggregator, &mut devices);
    let sums = SecureSums::of(&noisy_plan(), PARAMETERS).expect("numbers").expect("secure sums");
    let summed = aggregator.round.summed(&sums).expect("a sum").expect("a mean");
    assert_eq!((summed.weight, summed.within_clip), (4, None));
    assert!(summed.train_loss.is_nan(), "noise would drown it");
    // Four shares, of which three make five clipping norms of ten: 58 on the sum, 14.4 on the mean. Without noise all would be zero.
    let energy: f64 = summed.mean.iter().map(|value| f64::from(*value).powi(2)).sum();
    let deviation = (energy / PARAMETERS as f64).sqrt();
    assert!((4.0..40.0).contains(&deviation), "{deviation}");
}

#[test]
fn inv5_what_a_shared_subset_leaves_out_is_owed_until_it_is_sent() {
    let pki = Pki::new(1);
    let plan = plan_with("clip = 10.0\nsubset = 0.5");
    let mut devices: Vec<Device> = (0..4).map(|index| Device::under(Arc::clone(&plan), &pki, index)).collect();
    let mut aggregator = begin(&pki, 1, &mut devices);
    stage(&mut aggregator, &mut devices);
    let session = aggregator.round.sessions()[0];
    let device = &mut devices[0];
    let letter = aggregator.letter(&device.id());
    assert_eq!(device.answer(1, letter), Ok(None), "envelopes are not answered");
    device.mask(0.5);
    let address = start(1).address;
    let owed = |device: &Device| {
        let residual = device.keeper.owed.before(address.task, &Address { round: 2, ..address }, PARAMETERS);
        residual.expect("a residual").units().to_vec()
    };
    device.keeper.owed.settle(address.task, &address, false).expect("settled");
    assert_eq!(owed(device), [0; PARAMETERS], "an update that is in no version takes all of it with it");
    device.keeper.owed.settle(address.task, &address, true).expect("settled");
    let sums = SecureSums::of(&plan, PARAMETERS).expect("numbers").expect("secure sums");
    let sent: Vec<usize> = sums.numerics().subset(&session).expect("half of them").collect();
    assert_eq!(sent.len(), 5);
    // In steps of 2⁻⁴⁰.
    let expected: Vec<i64> = (0..PARAMETERS).map(|index| if sent.contains(&index) { 0 } else { 1 << 39 }).collect();
    assert_eq!(owed(device), expected);
}
