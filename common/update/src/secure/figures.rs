//! What a device says of a model version inside a sum: how it does on the device's own hold-out. Nobody sees one device's figures.

use starling_spec::TaskPlan;
use starling_spec::task::TaskKind;

use crate::ring::SHARES;

/// Examples that a device counts for at most; of more, shares are kept.
const EXAMPLES_MAX: u32 = 65_535;

/// Levels of a loss for each unit of it, and the largest loss that is told apart, in nats or label units.
const LOSS_LEVELS: u32 = 16;
const LOSS_MAX: u32 = 16;

/// Cells of the accuracy: how many devices are in each is summed.
const CELLS: usize = 20;

/// Devices from which on a worst tenth is told: with fewer it would be one device's own figure.
const TENTH_MIN: i128 = 30;

/// How a version does on one device's hold-out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LocalFigures {
    /// Examples held out.
    pub examples: u64,
    /// Examples classified rightly.
    pub correct: u64,
    /// Sum of the loss over them.
    pub loss_sum: f64,
}

impl LocalFigures {
    /// The share that is classified rightly, where anything is held out.
    pub(super) fn accuracy(&self) -> Option<f64> {
        (self.examples > 0).then(|| (self.correct as f64 / self.examples as f64).min(1.0))
    }

    /// The mean loss of an example as a share of the largest that is told apart, where anything is held out.
    pub(super) fn loss_share(&self) -> Option<f64> {
        (self.examples > 0).then(|| loss(self.loss_sum / self.examples as f64) / f64::from(LOSS_MAX))
    }
}

/// How a version does on the hold-outs of the devices of a sum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SummedFigures {
    /// The share of examples that is classified rightly; none for a regression.
    pub accuracy: Option<f64>,
    /// The mean loss of an example, each device's cut at 16; under noise the mean over devices of theirs.
    pub loss: Option<f64>,
    /// The mean accuracy of the tenth of the devices that does worst, to 2.5 points; none over fewer than 30 devices.
    pub worst_tenth: Option<f64>,
}

impl SummedFigures {
    /// Those of the means of what devices say under noise, if they say any.
    pub(super) fn under_noise([accuracy, loss]: [Option<f64>; SHARES]) -> Option<Self> {
        let loss = loss.map(|share| share * f64::from(LOSS_MAX));
        (accuracy.is_some() || loss.is_some()).then_some(Self { accuracy, loss, worst_tenth: None })
    }
}

/// The numbers that are summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FigureTallies {
    has_classes: bool,
}

impl FigureTallies {
    /// Those of a plan, where it asks for any.
    pub(super) fn of(plan: &TaskPlan) -> Option<Self> {
        let asked = plan.privacy.as_ref().is_some_and(|privacy| privacy.evaluate_every > 0);
        asked.then_some(Self { has_classes: plan.kind != TaskKind::Regression })
    }

    /// The largest value of each.
    pub(super) fn maxima(self) -> Vec<u32> {
        let cells = if self.has_classes { CELLS } else { 0 };
        let sums = [EXAMPLES_MAX, EXAMPLES_MAX, EXAMPLES_MAX * LOSS_LEVELS * LOSS_MAX];
        sums.into_iter().chain(std::iter::repeat_n(1, cells)).collect()
    }

    /// The values of a device; zeros where it says nothing.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "shares of the maxima")]
    pub(super) fn write(self, figures: Option<&LocalFigures>, out: &mut Vec<u32>) {
        let count = self.maxima().len();
        let from = out.len();
        out.resize(from + count, 0);
        let Some((figures, accuracy)) = figures.and_then(|figures| Some((figures, figures.accuracy()?))) else {
            return;
        };
        let examples = figures.examples.min(EXAMPLES_MAX.into()) as f64;
        let loss = loss(figures.loss_sum / figures.examples as f64);
        out[from] = examples as u32;
        out[from + 1] = (examples * accuracy).round() as u32;
        out[from + 2] = (examples * loss * f64::from(LOSS_LEVELS)).round() as u32;
        if self.has_classes {
            out[from + 3 + ((accuracy * CELLS as f64) as usize).min(CELLS - 1)] = 1;
        }
    }

    /// What the sums say; nothing where no device had anything to say.
    pub(super) fn read(self, sums: &[i128]) -> Option<SummedFigures> {
        let [examples, correct, loss, cells @ ..] = sums else { return None };
        if *examples <= 0 {
            return None;
        }
        let of_examples = |sum: i128| sum as f64 / *examples as f64;
        Some(SummedFigures {
            accuracy: self.has_classes.then(|| of_examples(*correct)),
            loss: Some(of_examples(*loss) / f64::from(LOSS_LEVELS)),
            worst_tenth: worst_tenth(cells),
        })
    }
}

/// A loss, cut to what is told apart. What is no number counts as the worst.
fn loss(loss: f64) -> f64 {
    if loss.is_nan() { LOSS_MAX.into() } else { loss.clamp(0.0, LOSS_MAX.into()) }
}

fn worst_tenth(cells: &[i128]) -> Option<f64> {
    let devices: i128 = cells.iter().sum();
    if devices < TENTH_MIN {
        return None;
    }
    let tenth = devices / 10;
    let (mut left, mut sum) = (tenth, 0.0);
    for (cell, count) in cells.iter().enumerate() {
        let taken = left.min(*count);
        sum += taken as f64 * (cell as f64 + 0.5) / CELLS as f64;
        left -= taken;
    }
    Some(sum / tenth as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TALLIES: FigureTallies = FigureTallies { has_classes: true };

    fn summed(tallies: FigureTallies, devices: &[Option<LocalFigures>]) -> Option<SummedFigures> {
        let mut sums = vec![0i128; tallies.maxima().len()];
        for figures in devices {
            let mut values = Vec::new();
            tallies.write(figures.as_ref(), &mut values);
            assert!(values.iter().zip(tallies.maxima()).all(|(value, max)| *value <= max), "{values:?}");
            values.iter().zip(&mut sums).for_each(|(value, sum)| *sum += i128::from(*value));
        }
        tallies.read(&sums)
    }

    fn figures(examples: u64, correct: u64, loss_sum: f64) -> Option<LocalFigures> {
        Some(LocalFigures { examples, correct, loss_sum })
    }

    #[test]
    fn sums_of_figures_are_those_of_all_examples_together() {
        let got = summed(TALLIES, &[figures(10, 5, 12.0), figures(30, 27, 6.0), None, figures(0, 0, 0.0)]);
        let got = got.expect("figures");
        assert_eq!((got.accuracy, got.worst_tenth), (Some(0.8), None), "four devices have no tenth");
        assert!((got.loss.expect("a loss") - 18.0 / 40.0).abs() < 1e-12);
        assert_eq!(summed(TALLIES, &[None, None]), None);
    }

    #[test]
    fn what_is_beyond_its_bounds_is_cut_to_them() {
        let huge = summed(TALLIES, &[figures(1 << 40, 1 << 39, 1e300)]).expect("figures");
        assert!((huge.accuracy.expect("classes") - 0.5).abs() < 1e-4 && huge.loss == Some(16.0));
        assert_eq!(summed(TALLIES, &[figures(7, 3, f64::NAN)]).expect("figures").loss, Some(16.0));
        let regression = FigureTallies { has_classes: false };
        let got = summed(regression, &[figures(4, 0, 2.0)]).expect("figures");
        assert_eq!((got.accuracy, got.loss, got.worst_tenth), (None, Some(0.5), None));
    }

    #[test]
    fn the_worst_tenth_is_told_of_a_crowd_only() {
        // 40 devices from 2 % to 80 %: the worst four have 2, 4, 6 and 8 %, in cells around 2.5 and 7.5 %.
        let crowd: Vec<_> = (1..=40).map(|device| figures(100, 2 * device, 0.0)).collect();
        let got = summed(TALLIES, &crowd).expect("figures").worst_tenth.expect("a crowd");
        assert!((got - 0.05).abs() < 1e-12, "{got}");
        assert_eq!(summed(TALLIES, &crowd[..29]).expect("figures").worst_tenth, None);
    }
}
