//! Why a connection ended, in the words of [`Refusal`], whichever side and layer ended it.
//!
//! | on the wire | refusal |
//! | --- | --- |
//! | application close with a refusal's code | that refusal |
//! | TLS alert `unknown_ca` 48, `decrypt_error` 51 | `ForeignCertificate` |
//! | TLS alert `certificate_expired` 45 | `CertificateExpired` |
//! | TLS alert `access_denied` 49 | `WrongRole` |
//! | TLS alert `bad_certificate` 42, `unsupported_certificate` 43, `certificate_revoked` 44, `certificate_unknown` 46, `certificate_required` 116 | `NoIdentity` (44: `ForeignCertificate`) |
//! | TLS alert `no_application_protocol` 120, no common QUIC version | `VersionNotSpoken` |
//! | transport code `CONNECTION_REFUSED` | `Busy` |

use std::fmt;

use quinn::{ConnectionError, TransportErrorCode, VarInt};
use starling_wire::Refusal;

use crate::limits::REASON_CHARS_MAX;

/// The close code of a connection that ended because its work was done.
pub(crate) const DONE: u32 = 0;

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseReason {
    /// The reason, if it is one of the closed list. `None` for silence, a clean end, a broken transport.
    pub refusal: Option<Refusal>,
    /// Whether the peer ended it, rather than this side.
    pub by_peer: bool,
    /// What the ending layer said; a peer's own words are cut short and cleaned.
    pub text: String,
}

impl CloseReason {
    /// Whether trying again, unchanged, can ever help.
    pub fn is_final(&self) -> bool {
        self.refusal.is_some_and(Refusal::is_final)
    }

    /// Whether the peer ended the connection because its work was done.
    pub fn is_clean(&self) -> bool {
        self.by_peer && self.refusal.is_none() && self.text == CLEAN
    }
}

const CLEAN: &str = "closed: nothing left to do";

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = if self.by_peer { "the peer" } else { "this side" };
        match self.refusal {
            Some(refusal) if self.text.is_empty() || self.text == refusal.text() => {
                write!(f, "{who} refused: {refusal}")
            }
            Some(refusal) => write!(f, "{who} refused: {refusal}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

impl std::error::Error for CloseReason {}

impl From<&ConnectionError> for CloseReason {
    fn from(error: &ConnectionError) -> Self {
        let (refusal, by_peer, text) = match error {
            ConnectionError::ApplicationClosed(close) if close.error_code == VarInt::from_u32(DONE) => {
                (None, true, CLEAN.to_owned())
            }
            ConnectionError::ApplicationClosed(close) => {
                (Refusal::from_code(close.error_code.into_inner()), true, clean(&close.reason))
            }
            ConnectionError::ConnectionClosed(close) => {
                (of_transport_code(close.error_code), true, clean(&close.reason))
            }
            ConnectionError::TransportError(error) => {
                (of_transport_code(error.code), false, clean(error.to_string().as_bytes()))
            }
            ConnectionError::VersionMismatch => (Some(Refusal::VersionNotSpoken), true, String::new()),
            ConnectionError::TimedOut => (None, false, "the peer has been silent for too long".to_owned()),
            ConnectionError::Reset => (None, true, "the peer has no memory of this connection".to_owned()),
            ConnectionError::LocallyClosed => (None, false, "closed by this side".to_owned()),
            ConnectionError::CidsExhausted => (None, false, "no connection id is left".to_owned()),
        };
        Self { refusal, by_peer, text }
    }
}

impl From<ConnectionError> for CloseReason {
    fn from(error: ConnectionError) -> Self {
        Self::from(&error)
    }
}

/// A refusal's code as a QUIC variable-length integer.
pub(crate) fn code(refusal: Refusal) -> VarInt {
    VarInt::from_u32(u32::from(refusal.code()))
}

fn of_transport_code(code: TransportErrorCode) -> Option<Refusal> {
    if code == TransportErrorCode::CONNECTION_REFUSED {
        return Some(Refusal::Busy);
    }
    // A TLS alert travels as 0x100 + its number (RFC 9001, 4.8); numbers from RFC 8446, 6.
    match u64::from(code).checked_sub(0x100)? {
        44 | 48 | 51 => Some(Refusal::ForeignCertificate),
        45 => Some(Refusal::CertificateExpired),
        49 => Some(Refusal::WrongRole),
        42 | 43 | 46 | 116 => Some(Refusal::NoIdentity),
        120 => Some(Refusal::VersionNotSpoken),
        _ => None,
    }
}

/// A peer's words, fit for a log: printable, and no longer than [`REASON_CHARS_MAX`].
fn clean(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .map(|character| if character.is_control() { '\u{fffd}' } else { character })
        .take(REASON_CHARS_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peers_words_cannot_break_a_log_line_or_flood_it() {
        let words = clean("one\ntwo\u{1b}[2J".repeat(100).as_bytes());
        assert!(words.chars().count() == REASON_CHARS_MAX && !words.chars().any(char::is_control));
    }

    #[test]
    fn alerts_map_to_distinct_refusals() {
        let of = |alert| of_transport_code(TransportErrorCode::crypto(alert));
        assert_eq!(of(48), Some(Refusal::ForeignCertificate));
        assert_eq!(of(45), Some(Refusal::CertificateExpired));
        assert_eq!(of(49), Some(Refusal::WrongRole));
        assert_eq!(of(120), Some(Refusal::VersionNotSpoken));
        assert_eq!(of(80), None);
    }
}
