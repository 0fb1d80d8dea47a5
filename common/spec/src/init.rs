//! The parameters that a run begins with: a function of the manifest and the seed alone (invariant 11).
//!
//! Weights are uniform in ±gain·√(3 / fan-in). The gain is √2 where a ReLU or GELU follows (He et al. 2015, eq. 10) and 1
//! otherwise (LeCun et al. 1998, §4.6); biases begin at 0, the scales of normalisations at 1. Only additions,
//! multiplications and square roots are used, which IEEE 754 rounds the same everywhere.

use crate::manifest::{ParamManifest, Start};
use crate::random::{Purpose, Random};

/// The initial flat vector of `manifest` under `seed`; each tensor draws from a stream of its own.
pub fn initial_parameters(manifest: &ParamManifest, seed: u64) -> Vec<f32> {
    let mut parameters = Vec::with_capacity(manifest.len());
    for (index, tensor) in manifest.tensors.iter().enumerate() {
        match tensor.start {
            Start::Constant(value) => parameters.extend(std::iter::repeat_n(value, tensor.len())),
            Start::Uniform(bound) => {
                let mut random = Random::new(seed, Purpose::Initialise, &[index as u64]);
                parameters.extend((0..tensor.len()).map(|_| bound * (2.0 * random.unit_f32() - 1.0)));
            }
        }
    }
    parameters
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preset;
    use crate::shape::infer;
    use crate::task::TaskKind;

    #[test]
    fn inv11_the_seed_alone_decides_and_bounds_hold() {
        let layers = preset::layers("lenet-300-100").expect("a preset");
        let manifest = infer(TaskKind::Classification, &[1, 28, 28], &layers).expect("a network").manifest;
        let parameters = initial_parameters(&manifest, 7);
        assert_eq!(parameters.len(), 266_610);
        assert_eq!(parameters, initial_parameters(&manifest, 7));
        assert_ne!(parameters, initial_parameters(&manifest, 8));
        let first = &parameters[manifest.tensors[0].range()];
        let bound = (6.0f32 / 784.0).sqrt();
        assert!(first.iter().all(|value| value.abs() <= bound));
        // Uniform: variance bound²/3, here from 235,200 draws (its own relative error is about 0.2 %).
        let variance = first.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>() / first.len() as f64;
        assert!((variance / (2.0 / 784.0) - 1.0).abs() < 0.01, "{variance}");
        assert!(parameters[manifest.tensors[1].range()].iter().all(|value| *value == 0.0));
    }
}
