//! `starling-client wipe`: the device forgets all that it has learnt and who it was. Purging a package does the same.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use starling_store::{KeySource, StoreError, Wiped, destroy_file, wipe};

use crate::config::ClientConfig;

/// How long a running client may take to stop.
const STOP_WAIT: Duration = Duration::from_secs(30);

/// How often it is looked for.
const STOP_LOOK: Duration = Duration::from_millis(50);

/// Stops the client that has the state folder open, destroys keys and state, and says what it did, a line each.
pub(crate) fn execute(config: &ClientConfig) -> Result<Vec<String>, StoreError> {
    let mut said = Vec::new();
    let source = config.key_source();
    let done = wipe_stopped(&config.state_dir, &source, &mut said)?;
    match (&source, done.master_key) {
        (KeySource::File(key), true) => said.push(format!("destroyed the master key {}", key.display())),
        (KeySource::File(_), false) => {}
        (KeySource::Credential(name), _) => {
            said.push(format!("the credential {name:?} is the system's: remove it there"))
        }
        (KeySource::PassphraseFile(path), _) => {
            said.push(format!("the passphrase in {} is yours: it was left", path.display()))
        }
    }
    if done.key_files > 0 {
        said.push(format!("destroyed {} files of keys that it sealed", done.key_files));
    }
    if done.folder {
        said.push(format!("removed {}: models, releases, residuals, receipts", config.state_dir.display()));
    }
    let next = |path: &Path| {
        let mut name = path.as_os_str().to_owned();
        name.push(".next");
        name.into()
    };
    let key = &config.tls.key;
    for path in [key.clone(), next(key), config.tls.certificate.clone(), next(&config.tls.certificate)] {
        if destroy_file(&path)? {
            said.push(format!("destroyed {}", path.display()));
        }
    }
    if said.is_empty() {
        said.push("there was nothing left to destroy".to_owned());
    }
    said.push("left as they are: your data, this configuration, backups (nothing opens them now, but escrow copies with the recovery key)".to_owned());
    said.push(
        "the aggregator still knows the device: its operator forgets it with `starling-aggregator device forget`"
            .to_owned(),
    );
    Ok(said)
}

/// The folder is locked from the moment that its client has let go of it, so a service manager that starts the client again comes too late.
fn wipe_stopped(state: &Path, source: &KeySource, said: &mut Vec<String>) -> Result<Wiped, StoreError> {
    let begun = Instant::now();
    let mut stopped = None;
    loop {
        match wipe(state, source) {
            Err(StoreError::InUse(_)) if begun.elapsed() < STOP_WAIT => {}
            done => return done,
        }
        let holder = holder(&state.join("lock"));
        if let Some(pid) = holder.filter(|_| holder != stopped) {
            stop(pid);
            said.push(format!("stopped the client, process {pid}"));
            stopped = holder;
        }
        thread::sleep(STOP_LOOK);
    }
}

/// The process that holds the lock: of the kernel's list, not of a file that may be old.
fn holder(lock: &Path) -> Option<i32> {
    let inode = fs::metadata(lock).ok()?.ino();
    let locks = fs::read_to_string("/proc/locks").ok()?;
    holder_in(&locks, inode)
}

/// proc(5): `1: FLOCK ADVISORY WRITE 4711 fe:00:1234 0 EOF`. The device's numbers are left out: an inode's number and a lock of this kind are enough
/// to know a process that is asked to stop, and never killed.
fn holder_in(locks: &str, inode: u64) -> Option<i32> {
    let line = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let kind = words.next()?;
        let pid = words.nth(2)?;
        let of = words.next()?.rsplit(':').next()?;
        (kind == "FLOCK" && of.parse() == Ok(inode)).then(|| pid.parse().ok())?
    };
    locks.lines().find_map(line)
}

fn stop(pid: i32) {
    #[allow(unsafe_code, reason = "the standard library cannot send a signal")]
    // SAFETY: the call takes two numbers; a process that has ended meanwhile is its only failure.
    unsafe {
        libc::kill(pid, libc::SIGTERM);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lock_is_found_among_others() {
        let locks = "1: POSIX  ADVISORY  WRITE 10 fe:00:77 0 EOF\n2: FLOCK  ADVISORY  WRITE 4711 fe:00:77 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 5 fe:00:78 0 EOF\n2: -> FLOCK ADVISORY WRITE 6 fe:00:79 0 EOF\n";
        assert_eq!(holder_in(locks, 77), Some(4711));
        assert_eq!(holder_in(locks, 78), Some(5));
        assert_eq!(holder_in(locks, 79), None, "one that waits holds nothing");
        assert_eq!(holder_in("", 1), None);
    }
}
