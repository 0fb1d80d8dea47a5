//! A federation in this process: the run machine, the codecs and the fold of a real run, without sockets and with virtual
//! time.

mod owed;
mod rounds;
mod secure;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use indicatif::ProgressBar;
use starling_model::Evaluated;
use starling_privacy::noise::Simulated;
use starling_protocol::run::{
    Action, Answer, Coins, HeldOut, Progress, RunMachine, RunSettings, SecureCohort, Turns, cohort_max,
};
use starling_spec::{CodecSpec, TaskKind};
use starling_update::{Fold, Node, RoundNumbers, Version};
use starling_wire::{Address, DeviceId, Digest, RoundKind, RunId, TaskId};

use self::owed::Owed;
use self::secure::Secure;
use crate::budget::Budget;
use crate::example_budget::ExampleBudget;
use crate::report::percent;
use crate::simulate::{self, Round};
use crate::task_input::TaskInput;
use crate::world::{Device, Pool, World};

/// What came of a run.
pub(crate) struct Ran {
    /// What happened.
    pub(crate) simulated: simulate::Simulated,
    /// The last version's parameters, as devices decode them.
    pub(crate) parameters: Vec<f32>,
    /// What it found out, where that is its goal.
    pub(crate) answer: Option<Answer>,
}

/// Runs `input` on `threads` workers from the parameters `start`, or from its initial ones.
pub(crate) fn simulate_from(
    input: &TaskInput,
    start: Option<Vec<f32>>,
    threads: usize,
    bar: &ProgressBar,
) -> Result<Ran> {
    simulate_in(&World::new(input)?, input, start, threads, bar)
}

/// As [`simulate_from`], on devices that are there already: [`World::with_plan`] makes them work on another plan without reading
/// the data again.
pub(crate) fn simulate_in(
    world: &World,
    input: &TaskInput,
    start: Option<Vec<f32>>,
    threads: usize,
    bar: &ProgressBar,
) -> Result<Ran> {
    anyhow::ensure!(world.plan == input.plan, "the devices have another plan than the run");
    std::thread::scope(|scope| {
        let pool = Pool::start(scope, world, threads);
        Simulation::new(input, world, pool, start)?.run(bar)
    })
}

struct Simulation<'world> {
    input: &'world TaskInput,
    world: &'world World,
    pool: Pool,
    positions: BTreeMap<DeviceId, usize>,
    machine: RunMachine,
    now_ms: u64,
    /// Of the round under way, or the next one.
    numbers: RoundNumbers,
    fold: Fold,
    staged: Staged,
    secure: Option<Secure>,
    budget: Option<Budget>,
    examples: Option<ExampleBudget>,
    /// No device has budget left for its examples.
    over: bool,
    version: Version,
    base: Arc<Vec<f32>>,
    previous: Option<Previous>,
    owed: Owed,
    /// Which version's digest each device holds.
    held: BTreeMap<DeviceId, Digest>,
    rounds: Vec<Round>,
    answer: Option<Answer>,
    last: Option<Evaluated>,
    rounds_to_target: Option<u32>,
}

/// The version before the current one, for devices that hold it: they get the difference.
struct Previous {
    digest: Digest,
    encoded: Bytes,
    /// Bytes of the difference, once somebody has asked for it; none where it is no smaller than the version.
    difference_bytes: Option<Option<usize>>,
}

/// Sums over the updates of the round under way.
#[derive(Default)]
struct Staged {
    weight: u64,
    loss_sum: f64,
    bytes_up: u64,
    bytes_down: u64,
}

impl<'world> Simulation<'world> {
    fn new(input: &'world TaskInput, world: &'world World, pool: Pool, start: Option<Vec<f32>>) -> Result<Self> {
        let plan = &world.plan;
        let manifest = plan.manifest()?;
        let mut federation = input.task.federation.clone();
        // Simulated devices are all there before the first round; real ones get as long as they need.
        federation.devices_min = u32::try_from(world.devices.len()).context("fewer than 2^32 devices")?;
        let ids: Vec<DeviceId> = world.devices.iter().map(|device| device.id).collect();
        let numbers = RoundNumbers::of(plan, plan.adaptive_clip(), cohort_max(&input.task.federation))?;
        let secure = plan.is_secure().then(|| Secure::new(plan, &ids)).transpose()?;
        let budget = Budget::of(plan)?;
        federation.rounds = budget.as_ref().map_or(federation.rounds, Budget::rounds);
        let settings = RunSettings {
            task: TaskId(plan.id()),
            run: RunId(1),
            seed: input.seed,
            coins: Coins::Simulated(input.seed),
            turns: Turns::of(plan),
            federation,
            tensors: manifest.tensors.len(),
            secure_cohort: SecureCohort::of(&world.plan),
        };
        let machine = RunMachine::new(settings, Progress::default());
        let master = start.unwrap_or_else(|| starling_spec::init::initial_parameters(&manifest, plan.seed));
        anyhow::ensure!(
            master.len() == manifest.len(),
            "{} parameters were given to start from; the network has {}",
            master.len(),
            manifest.len()
        );
        let version = Version::publish(0, master, plan.update.down)?;
        Ok(Self {
            input,
            world,
            pool,
            positions: world.devices.iter().enumerate().map(|(position, device)| (device.id, position)).collect(),
            machine,
            now_ms: 0,
            fold: Fold::new(&numbers.numerics),
            numbers,
            staged: Staged::default(),
            secure,
            budget,
            examples: ExampleBudget::of(plan, world.devices.iter().map(Device::examples)),
            over: false,
            base: Arc::new(version.decoded().into_owned()),
            version,
            previous: None,
            owed: Owed::default(),
            held: BTreeMap::new(),
            rounds: Vec::new(),
            answer: None,
            last: None,
            rounds_to_target: None,
        })
    }

    fn run(mut self, bar: &ProgressBar) -> Result<Ran> {
        self.machine.handle_all_available(self.now_ms, self.world.devices.iter().map(|device| device.id));
        let mut finished = false;
        while !finished && !self.over {
            let mut asked = BTreeSet::new();
            let (mut task, mut closing) = (None, None);
            while let Some(action) = self.machine.poll_action() {
                match action {
                    Action::Start { device, address, kind, .. } => {
                        asked.insert(self.positions[&device]);
                        task = Some((address, kind));
                    }
                    Action::Commit { address, contributors, cohort } => {
                        self.commit(address, &contributors, cohort, bar)?;
                    }
                    Action::Close { address, stage } => closing = Some((address, stage)),
                    Action::Abandon { .. } => {
                        self.secure.iter_mut().for_each(Secure::abandon);
                        self.fold = Fold::new(&self.numbers.numerics);
                        self.staged = Staged::default();
                        self.owed.abandon();
                    }
                    Action::Answered { answer, .. } if !self.input.task.federation.goal.makes_versions() => {
                        self.answer = Some(answer);
                    }
                    Action::Answered { answer: Answer::HeldOut(figures), .. } => self.note_held_out(figures),
                    Action::Answered { .. } => {}
                    Action::Finished(_) => finished = true,
                    Action::End { .. } | Action::Remind { .. } => {}
                }
            }
            if let Some((address, stage)) = closing {
                self.close_stage(address, stage)?;
                continue;
            }
            match task {
                Some((address, RoundKind::Train)) if self.secure.is_some() => self.begin_sum(address, &asked)?,
                Some((address, RoundKind::Train)) => self.train(address, &asked)?,
                Some((address, RoundKind::Evaluate)) => self.evaluate(address, &asked)?,
                Some((address, RoundKind::Statistics)) => self.survey(address, &asked)?,
                Some((_, kind)) => anyhow::bail!("a round of kind {kind:?} cannot be simulated"),
                None if finished => {}
                None => self.sleep()?,
            }
        }
        Ok(self.finish())
    }

    /// Lets time pass until the machine's next timer.
    fn sleep(&mut self) -> Result<()> {
        let timer = self.machine.poll_timeout_ms(self.now_ms).context("the run waits for nothing that could happen")?;
        self.now_ms = timer.max(self.now_ms + 1);
        self.machine.handle_timeout(self.now_ms);
        Ok(())
    }

    #[allow(clippy::cast_precision_loss, reason = "counts of examples stay far below 2^53")]
    fn note_held_out(&mut self, figures: HeldOut) {
        if let Some(round) = self.rounds.last_mut()
            && figures.examples > 0
        {
            let examples = figures.examples as f64;
            round.heldout_loss = Some(figures.loss_sum / examples);
            let counts = self.input.task.kind != TaskKind::Regression;
            round.heldout_accuracy = counts.then_some(figures.correct as f64 / examples);
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "weights add up to far less than 2^53")]
    fn commit(
        &mut self,
        address: Address,
        contributors: &BTreeSet<DeviceId>,
        cohort: usize,
        bar: &ProgressBar,
    ) -> Result<()> {
        let mut master = self.version.master().to_vec();
        let rate = self.input.task.federation.server_rate(address.round);
        let mut next_clip = None;
        if let Some(secure) = &mut self.secure {
            let summed = secure.take_sum()?;
            let sums = self.numbers.secure.as_ref().context("the plan has no secure sums")?;
            next_clip = sums.next_clip(&summed);
            summed.apply_step(rate, &mut master);
            let figures = sums.judged(&summed, self.version.number());
            if let (Some(before), Some(figures)) = (self.rounds.last_mut(), figures) {
                before.heldout_accuracy = figures.accuracy;
                before.heldout_loss = figures.loss;
                before.heldout_worst_tenth = figures.worst_tenth;
            }
            self.staged.weight = summed.weight;
            self.staged.loss_sum = summed.train_loss * summed.weight as f64;
        } else {
            anyhow::ensure!(self.fold.contributors() == contributors, "the fold holds other updates than the round");
            let fold = std::mem::replace(&mut self.fold, Fold::new(&self.numbers.numerics));
            match &self.numbers.noisy {
                None => fold.apply_step(rate, &mut master),
                Some(noisy) => {
                    let seed = self.input.seed;
                    let words = |node: Node| Simulated::new(seed, &[u64::from(node.level), u64::from(node.index)]);
                    next_clip = noisy.apply(fold, address.round, rate, words, &mut master);
                }
            }
        }
        self.owed.settle(contributors);
        let epsilon = self.budget.as_ref().map(|budget| budget.spent(address.round)).transpose()?;
        let example_epsilon = self.examples.as_mut().map(ExampleBudget::largest).transpose()?;
        let (digest, encoded) = (self.version.digest(), self.version.encoded().clone());
        // In f32 a difference saves next to nothing: the aggregator always sends the whole.
        let differs = self.input.task.update.difference && self.world.plan.update.down != CodecSpec::F32;
        self.previous = differs.then_some(Previous { digest, encoded, difference_bytes: None });
        self.version = Version::publish(self.version.number() + 1, master, self.world.plan.update.down)?;
        self.base = Arc::new(self.version.decoded().into_owned());
        let test = self.pool.test(self.world, &self.base)?;
        let counts = self.input.task.kind != TaskKind::Regression;
        let test_accuracy = test.as_ref().filter(|_| counts).map(Evaluated::accuracy);
        let staged = std::mem::take(&mut self.staged);
        self.rounds.push(Round {
            round: address.round,
            cohort,
            contributors: contributors.len(),
            weight: staged.weight,
            train_loss: staged.loss_sum / staged.weight.max(1) as f64,
            test_accuracy,
            test_loss: test.as_ref().map(Evaluated::loss),
            heldout_accuracy: None,
            heldout_loss: None,
            heldout_worst_tenth: None,
            bytes_up: staged.bytes_up,
            bytes_down: staged.bytes_down,
            clip: self.numbers.plan.adaptive_clip(),
            epsilon,
            example_epsilon,
        });
        if next_clip.is_some() {
            self.numbers = RoundNumbers::of(&self.world.plan, next_clip, cohort_max(&self.input.task.federation))?;
            self.fold = Fold::new(&self.numbers.numerics);
        }
        self.last = test;
        let target = self.input.task.federation.target;
        let reached = target.zip(test_accuracy).is_some_and(|(target, accuracy)| accuracy >= target);
        if reached {
            self.rounds_to_target = Some(address.round);
        }
        bar.set_position(u64::from(address.round));
        bar.set_message(percent(test_accuracy));
        self.machine.handle_committed(self.now_ms, reached);
        Ok(())
    }

    fn finish(self) -> Ran {
        let last = self.rounds.last();
        let simulated = simulate::Simulated {
            task: self.input.task.name.clone(),
            seed: self.input.seed,
            devices: self.world.devices.len(),
            parameters: self.version.master().len(),
            target: self.input.task.federation.target,
            rounds_to_target: self.rounds_to_target,
            final_accuracy: last.and_then(|round| round.test_accuracy),
            final_loss: last.and_then(|round| round.test_loss),
            model_digest: self.version.digest().to_string(),
            privacy: self.budget.as_ref().map(|budget| budget.summary(last.and_then(|round| round.epsilon))),
            example_privacy: self
                .examples
                .as_ref()
                .map(|examples| examples.summary(last.and_then(|round| round.example_epsilon))),
            rounds: self.rounds,
        };
        Ran { simulated, parameters: self.version.decoded().into_owned(), answer: self.answer }
    }
}
