//! Sockets for programs of the same machine. Authentication is the kernel's: the file has mode 0600, and the peer's user id is checked, so that
//! only the daemon's own user, or root, is heard.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tokio::net::{UnixListener, UnixStream};

/// Listens at `path`, within a tokio runtime. A file that a killed daemon left is replaced: the store's lock says that no other one is alive.
///
/// # Errors
/// What the system said; a path has at most 107 bytes.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Whether the peer is the daemon's own user, or root.
pub(crate) fn is_owner(stream: &UnixStream) -> bool {
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == 0 || peer.uid() == own_uid() => true,
        Ok(peer) => {
            tracing::warn!(user = peer.uid(), "a user who may not ask this daemon was turned away");
            false
        }
        Err(_) => false,
    }
}

#[allow(unsafe_code, reason = "the standard library offers no way to ask for the user id")]
fn own_uid() -> u32 {
    // SAFETY: geteuid takes no argument, touches no memory of ours and cannot fail.
    unsafe { libc::geteuid() }
}
