//! The operator's local socket: one line of JSON in, one line of JSON out, and a file where a verb has one.
//!
//! ```text
//! operator                                         daemon
//!   ├─ {"verb": …}                              ─────▶│
//!   │◀────────── {"ok": …} or {"error": "…"} ─────────┤
//!
//!   ├─ {"verb": "run-start", "weights_bytes": N} ────▶│ N is compared with what the task's network takes
//!   │◀────────── {"send": N} or {"error": "…"} ───────┤
//!   ├═ N bytes ══════════════════════════════════════▶│
//!   │◀────────── {"ok": …} or {"error": "…"} ─────────┤
//!
//!   ├─ {"verb": "run-export", …}                 ────▶│
//!   │◀────────── {"ok": …, "bytes": N} ═ N bytes ═════┤
//! ```
//!
//! Authentication is the kernel's: the socket lies in the state folder with mode 0600, and the peer's user id is checked,
//! so that only the user who runs the daemon, or root, is heard. What is asked is decided in [`crate::access`] before anything is read or
//! held for it: a no is `{"error": "…", "code": N}` with the refusal's code. Invariant 8 holds for lines and files alike.

mod ask;

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use starling_spec::{TaskFile, TaskPlan};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::access::{self, Caller, Denied, Door};
use crate::event::{AdminAnswer, AdminRequest, Event};
use crate::export::weights_bytes_max;

pub use ask::{AdminError, ask, ask_for_file, ask_with_file};

/// Bytes of one request: a task file and its overrides.
const REQUEST_BYTES_MAX: u64 = 1 << 20;

/// How long a request may take to arrive, or its answer to be made: a large model takes seconds to initialise.
const PATIENCE: Duration = Duration::from_secs(60);

/// Weights that are on their way in at once; further ones wait. Each takes as much memory as its model.
const UPLOADS_MAX: usize = 1;

/// The listening socket; its file goes with it.
#[derive(Debug)]
pub(crate) struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Binds `path`. A file that a killed daemon left is replaced: the store's lock says that no other one is alive.
    pub(crate) fn bind(path: &Path) -> anyhow::Result<Self> {
        use anyhow::Context;
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot replace the socket {}", path.display()));
            }
            _ => {}
        }
        let listener = UnixListener::bind(path).with_context(|| {
            format!("cannot bind the admin socket {} (a path of at most 107 bytes)", path.display())
        })?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
            .with_context(|| format!("cannot protect the admin socket {}", path.display()))?;
        Ok(Self { listener, path: path.to_owned() })
    }

    pub(crate) async fn serve(self, events: mpsc::Sender<Event>) {
        let uploads = Arc::new(Semaphore::new(UPLOADS_MAX));
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let (events, uploads) = (events.clone(), Arc::clone(&uploads));
                    tokio::spawn(async move {
                        if let Ok(Err(error)) =
                            tokio::time::timeout(2 * PATIENCE, answer(stream, events, &uploads)).await
                        {
                            tracing::warn!(error = %error, "an operator's request failed");
                        }
                    });
                }
                Err(error) => {
                    tracing::error!(error = %error, "the admin socket failed");
                    return;
                }
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Best effort: a left-over file is replaced at the next start.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn answer(stream: UnixStream, events: mpsc::Sender<Event>, uploads: &Semaphore) -> io::Result<()> {
    let caller = Caller::local(stream.peer_cred()?.uid());
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut read = tokio::io::BufReader::new(read);
    if let Err(denied) = caller.enters(Door::Administration) {
        return deny(&mut write, denied, &events).await;
    }
    tokio::time::timeout(PATIENCE, (&mut read).take(REQUEST_BYTES_MAX).read_line(&mut line)).await??;
    let answer = match serde_json::from_str::<AdminRequest>(&line) {
        Ok(request) => {
            // Before anything is read or held for it.
            let permitted = match access::permit(&caller, request) {
                Ok(permitted) => permitted,
                Err(denied) => return deny(&mut write, denied, &events).await,
            };
            // Held until the run is loaded: only then is the file's memory free again.
            let permit = match upload_bytes(permitted.request()) {
                Ok(None) => Ok(None),
                Ok(Some(length)) => {
                    let permit = uploads.acquire().await.map_err(io::Error::other)?;
                    Ok(Some((receive(&mut read, &mut write, length).await?, permit)))
                }
                Err(error) => Err(error),
            };
            match permit {
                Ok(upload) => {
                    let (reply, answer) = oneshot::channel();
                    let (file, _permit) = upload.unzip();
                    // A hub that is gone drops the reply's sender, which is the answer.
                    let _ = events.send(Event::Admin(permitted, file, reply)).await;
                    answer.await.unwrap_or_else(|_| Err("the aggregator is shutting down".into()))
                }
                Err(error) => Err(error),
            }
        }
        Err(error) => Err(format!("the request is not understood: {error}")),
    };
    match answer {
        Ok(AdminAnswer { value, file: None }) => write_line(&mut write, serde_json::json!({ "ok": value })).await,
        Ok(AdminAnswer { value, file: Some(file) }) => {
            write_line(&mut write, serde_json::json!({ "ok": value, "bytes": file.len() })).await?;
            write.write_all(&file).await
        }
        Err(error) => write_line(&mut write, serde_json::json!({ "error": error })).await,
    }
}

/// Says no, and has it recorded.
async fn deny(
    write: &mut (impl AsyncWriteExt + Unpin),
    denied: Denied,
    events: &mpsc::Sender<Event>,
) -> io::Result<()> {
    tracing::warn!(who = %denied.caller.who(), code = denied.reason.code(), reason = %denied, "a request was denied");
    let _ = events.send(Event::Denied(denied)).await;
    write_line(write, serde_json::json!({ "error": denied.to_string(), "code": denied.reason.code() })).await
}

async fn write_line(write: &mut (impl AsyncWriteExt + Unpin), value: serde_json::Value) -> io::Result<()> {
    write.write_all(format!("{value}\n").as_bytes()).await
}

/// The length of the file that `request` announces, compared with the largest that its task can use.
fn upload_bytes(request: &AdminRequest) -> Result<Option<u64>, String> {
    let AdminRequest::RunStart(start) = request else { return Ok(None) };
    let Some(length) = start.weights_bytes else { return Ok(None) };
    let limit = TaskFile::parse(&start.task, &start.overrides)
        .and_then(|task| TaskPlan::new(&task, start.seed))
        .and_then(|plan| weights_bytes_max(&plan))
        .map_err(|error| error.to_string())?;
    if length > limit {
        return Err(format!("the weights have {length} bytes; those of this task's network have at most {limit}"));
    }
    Ok(Some(length))
}

/// Asks for the file and reads it; memory grows with what comes.
async fn receive(
    read: &mut (impl AsyncBufRead + Unpin),
    write: &mut (impl AsyncWriteExt + Unpin),
    length: u64,
) -> io::Result<Bytes> {
    write_line(write, serde_json::json!({ "send": length })).await?;
    let mut file = Vec::new();
    tokio::time::timeout(PATIENCE, read.take(length).read_to_end(&mut file)).await??;
    if file.len() as u64 != length {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the weights broke off"));
    }
    Ok(Bytes::from(file))
}
