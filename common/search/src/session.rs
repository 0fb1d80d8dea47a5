//! A search under way: what every recipe uses to turn a network into a release, a release into a candidate.

use starling_compress::method::structure::{self, Removal};
use starling_compress::method::{prune, quantise};
use starling_compress::{Compressed, Release, Values};
use starling_engine::{Engine, Inference};
use starling_spec::manifest::ParamTensor;
use starling_spec::shape::{Network, Node, Op, infer};
use starling_spec::{SpecError, TaskPlan};

use crate::candidate::Candidate;
use crate::error::SearchError;
use crate::figures::{Figures, Limits};
use crate::method::{Granularity, Method};
use crate::search::{Observer, Settings, Stopwatch};
use crate::tuner::{FineTune, Model, Tuner};

/// Rounds of removing dead units: each round may leave others without inputs, one layer further on.
const TIDY_ROUNDS_MAX: usize = 8;

/// A recipe goes on with smaller shares until it has lost this many points more than the limit allows: tuning may still win
/// back a little, but not that much.
const HOPELESS_POINTS: f64 = 2.0;

/// What recipes share.
pub(crate) struct Session<'a> {
    pub(crate) plan: &'a TaskPlan,
    pub(crate) settings: &'a Settings,
    pub(crate) tuner: &'a mut dyn Tuner,
    pub(crate) stopwatch: &'a mut dyn Stopwatch,
    pub(crate) observer: &'a mut dyn Observer,
    pub(crate) original: Model,
    pub(crate) baseline: Figures,
    pub(crate) latency_inputs: Vec<f32>,
    pub(crate) candidates: Vec<Candidate>,
    pub(crate) notes: Vec<String>,
}

/// How the tensors that no method compresses (biases, norms, tables) are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// binary16.
    Half,
    /// Biases in power-of-two fixed point of 8 bits, the others in binary16.
    Small,
}

impl Session<'_> {
    /// The network of `model`.
    pub(crate) fn network(&self, model: &Model) -> Result<Network, SpecError> {
        infer(self.plan.kind, &self.plan.shape, &model.layers)
    }

    /// Says something that the report repeats.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    /// A release of `model`: `weights` writes the tensors of linear and convolution layers, `rest` says how the others are written.
    pub(crate) fn pack(
        &self,
        model: &Model,
        rest: Rest,
        mut weights: impl FnMut(usize, &ParamTensor, &[f32]) -> Compressed,
    ) -> Result<Release, SearchError> {
        let network = self.network(model)?;
        let weighty = [prune::prunable(&network), binary_weights(&network)].concat();
        let tensors = network.manifest.tensors.iter().enumerate().map(|(index, tensor)| {
            let values = &model.parameters[tensor.range()];
            if weighty.contains(&index) {
                return weights(index, tensor, values);
            }
            let is_bias = tensor.name.ends_with(".bias");
            let values =
                if is_bias && rest == Rest::Small { quantise::fixed_point(values, 8) } else { quantise::half(values) };
            Compressed { kept: None, values }
        });
        let tensors: Vec<Compressed> = tensors.collect();
        Ok(Release {
            name: self.plan.name.clone(),
            kind: self.plan.kind,
            shape: self.plan.shape.clone(),
            scale: self.plan.scale,
            standardise: self.plan.standardise.clone(),
            layers: model.layers.clone(),
            inputs: vec![None; tensors.len()],
            tensors,
        })
    }

    /// Measures `release` and keeps it; gives the points of accuracy that it loses: at most, where they are limited.
    pub(crate) fn add(&mut self, method: Method, name: String, release: &Release) -> Result<f64, SearchError> {
        let file = release.to_bytes();
        // What is judged is what a device will read, not what stands here in memory.
        let read = Release::from_bytes(&file)
            .map_err(|source| SearchError::Tuner { doing: "reading a release back", source: Box::new(source) })?;
        let found = self.tuner.evaluate_release(&read)?;
        let (macs, latency_us) = self.speed(&read);
        let figures = Figures {
            accuracy: found.accuracy(),
            loss: found.loss(),
            points_error: self.tuner.points_error(&read)?,
            bytes: file.len() as u64,
            macs,
            latency_us,
        };
        let lost = match self.settings.limits.points_lost_max {
            Some(_) => figures.points_lost_at_most(&self.baseline, self.plan.kind),
            None => figures.points_lost(&self.baseline, self.plan.kind),
        };
        let candidate = Candidate { name, method, figures, tensors: read.inspect(), file };
        self.observer.candidate(&candidate);
        self.candidates.push(candidate);
        Ok(lost)
    }

    /// Adds `model` with its weights as calibrated integers of 8 bits; `keep` says which of a tensor's levels are kept, by its values.
    pub(crate) fn add_integers(
        &mut self,
        method: Method,
        name: String,
        model: &Model,
        keep: impl Fn(&[f32], Values) -> Compressed,
    ) -> Result<f64, SearchError> {
        let release = self.integers(model, 8, keep)?;
        self.add(method, name, &release)
    }

    /// A release of `model` with its weights in symmetric integers of `bits` bits, by the search's granularity; activations take 8
    /// bits over the ranges of the calibration data.
    pub(crate) fn integers(
        &mut self,
        model: &Model,
        bits: u8,
        keep: impl Fn(&[f32], Values) -> Compressed,
    ) -> Result<Release, SearchError> {
        let per_channel = self.settings.granularity == Granularity::Channel;
        let mut release = self.pack(model, Rest::Half, |_, tensor, values| {
            keep(values, quantise::integer(values, &tensor.shape, bits, per_channel))
        })?;
        let plan = TaskPlan { layers: model.layers.clone(), ..self.plan.clone() };
        release.inputs = self.tuner.calibrate(&Release::float(&plan, &model.parameters))?;
        Ok(release)
    }

    /// What the candidate that was made last is like.
    pub(crate) fn last_figures(&self) -> Option<Figures> {
        self.candidates.last().map(|candidate| candidate.figures)
    }

    /// Whether a candidate from the one numbered `first` on keeps within the limits of latency and multiply-accumulates.
    pub(crate) fn keeps_speed(&self, first: usize) -> bool {
        let limits = Limits { bytes_max: None, points_lost_max: None, ..self.settings.limits };
        self.candidates[first..]
            .iter()
            .any(|candidate| limits.exceeded(&candidate.figures, &self.baseline, self.plan.kind).is_empty())
    }

    /// Multiply-accumulates and median latency of `release`, where the engine runs it.
    pub(crate) fn speed(&mut self, release: &Release) -> (Option<u64>, Option<f64>) {
        let macs = starling_engine::multiply_accumulates(release).ok();
        match Engine::new(release) {
            Ok(mut engine) => (macs, self.stopwatch.median_us(&mut engine as &mut dyn Inference, &self.latency_inputs)),
            Err(error) => {
                self.note(format!("no latency of some candidates: {error}"));
                (macs, None)
            }
        }
    }

    /// Tunes `model`; the observer hears of it.
    pub(crate) fn fine_tune(
        &mut self,
        what: &str,
        model: &mut Model,
        tuning: &FineTune<'_>,
    ) -> Result<(), SearchError> {
        self.observer.stage(what, tuning.epochs);
        if tuning.epochs == 0 { Ok(()) } else { self.tuner.fine_tune(model, tuning) }
    }

    /// `model` without units that change no output. A network where none can be taken out stays as it is.
    pub(crate) fn without_dead_units(&self, model: Model) -> Model {
        let (kind, shape) = (self.plan.kind, &self.plan.shape);
        let mut model = model;
        for _ in 0..TIDY_ROUNDS_MAX {
            let dead = structure::dead_units(kind, shape, &model.layers, &model.parameters);
            if dead.is_empty() {
                break;
            }
            let mut changed = false;
            for removal in &dead {
                if let Ok((layers, parameters)) = remove(self.plan, &model, removal) {
                    model = Model { layers, parameters };
                    changed = true;
                }
            }
            if !changed {
                break;
            }
        }
        model
    }

    /// Whether a recipe that makes ever smaller candidates can stop: those from the one numbered `first` on are its last step's,
    /// which lost `lost` points.
    pub(crate) fn can_stop(&self, lost: f64, first: usize) -> bool {
        let Limits { bytes_max, latency_us_max, macs_max, points_lost_max } = self.settings.limits;
        if let Some(max) = points_lost_max {
            return lost > max + HOPELESS_POINTS;
        }
        let limits_speed = latency_us_max.is_some() || macs_max.is_some();
        if limits_speed && !self.keeps_speed(first) {
            return false;
        }
        // Where all limits are kept, smaller ones would keep them as well, and answer worse. Sizes are gone below far enough to
        // tell those in between.
        let smallest = self.candidates[first..].iter().map(|candidate| candidate.figures.bytes).min();
        let is_small = bytes_max.is_none_or(|max| smallest.is_some_and(|bytes| bytes < max / 2));
        if (limits_speed || bytes_max.is_some()) && is_small {
            return true;
        }
        lost > crate::figures::POINTS_LOST_DEFAULT + 2.0 * HOPELESS_POINTS
    }
}

/// How many weights of `model` can be pruned.
pub(crate) fn prunable_weights(plan: &TaskPlan, model: &Model) -> Result<usize, SpecError> {
    let network = infer(plan.kind, &plan.shape, &model.layers)?;
    Ok(prune::prunable(&network).into_iter().map(|index| network.manifest.tensors[index].len()).sum())
}

/// `model` less `removal`.
pub(crate) fn remove(
    plan: &TaskPlan,
    model: &Model,
    removal: &Removal,
) -> Result<(Vec<starling_spec::Layer>, Vec<f32>), structure::StructureError> {
    structure::remove(plan.kind, &plan.shape, &model.layers, &model.parameters, removal)
}

/// The positions of the values that are not 0, where some are.
pub(crate) fn kept(values: &[f32]) -> Option<Vec<u32>> {
    let positions = values.iter().zip(0u32..).filter(|(value, _)| **value != 0.0).map(|(_, index)| index);
    let positions: Vec<u32> = positions.collect();
    (positions.len() < values.len()).then_some(positions)
}

/// A tensor whose kept values are written by `form`.
pub(crate) fn sparse(values: &[f32], form: impl FnOnce(&[f32]) -> Values) -> Compressed {
    match kept(values) {
        None => Compressed { kept: None, values: form(values) },
        Some(kept) => {
            let picked: Vec<f32> = values.iter().copied().filter(|value| *value != 0.0).collect();
            Compressed { kept: Some(kept), values: form(&picked) }
        }
    }
}

/// The manifest indices of the weights of binary layers.
pub(crate) fn binary_weights(network: &Network) -> Vec<usize> {
    fn collect(nodes: &[Node], found: &mut Vec<usize>) {
        for node in nodes {
            match &node.op {
                Op::Linear { weight, binary: true, .. }
                | Op::Conv1d { weight, binary: true, .. }
                | Op::Conv2d { weight, binary: true, .. } => found.push(*weight),
                Op::Residual(nodes) => collect(nodes, found),
                _ => {}
            }
        }
    }
    let mut found = Vec::new();
    collect(&network.nodes, &mut found);
    found
}
