//! `audit cosign`: a witness's look at the log. It remembers the checkpoint that it saw last and who is enrolled, and signs nothing that does not go
//! on from both.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde_json::json;
use starling_audit::census::{Census, Kept};
use starling_audit::{Algorithm, Checkpoint, Note, verify};
use starling_daemon::{Exit, now_unix_s};

use super::{Ask, Log, digests, key_files, texts, word};

pub(super) fn cosign(
    path: &Path,
    name: &str,
    log_key: Option<&Path>,
    devices_max: Option<u64>,
    ask: &Ask,
) -> anyhow::Result<Exit> {
    let key = match key_files::read_private(path)? {
        Some(key) => key,
        None => key_files::write_private(path, name, Algorithm::Witness)?,
    };
    ensure!(
        key.verifier().algorithm() == Algorithm::Witness,
        "{}: this is a log's key, not a witness's",
        path.display()
    );
    let log = Log::of(&ask.which)?;
    let keys = log.keys(log_key)?;
    let beside = |what: &str| PathBuf::from(format!("{}.{what}", path.display()));
    let (seen_path, census_path) = (beside("seen"), beside("census"));
    let seen = match read(&seen_path)? {
        Some(text) => Some(Checkpoint::verified_by_any(&Note::parse(&text)?, &keys)?),
        None => None,
    };
    let held = seen.as_ref().map_or(0, |seen| seen.size);
    let answer = log.ask(&json!({ "what": "checkpoint", "held": held }))?;
    let mut note = Note::parse(word(&answer, "note")?)?;
    let checkpoint = Checkpoint::verified_by_any(&note, &keys)?;
    if let Some(seen) = &seen {
        let proof = digests(&answer["consistency"])?;
        verify::consistency(seen.size, &seen.root, checkpoint.size, &checkpoint.root, &proof).context("not signed")?;
    }
    let mut census = match read(&census_path)? {
        Some(text) => {
            let kept: Kept = serde_json::from_str(&text).with_context(|| format!("{}", census_path.display()))?;
            Census::from_kept(kept).with_context(|| format!("{}", census_path.display()))?
        }
        None => Census::default(),
    };
    let before = (census.counted(), census.renewed());
    count(&log, &mut census, &checkpoint).context("not signed")?;
    let devices = census.counted();
    if let Some(most) = devices_max {
        ensure!(
            devices <= most,
            "not signed: {devices} devices were enrolled, {} of them since the last time, and --devices-max allows {most}",
            devices - before.0
        );
    }
    key.cosign(&mut note, now_unix_s())?;
    write_replacing(&seen_path, note.to_string().as_bytes())?;
    write_replacing(&census_path, serde_json::to_string(&census.to_kept())?.as_bytes())?;
    let public = key.verifier().to_string();
    let mut answer = log.ask(&json!({ "what": "cosign", "note": note.to_string(), "key": public }))?;
    let (devices_new, renewed_new) = (devices - before.0, census.renewed() - before.1);
    if ask.json {
        answer["witness"] = public.into();
        answer["devices"] = devices.into();
        answer["devices_new"] = devices_new.into();
        answer["renewed_new"] = renewed_new.into();
        println!("{answer}");
    } else {
        println!(
            "{devices} devices were ever enrolled, {devices_new} of them since the last time; {renewed_new} renewed their keys since then"
        );
        println!("{} records co-signed; the witness's public key:\n{public}", checkpoint.size);
    }
    Ok(Exit::Ok)
}

/// Reads the records that are new, and checks that they and the ones before are those of the checkpoint.
fn count(log: &Log, census: &mut Census, checkpoint: &Checkpoint) -> anyhow::Result<()> {
    while census.size() < checkpoint.size {
        let from = census.size();
        let page = log.ask(&json!({ "what": "records", "from": from, "end": checkpoint.size }))?;
        if let Some(problem) = page["problem"].as_str() {
            anyhow::bail!("{problem}");
        }
        texts(&page["lines"]).try_for_each(|line| census.take(line.as_bytes()))?;
        ensure!(census.size() > from, "record {from} of the log is not shown");
    }
    Ok(census.check(checkpoint)?)
}

fn read(path: &Path) -> anyhow::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// A witness that forgets what it saw could sign two logs: the new file is on the disk before the old one goes.
fn write_replacing(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let unfinished = PathBuf::from(format!("{}.tmp", path.display()));
    let write = || {
        let mut file = File::create(&unfinished)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
