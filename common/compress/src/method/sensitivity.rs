//! Pruning shares from measured effects: how much each layer keeps, by how far cutting it moves the network's outputs.
//!
//! A layer's curve is measured by cutting it alone, the weakest weights first, to falling fractions of the weights that it has
//! left (Han et al. 2015, "Learning both weights and connections", §5, draw the same curve of the accuracy). What is measured is
//! [`output_difference`]. [`shares`] then parts a number of kept weights among the layers so that the sum of the curves is least:
//! errors of separate layers are taken to be independent, so their squares add up.

use std::ops::Range;

/// The fractions of a layer's weights that are left, at which its curve is measured; the whole layer is known to move nothing.
pub const FRACTIONS: [f64; 10] = [0.85, 0.7, 0.5, 0.35, 0.22, 0.12, 0.06, 0.03, 0.01, 0.0];

/// How far outputs move: `1/N Σ‖y − ŷ‖²` in squared units of the outputs (of a classification: its logits), N counting output
/// values, so that the figure grows neither with the samples nor with the classes. Outputs that are not finite differ without
/// bound.
///
/// # Panics
/// If there are not as many of both.
pub fn output_difference(reference: &[f32], outputs: &[f32]) -> f64 {
    assert_eq!(reference.len(), outputs.len(), "outputs of the same samples");
    let sum: f64 = reference.iter().zip(outputs).map(|(y, other)| (f64::from(*y) - f64::from(*other)).powi(2)).sum();
    let mean = sum / reference.len().max(1) as f64;
    if mean.is_nan() { f64::INFINITY } else { mean }
}

/// One tensor cut by magnitude, alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Cut {
    /// How many of its weights are left.
    pub kept: usize,
    /// All parameters of the network, with it.
    pub parameters: Vec<f32>,
}

/// The tensor in `range` of `parameters` at each of [`FRACTIONS`] of the weights that are not 0, one at least; of equal ones the
/// earlier stay. Nothing of a tensor without such weights.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a fraction of a count")]
pub fn cuts(parameters: &[f32], range: Range<usize>) -> Vec<Cut> {
    let mut order: Vec<usize> = range.clone().filter(|index| parameters[*index] != 0.0).collect();
    order.sort_by(|a, b| parameters[*b].abs().total_cmp(&parameters[*a].abs()));
    if order.is_empty() {
        return Vec::new();
    }
    let cut = |fraction: f64| {
        let kept = ((order.len() as f64 * fraction).round() as usize).max(1);
        let mut parameters = parameters.to_vec();
        order[kept..].iter().for_each(|index| parameters[*index] = 0.0);
        Cut { kept, parameters }
    };
    FRACTIONS.into_iter().map(cut).collect()
}

/// What cutting one tensor does.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// How many weights the tensor has, zeros included.
    pub weights: usize,
    /// How many of them are not 0.
    pub present: usize,
    /// Weights left, and the output difference then.
    pub points: Vec<(usize, f64)>,
}

/// A stretch of a curve on which each further weight is worth the same.
struct Stretch {
    layer: usize,
    weights: usize,
    worth: f64,
}

/// The share of each tensor, of all its weights, where `keep` weights in all are kept and the sum of the curves is least.
///
/// Each curve counts as its lower convex hull, joined by straight lines; then taking the stretch with the steepest fall again and
/// again is the best there is (Fox 1966, "Discrete optimization via marginal analysis"). A tensor keeps at least what its curve
/// ends with, and at most what it has.
pub fn shares(curves: &[Curve], keep: usize) -> Vec<f64> {
    let mut kept = Vec::new();
    let mut stretches = Vec::new();
    for (layer, curve) in curves.iter().enumerate() {
        let hull = hull(curve);
        kept.push(hull.first().map_or(0, |(weights, _)| *weights));
        for pair in hull.windows(2) {
            let weights = pair[1].0 - pair[0].0;
            stretches.push(Stretch { layer, weights, worth: (pair[0].1 - pair[1].1) / weights as f64 });
        }
    }
    // Of one layer the steeper stretches come first, since its hull is convex; a stable sort leaves equal ones in their order.
    stretches.sort_by(|a, b| b.worth.total_cmp(&a.worth));
    let mut left = keep.saturating_sub(kept.iter().sum());
    for stretch in stretches {
        let taken = stretch.weights.min(left);
        kept[stretch.layer] += taken;
        left -= taken;
    }
    curves.iter().zip(kept).map(|(curve, kept)| kept as f64 / curve.weights.max(1) as f64).collect()
}

/// The lower convex hull of a curve from its smallest cut to the whole tensor, by rising weights (Andrew's monotone chain).
fn hull(curve: &Curve) -> Vec<(usize, f64)> {
    let measured = curve.points.iter().map(|(kept, difference)| (*kept, difference.min(f64::MAX / 1e9)));
    let mut points: Vec<(usize, f64)> = measured.filter(|(kept, _)| *kept < curve.present).collect();
    points.push((curve.present, 0.0));
    points.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    points.dedup_by_key(|(kept, _)| *kept);
    let mut hull: Vec<(usize, f64)> = Vec::new();
    for point in points {
        while let [.., before, last] = hull[..] {
            let slope = |from: (usize, f64), to: (usize, f64)| (to.1 - from.1) / (to.0 - from.0) as f64;
            if slope(before, last) < slope(last, point) {
                break;
            }
            hull.pop();
        }
        hull.push(point);
    }
    hull
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_difference_is_the_mean_square() {
        assert_eq!(output_difference(&[2.0, 4.0], &[2.0, 10.0]), 18.0);
        assert_eq!(output_difference(&[], &[]), 0.0);
        assert_eq!(output_difference(&[0.0], &[f32::NAN]), f64::INFINITY);
    }

    #[test]
    fn a_cut_keeps_the_largest_of_what_is_left_and_leaves_the_rest_of_the_network_alone() {
        let parameters = [9.0, 0.0, -3.0, 1.0, 0.5, -2.0, 0.1];
        let found = cuts(&parameters, 1..6);
        assert_eq!(found.len(), FRACTIONS.len());
        // Four weights are left of five: half of them are 2.
        assert_eq!(found[2], Cut { kept: 2, parameters: vec![9.0, 0.0, -3.0, 0.0, 0.0, -2.0, 0.1] });
        assert_eq!(found[9], Cut { kept: 1, parameters: vec![9.0, 0.0, -3.0, 0.0, 0.0, 0.0, 0.1] });
        assert!(cuts(&parameters, 1..2).is_empty(), "nothing is left to cut");
    }

    fn curve(weights: usize, points: &[(usize, f64)]) -> Curve {
        Curve { weights, present: weights, points: points.to_vec() }
    }

    #[test]
    fn shares_are_those_of_the_least_sum_by_trying_all() {
        let curves = [
            curve(8, &[(6, 0.1), (4, 0.5), (2, 2.5), (1, 6.0)]),
            curve(6, &[(5, 0.3), (3, 1.0), (1, 9.0)]),
            curve(4, &[(3, 0.05), (2, 0.2), (1, 0.6)]),
        ];
        let value = |curve: &Curve, kept: usize| {
            let hull = hull(curve);
            let pair = hull.windows(2).find(|pair| (pair[0].0..=pair[1].0).contains(&kept)).expect("on the curve");
            let along = (kept - pair[0].0) as f64 / (pair[1].0 - pair[0].0) as f64;
            pair[0].1 + along * (pair[1].1 - pair[0].1)
        };
        for keep in 3..=18 {
            let mut least = f64::INFINITY;
            for a in 1..=8 {
                for b in 1..=6 {
                    for c in 1..=4 {
                        if a + b + c == keep {
                            least = least.min(value(&curves[0], a) + value(&curves[1], b) + value(&curves[2], c));
                        }
                    }
                }
            }
            let found: Vec<f64> =
                shares(&curves, keep).iter().zip(&curves).map(|(s, c)| s * c.weights as f64).collect();
            assert!((found.iter().sum::<f64>() - keep as f64).abs() < 1e-9, "{keep}: {found:?}");
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole numbers")]
            let sum: f64 = curves.iter().zip(&found).map(|(curve, kept)| value(curve, kept.round() as usize)).sum();
            assert!((sum - least).abs() < 1e-9, "{keep}: {sum} and {least}");
        }
    }

    #[test]
    fn odd_curves_still_give_shares() {
        // A bump is not believed, a tensor without weights keeps none, one that must not be touched keeps all.
        let bumpy = curve(10, &[(8, 5.0), (5, 1.0), (1, 2.0)]);
        let empty = Curve { weights: 4, present: 0, points: Vec::new() };
        let broken = curve(10, &[(5, f64::INFINITY), (1, f64::INFINITY)]);
        assert_eq!(shares(&[bumpy.clone(), empty.clone(), broken.clone()], 14), [0.4, 0.0, 1.0]);
        assert_eq!(shares(&[bumpy.clone(), empty, broken], 99), [1.0, 0.0, 1.0], "no more than there is");
        assert_eq!(shares(&[bumpy], 0), [0.1], "no less than the curve's end");
    }
}
