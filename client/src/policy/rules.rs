//! The rules of `[policy]` that a plan is compared with: a function of the owner's settings, the plan and what the device sees by
//! itself. Tasks, publishers and budgets have state of their own and are asked elsewhere.

use starling_compress::encoded_len_bounds;
use starling_spec::TaskPlan;
use starling_wire::{PolicyRule, RoundKind, RoundStart};

use super::PolicySettings;
use crate::worker::parameters;

/// What the device sees by itself.
pub(super) struct Facts {
    /// The minute of the local day.
    pub(super) minute: u16,
    /// Bytes that have moved today.
    pub(super) bytes_today: u64,
}

/// A rule that forbids the round, if one does.
pub(super) fn check(
    settings: &PolicySettings,
    facts: &Facts,
    plan: &TaskPlan,
    start: &RoundStart,
) -> Result<(), PolicyRule> {
    let asked = plan.privacy.as_ref().map(|privacy| &privacy.asked);
    let training = start.kind == RoundKind::Train;
    if settings.hours.is_some_and(|hours| !hours.contains(facts.minute)) {
        return Err(PolicyRule::Hours);
    }
    if settings.secure_aggregation && !plan.is_secure() {
        return Err(PolicyRule::SecureAggregation);
    }
    if let Some(least) = settings.cohort_min
        && asked.is_none_or(|asked| asked.cohort_min < least)
    {
        return Err(PolicyRule::CohortMin);
    }
    if let Some(most) = settings.clip_max
        && !start.clip.or_else(|| asked?.clip()).is_some_and(|clip| clip <= most)
    {
        return Err(PolicyRule::ClipMax);
    }
    if !training && !lets_metrics_out(settings, plan) {
        return Err(PolicyRule::Metrics);
    }
    if !training && plan.train.dp_sgd.is_some() {
        // Figures carry no noise: no budget of examples has room for them.
        return Err(PolicyRule::EpsilonExample);
    }
    if let Some(most) = settings.bytes_per_day
        && facts.bytes_today.saturating_add(bytes_foreseen(plan, start)) > most
    {
        return Err(PolicyRule::BytesPerDay);
    }
    Ok(())
}

/// Whether figures of this device may leave it by themselves.
pub(super) fn lets_metrics_out(settings: &PolicySettings, plan: &TaskPlan) -> bool {
    settings.metrics.unwrap_or(!settings.secure_aggregation && !plan.is_secure())
}

/// The whole model, and the longest update of the plan's codec. Masks and what goes around them come on top and are counted when they move.
fn bytes_foreseen(plan: &TaskPlan, start: &RoundStart) -> u64 {
    let up = match start.kind {
        RoundKind::Train => {
            parameters(plan).map_or(0, |count| *encoded_len_bounds(plan.update.codec, count).end() as u64)
        }
        _ => 0,
    };
    start.base.length.saturating_add(up)
}

#[cfg(test)]
mod tests {
    use starling_wire::{Address, CodecId, Digest, ModelRef, RunId, TaskId};

    use super::*;

    const NOON: Facts = Facts { minute: 12 * 60, bytes_today: 1_000 };

    fn plan(privacy: &str) -> TaskPlan {
        starling_testkit::plan::small(&format!(
            r#"
            [update]
            codec = "q8"
            weight_max = 600
            value_max = 64.0
            [federation]
            devices = 40
            {privacy}
            "#
        ))
    }

    fn secure() -> TaskPlan {
        plan("[privacy]\nsecure_aggregation = true\nclip = 0.5\ncohort_min = 10")
    }

    fn start(kind: RoundKind) -> RoundStart {
        let address = Address { task: TaskId([1; 16]), run: RunId(1), round: 1, attempt: 1 };
        let codec = CodecId { family: 1, parameter: 0 };
        let base = ModelRef { version: 0, digest: Digest([2; 32]), length: 40, codec };
        RoundStart { address, kind, base, deadline_ms: 1_000, weight_max: 100, clip: None }
    }

    fn trains(settings: &str, plan: &TaskPlan) -> Result<(), PolicyRule> {
        let settings = toml::from_str(settings).expect("settings");
        check(&settings, &NOON, plan, &start(RoundKind::Train))
    }

    #[test]
    fn inv13_each_rule_refuses_by_its_own_name_and_lets_pass_what_it_allows() {
        let bare = plan("");
        assert_eq!(trains("", &bare), Ok(()), "what is not given forbids nothing");
        assert_eq!(trains("hours = \"22:00-06:00\"", &bare), Err(PolicyRule::Hours));
        assert_eq!(trains("hours = \"11:00-13:00\"", &bare), Ok(()));
        assert_eq!(trains("secure_aggregation = true", &bare), Err(PolicyRule::SecureAggregation));
        assert_eq!(trains("secure_aggregation = true", &secure()), Ok(()));
        let cohort = |least: u16| format!("secure_aggregation = true\ncohort_min = {least}");
        assert_eq!(trains(&cohort(11), &secure()), Err(PolicyRule::CohortMin));
        assert_eq!(trains(&cohort(10), &secure()), Ok(()));
        assert_eq!(trains("clip_max = 0.4", &secure()), Err(PolicyRule::ClipMax));
        assert_eq!(trains("clip_max = 0.4", &bare), Err(PolicyRule::ClipMax), "no norm at all");
        assert_eq!(trains("clip_max = 0.5", &secure()), Ok(()));
        let adaptive = plan("[privacy]\nsecure_aggregation = true\nclip = 0.5\nadaptive_clip = { clip_max = 2.0 }");
        let settings = toml::from_str("clip_max = 0.7").expect("settings");
        let round = |clip| RoundStart { clip: Some(clip), ..start(RoundKind::Train) };
        assert_eq!(check(&settings, &NOON, &adaptive, &round(0.7)), Ok(()), "the round's norm is the one that counts");
        assert_eq!(check(&settings, &NOON, &adaptive, &round(0.8)), Err(PolicyRule::ClipMax));
        assert_eq!(trains("bytes_per_day = 1010", &bare), Err(PolicyRule::BytesPerDay));
        assert_eq!(trains("bytes_per_day = 2000", &bare), Ok(()));
    }

    #[test]
    fn inv13_the_clip_of_noise_is_the_one_that_counts() {
        let noisy = plan(
            "[privacy]\nweights = \"uniform\"\ndp = { mode = \"local\", clip = 2.0, noise_multiplier = 1.0, delta = 1e-5 }",
        );
        assert_eq!(trains("clip_max = 1.0", &noisy), Err(PolicyRule::ClipMax));
        assert_eq!(trains("clip_max = 2.0", &noisy), Ok(()));
    }

    #[test]
    fn inv13_figures_stay_at_home_by_default_once_sums_are_secure() {
        let asks = |settings: &str, plan: &TaskPlan, kind| {
            check(&toml::from_str(settings).expect("settings"), &NOON, plan, &start(kind))
        };
        for kind in [RoundKind::Evaluate, RoundKind::Statistics] {
            assert_eq!(asks("", &plan(""), kind), Ok(()));
            assert_eq!(asks("", &secure(), kind), Err(PolicyRule::Metrics));
            assert_eq!(asks("secure_aggregation = true", &secure(), kind), Err(PolicyRule::Metrics));
            assert_eq!(asks("metrics = false", &plan(""), kind), Err(PolicyRule::Metrics));
            assert_eq!(asks("metrics = true", &secure(), kind), Ok(()), "the owner's word");
        }
        assert_eq!(trains("metrics = false", &plan("")), Ok(()), "training goes on, and says less");
    }
}
