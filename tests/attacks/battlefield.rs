//! An aggregator with two honest devices and an endless run: what attacks are measured against.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use starling_testkit::fleet::{PATIENCE, number, rounds};
use starling_testkit::{Fleet, until};
use starling_wire::Refusal;
use tokio::runtime::Runtime;

/// Devices of the honest part of the fleet.
pub(crate) const HONEST: u32 = 2;

/// How much an attack may add to the aggregator's memory. One connection's windows are 2 MiB, a frame is 61 KiB; what is
/// left is for the allocator's caches. An attack that is not bounded costs GBs. Measured: 0.1 to 1.7 MiB.
const MEMORY_BYTES_MAX: u64 = 8 << 20;

/// What each of the honest rounds that go on meanwhile adds while a young process settles: measured 15 to 18 KiB, over 774 to 1,374
/// rounds.
const ROUND_BYTES_MAX: u64 = 24 << 10;

/// What all of them add at most. A daemon under two devices had 27 MB after 1,900 rounds, 33 after 6,300 and 35 after 13,900: growth
/// slows to about 0.4 KiB a round and does not end. The tests here are over long before that shows.
const ROUNDS_BYTES_MAX: u64 = 24 << 20;

/// How long a round of a tenth of a second may take while the machine is attacked and runs other tests.
const ROUND_S_MAX: f64 = 15.0;

/// The index of the first attacker's certificate.
pub(crate) const ATTACKER: u32 = 66;

/// The scene of an attack.
pub(crate) struct Battlefield {
    pub(crate) fleet: Fleet,
    pub(crate) run: u64,
    pub(crate) runtime: Runtime,
    memory_before: u64,
    rounds_before: usize,
}

/// What devices say of their data: an equal part of the digits each.
pub(crate) fn data(devices: u32) -> String {
    format!(
        r#"
        [[task]]
        name = "digits"
        [task.data]
        format = "csv"
        train = "embedded:optdigits"
        [task.partition]
        how = "iid"
        devices = {devices}
        index = {{index}}
        seed = 1
        "#
    )
}

const TASK: &str = r#"
    name = "digits"
    kind = "classification"
    [data]
    format = "csv"
    train = "embedded:optdigits"
    shape = [1, 8, 8]
    scale = "unit"
    [model]
    layers = ["flatten", { linear = { out = 16 } }, "relu", { linear = { out = 10 } }]
    [train]
    epochs = 2
    [federation]
    devices = 8
    devices_min = 2
    rounds = 1000000
    deadline_ms = 6000
"#;

impl Battlefield {
    /// Starts the fleet and its run, and waits until rounds are going by.
    pub(crate) fn new(seed: u64) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let mut fleet = Fleet::new(env!("CARGO_BIN_EXE_starling"), seed, &data(HONEST));
        fleet.start_aggregator();
        (0..HONEST).for_each(|index| fleet.start_device(index));
        let run = fleet.start_run(TASK, seed);
        let rounds_before = rounds(&fleet.wait_rounds(run, 3)).len();
        let (_, memory_before) = fleet.aggregator().memory();
        Self { fleet, run, runtime: runtime.expect("threads"), memory_before, rounds_before }
    }

    /// Waits until the aggregator has committed `more` rounds from now on: that it works while it is attacked.
    #[track_caller]
    pub(crate) fn wait_more_rounds(&self, more: usize) {
        let now = rounds(&self.fleet.wait_rounds(self.run, 1)).len();
        self.fleet.wait_rounds(self.run, now + more);
    }

    /// Waits until the operator sees `reason` for somebody whom `who` fits, in the log and among those turned away.
    #[track_caller]
    pub(crate) fn wait_operator_sees(&mut self, reason: Refusal, who: &str) {
        let what = format!("{} for {who} among those turned away", reason.name());
        until(&what, PATIENCE, || {
            let answer = self.fleet.ask(&json!({ "verb": "devices" }))?.ok()?;
            let fits = |refused: &Value| {
                refused["code"] == reason.code() && refused["who"].as_str().is_some_and(|text| text.contains(who))
            };
            answer["turned_away"].as_array()?.iter().any(fits).then_some(())
        });
        self.fleet
            .aggregator()
            .wait_stderr(&what, PATIENCE, |line| (line.contains(reason.text()) && line.contains(who)).then_some(()));
    }

    /// Waits until the log tells of `reason`: a stream's end is no connection's end, so nobody is turned away.
    #[track_caller]
    pub(crate) fn wait_logged(&mut self, reason: Refusal) {
        let what = format!("{} in the log", reason.name());
        self.fleet.aggregator().wait_stderr(&what, PATIENCE, |line| line.contains(reason.text()).then_some(()));
    }

    /// Asserts that the attack has cost bounded memory, that the run goes on, and that no round suffered.
    #[track_caller]
    pub(crate) fn assert_undisturbed(&mut self) {
        let start = Instant::now();
        let now = rounds(&self.fleet.wait_rounds(self.run, 1)).len();
        let status = self.fleet.wait_rounds(self.run, now.max(self.rounds_before) + 3);
        let waited = start.elapsed();
        let attacked = &rounds(&status)[self.rounds_before..];
        for round in attacked {
            assert!(number(round, "contributors") >= u64::from(HONEST), "an honest update was lost: {round}");
            assert_eq!(number(round, "attempt"), 1, "a round had to be tried again: {round}");
            let wall_s = round["wall_s"].as_f64().expect("a number");
            assert!(wall_s < ROUND_S_MAX, "a round was held up: {round}");
        }
        assert!(waited < Duration::from_secs(45), "three rounds took {waited:?}");
        let (_, peak) = self.fleet.aggregator().memory();
        let grown = peak.saturating_sub(self.memory_before);
        let slowest_s = attacked.iter().filter_map(|round| round["wall_s"].as_f64()).fold(0.0, f64::max);
        eprintln!(
            "{} rounds, the slowest in {slowest_s:.3} s; peak memory grew by {} KiB",
            attacked.len(),
            grown >> 10
        );
        assert!(
            grown <= MEMORY_BYTES_MAX + (ROUND_BYTES_MAX * attacked.len() as u64).min(ROUNDS_BYTES_MAX),
            "the attack cost {} MiB on top of {} MiB",
            grown >> 20,
            self.memory_before >> 20
        );
    }
}
