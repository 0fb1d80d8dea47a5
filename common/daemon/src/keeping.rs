//! The verbs that keep a state folder: its keys, its backups. The same on both daemons.
//!
//! They work on a folder that nobody has open. What a running aggregator can do for itself (a backup, an escrow copy) comes to
//! it over its socket as a [`KeepRequest`] and ends in [`keep`], too.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use starling_store::backup::{Repository, Verified};
use starling_store::{ESCROW_TTL_S, KeySource, Store, StoreError, recover, recovery_init, rotate};

use crate::{Exit, now_unix_s};

/// Backups that are kept when nothing else is said.
pub(crate) const KEEP: usize = 7;
pub(crate) const DAY_S: u64 = 24 * 3600;

/// Which daemon.
#[derive(Debug, Clone, Args)]
pub struct Which {
    /// The daemon's configuration file: it says where the state folder and its key are
    #[arg(long)]
    pub config: PathBuf,
}

/// `key …`.
#[derive(Debug, Subcommand)]
pub enum KeyVerb {
    /// Take a new master key and a new data key; the daemon must be stopped
    Rotate {
        /// The configuration names a new source: this file has the old master key
        #[arg(long, group = "old")]
        old_key_file: Option<PathBuf>,
        /// The same, for an old credential
        #[arg(long, group = "old")]
        old_credential: Option<String>,
        /// The same, for an old passphrase
        #[arg(long, group = "old")]
        old_passphrase_file: Option<PathBuf>,
        /// Which daemon
        #[command(flatten)]
        which: Which,
    },
    /// Write a copy of all keys that only the holder of the recovery key can open; keep it apart from the backups
    Escrow {
        /// The public half, recovery.pub
        #[arg(long)]
        to: PathBuf,
        /// The folder of escrow copies; those that have expired are destroyed
        #[arg(long)]
        out: PathBuf,
        /// How many days the copy lives; what is forgotten now is gone for good after that
        #[arg(long, default_value_t = ESCROW_TTL_S / DAY_S)]
        days: u64,
        /// Which daemon
        #[command(flatten)]
        which: Which,
    },
    /// Make a recovery key; its secret half goes to a safe
    RecoveryInit {
        /// The folder for recovery.key and recovery.pub
        #[arg(long)]
        out: PathBuf,
    },
}

/// `backup …`.
#[derive(Debug, Subcommand)]
pub enum BackupVerb {
    /// Back the state up, also while the aggregator runs
    Create {
        /// The folder of backups
        #[arg(long)]
        to: PathBuf,
        /// How many backups are kept
        #[arg(long, default_value_t = KEEP)]
        keep: usize,
        /// Which daemon
        #[command(flatten)]
        which: Which,
    },
    /// List the backups
    List {
        /// The folder of backups
        #[arg(long)]
        from: PathBuf,
    },
    /// Check every digest and restore each backup into a scratch folder. Exit code 5: something is damaged
    Verify {
        /// The folder of backups
        #[arg(long)]
        from: PathBuf,
        /// Which daemon; its keys open the backups. Without it digests alone are checked
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Bring a backup back into a state folder that has none; the daemon must be stopped
    Restore {
        /// The folder of backups
        #[arg(long)]
        from: PathBuf,
        /// Which backup; the newest that is whole when not given
        #[arg(long)]
        id: Option<String>,
        /// The folder of escrow copies, when the keys are lost too
        #[arg(long, requires = "recovery_key")]
        escrow: Option<PathBuf>,
        /// The secret half of the recovery key
        #[arg(long, requires = "escrow")]
        recovery_key: Option<PathBuf>,
        /// Which daemon
        #[command(flatten)]
        which: Which,
    },
}

/// What a daemon can do on an open store.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case", deny_unknown_fields)]
pub enum KeepRequest {
    /// `backup create`.
    Backup {
        /// The folder of backups, absolute.
        to: PathBuf,
        /// How many are kept.
        keep: usize,
    },
    /// `key escrow`.
    Escrow {
        /// The public half of the recovery key, absolute.
        to: PathBuf,
        /// The folder of copies, absolute.
        out: PathBuf,
        /// How many days the copy lives.
        days: u64,
    },
}

/// What a verb said and how it ended.
pub type Kept = Result<(Exit, String), StoreError>;

fn absolute(path: &Path) -> PathBuf {
    // Without a working folder there is nothing better than the path itself.
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Does what can be done on an open store, and says it in a line.
///
/// # Errors
/// The store's.
pub fn keep(store: &Store, request: &KeepRequest) -> Result<String, StoreError> {
    match request {
        KeepRequest::Backup { to, keep } => {
            let made = Repository::open(to)?.create(store, now_unix_s(), *keep)?;
            Ok(format!(
                "backup {}: {} files, {} bytes; {} files with {} bytes were new; {} older removed",
                made.manifest.id,
                made.manifest.entries().count(),
                made.manifest.bytes(),
                made.files_copied,
                made.bytes_copied,
                made.removed
            ))
        }
        KeepRequest::Escrow { to, out, days } => {
            let path = store.escrow(to, out, now_unix_s(), days.saturating_mul(DAY_S))?;
            Ok(format!("escrow copy {}, for {days} days", path.display()))
        }
    }
}

/// The configuration that a key verb needs.
pub fn config_of_key(verb: &KeyVerb) -> Option<&Path> {
    match verb {
        KeyVerb::Rotate { which, .. } | KeyVerb::Escrow { which, .. } => Some(&which.config),
        KeyVerb::RecoveryInit { .. } => None,
    }
}

/// The configuration that a backup verb needs.
pub fn config_of_backup(verb: &BackupVerb) -> Option<&Path> {
    match verb {
        BackupVerb::Create { which, .. } | BackupVerb::Restore { which, .. } => Some(&which.config),
        BackupVerb::Verify { config, .. } => config.as_deref(),
        BackupVerb::List { .. } => None,
    }
}

/// What a running daemon may do itself.
pub fn request_of_key(verb: &KeyVerb) -> Option<KeepRequest> {
    match verb {
        KeyVerb::Escrow { to, out, days, .. } => {
            Some(KeepRequest::Escrow { to: absolute(to), out: absolute(out), days: *days })
        }
        _ => None,
    }
}

/// What a running daemon may do itself.
pub fn request_of_backup(verb: &BackupVerb) -> Option<KeepRequest> {
    match verb {
        BackupVerb::Create { to, keep, .. } => Some(KeepRequest::Backup { to: absolute(to), keep: *keep }),
        _ => None,
    }
}

/// `key …` on a folder that nobody has open; `state` and its key come from the configuration, if the verb has one.
///
/// # Errors
/// The store's.
pub fn key(verb: &KeyVerb, state: Option<(&Path, &KeySource)>) -> Kept {
    let said = match (verb, state) {
        (KeyVerb::RecoveryInit { out }, _) => {
            let (secret, public) = recovery_init(out)?;
            format!("{}: to a safe, away from this machine\n{}: for `key escrow`", secret.display(), public.display())
        }
        (KeyVerb::Rotate { old_key_file, old_credential, old_passphrase_file, .. }, Some((folder, source))) => {
            let old = old_key_file.clone().map(KeySource::File);
            let old = old.or_else(|| old_credential.clone().map(KeySource::Credential));
            let old = old.or_else(|| old_passphrase_file.clone().map(KeySource::PassphraseFile));
            let done = rotate(folder, source, old.as_ref())?;
            format!("new master key; data key {}; {} device keys wrapped anew", done.generation, done.devices)
        }
        (KeyVerb::Escrow { .. }, Some((folder, source))) => {
            let request = request_of_key(verb).expect("an escrow is a request");
            keep(&Store::open(folder, source)?, &request)?
        }
        _ => unreachable!("`config_of_key` names a configuration for these verbs"),
    };
    Ok((Exit::Ok, said))
}

/// `backup …` on a folder that nobody has open.
///
/// # Errors
/// The store's.
pub fn backup(verb: &BackupVerb, state: Option<(&Path, &KeySource)>) -> Kept {
    match (verb, state) {
        (BackupVerb::Create { .. }, Some((folder, source))) => {
            let request = request_of_backup(verb).expect("a backup is a request");
            Ok((Exit::Ok, keep(&Store::open(folder, source)?, &request)?))
        }
        (BackupVerb::List { from }, _) => list(&Repository::open(from)?),
        (BackupVerb::Verify { from, .. }, state) => Ok(verified(&Repository::open(from)?.verify(state)?)),
        (BackupVerb::Restore { from, id, escrow, recovery_key, .. }, Some((folder, source))) => {
            let repository = Repository::open(from)?;
            if let (Some(escrow), Some(key)) = (escrow, recovery_key) {
                recover(escrow, key, folder, source, now_unix_s())?;
            }
            let done = repository.restore(id.as_deref(), folder, source)?;
            let mut said = String::new();
            for (id, faults) in &done.skipped {
                for fault in faults {
                    let _ = writeln!(said, "skipped {id}: {}: {}", fault.file.display(), fault.problem);
                }
            }
            let age_s = now_unix_s().saturating_sub(done.made_unix_s);
            let _ = write!(said, "restored {} ({} commits), made {age_s} s ago", done.id, done.commits);
            Ok((Exit::Ok, said))
        }
        _ => unreachable!("`config_of_backup` names a configuration for these verbs"),
    }
}

fn list(repository: &Repository) -> Kept {
    let mut said = String::new();
    for (id, manifest) in repository.list()? {
        let _ = match manifest {
            Ok(manifest) => writeln!(
                said,
                "{id}  {} files  {} bytes  {} commits",
                manifest.entries().count(),
                manifest.bytes(),
                manifest.commits
            ),
            Err(error) => writeln!(said, "{id}  damaged: {error}"),
        };
    }
    Ok((Exit::Ok, said.trim_end().to_owned()))
}

fn verified(all: &[Verified]) -> (Exit, String) {
    let mut said = String::new();
    for one in all {
        for fault in &one.faults {
            let _ = writeln!(said, "{}  DAMAGED  {}: {}", one.id, fault.file.display(), fault.problem);
        }
        if one.faults.is_empty() {
            let how = if one.restored { "restored and read" } else { "digests checked, nothing opened" };
            let _ = writeln!(said, "{}  good  {how}", one.id);
        }
    }
    let good = all.iter().all(|one| one.faults.is_empty());
    (if good { Exit::Ok } else { Exit::Missed }, said.trim_end().to_owned())
}
