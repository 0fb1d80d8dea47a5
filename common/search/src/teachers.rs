//! Who compressed networks learn from: the full model, and where asked for, others trained beside it.

use std::collections::HashMap;

use starling_data::Dataset;
use starling_model::{ModelError, Network, TrainPath};
use starling_spec::TaskPlan;
use starling_spec::init::initial_parameters;
use starling_spec::random::mix;
use starling_spec::shape::infer;

/// Answers that are remembered: more than MNIST has images, and some MB of them.
const REMEMBERED_VALUES_MAX: usize = 1 << 24;

/// The mean of several networks' outputs, remembered sample by sample: tuning goes over the same rows again and again.
pub(crate) struct Teachers {
    network: Network,
    members: Vec<Vec<f32>>,
    input_len: usize,
    output_len: usize,
    /// Where a sample's answer begins in `answers`, by its features' hash.
    places: HashMap<u64, usize>,
    answers: Vec<f32>,
}

impl Teachers {
    /// The networks of `plan` with `members` for parameters.
    pub(crate) fn new(plan: &TaskPlan, members: Vec<Vec<f32>>) -> Result<Self, ModelError> {
        let network = Network::new(plan)?;
        let shape = infer(plan.kind, &plan.shape, &plan.layers)?;
        let (input_len, output_len) = (shape.input.iter().product(), shape.output.iter().product());
        Ok(Self { network, members, input_len, output_len, places: HashMap::new(), answers: Vec::new() })
    }

    /// The answers for a whole number of samples.
    pub(crate) fn answer(&mut self, features: &[f32]) -> Result<Vec<f32>, ModelError> {
        let samples: Vec<&[f32]> = features.chunks_exact(self.input_len).collect();
        let keys: Vec<u64> = samples.iter().map(|sample| hash(sample)).collect();
        let new: Vec<usize> = (0..samples.len()).filter(|index| !self.places.contains_key(&keys[*index])).collect();
        if !new.is_empty() {
            let asked: Vec<f32> = new.iter().flat_map(|index| samples[*index]).copied().collect();
            let found = self.ask(&asked)?;
            if self.answers.len() + found.len() > REMEMBERED_VALUES_MAX {
                // A set that large is asked about anew each time; mixing both would cost as much.
                return self.ask(features);
            }
            for (answer, index) in found.chunks_exact(self.output_len).zip(new) {
                self.places.insert(keys[index], self.answers.len());
                self.answers.extend_from_slice(answer);
            }
        }
        Ok(keys.iter().flat_map(|key| &self.answers[self.places[key]..][..self.output_len]).copied().collect())
    }

    fn ask(&self, features: &[f32]) -> Result<Vec<f32>, ModelError> {
        let mut mean = vec![0f32; features.len() / self.input_len * self.output_len];
        #[allow(clippy::cast_precision_loss, reason = "a handful of networks")]
        let share = 1.0 / self.members.len().max(1) as f32;
        for parameters in &self.members {
            for (mean, output) in mean.iter_mut().zip(self.network.predict(parameters, features)?) {
                *mean += share * output;
            }
        }
        Ok(mean)
    }
}

/// A hash of a sample's bits: among 60,000 samples any two share it with a probability of about 10^-10.
fn hash(sample: &[f32]) -> u64 {
    let folded = sample.iter().fold(sample.len() as u64, |state, value| {
        (state.rotate_left(5) ^ u64::from(value.to_bits())).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    });
    // The multiplication leaves the low bits weak.
    mix(folded)
}

/// Trains `count` networks of `plan` on the rows `fit` of `data` as its `[train]` says, for `epochs`, each from initial parameters of
/// its own.
///
/// # Errors
/// What training says.
pub fn train_teachers(
    plan: &TaskPlan,
    data: &Dataset,
    fit: &[u32],
    count: usize,
    epochs: usize,
    mut on_epoch: impl FnMut(),
) -> Result<Vec<Vec<f32>>, ModelError> {
    let mut network = Network::new(plan)?;
    let manifest = plan.manifest()?;
    (0..count as u64)
        .map(|member| {
            let mut parameters = initial_parameters(&manifest, mix(plan.seed ^ mix(member + 1)));
            let path = TrainPath { device: TEACHER, round: member };
            network.train_pooled(&mut parameters, data, fit, epochs, path, &mut |_, _| on_epoch())?;
            Ok(parameters)
        })
        .collect()
}

/// The key of the batch orders of teachers: no device's, since those are digests.
const TEACHER: u64 = 0x0074_6561_6368_6572;

#[cfg(test)]
mod tests {
    use starling_spec::TaskFile;

    use super::*;

    fn plan() -> TaskPlan {
        let task = r#"
            name = "pairs"
            kind = "classification"
            [data]
            format = "csv"
            train = "pairs.csv"
            shape = [2]
            [model]
            layers = [{ linear = { out = 2 } }]
        "#;
        TaskPlan::new(&TaskFile::parse(task, &[]).expect("a task"), 1).expect("a plan")
    }

    #[test]
    fn the_answer_is_the_mean_and_is_the_same_when_remembered() {
        // y = x W + b with W [in, out].
        let members = vec![vec![1., 0., 0., 1., 0., 0.], vec![3., 0., 0., 3., 2., 2.]];
        let mut teachers = Teachers::new(&plan(), members).expect("teachers");
        let features = [1.0, 2.0, -1.0, 0.0];
        let first = teachers.answer(&features).expect("answers");
        assert_eq!(first, [3.0, 5.0, -1.0, 1.0]);
        assert_eq!(teachers.answers.len(), 4);
        assert_eq!(
            teachers.answer(&[-1.0, 0.0, 1.0, 2.0, 1.0, 2.0]).expect("answers"),
            [-1.0, 1.0, 3.0, 5.0, 3.0, 5.0]
        );
        assert_eq!(teachers.answers.len(), 4, "nothing was asked anew");
    }

    #[test]
    fn samples_that_differ_in_one_bit_have_answers_of_their_own() {
        assert_ne!(hash(&[0.0, 1.0]), hash(&[1.0, 0.0]));
        assert_ne!(hash(&[0.0; 3]), hash(&[0.0; 4]));
        assert_ne!(hash(&[1.0, 0.0]), hash(&[1.0, f32::MIN_POSITIVE]));
    }
}
