//! What administrators ask: one line of JSON in, one line of JSON out, and a file where a verb has one. It comes over the local socket
//! ([`socket`]) or over QUIC ([`remote`]), and both end here.
//!
//! ```text
//! administrator                                    daemon
//!   ├─ {"verb": …}                              ─────▶│ may that be asked? (`crate::access`)
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
//! What is asked is decided in [`crate::access`] before anything is held for it: a no is `{"error": "…", "code": N}` with the refusal's code.
//! Invariant 8 holds for lines and files alike.

mod ask;
pub(crate) mod remote;
pub(crate) mod socket;

use std::io;
use std::time::Duration;

use bytes::Bytes;
use starling_spec::{TaskFile, TaskPlan};
use starling_wire::limits::RELEASE_BYTES_MAX;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use crate::access::{self, Caller, Denied, Door};
use crate::event::{AdminAnswer, AdminRequest, Event};
use crate::export::weights_bytes_max;

pub use ask::{AdminError, Daemon, ask};

/// Bytes of one request: a task file and its overrides.
const REQUEST_BYTES_MAX: u64 = 1 << 20;

/// How long a request may take to arrive, or a piece of a file to move.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long an answer may take to be made: a large model takes seconds to initialise.
const ANSWER_PATIENCE: Duration = Duration::from_secs(120);

/// Files that are on their way in at once; further ones wait. Each takes as much memory as its model.
const UPLOADS_MAX: usize = 1;

/// Bytes of a file that have to move within [`PATIENCE`].
const PIECE_BYTES: usize = 256 * 1024;

/// Where requests of one kind of connection go. The two kinds do not share their uploads: who is far away and slow keeps nobody waiting who
/// sits at the machine.
pub(crate) struct Desk {
    events: mpsc::Sender<Event>,
    uploads: Semaphore,
}

impl Desk {
    pub(crate) fn new(events: mpsc::Sender<Event>) -> Self {
        Self { events, uploads: Semaphore::new(UPLOADS_MAX) }
    }

    /// Serves one request of `caller` and its answer.
    async fn serve(
        &self,
        caller: &Caller,
        read: impl AsyncRead + Unpin,
        mut write: impl AsyncWrite + Unpin,
    ) -> io::Result<()> {
        let mut line = String::new();
        let mut read = tokio::io::BufReader::new(read);
        timeout(PATIENCE, (&mut read).take(REQUEST_BYTES_MAX).read_line(&mut line)).await??;
        match self.answer(caller, &line, &mut read, &mut write).await? {
            Ok(AdminAnswer { value, file: None }) => write_line(&mut write, serde_json::json!({ "ok": value })).await?,
            Ok(AdminAnswer { value, file: Some(file) }) => {
                write_line(&mut write, serde_json::json!({ "ok": value, "bytes": file.len() })).await?;
                for piece in file.chunks(PIECE_BYTES) {
                    timeout(PATIENCE, write.write_all(piece)).await??;
                }
            }
            Err(No { text, code: None }) => write_line(&mut write, serde_json::json!({ "error": text })).await?,
            Err(No { text, code }) => {
                write_line(&mut write, serde_json::json!({ "error": text, "code": code })).await?
            }
        }
        write.shutdown().await
    }

    async fn answer(
        &self,
        caller: &Caller,
        line: &str,
        read: &mut (impl AsyncBufRead + Unpin),
        write: &mut (impl AsyncWrite + Unpin),
    ) -> io::Result<Result<AdminAnswer, No>> {
        // Who may ask nothing is not told what is wrong with the request.
        if let Err(denied) = caller.enters(Door::Administration) {
            return Ok(Err(self.deny(denied).await));
        }
        let request = match serde_json::from_str::<AdminRequest>(line) {
            Ok(request) => request,
            Err(error) => return Ok(Err(format!("the request is not understood: {error}").into())),
        };
        let permitted = match access::permit(caller, request) {
            Ok(permitted) => permitted,
            Err(denied) => return Ok(Err(self.deny(denied).await)),
        };
        let (file, _place) = match upload_bytes(permitted.request()) {
            Ok(None) => (None, None),
            Ok(Some(length)) => {
                // Held until the answer: only then is the file's memory free again.
                let Ok(place) = timeout(PATIENCE, self.uploads.acquire()).await else {
                    return Ok(Err("another file is on its way in; try again when it is there".to_owned().into()));
                };
                let place = place.map_err(io::Error::other)?;
                (Some(receive(read, write, length).await?), Some(place))
            }
            Err(problem) => return Ok(Err(problem.into())),
        };
        let (reply, answer) = oneshot::channel();
        // A hub that is gone drops the reply's sender, which is the answer.
        let _ = self.events.send(Event::Admin(permitted, file, reply)).await;
        let answer = timeout(ANSWER_PATIENCE, answer).await?;
        Ok(answer.unwrap_or_else(|_| Err("the aggregator is shutting down".into())).map_err(No::from))
    }

    /// Has a no recorded.
    async fn deny(&self, denied: Denied) -> No {
        tracing::warn!(who = %denied.caller.who(), code = denied.reason.code(), reason = %denied, "a request was denied");
        let _ = self.events.send(Event::Denied(denied)).await;
        No { text: denied.to_string(), code: Some(denied.reason.code()) }
    }
}

/// An answer that is none.
struct No {
    text: String,
    /// The refusal's, where who asked may not.
    code: Option<u16>,
}

impl From<String> for No {
    fn from(text: String) -> Self {
        Self { text, code: None }
    }
}

async fn write_line(write: &mut (impl AsyncWrite + Unpin), value: serde_json::Value) -> io::Result<()> {
    timeout(PATIENCE, write.write_all(format!("{value}\n").as_bytes())).await?
}

/// The length of the file that `request` announces, compared with the largest that it may have.
fn upload_bytes(request: &AdminRequest) -> Result<Option<u64>, String> {
    match request {
        AdminRequest::RunStart(start) => {
            let Some(length) = start.weights_bytes else { return Ok(None) };
            let limit = TaskFile::parse(&start.task, &start.overrides)
                .and_then(|task| TaskPlan::new(&task, start.seed))
                .and_then(|plan| weights_bytes_max(&plan))
                .map_err(|error| error.to_string())?;
            if length > limit {
                return Err(format!(
                    "the weights have {length} bytes; those of this task's network have at most {limit}"
                ));
            }
            Ok(Some(length))
        }
        AdminRequest::ReleasePublish { path: None, release_bytes, .. } => {
            let length = release_bytes.ok_or("a release's `path` or `release_bytes` is missing")?;
            if length > RELEASE_BYTES_MAX {
                return Err(format!("the file has {length} bytes; a release has at most {RELEASE_BYTES_MAX}"));
            }
            Ok(Some(length))
        }
        _ => Ok(None),
    }
}

/// Asks for the file and reads it; memory grows with what comes.
async fn receive(
    read: &mut (impl AsyncBufRead + Unpin),
    write: &mut (impl AsyncWrite + Unpin),
    length: u64,
) -> io::Result<Bytes> {
    write_line(write, serde_json::json!({ "send": length })).await?;
    let mut file = Vec::new();
    while (file.len() as u64) < length {
        let wanted = (length - file.len() as u64).min(PIECE_BYTES as u64);
        let mut piece = (&mut *read).take(wanted);
        if timeout(PATIENCE, piece.read_to_end(&mut file)).await?? as u64 != wanted {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file broke off"));
        }
    }
    Ok(Bytes::from(file))
}
