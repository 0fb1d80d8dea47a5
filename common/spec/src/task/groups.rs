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

#[cfg(test)]
mod tests {
    use super::super::tests::TASK;
    use super::*;

    #[test]
    fn groups_are_secure_sums_of_enough_devices_each_with_a_middle_among_them() {
        let set = |overrides: &[(&str, &str)]| {
            let secure = [("privacy.secure_aggregation", "true"), ("privacy.clip", "1.0"), ("update.codec", "q8")];
            let more = [("update.weight_max", "100"), ("federation.devices", "40"), ("privacy.cohort_min", "5")];
            let all = secure.iter().chain(&more).chain(overrides).map(|(key, value)| ((*key).into(), (*value).into()));
            let task = TaskFile::parse(TASK, &all.collect::<Vec<_>>())?;
            crate::TaskPlan::new(&task, 1)
        };
        let plan = set(&[("privacy.groups", "7")]).expect("a plan");
        let privacy = plan.privacy.as_ref().expect("a private plan");
        assert_eq!((privacy.cohort_max, privacy.sum_max()), (40, 6), "the largest of seven groups");
        assert_eq!(privacy.asked.group_rule.unwrap_or_default(), GroupRule::Median);
        assert_eq!(crate::TaskPlan::from_json(&plan.to_json()).expect("it travels"), plan);
        let one = set(&[]).expect("a plan");
        assert_eq!(set(&[("privacy.groups", "1")]).expect("a plan").id(), one.id(), "one group is no group");
        assert_eq!(one.privacy.expect("a private plan").sum_max(), 40);

        let refused = |overrides: &[(&str, &str)], key: &str| {
            let error = set(overrides).expect_err("refused").to_string();
            assert!(error.starts_with(key), "{overrides:?}: {error}");
        };
        refused(&[("privacy.groups", "0")], "privacy.groups = 0");
        refused(&[("privacy.groups", "2")], "privacy.groups = 2");
        refused(&[("privacy.groups", "9")], "privacy.groups = 9: a cohort of 40 devices");
        refused(
            &[("privacy.groups", "4"), ("federation.fraction", "0.4")],
            "privacy.groups = 4: a cohort of 16 devices",
        );
        refused(&[("privacy.groups", "5"), ("privacy.subset", "0.5")], "privacy.groups = 5");
        refused(&[("privacy.group_rule", "median")], "privacy.group_rule = ");
        let dp = "{ mode = \"distributed\", clip = 1.0, noise_multiplier = 1.0, delta = 1e-5 }";
        refused(&[("privacy.groups", "5"), ("privacy.dp", dp), ("privacy.weights", "uniform")], "privacy.groups = 5");
        let plain = [("privacy.secure_aggregation", "false"), ("privacy.groups", "5")];
        refused(&plain, "privacy.groups = 5: groups are secure sums");
        let rules: Vec<[usize; 2]> =
            (3..10).map(|groups| [GroupRule::Median, GroupRule::TrimmedMean].map(|rule| rule.cut(groups))).collect();
        assert_eq!(rules, [[1, 1], [1, 1], [2, 1], [2, 1], [3, 1], [3, 2], [4, 2]]);
    }
}
