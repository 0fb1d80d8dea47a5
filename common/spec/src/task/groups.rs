//! `privacy.groups`: a cohort in several secure sums, and the rule across them.

use serde::{Deserialize, Serialize};

use super::privacy::{PrivacySection, cohort_max};
use super::{FederationSection, TaskFile};
use crate::error::SpecError;

/// Fewer sums than this have no middle: what one of them says would decide.
pub const GROUPS_MIN: u16 = 3;

/// How the means of the groups become one, coordinate by coordinate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupRule {
    /// The median (Yin et al. 2018, Option I).
    #[default]
    Median,
    /// The mean without the least and the greatest quarter, at least one of each (Yin et al. 2018, Option II).
    TrimmedMean,
}

impl GroupRule {
    /// Of so many values in order, how many at either end do not count: all but the one or two in the middle, or a quarter.
    pub fn cut(self, values: usize) -> usize {
        let most = values.saturating_sub(1) / 2;
        match self {
            Self::Median => most,
            Self::TrimmedMean => (values / 4).max(1).min(most),
        }
    }
}

/// Of a cohort of up to `most` devices, the largest group.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of devices, checked")]
pub(super) fn group_max(asked: &PrivacySection, most: f64) -> u32 {
    (most.ceil() as u32).div_ceil(u32::from(asked.groups.max(1)))
}

/// Checks the keys as part of `task`.
pub(super) fn check(section: &PrivacySection, task: &TaskFile) -> Result<(), SpecError> {
    let wrong = |expected: String| Err(SpecError::value("privacy.groups", section.groups, expected));
    if section.groups == 1 {
        let rule = section.group_rule.map(|rule| format!("{rule:?}"));
        return rule.map_or(Ok(()), |rule| {
            Err(SpecError::value(
                "privacy.group_rule",
                rule,
                "it is a rule across privacy.groups, of which there is one",
            ))
        });
    }
    if section.groups < GROUPS_MIN {
        return wrong(format!("expected 1, or at least {GROUPS_MIN}: of two groups neither is in the middle"));
    }
    if !section.secure_aggregation {
        return wrong("groups are secure sums: set privacy.secure_aggregation = true, or leave them out".into());
    }
    if section.dp.is_some() {
        return wrong(
            "each group's sum would need all of the noise, and the charge is for one sum: leave privacy.dp or the groups out".into(),
        );
    }
    if section.subset < 1.0 {
        return wrong(
            "each group's sum has another subset, and there would be nothing to compare: leave privacy.subset out"
                .into(),
        );
    }
    let cohort = |federation: &FederationSection| Some((f64::from(federation.devices?) * federation.fraction).round());
    // Without the number of devices the section is refused for that.
    let (Some(devices), Some(most)) = (cohort(&task.federation), cohort_max(&task.federation)) else { return Ok(()) };
    let least = u32::from(section.groups) * u32::from(section.cohort_min);
    if devices.max(most.floor()) < f64::from(least) {
        return wrong(format!(
            "a cohort of {devices} devices gives no {} groups of privacy.cohort_min = {} each: {least} are needed",
            section.groups, section.cohort_min
        ));
    }
    Ok(())
}
