//! `starling bench runtime`: what the runtime itself costs. Real processes, real certificates, fsynced commits and checked
//! digests; only the training is replaced by a copy of the model plus a little noise.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use starling_client::{ClientConfig, Job, LearnError, Learner, Trained};
use starling_daemon::{Exit, Usage};
use starling_net::Path as NetPath;
use starling_spec::CodecSpec;
use starling_spec::random::{Purpose, Random, word};
use starling_wire::{UpdateReport, ValueRange};

use crate::fleet::{Enrolled, Fleet, interruption};
use crate::report::{JsonArgs, Table, bytes, median, progress};
use crate::status::RunStatus;

/// The name of the bench's task.
const TASK: &str = "bench";

/// How often the aggregator is asked how far it is: rarely enough to cost nothing beside a round.
const POLL: Duration = Duration::from_millis(20);

/// How long connected devices are left alone before their memory is read.
const SETTLE: Duration = Duration::from_millis(500);

/// Inputs of the bench's layer at most: what a task's sample may hold.
const INPUTS_MAX: u64 = 1 << 26;

/// Bytes of an update beside its values: more than any preamble and codec adds.
const UPDATE_BYTES_SPARE: u64 = 64 << 10;

/// The magnitude of the noise: what an update of a network looks like.
const NOISE: f32 = 1e-3;

/// Arguments of `starling bench runtime`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Device processes
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    devices: u32,
    /// Parameters of the model
    #[arg(long, default_value_t = 1_660_000, value_parser = clap::value_parser!(u64).range(2..=1 << 30))]
    params: u64,
    /// Rounds
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// The codec, both ways: f32, f16, or q2 to q16
    #[arg(long, default_value = "f32")]
    codec: CodecSpec,
    /// Secure sums: the aggregator sees the sum of the devices' updates only; asks for a codec of q2 to q16
    #[arg(long)]
    secure: bool,
    /// `internet` (packets of 1,452 bytes) or `loopback` (6,500)
    #[arg(long, default_value = "loopback", value_parser = parse_path)]
    path: NetPath,
    /// What plain quinn moves on this machine over the same path, in MB/s (`cargo bench -p starling-net --bench throughput`): adds the share of
    /// it that the rounds reach
    #[arg(long)]
    plain_mb_per_s: Option<f64>,
    #[command(flatten)]
    json: JsonArgs,
}

/// Arguments of the hidden command that a bench's devices run.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ClientArgs {
    #[arg(long)]
    config: PathBuf,
}

/// What the bench found.
#[derive(Debug, Clone, Serialize)]
struct Measured {
    devices: u32,
    params: u64,
    rounds: usize,
    codec: String,
    secure: bool,
    path: NetPath,
    updates: u64,
    round_s_median: f64,
    round_s_min: f64,
    round_s_max: f64,
    run_s: f64,
    updates_per_s: f64,
    nothing_to_first_round_s: f64,
    server_cpu_s_per_round: f64,
    server_cpu_s_per_update: f64,
    client_cpu_s_per_client_round: f64,
    bytes_up_per_client_round: f64,
    bytes_down_per_client_round: f64,
    moved_mb_per_s: f64,
    plain_mb_per_s: Option<f64>,
    share_of_plain: Option<f64>,
    peak_rss_server_mb: f64,
    peak_rss_client_mb: f64,
    idle_rss_client_mb: f64,
}

/// Runs the command.
pub(crate) fn command(args: &Args) -> Result<()> {
    let interrupted = interruption()?;
    let enrolled = Enrolled::new(args.devices, 1, args.path, 4 * args.params + UPDATE_BYTES_SPARE)?;
    let started = Instant::now();
    let mut fleet = enrolled.start(None, args.devices, &["bench-client"], |_| Ok(binding()), interrupted)?;
    fleet.wait_connected()?;
    let connected_s = started.elapsed().as_secs_f64();

    std::thread::sleep(SETTLE);
    let idle = fleet.device_usage()?;
    let server_before = fleet.aggregator_usage()?;
    let begun = Instant::now();
    let run = fleet.start_run(&task(args), &[], 1)?;
    let (status, first_round_s) = follow(&mut fleet, run, args.rounds, begun)?;
    let run_s = begun.elapsed().as_secs_f64();
    let devices = fleet.device_usage()?;
    let server = fleet.aggregator_usage()?;
    fleet.stop()?;

    let measured =
        measure(args, &status, run_s, connected_s + first_round_s, (server_before, server), (&idle, &devices))?;
    args.json.finish(&measured, &table(&measured))
}

/// Waits until the run is over; also how long its first round took from the request that began the run.
fn follow(fleet: &mut Fleet, run: u64, rounds: u32, begun: Instant) -> Result<(RunStatus, f64)> {
    let bar = progress(u64::from(rounds), "rounds");
    let mut first_round_s = None;
    loop {
        let status = RunStatus::read(fleet.status(run)?)?;
        bar.set_position(status.rounds.len() as u64);
        if !status.rounds.is_empty() {
            first_round_s.get_or_insert(begun.elapsed().as_secs_f64());
        }
        if status.is_over() {
            bar.finish_and_clear();
            let first_round_s = first_round_s.context("the run ended without a round")?;
            return Ok((status, first_round_s));
        }
        std::thread::sleep(POLL);
    }
}

#[allow(clippy::cast_precision_loss, reason = "bytes and counts stay below 2^53")]
fn measure(
    args: &Args,
    status: &RunStatus,
    run_s: f64,
    nothing_to_first_round_s: f64,
    server: (Usage, Usage),
    devices: (&[Usage], &[Usage]),
) -> Result<Measured> {
    let rounds = status.rounds.len();
    let (inputs, outputs) = sizes(args.params);
    ensure!(rounds == args.rounds as usize, "{rounds} of {} rounds were committed", args.rounds);
    let updates: u64 = status.rounds.iter().map(|round| round.contributors).sum();
    let times: Vec<f64> = status.rounds.iter().map(|round| round.wall_s).collect();
    let server_cpu_s = server.1.cpu_s - server.0.cpu_s;
    let device_cpu_s: f64 = devices.0.iter().zip(devices.1).map(|(before, after)| after.cpu_s - before.cpu_s).sum();
    let most = |usage: &[Usage], of: fn(&Usage) -> f64| usage.iter().map(of).fold(0.0, f64::max);
    let moved_mb_per_s = (status.bytes_up + status.bytes_down) as f64 / 1e6 / times.iter().sum::<f64>();
    Ok(Measured {
        devices: args.devices,
        params: (inputs + 1) * outputs,
        rounds,
        codec: args.codec.to_string(),
        secure: args.secure,
        path: args.path,
        updates,
        round_s_min: times.iter().copied().fold(f64::INFINITY, f64::min),
        round_s_max: times.iter().copied().fold(0.0, f64::max),
        round_s_median: median(times),
        run_s,
        updates_per_s: updates as f64 / run_s,
        nothing_to_first_round_s,
        server_cpu_s_per_round: server_cpu_s / rounds as f64,
        server_cpu_s_per_update: server_cpu_s / updates.max(1) as f64,
        client_cpu_s_per_client_round: device_cpu_s / (rounds as f64 * f64::from(args.devices)),
        bytes_up_per_client_round: status.bytes_up_per_device_round(),
        bytes_down_per_client_round: status.bytes_down_per_device_round(),
        moved_mb_per_s,
        plain_mb_per_s: args.plain_mb_per_s,
        share_of_plain: args.plain_mb_per_s.map(|plain| moved_mb_per_s / plain),
        peak_rss_server_mb: server.1.peak_rss_mb,
        peak_rss_client_mb: most(devices.1, |usage| usage.peak_rss_mb),
        idle_rss_client_mb: most(devices.0, |usage| usage.rss_mb),
    })
}

fn table(measured: &Measured) -> Table {
    let mut table = Table::new(&["", ""]);
    let mut row = |name: &str, value: String| table.row(vec![name.into(), value]);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bytes are positive and small")]
    let shown = |count: f64| bytes(count.round() as u64);
    row("a round (median)", format!("{:.3} s", measured.round_s_median));
    row("a round (fastest, slowest)", format!("{:.3} s, {:.3} s", measured.round_s_min, measured.round_s_max));
    row("updates a second", format!("{:.1}", measured.updates_per_s));
    row("from nothing to the first round", format!("{:.2} s", measured.nothing_to_first_round_s));
    row("CPU of the server, a round", format!("{:.3} s", measured.server_cpu_s_per_round));
    row("CPU of the server, an update", format!("{:.4} s", measured.server_cpu_s_per_update));
    row("CPU of a client, a round", format!("{:.4} s", measured.client_cpu_s_per_client_round));
    row("up a client and round", shown(measured.bytes_up_per_client_round));
    row("down a client and round", shown(measured.bytes_down_per_client_round));
    row("moved while rounds ran", format!("{:.0} MB/s", measured.moved_mb_per_s));
    if let Some(share) = measured.share_of_plain {
        row("of what plain quinn moves", format!("{:.0} %", share * 100.0));
    }
    row("memory of the server, at most", format!("{:.1} MB", measured.peak_rss_server_mb));
    row("memory of a client, at most", format!("{:.1} MB", measured.peak_rss_client_mb));
    row("memory of an idle client", format!("{:.1} MB", measured.idle_rss_client_mb));
    let seen = if measured.secure { " in secure sums" } else { "" };
    table.note(format!(
        "{} devices, {} parameters, {} rounds, {}{seen}, {:?}",
        measured.devices, measured.params, measured.rounds, measured.codec, measured.path
    ));
    table
}

/// Inputs and outputs of one dense layer with as many weights and biases as asked for, less at most the remainder of a
/// division by the few outputs that very large models need.
fn sizes(params: u64) -> (u64, u64) {
    let outputs = params.div_ceil(INPUTS_MAX + 1);
    (params / outputs - 1, outputs)
}

/// The bench's task: one dense layer.
fn task(args: &Args) -> String {
    let (inputs, outputs) = sizes(args.params);
    let secure = if args.secure { "[privacy]\nsecure_aggregation = true\nclip = 10.0" } else { "" };
    format!(
        r#"
        name = "{TASK}"
        kind = "{}"
        [data]
        format = "csv"
        train = "none"
        label = -1
        shape = [{inputs}]
        [model]
        layers = [{{ linear = {{ out = {outputs} }} }}]
        [federation]
        devices = {devices}
        devices_min = {devices}
        rounds = {}
        deadline_ms = 600000
        [update]
        codec = "{codec}"
        down = "{codec}"
        weight_max = 600
        {secure}
        "#,
        if outputs == 1 { "regression" } else { "classification" },
        args.rounds,
        devices = args.devices,
        codec = args.codec,
    )
}

/// The part of a device's configuration that offers it for the bench. No data are ever read.
fn binding() -> String {
    format!("[[task]]\nname = \"{TASK}\"\n[task.data]\nformat = \"csv\"\ntrain = \"none\"\n")
}

fn parse_path(text: &str) -> Result<NetPath, String> {
    match text {
        "internet" => Ok(NetPath::Internet),
        "loopback" => Ok(NetPath::Loopback),
        _ => Err("expected internet or loopback".to_owned()),
    }
}

/// Runs the hidden command: a device whose training costs nothing.
pub(crate) fn client(args: &ClientArgs) -> Result<Exit> {
    let config = ClientConfig::load(&args.config)?;
    Ok(starling_client::command::run_with(config, Arc::new(Echo), 0))
}

/// A learner that learns nothing: its delta is a little noise, a function of seed, device and round.
struct Echo;

impl Learner for Echo {
    fn tasks(&self) -> Vec<String> {
        vec![TASK.to_owned()]
    }

    fn train(&self, job: &Job, mut base: Vec<f32>, _stop: &AtomicBool) -> Result<Trained, LearnError> {
        let path = [job.device_key(), u64::from(job.address.round)];
        let key = Random::new(job.plan.seed, Purpose::Noise, &path).key();
        for (pair, counter) in base.chunks_mut(2).zip(0u64..) {
            let word = word(key, counter);
            for (value, shift) in pair.iter_mut().zip([0, 32]) {
                *value = noise(word >> shift);
            }
        }
        Ok(Trained { delta: base, report: UpdateReport { weight: 1, train_loss: 0.0, steps: 1, within_clip: false } })
    }

    fn evaluate(&self, _job: &Job, _base: Vec<f32>) -> Result<(u64, u64, f64), LearnError> {
        Err(LearnError::NoData("a bench holds nothing out".to_owned()))
    }

    fn ranges(&self, _job: &Job, _base: Vec<f32>) -> Result<(u64, Vec<Option<ValueRange>>), LearnError> {
        Err(LearnError::NoData("a bench has no rows".to_owned()))
    }
}

/// The low 24 bits of `word`, uniform in ±[`NOISE`].
fn noise(word: u64) -> f32 {
    #[allow(clippy::cast_precision_loss, reason = "24 bits are exact in an f32")]
    let unit = (word & 0xff_ffff) as f32 * (2.0 / (1u32 << 24) as f32) - 1.0;
    unit * NOISE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_has_as_many_parameters_as_asked_for() {
        for params in [2, 1_660_000, 100_000_000] {
            let (inputs, outputs) = sizes(params);
            assert_eq!((inputs + 1) * outputs, params);
        }
        let (inputs, outputs) = sizes(100_000_001);
        assert_eq!((inputs + 1) * outputs, 100_000_000, "the nearest that two outputs allow");
    }

    #[test]
    fn noise_is_small_and_has_no_bias() {
        let values: Vec<f32> = (0..100_000).map(|counter| noise(word(7, counter))).collect();
        assert!(values.iter().all(|value| value.abs() <= NOISE));
        assert!((values.iter().sum::<f32>() / 1e5).abs() < NOISE * 0.02);
    }
}
