//! Tuning on data that are in this process.

use std::cell::OnceCell;
use std::sync::atomic::AtomicBool;

use starling_compress::method::prune::Mask;
use starling_compress::method::sensitivity::output_difference;
use starling_compress::{InputRange, Release, WeightMap};
use starling_data::{Dataset, split_holdout};
use starling_engine::{Engine, InferenceError};
use starling_model::{BurnInference, Evaluated, Network, Teacher, TrainPath, Tuning, evaluate_with};
use starling_spec::shape::infer;
use starling_spec::{Optimizer, Schedule, TaskPlan, TrainSettings, WeightForm};

use crate::clustered::Clustered;
use crate::error::SearchError;
use crate::paired;
use crate::surgery::Surgery;
use crate::teachers::Teachers;
use crate::tuner::{Constraint, FineTune, Model, Tuner};

/// The share of the training rows that is kept from fitting and validated on: the customary 55,000 and 5,000 of MNIST.
pub const VALIDATION_SHARE: f64 = 1.0 / 12.0;

/// The least training rows that can be parted.
const ROWS_MIN: usize = 20;

/// Samples a step of fine-tuning.
const BATCH: usize = 64;

/// Rows of the calibration data: effects of removals are averages over them.
const CALIBRATION_ROWS: usize = 2_000;

/// Rows of it that outputs are compared on, for a dozen cuts of each layer.
const OUTPUT_ROWS: usize = 1_000;

/// The temperature of distillation (Hinton et al. 2015 use 2 to 20; small networks do best at the low end, §3).
const TEMPERATURE: f32 = 2.0;

/// The key of the validation split: no device's, since those are digests.
const VALIDATION: u64 = 0x7661_6c69_6461_7465;

/// The key of fine-tuning's batch orders.
const TUNING: u64 = 0x7475_6e69_6e67;

/// Parts `rows` training rows into those to fit and those to validate on, by seed. Weights that were trained on the first part
/// alone can be compared with their compressed forms on the second.
///
/// # Errors
/// [`SearchError::Rows`] when there are too few.
pub fn validation_split(rows: usize, share: f64, seed: u64) -> Result<(Vec<u32>, Vec<u32>), SearchError> {
    let count = u32::try_from(rows).unwrap_or(u32::MAX);
    if rows < ROWS_MIN {
        return Err(SearchError::Rows { rows, least: ROWS_MIN });
    }
    let all: Vec<u32> = (0..count).collect();
    Ok(split_holdout(&all, share, seed, VALIDATION))
}

/// A tuner with the rows of one training set.
pub struct LocalTuner<'a> {
    plan: &'a TaskPlan,
    data: &'a Dataset,
    fit: Vec<u32>,
    validation: Vec<u32>,
    /// The full model's own parameters, and which validation examples it has right, once somebody has asked.
    full: Vec<f32>,
    full_correct: OnceCell<Option<Vec<bool>>>,
    teachers: Teachers,
    tunings: u64,
    on_epoch: Box<dyn FnMut() + 'a>,
}

impl<'a> LocalTuner<'a> {
    /// A tuner for `plan` over `data`, whose rows `fit` it may learn from and whose rows `validation` it judges on. Tuned
    /// networks learn from the mean of the full networks with the parameters `teachers`, of which the first are the full model's own;
    /// `on_epoch` is called after each pass over the data.
    ///
    /// # Errors
    /// [`SearchError::Model`] when the plan describes no network.
    pub fn new(
        plan: &'a TaskPlan,
        data: &'a Dataset,
        (fit, validation): (Vec<u32>, Vec<u32>),
        teachers: Vec<Vec<f32>>,
        on_epoch: Box<dyn FnMut() + 'a>,
    ) -> Result<Self, SearchError> {
        let full = teachers.first().cloned().unwrap_or_default();
        let teachers = Teachers::new(plan, teachers).map_err(SearchError::model("building the full network"))?;
        Ok(Self { plan, data, fit, validation, full, full_correct: OnceCell::new(), teachers, tunings: 0, on_epoch })
    }

    fn plan_of(&self, model: &Model) -> TaskPlan {
        TaskPlan { layers: model.layers.clone(), ..self.plan.clone() }
    }

    fn network(&self, model: &Model) -> Result<Network, SearchError> {
        Network::new(&self.plan_of(model)).map_err(SearchError::model("building the network"))
    }

    /// Which validation examples the full model has right.
    fn full_correct(&self) -> Result<Option<&[bool]>, SearchError> {
        if self.full_correct.get().is_none() {
            let shape = infer(self.plan.kind, &self.plan.shape, &self.plan.layers)?;
            let mut network = BurnInference::new(self.plan, &self.full, self.plan.backend)
                .map_err(SearchError::model("building the full network"))?;
            let found = paired::correct(&mut network, &shape, self.data, &self.validation);
            // Nobody else sets it between the look and this line.
            let _ = self.full_correct.set(found.map_err(compared)?);
        }
        Ok(self.full_correct.get().and_then(Option::as_deref))
    }

    fn calibration(&self) -> &[u32] {
        &self.fit[..CALIBRATION_ROWS.min(self.fit.len())]
    }
}

impl Tuner for LocalTuner<'_> {
    fn evaluate(&mut self, model: &Model) -> Result<Evaluated, SearchError> {
        let mut network = self.network(model)?;
        network.evaluate(&model.parameters, self.data, &self.validation).map_err(SearchError::model("evaluating"))
    }

    fn evaluate_release(&mut self, release: &Release) -> Result<Evaluated, SearchError> {
        let shape = release.network()?;
        match Engine::new(release) {
            Ok(mut engine) => evaluate_with(&mut engine, &shape, self.data, &self.validation)
                .map_err(SearchError::model("evaluating a release")),
            // A network that the engine does not know is judged by its decompressed weights.
            Err(_) => self.evaluate(&Model { layers: release.layers.clone(), parameters: release.parameters(&shape) }),
        }
    }

    fn points_error(&mut self, release: &Release) -> Result<Option<f64>, SearchError> {
        let shape = release.network()?;
        let found = match Engine::new(release) {
            Ok(mut engine) => paired::correct(&mut engine, &shape, self.data, &self.validation),
            Err(_) => {
                let model = Model { layers: release.layers.clone(), parameters: release.parameters(&shape) };
                let mut network = BurnInference::new(&self.plan_of(&model), &model.parameters, self.plan.backend)
                    .map_err(SearchError::model("building the network"))?;
                paired::correct(&mut network, &shape, self.data, &self.validation)
            }
        };
        let found = found.map_err(compared)?;
        Ok(self.full_correct()?.zip(found).map(|(before, after)| paired::points_error(before, &after)))
    }

    fn loss(&mut self, model: &Model) -> Result<f64, SearchError> {
        let mut network = self.network(model)?;
        let found = network.evaluate(&model.parameters, self.data, self.calibration());
        found.map(|found| found.loss()).map_err(SearchError::model("measuring the loss"))
    }

    fn gradient(&mut self, model: &Model) -> Result<Vec<f32>, SearchError> {
        let mut network = self.network(model)?;
        let found = network.loss_gradient(&model.parameters, self.data, self.calibration());
        found.map(|(_, gradient)| gradient).map_err(SearchError::model("measuring the gradient"))
    }

    fn output_differences(&mut self, model: &Model, changed: &[&[f32]]) -> Result<Vec<f64>, SearchError> {
        let network = self.network(model)?;
        let rows = &self.fit[..OUTPUT_ROWS.min(self.fit.len())];
        let outputs = |parameters: &[f32]| {
            network.outputs(parameters, self.data, rows).map_err(SearchError::model("comparing outputs"))
        };
        let reference = outputs(&model.parameters)?;
        changed.iter().map(|changed| Ok(output_difference(&reference, &outputs(changed)?))).collect()
    }

    fn moves_masks(&self) -> bool {
        true
    }

    fn fine_tune(&mut self, model: &mut Model, tuning: &FineTune<'_>) -> Result<(), SearchError> {
        let mut network = self.network(model)?;
        let shape = infer(self.plan.kind, &self.plan.shape, &model.layers)?;
        let (mask, surgery, clustered) = (OnceCell::new(), OnceCell::new(), OnceCell::new());
        let batch = BATCH.min(self.fit.len());
        let map: Option<&dyn WeightMap> = match tuning.constraint {
            Constraint::Free => None,
            Constraint::Pruned => Some(mask.get_or_init(|| Mask::of_zeros(&shape, &model.parameters))),
            Constraint::Share(share) => {
                let steps = tuning.epochs * self.fit.len().div_ceil(batch);
                Some(surgery.get_or_init(|| Surgery::new(&shape, share, tuning.worth, steps)))
            }
            Constraint::Clustered(centroids) => {
                Some(clustered.get_or_init(|| Clustered::new(&shape, &model.parameters, centroids)))
            }
            Constraint::Shared(map) => Some(map),
        };
        let teachers = &mut self.teachers;
        let mut outputs = |features: &[f32]| teachers.answer(features);
        #[allow(clippy::cast_possible_truncation, reason = "a share")]
        let share = tuning.distil as f32;
        let teacher = (share > 0.0).then_some(Teacher { outputs: &mut outputs, temperature: TEMPERATURE, share });
        self.tunings += 1;
        let on_epoch = &mut self.on_epoch;
        let settings = TrainSettings {
            optimizer: Optimizer::Adam,
            lr: tuning.lr,
            batch,
            epochs: tuning.epochs,
            schedule: Schedule::Cosine,
            weights: WeightForm::Free,
            ..TrainSettings::default()
        };
        let asked = Tuning {
            settings,
            path: TrainPath { device: TUNING, round: self.tunings },
            map,
            teacher,
            stop: &AtomicBool::new(false),
            on_epoch: &mut |_, _| on_epoch(),
        };
        let outcome = network.tune(&mut model.parameters, self.data, &self.fit, asked);
        outcome.map_err(SearchError::model("fine-tuning"))?;
        if let Some(map) = map {
            let free = model.parameters.clone();
            map.forward(&free, &mut model.parameters);
        }
        Ok(())
    }

    fn calibrate(&mut self, release: &Release) -> Result<Vec<Option<InputRange>>, SearchError> {
        let mut features = Vec::new();
        self.data.features_into(self.calibration(), &mut features);
        starling_engine::calibrate(release, &features)
            .map_err(|source| SearchError::Tuner { doing: "calibrating activations", source: Box::new(source) })
    }

    fn inputs(&mut self, samples: usize) -> Vec<f32> {
        let mut features = Vec::new();
        self.data.features_into(&self.fit[..samples.min(self.fit.len())], &mut features);
        features
    }

    fn judged_on(&self) -> String {
        format!("{} validation rows of the training data", self.validation.len())
    }
}

/// What a network says while its answers are compared, as a search's error.
fn compared(source: InferenceError) -> SearchError {
    SearchError::Tuner { doing: "comparing answers", source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inv11_the_split_is_the_seeds_and_parts_every_row_once() {
        let (fit, validation) = validation_split(600, VALIDATION_SHARE, 3).expect("rows");
        assert_eq!((fit.len(), validation.len()), (550, 50));
        let mut all = [fit.clone(), validation.clone()].concat();
        all.sort_unstable();
        assert_eq!(all, (0..600).collect::<Vec<u32>>());
        assert_eq!(validation_split(600, VALIDATION_SHARE, 3).expect("rows"), (fit.clone(), validation));
        assert_ne!(validation_split(600, VALIDATION_SHARE, 4).expect("rows").0, fit);
        assert!(validation_split(19, VALIDATION_SHARE, 3).is_err());
    }
}
