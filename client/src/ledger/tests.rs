//! The ledger over crashes, restores and new certificates; prices against a closed form.

use starling_store::KeySource;
use starling_store::backup::Repository;
use starling_wire::{CodecId, DeviceId, ModelRef, RoundKind};

use super::*;
use crate::state::Shelf;

const TASK: TaskId = TaskId([3; 16]);
const BUDGET: Budget = Budget {
    per_run: None,
    lifetime: None,
    delta: 1e-6,
    trust_aggregator_noise: false,
    drawn_here: &[DpMode::Local, DpMode::Distributed],
};

fn plan(noise: &str) -> TaskPlan {
    let privacy = match noise {
        "" => String::new(),
        noise => format!(
            "[update]\nvalue_max = 64.0\n[privacy]\nweights = \"uniform\"\ndp = {{ {noise}, clip = 1.0, delta = 0.5 }}"
        ),
    };
    starling_testkit::plan::small(&privacy)
}

fn local() -> TaskPlan {
    plan("mode = \"local\", noise_multiplier = 4.0")
}

fn central() -> TaskPlan {
    plan("mode = \"central\", noise_multiplier = 4.0")
}

fn address(run: u32, round: u32) -> Address {
    Address { task: TASK, run: RunId(run), round, attempt: 1 }
}

fn start(run: u32, round: u32) -> RoundStart {
    let base = ModelRef { version: 0, digest: BASE, length: 40, codec: CodecId { family: 1, parameter: 0 } };
    RoundStart {
        address: address(run, round),
        kind: RoundKind::Train,
        base,
        deadline_ms: 1_000,
        weight_max: 100,
        clip: None,
    }
}

const BASE: Digest = Digest([1; 32]);

/// A device with a folder that survives it.
struct Device(tempfile::TempDir);

impl Device {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn state(&self) -> PathBuf {
        self.0.path().join("state")
    }

    fn store(&self) -> Store {
        Store::open(&self.state(), &KeySource::beside(&self.state())).expect("a store")
    }

    fn ledger(&self, budget: Budget) -> Ledger {
        Ledger::open(Arc::new(self.store()), &self.state(), budget).expect("a ledger")
    }

    /// Charges a round in a process that ends right after.
    fn spend(&self, budget: Budget, plan: &TaskPlan, run: u32, round: u32) -> Result<(), PolicyRule> {
        self.ledger(budget).spend(plan, &address(run, round), BASE)
    }

    fn rounds(&self, run: u32) -> (u32, u32) {
        let status = self.ledger(BUDGET).status();
        let spent = status.runs.iter().find(|spent| spent.run == run);
        spent.map_or((0, 0), |spent| (spent.rounds, spent.rounds_assumed))
    }

    fn backup(&self) {
        let backups = Repository::open(&self.0.path().join("backups")).expect("a folder");
        backups.create(&self.store(), 1, 9).expect("a backup");
    }

    /// Loses the records, and brings the backup back.
    fn restore(&self) {
        ["records", "blobs"].iter().for_each(|name| std::fs::remove_dir_all(self.state().join(name)).expect("lost"));
        let backups = Repository::open(&self.0.path().join("backups")).expect("a folder");
        backups.restore(None, &self.state(), &KeySource::beside(&self.state())).expect("restored");
    }
}

#[test]
fn inv5_what_is_spent_is_durable_before_the_call_returns() {
    let device = Device::new();
    for round in 1..=3 {
        assert_eq!(device.spend(BUDGET, &local(), 1, round), Ok(()));
    }
    assert_eq!(device.rounds(1), (3, 0));
    // Three releases of σ = 4 clips: μ² = 3/16. By Python's math.erfc and bisection (Balle and Wang's theorem 8): ε = 1.92535.
    let spent = device.ledger(BUDGET).status();
    let epsilon = spent.epsilon_spent.expect("noise bounds it");
    assert!((epsilon - EPSILON_OF_THREE).abs() < 1e-5, "{epsilon}");
}

/// See above.
const EPSILON_OF_THREE: f64 = 1.925_354;

#[test]
fn what_draws_fresh_noise_is_charged_each_time_and_the_same_bytes_once() {
    let device = Device::new();
    for _ in 0..2 {
        device.spend(BUDGET, &local(), 1, 1).expect("spent");
        device.spend(BUDGET, &central(), 2, 1).expect("spent");
        device.spend(BUDGET, &plan(""), 3, 1).expect("spent");
    }
    assert_eq!([1, 2, 3].map(|run| device.rounds(run).0), [2, 1, 1]);
    let other = Digest([2; 32]);
    device.ledger(BUDGET).spend(&central(), &address(2, 1), other).expect("spent");
    assert_eq!(device.rounds(2).0, 2, "the same round from another model is another release");
}

#[test]
fn inv13_a_runs_budget_ends_it_and_the_next_run_goes_on() {
    let device = Device::new();
    let budget = Budget { per_run: Some(EPSILON_OF_THREE + 0.01), ..BUDGET };
    (1..=3).for_each(|round| device.spend(budget, &local(), 1, round).expect("within"));
    assert_eq!(device.ledger(budget).allows(&local(), &start(1, 4)), Err(PolicyRule::EpsilonPerRun));
    assert_eq!(device.spend(budget, &local(), 1, 4), Err(PolicyRule::EpsilonPerRun));
    assert_eq!(device.rounds(1).0, 3, "what was refused is not charged");
    assert_eq!(device.spend(budget, &local(), 2, 1), Ok(()));
}

#[test]
fn inv13_the_lifetime_is_that_of_the_folder_over_runs_tasks_and_certificates() {
    let device = Device::new();
    let budget = Budget { lifetime: Some(EPSILON_OF_THREE + 0.01), ..BUDGET };
    (1..=3).for_each(|run| device.spend(budget, &local(), run, 1).expect("within"));
    // Another certificate: what belonged to the device before is cleared, but not this.
    drop(Shelf::open(Arc::new(device.store()), DeviceId([9; 16])).expect("a shelf"));
    let elsewhere = Address { task: TaskId([8; 16]), ..address(1, 1) };
    let ledger = device.ledger(budget);
    assert_eq!(ledger.spend(&local(), &elsewhere, BASE), Err(PolicyRule::EpsilonLifetime));
    assert_eq!(ledger.allows(&local(), &start(4, 1)), Err(PolicyRule::EpsilonLifetime));
}

#[test]
fn inv13_only_noise_that_the_device_can_vouch_for_counts() {
    let device = Device::new();
    let budget = Budget { lifetime: Some(100.0), ..BUDGET };
    let rule = |budget: Budget, plan: &TaskPlan| device.ledger(budget).allows(plan, &start(1, 1));
    assert_eq!(rule(budget, &plan("")), Err(PolicyRule::Noise));
    assert_eq!(rule(budget, &central()), Err(PolicyRule::Noise));
    assert_eq!(rule(Budget { trust_aggregator_noise: true, ..budget }, &central()), Ok(()));
    assert_eq!(rule(budget, &local()), Ok(()));
    assert_eq!(rule(Budget { drawn_here: &[], ..budget }, &local()), Err(PolicyRule::Noise), "nobody here draws it");
    assert_eq!(rule(BUDGET, &plan("")), Ok(()), "without a budget nothing is asked");
}

#[test]
fn inv13_a_past_without_noise_leaves_nothing_of_a_budget() {
    let device = Device::new();
    device.spend(BUDGET, &plan(""), 1, 1).expect("no budget was set then");
    assert_eq!(device.ledger(BUDGET).status().epsilon_spent, None);
    let budget = Budget { lifetime: Some(100.0), ..BUDGET };
    assert_eq!(device.ledger(budget).allows(&local(), &start(2, 1)), Err(PolicyRule::EpsilonLifetime));
}

#[test]
fn inv5_a_restored_ledger_shows_no_less_than_was_released() {
    let device = Device::new();
    (1..=2).for_each(|round| device.spend(BUDGET, &local(), 1, round).expect("spent"));
    device.backup();
    (3..=7).for_each(|round| device.spend(BUDGET, &local(), 1, round).expect("spent"));
    device.spend(BUDGET, &local(), 2, 1).expect("spent");
    device.restore();
    // Round 8 is asked for: rounds 1 to 7 may all have been this device's, and 8 may have been under way.
    device.spend(BUDGET, &local(), 1, 8).expect("spent");
    let (rounds, assumed) = device.rounds(1);
    assert!(rounds >= 8, "7 were released before, and this one");
    assert_eq!((rounds, assumed), (9, 6));
    // From here on it counts one by one again.
    device.spend(BUDGET, &local(), 1, 9).expect("spent");
    assert_eq!(device.rounds(1), (10, 6));
    device.spend(BUDGET, &local(), 2, 2).expect("spent");
    assert_eq!(device.rounds(2), (3, 2), "round 1 of a run that the backup knew nothing of");
    assert_eq!(device.ledger(BUDGET).status().restores_unbounded, 1);
}

#[test]
fn inv5_after_a_restore_nothing_is_left_of_a_lifetime_until_its_owner_raises_it() {
    let device = Device::new();
    let budget = |lifetime: f64| Budget { lifetime: Some(lifetime), ..BUDGET };
    device.spend(budget(10.0), &local(), 1, 1).expect("spent");
    device.backup();
    (1..=3).for_each(|run| device.spend(budget(10.0), &local(), 10 + run, 1).expect("spent"));
    device.restore();
    let status = device.ledger(budget(10.0)).status();
    let spent = status.epsilon_spent.expect("bounded");
    assert!((spent - 10.0).abs() < 1e-6 && status.epsilon_lost > 8.0, "{status:?}");
    assert_eq!(device.ledger(budget(10.0)).allows(&local(), &start(20, 1)), Err(PolicyRule::EpsilonLifetime));
    let lost = device.ledger(budget(15.0)).status().epsilon_lost;
    assert!((lost - status.epsilon_lost).abs() < 1e-12, "a restore is charged once");
    assert_eq!(device.ledger(budget(15.0)).allows(&local(), &start(20, 1)), Ok(()));
}

#[test]
fn inv6_runs_without_end_keep_their_sum_and_not_their_records() {
    let device = Device::new();
    let ledger = device.ledger(BUDGET);
    {
        let mut books = ledger.lock();
        let spent = ledger.after(&books, &local(), &address(1, 1), BASE);
        for run in 0..u32::try_from(RUNS_MAX).expect("small") {
            let written_unix_s = u64::from(run);
            books.runs.insert((TASK, RunId(run)), Spent { written_unix_s, ..spent.clone() });
        }
    }
    let before = ledger.status().epsilon_spent.expect("bounded");
    ledger.spend(&local(), &address(5_000, 1), BASE).expect("spent");
    let books = ledger.lock();
    assert!(books.runs.len() == RUNS_MAX && !books.runs.contains_key(&(TASK, RunId(0))));
    assert!((books.head.folded - 1.0 / 16.0).abs() < 1e-12);
    assert!(books.total(&BUDGET) > before);
}

#[test]
fn inv13_turns_that_the_price_rests_on_are_kept_by_the_device_itself() {
    let device = Device::new();
    let tree = "mode = \"central\", noise_multiplier = 4.0, mechanism = { tree = { participations_max = 2, separation_min = 3 } }";
    let plan = starling_testkit::plan::small(&format!(
        "[update]\nvalue_max = 64.0\n[federation]\ndevices = 9\n[privacy]\nweights = \"uniform\"\ndp = {{ {tree}, clip = 1.0, delta = 0.5 }}"
    ));
    let spend = |round| device.spend(BUDGET, &plan, 1, round);
    assert_eq!(spend(4), Ok(()));
    assert_eq!(spend(4), Ok(()), "the same again is the same turn");
    assert_eq!(device.ledger(BUDGET).allows(&plan, &start(1, 6)), Err(PolicyRule::Turns), "too close");
    assert_eq!((spend(6), spend(3)), (Err(PolicyRule::Turns), Err(PolicyRule::Turns)));
    let budget = Budget { trust_aggregator_noise: true, ..BUDGET };
    let one = device.ledger(budget).status().epsilon_spent.expect("noise bounds it");
    assert_eq!(spend(7), Ok(()));
    assert_eq!(spend(10), Err(PolicyRule::Turns), "too many");
    assert_eq!(device.rounds(1).0, 2);
    let two = device.ledger(budget).status().epsilon_spent.expect("noise bounds it");
    assert!(two > one, "{two} after {one}");
}

/// A plan under which a device of 1,000 examples draws each with a probability of 0.01 in each of 100 steps.
fn private(more: &str) -> TaskPlan {
    let dp_sgd = format!("{{ clip = 1.0, noise_multiplier = 1.1, delta = 1e-5{more} }}");
    starling_testkit::plan::small(&format!("[train]\nbatch = 10\nepochs = 1\ndp_sgd = {dp_sgd}"))
}

/// Charges a training on 1,000 examples in a process that ends right after.
fn train(device: &Device, plan: &TaskPlan, run: u32, round: u32, owners: Option<f64>) -> Result<(), PolicyRule> {
    device.ledger(BUDGET).spend_examples(plan, &address(run, round), 1_000, owners)
}

/// What the accountant says of so many trainings of 100 steps with q = 0.01 and z = 1.1.
fn accounted(trainings: u32, delta: f64) -> f64 {
    let steps = starling_privacy::SampledGaussian::new(0.01, 1.1, 100 * trainings).expect("steps");
    starling_privacy::Accountant::Pld.epsilon(&[steps], delta).expect("an epsilon")
}

#[test]
fn inv5_trainings_with_noise_on_examples_are_counted_before_they_begin_and_over_restarts() {
    let device = Device::new();
    (1..=3).for_each(|round| train(&device, &private(""), 1, round, None).expect("there is no budget"));
    train(&device, &private(""), 1, 3, None).expect("the same round again has other noise");
    let status = device.ledger(BUDGET).status();
    let [spent] = &status.examples[..] else { panic!("{status:?}") };
    assert_eq!((spent.rounds, spent.rounds_assumed, spent.steps), (4, 0, 400));
    assert_eq!(spent.epsilon, Some(accounted(4, BUDGET.delta)), "at the owner's delta");
    assert!(status.runs.is_empty(), "another unit, another table");
    device.ledger(BUDGET).spend_examples(&private(""), &address(1, 4), 500, None).expect("fewer examples now");
    let status = device.ledger(BUDGET).status();
    assert_eq!((status.examples[0].sampling_rate, status.examples[0].steps), (0.02, 450), "all at the larger rate");
}

#[test]
fn inv13_a_training_that_would_pass_a_budget_of_examples_does_not_begin() {
    let within = |most: f64| format!(", epsilon_max = {most}");
    let two_and_a_bit = accounted(2, 1e-5) * 1.000_001;
    let device = Device::new();
    let plan = private(&within(two_and_a_bit));
    let both = [1, 2].map(|round| train(&device, &plan, 1, round, None));
    assert_eq!(both, [Ok(()), Ok(())]);
    assert_eq!(train(&device, &plan, 1, 3, None), Err(PolicyRule::EpsilonExample), "the plan's");
    assert_eq!(device.ledger(BUDGET).status().examples[0].rounds, 2, "what does not begin costs nothing");
    let owners = Some(accounted(1, BUDGET.delta) * 1.000_001);
    assert_eq!(train(&device, &private(""), 2, 1, owners), Ok(()));
    assert_eq!(train(&device, &private(""), 2, 2, owners), Err(PolicyRule::EpsilonExample), "the owner's");
    assert_eq!(train(&device, &private(""), 3, 1, owners), Ok(()), "another run");
    // Once turned away, a run is declined before a model is fetched for it.
    let ledger = device.ledger(BUDGET);
    assert_eq!(ledger.allows_examples(&plan, &address(1, 3), None), Ok(()));
    let refused = ledger.spend_examples(&plan, &address(1, 3), 1_000, None);
    assert_eq!(refused, Err(PolicyRule::EpsilonExample));
    assert_eq!(ledger.allows_examples(&plan, &address(1, 4), None), Err(PolicyRule::EpsilonExample));
    assert_eq!(ledger.allows_examples(&local(), &address(1, 4), None), Ok(()));
    assert_eq!(
        ledger.allows_examples(&local(), &address(1, 4), owners),
        Err(PolicyRule::Noise),
        "noise on updates is another unit"
    );
}

#[test]
fn inv5_a_restored_ledger_counts_the_trainings_that_may_have_been() {
    let device = Device::new();
    train(&device, &private(""), 1, 1, None).expect("charged");
    device.backup();
    (2..=4).for_each(|round| train(&device, &private(""), 1, round, None).expect("charged"));
    device.restore();
    train(&device, &private(""), 1, 5, None).expect("charged");
    let spent = &device.ledger(BUDGET).status().examples[0];
    // Rounds 1 to 4, 5 that may have been under way, and 5 now.
    assert_eq!((spent.rounds, spent.rounds_assumed, spent.steps), (6, 4, 600));
}

#[test]
fn inv6_a_ledger_that_is_full_begins_no_budget_anew() {
    let device = Device::new();
    let ledger = device.ledger(BUDGET);
    ledger.spend_examples(&private(""), &address(1, 1), 1_000, None).expect("charged");
    {
        let mut books = ledger.lock();
        let spent = books.examples[&(TASK, RunId(1))].clone();
        let others = (2..=u32::try_from(RUNS_MAX).expect("small")).map(|run| ((TASK, RunId(run)), spent.clone()));
        books.examples.extend(others);
    }
    let full = ledger.spend_examples(&private(""), &address(9_999, 1), 1_000, None);
    assert_eq!(full, Err(PolicyRule::Ledger));
    ledger.spend_examples(&private(""), &address(1, 2), 1_000, None).expect("a run that it knows goes on");
}
