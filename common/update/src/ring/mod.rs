//! The numeric path up of a secure sum: the one order in which a delta becomes integers of a ring, and its mirror for the sum.
//!
//! ```text
//!  delta (with what a residual owes) ─ weight min(n, W)/W ─ shared subset ─ clip ─ shared rotation ─ public scale
//!        ─ stochastic rounding until the integer norm is within its bound ─ noise ─▶ coordinates, and the tallies behind them
//!  sum ─ scale ─ rotation back ─ ÷ Σ weights ─▶ mean
//! ```
//!
//! The scale follows from the clipping norm, so it is the same for all devices. Subset and rotation are drawn from a commitment that is made
//! after the cohort is fixed (the session of a secure sum); nobody chooses the coordinates. Rounding comes after the clip and may raise the norm,
//! so the norm that counts is that of the integers (Kairouz, Liu, Steinke 2021, "The distributed discrete Gaussian mechanism for
//! federated learning with secure aggregation", Algorithm 1), and the one that a device's share of noise is measured by. Without noise nothing
//! wraps, for certain; with it, but for a probability of 2⁻⁴⁰ a round.

mod error;
mod estimate;
mod quantiser;
mod subset;
mod tally;

use starling_compress::CodecSpec;
use starling_compress::rotation::{rotate, rotate_back, spread};
use starling_privacy::noise::{ShareNoise, Source};
use starling_secagg::Ring;
use starling_wire::Digest;
use starling_wire::limits::{PARAMETERS_MAX, WEIGHT_MAX};

use self::estimate::Estimate;
use self::quantiser::{Quantiser, best_range};
use self::tally::Tally;

pub use self::error::RingError;

/// Metrics that a vector may carry beside the weight and the clip bit.
pub const METRICS_MAX: usize = 32;

/// The bits of a coordinate when `codec` goes through a secure sum. `qB` has one public scale there, in place of its blocks'
/// own.
///
/// # Errors
/// [`RingError::Codec`] says why a codec cannot be summed.
pub fn ring_bits(codec: CodecSpec) -> Result<u8, RingError> {
    let refuse = |reason| Err(RingError::Codec { codec, reason });
    match codec {
        CodecSpec::Quantised(bits) => Ok(bits),
        CodecSpec::F32 | CodecSpec::F16 => refuse("floats do not add up modulo a power of two"),
        CodecSpec::Entropy(_) => refuse("masked values are uniform, so there is nothing to code"),
        CodecSpec::Eden(_) => refuse("its scale is each device's own"),
        CodecSpec::TopK(_) => refuse("a coordinate that one device alone sends is that device's value"),
    }
}

/// What a plan fixes for the secure sums of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct RingSettings {
    /// Its bits are those of a coordinate; see [`ring_bits`].
    pub codec: CodecSpec,
    /// The L2 norm that an update is clipped to.
    pub clip: f64,
    /// W: a device counts as `min(n, W) / W`. 1 where devices count alike.
    pub weight_max: u32,
    /// Parts per million of the parameters that a round's updates hold; 1,000,000 for all.
    pub subset_per_million: u32,
    /// The most devices of a sum.
    pub cohort_max: u32,
    /// What is summed beside the parameters; none of it where noise would drown it.
    pub tallies: Option<Tallies>,
    /// What each device adds.
    pub noise: Option<Shares>,
}

/// What is summed beside the parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tallies {
    /// The largest value of each metric. Weight and clip bit come before them.
    pub metrics_max: Vec<u32>,
}

/// Shares beside the clip bit that a device can say under noise.
pub const SHARES: usize = 2;

/// How much noise devices add together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shares {
    /// The deviation on the smallest sum, in units of the norm of a device's vector.
    pub noise_multiplier: f64,
    /// Devices whose shares have to be enough: those of the smallest sum that keep their share to themselves.
    pub honest: u32,
    /// The deviation of the noise on the count of updates within the clipping norm, in devices, on that sum; none where they are not counted.
    pub count_noise: Option<f64>,
    /// The same for the sums of other shares from 0 to 1 that devices say.
    pub share_noise: [Option<f64>; SHARES],
}

/// What a device says beside its delta.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RingReport<'a> {
    /// Examples that it trained on.
    pub examples: u32,
    /// A value for each metric, from 0 to its maximum; left out where nothing is tallied.
    pub metrics: &'a [u32],
    /// Shares from 0 to 1, as far as they are summed under noise; one half is nothing said.
    pub shares: [f64; SHARES],
}

/// The sum, in the terms of the run.
#[derive(Debug, Clone, PartialEq)]
pub struct RingMean {
    /// The weighted mean of the deltas; zero at parameters outside the round's subset.
    pub mean: Vec<f32>,
    /// Σ min(n, W); devices times W where nothing is tallied.
    pub weight_sum: i128,
    /// The share of devices with an update within the clipping norm. Under noise it may be below 0 or above 1.
    pub within_clip: Option<f64>,
    /// The sums of the metrics.
    pub metrics: Vec<i128>,
    /// The means of the devices' shares, where those are summed under noise.
    pub shares: [Option<f64>; SHARES],
}

/// The numeric contract of a run's secure sums.
#[derive(Debug, Clone, PartialEq)]
pub struct RingNumerics {
    settings: RingSettings,
    parameters: usize,
    sent: usize,
    quantiser: Quantiser,
    // Weight, clip bit, metrics.
    tallies: Vec<Tally>,
    // Where there is noise: the clip bit, then the shares, as far as they are asked for.
    estimates: Vec<Estimate>,
    noise: Option<ShareNoise>,
    sum_max: u64,
    ring: Ring,
}

impl RingNumerics {
    /// The numbers of a run with `parameters` parameters.
    ///
    /// # Errors
    /// [`RingError`] names the setting that does not fit.
    pub fn new(settings: &RingSettings, parameters: usize) -> Result<Self, RingError> {
        let bits = ring_bits(settings.codec)?;
        let wrong =
            |name, got: &dyn ToString, expected| Err(RingError::Setting { name, got: got.to_string(), expected });
        if !(1..=PARAMETERS_MAX).contains(&parameters) {
            return wrong("parameters", &parameters, "1 to 2^30");
        }
        if !(1e-9..=1e9).contains(&settings.clip) {
            return wrong("clip", &settings.clip, "1e-9 to 1e9");
        }
        if !(1..=WEIGHT_MAX).contains(&settings.weight_max) {
            return wrong("weight_max", &settings.weight_max, "1 to 2^24");
        }
        if !(1..=1_000_000).contains(&settings.subset_per_million) {
            return wrong("subset_per_million", &settings.subset_per_million, "1 to 1,000,000");
        }
        if settings.cohort_max == 0 {
            return wrong("cohort_max", &settings.cohort_max, "at least 1");
        }
        let metrics = settings.tallies.as_ref().map_or(&[][..], |tallies| &tallies.metrics_max);
        if metrics.len() > METRICS_MAX || metrics.contains(&0) {
            return wrong("metrics_max", &metrics.len(), "at most 32 metrics, each with a maximum of at least 1");
        }
        let sent = (parameters as u64 * u64::from(settings.subset_per_million)).div_ceil(1_000_000);
        let sent = usize::try_from(sent).expect("no more than the parameters");
        let level_max = (1u64 << (bits - 1)) - 1;
        let deviation = settings.clip * libm::sqrt(spread(sent) / sent as f64);
        let scale = best_range(level_max, settings.cohort_max) * deviation / level_max as f64;
        let quantiser = Quantiser::new(settings.clip, scale, level_max, sent);
        let maxima = [settings.weight_max, 1].into_iter().chain(metrics.iter().copied());
        let tallied = settings.tallies.is_some();
        let tallies: Vec<Tally> = maxima.filter(|_| tallied).map(|max| Tally::new(max, level_max)).collect();
        let cohort_max = settings.cohort_max;
        let wide = || RingError::TooWide { cohort_max };
        let sum_max = u64::from(cohort_max).checked_mul(level_max).ok_or_else(wide)?;
        let ring = Ring::for_sum(sum_max).ok_or_else(wide)?;
        let settings = settings.clone();
        let (estimates, noise) = (Vec::new(), None);
        let mut numerics = Self { settings, parameters, sent, quantiser, tallies, estimates, noise, sum_max, ring };
        if let Some(Shares { noise_multiplier, honest, count_noise, share_noise }) = numerics.settings.noise {
            let norm_squared = numerics.norm_squared_max();
            let deviations: Vec<f64> = count_noise.into_iter().chain(share_noise.into_iter().flatten()).collect();
            numerics.estimates = Estimate::all(norm_squared, level_max, noise_multiplier, &deviations)?;
            let norm_max = libm::sqrt(numerics.norm_squared_max() as f64);
            let noise = ShareNoise::new(noise_multiplier, norm_max, honest, numerics.coordinates())
                .map_err(|reason| RingError::Noise { honest, reason })?;
            numerics.sum_max = numerics.sum_max.checked_add(noise.sum_max(cohort_max)).ok_or_else(wide)?;
            numerics.ring = Ring::for_sum(numerics.sum_max).ok_or_else(wide)?;
            numerics.noise = Some(noise);
        }
        Ok(numerics)
    }

    /// Parameters of the model.
    pub fn parameters(&self) -> usize {
        self.parameters
    }

    /// The smallest ring that holds every sum.
    pub fn ring(&self) -> Ring {
        self.ring
    }

    /// Coordinates of a vector: the parameters that are sent, then the digits of the tallies, or under noise the clip bit and the shares.
    pub fn coordinates(&self) -> usize {
        let digits: usize = self.tallies.iter().map(Tally::digits).sum();
        self.sent + digits + self.estimates.iter().map(Estimate::coordinates).sum::<usize>()
    }

    /// The largest magnitude of a device's coordinate, noise included.
    pub fn value_max(&self) -> u64 {
        self.quantiser.level_max() + self.noise.map_or(0, |noise| noise.share_max())
    }

    /// The largest magnitude of a sum's coordinate, noise included.
    pub fn sum_max(&self) -> u64 {
        self.sum_max
    }

    /// What one unit of a coordinate is worth.
    pub fn scale(&self) -> f64 {
        self.quantiser.scale()
    }

    /// The largest squared L2 norm of a vector's coordinates before noise, parameters and tallies together: its sensitivity.
    pub fn norm_squared_max(&self) -> u64 {
        let tallies: u64 = self.tallies.iter().map(Tally::norm_squared_max).sum();
        let estimates: u64 = self.estimates.iter().map(Estimate::norm_squared).sum();
        self.quantiser.norm_squared_max() + tallies + estimates
    }

    /// A bound on the expected number of coordinates of one update that lie beyond the scale's range and are cut to it: a sub-Gaussian
    /// tail each.
    pub fn cut_expected(&self) -> f64 {
        let range = best_range(self.quantiser.level_max(), self.settings.cohort_max);
        2.0 * libm::exp(-range * range / 2.0) * self.sent as f64
    }

    /// What a device's vector is. `shared` is the commitment that all devices of the sum hold, `rounding_key` the device's own, and
    /// `words` what its noise is drawn from, where the settings ask for some.
    ///
    /// # Errors
    /// [`RingError`] when the delta or the report does not fit the settings.
    pub fn encode(
        &self,
        delta: &[f32],
        report: RingReport<'_>,
        shared: &Digest,
        rounding_key: u64,
        words: &mut impl Source,
    ) -> Result<Vec<i64>, RingError> {
        if delta.len() != self.parameters {
            return Err(RingError::Length { expected: self.parameters, got: delta.len() });
        }
        if let Some(index) = delta.iter().position(|value| !value.is_finite()) {
            return Err(RingError::NotFinite { index });
        }
        if report.examples == 0 {
            return Err(RingError::NoExamples);
        }
        let metrics = self.settings.tallies.as_ref().map(|tallies| tallies.metrics_max.len());
        if let Some(expected) = metrics.filter(|expected| *expected != report.metrics.len()) {
            return Err(RingError::Length { expected, got: report.metrics.len() });
        }
        let counted = report.examples.min(self.settings.weight_max);
        let weight = f64::from(counted) / f64::from(self.settings.weight_max);
        let mut values = self.gather(delta, shared);
        let within = clip(&mut values, weight, self.settings.clip);
        rotate(&mut values, seed(shared));
        let mut coordinates = self.quantiser.round(&values, rounding_key);
        let tallied = [counted, u32::from(within)].into_iter().chain(report.metrics.iter().copied());
        // As many values as tallies, or no tallies.
        for (tally, value) in self.tallies.iter().zip(tallied) {
            tally.write(value, &mut coordinates)?;
        }
        // As many as are asked for, or none.
        let asked = self.settings.noise.map(|noise| (noise.count_noise, noise.share_noise));
        let (count, shares) = asked.unwrap_or((None, [None; SHARES]));
        let count = count.map(|_| f64::from(u8::from(within)));
        let shares = shares.iter().zip(report.shares).filter_map(|(asked, share)| asked.map(|_| share));
        for (estimate, share) in self.estimates.iter().zip(count.into_iter().chain(shares)) {
            estimate.write(share, rounding_key, &mut coordinates);
        }
        if let Some(noise) = &self.noise {
            noise.add_to(&mut coordinates, words);
        }
        Ok(coordinates)
    }

    /// What the sum of the vectors of `devices` devices says.
    ///
    /// # Errors
    /// [`RingError::Length`]; [`RingError::NoExamples`] when the weights sum to nothing.
    pub fn decode(&self, sum: &[i64], shared: &Digest, devices: usize) -> Result<RingMean, RingError> {
        if sum.len() != self.coordinates() {
            return Err(RingError::Length { expected: self.coordinates(), got: sum.len() });
        }
        let (levels, mut digits) = sum.split_at(self.sent);
        let mut tallied = self.tallies.iter().map(|tally| {
            let (own, rest) = digits.split_at(tally.digits());
            digits = rest;
            tally.read(own)
        });
        let weight_max = i128::from(self.settings.weight_max);
        let weight_sum = tallied.next().unwrap_or(weight_max * devices as i128);
        let counted = tallied.next().map(|count| count as f64 / devices.max(1) as f64);
        let metrics = tallied.collect();
        let mut rest = &sum[self.sent..];
        let mut estimated = self.estimates.iter().map(|estimate| {
            let (own, more) = rest.split_at(estimate.coordinates());
            rest = more;
            estimate.read(own, devices)
        });
        let counts = self.settings.noise.is_some_and(|noise| noise.count_noise.is_some());
        let within_clip = if counts { estimated.next() } else { counted };
        let asked = self.settings.noise.map_or([None; SHARES], |noise| noise.share_noise);
        let shares = asked.map(|asked| asked.and_then(|_| estimated.next()));
        if weight_sum <= 0 {
            return Err(RingError::NoExamples);
        }
        // Each device sent min(n, W)/W times its delta.
        let factor = self.quantiser.scale() * f64::from(self.settings.weight_max) / weight_sum as f64;
        #[allow(clippy::cast_possible_truncation, reason = "rounding to the master's precision is meant")]
        let mut values: Vec<f32> = levels.iter().map(|level| (*level as f64 * factor) as f32).collect();
        rotate_back(&mut values, seed(shared));
        Ok(RingMean { mean: self.scatter(values, shared), weight_sum, within_clip, metrics, shares })
    }

    /// Parameters that a round's updates hold, where they do not hold all of them; `shared` is the commitment of its sum.
    pub fn subset(&self, shared: &Digest) -> Option<impl Iterator<Item = usize>> {
        (self.sent < self.parameters).then(|| subset::indices(self.parameters, self.sent, seed(shared)))
    }

    fn gather(&self, delta: &[f32], shared: &Digest) -> Vec<f32> {
        self.subset(shared).map_or_else(|| delta.to_vec(), |sent| sent.map(|index| delta[index]).collect())
    }

    fn scatter(&self, values: Vec<f32>, shared: &Digest) -> Vec<f32> {
        let Some(places) = self.subset(shared) else { return values };
        let mut whole = vec![0.0; self.parameters];
        places.zip(values).for_each(|(place, value)| whole[place] = value);
        whole
    }
}

/// The public randomness of a commitment.
fn seed(shared: &Digest) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&shared.0[..8]);
    u64::from_le_bytes(first)
}

/// Scales `values` by `weight` and then to an L2 norm of at most `norm_max`; says whether they were within it.
#[allow(clippy::cast_possible_truncation, reason = "a float's precision is enough for a factor")]
fn clip(values: &mut [f32], weight: f64, norm_max: f64) -> bool {
    let norm = weight * libm::sqrt(values.iter().map(|value| f64::from(*value) * f64::from(*value)).sum::<f64>());
    let within = norm <= norm_max;
    let factor = if within { weight } else { weight * norm_max / norm };
    values.iter_mut().for_each(|value| *value = (f64::from(*value) * factor) as f32);
    within
}
