//! A log in a file: one JSON value a line, so that it can be read with any tool and checked without a daemon.
//!
//! ```text
//! {"export":{"format":1,"origin":"…","keys":["…"],"records":N}}     first
//! {"seq":0,…}                                                     the records, each the very bytes of its leaf
//! {"personal":{"commitment":"…","salt":"…","value":"…"}}          what is still known behind commitments
//! {"checkpoint":"…"}                                              signed checkpoints
//! ```
//!
//! Every line has one way to be written, so that no change of a byte goes unseen. A signature of a witness whose key is not given is
//! passed over.

use std::fmt;

use serde::{Deserialize, Serialize};
use starling_wire::Digest;

use crate::checkpoint::Checkpoint;
use crate::locate::{Damage, Finding, Locator};
use crate::note::{NOTE_BYTES_MAX, Note, VerifierKey};
use crate::personal::Personal;
use crate::rounds::Rounds;

/// The format that this build writes and reads.
const FORMAT: u32 = 1;

/// Bytes of the longest line: a checkpoint whose line's ends are written as two characters.
pub const LINE_BYTES_MAX: usize = 2 * NOTE_BYTES_MAX;

/// Findings that are told one by one; of a file of rubbish, the first will do.
const FINDINGS_MAX: usize = 1000;

/// What an export says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// 1.
    pub format: u32,
    /// The log's name.
    pub origin: String,
    /// The log's public keys, the newest last. Whoever checks the file should have them from elsewhere.
    pub keys: Vec<String>,
    /// How many records follow.
    pub records: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Line {
    Export(Header),
    Personal(Opened),
    Checkpoint(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Opened {
    commitment: String,
    salt: String,
    value: String,
}

/// The first line of an export. A log whose key was replaced has several `keys`, the newest last.
pub fn header_line(keys: &[VerifierKey], records: u64) -> String {
    let origin = keys.last().map(|key| key.name().to_owned()).unwrap_or_default();
    to_line(&Line::Export(Header { format: FORMAT, origin, keys: texts(keys), records }))
}

fn texts(keys: &[VerifierKey]) -> Vec<String> {
    keys.iter().map(VerifierKey::to_string).collect()
}

/// The line of a signed checkpoint.
pub fn checkpoint_line(note: &Note) -> String {
    to_line(&Line::Checkpoint(note.to_string()))
}

/// The line that opens a commitment.
pub fn personal_line(personal: &Personal) -> String {
    let commitment = personal.commitment().to_string();
    let salt = Hex(&personal.salt).to_string();
    to_line(&Line::Personal(Opened { commitment, salt, value: personal.value.clone() }))
}

fn to_line(line: &Line) -> String {
    serde_json::to_string(line).expect("it holds numbers and texts only")
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Records that could be read.
    pub records: u64,
    /// Checkpoints whose signature holds.
    pub checkpoints: u64,
    /// The largest of them.
    pub newest: Option<Checkpoint>,
    /// Witnesses' signatures that hold, over all checkpoints.
    pub cosignatures: u64,
    /// Personal fields that are still known.
    pub personal: u64,
    /// What is wrong; empty when the log is whole.
    pub findings: Vec<Finding>,
}

/// Reads an export line by line. Memory: 88 bytes a record, and a checkpoint's size.
pub struct Checker {
    keys: Vec<VerifierKey>,
    witnesses: Vec<VerifierKey>,
    locator: Locator,
    rounds: Rounds,
    checkpoints: Vec<Checkpoint>,
    commitments: std::collections::BTreeSet<[u8; 32]>,
    /// Versions that name other contributors than the records before them.
    contributors: Vec<Finding>,
    header: Option<Header>,
    line: u64,
    report: Report,
}

impl Checker {
    /// For the log of `keys`. Signatures of `witnesses` are checked where there are any.
    pub fn new(keys: Vec<VerifierKey>, witnesses: Vec<VerifierKey>) -> Self {
        let report =
            Report { records: 0, checkpoints: 0, newest: None, cosignatures: 0, personal: 0, findings: Vec::new() };
        let (locator, rounds) = (Locator::new(), Rounds::default());
        let commitments = Default::default();
        Self {
            keys,
            witnesses,
            locator,
            rounds,
            checkpoints: Vec::new(),
            commitments,
            contributors: Vec::new(),
            header: None,
            line: 0,
            report,
        }
    }

    /// The log's public keys as the export itself names them: for those who have them from nowhere else.
    pub fn keys_of(first_line: &str) -> Vec<VerifierKey> {
        match serde_json::from_str(first_line) {
            Ok(Line::Export(header)) => header.keys.iter().filter_map(|key| key.parse().ok()).collect(),
            _ => Vec::new(),
        }
    }

    /// Takes the next line, without its end.
    pub fn line(&mut self, bytes: &[u8]) {
        self.line += 1;
        if bytes.starts_with(br#"{"seq":"#) {
            return self.record(bytes);
        }
        if bytes.len() > LINE_BYTES_MAX {
            return self.find(Damage::Other(format!("{} bytes, expected at most {LINE_BYTES_MAX}", bytes.len())));
        }
        let line = match serde_json::from_slice::<Line>(bytes) {
            Ok(line) if to_line(&line).as_bytes() == bytes => line,
            // It may have been a record, whose place in the log is then told by its neighbours.
            _ => return self.record(bytes),
        };
        match line {
            Line::Export(header) if self.line == 1 => self.header(header),
            Line::Export(_) => self.find(Damage::Other("a second beginning".into())),
            Line::Checkpoint(text) => self.checkpoint(&text),
            Line::Personal(opened) => self.personal(&opened),
        }
    }

    fn record(&mut self, bytes: &[u8]) {
        let Ok(record) = self.locator.push(self.line, bytes) else { return };
        self.commitments.extend(record.personal.map(|commitment| commitment.0));
        if !self.rounds.take(&record) && self.contributors.len() < FINDINGS_MAX {
            self.contributors.push(Finding { line: Some(self.line), damage: Damage::Contributors(record.seq) });
        }
    }

    fn header(&mut self, header: Header) {
        if header.format != FORMAT {
            self.find(Damage::Other(format!("format {}, expected {FORMAT}", header.format)));
        }
        let expected = texts(&self.keys);
        let origin = self.keys.last().map(VerifierKey::name);
        if header.keys != expected || origin != Some(&header.origin) {
            let problem =
                format!("the export is of {:?} with the keys {:?}, expected {expected:?}", header.origin, header.keys);
            self.find(Damage::Other(problem));
        }
        self.header = Some(header);
    }

    /// A signed checkpoint: one of the export, or one that the auditor kept from an earlier day.
    pub fn checkpoint(&mut self, text: &str) {
        let checked = Note::parse(text).map_err(Into::into).and_then(|note| {
            let checkpoint = Checkpoint::verified_by_any(&note, &self.keys)?;
            for witness in &self.witnesses {
                match note.verify(witness) {
                    Ok(_) => self.report.cosignatures += 1,
                    Err(crate::NoteError::Unsigned(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(checkpoint)
        });
        match checked {
            Ok(checkpoint) => self.checkpoints.push(checkpoint),
            Err(error) => {
                let error: crate::CheckpointError = error;
                self.find(Damage::Other(format!("a checkpoint that does not hold: {error}")));
            }
        }
    }

    fn personal(&mut self, opened: &Opened) {
        let salt = (opened.salt.len() == 32 && opened.salt.is_ascii()).then(|| {
            let mut salt = [0; 16];
            for (index, byte) in salt.iter_mut().enumerate() {
                *byte = u8::from_str_radix(opened.salt.get(2 * index..2 * index + 2)?, 16).ok()?;
            }
            (Hex(&salt).to_string() == opened.salt).then_some(salt)
        });
        let personal = salt.flatten().map(|salt| Personal { salt, value: opened.value.clone() });
        let commitment = personal.map(|personal| personal.commitment());
        match commitment.filter(|commitment| commitment.to_string() == opened.commitment) {
            Some(Digest(commitment)) if self.commitments.contains(&commitment) => self.report.personal += 1,
            _ => self.find(Damage::Other("a personal field that no record speaks of".into())),
        }
    }

    fn find(&mut self, damage: Damage) {
        if self.report.findings.len() < FINDINGS_MAX {
            self.report.findings.push(Finding { line: Some(self.line), damage });
        }
    }

    /// What was found.
    pub fn finish(mut self) -> Report {
        self.report.records = self.locator.len() as u64;
        self.report.checkpoints = self.checkpoints.len() as u64;
        self.report.newest = self.checkpoints.iter().max_by_key(|checkpoint| checkpoint.size).cloned();
        let claimed = self.header.as_ref().map(|header| header.records);
        let mut findings = self.locator.finish(&self.checkpoints);
        // In a damaged log this only says again that records are missing or changed.
        if findings.is_empty() {
            findings.append(&mut self.contributors);
        }
        if self.report.newest.is_none() {
            findings.push(Finding { line: None, damage: Damage::Other("there is no signed checkpoint".into()) });
        }
        match claimed {
            None => {
                findings.push(Finding { line: Some(1), damage: Damage::Other("the export has no beginning".into()) })
            }
            Some(claimed) if claimed != self.report.records && findings.is_empty() => {
                let problem = format!("the export claims {claimed} records and has {}", self.report.records);
                findings.push(Finding { line: Some(1), damage: Damage::Other(problem) });
            }
            Some(_) => {}
        }
        self.report.findings.append(&mut findings);
        self.report.findings.truncate(FINDINGS_MAX);
        self.report.findings.sort_by_key(|finding| finding.line.unwrap_or(u64::MAX));
        self.report
    }
}
