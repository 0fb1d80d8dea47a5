//! The operator's local socket: one line of JSON in, one line of JSON out.
//!
//! Authentication is the kernel's: the socket lies in the state folder with mode 0600, and the peer's user id is checked,
//! so that only the user who runs the daemon, or root, is heard.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

use crate::event::{AdminRequest, Event};

/// Bytes of one request: a task file and its overrides.
const REQUEST_BYTES_MAX: u64 = 1 << 20;

/// Bytes of one answer: a run of 100,000 rounds.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// How long a request may take to arrive, or its answer to be made: a large model takes seconds to initialise.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why the daemon could not be asked, or what it said no to.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// No daemon there.
    #[error("no aggregator answers at {path}; is it running with this state folder?")]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It hung up or answered nonsense.
    #[error("the aggregator's answer could not be read")]
    Answer(#[source] io::Error),
    /// It said no.
    #[error("{0}")]
    Refused(String),
}

/// Asks the daemon that listens at `path`.
///
/// # Errors
/// When there is none, or when it says no.
pub fn ask(path: &Path, request: &serde_json::Value) -> Result<serde_json::Value, AdminError> {
    let unreachable = |source| AdminError::Unreachable { path: path.to_owned(), source };
    let mut stream = StdUnixStream::connect(path).map_err(unreachable)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(AdminError::Answer)?;
    stream.write_all(format!("{request}\n").as_bytes()).map_err(AdminError::Answer)?;
    let mut line = String::new();
    BufReader::new(stream.take(ANSWER_BYTES_MAX)).read_line(&mut line).map_err(AdminError::Answer)?;
    let mut answer: serde_json::Value =
        serde_json::from_str(&line).map_err(|error| AdminError::Answer(error.into()))?;
    match answer.get("error").and_then(|error| error.as_str()) {
        Some(error) => Err(AdminError::Refused(error.to_owned())),
        None => Ok(answer["ok"].take()),
    }
}

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
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let events = events.clone();
                    tokio::spawn(async move {
                        if let Ok(Err(error)) = tokio::time::timeout(2 * PATIENCE, answer(stream, events)).await {
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

async fn answer(stream: UnixStream, events: mpsc::Sender<Event>) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    if peer != 0 && peer != own_uid() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("user {peer} may not administer this daemon"),
        ));
    }
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let read = tokio::io::BufReader::new(read.take(REQUEST_BYTES_MAX));
    tokio::pin!(read);
    tokio::time::timeout(PATIENCE, read.read_line(&mut line)).await??;
    let answer = match serde_json::from_str::<AdminRequest>(&line) {
        Ok(request) => {
            let (reply, answer) = oneshot::channel();
            // A hub that is gone drops the reply's sender, which is the answer.
            let _ = events.send(Event::Admin(request, reply)).await;
            answer.await.unwrap_or_else(|_| Err("the aggregator is shutting down".into()))
        }
        Err(error) => Err(format!("the request is not understood: {error}")),
    };
    let answer = match answer {
        Ok(value) => serde_json::json!({ "ok": value }),
        Err(error) => serde_json::json!({ "error": error }),
    };
    write.write_all(format!("{answer}\n").as_bytes()).await
}

#[allow(unsafe_code, reason = "the standard library offers no way to ask for the user id")]
fn own_uid() -> u32 {
    // SAFETY: geteuid takes no argument, touches no memory of ours and cannot fail.
    unsafe { libc::geteuid() }
}
