//! A random rotation that everybody draws alike: it spreads a vector's energy evenly, so that one scale suits every coordinate.
//!
//! The randomised Hadamard transform needs a power of two. A vector of m coordinates is turned without padding: with p the largest
//! power of two up to m, first its first p coordinates, then its last p, and both once more. Each step is orthogonal, and
//! because p > m/2 the steps overlap. [`spread`] bounds what is left of unevenness.
//!
//! Each coordinate is then a sum of the block's coordinates under random signs, over √p: sub-Gaussian (Hoeffding 1963) with a variance
//! of at most `spread(m) / m` times the squared norm.

use starling_spec::random::{Purpose, Random};

use crate::kernel::hadamard::{LANES, flip_signs, transform};

/// Steps of a rotation.
const STEPS: u64 = 4;

/// The block that a step turns, of a vector of `count` coordinates that is long enough to turn at all.
fn block(count: usize, step: u64) -> std::ops::Range<usize> {
    let size = 1 << count.ilog2();
    if step.is_multiple_of(2) { 0..size } else { count - size..count }
}

fn key(seed: u64, step: u64) -> u64 {
    Random::new(seed, Purpose::Rotate, &[step]).key()
}

#[allow(clippy::cast_possible_truncation, reason = "a float's precision is enough for a factor")]
fn normalise(values: &mut [f32]) {
    let scale = (1.0 / (values.len() as f64).sqrt()) as f32;
    values.iter_mut().for_each(|value| *value *= scale);
}

/// Rotates `values` in place. Fewer than eight stay as they are.
pub fn rotate(values: &mut [f32], seed: u64) {
    if values.len() < LANES {
        return;
    }
    for step in 0..STEPS {
        let range = block(values.len(), step);
        let block = &mut values[range];
        flip_signs(block, key(seed, step), 0);
        transform(block);
        normalise(block);
    }
}

/// Undoes [`rotate`] with the same seed, up to rounding.
pub fn rotate_back(values: &mut [f32], seed: u64) {
    if values.len() < LANES {
        return;
    }
    for step in (0..STEPS).rev() {
        let range = block(values.len(), step);
        let block = &mut values[range];
        transform(block);
        normalise(block);
        flip_signs(block, key(seed, step), 0);
    }
}

/// The largest expected energy of a coordinate after a rotation, as a multiple of the mean energy: 1 when `count` is a power of two.
pub fn spread(count: usize) -> f64 {
    if count < LANES {
        return count.max(1) as f64;
    }
    let size = (1usize << count.ilog2()) as f64;
    // Coordinates in the first block alone, in both, in the last alone.
    let alone = count as f64 - size;
    let sizes = [alone, size - alone, alone];
    let mut worst = 0f64;
    // Energies are linear in where the energy was at first, so its being in one part is the worst.
    for start in 0..3 {
        let mut energy = [0.0; 3];
        energy[start] = 1.0;
        for step in 0..STEPS {
            let [near, far] = if step.is_multiple_of(2) { [0, 1] } else { [1, 2] };
            let together = energy[near] + energy[far];
            energy[near] = together * sizes[near] / size;
            energy[far] = together * sizes[far] / size;
        }
        for (energy, size) in energy.into_iter().zip(sizes).filter(|(_, size)| *size > 0.0) {
            worst = worst.max(energy / size * count as f64);
        }
    }
    worst
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(count: usize) -> Vec<f32> {
        let mut random = Random::new(count as u64, Purpose::Noise, &[]);
        (0..count).map(|_| random.unit_f32() - 0.5).collect()
    }

    fn norm(values: &[f32]) -> f64 {
        values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt()
    }

    #[test]
    fn a_rotation_keeps_the_norm_and_is_undone() {
        for count in [1, 7, 8, 9, 15, 64, 100, 1000, 4096, 5001] {
            let before = vector(count);
            let mut values = before.clone();
            rotate(&mut values, 3);
            assert!((norm(&values) / norm(&before) - 1.0).abs() < 1e-5, "{count}");
            rotate_back(&mut values, 3);
            let error: Vec<f32> = values.iter().zip(&before).map(|(a, b)| a - b).collect();
            assert!(norm(&error) < 1e-5 * norm(&before), "{count}");
        }
    }

    #[test]
    fn energy_in_one_place_is_spread_as_far_as_promised() {
        // Mean over 400 seeds of each coordinate's energy, where the input is one coordinate: the promise, and the noise of 400 samples of
        // a chi-square of one degree at most (standard deviation √(2/400), seven of them for the largest of a thousand).
        for (count, place) in [(512, 3), (600, 599), (600, 0), (1000, 700)] {
            let mut energies = vec![0f64; count];
            for seed in 0..400 {
                let mut values = vec![0f32; count];
                values[place] = 1.0;
                rotate(&mut values, seed);
                energies.iter_mut().zip(&values).for_each(|(sum, value)| *sum += f64::from(*value).powi(2) / 400.0);
            }
            let largest = energies.iter().copied().fold(0.0, f64::max) * count as f64;
            assert!(largest <= spread(count) * (1.0 + 7.0 * (2.0f64 / 400.0).sqrt()), "{count}: {largest}");
        }
        assert_eq!(spread(1024), 1.0);
        for count in 8..3000 {
            assert!((1.0..2.0).contains(&spread(count)), "{count}: {}", spread(count));
        }
    }
}
