//! A cohort in several secure sums, through the machines of devices and aggregator.

#[path = "../../secagg/tests/rounds/world.rs"]
#[allow(dead_code, reason = "the tests of secure aggregation use the rest")]
mod world;

use std::collections::{BTreeMap, BTreeSet};

use starling_privacy::noise::Simulated;
use starling_secagg::{Aborted, Guard};
use starling_spec::random::{Purpose, Random, device_key};
use starling_spec::{TaskFile, TaskPlan};
use starling_update::{Local, SecurePart, SecureRound, SecureSums, Summed};
use starling_wire::{Address, DeviceId, Digest, RunId, TaskId, UpdateReport};
use world::{Certificates, Identity, device_id, entropy};

const DEVICES: usize = 15;
const PARAMETERS: usize = 4_010;

fn plan(privacy: &str) -> TaskPlan {
    let text = format!(
        r#"
        name = "t"
        kind = "classification"
        [data]
        format = "csv"
        train = "embedded:optdigits"
        shape = [400]
        [model]
        layers = [{{ linear = {{ out = 10 }} }}]
        [federation]
        devices = {DEVICES}
        [update]
        codec = "q16"
        weight_max = 100
        [privacy]
        secure_aggregation = true
        clip = 1.0
        corrupt = 0.0
        dropout = 0.0
        {privacy}
        "#
    );
    TaskPlan::new(&TaskFile::parse(&text, &[]).expect("a task"), 5).expect("a plan")
}

/// A round's devices, and the aggregator.
struct Cohort {
    plan: TaskPlan,
    sums: SecureSums,
    round: SecureRound,
    certificates: Certificates,
    parts: BTreeMap<DeviceId, SecurePart>,
}

impl Cohort {
    /// Everybody's keys are in.
    fn begin(plan: TaskPlan, attempt: u16) -> Self {
        let sums = SecureSums::of(&plan, PARAMETERS).expect("numbers").expect("secure sums");
        let address = Address { task: TaskId(plan.id()), run: RunId(1), round: 1, attempt };
        let model = Digest::of(b"model");
        let ids: Vec<DeviceId> = (0..DEVICES).map(device_id).collect();
        let certificates = Certificates::of(&ids);
        let mut round = SecureRound::of(&sums, address, model).expect("a setup");
        let (setup, policy) = (sums.setup(address, model), sums.policy(0));
        let enter = |id: DeviceId| {
            let mut guard = Guard::new(RunId(1));
            let (entropy, key) = (entropy(&id, attempt.into()), Identity::of(&id));
            let asked = (&setup, &policy, plan.seed);
            let (part, said) =
                SecurePart::enter(&sums, asked, id, &mut guard, &entropy, &key).expect("it is fit to enter");
            round.take(id, &said.persisted(), &certificates).expect("good keys");
            (id, part)
        };
        let parts = ids.into_iter().map(enter).collect();
        Self { plan, sums, round, certificates, parts }
    }

    /// The other stages, in which devices send what `delta` says, or nothing from the masks on.
    fn finish(
        &mut self,
        delta: &dyn Fn(&DeviceId) -> Option<Vec<f32>>,
    ) -> Result<(Summed, BTreeSet<DeviceId>), Aborted> {
        for _ in 0..4 {
            for id in self.round.close()? {
                let asked = self.round.message(&id).expect("it is asked").clone();
                let part = self.parts.get_mut(&id).expect("a device");
                let answer = part.answer(&asked, &self.certificates, &Identity::of(&id)).expect("nobody cheats");
                let said = answer.or_else(|| {
                    let delta = delta(&id)?;
                    let report = UpdateReport { weight: 50, train_loss: 2.0, steps: 1, within_clip: false };
                    let local = Local { delta: &delta, report: &report, figures: None };
                    let mut words = Simulated::new(self.plan.seed, &[device_key(id.0)]);
                    Some(part.mask(local, None, &mut words).expect("a good update").0)
                });
                if let Some(said) = said {
                    self.round.take(id, &said.persisted(), &self.certificates).expect("a good answer");
                }
            }
        }
        let survivors = self.round.close()?;
        Ok((self.round.summed(&self.sums).expect("sums").expect("means"), survivors))
    }
}

/// What honest devices send: about 0.1 of the norm in a common direction, and as much of their own.
fn honest(id: &DeviceId) -> Vec<f32> {
    let mut random = Random::new(1, Purpose::Noise, &[device_key(id.0)]);
    #[allow(clippy::cast_possible_truncation, reason = "a test's delta")]
    (0..PARAMETERS).map(|_| (0.1 * (1.0 + random.normal()) / (PARAMETERS as f64).sqrt()) as f32).collect()
}

/// How far `mean` goes in the honest devices' common direction: 0.1 is all the way.
fn along(mean: &[f32]) -> f64 {
    mean.iter().map(|value| f64::from(*value)).sum::<f64>() / (PARAMETERS as f64).sqrt()
}

#[test]
fn two_poisoned_updates_decide_a_sum_and_no_median_of_groups() {
    // Each as long as the norm allows, against the common direction.
    let of = |privacy: &str, poisoned: &[usize]| {
        let poisoned: Vec<DeviceId> = poisoned.iter().copied().map(device_id).collect();
        let against = vec![-1.0 / (PARAMETERS as f32).sqrt(); PARAMETERS];
        let delta = |id: &DeviceId| Some(if poisoned.contains(id) { against.clone() } else { honest(id) });
        Cohort::begin(plan(privacy), 1).finish(&delta).expect("sums")
    };
    let (whole, survivors) = of("", &[2, 9]);
    assert_eq!((survivors.len(), whole.weight), (DEVICES, 50 * DEVICES as u64));
    // (13 · 0.1 − 2 · 1) / 15.
    assert!((along(&whole.mean) + 0.0467).abs() < 0.005, "{}", along(&whole.mean));
    // Of five groups a trimmed mean leaves one out, a median two.
    for (rule, poisoned) in [("median", &[2, 9][..]), ("trimmed_mean", &[2])] {
        let (grouped, survivors) = of(&format!("groups = 5\ngroup_rule = \"{rule}\""), poisoned);
        assert_eq!((survivors.len(), grouped.weight), (DEVICES, 50 * DEVICES as u64));
        assert!((grouped.train_loss - 2.0).abs() < 1e-3, "{}", grouped.train_loss);
        // The least of what honest groups say of each coordinate, or near it: 0.1 less 0.85 deviations (of the mean of three devices' 0.1).
        let found = along(&grouped.mean);
        assert!((0.045..0.1).contains(&found), "{rule}: {found}");
    }
}

#[test]
fn without_poison_the_median_of_groups_goes_the_way_of_the_mean() {
    let of = |privacy: &str| {
        let (summed, _) = Cohort::begin(plan(privacy), 1).finish(&|id| Some(honest(id))).expect("sums");
        along(&summed.mean)
    };
    let (whole, median) = (of(""), of("groups = 5"));
    assert!((whole - 0.1).abs() < 0.005 && (median / whole - 1.0).abs() < 0.05, "{whole} {median}");
}

#[test]
fn devices_are_dealt_out_evenly_and_anew_in_each_attempt() {
    let dealt = |attempt| {
        let mut cohort = Cohort::begin(plan("groups = 4"), attempt);
        let asked = cohort.round.close().expect("groups of three and four");
        assert_eq!(asked.len(), DEVICES);
        let rosters = cohort.round.rosters();
        let mut sizes: Vec<usize> = rosters.iter().map(Vec::len).collect();
        sizes.sort_unstable();
        assert_eq!(sizes, [3, 4, 4, 4]);
        let members: BTreeSet<DeviceId> = rosters.iter().flatten().copied().collect();
        assert_eq!(members, asked, "each device is in one group");
        let sessions: BTreeSet<[u8; 32]> = cohort.round.sessions().into_iter().map(|session| session.0).collect();
        assert_eq!(sessions.len(), 4, "each group has keys of its own");
        for (group, members) in rosters.iter().enumerate() {
            assert!(members.iter().all(|device| cohort.round.group_of(device) == Some(group)));
        }
        rosters
    };
    assert_ne!(dealt(1), dealt(2));
    assert_eq!(dealt(1), dealt(1), "the draw follows from seed and attempt");
}

#[test]
fn a_group_that_is_too_small_is_lost_alone_until_too_few_are_left() {
    let groups_of = |cohort: &mut Cohort, lost: usize| {
        // One of each of the first `lost` groups says nothing.
        let rosters = cohort.round.rosters();
        rosters.into_iter().take(lost).map(|members| members[0]).collect::<BTreeSet<DeviceId>>()
    };
    for lost in 0..=3usize {
        let mut cohort = Cohort::begin(plan("groups = 5\ncohort_min = 3"), 1);
        let silent = {
            let mut other = Cohort::begin(plan("groups = 5\ncohort_min = 3"), 1);
            other.round.close().expect("five groups of three");
            groups_of(&mut other, lost)
        };
        let finished = cohort.finish(&|id| (!silent.contains(id)).then(|| honest(id)));
        match (lost, finished) {
            (0..=2, Ok((summed, survivors))) => {
                assert_eq!((survivors.len(), summed.weight), (15 - 3 * lost, 50 * (15 - 3 * lost) as u64));
                assert_eq!(cohort.round.sessions().len(), 5 - lost);
                assert!((along(&summed.mean) - 0.1).abs() < 0.02, "{lost} lost: {}", along(&summed.mean));
            }
            (3, Err(Aborted::TooFew { got: 2, wanted: 3, .. })) => {}
            (_, other) => panic!("{lost} groups lost: {:?}", other.map(|(_, survivors)| survivors)),
        }
    }
}
