//! A client's status in words.

use crate::status::{Connection, Status, TrustStatus};

pub(super) fn describe(status: &Status) -> String {
    let connection = match status.connection {
        Connection::Connecting => "connecting",
        Connection::Connected => "connected",
        Connection::Refused => "refused",
        Connection::Stopped => "stopped",
    };
    let mut lines = vec![
        format!("device      {} ({})", status.name, status.device),
        format!("aggregator  {} ({connection})", status.aggregator),
        format!("updates     {} committed, {} refused", status.updates_committed, status.updates_refused),
        format!("memory      {:.1} MB", status.rss_mb),
    ];
    lines.extend(status.problem.iter().map(|problem| format!("problem     {problem}")));
    lines.extend(trust_lines(status.trust.as_ref()));
    for (task, release) in &status.releases {
        if let (Some(version), Some(bytes)) = (release.version, release.bytes) {
            let state = if release.serving { "served" } else { "held" };
            let signed = if release.signed { "signed" } else { "unsigned" };
            lines.push(format!("release     {task} version {version}, {bytes} bytes, {state}, {signed}"));
        }
        lines.extend(
            release.problem.iter().map(|problem| format!("release     {task}: a newer one is refused: {problem}")),
        );
    }
    let runs = status.runs.iter().map(|(run, about)| format!("run {run:<8}{} round {}", about.task, about.round));
    lines.extend(runs);
    lines.join("\n")
}

fn trust_lines(trust: Option<&TrustStatus>) -> Vec<String> {
    let Some(trust) = trust else {
        return vec![
            "trust       unsigned: no root is pinned, so whatever the aggregator offers is believed".to_owned(),
        ];
    };
    let freshness = trust
        .freshness_version
        .map_or_else(|| "no freshness statement yet".to_owned(), |version| format!("freshness statement {version}"));
    let mut lines = vec![format!("trust       root version {}, {freshness}", trust.root_version)];
    if trust.expired {
        let then = if trust.stopped { "predictions and rounds have stopped" } else { "what is held goes on" };
        lines.push(format!("trust       expired: nothing says any more what is newest; {then}"));
    }
    lines.extend(trust.plans.iter().map(|(task, problem)| format!("plan        {task}: refused: {problem}")));
    lines
}
