//! What a plan's privacy is, in words: who can see what, under which adversary, what it costs, and what is not protected. Every sentence
//! follows from a switch of the plan, so that it changes when the switch does.

use std::fmt;

use serde::Serialize;
use starling_spec::{DpMode, GroupRule, PrivacyPlan, PrivacySection, TaskPlan, Weights};

use crate::accountant::{Charge, Statement, rounds_within, spent};

/// The sentences, by what they are about.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Words {
    /// Who can see what.
    pub sees: Vec<String>,
    /// Which noise there is, and against whom it helps.
    pub noise: Vec<String>,
    /// What is spent and left, and what the figures mean.
    pub epsilon: Vec<String>,
    /// What nothing protects from.
    pub not_protected: Vec<String>,
}

/// The words for a plan of which `rounds_spent` rounds are spent.
pub fn words(plan: &TaskPlan, rounds_spent: u32) -> Words {
    let privacy = plan.privacy.as_ref();
    let (noise, epsilon) = noise(privacy, rounds_spent);
    let mut sees = sees(privacy);
    if plan.moments.is_some() {
        sees.push(
            "The run trains nothing: what stands for an update is, of each feature, the mean and the mean square of the device's values within an \
             interval that everybody knows."
                .to_owned(),
        );
    }
    Words { sees, noise, epsilon, not_protected: not_protected(privacy) }
}

fn is_secure(privacy: Option<&PrivacyPlan>) -> bool {
    privacy.is_some_and(|privacy| privacy.asked.secure_aggregation)
}

fn sees(privacy: Option<&PrivacyPlan>) -> Vec<String> {
    let mut lines = match privacy {
        Some(privacy) if privacy.asked.secure_aggregation => {
            let asked = &privacy.asked;
            let weights = match asked.weights {
                Weights::Uniform => "every device counts the same",
                Weights::Examples => "how many examples a device has stays inside the sum",
            };
            let mut lines = vec![
                format!(
                    "The aggregator sees sums over at least {} devices and no device's own update, also when it does not keep to the \
                     protocol, as long as at most {} of a {}'s devices work with it; {weights}.",
                    asked.cohort_min,
                    percent(asked.corrupt),
                    if asked.groups > 1 { "group" } else { "cohort" }
                ),
                "It sees who takes part, who drops out and when, and how many bytes move.".to_owned(),
            ];
            if asked.groups > 1 {
                let rule = match asked.group_rule.unwrap_or_default() {
                    GroupRule::Median => "median",
                    GroupRule::TrimmedMean => "trimmed mean",
                };
                lines.push(format!(
                    "A cohort is split into {} groups, each with a sum of its own: the aggregator sees every one of them and who is in it, and takes the \
                     {rule} of their means. It says who is in which, so all devices that work with it may be in one.",
                    asked.groups
                ));
            }
            if asked.subset < 1.0 {
                lines.push(format!("A round's sum holds {} of the parameters, drawn anew each round.", percent(asked.subset)));
            }
            let figures = [
                ("what share of their hold-outs devices classify rightly with the version", privacy.evaluation_noise()),
                ("its mean loss over their hold-outs, as a share of 16,", privacy.loss_noise()),
            ];
            for (what, noise) in figures.into_iter().filter_map(|(what, noise)| Some((what, noise?))) {
                lines.push(format!(
                    "Every {} versions a sum also says {what} to {noise} devices (a standard deviation of noise that is part of the same budget).",
                    privacy.evaluate_every
                ));
            }
            let exact = privacy.evaluation_noise().or(privacy.loss_noise()).is_none();
            if exact && privacy.evaluate_every > 0 {
                lines.push(format!(
                    "Every {} versions a sum also says how the version does on the devices' hold-outs together: examples, hits, loss, and how many \
                     devices are in which twentieth of the accuracy.",
                    privacy.evaluate_every
                ));
            }
            lines
        }
        _ => vec![
            "The aggregator sees each device's update by itself, and with it the number of examples, the training loss and the local \
             steps, where the device's owner lets those out."
                .to_owned(),
        ],
    };
    if let Some((privacy, clip)) = privacy.and_then(|privacy| Some((privacy, privacy.asked.clip()?))) {
        lines.push(match privacy.asked.adaptive_clip {
            None => format!("No update is longer than {clip} (L2, in units of the parameters)."),
            Some(adaptive) => {
                let noise = privacy.count_noise().map_or_else(
                    || "exactly".to_owned(),
                    |noise| format!("to {noise} devices (a standard deviation of noise that is part of the same budget)"),
                );
                format!(
                    "The longest update is {clip} (L2, in units of the parameters) in the first round, then follows {} of the devices' own, and is never \
                     more than {}. For that each device says whether its update was within it; how many were is known {noise}.",
                    percent(adaptive.quantile),
                    adaptive.clip_max
                )
            }
        });
    }
    lines.push("Devices see the model versions; who watches the network sees sizes and times.".to_owned());
    lines
}

fn noise(privacy: Option<&PrivacyPlan>, rounds_spent: u32) -> (Vec<String>, Vec<String>) {
    let found = privacy.and_then(|privacy| Some((privacy, privacy.asked.dp.as_ref()?, Charge::of(privacy)?)));
    let Some((privacy, dp, charge)) = found else {
        let what = if is_secure(privacy) { "sums" } else { "updates" };
        let none = format!(
            "No noise is added: nothing limits what the {what} and the model versions give away about a device."
        );
        return (vec![none], vec!["No epsilon holds.".to_owned()]);
    };
    let multiplier = dp.noise_multiplier;
    let (who, amount) = match dp.mode {
        DpMode::Local => (
            "Each device adds all of the noise to its own update: it protects from the aggregator as well.",
            format!("Its standard deviation on each update is {multiplier} clipping norms."),
        ),
        DpMode::Distributed => (
            "Each device adds a share of the noise inside the secure sum: the aggregator sees the sum with its noise only, and no device \
             helps with a smaller sum than the plan says.",
            format!(
                "Its standard deviation is at least {multiplier} clipping norms, on a sum over {} devices, of which {} work with it; it is more on \
                 larger ones.",
                privacy.asked.cohort_min,
                u32::from(privacy.asked.cohort_min) - privacy.honest_min()
            ),
        ),
        _ => (
            "The aggregator adds the noise to the sum: it sees each update without it, and has to be trusted to add it and to forget.",
            format!("Its standard deviation on a round's sum is {multiplier} clipping norms."),
        ),
    };
    let figure = |rounds: u32| spent(&charge, rounds).unwrap_or(f64::INFINITY);
    let planned = privacy.rounds;
    let mut epsilon = vec![
        format!("Spent in {rounds_spent} rounds: epsilon {:.4} at delta {:e}.", figure(rounds_spent), dp.delta),
        format!("All {planned} rounds of the run: epsilon {:.4}.", figure(planned)),
    ];
    match dp.epsilon_max {
        Some(most) => {
            let lasts = rounds_within(&charge, most, planned).unwrap_or(0);
            let left = (most - figure(rounds_spent)).max(0.0);
            epsilon.push(format!("Left of the run's epsilon_max of {most}: {left:.4}; it lasts for {lasts} of the rounds, and the run stops there."));
        }
        None => epsilon.push("No budget stops the run (epsilon_max is not set).".to_owned()),
    }
    let Statement { unit, neighbours, sampling, adversary } = charge.statement();
    epsilon.push(format!("Unit: {unit}. Neighbours: {neighbours}. Sampling: {sampling}. Adversary: {adversary}."));
    (vec![who.to_owned(), amount], epsilon)
}

fn not_protected(privacy: Option<&PrivacyPlan>) -> Vec<String> {
    let mut lines = Vec::new();
    if is_secure(privacy) {
        lines.push(
            "No witnesses watch who is enrolled: the operator could stuff the cohort with devices of his own and see what is left of the sum. (No \
             plan can name them: a device whose owner does, by `roster_witness`, stays away from such a cohort.)"
                .to_owned(),
        );
        lines.push("Sums of nearly the same devices can be compared from round to round.".to_owned());
        lines.push(match privacy.and_then(|privacy| groups_to_spare(&privacy.asked)) {
            None => "A device inside a sum may send any update up to the clipping norm: nobody can look at it.".to_owned(),
            Some(spare) => format!(
                "A device inside a group's sum may send any update up to the clipping norm, and nobody can look at it. Where no more than {spare} groups \
                 hold such updates, the other groups' means bound what each parameter becomes; beyond that nothing does."
            ),
        });
    } else {
        lines.push(
            "Whoever reads the aggregator's memory reads updates, and can reconstruct training examples from them."
                .to_owned(),
        );
    }
    let against_models = match privacy.and_then(|privacy| privacy.asked.dp.as_ref()) {
        Some(_) => {
            "A model version that is made to leak is answered with noise, and with nothing else unless plans are signed."
        }
        None => "A model version can be made so that updates from it, and sums of them, give examples away.",
    };
    lines.push(against_models.to_owned());
    lines
}

/// Groups that the rule leaves out of either end; nothing where there is one sum.
fn groups_to_spare(asked: &PrivacySection) -> Option<usize> {
    (asked.groups > 1).then(|| asked.group_rule.unwrap_or_default().cut(asked.groups.into()))
}

fn percent(share: f64) -> String {
    format!("{} %", (share * 1000.0).round() / 10.0)
}

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            ("Who can see what", &self.sees),
            ("Noise", &self.noise),
            ("Epsilon", &self.epsilon),
            ("Not protected", &self.not_protected),
        ];
        for (index, (title, lines)) in parts.into_iter().enumerate() {
            writeln!(f, "{}{title}", if index == 0 { "" } else { "\n" })?;
            lines.iter().try_for_each(|line| writeln!(f, "  - {line}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use starling_spec::TaskFile;

    use super::*;

    fn text(privacy: &str, rounds_spent: u32) -> String {
        let task = format!(
            r#"
            name = "digits"
            kind = "classification"
            [data]
            format = "csv"
            train = "embedded:optdigits"
            shape = [4]
            range = {{ low = 0, high = 16 }}
            [model]
            layers = [{{ linear = {{ out = 2 }} }}]
            [update]
            codec = "q8"
            weight_max = 600
            value_max = 64.0
            [federation]
            devices = 40
            rounds = 50
            {privacy}
            "#
        );
        let plan = TaskPlan::new(&TaskFile::parse(&task, &[]).expect("a task"), 1).expect("a plan");
        words(&plan, rounds_spent).to_string()
    }

    const EVALUATED: &str = "holdout = 0.1\nevaluate_every = 2\n";

    const SECURE: &str = "[privacy]\nsecure_aggregation = true\nclip = 0.5\ncohort_min = 10\n";

    fn noisy(mode: &str, more: &str) -> String {
        let secure = if mode == "distributed" { "secure_aggregation = true\ncohort_min = 30\n" } else { "" };
        format!(
            "[privacy]\n{secure}weights = \"uniform\"\ndp = {{ mode = \"{mode}\", clip = 1.0, noise_multiplier = 4.0, delta = 1e-3 {more} }}"
        )
    }

    #[test]
    fn every_switch_changes_what_it_says() {
        let settings = [
            String::new(),
            SECURE.to_owned(),
            SECURE.replace("10", "20"),
            SECURE.replace("0.5", "0.25"),
            format!("{SECURE}corrupt = 0.2"),
            format!("{SECURE}subset = 0.1"),
            format!("{SECURE}groups = 3"),
            format!("{SECURE}groups = 4"),
            format!("{SECURE}groups = 4\ngroup_rule = \"trimmed_mean\""),
            format!("{SECURE}weights = \"uniform\""),
            format!("{EVALUATED}{SECURE}"),
            format!("goal = \"moments\"\n{SECURE}"),
            noisy("central", ""),
            noisy("central", ", epsilon_max = 3.65"),
            noisy("local", ""),
            noisy("distributed", ""),
            noisy("distributed", "").replace("= 30", "= 20"),
            format!("{EVALUATED}{}", noisy("distributed", ", evaluation_noise = 5.0")),
            format!("{EVALUATED}{}", noisy("distributed", ", evaluation_noise = 6.0")),
            format!("{EVALUATED}{}", noisy("distributed", ", loss_noise = 6.0")),
            noisy("central", "").replace("4.0", "2.0"),
            noisy("central", "").replace("1e-3", "1e-4"),
            noisy("central", ", mechanism = { tree = { participations_max = 2, separation_min = 3 } }"),
        ];
        let said: Vec<String> = settings.iter().map(|privacy| text(privacy, 0)).collect();
        for (index, one) in said.iter().enumerate() {
            for (other, another) in said.iter().enumerate().skip(index + 1) {
                assert_ne!(one, another, "{} and {} say the same", settings[index], settings[other]);
            }
        }
    }

    #[test]
    fn it_claims_no_more_than_there_is() {
        let bare = text("", 0);
        assert!(bare.contains("sees each device's update by itself") && bare.contains("No epsilon holds"), "{bare}");
        assert!(!bare.contains("stuff the cohort"), "there is no cohort to hide in: {bare}");
        let secure = text(SECURE, 0);
        assert!(secure.contains("sums over at least 10 devices and no device's own update"), "{secure}");
        assert!(secure.contains("the operator could stuff the cohort"), "{secure}");
        assert!(secure.contains("nothing limits what the sums"), "{secure}");
        let central = text(&noisy("central", ""), 0);
        assert!(central.contains("it sees each update without it"), "{central}");
        let distributed = text(&noisy("distributed", ""), 0);
        assert!(distributed.contains("30 devices, of which 4 work with it"), "{distributed}");
        let local = text(&noisy("local", ""), 0);
        assert!(local.contains("protects from the aggregator as well"), "{local}");
    }

    #[test]
    fn it_says_what_is_spent_and_left_with_all_that_the_figure_means() {
        // dp-accounting 0.6.0, PLD: full participation, z = 4, T = 20, δ = 1e-3: 3.6051.
        let said = text(&noisy("central", ", epsilon_max = 3.65"), 20);
        assert!(said.contains("Spent in 20 rounds: epsilon 3.60"), "{said}");
        assert!(said.contains("lasts for 20 of the rounds") && said.contains("at delta 1e-3"), "{said}");
        for word in ["Unit: device", "Neighbours: ", "Sampling: none", "Adversary: "] {
            assert!(said.contains(word), "{word}: {said}");
        }
    }

    #[test]
    fn a_norm_that_adapts_is_said_with_its_cap_and_the_noise_on_its_count() {
        let adaptive = |privacy: &str| text(&format!("{privacy}\nadaptive_clip = {{ clip_max = 8.0 }}\n"), 0);
        let exact = adaptive(SECURE);
        assert!(exact.contains("is never more than 8.") && exact.contains("is known exactly"), "{exact}");
        let noised = adaptive(&noisy("central", "").replace("4.0", "1.0"));
        assert!(noised.contains("is known to 2 devices"), "a twentieth of forty: {noised}");
        assert!(!text(SECURE, 0).contains("never more than"), "a fixed norm is the norm");
    }
}
