//! A malicious network that files pictures in bins, so that a sum over many devices still holds single ones.
//!
//! Neuron i of the first layer is active where the picture's brightness is above the i-th threshold, and all neurons act alike on the loss.
//! Then `ΔW_i = Σ d_j · x_j` over all examples brighter than threshold i, of all devices, and `ΔW_i − ΔW_(i+1)` is what lies between two
//! thresholds: one picture, where only one lies there (Fowl et al. 2022, "Robbing the Fed: directly obtaining private data in federated learning
//! with modified models", §4; Boenisch et al. 2023, "When the curious abandon honesty", choose weights to the same end). Secure aggregation
//! computes that sum exactly. Clipping scales each device's examples by a factor, and a factor changes no picture.

use anyhow::{Context, Result};
use starling_spec::TaskPlan;

use crate::algebra::norm;
use crate::picture::Picture;

/// How strongly neurons act on the loss: so much that the first layer is nearly all of the update.
const PULL: f32 = 16.0;

/// The largest logit, so that the loss pulls at each class alike whatever the picture.
const LOGIT_MAX: f32 = 0.5;

/// Thresholds between which public pictures are spread evenly, one for each neuron, rising.
pub fn thresholds(public: &[Picture], neurons: usize) -> Vec<f64> {
    let mut brightness: Vec<f64> = public.iter().map(Picture::brightness).collect();
    brightness.sort_by(f64::total_cmp);
    let last = brightness.len().saturating_sub(1);
    let quantile = |share: f64| {
        let place = share * last as f64;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the list")]
        let below = (place.floor() as usize).min(last);
        let above = (below + 1).min(last);
        let part = place - below as f64;
        brightness[below] * (1.0 - part) + brightness[above] * part
    };
    (0..neurons).map(|neuron| quantile((neuron as f64 + 0.25) / neurons as f64)).collect()
}

/// The parameters of the trap, for a plan whose network is linear, ReLU, linear.
///
/// # Errors
/// When it is another network.
#[allow(clippy::cast_possible_truncation, reason = "weights travel in single precision")]
pub fn parameters(plan: &TaskPlan, thresholds: &[f64]) -> Result<Vec<f32>> {
    let manifest = plan.manifest()?;
    let [weight, bias, second, second_bias] = &manifest.tensors[..] else {
        anyhow::bail!("the trap fits networks of two linear layers with biases")
    };
    let (&[inputs, neurons], &[_, classes]) = (&weight.shape[..], &second.shape[..]) else {
        anyhow::bail!("the trap fits networks of two linear layers with biases")
    };
    anyhow::ensure!(neurons == thresholds.len(), "a threshold for each of the {neurons} neurons");
    // Activations this small leave every logit within its bound, though the pull is strong.
    let small = LOGIT_MAX / (PULL * neurons as f32);
    let mut all = vec![0.0; manifest.len()];
    all[weight.range()].fill(small / inputs as f32);
    for (value, threshold) in all[bias.range()].iter_mut().zip(thresholds) {
        *value = -small * *threshold as f32;
    }
    for (place, value) in all[second.range()].iter_mut().enumerate() {
        *value = if (place % classes).is_multiple_of(2) { PULL } else { -PULL };
    }
    debug_assert_eq!(second_bias.len(), classes);
    Ok(all)
}

/// A picture for each bin that holds anything, those with the most in them first.
///
/// # Errors
/// When there are no bins.
pub fn pictures(layer: &[Vec<f64>], thresholds: &[f64], side: usize) -> Result<Vec<Picture>> {
    let pixels = side * side;
    let nothing = vec![0.0; pixels + 1];
    let next = layer.iter().skip(1).chain([&nothing]);
    let brightest = *thresholds.last().context("a trap has bins")?;
    let ceilings = thresholds.iter().skip(1).copied().chain([brightest * 1.2]);
    let mut bins = Vec::new();
    for (((row, above), floor), ceiling) in layer.iter().zip(next).zip(thresholds).zip(ceilings) {
        let between: Vec<f64> = row.iter().zip(above).map(|(a, b)| a - b).collect();
        let total = between[..pixels].iter().sum::<f64>() / pixels as f64;
        // The bin says how bright its picture is, better than the change of the bias does.
        let scale = f64::midpoint(*floor, ceiling) / total;
        bins.push((norm(&between), Picture::new(side, between[..pixels].iter().map(|value| value * scale))));
    }
    bins.sort_by(|a, b| b.0.total_cmp(&a.0));
    let empty = bins.first().map_or(0.0, |(most, _)| most * 1e-6);
    Ok(bins.into_iter().filter(|(held, _)| *held > empty).map(|(_, picture)| picture).collect())
}
