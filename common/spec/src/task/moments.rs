//! A task whose run is for the moments of its features.

use super::{DpMechanism, Goal, Participation, Scale, TaskFile, TrainSettings};
use crate::codec::CodecSpec;
use crate::error::SpecError;

/// The task as a run for moments has it: one round, in which nothing is trained. What a task says about training and about how its updates are
/// made small is left out, so that the same file serves both runs.
pub(super) fn asked_alone(mut task: TaskFile) -> TaskFile {
    if task.federation.goal != Goal::Moments {
        return task;
    }
    // The largest magnitude is 1, or as much smaller as makes the norm that of privacy.
    let secure = task.privacy.as_ref().is_some_and(|privacy| privacy.secure_aggregation);
    task.update.codec = if secure { CodecSpec::Quantised(16) } else { CodecSpec::F32 };
    task.update.down = CodecSpec::F32;
    task.update.value_max = task.update.value_max.max(1.0);
    let federation = &mut task.federation;
    (federation.rounds, federation.evaluate_every, federation.target) = (1, 0, None);
    (federation.server_lr, federation.server_decay) = (1.0, 0.0);
    // A sum that is divided by how many devices were expected is no mean: every device that is drawn is counted, and charged in full.
    if federation.participation == Participation::Poisson {
        federation.participation = Participation::Fixed;
    }
    if let Some(privacy) = &mut task.privacy {
        (privacy.subset, privacy.adaptive_clip) = (1.0, None);
        if let Some(dp) = &mut privacy.dp {
            (dp.evaluation_noise, dp.loss_noise) = (None, None);
            dp.mechanism = DpMechanism::Independent;
        }
    }
    // The rows are counted as they are.
    (task.data.scale, task.data.standardise) = (Scale::None, None);
    task.train = TrainSettings { dp_sgd: task.train.dp_sgd, ..TrainSettings::default() };
    task
}

/// Checks what a task says of moments: those that it scales by, and that it asks for.
pub(super) fn check(task: &TaskFile) -> Result<(), SpecError> {
    if let Some(standardise) = &task.data.standardise {
        if task.data.scale != Scale::Standardise {
            return Err(SpecError::value("data.standardise", "…", "it is what data.scale = \"standardise\" scales by"));
        }
        standardise.check(&task.data.shape)?;
    }
    task.data.range.as_ref().map_or(Ok(()), |range| range.check(task.kind, &task.data.shape))?;
    if task.federation.goal != Goal::Moments {
        return Ok(());
    }
    if task.data.range.is_none() {
        return Err(SpecError::value(
            "data.range",
            "nothing",
            "moments are of values in a known interval: say which, as `range = { low = 0, high = 255 }` or with one number for each feature",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::TASK;
    use super::*;

    #[test]
    fn the_file_of_a_training_asks_for_moments_by_its_goal_alone() {
        let set = |overrides: &[(&str, &str)]| {
            let range = ("data.range", "{ low = 0, high = 16 }");
            let all = std::iter::once(range).chain(overrides.iter().copied());
            let task = TaskFile::parse(TASK, &all.map(|(key, value)| (key.into(), value.into())).collect::<Vec<_>>())?;
            crate::TaskPlan::new(&task, 1).map(|plan| (task, plan))
        };
        let goal = ("federation.goal", "moments");
        let dp = "{ mode = \"distributed\", clip = 0.5, noise_multiplier = 1.0, delta = 1e-5, evaluation_noise = 3.0 }";
        let training = [
            ("data.scale", "standardise"),
            ("update.codec", "q4"),
            ("privacy.dp", dp),
            ("privacy.weights", "uniform"),
            ("privacy.secure_aggregation", "true"),
            ("privacy.subset", "0.5"),
            ("privacy.cohort_min", "25"),
            ("federation.devices", "30"),
            ("federation.holdout", "0.1"),
            ("federation.evaluate_every", "2"),
            ("federation.server_lr", "2.0"),
        ];
        let (trained, plan) = set(&training).expect("a task");
        assert!(trained.federation.rounds > 1 && plan.moments().is_none() && !plan.layers.is_empty());
        let (task, plan) = set(&[&training[..], &[goal]].concat()).expect("a task");
        assert_eq!((task.federation.rounds, task.federation.server_rate(1)), (1, 1.0));
        assert_eq!((plan.scale, plan.update.codec.to_string()), (Scale::None, "q16".to_owned()));
        let privacy = plan.privacy.as_ref().expect("a private plan");
        assert_eq!((privacy.rounds, privacy.evaluate_every, privacy.asked.subset), (1, 0, 1.0));
        assert_eq!(privacy.asked.dp.as_ref().expect("noise").noise_multiplier, 1.0, "what protects stays");
        let manifest = plan.manifest().expect("a manifest");
        let features: usize = plan.shape.iter().product();
        assert_eq!(manifest.tensors.iter().map(|tensor| tensor.len()).collect::<Vec<_>>(), [features, features]);
        let unit = plan.moments().expect("moments").unit();
        assert!((unit - 0.5 / (2.0 * features as f64).sqrt()).abs() < 1e-12, "{unit}");
        assert_eq!(crate::TaskPlan::from_json(&plan.to_json()).expect("it travels"), plan);

        let tree = "{ mode = \"central\", clip = 0.5, noise_multiplier = 1.0, delta = 1e-5, mechanism = { tree = { participations_max = 2, \
                    separation_min = 1 } } }";
        for overrides in [("federation.participation", "poisson"), ("privacy.dp", tree)] {
            let central = [(
                "privacy.dp",
                &*tree.replace(", mechanism = { tree = { participations_max = 2, separation_min = 1 } }", ""),
            )];
            let more = [goal, ("privacy.weights", "uniform"), ("federation.devices", "30"), overrides];
            let (task, plan) = set(&[&central[..], &more].concat()).expect("a task");
            let dp = plan.privacy.and_then(|privacy| privacy.asked.dp).expect("noise");
            assert!(
                task.federation.participation == Participation::Fixed && dp.mechanism.is_independent(),
                "a mean of those who came"
            );
        }

        let refused = |overrides: &[(&str, &str)], key: &str| {
            let error = set(overrides).map(|_| ()).expect_err("refused").to_string();
            assert!(error.starts_with(key), "{overrides:?}: {error}");
        };
        let error =
            TaskFile::parse(TASK, &[("federation.goal".into(), "moments".into())]).expect_err("no range").to_string();
        assert!(error.starts_with("data.range = nothing"), "{error}");
        refused(&[goal, ("data.range.low", "[0, 1]")], "data.range.low = (2 values)");
        refused(&[goal, ("data.range.low", "16")], "data.range = 16 to 16 (feature 0)");
        refused(&[goal, ("data.range.high", "nan")], "data.range.high = NaN");
        refused(
            &[goal, ("train.dp_sgd", "{ clip = 1.0, noise_multiplier = 1.1, delta = 1e-5 }")],
            "federation.goal = ",
        );
        let by = |deviation| format!("{{ mean = 3, deviation = {deviation} }}");
        refused(&[("data.standardise", &by("2.5"))], "data.standardise = ");
        refused(&[("data.scale", "standardise"), ("data.standardise", &by("0"))], "data.standardise.deviation = 0");
        refused(
            &[("data.scale", "standardise"), ("data.standardise", &by("[1.0, 2.0]"))],
            "data.standardise.deviation = (2",
        );
        let (_, plan) = set(&[("data.scale", "standardise"), ("data.standardise", &by("2.5"))]).expect("a task");
        let mut peers = plan;
        peers.train.dp_sgd =
            serde_json::from_str(r#"{"clip":1.0,"noise_multiplier":1.1,"delta":1e-5}"#).expect("noise");
        assert!(
            crate::TaskPlan::from_json(&peers.to_json()).is_ok(),
            "what is scaled by is stated, and fitted to no row"
        );
        peers.moments = serde_json::from_str(r#"{"low":0.0,"high":16.0}"#).expect("a range");
        let error = crate::TaskPlan::from_json(&peers.to_json()).expect_err("no noise for one row").to_string();
        assert!(error.starts_with("federation.goal = \"moments\""), "{error}");
        peers.train.dp_sgd = None;
        peers.shape = vec![usize::MAX, 3];
        assert!(crate::TaskPlan::from_json(&peers.to_json()).is_err(), "inv 8: nothing is allocated for it");
    }
}
