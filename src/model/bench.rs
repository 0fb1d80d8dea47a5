//! `starling model bench`: latency over varied inputs, one thread, and what the process takes for it.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use starling_daemon::usage::rss_mb;
use starling_search::{measure, synthetic_inputs};

use super::file::{self, ModelFile};
use super::run::{EngineChoice, plan_of, ready};
use crate::report::{JsonArgs, Table, bytes as size, figure};
use crate::task_input;

/// Samples that the runs go through in turn.
const SAMPLES: usize = 256;

/// Arguments of `starling model bench`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Float weights (safetensors) or a release
    model: PathBuf,
    /// Take inputs from this task's training rows instead of noise
    task: Option<PathBuf>,
    /// Override a key of the task, dotted: --set data.root=DIR
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = task_input::parse_override, requires = "task")]
    overrides: Vec<(String, String)>,
    /// Samples a run
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    batch: u32,
    /// Runs that are timed
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    runs: u32,
    /// Threads; every engine computes on its caller's thread alone
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1))]
    threads: u32,
    /// What computes
    #[arg(long, default_value = "starling")]
    engine: EngineChoice,
    #[command(flatten)]
    json: JsonArgs,
}

#[derive(Debug, Serialize)]
struct Benched {
    model: String,
    engine: &'static str,
    threads: u32,
    batch: u32,
    runs: u32,
    /// Where the samples come from.
    inputs: &'static str,
    latency_us_p50: f64,
    latency_us_p99: f64,
    /// Samples a second, from the mean.
    throughput_per_s: f64,
    bytes: usize,
    /// Bytes of weights that the engine holds.
    weight_bytes: Option<usize>,
    /// Multiply-accumulates a sample.
    macs: Option<u64>,
    /// 2 · macs · samples in a second at the median.
    gflop_per_s: Option<f64>,
    /// Weight bytes read in a second at the median: every run reads each once.
    gb_per_s: Option<f64>,
    rss_mb: f64,
    /// What the process takes beyond what it took before it read anything.
    rss_above_empty_mb: f64,
}

pub(super) fn command(args: &Args) -> Result<()> {
    let empty_mb = rss_mb();
    let (model, bytes) = file::read(&args.model, None)?;
    let bytes_len = bytes.len();
    drop(bytes);
    let mut ready = ready(&model, Some(args.engine), args.engine)?;
    let plan = match model {
        ModelFile::Release(release) => plan_of(&release),
        ModelFile::Weights(weights) => weights.plan,
    };
    let inputs = match &args.task {
        Some(task) => rows(task, &args.overrides, ready.inference.input_len())?,
        None => synthetic_inputs(&plan, 1),
    };
    let latency = measure(ready.inference.as_mut(), &inputs, args.batch as usize, args.runs as usize)?;
    let rss = rss_mb();
    let batch = f64::from(args.batch);
    // 10³ operations a microsecond are 1 GFLOP/s.
    #[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
    let benched = Benched {
        model: args.model.display().to_string(),
        engine: ready.engine.word(),
        threads: args.threads,
        batch: args.batch,
        runs: args.runs,
        inputs: if args.task.is_some() { "training rows" } else { "noise" },
        latency_us_p50: latency.p50_us,
        latency_us_p99: latency.p99_us,
        throughput_per_s: batch * 1e6 / latency.mean_us,
        bytes: bytes_len,
        weight_bytes: ready.weight_bytes,
        macs: ready.macs,
        gflop_per_s: ready.macs.map(|macs| 2.0 * macs as f64 * batch / latency.p50_us / 1e3),
        gb_per_s: ready.weight_bytes.map(|bytes| bytes as f64 / latency.p50_us / 1e3),
        rss_mb: rss,
        rss_above_empty_mb: rss - empty_mb,
    };
    args.json.finish(&benched, &table(&benched))
}

/// The features of some of the task's training rows.
fn rows(task: &std::path::Path, overrides: &[(String, String)], sample_len: usize) -> Result<Vec<f32>> {
    let mut input = task_input::read(task, overrides, 1)?;
    input.leave_test_out();
    let data = input.load()?;
    ensure!(
        data.train.sample_len() == sample_len,
        "task {:?} has samples of {} values; the model takes {sample_len}",
        input.task.name,
        data.train.sample_len()
    );
    let count = u32::try_from(SAMPLES.min(data.train.len())).context("a few hundred samples")?;
    let mut features = Vec::new();
    data.train.features_into(&(0..count).collect::<Vec<u32>>(), &mut features);
    Ok(features)
}

fn table(benched: &Benched) -> Table {
    let mut table = Table::new(&["engine", "batch", "p50", "p99", "samples/s", "GFLOP/s", "GB/s", "weights", "RSS"]);
    table.row(vec![
        benched.engine.into(),
        benched.batch.to_string(),
        format!("{:.2} µs", benched.latency_us_p50),
        format!("{:.2} µs", benched.latency_us_p99),
        format!("{:.0}", benched.throughput_per_s),
        figure(benched.gflop_per_s, 2),
        figure(benched.gb_per_s, 2),
        benched.weight_bytes.map_or_else(|| "–".into(), |bytes| size(bytes as u64)),
        format!("{:.1} MB", benched.rss_mb),
    ]);
    table.note(format!(
        "{} runs over {}, one thread; {:.1} MB of memory above the empty process",
        benched.runs, benched.inputs, benched.rss_above_empty_mb
    ));
    table
}
