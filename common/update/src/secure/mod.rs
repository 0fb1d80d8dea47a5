//! What a task's plan says about its secure sums: their numbers, and the setup that every device of an attempt is bound to.

mod figures;
mod groups;
mod part;
mod round;

use starling_compress::CodecSpec;
use starling_privacy::noise::Source;
use starling_secagg::{Assumptions, Policy, Setup};
use starling_spec::TaskPlan;
use starling_spec::task::{DpMode, PrivacyPlan, Weights};
use starling_wire::{Address, Digest, UpdateReport};

use self::figures::FigureTallies;
use crate::clipping::ClipStep;
use crate::residual::Residual;
use crate::ring::{RingError, RingMean, RingNumerics, RingReport, RingSettings, Shares, Tallies};

pub use figures::{LocalFigures, SummedFigures};
pub use groups::group_order;
pub use part::{MaskError, SecurePart};
pub use round::SecureRound;

/// Levels of the training loss that a device reports inside the sum, and the loss at the highest one, in nats or label units.
const LOSS_LEVELS: u32 = 65_535;
const LOSS_MAX: f64 = 16.0;

/// What a device has for a sum.
#[derive(Debug, Clone, Copy)]
pub struct Local<'a> {
    /// Trained parameters less the base's.
    pub delta: &'a [f32],
    /// Weight and loss.
    pub report: &'a UpdateReport,
    /// How the base does on the device's hold-out, where the plan asks for that.
    pub figures: Option<&'a LocalFigures>,
}

/// Secure sums of one plan.
#[derive(Debug, Clone)]
pub struct SecureSums {
    numerics: RingNumerics,
    codec: CodecSpec,
    figures: Option<FigureTallies>,
    privacy: PrivacyPlan,
    weight_max: u32,
    /// Whether devices say anything of their training losses.
    says_loss: bool,
    /// Where the clipping norm adapts.
    clipping: Option<ClipStep>,
    plan: Digest,
    /// What is drawn by the aggregator in each round follows from it.
    seed: u64,
}

/// What a secure sum says of the devices in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Summed {
    /// The weighted mean of the updates, or the rule of the groups' means.
    pub mean: Vec<f32>,
    /// Examples that count, or devices where they count alike.
    pub weight: u64,
    /// The mean over devices of their training losses, each cut at 16; not a number where noise would drown it, and where devices say
    /// nothing of it.
    pub train_loss: f64,
    /// The share of devices whose update was within the clipping norm, where that is summed: as noise has it, so it may be below 0 or above 1.
    pub within_clip: Option<f64>,
    // How the version that they trained from does on their hold-outs. Under noise it is the mean of their own accuracies, as noise has it,
    // and means nothing in rounds that do not ask for it.
    figures: Option<SummedFigures>,
}

impl Summed {
    /// Adds `rate` times the mean to the master.
    #[allow(clippy::cast_possible_truncation, reason = "the mean has no more digits")]
    pub fn apply_step(&self, rate: f64, master: &mut [f32]) {
        let rate = rate as f32;
        master.iter_mut().zip(&self.mean).for_each(|(value, mean)| *value += rate * mean);
    }
}

impl SecureSums {
    /// The secure sums of a round's `plan`, if it asks for them, for a network of `parameters` parameters.
    ///
    /// # Errors
    /// [`RingError`] names the setting that does not fit.
    pub fn of(plan: &TaskPlan, parameters: usize) -> Result<Option<Self>, RingError> {
        let Some(privacy) = plan.privacy.as_ref().filter(|_| plan.is_secure()) else { return Ok(None) };
        let weight_max = match privacy.asked.weights {
            Weights::Examples => plan.update.weight_max,
            Weights::Uniform => 1,
        };
        // What is tallied is of the size of one coordinate, and the noise on each is of the size of a whole update.
        let noisy = privacy.asked.dp.as_ref().filter(|dp| dp.mode == DpMode::Distributed);
        let figures = FigureTallies::of(plan).filter(|_| noisy.is_none());
        let metrics_max =
            std::iter::once(LOSS_LEVELS).chain(figures.into_iter().flat_map(FigureTallies::maxima)).collect();
        let settings = RingSettings {
            codec: plan.update.codec,
            clip: privacy.asked.clip().unwrap_or(0.0),
            weight_max,
            subset_per_million: millionths(privacy.asked.subset),
            cohort_max: privacy.sum_max(),
            tallies: noisy.is_none().then_some(Tallies { metrics_max }),
            noise: noisy.filter(|dp| dp.noise_multiplier > 0.0).map(|dp| Shares {
                noise_multiplier: dp.noise_multiplier,
                honest: privacy.honest_min(),
                count_noise: privacy.count_noise(),
                share_noise: [privacy.evaluation_noise(), privacy.loss_noise()],
            }),
        };
        let numerics = RingNumerics::new(&settings, parameters)?;
        Ok(Some(Self {
            numerics,
            codec: plan.update.codec,
            figures,
            privacy: privacy.clone(),
            weight_max,
            says_loss: plan.train.dp_sgd.is_none() && plan.moments.is_none(),
            clipping: ClipStep::of(plan),
            plan: Digest::of(&plan.to_json()),
            seed: plan.seed,
        }))
    }

    /// The numbers.
    pub fn numerics(&self) -> &RingNumerics {
        &self.numerics
    }

    /// How `version`, which the round of this sum began with, does on its devices' hold-outs, where they were asked about it.
    pub fn judged(&self, summed: &Summed, version: u64) -> Option<SummedFigures> {
        summed.figures.filter(|_| self.privacy.evaluates(version))
    }

    /// The clipping norm of the round after one with this sum, where it adapts.
    pub fn next_clip(&self, summed: &Summed) -> Option<f64> {
        self.clipping.map(|clipping| clipping.next(summed.within_clip))
    }

    /// Whether an update leaves out parameters that go into a later one.
    pub fn keeps_residual(&self) -> bool {
        self.privacy.asked.subset < 1.0
    }

    /// What a device still owes once an update of all that it owed is in the sum of `session`: the parameters that the update left out.
    /// What clipping and rounding took from the others is not owed; rounding is unbiased.
    fn left(&self, owed: Residual, session: &Digest) -> Residual {
        match self.numerics.subset(session) {
            Some(sent) => owed.without(sent),
            None => Residual::zero(owed.len()),
        }
    }

    /// Sums that a cohort is split into.
    pub fn groups(&self) -> u16 {
        self.privacy.asked.groups
    }

    /// The setup of the attempt at `address` with the model of this digest.
    pub fn setup(&self, address: Address, model: Digest) -> Setup {
        Setup {
            address,
            model,
            plan: self.plan,
            values: u32::try_from(self.numerics.coordinates()).unwrap_or(u32::MAX),
            value_max: self.numerics.value_max(),
            sum_max: self.numerics.sum_max(),
            weight_max: self.weight_max,
            cohort_min: self.privacy.asked.cohort_min,
            cohort_max: u16::try_from(self.privacy.sum_max()).unwrap_or(u16::MAX),
            assumptions: Assumptions {
                corrupt_per_mille: per_mille(self.privacy.asked.corrupt),
                dropout_per_mille: per_mille(self.privacy.asked.dropout),
            },
        }
    }

    /// What a device asks of a setup: what its plan says, and no smaller cohort than its owner allows.
    pub fn policy(&self, cohort_min: u16) -> Policy {
        Policy {
            cohort_min: cohort_min.max(self.privacy.asked.cohort_min),
            corrupt_per_mille_min: per_mille(self.privacy.asked.corrupt),
            plan: self.plan,
            weight_max: self.weight_max,
        }
    }

    /// Bytes of a masked update.
    pub fn masked_len(&self) -> u64 {
        (starling_secagg::limits::HEADER_BYTES + self.numerics.ring().packed_len(self.numerics.coordinates())) as u64
    }

    /// A device's vector. `session` is the digest that all devices of the sum hold; its share of noise, if the plan asks for any, is drawn
    /// from `words`.
    ///
    /// # Errors
    /// [`RingError`] when the training has diverged.
    pub fn encode(
        &self,
        local: Local<'_>,
        session: &Digest,
        rounding_key: u64,
        words: &mut impl Source,
    ) -> Result<Vec<i64>, RingError> {
        let Local { delta, report, figures } = local;
        let mut metrics = vec![loss_level(report.train_loss)];
        if let Some(tallies) = self.figures {
            tallies.write(figures, &mut metrics);
        }
        let shares = [LocalFigures::accuracy, LocalFigures::loss_share].map(|of| figures.and_then(of).unwrap_or(0.5));
        let report = RingReport { examples: report.weight, metrics: &metrics, shares };
        self.numerics.encode(delta, report, session, rounding_key, words)
    }

    /// What the sum over `devices` devices says.
    ///
    /// # Errors
    /// [`RingError`] when the sum is of another plan.
    pub fn decode(&self, sum: &[i64], session: &Digest, devices: usize) -> Result<Summed, RingError> {
        self.decode_groups(&[(sum, *session, devices)])
    }

    /// The same of the sums of several groups: each with the digest that it was bound to, and its devices.
    ///
    /// # Errors
    /// [`RingError`] when a sum is of another plan.
    ///
    /// # Panics
    /// If there is no sum.
    pub fn decode_groups(&self, sums: &[(&[i64], Digest, usize)]) -> Result<Summed, RingError> {
        let decoded = sums
            .iter()
            .map(|(sum, session, devices)| self.numerics.decode(sum, session, *devices).map(|mean| (mean, *devices)));
        let rule = self.privacy.asked.group_rule.unwrap_or_default();
        let (whole, devices) = groups::together(rule, decoded.collect::<Result<_, _>>()?);
        let RingMean { mean, weight_sum, within_clip, metrics, shares } = whole;
        let levels = metrics.first().map_or(f64::NAN, |levels| *levels as f64);
        Ok(Summed {
            mean,
            weight: u64::try_from(weight_sum).unwrap_or(0),
            train_loss: if self.says_loss {
                levels / f64::from(LOSS_LEVELS) * LOSS_MAX / (devices.max(1) as f64)
            } else {
                f64::NAN
            },
            figures: SummedFigures::under_noise(shares)
                .or_else(|| self.figures.and_then(|tallies| tallies.read(metrics.get(1..)?))),
            within_clip,
        })
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share, checked by the task file")]
fn per_mille(share: f64) -> u16 {
    (share * 1000.0).round() as u16
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share, checked by the task file")]
fn millionths(share: f64) -> u32 {
    (share * 1e6).round() as u32
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the levels that there are")]
fn loss_level(loss: f32) -> u32 {
    // What is no number counts as the worst.
    let share = if loss.is_nan() { 1.0 } else { (f64::from(loss) / LOSS_MAX).clamp(0.0, 1.0) };
    (share * f64::from(LOSS_LEVELS)).round() as u32
}
