//! The privacy loss distribution of the sampled Gaussian mechanism, composed by Fourier transform.
//!
//! 1. *Dominating pairs.* Adding and removing a unit are two directions, each with a pair of densities on the line: `N(0, σ²)` and the
//!    mixture `(1−q)·N(0, σ²) + q·N(1, σ²)` (Zhu, Dong and Wang 2022, "Optimal accounting of differential privacy via characteristic
//!    function", theorem 11). ε is the larger one of both.
//! 2. *Connecting the dots.* The loss is put on a grid of step [`STEP`] so that the hockey-stick curve δ(ε) is exact at each grid
//!    point and linear in e^ε between them: never below the true curve (Doroshenko, Ghazi, Kamath, Kumar and Manurangsi 2022,
//!    "Connect the dots", algorithm 1).
//! 3. *Composition.* Losses of steps add, so their distributions convolve: the transform of one step to the power of the number of
//!    steps. The window leaves out at most `TAIL` of mass (Chernoff); what is left out counts as an infinite loss.
//!
//! Accuracy: an upper bound but for the transform's own rounding, whose false mass stays below 10⁻¹². So δ has a floor,
//! [`DELTA_MIN`]. Cost: some milliseconds for a few thousand steps, memory 32 bytes a grid point of the window.

use super::{PrivacyError, SampledGaussian};
use crate::logarithm::{add, normal_tail, subtract};
use crate::transform::{Complex, Way, transform};

/// The grid of losses.
pub const STEP: f64 = 1e-4;

/// The smallest δ that is answered: a hundred times what the transform may make up.
pub const DELTA_MIN: f64 = 1e-10;

/// Mass beyond the composed window.
const TAIL: f64 = 1e-15;

/// Deviations of the noise beyond which one step's loss is not looked at: a mass of 10⁻¹⁹.
const DEVIATIONS: f64 = 9.0;

/// Grid points of one step and of the window: half a GiB of transform.
const POINTS_MAX: f64 = (1 << 24) as f64;

/// Whether the unit is in the data that the mechanism ran on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    /// It is, and the neighbour is without it.
    Remove,
    /// It is not, and the neighbour has it.
    Add,
}

/// One step's loss on the grid.
struct Loss {
    /// The grid index of the first mass.
    first: i64,
    masses: Vec<f64>,
    /// The mass of losses above every grid point.
    infinite: f64,
    times: u32,
}

/// See [`super::Accountant::epsilon`].
///
/// # Errors
/// [`PrivacyError`] for a δ below [`DELTA_MIN`], or when the loss does not fit.
pub fn epsilon(steps: &[SampledGaussian], delta: f64) -> Result<f64, PrivacyError> {
    if delta < DELTA_MIN {
        return Err(PrivacyError::Value {
            name: "delta",
            value: delta,
            expected: "at least 1e-10 with the pld accountant; the rdp accountant answers below",
        });
    }
    let steps: Vec<&SampledGaussian> = steps.iter().filter(|steps| !steps.is_void()).collect();
    if steps.is_empty() {
        return Ok(0.0);
    }
    let mut worst = 0f64;
    for direction in [Direction::Remove, Direction::Add] {
        let losses = steps.iter().map(|steps| Loss::new(steps, direction)).collect::<Result<Vec<_>, _>>()?;
        worst = worst.max(compose(&losses)?.epsilon(delta));
    }
    Ok(worst)
}

impl Loss {
    fn new(steps: &SampledGaussian, direction: Direction) -> Result<Self, PrivacyError> {
        let (rate, noise) = (steps.sampling_rate, steps.noise_multiplier);
        let loss = |x: f64| log_ratio(rate, noise, x);
        let (low, high) = match direction {
            Direction::Remove => (loss(-DEVIATIONS * noise), loss(1.0 + DEVIATIONS * noise)),
            Direction::Add => (-loss(DEVIATIONS * noise), -loss(-DEVIATIONS * noise)),
        };
        let points = (high - low) / STEP + 2.0;
        if points > POINTS_MAX {
            return Err(PrivacyError::Span(high - low));
        }
        let (first, last) = (grid_index((low / STEP).floor()), grid_index((high / STEP).ceil()));
        let deltas: Vec<f64> =
            (first..=last).map(|index| log_delta(rate, noise, direction, on_grid(index)).exp()).collect();
        // With d(i) = δ(i−1) − δ(i), the mass at i is (d(i) − e^−h · d(i+1)) / (1 − e^−h): the change of slope, times e^ε.
        let drops: Vec<f64> = deltas.windows(2).map(|pair| pair[0] - pair[1]).collect();
        let shrink = (-STEP).exp();
        let whole = -(-STEP).exp_m1();
        let mut masses = vec![0.0; deltas.len()];
        for (index, drop) in drops.iter().enumerate() {
            let next = drops.get(index + 1).copied().unwrap_or(0.0);
            masses[index + 1] = ((drop - shrink * next) / whole).max(0.0);
        }
        let infinite = deltas[deltas.len() - 1];
        masses[0] = (1.0 - infinite - masses.iter().sum::<f64>()).max(0.0);
        Ok(Self { first, masses, infinite, times: steps.steps })
    }

    /// `ln E[e^(λ·loss)]` over finite losses, once for each step.
    fn log_moment(&self, lambda: f64) -> f64 {
        let exponents = self.masses.iter().enumerate().filter(|(_, mass)| **mass > 0.0);
        let exponents = exponents.map(|(index, mass)| mass.ln() + lambda * on_grid(self.first + index_of(index)));
        // The largest one is taken out, so that no power overflows and not all of them vanish.
        let (peak, sum) = exponents.fold((f64::NEG_INFINITY, 0.0), |(peak, sum), exponent| {
            if exponent <= peak {
                (peak, sum + (exponent - peak).exp())
            } else {
                (exponent, sum * (peak - exponent).exp() + 1.0)
            }
        });
        f64::from(self.times) * (peak + sum.ln())
    }
}

/// A composed loss: what [`Loss`] is for one step.
struct Composed {
    first: i64,
    masses: Vec<f64>,
    infinite: f64,
}

impl Composed {
    /// The least ε ≥ 0 with δ(ε) ≤ `delta`: between two grid points, `δ(ε) = infinite + Σ masses − e^ε · Σ mass·e^−loss` over the
    /// losses above.
    fn epsilon(&self, delta: f64) -> f64 {
        if self.infinite >= delta {
            return f64::INFINITY;
        }
        let (mut above, mut discounted) = (self.infinite, 0.0);
        for (index, mass) in self.masses.iter().enumerate().rev() {
            let loss = on_grid(self.first + index_of(index));
            if loss <= 0.0 {
                break;
            }
            // δ at this very point, from the losses above it; it only grows downwards.
            if above - loss.exp() * discounted > delta {
                break;
            }
            above += mass;
            discounted += mass * (-loss).exp();
        }
        if above <= delta { 0.0 } else { ((above - delta) / discounted).ln().max(0.0) }
    }
}

fn compose(losses: &[Loss]) -> Result<Composed, PrivacyError> {
    // Chernoff: P(sum ≥ u) ≤ e^(K(λ) − λu), and the mirror image below.
    let moment = |lambda: f64| losses.iter().map(|loss| loss.log_moment(lambda)).sum::<f64>();
    let lambdas = (-3..15).map(|power| 2f64.powi(power));
    let (mut low, mut high) = (f64::NEG_INFINITY, f64::INFINITY);
    for lambda in lambdas {
        high = high.min((moment(lambda) - TAIL.ln()) / lambda);
        low = low.max((TAIL.ln() - moment(-lambda)) / lambda);
    }
    let span = high - low;
    if span.is_nan() || span / STEP + 2.0 > POINTS_MAX {
        return Err(PrivacyError::Span(span));
    }
    let first = grid_index((low / STEP).floor());
    let points = usize::try_from(grid_index((high / STEP).ceil()) - first + 1).unwrap_or(1).next_power_of_two();
    let mut product = vec![Complex::ONE; points];
    let mut log_finite = 0.0;
    for loss in losses {
        for (product, value) in product.iter_mut().zip(transformed(loss, points)) {
            *product = *product * value.power(loss.times);
        }
        log_finite += f64::from(loss.times) * (-loss.infinite).ln_1p();
    }
    transform(&mut product, Way::Back);
    // Sums wrap around the window: its first point is where `first` lies.
    let start = wrapped(first, points);
    #[allow(clippy::cast_precision_loss, reason = "at most 2^24 points")]
    let scale = 1.0 / points as f64;
    let at = |index: usize| (product[(start + index) % points].re * scale).max(0.0);
    let masses = (0..points).map(at).collect();
    Ok(Composed { first, masses, infinite: -log_finite.exp_m1() + TAIL })
}

fn transformed(loss: &Loss, points: usize) -> Vec<Complex> {
    let mut buffer = vec![Complex::ZERO; points];
    for (index, mass) in loss.masses.iter().enumerate() {
        buffer[wrapped(loss.first + index_of(index), points)].re += mass;
    }
    transform(&mut buffer, Way::Forward);
    buffer
}

/// `ln((1 − q) + q·e^((2x − 1)/2σ²))`: the loss of removing at x, and the negative one of adding.
pub(super) fn log_ratio(rate: f64, noise: f64, x: f64) -> f64 {
    add((-rate).ln_1p(), rate.ln() + (2.0 * x - 1.0) / (2.0 * noise * noise))
}

/// Where [`log_ratio`] is `loss`; none where it is always larger.
fn point_of(rate: f64, noise: f64, loss: f64) -> Option<f64> {
    let above = subtract(loss, (-rate).ln_1p());
    (above > f64::NEG_INFINITY).then(|| noise * noise * (above - rate.ln()) + 0.5)
}

/// `ln δ(ε)` of one step: the upper density's mass of losses above ε, less e^ε times the lower one's. In logarithms, so that the
/// tails keep their digits.
fn log_delta(rate: f64, noise: f64, direction: Direction, epsilon: f64) -> f64 {
    let mixture = |zero: f64, one: f64| add((-rate).ln_1p() + zero, rate.ln() + one);
    match direction {
        Direction::Remove => match point_of(rate, noise, epsilon) {
            Some(x) => {
                let (zero, one) = (normal_tail(x / noise), normal_tail((x - 1.0) / noise));
                subtract(mixture(zero, one), epsilon + zero)
            }
            None => subtract(0.0, epsilon),
        },
        Direction::Add => match point_of(rate, noise, -epsilon) {
            Some(x) => {
                let (zero, one) = (normal_tail(-x / noise), normal_tail((1.0 - x) / noise));
                subtract(zero, epsilon + mixture(zero, one))
            }
            None => f64::NEG_INFINITY,
        },
    }
}

#[allow(clippy::cast_precision_loss, reason = "grid indices stay below 2^53")]
fn on_grid(index: i64) -> f64 {
    index as f64 * STEP
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "losses are bounded by POINTS_MAX steps of the grid from a finite start"
)]
fn grid_index(steps: f64) -> i64 {
    steps as i64
}

fn index_of(index: usize) -> i64 {
    i64::try_from(index).expect("at most 2^24 points")
}

fn wrapped(index: i64, points: usize) -> usize {
    let points = index_of(points);
    usize::try_from(index.rem_euclid(points)).expect("a remainder is not negative")
}
