//! What this device gives away, in words, generated from its configuration and its ledger: every sentence follows from a switch.

use std::fmt;

use serde::Serialize;
use starling_privacy::Statement;
use starling_privacy::dp_sgd::meaning;

use super::PolicySettings;
use crate::config::ClientConfig;
use crate::status::PrivacyStatus;
use crate::trust::OnExpiry;

/// The sentences, by what they are about.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Words {
    /// What the device takes part in.
    pub(crate) takes_part: Vec<String>,
    /// Who can see what of it.
    pub(crate) sees: Vec<String>,
    /// What is spent and left, and what the figures mean.
    pub(crate) epsilon: Vec<String>,
    /// What nothing protects from.
    pub(crate) not_protected: Vec<String>,
}

/// The words for a configuration, with what its state folder says is spent.
pub(crate) fn words(config: &ClientConfig, ledger: Option<&PrivacyStatus>) -> Words {
    let policy = &config.policy;
    Words {
        takes_part: takes_part(config),
        sees: sees(policy),
        epsilon: epsilon(policy, ledger),
        not_protected: not_protected(config),
    }
}

fn takes_part(config: &ClientConfig) -> Vec<String> {
    let policy = &config.policy;
    let names: Vec<&str> = config.task.iter().map(|task| task.name.as_str()).collect();
    let mut lines = vec![match names.is_empty() {
        true => "In nothing: no task is bound.".to_owned(),
        false => format!("In the tasks {} and in no other.", names.join(", ")),
    }];
    lines.extend(policy.hours.map(|hours| format!("Rounds begin at {hours} only, in local time.")));
    lines.extend(policy.bytes_per_day.map(|most| format!("Rounds move at most {most} bytes a day.")));
    if !policy.publishers.is_empty() {
        lines.push(format!("One of {} publishers named here has to have signed the plan.", policy.publishers.len()));
    }
    lines.push(match &config.trust {
        Some(trust) => {
            let then = if trust.on_expiry == OnExpiry::Stop { "stops" } else { "goes on with what it holds" };
            format!("Plans and releases have to be signed as the pinned root says; when nothing says what is newest, the device {then}.")
        }
        None => "No root is pinned: releases, and plans without a publisher named here, need no signature.".to_owned(),
    });
    lines
}

fn sees(policy: &PolicySettings) -> Vec<String> {
    let mut lines = Vec::new();
    if policy.secure_aggregation {
        let least = policy
            .cohort_min
            .map_or_else(|| "the plan's smallest cohort".to_owned(), |least| format!("{least} devices"));
        lines.push(format!(
            "The aggregator never sees an update of this device by itself: only sums over at least {least}, also when it does not keep \
             to the protocol, as long as no more devices work with it than the plan assumes."
        ));
        let witnesses = policy.roster_witness.len();
        if witnesses > 0 {
            lines.push(format!(
                "A device counts among those once its enrolment is in the aggregator's audit log under a checkpoint that a witness named here ({witnesses} \
                 of them) has co-signed. Any other device is taken for one that works with the aggregator."
            ));
        }
    } else {
        lines.push(
            "The aggregator sees this device's update by itself wherever the plan has no secure aggregation: the owner does not require it."
                .to_owned(),
        );
    }
    lines.extend(
        policy.clip_max.map(|most| format!("No update is longer than {most} (L2, in units of the parameters).")),
    );
    lines.push(match policy.metrics {
        Some(true) => "Accuracy, loss and counts of this device may leave it by themselves.".to_owned(),
        Some(false) => "Accuracy, loss and steps of this device do not leave it by themselves; in a plain sum the number of examples does.".to_owned(),
        None if policy.secure_aggregation => "Accuracy, loss and counts leave this device inside secure sums only.".to_owned(),
        None => "Accuracy, loss and counts of this device leave it by themselves, but for plans with secure aggregation.".to_owned(),
    });
    lines.push("Who watches the network sees sizes and times.".to_owned());
    lines
}

fn epsilon(policy: &PolicySettings, ledger: Option<&PrivacyStatus>) -> Vec<String> {
    let mut lines = Vec::new();
    if policy.epsilon_per_run.is_none() && policy.epsilon_lifetime.is_none() {
        lines.push("No budget is set: what rounds give away about this device is counted and not limited.".to_owned());
    }
    lines.extend(policy.epsilon_per_run.map(|most| format!("One run may spend an epsilon of {most}.")));
    lines.extend(
        policy.epsilon_lifetime.map(|most| format!("All runs of all tasks together may spend an epsilon of {most}.")),
    );
    lines.extend(policy.epsilon_example_per_run.map(|most| {
        format!("One run may spend an epsilon of {most} of one example of this device, by noise in the device's own training.")
    }));
    lines.push(match policy.trust_aggregator_noise {
        true => {
            "Noise that the aggregator adds counts: the owner trusts it to add it and to forget the sums.".to_owned()
        }
        false => "Only noise that this device draws itself counts.".to_owned(),
    });
    match ledger.map(|ledger| (ledger, ledger.epsilon_spent)) {
        Some((ledger, Some(spent))) => {
            let left =
                ledger.epsilon_lifetime.map(|most| format!("; left of the lifetime's: {:.4}", (most - spent).max(0.0)));
            lines.push(format!(
                "Spent by now: epsilon {spent:.4} at delta {:e}{}.",
                ledger.delta,
                left.unwrap_or_default()
            ));
        }
        Some((_, None)) => {
            lines.push("Spent by now: no number bounds it, since rounds had no noise that counts.".to_owned())
        }
        None => lines.push("Spent by now: nothing; the client has not run yet.".to_owned()),
    }
    lines.extend(ledger.filter(|ledger| ledger.epsilon_lost > 0.0).map(|ledger| {
        format!("Of that, {:.4} is assumed, since the state folder was restored from a backup.", ledger.epsilon_lost)
    }));
    for spent in ledger.map_or(&[][..], |ledger| &ledger.examples[..]) {
        let epsilon = spent.epsilon.map_or_else(|| "without bound".to_owned(), |epsilon| format!("{epsilon:.4}"));
        let Statement { unit, neighbours, sampling, .. } = meaning();
        lines.push(format!(
            "Of one example, {} run {} has spent epsilon {epsilon} in {} steps. Unit: {unit}. Neighbours: {neighbours}. Sampling: {sampling}.",
            spent.task, spent.run, spent.steps
        ));
    }
    lines.push(format!(
        "Delta: {:e}. Unit: this device. Neighbours: all its updates, or zeros in their place. Sampling: none assumed. Adversary: whoever \
         sees what the noise is added to, with the noise.",
        policy.delta
    ));
    lines
}

fn not_protected(config: &ClientConfig) -> Vec<String> {
    let policy = &config.policy;
    let mut lines = Vec::new();
    if policy.secure_aggregation && !policy.roster_witness.is_empty() {
        lines.push(
            "The operator cannot enrol devices of his own behind the witnesses' backs: the log of enrolments is the same for all who look, nothing goes out of \
             it, and whoever enters the fleet is counted in it. He can do it before their eyes: against that a witness has to look, and to know how many \
             devices there should be. One that signs blindly vouches for nothing but that the log only grows."
                .to_owned(),
        );
    } else if policy.secure_aggregation {
        lines.push(
            "No witnesses watch who is enrolled: the operator could stuff the cohort with devices of his own and see what is left of the sum."
                .to_owned(),
        );
    } else {
        lines.push(
            "Whoever reads the aggregator's memory reads updates, and can reconstruct training examples from them."
                .to_owned(),
        );
    }
    if config.trust.is_none() && policy.publishers.is_empty() {
        lines.push("Whoever holds the aggregator decides what this device trains on its data.".to_owned());
    }
    lines.push(
        "The weights that a round begins with are not signed: they can be made so that updates give examples away."
            .to_owned(),
    );
    lines.push("Who may change this configuration may change all of this.".to_owned());
    lines
}

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            ("What this device takes part in", &self.takes_part),
            ("Who can see what", &self.sees),
            ("Epsilon", &self.epsilon),
            ("Not protected", &self.not_protected),
        ];
        for (index, (title, lines)) in parts.into_iter().enumerate() {
            write!(f, "{}{title}", if index == 0 { "" } else { "\n" })?;
            lines.iter().try_for_each(|line| write!(f, "\n  - {line}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const BARE: &str = r#"
        aggregator = "192.0.2.10:7443"
        state_dir = "state"
        [tls]
        ca = "ca.pem"
        certificate = "certificate.pem"
        key = "key.pem"
    "#;

    /// The key of a witness whose seed is 32 zeros.
    const WITNESS: &str = "witness.example+2f6d70a4+BDtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop";

    fn said(more: &str, ledger: Option<&PrivacyStatus>) -> String {
        let config = ClientConfig::parse(Path::new("/etc/client.toml"), &format!("{BARE}\n{more}")).expect(more);
        words(&config, ledger).to_string()
    }

    fn ledger(epsilon_spent: Option<f64>, epsilon_lifetime: Option<f64>) -> PrivacyStatus {
        PrivacyStatus {
            delta: 1e-6,
            epsilon_spent,
            epsilon_lifetime,
            epsilon_per_run: None,
            epsilon_lost: 0.0,
            restores_unbounded: 0,
            runs: Vec::new(),
            examples: Vec::new(),
        }
    }

    #[test]
    fn every_switch_changes_what_it_says() {
        let key = "0".repeat(64);
        let switches = [
            String::new(),
            "[policy]\nsecure_aggregation = true".to_owned(),
            "[policy]\nsecure_aggregation = true\ncohort_min = 50".to_owned(),
            "[policy]\nsecure_aggregation = true\nmetrics = true".to_owned(),
            format!("[policy]\nsecure_aggregation = true\nroster_witness = [\"{WITNESS}\"]"),
            format!("[policy]\nsecure_aggregation = true\nroster_witness = [\"{WITNESS}\", \"{WITNESS}\"]"),
            "[policy]\nmetrics = false".to_owned(),
            "[policy]\nclip_max = 1.0".to_owned(),
            "[policy]\nepsilon_per_run = 2.0".to_owned(),
            "[policy]\nepsilon_lifetime = 2.0".to_owned(),
            "[policy]\nepsilon_example_per_run = 2.0".to_owned(),
            "[policy]\ndelta = 1e-7".to_owned(),
            "[policy]\ntrust_aggregator_noise = true".to_owned(),
            format!("[policy]\npublishers = [\"{key}\"]"),
            "[policy]\nbytes_per_day = 1000".to_owned(),
            "[policy]\nhours = \"22:00-06:00\"".to_owned(),
            "[trust]\nroot = \"root.bundle\"".to_owned(),
            "[trust]\nroot = \"root.bundle\"\non_expiry = \"stop\"".to_owned(),
            "[[task]]\nname = \"digits\"\n[task.data]\nformat = \"csv\"\ntrain = \"embedded:optdigits\"".to_owned(),
        ];
        let all: Vec<String> = switches.iter().map(|more| said(more, None)).collect();
        for (index, one) in all.iter().enumerate() {
            for (other, another) in all.iter().enumerate().skip(index + 1) {
                assert_ne!(one, another, "{} and {} say the same", switches[index], switches[other]);
            }
        }
    }

    #[test]
    fn it_claims_no_more_than_there_is() {
        let bare = said("", None);
        assert!(bare.contains("In nothing") && bare.contains("sees this device's update by itself"), "{bare}");
        assert!(bare.contains("Whoever holds the aggregator decides"), "{bare}");
        let secure = said("[policy]\nsecure_aggregation = true", None);
        assert!(secure.contains("the operator could stuff the cohort"), "{secure}");
        let watched = said(&format!("[policy]\nsecure_aggregation = true\nroster_witness = [\"{WITNESS}\"]"), None);
        assert!(!watched.contains("No witnesses watch"), "{watched}");
        assert!(watched.contains("a checkpoint that a witness named here (1 of them) has co-signed"), "{watched}");
        assert!(watched.contains("He can do it before their eyes") && watched.contains("signs blindly"), "{watched}");
        let budget = "[policy]\nepsilon_lifetime = 8.0";
        let spent = said(budget, Some(&ledger(Some(2.5), Some(8.0))));
        assert!(spent.contains("epsilon 2.5000 at delta 1e-6; left of the lifetime's: 5.5000"), "{spent}");
        assert!(said(budget, Some(&ledger(None, Some(8.0)))).contains("no number bounds it"));
    }
}
