//! Receipts: proof, kept by the device, that its updates are in the aggregator's audit log.
//!
//! After each update that became part of a version the device asks for its record and the way from it to a signed root. It checks both,
//! and that the log goes on from the one it saw last: an aggregator cannot show this device another past than it showed before. The log's
//! key is the one in the configuration (`[audit] key`), or, without one, the first that an aggregator with that certificate showed.
//!
//! They lie in `receipts.jsonl` in the state folder, a line each, readable while the client runs; the last line's checkpoint is the one that
//! the next receipt has to go on from. Nothing but this file grows, and it does so up to `RECEIPTS_MAX`.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use starling_audit::receipt::{ReceiptError, Wanted, check};
use starling_audit::{Checkpoint, KeyError, Note, VerifierKey};
use starling_daemon::now_unix_s;
use starling_wire::{Address, DeviceId, Digest, Receipt, RunId, WantReceipt};

/// The file's name in the state folder.
const FILE: &str = "receipts.jsonl";

/// Receipts that are kept; the older half goes when there are as many. At 2 KiB each, 4 MiB.
const RECEIPTS_MAX: usize = 2000;

/// Receipts that may be waited for: one a run, and some that an absent aggregator still owes.
const WANTED_MAX: usize = 64;

/// Why a receipt is not kept.
#[derive(Debug, thiserror::Error)]
pub enum ReceiptsError {
    /// It proves nothing.
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    /// The log's key is no key.
    #[error("the audit log's key")]
    Key(#[from] KeyError),
    /// Another key than the one known.
    #[error(
        "the audit log is signed with {found}, and this device knows it by {known}; if the operator replaced the key, put the new one into [audit] key"
    )]
    OtherKey {
        /// The key that came.
        found: String,
        /// The key that is configured or was seen first.
        known: String,
    },
    /// A key for another aggregator's log.
    #[error("the log is called {found}, expected {expected}")]
    OtherLog {
        /// The name that came.
        found: String,
        /// That of the aggregator on the connection.
        expected: String,
    },
    /// The file.
    #[error("{}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A receipt as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// The run.
    pub run: u32,
    /// The round.
    pub round: u32,
    /// When it came, in seconds since 1970 by this device's clock.
    pub received_unix_s: u64,
    /// The log's public key.
    pub key: String,
    /// The record in the log.
    pub record: String,
    /// The hashes from the record to the root, in hexadecimal.
    pub inclusion: Vec<String>,
    /// The signed checkpoint.
    pub checkpoint: String,
}

/// A receipt that has come, with what it is checked against.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) receipt: Receipt,
    pub(crate) wanted: Wanted,
    /// The key in the configuration.
    pub(crate) pinned: Option<String>,
    /// The aggregator on the connection.
    pub(crate) aggregator: DeviceId,
    pub(crate) state_dir: PathBuf,
}

impl Arrived {
    /// Checks it and writes it down. Blocks on the disk. Returns the records of the log under it.
    pub(crate) fn keep(self) -> Result<u64, ReceiptsError> {
        let path = self.state_dir.join(FILE);
        let key: VerifierKey = self.receipt.key.parse()?;
        let last = check_log(&key, &self.receipt.key, self.aggregator, self.pinned, &self.state_dir)?;
        let held = last.and_then(|last| Note::parse(&last.checkpoint).ok()?.text().parse::<Checkpoint>().ok());
        let (_, checkpoint) = check(&self.receipt, &self.wanted, &key, held.as_ref())?;
        let kept = Kept {
            run: self.wanted.run,
            round: self.wanted.round,
            received_unix_s: now_unix_s(),
            key: self.receipt.key,
            record: String::from_utf8_lossy(&self.receipt.record).into_owned(),
            inclusion: self.receipt.inclusion.iter().map(Digest::to_string).collect(),
            checkpoint: self.receipt.checkpoint,
        };
        append(&path, &kept)?;
        Ok(checkpoint.size)
    }
}

/// Checks that `key`, which is written as `text`, is the one of the aggregator's log: the one in the configuration, else that of the receipts that are
/// there; the first one that is seen is believed. Returns the last receipt of this log.
pub(crate) fn check_log(
    key: &VerifierKey,
    text: &str,
    aggregator: DeviceId,
    pinned: Option<String>,
    state_dir: &Path,
) -> Result<Option<Kept>, ReceiptsError> {
    let expected = format!("starling-audit/{aggregator}");
    if key.name() != expected {
        return Err(ReceiptsError::OtherLog { found: key.name().to_owned(), expected });
    }
    // A device that was moved to another aggregator begins anew with that one's log.
    let last = read(&state_dir.join(FILE))?.pop();
    let last = last.filter(|last| last.key.split('+').next() == Some(key.name()));
    match pinned.or_else(|| last.as_ref().map(|last| last.key.clone())) {
        Some(known) if known != text => Err(ReceiptsError::OtherKey { found: text.to_owned(), known }),
        _ => Ok(last),
    }
}

/// The receipts of a state folder, oldest first. A line that a crash cut is passed over.
///
/// # Errors
/// [`ReceiptsError::File`].
pub fn all(state_dir: &Path) -> Result<Vec<Kept>, ReceiptsError> {
    read(&state_dir.join(FILE))
}

/// Checks again what was checked when it came: for a reader who trusts the key, but not the file.
///
/// # Errors
/// [`ReceiptsError`] says which part does not hold.
pub fn check_again(kept: &Kept, device: DeviceId) -> Result<Checkpoint, ReceiptsError> {
    let inclusion = kept.inclusion.iter().filter_map(|hash| hash.parse().ok()).collect();
    let receipt = Receipt {
        run: RunId(kept.run),
        round: kept.round,
        key: kept.key.clone(),
        record: kept.record.clone().into_bytes(),
        inclusion,
        checkpoint: kept.checkpoint.clone(),
        consistency: Vec::new(),
    };
    let wanted = Wanted { device, run: kept.run, round: kept.round, digest: None };
    Ok(check(&receipt, &wanted, &kept.key.parse()?, None)?.1)
}

fn read(path: &Path) -> Result<Vec<Kept>, ReceiptsError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(ReceiptsError::File { path: path.to_owned(), source }),
    }
}

fn append(path: &Path, kept: &Kept) -> Result<(), ReceiptsError> {
    let failed = |source| ReceiptsError::File { path: path.to_owned(), source };
    let line = |kept: &Kept| serde_json::to_string(kept).expect("it holds numbers and texts only") + "\n";
    let mut all = read(path)?;
    if all.len() < RECEIPTS_MAX {
        let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(failed)?;
        return file.write_all(line(kept).as_bytes()).and_then(|()| file.sync_data()).map_err(failed);
    }
    all.drain(..RECEIPTS_MAX / 2);
    let text: String = all.iter().chain([kept]).map(line).collect();
    let unfinished = path.with_extension("tmp");
    let write = || {
        let mut file = File::create(&unfinished)?;
        file.write_all(text.as_bytes())?;
        file.sync_data()?;
        fs::rename(&unfinished, path)
    };
    write().map_err(failed)
}

/// What the agent still wants receipts for. It asks for one at a time.
#[derive(Debug, Default)]
pub(crate) struct Wants {
    /// The digest of the update that was sent last in each run.
    sent: BTreeMap<RunId, (u32, Digest)>,
    queue: VecDeque<(RunId, u32, Option<Digest>)>,
    asked: bool,
    /// Records of the log at the last receipt.
    held: u64,
}

impl Wants {
    /// Goes on from the receipts of an earlier process.
    pub(crate) fn open(state_dir: &Path) -> Self {
        let last = all(state_dir).ok().and_then(|mut all| all.pop());
        let note = last.and_then(|last| Note::parse(&last.checkpoint).ok());
        let checkpoint = note.and_then(|note| note.text().parse::<Checkpoint>().ok());
        Self { held: checkpoint.map_or(0, |checkpoint| checkpoint.size), ..Self::default() }
    }

    /// An update is on its way.
    pub(crate) fn sent(&mut self, address: &Address, digest: Digest) {
        self.sent.insert(address.run, (address.round, digest));
    }

    /// It is in a version.
    pub(crate) fn committed(&mut self, address: &Address) {
        let sent = self.sent.get(&address.run).filter(|(round, _)| *round == address.round);
        if self.queue.len() < WANTED_MAX {
            self.queue.push_back((address.run, address.round, sent.map(|(_, digest)| *digest)));
        }
    }

    /// The run is over.
    pub(crate) fn forget(&mut self, run: RunId) {
        self.sent.remove(&run);
    }

    /// A new connection: what was asked on the old one is asked again.
    pub(crate) fn connected(&mut self) {
        self.asked = false;
    }

    /// What to ask now.
    pub(crate) fn poll(&mut self) -> Option<WantReceipt> {
        let (run, round, _) = *self.queue.front().filter(|_| !self.asked)?;
        self.asked = true;
        Some(WantReceipt { run, round, held: self.held })
    }

    /// An answer for this round has come: what was wanted, if it was asked for.
    pub(crate) fn answered(&mut self, device: DeviceId, run: RunId, round: u32) -> Option<Wanted> {
        let (_, _, digest) =
            self.queue.front().filter(|_| self.asked).filter(|want| (want.0, want.1) == (run, round))?;
        Some(Wanted { device, run: run.0, round, digest: *digest })
    }

    /// The answer was dealt with; the log has `held` records now, if it was good.
    pub(crate) fn done(&mut self, held: Option<u64>) {
        self.queue.pop_front();
        self.asked = false;
        self.held = held.unwrap_or(self.held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_audit::{About, Action, Algorithm, Chain, Entry, SigningKey, Who, consistency_proof, inclusion_proof};
    use starling_wire::Role;

    const AGGREGATOR: DeviceId = DeviceId([7; 16]);
    const DEVICE: DeviceId = DeviceId([3; 16]);

    struct Log {
        key: SigningKey,
        chain: Chain,
        leaves: Vec<Digest>,
        lines: Vec<Vec<u8>>,
    }

    impl Log {
        fn new(seed: u8) -> Self {
            let name = format!("starling-audit/{AGGREGATOR}");
            let key = SigningKey::from_seed(&name, Algorithm::Log, [seed; 32].into()).expect("a good name");
            Self { key, chain: Chain::default(), leaves: Vec::new(), lines: Vec::new() }
        }

        fn round(&mut self, round: u32) {
            let digest = Some(Digest([u8::try_from(round).expect("small"); 32]));
            let about = About { run: Some(1), round: Some(round), attempt: Some(1), digest, ..About::default() };
            let who = Who::Certificate(Role::Device, DEVICE);
            let sealed = self.chain.append(0, Entry::done(who, Action::UpdateAdmitted, about)).expect("a record");
            self.leaves.push(sealed.leaf);
            self.lines.push(sealed.line);
        }

        fn arrived(&self, state_dir: &Path, round: u32, held: u64) -> Arrived {
            let size = self.leaves.len() as u64;
            let origin = self.key.verifier().name().to_owned();
            let checkpoint = Checkpoint { origin, size, root: self.chain.frontier().root() };
            let at = round as usize - 1;
            let leaves = self.leaves.as_slice();
            let receipt = Receipt {
                run: RunId(1),
                round,
                key: self.key.verifier().to_string(),
                record: self.lines[at].clone(),
                inclusion: inclusion_proof(leaves, at as u64, size).expect("in memory"),
                checkpoint: self.key.sign(&checkpoint.to_string()).to_string(),
                consistency: consistency_proof(leaves, held, size).expect("in memory"),
            };
            let digest = Some(Digest([u8::try_from(round).expect("small"); 32]));
            let wanted = Wanted { device: DEVICE, run: 1, round, digest };
            Arrived { receipt, wanted, pinned: None, aggregator: AGGREGATOR, state_dir: state_dir.to_owned() }
        }
    }

    #[test]
    fn receipts_are_checked_kept_and_checked_again() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut log = Log::new(1);
        (1..=3).for_each(|round| log.round(round));
        assert_eq!(log.arrived(folder.path(), 2, 0).keep().expect("it holds"), 3);
        log.round(4);
        assert_eq!(log.arrived(folder.path(), 4, 3).keep().expect("the log goes on"), 4);
        let kept = all(folder.path()).expect("readable");
        assert_eq!(kept.iter().map(|kept| kept.round).collect::<Vec<_>>(), [2, 4]);
        kept.iter().for_each(|kept| drop(check_again(kept, DEVICE).expect("it holds still")));
        assert!(check_again(&kept[0], DeviceId([9; 16])).is_err(), "it is this device's alone");
        assert_eq!(Wants::open(folder.path()).held, 4);
    }

    #[test]
    fn another_past_another_update_and_another_key_are_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (mut log, mut other) = (Log::new(1), Log::new(1));
        log.round(1);
        log.arrived(folder.path(), 1, 0).keep().expect("it holds");
        // The same key signs a log in which another record came first.
        other.round(2);
        other.round(2);
        let error = other.arrived(folder.path(), 2, 1).keep().expect_err("another past");
        assert!(matches!(error, ReceiptsError::Receipt(ReceiptError::Consistency(_))), "{error}");
        let mut swapped = log.arrived(folder.path(), 1, 1);
        swapped.wanted.digest = Some(Digest([99; 32]));
        let error = swapped.keep().expect_err("another update");
        assert!(matches!(error, ReceiptsError::Receipt(ReceiptError::Other("the digest of the update"))), "{error}");
        let mut forged = Log::new(2);
        forged.round(1);
        let error = forged.arrived(folder.path(), 1, 1).keep().expect_err("another key");
        assert!(matches!(error, ReceiptsError::OtherKey { .. }), "{error}");
        let mut elsewhere = log.arrived(folder.path(), 1, 1);
        elsewhere.aggregator = DeviceId([8; 16]);
        assert!(matches!(elsewhere.keep(), Err(ReceiptsError::OtherLog { .. })));
        assert_eq!(all(folder.path()).expect("readable").len(), 1, "nothing of it was kept");
    }

    #[test]
    fn inv6_one_is_asked_for_at_a_time_and_the_queue_is_bounded() {
        let mut wants = Wants::default();
        let address = |round| Address { task: starling_wire::TaskId([1; 16]), run: RunId(1), round, attempt: 1 };
        (1..1000).for_each(|round| wants.committed(&address(round)));
        assert_eq!(wants.queue.len(), WANTED_MAX);
        assert_eq!(wants.poll().map(|want| want.round), Some(1));
        assert_eq!(wants.poll(), None, "one at a time");
        assert_eq!(wants.answered(DEVICE, RunId(1), 2), None, "nobody asked");
        assert!(wants.answered(DEVICE, RunId(1), 1).is_some());
        wants.done(Some(5));
        assert_eq!(wants.poll().map(|want| (want.round, want.held)), Some((2, 5)));
        wants.connected();
        assert_eq!(wants.poll().map(|want| want.round), Some(2), "asked again on the next connection");
    }
}
