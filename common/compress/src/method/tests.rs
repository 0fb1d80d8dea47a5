use proptest::prelude::*;
use starling_spec::random::{Purpose, Random};
use starling_spec::shape::{Network, infer};
use starling_spec::{Layer, TaskKind};

use super::binary::{Binarised, binary};
use super::codebook::{SharedWeights, cluster};
use super::prune::{Criterion, Mask, Shares, mask, prunable};
use super::quantise::{FakeQuantised, fixed_point, half, integer};
use crate::map::WeightMap;
use crate::tensor::{Compressed, Values, channel_of};

fn network(shape: &[usize], layers: &str) -> Network {
    let layers: Vec<Layer> = serde_json::from_str(layers).expect("layers");
    infer(TaskKind::Classification, shape, &layers).expect("a network")
}

/// A convolution, a residual, a binary linear layer and a real one.
fn mixed() -> Network {
    network(
        &[2, 6, 6],
        r#"[{"conv2d":{"out":3,"kernel":3}},{"residual":{"layers":["relu",{"conv2d":{"out":3,"kernel":3,"padding":"same"}}]}},
            "flatten","batch_norm","sign",{"linear":{"out":8,"binary":true}},"relu",{"linear":{"out":4}}]"#,
    )
}

fn gauss(count: usize, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed, Purpose::Noise, &[]);
    #[allow(clippy::cast_possible_truncation, reason = "a float for a test")]
    (0..count).map(|_| random.normal() as f32 * 0.1).collect()
}

fn dense(values: Values, shape: &[usize]) -> Vec<f32> {
    let mut out = vec![0.0; values.len()];
    Compressed { kept: None, values }.decompress_into(shape, &mut out);
    out
}

fn squared_error(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum()
}

#[test]
fn linear_and_convolution_weights_are_prunable_and_binary_ones_are_not() {
    let network = mixed();
    let names: Vec<_> = prunable(&network).iter().map(|index| network.manifest.tensors[*index].name.clone()).collect();
    assert_eq!(names, ["0.conv2d.weight", "1.1.conv2d.weight", "7.linear.weight"]);
}

#[test]
fn a_mask_keeps_the_largest_and_everything_that_is_no_weight() {
    let network = network(&[3], r#"[{"linear":{"out":2}}]"#);
    let parameters = [0.1, -0.5, 0.0, 0.3, -0.2, 0.2, 0.0, 9.0];
    let found = mask(&network, &parameters, Criterion::Magnitude, &Shares::Uniform(0.5));
    assert_eq!(found.kept(), [false, true, false, true, true, false, true, true], "of equals the earlier is kept");
    let gradient = [9.0, 0.0, 5.0, 1.0, -1.0, 0.5, 0.0, 0.0];
    let found = mask(&network, &parameters, Criterion::Saliency(&gradient), &Shares::PerLayer(vec![1.0 / 3.0]));
    assert_eq!(found.kept()[..6], [true, false, false, true, false, false]);
    let mut masked = parameters;
    found.apply(&mut masked);
    assert_eq!(masked, [0.1, 0.0, 0.0, 0.3, 0.0, 0.0, 0.0, 9.0]);
    assert_eq!(Mask::of_zeros(&network, &masked), found);
    let mut gradient = [1.0; 8];
    found.backward(&parameters, &mut gradient);
    assert_eq!(gradient, [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0]);
}

#[test]
fn lamp_is_the_square_by_the_squares_that_are_no_smaller() {
    // Scores, by eq. 3 of the paper: [1/14, 4/13, 9/9] and [25/50, 25/25, 16/66], the first of two equals counting as larger.
    let network = network(&[3], r#"[{"linear":{"out":1,"bias":false}},{"linear":{"out":3,"bias":false}}]"#);
    let parameters = [1.0, -2.0, 3.0, 5.0, -5.0, 4.0];
    let kept = |share| mask(&network, &parameters, Criterion::Lamp, &Shares::Global(share)).kept().to_vec();
    assert_eq!(kept(0.5), [false, false, true, true, true, false]);
    assert_eq!(kept(4.0 / 6.0), [false, true, true, true, true, false]);
    assert_eq!(kept(5.0 / 6.0), [false, true, true, true, true, true]);
    assert_eq!(kept(0.0), [false, false, true, true, false, false], "no layer is emptied");
}

#[test]
fn fixed_point_is_round_of_w_times_two_to_the_p() {
    let Values::Fixed { places, bits, levels } = fixed_point(&[0.5, -0.25, 0.123, 0.0], 8) else {
        panic!("fixed point")
    };
    assert_eq!((places, bits), (7, 8), "0.5 · 2^7 = 64 fits into 127, 0.5 · 2^8 does not");
    assert_eq!(levels, [64, -32, 16, 0]);
    assert_eq!(dense(fixed_point(&[0.0; 3], 4), &[3]), [0.0; 3]);
    let huge = dense(fixed_point(&[3e38, -1e38], 16), &[2]);
    assert!((huge[0] / 3e38 - 1.0).abs() < 1e-3 && (huge[1] / -1e38 - 1.0).abs() < 1e-3);
}

#[test]
fn an_integer_scale_follows_its_channel() {
    // [in 2, out 3]: the columns have the magnitudes 1, 10 and 100.
    let values = [1.0, -10.0, 100.0, 0.5, 5.0, -50.0];
    let Values::Integer { scales, levels, .. } = integer(&values, &[2, 3], 8, true) else { panic!("integers") };
    assert_eq!(scales.len(), 3);
    assert!(scales[0] * 127.0 >= 1.0 && scales[0] * 127.0 < 1.01 && scales[2] * 127.0 < 101.0);
    assert!(levels.iter().all(|level| level.unsigned_abs() >= 62), "{levels:?}");
    let Values::Integer { scales, .. } = integer(&values, &[2, 3], 8, false) else { panic!("integers") };
    assert_eq!(scales.len(), 1);
    let Values::Integer { scales, .. } = integer(&[1.0, 0.5, 8.0, 4.0], &[2, 1, 2], 8, true) else {
        panic!("integers")
    };
    assert!(scales[1] > 7.0 * scales[0], "a convolution's channels are its first axis");
}

#[test]
fn few_bits_clip_where_it_pays() {
    let mut values = gauss(4096, 3);
    values[0] = 2.0;
    let error = |values: &[f32], bits| squared_error(values, &dense(integer(values, &[4096], bits, false), &[4096]));
    let plain_step = 2.0 / 7.0;
    let plain: f64 =
        values.iter().map(|value| f64::from(value - (value / plain_step).round() * plain_step).powi(2)).sum();
    assert!(error(&values, 4) < plain * 0.95, "{} is not below {plain}", error(&values, 4));
}

#[test]
fn integers_with_straight_through_gradients_are_those_of_the_release() {
    let network = mixed();
    let free = gauss(network.manifest.len(), 5);
    let mut computed = vec![0.0; free.len()];
    FakeQuantised::new(&network, 4).forward(&free, &mut computed);
    for (index, tensor) in network.manifest.tensors.iter().enumerate() {
        let range = tensor.range();
        let expected = match prunable(&network).contains(&index) {
            true => dense(integer(&free[range.clone()], &tensor.shape, 4, true), &tensor.shape),
            false => free[range.clone()].to_vec(),
        };
        assert_eq!(computed[range], expected, "{}", tensor.name);
    }
}

#[test]
fn k_means_finds_the_clusters_and_codes_rise() {
    let values = [1.0, -2.0, 1.0, 0.0, -2.0, 1.0, 4.0, 0.0];
    let Values::Codebook { centroids, codes } = cluster(&values, 16) else { panic!("a code book") };
    assert_eq!(centroids, [-2.0, 0.0, 1.0, 4.0]);
    assert_eq!(codes, [2, 0, 2, 1, 0, 2, 3, 1]);
    assert_eq!(cluster(&[], 4).len(), 0);
    let Values::Codebook { centroids, .. } = cluster(&[0.25; 9], 4) else { panic!("a code book") };
    assert_eq!(centroids, [0.25]);
    // A pruned tensor has a gap around zero: linear initialisation leaves centroids without members there, and they are used.
    let gap: Vec<f32> = gauss(4000, 9).into_iter().filter(|value| value.abs() > 0.15).collect();
    let Values::Codebook { centroids, .. } = cluster(&gap, 16) else { panic!("a code book") };
    assert_eq!(centroids.len(), 16);
}

#[test]
fn members_of_a_cluster_move_together_by_their_mean() {
    let network = network(&[2], r#"[{"linear":{"out":2}}]"#);
    let book = Compressed {
        kept: Some(vec![0, 2, 3]),
        values: Values::Codebook { centroids: vec![-1.0, 0.5], codes: vec![1, 0, 1] },
    };
    let map = SharedWeights::new(&network, &[(0, &book)]);
    let free = [0.5, 7.0, -1.0, 0.75, 0.1, 0.2];
    let mut computed = [9.0; 6];
    map.forward(&free, &mut computed);
    assert_eq!(computed, [0.625, 0.0, -1.0, 0.625, 0.1, 0.2]);
    let mut gradient = [1.0, 5.0, 3.0, 2.0, 4.0, 6.0];
    map.backward(&free, &mut gradient);
    assert_eq!(gradient, [1.5, 0.0, 3.0, 1.5, 4.0, 6.0]);
    let mut tuned = [(0usize, book)];
    map.codes_into(&free, &mut tuned);
    assert_eq!(tuned[0].1.values, Values::Codebook { centroids: vec![-1.0, 0.625], codes: vec![1, 0, 1] });
}

#[test]
fn binary_weights_are_the_sign_by_the_mean_magnitude() {
    let values = [0.5, -1.0, 1.5, 0.0];
    assert_eq!(dense(binary(&values, &[2, 2]), &[2, 2]), [1.0, -0.5, 1.0, 0.5]);
    let network = mixed();
    let free = gauss(network.manifest.len(), 6);
    let mut once = vec![0.0; free.len()];
    Binarised::new(&network).forward(&free, &mut once);
    let weight = network.manifest.tensors.iter().find(|tensor| tensor.name == "5.linear.weight").expect("a tensor");
    assert_eq!(once[weight.range()], dense(binary(&free[weight.range()], &weight.shape), &weight.shape));
    assert_eq!(once[..weight.offset], free[..weight.offset]);
}

/// The way back of α, against a central difference: where no weight changes sign, `α sign(W)` is differentiable in α.
#[test]
fn the_binary_gradient_is_the_chain_rule() {
    let network = network(&[3], r#"[{"linear":{"out":2,"bias":false,"binary":true}}]"#);
    let map = Binarised::new(&network);
    let free = [0.3, -0.2, -0.4, 0.6, 0.2, 1.5];
    let outer = [0.7, -1.0, 0.2, 0.4, -0.3, 0.9];
    let loss = |free: &[f32]| -> f64 {
        let mut computed = [0.0; 6];
        map.forward(free, &mut computed);
        computed.iter().zip(&outer).map(|(value, weight)| f64::from(value * weight)).sum()
    };
    let mut gradient = outer;
    map.backward(&free, &mut gradient);
    for index in 0..6 {
        let (mut above, mut below) = (free, free);
        above[index] += 0.01;
        below[index] -= 0.01;
        let of_scale = (loss(&above) - loss(&below)) / 0.02;
        let channel = channel_of(&[3, 2], index);
        let alpha = (0..3).map(|row| free[row * 2 + channel].abs()).sum::<f32>() / 3.0;
        let through = if free[index].abs() <= 1.0 { f64::from(alpha * outer[index]) } else { 0.0 };
        assert!((f64::from(gradient[index]) - of_scale - through).abs() < 1e-4, "weight {index}");
    }
}

proptest! {
    /// Whatever the weights and the share, a mask keeps exactly so many.
    #[test]
    fn a_mask_keeps_exactly_its_share(seed in any::<u64>(), share in 0.0f64..1.0, ties in any::<bool>()) {
        let network = mixed();
        let mut parameters = gauss(network.manifest.len(), seed);
        if ties {
            for value in &mut parameters {
                *value = (*value * 10.0).round();
            }
        }
        let gradient = gauss(parameters.len(), seed ^ 1);
        for criterion in [Criterion::Magnitude, Criterion::Lamp, Criterion::Saliency(&gradient)] {
            let found = mask(&network, &parameters, criterion, &Shares::Uniform(share));
            for index in prunable(&network) {
                let tensor = &network.manifest.tensors[index];
                let wanted = (share * tensor.len() as f64).round().max(1.0);
                let kept = found.kept()[tensor.range()].iter().filter(|kept| **kept).count();
                prop_assert!((kept as f64 - wanted).abs() < 1e-6);
            }
            let found = mask(&network, &parameters, criterion, &Shares::Global(share));
            let total: usize = prunable(&network).iter().map(|index| network.manifest.tensors[*index].len()).sum();
            let pruned = found.kept().iter().filter(|kept| !**kept).count() as f64;
            let wanted = total as f64 - (share * total as f64).round();
            prop_assert!((wanted - 3.0..=wanted).contains(&pruned), "{} of {}", pruned, wanted);
        }
    }

    /// More centroids never cost error, and no code book is worse than its linear initialisation.
    #[test]
    fn k_means_never_raises_its_objective(seed in any::<u64>(), centroids in 2usize..40, count in 1usize..600) {
        let values = gauss(count, seed);
        let (low, high) = values.iter().fold((f32::MAX, f32::MIN), |(low, high), value| (low.min(*value), high.max(*value)));
        #[allow(clippy::cast_precision_loss, reason = "small")]
        let step = (high - low) / (centroids - 1) as f32;
        let start: f64 = values
            .iter()
            .map(|value| (0..centroids).map(|k| f64::from(value - (low + step * k as f32)).powi(2)).fold(f64::MAX, f64::min))
            .sum();
        let found = squared_error(&values, &dense(cluster(&values, centroids), &[count]));
        // Rounding moves a centroid by at most 1/8 of itself by their number.
        let rounding = values.iter().map(|value| (f64::from(*value) / 7.9 / centroids as f64).powi(2)).sum::<f64>();
        prop_assert!(found <= start * 1.001 + rounding, "{} above {}", found, start);
        let fewer = squared_error(&values, &dense(cluster(&values, 1), &[count]));
        prop_assert!(found <= fewer * 1.001 + rounding);
    }

    /// The error of each form is within its step.
    #[test]
    fn quantised_values_are_close(seed in any::<u64>(), bits in 2u8..=8) {
        let values = gauss(96, seed);
        let largest = values.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        let step = f64::from(largest) / f64::from((1u32 << (bits - 1)) - 1);
        for coded in [integer(&values, &[12, 8], bits, false), integer(&values, &[12, 8], bits, true)] {
            prop_assert!(squared_error(&values, &dense(coded, &[12, 8])) <= 96.0 * step * step * 0.2601);
        }
        prop_assert!(squared_error(&values, &dense(fixed_point(&values, bits), &[96])) <= 96.0 * 4.0 * step * step);
        let rounded = dense(half(&values), &[96]);
        for (value, rounded) in values.iter().zip(&rounded) {
            prop_assert!((value - rounded).abs() <= value.abs() / 2048.0 + 3e-8);
        }
    }
}
