//! What a round's secure sum is about, and what a device's owner asks of it.

use starling_wire::{Address, Digest};

use crate::graph::Assumptions;
use crate::limits::{COHORT_MAX, COHORT_MIN, VALUES_MAX};
use crate::refused::Refused;
use crate::vector::Ring;

/// Everything that has to be the same for all devices of an attempt. Its digest is in every signature and every key, so devices
/// that were told different things cannot be combined (invariant 9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setup {
    /// Task, run, round and attempt.
    pub address: Address,
    /// The model that every device trains from.
    pub model: Digest,
    /// The plan: clipping norm, scale, rotation, subset, noise; whatever turns an update into coordinates.
    pub plan: Digest,
    /// Coordinates of a vector.
    pub values: u32,
    /// The largest magnitude of a coordinate of one device.
    pub value_max: u64,
    /// The largest magnitude of a coordinate of a sum: what the ring has room for. At most `cohort_max` times the former; less where
    /// coordinates carry noise, most of which cancels out.
    pub sum_max: u64,
    /// The examples that a device is counted as at most (W of `min(n, W) / W`); 1 where devices count alike.
    pub weight_max: u32,
    /// Fewer devices, or survivors, than this are no cohort.
    pub cohort_min: u16,
    /// More devices than this are not admitted; the ring has room for their sum.
    pub cohort_max: u16,
    /// How bad the cohort may be.
    pub assumptions: Assumptions,
}

impl Setup {
    /// The digest that everything in the attempt is bound to.
    pub fn digest(&self) -> Digest {
        let Address { task, run, round, attempt } = self.address;
        Digest::of_parts(&[
            b"starling/1 secagg setup\0",
            &task.0,
            &run.0.to_le_bytes(),
            &round.to_le_bytes(),
            &attempt.to_le_bytes(),
            &self.model.0,
            &self.plan.0,
            &self.values.to_le_bytes(),
            &self.value_max.to_le_bytes(),
            &self.sum_max.to_le_bytes(),
            &self.weight_max.to_le_bytes(),
            &self.cohort_min.to_le_bytes(),
            &self.cohort_max.to_le_bytes(),
            &self.assumptions.corrupt_per_mille.to_le_bytes(),
            &self.assumptions.dropout_per_mille.to_le_bytes(),
        ])
    }

    /// The smallest ring that holds the sum.
    ///
    /// # Errors
    /// [`Refused::Setup`] when 64 bits are not enough.
    pub fn ring(&self) -> Result<Ring, Refused> {
        Ring::for_sum(self.sum_max).ok_or(Refused::Setup("its sums need more than 64 bits"))
    }

    /// Whether the setup is one that machines here can carry out.
    ///
    /// # Errors
    /// [`Refused::Setup`].
    pub fn check(&self) -> Result<(), Refused> {
        if self.values == 0 || self.values as usize > VALUES_MAX {
            return Err(Refused::Setup("its vectors have no coordinates, or more than any model"));
        }
        if self.value_max == 0 || self.weight_max == 0 {
            return Err(Refused::Setup("its coordinates or weights can only be zero"));
        }
        let all = u128::from(self.cohort_max) * u128::from(self.value_max);
        if self.sum_max < self.value_max || u128::from(self.sum_max) > all {
            return Err(Refused::Setup("its sums are smaller than their terms, or larger than all of them together"));
        }
        if usize::from(self.cohort_min) < COHORT_MIN
            || usize::from(self.cohort_max) > COHORT_MAX
            || self.cohort_min > self.cohort_max
        {
            return Err(Refused::Setup("its cohort is smaller than a secure sum can be, or larger"));
        }
        self.ring().map(drop)
    }
}

/// What the owner of a device, and the plan that a publisher signed, ask of a setup. Nothing that the aggregator sends
/// can loosen it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// The smallest cohort, and the smallest set of survivors, that the device takes part in.
    pub cohort_min: u16,
    /// The least share of colluders that has to be assumed, in thousandths.
    pub corrupt_per_mille_min: u16,
    /// The digest of the plan that the device knows.
    pub plan: Digest,
    /// The plan's `weight_max`.
    pub weight_max: u32,
}

impl Policy {
    /// Whether a setup is good enough, before any work is done (invariant 13).
    ///
    /// # Errors
    /// [`Refused`] names what is missing.
    pub fn check(&self, setup: &Setup) -> Result<(), Refused> {
        setup.check()?;
        if setup.cohort_max < self.cohort_min {
            return Err(Refused::TinyCohort { got: setup.cohort_max.into(), wanted: self.cohort_min.into() });
        }
        if setup.weight_max != self.weight_max {
            return Err(Refused::InflatedWeight { got: setup.weight_max, wanted: self.weight_max });
        }
        if setup.plan != self.plan {
            return Err(Refused::WeakSetup("its plan is not the one that this device knows"));
        }
        if setup.assumptions.corrupt_per_mille < self.corrupt_per_mille_min {
            return Err(Refused::WeakSetup("it assumes fewer colluders"));
        }
        Ok(())
    }

    /// The larger of both minimum cohorts.
    pub(crate) fn cohort_min(&self, setup: &Setup) -> usize {
        usize::from(self.cohort_min.max(setup.cohort_min))
    }
}
