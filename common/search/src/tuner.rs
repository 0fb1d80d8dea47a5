//! Where the data are: what a search asks of them, so that it never sees a sample itself.
//!
//! [`crate::LocalTuner`] has the rows in this process; a federation has them on devices, which tune and evaluate in ordinary
//! rounds. A search cannot tell them apart.

use starling_compress::method::codebook::SharedWeights;
use starling_compress::{InputRange, Release};
use starling_model::Evaluated;
use starling_spec::Layer;

use crate::error::SearchError;
use crate::pruning::Worth;

/// A network under work: its layers, which may already be fewer or smaller than the task's, and their parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// The layers.
    pub layers: Vec<Layer>,
    /// The flat vector of their manifest.
    pub parameters: Vec<f32>,
}

/// What holds while weights are tuned.
#[derive(Clone, Copy)]
pub enum Constraint<'a> {
    /// Nothing.
    Free,
    /// Weights that are 0 stay 0.
    Pruned,
    /// The worthiest share of all prunable weights is kept, all others are 0 at the end; which they are may change meanwhile
    /// (see [`crate::Surgery`]). A side whose masks do not move (see [`Tuner::moves_masks`]) prunes first and then holds the mask.
    Share(f64),
    /// Each prunable tensor's kept weights take at most so many values, which move along (see [`crate::Clustered`]); weights that
    /// are 0 stay 0.
    Clustered(usize),
    /// The members of a cluster move together, and pruned weights stay 0.
    Shared(&'a SharedWeights),
}

/// One fine-tuning.
#[derive(Clone, Copy)]
pub struct FineTune<'a> {
    /// What holds meanwhile.
    pub constraint: Constraint<'a>,
    /// Passes over the data; the rate falls to 0 along half a cosine over all of them.
    pub epochs: usize,
    /// The first learning rate (Adam).
    pub lr: f64,
    /// Which weights [`Constraint::Share`] keeps. A side whose masks do not move is asked for [`Worth::Lamp`] alone: for any other
    /// worth its masks are drawn before it tunes.
    pub worth: Worth<'a>,
    /// How much of the loss is the distance to the full model's outputs, from 0 (labels alone) to 1 (distillation, Hinton et
    /// al. 2015, §2). A side that cannot do so tunes on labels.
    pub distil: f64,
}

/// The side that has data.
pub trait Tuner {
    /// How `model` does on the validation data.
    ///
    /// # Errors
    /// What the network or the other side says.
    fn evaluate(&mut self, model: &Model) -> Result<Evaluated, SearchError>;

    /// How a release does on the validation data when the engine runs it, integers and all.
    ///
    /// # Errors
    /// As [`Tuner::evaluate`].
    fn evaluate_release(&mut self, release: &Release) -> Result<Evaluated, SearchError>;

    /// The standard error of the points of accuracy that `release` loses against the full model; none where the two cannot be
    /// compared row by row.
    ///
    /// # Errors
    /// As [`Tuner::evaluate`].
    fn points_error(&mut self, _release: &Release) -> Result<Option<f64>, SearchError> {
        Ok(None)
    }

    /// The mean loss of `model` on calibration data, which are not the validation data: by it methods rank what to remove.
    ///
    /// # Errors
    /// As [`Tuner::evaluate`].
    fn loss(&mut self, model: &Model) -> Result<f64, SearchError>;

    /// The gradient of [`Tuner::loss`] by the parameters.
    ///
    /// # Errors
    /// As [`Tuner::evaluate`]; [`SearchError::Unavailable`] from a side that gives no gradients.
    fn gradient(&mut self, model: &Model) -> Result<Vec<f32>, SearchError>;

    /// How far the outputs of `model`'s network move on calibration data with each of the parameters `changed`, in the model's
    /// place: [`starling_compress::method::sensitivity::output_difference`].
    ///
    /// # Errors
    /// As [`Tuner::evaluate`]; [`SearchError::Unavailable`] from a side that compares no outputs, which is what a side says unless
    /// it defines this.
    fn output_differences(&mut self, _model: &Model, _changed: &[&[f32]]) -> Result<Vec<f64>, SearchError> {
        Err(SearchError::Unavailable("the side that has the data does not compare outputs"))
    }

    /// Whether masks move while this side tunes under [`Constraint::Share`], by any [`Worth`].
    fn moves_masks(&self) -> bool {
        false
    }

    /// Tunes `model` in place.
    ///
    /// # Errors
    /// As [`Tuner::evaluate`].
    fn fine_tune(&mut self, model: &mut Model, tuning: &FineTune<'_>) -> Result<(), SearchError>;

    /// The ranges of each layer's inputs on calibration data, one for each tensor of the release's manifest (see
    /// [`Release::inputs`]).
    ///
    /// # Errors
    /// As [`Tuner::evaluate`].
    fn calibrate(&mut self, release: &Release) -> Result<Vec<Option<InputRange>>, SearchError>;

    /// Features of samples to measure latency with, at most `samples` of them; none where the data do not leave the devices.
    fn inputs(&mut self, samples: usize) -> Vec<f32>;

    /// On what accuracies are measured, for the report: `5,000 validation rows`.
    fn judged_on(&self) -> String;
}
