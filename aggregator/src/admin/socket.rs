//! The local socket of the daemon. Authentication is the kernel's: the socket lies in the state folder with mode 0600, and who the peer is
//! comes from the connection itself (`SO_PEERCRED`).

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::{UnixListener, UnixStream};

use super::Desk;
use crate::access::Caller;

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

    pub(crate) async fn serve(self, desk: Desk) {
        let desk = Arc::new(desk);
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let desk = Arc::clone(&desk);
                    tokio::spawn(async move {
                        if let Err(error) = answer(stream, &desk).await {
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

async fn answer(stream: UnixStream, desk: &Desk) -> io::Result<()> {
    let caller = Caller::local(stream.peer_cred()?.uid());
    let (read, write) = stream.into_split();
    desk.serve(&caller, read, write).await
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Best effort: a left-over file is replaced at the next start.
        let _ = std::fs::remove_file(&self.path);
    }
}
