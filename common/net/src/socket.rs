//! A UDP socket with room for bursts.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use crate::limits::SOCKET_BUFFER_BYTES;

/// A socket bound to `address` with [`SOCKET_BUFFER_BYTES`] in both directions, or as much as the system grants.
pub(crate) fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    // The forced variants ignore the system's cap and need a capability; the others are cut down to the cap in silence.
    for (forced, plain) in [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)] {
        if set(&socket, forced, SOCKET_BUFFER_BYTES).is_err()
            && let Err(error) = set(&socket, plain, SOCKET_BUFFER_BYTES)
        {
            tracing::warn!(%error, "the UDP socket keeps its default buffers: expect lost packets in large transfers");
        }
    }
    Ok(socket)
}

/// Any free port of the family of `toward`.
pub(crate) fn any_port(toward: SocketAddr) -> SocketAddr {
    match toward {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    }
}

fn set(socket: &UdpSocket, option: libc::c_int, value: i32) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<i32>()).expect("four fits");
    #[allow(unsafe_code, reason = "the standard library offers no way to size a socket's buffers")]
    // SAFETY: the descriptor is open for as long as `socket` is borrowed, and the pointer and length describe `value`,
    // which the kernel only reads.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, (&raw const value).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
