//! Backups that a daemon makes of its own accord, on a thread of its own: every so often, and on the aggregator every so many rounds and after
//! each decision that must not be lost. With each of them comes an escrow copy of the keys, without which a backup opens for nobody.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use starling_store::backup::{BackupError, Repository};
use starling_store::{ESCROW_TTL_S, Store, StoreError};

use crate::keeping::{DAY_S, KEEP, KeepRequest, keep};
use crate::now_unix_s;

/// How long a backup that has failed is waited with, in seconds, unless the schedule is denser.
const RETRY_S: u64 = 600;

/// The same where somebody lists or verifies the backups just now.
const IN_USE_RETRY_S: u64 = 5;

/// The longest sleep: the clock may be set meanwhile.
const LOOK_S: u64 = 60;

/// `[backup]` of a daemon's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupSection {
    /// The folder of backups; better on another disk.
    pub to: PathBuf,
    /// Seconds between two backups. Default: a day.
    #[serde(default = "day_s")]
    pub every_s: u64,
    /// On the aggregator: also after every so many committed rounds; 0, the default, for never. With 1 a lost disk costs a round.
    #[serde(default)]
    pub every_rounds: u64,
    /// How many backups are kept. Default 7.
    #[serde(default = "keep_default")]
    pub keep: usize,
    /// Copies of the keys that go with the backups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub escrow: Option<EscrowSection>,
}

/// `[backup.escrow]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EscrowSection {
    /// The public half of the recovery key, recovery.pub.
    pub recovery_pub: PathBuf,
    /// The folder of escrow copies, apart from the backups.
    pub to: PathBuf,
    /// How many days a copy lives. What is forgotten is gone for good after that. Default 7.
    #[serde(default = "escrow_days")]
    pub days: u64,
}

fn day_s() -> u64 {
    DAY_S
}

fn keep_default() -> usize {
    KEEP
}

fn escrow_days() -> u64 {
    ESCROW_TTL_S / DAY_S
}

impl BackupSection {
    /// With relative paths starting at `base`.
    pub fn from_folder(mut self, base: &Path) -> Self {
        self.to = base.join(self.to);
        if let Some(escrow) = &mut self.escrow {
            escrow.to = base.join(&escrow.to);
            escrow.recovery_pub = base.join(&escrow.recovery_pub);
        }
        self
    }

    /// What is wrong with the values, if anything is: the message names the key.
    pub fn problem(&self) -> Option<&'static str> {
        let within = |escrow: &EscrowSection| escrow.to.starts_with(&self.to) || self.to.starts_with(&escrow.to);
        let copies = self.escrow.as_ref();
        [
            (self.every_s == 0, "backup.every_s = 0: expected a number of seconds"),
            (self.keep == 0, "backup.keep = 0: expected how many backups are kept, 1 at least"),
            (copies.is_some_and(within), "backup.escrow.to: keys have to lie apart from the backups that they open"),
            (copies.is_some_and(|copies| copies.days == 0), "backup.escrow.days = 0: a copy would expire at once"),
        ]
        .into_iter()
        .find_map(|(wrong, what)| wrong.then_some(what))
    }
}

/// The thread's other end. It ends when this is dropped; what it is doing then, it leaves unfinished, which the next start clears.
pub struct Schedule {
    rounds: Arc<AtomicU64>,
    decided: Arc<AtomicBool>,
    wake: SyncSender<()>,
}

impl Schedule {
    /// Begins. `made` is called after each backup.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn start(
        store: Arc<Store>,
        section: BackupSection,
        made: impl FnMut() + Send + 'static,
    ) -> std::io::Result<Self> {
        // One word is enough: the thread looks at the counter.
        let (wake, woken) = sync_channel(1);
        let rounds = Arc::new(AtomicU64::new(0));
        let decided = Arc::new(AtomicBool::new(false));
        let mut thread = Thread {
            store,
            section,
            rounds: Arc::clone(&rounds),
            rounds_saved: 0,
            decided: Arc::clone(&decided),
            last_decided: None,
            made,
        };
        std::thread::Builder::new().name("backup".into()).spawn(move || thread.work(&woken))?;
        Ok(Self { rounds, decided, wake })
    }

    /// Something is durable now that no restored backup may lack, a revocation: one is made at once. It takes the place of the last one that was
    /// made for that reason, so that many decisions in a row do not push the regular ones out.
    pub fn decided(&self) {
        self.decided.store(true, Ordering::SeqCst);
        // A word that waits already says the same.
        let _ = self.wake.try_send(());
    }

    /// A round was committed.
    pub fn round(&self) {
        self.rounds.fetch_add(1, Ordering::SeqCst);
        // A word that waits already says the same.
        let _ = self.wake.try_send(());
    }
}

struct Thread<F> {
    store: Arc<Store>,
    section: BackupSection,
    rounds: Arc<AtomicU64>,
    rounds_saved: u64,
    decided: Arc<AtomicBool>,
    /// The newest backup that was made because of a decision.
    last_decided: Option<String>,
    made: F,
}

impl<F: FnMut()> Thread<F> {
    fn work(&mut self, woken: &Receiver<()>) {
        let mut due_s = self.first_due_s();
        loop {
            let rounds = self.rounds.load(Ordering::SeqCst);
            let every = self.section.every_rounds;
            let now_s = now_unix_s();
            let regular = now_s >= due_s || every > 0 && rounds - self.rounds_saved >= every;
            // Read before the backup: what is decided while it is made comes with the next one.
            let decided = self.decided.swap(false, Ordering::SeqCst);
            if regular || decided {
                match if regular { self.back_up() } else { self.back_decision_up() } {
                    Ok(said) => {
                        tracing::info!(said, "the state is backed up");
                        (self.made)();
                        if regular {
                            due_s = now_s.saturating_add(self.section.every_s);
                        }
                    }
                    Err(error) => {
                        let problem = with_cause(&error);
                        tracing::error!(problem, "the state could not be backed up");
                        let again_s = if is_in_use(&error) { IN_USE_RETRY_S } else { RETRY_S };
                        due_s = now_s.saturating_add(self.section.every_s.min(again_s));
                    }
                }
                if regular {
                    self.rounds_saved = rounds;
                }
                continue;
            }
            match woken.recv_timeout(Duration::from_secs((due_s - now_s).min(LOOK_S))) {
                Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// After a restart the last backup counts.
    fn first_due_s(&self) -> u64 {
        let newest = Repository::open(&self.section.to).and_then(|repository| repository.list()).ok();
        let manifests = newest.into_iter().flatten().filter_map(|(_, manifest)| manifest.ok());
        manifests.map(|manifest| manifest.made_unix_s.saturating_add(self.section.every_s)).max().unwrap_or(0)
    }

    fn back_up(&self) -> Result<String, StoreError> {
        self.escrow()?;
        let BackupSection { to, keep: count, .. } = &self.section;
        keep(&self.store, &KeepRequest::Backup { to: to.clone(), keep: *count })
    }

    fn back_decision_up(&mut self) -> Result<String, StoreError> {
        self.escrow()?;
        let repository = Repository::open(&self.section.to)?;
        let id = repository.create(&self.store, now_unix_s(), usize::MAX)?.manifest.id;
        let said = format!("backup {id}, after a decision");
        match self.last_decided.replace(id.clone()) {
            Some(before) if before != id => repository.remove(&before)?,
            _ => {}
        }
        Ok(said)
    }

    /// The keys first: a backup is never newer than all copies of the keys that it needs.
    fn escrow(&self) -> Result<(), StoreError> {
        let Some(EscrowSection { recovery_pub, to, days }) = &self.section.escrow else { return Ok(()) };
        let request = KeepRequest::Escrow { to: recovery_pub.clone(), out: to.clone(), days: *days };
        keep(&self.store, &request).map(|_| ())
    }
}

fn is_in_use(error: &StoreError) -> bool {
    matches!(error, StoreError::Backup(BackupError::InUse(_)))
}

fn with_cause(error: &StoreError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use starling_store::KeySource;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// The repository at `path`. Another test of this process may be starting a program: until it is one, the child holds every lock
    /// that is open here.
    fn opened(path: &Path) -> Repository {
        let begun = std::time::Instant::now();
        loop {
            match Repository::open(path) {
                Err(error) if is_in_use(&error) && begun.elapsed() < PATIENCE => std::thread::yield_now(),
                repository => return repository.expect("opened"),
            }
        }
    }

    fn section(folder: &Path, every_s: u64, every_rounds: u64) -> BackupSection {
        BackupSection { to: folder.join("backups"), every_s, every_rounds, keep: 2, escrow: None }
    }

    fn open(folder: &Path) -> Arc<Store> {
        let state = folder.join("state");
        Arc::new(Store::open(&state, &KeySource::beside(&state)).expect("a store"))
    }

    #[test]
    fn a_first_backup_is_made_at_once_a_later_one_after_rounds_and_old_ones_go() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = open(folder.path());
        let section = section(folder.path(), 3_600, 2);
        let (made, news) = channel();
        let tell = move || {
            // The test may be over.
            let _ = made.send(());
        };
        let schedule = Schedule::start(Arc::clone(&store), section.clone(), tell).expect("begun");
        news.recv_timeout(PATIENCE).expect("there was none");
        let list = || opened(&section.to).list().expect("listed").len();
        assert_eq!(list(), 1);
        for _ in 0..3 {
            store.next_epoch().expect("a commit: each backup has a name of its own");
            schedule.round();
            schedule.round();
            news.recv_timeout(PATIENCE).expect("two rounds");
        }
        assert_eq!(list(), 2, "as many as are kept");
        drop(schedule);
        assert!(news.recv_timeout(PATIENCE).is_err(), "the thread ends");
    }

    #[test]
    fn each_decision_is_backed_up_at_once_and_no_regular_backup_goes_for_it() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = open(folder.path());
        let section = section(folder.path(), 3_600, 0);
        let (made, news) = channel();
        let tell = move || {
            // The test may be over.
            let _ = made.send(());
        };
        let schedule = Schedule::start(Arc::clone(&store), section.clone(), tell).expect("begun");
        let ids = || -> Vec<String> {
            let listed = opened(&section.to).list().expect("listed");
            listed.into_iter().map(|(id, _)| id).collect()
        };
        news.recv_timeout(PATIENCE).expect("the first");
        let regular = ids();
        let mut last = String::new();
        for _ in 0..4 {
            store.next_epoch().expect("a commit: each backup has a name of its own");
            schedule.decided();
            news.recv_timeout(PATIENCE).expect("a decision");
            let now = ids();
            assert_eq!((now.len(), &now[0]), (2, &regular[0]), "the regular one, and the newest decision");
            assert_ne!(now[1], last);
            last.clone_from(&now[1]);
        }
        let faults = opened(&section.to).verify(None).expect("read");
        assert!(faults.iter().all(|one| one.faults.is_empty()), "what the others need stays");
    }

    #[test]
    fn after_a_restart_the_last_backup_counts() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = open(folder.path());
        let section = section(folder.path(), 3_600, 0);
        let request = KeepRequest::Backup { to: section.to.clone(), keep: 2 };
        keep(&store, &request).expect("made");
        let thread = Thread {
            store,
            section,
            rounds: Arc::default(),
            rounds_saved: 0,
            decided: Arc::default(),
            last_decided: None,
            made: || (),
        };
        let due_s = thread.first_due_s();
        assert!((3_590..=3_600).contains(&(due_s - now_unix_s())), "{due_s}");
    }

    #[test]
    fn values_that_protect_nothing_are_refused_by_name() {
        let good = section(Path::new("/srv"), 60, 0);
        assert_eq!(good.problem(), None);
        let copies = |to: &str, days| {
            let escrow = EscrowSection { recovery_pub: "/r.pub".into(), to: to.into(), days };
            BackupSection { escrow: Some(escrow), ..good.clone() }
        };
        assert_eq!(copies("/srv/escrow", 7).problem(), None);
        for (wrong, key) in [
            (BackupSection { every_s: 0, ..good.clone() }, "every_s"),
            (BackupSection { keep: 0, ..good.clone() }, "keep"),
            (copies("/srv/backups/keys", 7), "escrow.to"),
            (copies("/srv/escrow", 0), "escrow.days"),
        ] {
            assert!(wrong.problem().is_some_and(|problem| problem.contains(key)), "{wrong:?}");
        }
    }
}
