//! `device revoke`, of one device or of all whom an export of the audit log names: a backup that was restored does not know whom its operator
//! threw out after it was made, and would let them in again.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use starling_audit::export::Checker;
use starling_daemon::Exit;
use starling_wire::DeviceId;

use super::audit::next_line;
use super::{Ask, device};

/// `device revoke`.
#[derive(Debug, clap::Args)]
pub struct Revoke {
    /// The device's id, the beginning of it, or its name
    #[arg(required_unless_present = "from_audit", conflicts_with = "from_audit")]
    device: Option<String>,
    /// After a restore: everybody who is revoked or suspended by the end of this export of the audit log (`audit export`), and is not so here
    #[arg(long, value_name = "FILE")]
    from_audit: Option<PathBuf>,
    /// Which daemon
    #[command(flatten)]
    ask: Ask,
}

/// What to do after a restore.
pub(super) fn hint(config: &Path) -> String {
    format!(
        "Who was revoked, suspended or resumed after that backup was made stands as before. With `[backup]` each such word is backed up at once; if \
         newer backups were skipped or lost, give it again, once the daemon runs: starling-aggregator device revoke --from-audit EXPORT --config {}, \
         with the newest `audit export` that you have, or name them one by one",
        config.display()
    )
}

/// Where somebody stands by the end of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Revoked,
    Suspended,
    Resumed,
}

impl Word {
    fn of(record: &Value) -> Option<(DeviceId, Self)> {
        let word = match record["what"].as_str()? {
            // Its key is gone or was about to be; that it stays out is what matters here.
            "device-revoked" | "device-erased" => Word::Revoked,
            "device-suspended" => Word::Suspended,
            "device-resumed" => Word::Resumed,
            _ => return None,
        };
        let device = record["about"]["device"].as_str()?.parse().ok()?;
        Some((device, word))
    }
}

pub(super) fn execute(arguments: &Revoke) -> anyhow::Result<Exit> {
    match (&arguments.device, &arguments.from_audit) {
        (Some(device), _) => device::decide_on("device-revoke", device, &arguments.ask, false),
        (None, Some(export)) => give_again(export, &arguments.ask),
        (None, None) => anyhow::bail!("expected a device, or --from-audit FILE"),
    }
}

/// The last word on each device in an export, which has to be whole.
fn last_words(export: &Path) -> anyhow::Result<BTreeMap<DeviceId, Word>> {
    let unreadable = || format!("cannot read {}", export.display());
    let mut file = BufReader::new(File::open(export).with_context(unreadable)?);
    let mut words = BTreeMap::new();
    let mut checker: Option<Checker> = None;
    while let Some(line) = next_line(&mut file).with_context(unreadable)? {
        checker
            .get_or_insert_with(|| Checker::new(Checker::keys_of(&String::from_utf8_lossy(&line)), Vec::new()))
            .line(&line);
        let record = serde_json::from_slice::<Value>(&line).unwrap_or_default();
        // In the order of the log: the last one counts.
        words.extend(Word::of(&record));
    }
    let report = checker.with_context(|| format!("{} is empty", export.display()))?.finish();
    ensure!(
        report.findings.is_empty(),
        "{} is no whole export of an audit log: `audit verify --file` says what is wrong with it; nothing was done",
        export.display()
    );
    Ok(words)
}

fn give_again(export: &Path, ask: &Ask) -> anyhow::Result<Exit> {
    let words = last_words(export)?;
    let daemon = ask.daemon()?;
    let mut standing: BTreeMap<DeviceId, String> = BTreeMap::new();
    for verb in ["device-list", "operator-list"] {
        let listed = daemon.ask(&json!({ "verb": verb }))?;
        for line in listed.as_array().into_iter().flatten() {
            if let (Some(Ok(device)), Some(state)) = (line["device"].as_str().map(str::parse), line["state"].as_str()) {
                standing.insert(device, state.to_owned());
            }
        }
    }
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for (device, word) in words {
        let state = standing.get(&device).map(String::as_str);
        let verb = match (word, state) {
            (Word::Resumed, _) | (_, Some("revoked")) | (Word::Suspended, Some("suspended" | "cloned")) => continue,
            (Word::Revoked, _) => "device-revoke",
            (Word::Suspended, _) => "device-suspend",
        };
        match daemon.ask(&json!({ "verb": verb, "device": device.to_string() })) {
            Ok(answer) => done.push(answer),
            Err(error) => {
                failed.push(json!({ "device": device.to_string(), "verb": verb, "problem": error.to_string() }))
            }
        }
    }
    let exit = if failed.is_empty() { Exit::Ok } else { Exit::Failure };
    ask.show(&json!({ "given_again": done, "failed": failed }), |answer| {
        for line in answer["given_again"].as_array().into_iter().flatten() {
            let word = |key: &str| line[key].as_str().unwrap_or("?").to_owned();
            println!("{} {} is {}", word("device"), word("name"), word("state"));
        }
        for line in answer["failed"].as_array().into_iter().flatten() {
            let word = |key: &str| line[key].as_str().unwrap_or("?").to_owned();
            eprintln!("{}: {} was not done: {}", word("device"), word("verb"), word("problem"));
        }
    })?;
    Ok(exit)
}
