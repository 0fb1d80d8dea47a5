//! The running aggregate of a round: 64-bit integers, Σ weights and who is in it. Memory is O(model), whatever the cohort.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use starling_compress::{FoldSign, fold_into};
use starling_wire::{DeviceId, Digest, Refusal};

use crate::admitted::Admitted;
use crate::numerics::Numerics;

/// Why an aggregate stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// The device is in it already (invariant 2).
    #[error("device {0} has already contributed to this round")]
    Duplicate(DeviceId),
    /// What should be taken out was never put in, or was another update of the device.
    #[error("this update of device {0} is not in the fold")]
    NotContributed(DeviceId),
    /// One more could overflow the accumulators.
    #[error("the fold holds {0} updates, as many as the round's plan allows")]
    Full(u32),
    /// A partial aggregate of another plan, or one that contradicts itself.
    #[error("the partial aggregate was not made under this round's plan: {0}")]
    OtherPlan(&'static str),
}

impl FoldError {
    /// The code under which a device is told.
    pub fn refusal(self) -> Refusal {
        match self {
            Self::Duplicate(_) => Refusal::Duplicate,
            Self::NotContributed(_) | Self::Full(_) => Refusal::NotInCohort,
            Self::OtherPlan(_) => Refusal::MalformedUpdate,
        }
    }
}

/// The running aggregate.
///
/// ```text
/// acc[i] = Σ weight · round_half_even(x[i] · 2^F)  (mod 2^64; the plan keeps the true sum within ±2^62)
/// mean[i] = acc[i] / (2^F · Σ weight)
/// ```
#[derive(Debug, Clone)]
pub struct Fold {
    numerics: Numerics,
    accumulators: Vec<i64>,
    weight_sum: u64,
    contributors: BTreeSet<DeviceId>,
    // What each contributed, so that only the very same bytes can be taken out again.
    contributions: BTreeMap<DeviceId, Contribution>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Contribution {
    digest: Digest,
    weight: u32,
    within_clip: bool,
}

impl Contribution {
    fn of(update: &Admitted) -> Self {
        let report = update.report();
        Self { digest: update.digest(), weight: report.weight, within_clip: report.within_clip }
    }
}

/// An aggregate on its way to another server, or to disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partial {
    fraction_bits: i32,
    weight_max: u32,
    accumulators: Vec<i64>,
    contributions: BTreeMap<DeviceId, Contribution>,
}

impl Fold {
    /// An empty aggregate.
    pub fn new(numerics: &Numerics) -> Self {
        Self {
            numerics: *numerics,
            accumulators: vec![0; numerics.parameters()],
            weight_sum: 0,
            contributors: BTreeSet::new(),
            contributions: BTreeMap::new(),
        }
    }

    /// Puts an update in.
    ///
    /// # Errors
    /// [`FoldError::Duplicate`] when the device is in already, [`FoldError::Full`] when the cohort is.
    ///
    /// # Panics
    /// If the update was admitted under other numbers than the fold's: the caller mixed up two runs.
    pub fn add(&mut self, update: &Admitted) -> Result<(), FoldError> {
        self.same_numerics(update);
        let device = update.device();
        if self.contributors.contains(&device) {
            return Err(FoldError::Duplicate(device));
        }
        if self.contributors.len() as u64 >= u64::from(self.numerics.cohort_max()) {
            return Err(FoldError::Full(self.numerics.cohort_max()));
        }
        self.fold(update, FoldSign::Add);
        self.weight_sum += u64::from(update.report().weight);
        self.contributors.insert(device);
        self.contributions.insert(device, Contribution::of(update));
        Ok(())
    }

    /// Takes an update out again: afterwards the aggregate is bit for bit as if it had never been in.
    ///
    /// # Errors
    /// [`FoldError::NotContributed`] when this very update is not in.
    ///
    /// # Panics
    /// As [`Fold::add`].
    pub fn remove(&mut self, update: &Admitted) -> Result<(), FoldError> {
        self.same_numerics(update);
        let device = update.device();
        if self.contributions.get(&device) != Some(&Contribution::of(update)) {
            return Err(FoldError::NotContributed(device));
        }
        self.fold(update, FoldSign::Subtract);
        self.weight_sum -= u64::from(update.report().weight);
        self.contributors.remove(&device);
        self.contributions.remove(&device);
        Ok(())
    }

    fn same_numerics(&self, update: &Admitted) {
        assert_eq!(update.numerics(), &self.numerics, "an update is folded under the plan that admitted it");
    }

    fn fold(&mut self, update: &Admitted, sign: FoldSign) {
        let weight = update.report().weight;
        let (codec, fixed) = (self.numerics.codec(), self.numerics.fixed());
        fold_into(codec, update.payload(), fixed, weight, sign, &mut self.accumulators);
    }

    /// Σ weights of what is in.
    pub fn weight_sum(&self) -> u64 {
        self.weight_sum
    }

    /// How many of the updates say that they were within the clipping norm.
    pub fn within_clip(&self) -> usize {
        self.contributions.values().filter(|contribution| contribution.within_clip).count()
    }

    /// The devices whose updates are in.
    pub fn contributors(&self) -> &BTreeSet<DeviceId> {
        &self.contributors
    }

    /// FedAvg: adds the weighted mean to the master. An empty fold leaves it as it is.
    ///
    /// # Panics
    /// If `master` has another number of parameters.
    pub fn apply_mean(&self, master: &mut [f32]) {
        self.apply_step(1.0, master);
    }

    /// Adds `rate` times the mean to the master, for a rate above 0.
    ///
    /// # Panics
    /// If `master` has another number of parameters.
    pub fn apply_step(&self, rate: f64, master: &mut [f32]) {
        self.numerics.fixed().add_mean(&self.accumulators, self.weight_sum, rate, master);
    }

    /// The numbers it was made under, and its accumulators: nothing can be taken out of them any more.
    pub(crate) fn into_sum(self) -> (Numerics, Vec<i64>, u64) {
        (self.numerics, self.accumulators, self.weight_sum)
    }

    /// The aggregate so far, to be stored or merged elsewhere.
    pub fn partial(&self) -> Partial {
        Partial {
            fraction_bits: self.numerics.fixed().fraction_bits(),
            weight_max: self.numerics.weight_max(),
            accumulators: self.accumulators.clone(),
            contributions: self.contributions.clone(),
        }
    }

    /// Puts everything in that `partial` holds. It has to come from a party that may speak for its contributors: the sums
    /// cannot be checked against them.
    ///
    /// # Errors
    /// [`FoldError`] when it belongs to another plan, shares a device with this one, or would overfill it; the fold is then
    /// as it was.
    pub fn merge(&mut self, partial: Partial) -> Result<(), FoldError> {
        if partial.fraction_bits != self.numerics.fixed().fraction_bits() {
            return Err(FoldError::OtherPlan("its fixed point differs"));
        }
        if partial.weight_max != self.numerics.weight_max() {
            return Err(FoldError::OtherPlan("its weight cap differs"));
        }
        if partial.accumulators.len() != self.accumulators.len() {
            return Err(FoldError::OtherPlan("its number of parameters differs"));
        }
        if partial.contributions.values().any(|entry| !(1..=partial.weight_max).contains(&entry.weight)) {
            return Err(FoldError::OtherPlan("it holds a weight over the cap"));
        }
        if let Some(device) = partial.contributions.keys().find(|device| self.contributors.contains(device)) {
            return Err(FoldError::Duplicate(*device));
        }
        let together = self.contributors.len() + partial.contributions.len();
        if together as u64 > u64::from(self.numerics.cohort_max()) {
            return Err(FoldError::Full(self.numerics.cohort_max()));
        }
        for (mine, theirs) in self.accumulators.iter_mut().zip(&partial.accumulators) {
            *mine = mine.wrapping_add(*theirs);
        }
        for (device, entry) in partial.contributions {
            self.weight_sum += u64::from(entry.weight);
            self.contributors.insert(device);
            self.contributions.insert(device, entry);
        }
        Ok(())
    }
}
