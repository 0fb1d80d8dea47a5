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
    let wrong = |key: &str, value: &str, expected: &str| Err(SpecError::value(key, value, expected));
    if task.data.range.is_none() {
        return wrong(
            "data.range",
            "nothing",
            "moments are of values in a known interval: say which, as `range = { low = 0, high = 255 }` or with one number for each feature",
        );
    }
    if task.train.dp_sgd.is_some() {
        return wrong(
            "federation.goal",
            "\"moments\"",
            "train.dp_sgd protects single examples, and moments carry no noise for one of them: leave it out of this run, or scale by known values",
        );
    }
    Ok(())
}
