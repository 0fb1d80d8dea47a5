//! `starling model compress`: the search for a smaller form of trained weights, its report, and the release.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::ValueEnum;
use indicatif::ProgressBar;
use starling_daemon::Exit;
use starling_search::{
    Candidate, Effort, Granularity, Limits, LocalTuner, Method, Observer, Outcome, PruneBy, PrunePace, PruneScope,
    Pruning, Runs, Settings, Tuner, VALIDATION_SHARE, report_html, search, train_teachers, validation_split,
};
use starling_spec::TaskKind;

use super::federated::{FederatedTuner, Fleet, LiveFleet, SimulatedFleet};
use super::file::{self, Weights};
use super::found::{record, table};
use crate::report::{JsonArgs, bytes as size, percent, progress};
use crate::task_input::{TaskArgs, TaskInput};
use crate::train::passes;

/// Timed runs of each candidate.
const LATENCY_RUNS: usize = 2_000;

/// Arguments of `starling model compress`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    task: TaskArgs,
    /// The trained weights (safetensors); with --federated RUN, those of the run when not given
    #[arg(long, value_name = "FILE", required_unless_present = "config")]
    weights: Option<PathBuf>,
    /// Where the release goes
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The largest release file, in bytes
    #[arg(long, value_name = "N")]
    max_bytes: Option<u64>,
    /// The longest median latency of one sample on one thread of this machine, in microseconds
    #[arg(long, value_name = "N", value_parser = parse_positive)]
    max_latency_us: Option<f64>,
    /// The most multiply-accumulates a sample
    #[arg(long, value_name = "N")]
    max_macs: Option<u64>,
    /// The most accuracy that may be lost, in percentage points (for a regression: per cent of the loss); held with 95 %
    /// confidence over the validation rows
    #[arg(long, value_name = "POINTS", value_parser = parse_points, allow_negative_numbers = true)]
    max_accuracy_loss: Option<f64>,
    /// auto, prune, codebook, deep, int8, int4, fixed:B, f16, f32, binary, layers or units
    #[arg(long, default_value = "auto")]
    method: String,
    /// What a weight's worth goes by where weights are pruned
    #[arg(long, value_name = "WORTH", default_value = "magnitude")]
    prune_by: PruneByChoice,
    /// Among which weights the worthiest are kept
    #[arg(long, value_name = "SCOPE", default_value = "global")]
    prune_scope: PruneScopeChoice,
    /// Prune in one step from the full model, with a mask that is drawn once, instead of gradually
    #[arg(long)]
    one_shot: bool,
    /// What has a scale of its own where weights become integers
    #[arg(long, value_name = "PART", default_value = "channel")]
    granularity: GranularityChoice,
    /// How long fine-tuning may take
    #[arg(long, default_value = "normal")]
    effort: EffortChoice,
    /// How much fine-tuning listens to the full model's outputs rather than to the labels, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = Settings::default().distil, value_parser = parse_share)]
    distil: f64,
    /// Train so many further full models, whose answers fine-tuning listens to beside the given one's
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=16), conflicts_with = "federated")]
    teachers: u32,
    /// The first learning rate of fine-tuning (Adam, falling to 0 along a cosine)
    #[arg(long, value_name = "RATE", default_value_t = Settings::default().lr, value_parser = parse_positive)]
    lr: f64,
    /// Calibrate, fine-tune and evaluate on devices only, in ordinary rounds; nothing but updates, figures and ranges leaves
    /// them. RUN is the run that has made the model, on the aggregator of --config; without it the devices are simulated
    #[arg(long, value_name = "RUN", num_args = 0..=1)]
    federated: Option<Option<u32>>,
    /// The configuration of the running aggregator whose devices do the work
    #[arg(long, value_name = "FILE", requires = "federated")]
    config: Option<PathBuf>,
    /// Write a report that opens in a browser
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    #[command(flatten)]
    json: JsonArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum EffortChoice {
    /// A quarter of the fine-tuning
    Quick,
    /// What the documented figures are made with
    Normal,
    /// Twice the fine-tuning, and binary networks
    Thorough,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PruneByChoice {
    /// Its magnitude; over all layers, against the larger weights of its own (LAMP)
    Magnitude,
    /// The first-order estimate of what the loss changes by without it
    Saliency,
    /// Its magnitude, each layer keeping what its measured output difference 1/N Σ‖y−ŷ‖² gives it
    Output,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PruneScopeChoice {
    /// All together: layers keep different shares
    Global,
    /// Those of each layer: all keep the same share
    Layer,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum GranularityChoice {
    /// The whole tensor
    Tensor,
    /// Each output channel
    Channel,
}

impl Args {
    fn pruning(&self) -> Pruning {
        Pruning {
            by: match self.prune_by {
                PruneByChoice::Magnitude => PruneBy::Magnitude,
                PruneByChoice::Saliency => PruneBy::Saliency,
                PruneByChoice::Output => PruneBy::Output,
            },
            scope: match self.prune_scope {
                PruneScopeChoice::Global => PruneScope::Global,
                PruneScopeChoice::Layer => PruneScope::Layer,
            },
            pace: if self.one_shot { PrunePace::OneShot } else { PrunePace::Gradual },
        }
    }

    fn granularity(&self) -> Granularity {
        match self.granularity {
            GranularityChoice::Tensor => Granularity::Tensor,
            GranularityChoice::Channel => Granularity::Channel,
        }
    }
}

impl From<EffortChoice> for Effort {
    fn from(choice: EffortChoice) -> Self {
        match choice {
            EffortChoice::Quick => Self::Quick,
            EffortChoice::Normal => Self::Normal,
            EffortChoice::Thorough => Self::Thorough,
        }
    }
}

pub(super) fn command(args: &Args) -> Result<Exit> {
    let method: Method = args.method.parse()?;
    let pruning = args.pruning().check()?;
    // A search may take an hour: what it finds must have somewhere to go.
    for path in [Some(&args.out), args.report.as_ref(), args.json.file()].into_iter().flatten() {
        file::check_writable(path)?;
    }
    let mut input = args.task.read()?;
    // The search never sees test data: it does not even know where they are.
    input.leave_test_out();
    let mut fleet = Side::new(args, &mut input)?;
    let (parameters, trained) = match (&args.weights, &mut fleet) {
        (Some(path), _) => {
            let Weights { parameters, trained, .. } = file::read_weights_for(path, &input.plan)?;
            (parameters, trained)
        }
        (None, Side::Live(_, parameters)) => (std::mem::take(parameters), None),
        (None, _) => anyhow::bail!("--weights is missing: which model is to be compressed?"),
    };
    let settings = Settings {
        method,
        limits: Limits {
            bytes_max: args.max_bytes,
            latency_us_max: args.max_latency_us,
            macs_max: args.max_macs,
            points_lost_max: args.max_accuracy_loss,
        },
        pruning,
        granularity: args.granularity(),
        effort: args.effort.into(),
        distil: args.distil,
        lr: args.lr,
        seed: input.seed,
    };
    let bar = progress(0, "compress");
    let share = trained.map_or(VALIDATION_SHARE, |trained| trained.validation_share);
    let federated: Option<&mut dyn Fleet> = match &mut fleet {
        Side::Rows => None,
        Side::Simulated(fleet) => Some(fleet.as_mut()),
        Side::Live(fleet, _) => Some(fleet),
    };
    let is_federated = federated.is_some();
    let result = match federated {
        Some(fleet) => FederatedTuner::new(&input, fleet, bar.clone())
            .and_then(|mut tuner| run(&input, parameters, &settings, &mut tuner, &bar)),
        None => on_local_rows(&input, parameters, share, (&settings, args.teachers), &bar),
    };
    bar.finish_and_clear();
    let mut outcome = result?;
    let judged_on_unseen = match trained {
        // Pooled training knows no devices, so it has fitted what they hold out.
        Some(_) if is_federated => false,
        Some(trained) => trained.validation_share > 0.0 && trained.seed == input.seed,
        None => is_federated,
    };
    if is_federated {
        outcome.notes.extend(federated_notes(&outcome, args.distil));
    }
    if !judged_on_unseen {
        outcome.notes.push(format!(
            "the weights' file does not say that {} were kept from its training; if they were not, the full model looks \
             better on them than it is, and every loss of accuracy here is overstated",
            outcome.judged_on
        ));
    }
    file::write(&args.out, &outcome.chosen().file)?;
    if let Some(path) = &args.report {
        file::write(path, report_html(&outcome).as_bytes())?;
    }
    args.json.finish(&record(&outcome, input.seed), &table(&outcome, &args.out))?;
    Ok(if outcome.choice.fits { Exit::Ok } else { Exit::Missed })
}

/// Where the data are.
enum Side {
    Rows,
    Simulated(Box<SimulatedFleet>),
    /// The fleet, and the newest version of the run that is compressed.
    Live(LiveFleet, Vec<f32>),
}

impl Side {
    /// As the arguments say; the seed of a run that is named becomes that of `input`, so that devices hold out what they held out
    /// when its model was trained.
    fn new(args: &Args, input: &mut TaskInput) -> Result<Self> {
        match (args.federated, &args.config) {
            (None, _) => Ok(Self::Rows),
            (Some(None), None) => SimulatedFleet::new(input).map(|fleet| Self::Simulated(Box::new(fleet))),
            (Some(Some(run)), Some(config)) => {
                let mut fleet = LiveFleet::new(config, &input.task.name)?;
                let origin = fleet.origin(run, &input.plan)?;
                *input = input.under(origin.seed)?;
                Ok(Self::Live(fleet, origin.parameters))
            }
            (Some(Some(run)), None) => {
                anyhow::bail!("--federated {run} names a run of an aggregator: say which one with --config FILE")
            }
            (Some(None), Some(_)) => {
                anyhow::bail!("--config is given, but not which run has made the model: --federated RUN")
            }
        }
    }
}

/// What a reader of figures from devices has to know.
fn federated_notes(outcome: &Outcome, distil: f64) -> Vec<String> {
    let mut notes = Vec::new();
    if distil > 0.0 {
        notes.push(
            "devices tune on their labels alone: --distil has no effect with --federated, and masks and clusters are found in one \
             step rather than while training"
                .to_owned(),
        );
    }
    if outcome.candidates.iter().any(|candidate| matches!(candidate.method, Method::Integer(_))) {
        notes.push(
            "devices judge a release by its weights: the accuracy of integer candidates leaves out that activations are rounded too"
                .to_owned(),
        );
    }
    notes
}

fn on_local_rows(
    input: &TaskInput,
    parameters: Vec<f32>,
    share: f64,
    (settings, teachers): (&Settings, u32),
    bar: &ProgressBar,
) -> Result<Outcome> {
    let data = input.load()?;
    let share = if share > 0.0 { share } else { VALIDATION_SHARE };
    let rows = validation_split(data.train.len(), share, input.seed)?;
    let epochs = passes(&input.task.federation, input.task.train.epochs);
    let mut members = vec![parameters.clone()];
    if teachers > 0 {
        bar.inc_length(u64::from(teachers) * epochs as u64);
        bar.set_message("train teachers");
        members.extend(train_teachers(&input.plan, &data.train, &rows.0, teachers as usize, epochs, || bar.inc(1))?);
    }
    let on_epoch = Box::new(|| bar.inc(1));
    let mut tuner = LocalTuner::new(&input.plan, &data.train, rows, members, on_epoch)?;
    run(input, parameters, settings, &mut tuner, bar)
}

fn run(
    input: &TaskInput,
    parameters: Vec<f32>,
    settings: &Settings,
    tuner: &mut dyn Tuner,
    bar: &ProgressBar,
) -> Result<Outcome> {
    let mut watch = Watch { bar, kind: input.plan.kind };
    search(&input.plan, parameters, settings, tuner, &mut Runs(LATENCY_RUNS), &mut watch)
        .with_context(|| format!("the model of task {:?} was not compressed", input.task.name))
}

/// Shows on the bar what goes on; each candidate gets a line above it.
struct Watch<'a> {
    bar: &'a ProgressBar,
    kind: TaskKind,
}

impl Observer for Watch<'_> {
    fn stage(&mut self, what: &str, epochs: usize) {
        self.bar.inc_length(epochs as u64);
        self.bar.set_message(what.to_owned());
    }

    fn candidate(&mut self, candidate: &Candidate) {
        let figures = &candidate.figures;
        let quality = match self.kind {
            TaskKind::Regression => format!("loss {:.4}", figures.loss),
            _ => percent(Some(figures.accuracy)),
        };
        self.bar.println(format!("{}: {quality}, {}", candidate.name, size(figures.bytes)));
    }
}

fn parse_positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value.is_finite() => Ok(value),
        _ => Err("expected a number above 0".to_owned()),
    }
}

fn parse_points(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        _ => Err("expected a number of percentage points; a negative one asks for a gain".to_owned()),
    }
}

fn parse_share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("expected a share from 0 to 1".to_owned()),
    }
}
