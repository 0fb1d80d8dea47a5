//! Weight pruning: which weights of linear layers and convolutions are kept, and a map that holds the others at zero through
//! any later training.
//!
//! A weight's worth is its magnitude (Han et al. 2015, "Learning both weights and connections", §3.1), its magnitude against
//! the rest of its layer (LAMP: Lee et al. 2021, "Layer-adaptive sparsity for the magnitude-based pruning", eq. 3: `w² / Σ v²`
//! over the layer's weights that are no smaller), or the first-order estimate of what zeroing it does to the loss, `|w · ∂L/∂w|`
//! (Molchanov et al. 2017, "Pruning convolutional neural networks for resource efficient inference", eq. 9, applied to single
//! weights). Only LAMP and saliency compare across layers of different width, so they are the ones for a global share. Shares that
//! differ from layer to layer can also be measured: see [`super::sensitivity`].

use std::cmp::Ordering;
use std::ops::Range;

use starling_spec::shape::Network;

use super::weights;
use crate::map::WeightMap;

/// The worth of a weight.
#[derive(Debug, Clone, Copy)]
pub enum Criterion<'a> {
    /// `|w|`.
    Magnitude,
    /// `w² / Σ v²` over the weights of its layer that are no smaller.
    Lamp,
    /// `|w · g|`, with the flat gradient of the loss.
    Saliency(&'a [f32]),
}

/// How much is kept, each share of 0 to 1.
#[derive(Debug, Clone, PartialEq)]
pub enum Shares {
    /// One for each tensor of [`prunable`], in its order.
    PerLayer(Vec<f64>),
    /// The same of each tensor.
    Uniform(f64),
    /// Of all prunable weights together: the worth decides which layer gives how much.
    Global(f64),
}

/// The manifest's indices of what can be pruned: the weights of linear layers and convolutions that are not binary.
pub fn prunable(network: &Network) -> Vec<usize> {
    weights(network).into_iter().filter(|weight| !weight.binary).map(|weight| weight.tensor).collect()
}

/// The mask that keeps the worthiest weights: of each tensor, or of all together, the share rounded to a whole number of weights,
/// and at least one weight of each tensor. Of equal weights the earlier are kept.
///
/// # Panics
/// If the lengths of `parameters`, a gradient or the shares are not the network's.
pub fn mask(network: &Network, parameters: &[f32], criterion: Criterion<'_>, shares: &Shares) -> Mask {
    assert_eq!(parameters.len(), network.manifest.len(), "the network's parameters");
    let tensors: Vec<Range<usize>> =
        prunable(network).iter().map(|index| network.manifest.tensors[*index].range()).collect();
    let mut kept = vec![true; parameters.len()];
    let mut all = Vec::new();
    for (position, range) in tensors.iter().enumerate() {
        let mut scored = scores(parameters, criterion, range.clone());
        kept[range.clone()].fill(false);
        let share = match shares {
            Shares::PerLayer(shares) => {
                assert_eq!(shares.len(), tensors.len(), "a share for each prunable tensor");
                shares[position]
            }
            Shares::Uniform(share) => *share,
            Shares::Global(_) => {
                // The best of each tensor stays whatever the others are worth: an empty layer gives a dead network.
                keep(best(&mut scored, 1), &mut kept);
                all.extend(scored);
                continue;
            }
        };
        let count = count(share, scored.len());
        keep(best(&mut scored, count), &mut kept);
    }
    if let Shares::Global(share) = shares {
        let count = count(*share, all.len());
        keep(best(&mut all, count), &mut kept);
    }
    Mask { kept }
}

fn keep(scored: &[(f32, u32)], kept: &mut [bool]) {
    for (_, index) in scored {
        kept[*index as usize] = true;
    }
}

/// The share of `total` as a count, at least 1.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share is clamped to 0 to 1 first")]
fn count(share: f64, total: usize) -> usize {
    ((share.clamp(0.0, 1.0) * total as f64).round() as usize).clamp(1.min(total), total)
}

/// The first `count` after the best are brought to the front.
fn best(scored: &mut [(f32, u32)], count: usize) -> &[(f32, u32)] {
    let worth = |a: &(f32, u32), b: &(f32, u32)| -> Ordering { b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)) };
    if count > 0 && count < scored.len() {
        scored.select_nth_unstable_by(count - 1, worth);
    }
    &scored[..count.min(scored.len())]
}

/// The worth of each weight in `range`, with its flat index.
#[allow(clippy::cast_possible_truncation, reason = "flat indices lie below 2^30, and a score is rounded to a float")]
fn scores(parameters: &[f32], criterion: Criterion<'_>, range: Range<usize>) -> Vec<(f32, u32)> {
    let mut scored: Vec<(f32, u32)> = match criterion {
        Criterion::Magnitude | Criterion::Lamp => range.map(|index| (parameters[index].abs(), index as u32)).collect(),
        Criterion::Saliency(gradient) => {
            assert_eq!(gradient.len(), parameters.len(), "a gradient of all parameters");
            range.map(|index| ((parameters[index] * gradient[index]).abs(), index as u32)).collect()
        }
    };
    if matches!(criterion, Criterion::Lamp) {
        scored.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let mut sum = 0f64;
        for (score, _) in &mut scored {
            let square = f64::from(*score).powi(2);
            sum += square;
            *score = if sum > 0.0 { (square / sum) as f32 } else { 0.0 };
        }
    }
    scored
}

/// Which parameters are kept. As a [`WeightMap`] it computes with zeros for the others and gives them no gradient, so they stay
/// zero in what is trained, on a federated device too.
#[derive(Debug, Clone, PartialEq)]
pub struct Mask {
    kept: Vec<bool>,
}

impl Mask {
    /// The mask of a pruned model: of what is [`prunable`], the weights that are not zero; of all else, everything.
    ///
    /// # Panics
    /// If `parameters` are not the network's.
    pub fn of_zeros(network: &Network, parameters: &[f32]) -> Self {
        assert_eq!(parameters.len(), network.manifest.len(), "the network's parameters");
        let mut kept = vec![true; parameters.len()];
        for tensor in prunable(network) {
            for index in network.manifest.tensors[tensor].range() {
                kept[index] = parameters[index] != 0.0;
            }
        }
        Self { kept }
    }

    /// Zeroes what is not kept.
    ///
    /// # Panics
    /// If `parameters` are not as many as the mask's.
    pub fn apply(&self, parameters: &mut [f32]) {
        assert_eq!(parameters.len(), self.kept.len(), "a mask of other parameters");
        for (value, kept) in parameters.iter_mut().zip(&self.kept) {
            if !kept {
                *value = 0.0;
            }
        }
    }

    /// Whether each parameter is kept.
    pub fn kept(&self) -> &[bool] {
        &self.kept
    }
}

impl WeightMap for Mask {
    fn forward(&self, free: &[f32], computed: &mut [f32]) {
        computed.copy_from_slice(free);
        self.apply(computed);
    }

    fn backward(&self, _free: &[f32], gradient: &mut [f32]) {
        self.apply(gradient);
    }
}
