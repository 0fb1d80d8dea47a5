//! The fleet of a running aggregator: each run is started, watched, taken out and removed over the operator's socket.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use starling_aggregator::{AggregatorConfig, Daemon};
use starling_exchange::{Layout, read_safetensors, write_safetensors};
use starling_protocol::run::{Answer, HeldOut, Ranges};
use starling_spec::TaskPlan;
use starling_wire::ValueRange;

use super::{Fleet, Ran};
use crate::task_input::TaskInput;

/// Pauses between two looks at a run under way: short at first, since many runs are a single round.
const PAUSES_MS: [u64; 6] = [5, 10, 20, 50, 100, 250];

/// Attempts at one round that may come to nothing before the search gives up. A run goes on trying for ever, and an operator who
/// waits for a search wants to hear why; the pauses between ten of them take four minutes, so devices that restart are waited for.
const ATTEMPTS_MAX: u64 = 10;

/// The devices of the task that are connected to an aggregator.
pub(in crate::model) struct LiveFleet {
    daemon: Daemon,
    task: String,
    /// Those of the run whose model is compressed: its compression is for no other devices.
    tags: Value,
}

/// The run whose model is compressed.
pub(in crate::model) struct Origin {
    /// Its seed, which its devices' hold-outs are drawn by.
    pub(in crate::model) seed: u64,
    /// Its newest version.
    pub(in crate::model) parameters: Vec<f32>,
}

impl LiveFleet {
    /// The fleet of the aggregator with this configuration, for the task of that name.
    pub(in crate::model) fn new(config: &Path, task: &str) -> Result<Self> {
        let daemon = Daemon::here(AggregatorConfig::load(config)?.admin_socket());
        Ok(Self { daemon, task: task.to_owned(), tags: json!([]) })
    }

    /// The seed of `run` and the model that it has made; `plan` is that of the task, for its network.
    pub(in crate::model) fn origin(&mut self, run: u32, plan: &TaskPlan) -> Result<Origin> {
        let status = self.ask(&json!({ "verb": "run-status", "run": run }))?;
        let name = status["name"].as_str().unwrap_or_default();
        if name != self.task {
            bail!("run {run} is one of task {name:?}, not of {:?}", self.task);
        }
        self.tags = status["tags"].clone();
        let seed = status["seed"].as_u64().context("the run's status has no seed")?;
        Ok(Origin { seed, parameters: self.export(run, plan)? })
    }

    fn ask(&self, request: &Value) -> Result<Value> {
        Ok(self.daemon.ask(request)?)
    }

    fn export(&self, run: u32, plan: &TaskPlan) -> Result<Vec<f32>> {
        let mut file = Vec::new();
        self.daemon.ask_for_file(&json!({ "verb": "run-export", "run": run }), &mut file)?;
        read_safetensors(&file, &plan.manifest()?, Layout::Starling)
            .with_context(|| format!("run {run} has made another network than that of task {:?}", self.task))
    }

    fn start(&self, input: &TaskInput, parameters: &[f32]) -> Result<u32> {
        let text = toml::to_string(&input.task).context("the task of a run cannot be written as TOML")?;
        let file = write_safetensors(&input.plan.manifest()?, parameters, &BTreeMap::new());
        let request = json!({
            "verb": "run-start", "task": text, "overrides": [["federation.tags", self.tags.to_string()]],
            "seed": input.seed, "weights_bytes": file.len(),
        });
        let begun = self.daemon.ask_with_file(&request, &mut &*file, file.len() as u64)?;
        let run = begun["run"].as_u64().and_then(|run| u32::try_from(run).ok());
        run.context("the aggregator did not name the run")
    }

    /// Waits until `run` is over.
    fn watch(&self, run: u32) -> Result<Value> {
        let mut pauses = PAUSES_MS.into_iter();
        let mut pause_ms = 0;
        let mut patience = Patience::default();
        loop {
            let status = self.ask(&json!({ "verb": "run-status", "run": run }))?;
            match status["state"].as_str() {
                Some("running") => {
                    let (round, attempt) = (status["round"].as_u64(), status["attempt"].as_u64());
                    if patience.is_over(round.unwrap_or(0), attempt.unwrap_or(0)) {
                        bail!("run {run} does not get on with its round: {}", declined(&status));
                    }
                }
                Some("finished") => return Ok(status),
                Some("failed") => {
                    bail!("run {run} failed: {}", status["problem"].as_str().unwrap_or("no reason given"))
                }
                _ => bail!("run {run} was stopped"),
            }
            pause_ms = pauses.next().unwrap_or(pause_ms);
            std::thread::sleep(Duration::from_millis(pause_ms));
        }
    }

    fn finish(&self, run: u32, input: &TaskInput) -> Result<Ran> {
        let status = self.watch(run)?;
        let round = status["rounds"].as_array().and_then(|rounds| rounds.last());
        let train_loss = round.and_then(|round| round["train_loss"].as_f64());
        let answer =
            answer(&status["answer"]).with_context(|| format!("run {run} has an answer that makes no sense"))?;
        let parameters =
            if input.task.federation.goal.makes_versions() { self.export(run, &input.plan)? } else { Vec::new() };
        Ok(Ran { parameters, train_loss, answer })
    }
}

impl Fleet for LiveFleet {
    fn run(&mut self, input: &TaskInput, start: Vec<f32>) -> Result<Ran> {
        let run = self.start(input, &start)?;
        let ran = self.finish(run, input);
        if ran.is_err() {
            // It may be over already, or the daemon gone: what matters is the first error.
            let _ = self.ask(&json!({ "verb": "run-stop", "run": run }));
        }
        // A search makes a hundred runs, and nobody wants their models.
        let removed = self.ask(&json!({ "verb": "run-remove", "run": run }));
        let ran = ran?;
        removed.with_context(|| format!("run {run} of the search could not be removed"))?;
        Ok(ran)
    }

    fn holders(&self) -> String {
        format!("the devices of task {:?}", self.task)
    }
}

/// How often the round under way has been tried.
#[derive(Default)]
struct Patience {
    /// The round, and its first attempt that was seen.
    since: Option<(u64, u64)>,
}

impl Patience {
    fn is_over(&mut self, round: u64, attempt: u64) -> bool {
        let (_, first) = *self.since.insert(self.since.filter(|(of, _)| *of == round).unwrap_or((round, attempt)));
        attempt >= first + ATTEMPTS_MAX
    }
}

/// Why devices stay away, as a run's status counts it.
fn declined(status: &Value) -> String {
    let reason = |one: &Value| format!("{} times {}", one["times"], one["reason"].as_str().unwrap_or("?"));
    let reasons: Vec<String> = status["declined"].as_array().into_iter().flatten().map(reason).collect();
    if reasons.is_empty() {
        return "too few devices answer in time".to_owned();
    }
    format!("devices declined, {}", reasons.join(", "))
}

/// The answer in a run's status; none of a run that is not about one.
fn answer(said: &Value) -> Option<Option<Answer>> {
    let devices = |sums: &Value| sums["devices"].as_u64().and_then(|devices| u32::try_from(devices).ok());
    match (&said["held_out"], &said["ranges"]) {
        (Value::Null, Value::Null) => Some(None),
        (sums, Value::Null) => Some(Some(Answer::HeldOut(HeldOut {
            devices: devices(sums)?,
            examples: sums["examples"].as_u64()?,
            correct: sums["correct"].as_u64()?,
            loss_sum: sums["loss_sum"].as_f64()?,
        }))),
        (_, found) => {
            let ranges: Vec<Option<(f32, f32)>> = serde_json::from_value(found["ranges"].clone()).ok()?;
            let range = |range: Option<(f32, f32)>| range.map(|(low, high)| ValueRange { low, high });
            Some(Some(Answer::Ranges(Ranges {
                devices: devices(found)?,
                examples: found["examples"].as_u64()?,
                ranges: ranges.into_iter().map(range).collect(),
            })))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inv6_a_round_that_is_tried_for_ever_is_given_up_and_one_that_gets_on_is_not() {
        let mut patience = Patience::default();
        // After a restore attempts begin in the thousands.
        assert!((1001..1001 + ATTEMPTS_MAX).all(|attempt| !patience.is_over(1, attempt)));
        assert!(patience.is_over(1, 1001 + ATTEMPTS_MAX));
        let mut patience = Patience::default();
        assert!((1..100).all(|round| !patience.is_over(round, 1) && !patience.is_over(round, 3)));
    }

    #[test]
    fn why_devices_stay_away_is_said() {
        let status = json!({ "declined": [{ "reason": "Policy", "times": 3 }, { "reason": "NoData", "times": 1 }] });
        assert_eq!(declined(&status), "devices declined, 3 times Policy, 1 times NoData");
        assert_eq!(declined(&json!({ "declined": [] })), "too few devices answer in time");
    }
}
