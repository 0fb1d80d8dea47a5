//! What a running client does with its own state folder when its owner asks: a backup, an escrow copy. The folder is locked while it runs, so that
//! the command asks over `keep.sock` in it: one line of JSON, one line back.
//!
//! ```text
//! command ── {"what":"backup","to":"/srv/backups","keep":7} ──▶ client
//!         ◀── {"ok":"backup …"} or {"error":"…"} ──────────────
//! ```

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use starling_daemon::keeping::{KeepRequest, keep};
use starling_store::Store;
use tokio::net::UnixListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use crate::learner::with_causes;
use crate::local;

/// Bytes of a request, and of an answer: two paths of the longest length, written as JSON.
const LINE_BYTES_MAX: u64 = 64 << 10;

/// How long the asker may take to say its line, or to take the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the work may take: a backup copies all that changed.
const ANSWER_PATIENCE: Duration = Duration::from_secs(600);

/// How long to pause after the system could not accept a connection: it has no descriptors left, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Where the client of a state folder listens.
pub(crate) fn socket(state_dir: &Path) -> PathBuf {
    state_dir.join("keep.sock")
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Answer {
    Ok(String),
    Error(String),
}

/// The listening socket; its file goes with it.
#[derive(Debug)]
pub(crate) struct Door {
    accepting: JoinHandle<()>,
    path: PathBuf,
}

impl Door {
    /// Listens, within a tokio runtime.
    ///
    /// # Errors
    /// What the system said; a path has at most 107 bytes.
    pub(crate) fn open(state_dir: &Path, store: &Arc<Store>) -> io::Result<Self> {
        let path = socket(state_dir);
        let accepting = tokio::spawn(accept(local::listen(&path)?, Arc::downgrade(store)));
        Ok(Self { accepting, path })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.accepting.abort();
        // Best effort: a left-over file is replaced at the next start.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// One at a time, on a thread of its own: training and the network do not wait for it, and who comes second waits.
async fn accept(listener: UnixListener, store: Weak<Store>) {
    let place = Arc::new(Semaphore::new(1));
    loop {
        let Ok(turn) = Arc::clone(&place).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) if local::is_owner(&stream) => stream,
            Ok(_) => continue,
            Err(error) => {
                tracing::warn!(%error, "the owner's socket could not accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(stream) = stream.into_std() else { continue };
        let store = store.clone();
        let work = move || {
            if let Err(error) = serve(stream, &store, turn) {
                tracing::warn!(%error, "an owner's request failed");
            }
        };
        if let Err(error) = std::thread::Builder::new().name("keep".into()).spawn(work) {
            tracing::warn!(%error, "no thread for an owner's request");
        }
    }
}

fn serve(stream: StdUnixStream, store: &Weak<Store>, turn: OwnedSemaphorePermit) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    let mut read = BufReader::new(&stream);
    (&mut read).take(LINE_BYTES_MAX).read_line(&mut line)?;
    let answer = match (serde_json::from_str::<KeepRequest>(&line), store.upgrade()) {
        (Err(error), _) => Answer::Error(format!("the request is not understood: {error}")),
        (Ok(_), None) => Answer::Error("the client is stopping; ask again when it has stopped".into()),
        (Ok(request), Some(store)) => match keep(&store, &request) {
            Ok(said) => Answer::Ok(said),
            Err(error) => Answer::Error(with_causes(&error)),
        },
    };
    drop(turn);
    let line = serde_json::to_string(&answer).map_err(io::Error::other)?;
    (&stream).write_all(format!("{line}\n").as_bytes())
}

/// Why a running client did not do it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// It hung up, or was silent for too long.
    #[error("the client's answer could not be read")]
    Answer(#[from] io::Error),
    /// It said no.
    #[error("{0}")]
    Refused(String),
}

/// Asks the client that has this state folder open; `None` where none answers.
///
/// # Errors
/// When it says no, or nothing.
pub(crate) fn ask(state_dir: &Path, request: &KeepRequest) -> Result<Option<String>, AskError> {
    let Ok(mut stream) = StdUnixStream::connect(socket(state_dir)) else { return Ok(None) };
    stream.set_read_timeout(Some(ANSWER_PATIENCE))?;
    let request = serde_json::to_string(request).map_err(io::Error::other)?;
    stream.write_all(format!("{request}\n").as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream).take(LINE_BYTES_MAX).read_line(&mut line)?;
    match serde_json::from_str(&line).map_err(io::Error::other)? {
        Answer::Ok(said) => Ok(Some(said)),
        Answer::Error(text) => Err(AskError::Refused(text)),
    }
}
