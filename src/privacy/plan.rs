//! `starling privacy plan`: what a data scientist asks before a run that is to be private. How much noise, for which ε, for how many
//! rounds, and how far the noise moves the model.

use anyhow::Result;
use serde::Serialize;
use starling_privacy::{Charge, Statement, rounds_within, spent};
use starling_spec::{DpMechanism, DpMode, DpSection, PrivacyPlan, SpecError};

use crate::report::{JsonArgs, Table, figure};
use crate::task_input::TaskArgs;

/// What the noise multipliers of the table are, in those of the task.
const LADDER: [f64; 5] = [0.25, 0.5, 1.0, 2.0, 4.0];

/// How many times the task's rounds a budget's length is looked for.
const ROUNDS_FACTOR: u32 = 10;

/// Arguments of `starling privacy plan`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    task: TaskArgs,
    /// Find the noise multiplier for this epsilon, and how many rounds it lasts; privacy.dp.epsilon_max when it is not given
    #[arg(long, value_name = "E")]
    epsilon: Option<f64>,
    #[command(flatten)]
    json: JsonArgs,
}

#[derive(Debug, Serialize)]
struct Plan {
    task: String,
    parameters: usize,
    /// Devices of the federation, where the task says how many.
    devices: Option<u32>,
    /// Devices that a round is expected to have, where that is known.
    cohort: Option<f64>,
    rounds: u32,
    mode: DpMode,
    mechanism: DpMechanism,
    clip: f64,
    delta: f64,
    /// The budget that is looked at.
    epsilon: Option<f64>,
    /// The noise multiplier with which the task's rounds spend it.
    noise_multiplier_for_epsilon: Option<f64>,
    /// By noise multiplier, from little to much.
    noise: Vec<Row>,
    #[serde(flatten)]
    statement: Statement,
}

/// What one noise multiplier means.
#[derive(Debug, Serialize)]
struct Row {
    noise_multiplier: f64,
    /// It is the task's own.
    is_tasks: bool,
    /// What is spent after some of the rounds, and after all of them.
    spent: Vec<Spent>,
    /// Rounds that the budget lasts; `rounds_within_max` means that many or more.
    rounds_within: Option<u32>,
    rounds_within_max: u32,
    /// The noise's standard deviation on one coordinate of a round's mean.
    deviation_of_mean: Option<f64>,
    /// The expected L2 norm of the noise on a round's mean, in the largest norm that the mean itself can have.
    noise_per_clip: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Spent {
    rounds: u32,
    epsilon: f64,
}

/// How far the noise on a round's mean reaches, for a noise multiplier of 1.
#[derive(Debug, Clone, Copy)]
struct Reach {
    deviation_of_mean: f64,
    noise_per_clip: f64,
}

pub(super) fn command(args: &PlanArgs) -> Result<()> {
    let input = args.task.read()?;
    let privacy = input.plan.privacy.as_ref();
    let dp = privacy.and_then(|privacy| privacy.asked.dp.as_ref());
    let (privacy, dp, charge) =
        privacy.zip(dp).and_then(|(privacy, dp)| Some((privacy, dp, Charge::of(privacy)?))).ok_or_else(|| {
            SpecError::value(
                "privacy.dp",
                "nothing",
                "a plan is about noise: say mode, clip, noise_multiplier and delta",
            )
        })?;
    let parameters = input.plan.manifest()?.len();
    let cohort = privacy.cohort();
    let epsilon = args.epsilon.or(dp.epsilon_max);
    let wanted = epsilon.map(|epsilon| charge.noise_for(privacy.rounds, epsilon)).transpose()?;

    // Clipping alone has no multiplier to begin with.
    let own = if dp.noise_multiplier > 0.0 { dp.noise_multiplier } else { 1.0 };
    let mut multipliers: Vec<f64> = LADDER.iter().map(|factor| own * factor).chain(wanted).collect();
    multipliers.sort_by(f64::total_cmp);
    multipliers.dedup();
    let reach = cohort.map(|cohort| Reach::of(privacy, dp, cohort, parameters));
    let noise = multipliers.into_iter().map(|noise_multiplier| {
        let charge = Charge { noise_multiplier, ..charge };
        row(privacy, &charge, epsilon, reach, noise_multiplier == dp.noise_multiplier)
    });
    let plan = Plan {
        task: input.task.name.clone(),
        parameters,
        devices: privacy.devices,
        cohort,
        rounds: privacy.rounds,
        mode: dp.mode,
        mechanism: dp.mechanism,
        clip: dp.clip,
        delta: dp.delta,
        epsilon,
        noise_multiplier_for_epsilon: wanted,
        noise: noise.collect::<Result<_>>()?,
        statement: charge.statement(),
    };
    args.json.finish(&plan, &plan.table())
}

fn row(
    privacy: &PrivacyPlan,
    charge: &Charge,
    epsilon: Option<f64>,
    reach: Option<Reach>,
    is_tasks: bool,
) -> Result<Row> {
    let mut quarters: Vec<u32> = (1..=4u32).map(|quarter| (privacy.rounds * quarter / 4).max(1)).collect();
    quarters.dedup();
    let spent = quarters.into_iter().map(|rounds| Ok(Spent { rounds, epsilon: spent(charge, rounds)? }));
    let rounds_within_max = privacy.rounds.saturating_mul(ROUNDS_FACTOR);
    let multiplier = privacy.update_multiplier(charge.noise_multiplier);
    let reach = reach.filter(|_| multiplier.is_finite());
    Ok(Row {
        noise_multiplier: charge.noise_multiplier,
        is_tasks,
        spent: spent.collect::<Result<_>>()?,
        rounds_within: epsilon.map(|epsilon| rounds_within(charge, epsilon, rounds_within_max)).transpose()?,
        rounds_within_max,
        deviation_of_mean: reach.map(|reach| reach.deviation_of_mean * multiplier),
        noise_per_clip: reach.map(|reach| reach.noise_per_clip * multiplier),
    })
}

impl Reach {
    fn of(privacy: &PrivacyPlan, dp: &DpSection, cohort: f64, parameters: usize) -> Self {
        let clip = dp.clip;
        // How often the noise that is charged is in the sum: on each update; of a whole cohort, where the least sum has enough; once.
        let noises = match dp.mode {
            DpMode::Local => cohort,
            DpMode::Distributed => cohort / f64::from(privacy.honest_min().max(1)),
            _ => 1.0,
        };
        let deviation_of_mean = noises.sqrt() * clip / cohort;
        #[allow(clippy::cast_precision_loss, reason = "far fewer than 2^53 parameters")]
        let noise_per_clip = deviation_of_mean * (parameters as f64).sqrt() / clip;
        Self { deviation_of_mean, noise_per_clip }
    }
}

impl Plan {
    fn table(&self) -> Table {
        let quarters = self.noise.first().map_or(&[][..], |row| &row.spent[..]);
        let mut head = vec!["noise multiplier".to_owned()];
        head.extend(quarters.iter().map(|spent| format!("ε after {}", spent.rounds)));
        head.extend(self.epsilon.map(|epsilon| format!("rounds within {epsilon}")));
        head.extend(["deviation of the mean", "noise / clip"].map(str::to_owned));
        let mut table = Table::new(&head.iter().map(String::as_str).collect::<Vec<_>>());
        for row in &self.noise {
            let of = if row.is_tasks {
                " (the task's)"
            } else if self.noise_multiplier_for_epsilon == Some(row.noise_multiplier) {
                " (asked)"
            } else {
                ""
            };
            let mut cells = vec![format!("{:.4}{of}", row.noise_multiplier)];
            cells.extend(row.spent.iter().map(|spent| figure(Some(spent.epsilon), 4)));
            cells.extend(row.rounds_within.map(|rounds| {
                let more = if rounds == row.rounds_within_max { " or more" } else { "" };
                format!("{rounds}{more}")
            }));
            cells.push(row.deviation_of_mean.map_or_else(|| "–".into(), |deviation| format!("{deviation:.2e}")));
            cells.push(figure(row.noise_per_clip, 2));
            table.row(cells);
        }
        if let (Some(epsilon), Some(noise)) = (self.epsilon, self.noise_multiplier_for_epsilon) {
            let rounds = self.rounds;
            table.note(format!("epsilon {epsilon} over {rounds} rounds asks for a noise multiplier of {noise:.4}"));
        }
        table.note(match self.cohort {
            Some(cohort) => format!(
                "deviation of the mean: of the noise on one of {} coordinates, a round's mean being over {cohort} devices; noise / clip: \
                 the noise's L2 norm in {}, the longest that the mean can be",
                self.parameters, self.clip
            ),
            None => "set federation.devices to see how far the noise moves a round's mean".to_owned(),
        });
        table.note(match self.mechanism {
            DpMechanism::Tree { .. } => {
                "after t rounds the sum of the means carries the noise of as many rounds as t has binary ones"
            }
            _ => "after t rounds the sum of the means carries √t times the noise of one",
        });
        let Statement { unit, neighbours, sampling, adversary } = &self.statement;
        table.note(format!("each ε at delta {:e}; unit: one {unit}; neighbours: {neighbours}", self.delta));
        table.note(format!("sampling: {sampling}"));
        table.note(format!("adversary: {adversary}"));
        table
    }
}
