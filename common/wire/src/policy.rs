//! The closed list of rules of a device's owner for which a device stays away from a round. They travel in a declined round, so that the
//! operator sees why. Codes are stable and lie apart from those of [`crate::Refusal`] and [`crate::Distrust`].

use std::fmt;

use serde::{Deserialize, Serialize};

reasons! {
    /// The rule of the owner's policy that forbids a round.
    PolicyRule:
    /// No consent to the task.
    Task = 300, "the device's owner has bound no task of this name";
    /// Not signed by a publisher whom the owner named.
    Publisher = 301, "none of the publishers whom the device's owner names has signed the plan";
    /// Outside of the hours.
    Hours = 302, "the device's owner allows rounds at other hours";
    /// Single updates would be seen.
    SecureAggregation = 303, "the device's owner allows rounds with secure aggregation only";
    /// Too small a cohort.
    CohortMin = 304, "the plan's cohorts may be smaller than the device's owner allows";
    /// Too large a clipping norm, or none.
    ClipMax = 305, "the plan clips updates to no norm, or to a larger one than the device's owner allows";
    /// Figures about the device would leave it.
    Metrics = 306, "the device's owner lets no accuracy, loss or count leave the device";
    /// No noise that counts.
    Noise = 307, "the device's owner has set a privacy budget, and the plan has no noise that the device can vouch for";
    /// The run's budget is gone.
    EpsilonPerRun = 308, "the round would spend more of the device's privacy than its owner allows for one run";
    /// The device's budget is gone.
    EpsilonLifetime = 309, "the round would spend more of the device's privacy than its owner allows in all";
    /// Too much traffic.
    BytesPerDay = 310, "the round would move more bytes than the device's owner allows in a day";
    /// The privacy ledger.
    Ledger = 311, "the device cannot write down what the round would spend; its log says more";
    /// The plan's limit on turns.
    Turns = 312, "the device has been in as many of the run's rounds, or in one so shortly before, as the plan's noise allows";
    /// The budget of single examples is gone, or figures about them would carry no noise.
    EpsilonExample = 313, "the round would spend more of the privacy of one of the device's examples than the plan or its owner allows";
}

impl fmt::Display for PolicyRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (code {} {})", self.text(), self.code(), self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Distrust, Refusal};

    #[test]
    fn codes_are_distinct_among_themselves_and_from_other_reasons() {
        let mut codes: Vec<u16> = PolicyRule::ALL.iter().map(|rule| rule.code()).collect();
        assert!(codes.is_sorted());
        codes.extend(Refusal::ALL.iter().map(|refusal| refusal.code()));
        codes.extend(Distrust::ALL.iter().map(|reason| reason.code()));
        let count = codes.len();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), count);
    }
}
