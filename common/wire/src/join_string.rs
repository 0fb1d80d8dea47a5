//! The join string: all that a new machine needs to find its aggregator, to know it, and to be let in. It is typed by
//! hand where it has to be.
//!
//! ```text
//! starling1:04H28-…      RFC 4648 order of bits, Crockford's alphabet (no I, L, O, U), groups of 5, any case
//!
//! 0       1  flags: bit 0 the address is IPv6, bit 1 a token follows
//! 1  4 or 16  address
//! …       2  port, big-endian
//! …      16  CA fingerprint: the first half of SHA-256 of the root's SubjectPublicKeyInfo
//! …      12  token, if there is one
//! …       2  checksum: the first bytes of SHA-256 of all before
//! ```
//!
//! Half a digest is enough for the fingerprint: who would pass for the CA needs a second key with the same 128 bits. A
//! token has 96 bits, is used once and expires, and guesses are limited in number. With a token the string is a secret
//! until it has been used: it is `Debug` without its token, and only `to_string` shows it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::{DeviceId, Digest};

const PREFIX: &str = "starling1:";
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const GROUP: usize = 5;
const CHECKSUM_BYTES: usize = 2;

/// Characters of the longest one that is looked at.
const TEXT_BYTES_MAX: usize = 256;

const IPV6: u8 = 1;
const TOKEN: u8 = 2;

/// A secret that lets one device in, once. Not `Debug` in clear (invariant 10).
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token(pub [u8; 12]);

impl Token {
    /// What is stored of it: it cannot be turned back.
    pub fn digest(&self) -> Digest {
        Digest::of_parts(&[b"starling/1 token\0", &self.0])
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// What a join string says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JoinString {
    /// Where the aggregator listens.
    pub address: SocketAddr,
    /// The first half of SHA-256 of the SubjectPublicKeyInfo of the CA's root.
    pub ca_fingerprint: [u8; 16],
    /// The token; without it the operator has to approve.
    pub token: Option<Token>,
}

/// Why a text is no join string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JoinStringError {
    /// Another text altogether.
    #[error("a join string starts with `{PREFIX}`")]
    Prefix,
    /// A character that is in no join string.
    #[error("a join string holds letters, digits and dashes, not {0:?}")]
    Character(char),
    /// Too short, too long, or of a later version.
    #[error("the join string is not complete, or was made by a later version")]
    Shape,
    /// A slip of the pen.
    #[error("the join string's checksum is wrong: a character was mistyped or left out")]
    Checksum,
}

impl JoinString {
    fn body(&self) -> Vec<u8> {
        let mut bytes = vec![0];
        match self.address.ip() {
            IpAddr::V4(ip) => bytes.extend(ip.octets()),
            IpAddr::V6(ip) => {
                bytes[0] |= IPV6;
                bytes.extend(ip.octets());
            }
        }
        bytes.extend(self.address.port().to_be_bytes());
        bytes.extend(self.ca_fingerprint);
        if let Some(token) = &self.token {
            bytes[0] |= TOKEN;
            bytes.extend(token.0);
        }
        bytes
    }

    fn from_body(bytes: &[u8]) -> Option<Self> {
        let (flags, rest) = bytes.split_first()?;
        if flags & !(IPV6 | TOKEN) != 0 {
            return None;
        }
        let (ip, rest) = if flags & IPV6 != 0 {
            let (ip, rest) = rest.split_first_chunk::<16>()?;
            (IpAddr::V6(Ipv6Addr::from(*ip)), rest)
        } else {
            let (ip, rest) = rest.split_first_chunk::<4>()?;
            (IpAddr::V4(Ipv4Addr::from(*ip)), rest)
        };
        let (port, rest) = rest.split_first_chunk::<2>()?;
        let (ca_fingerprint, rest) = rest.split_first_chunk::<16>()?;
        let (token, rest) = if flags & TOKEN != 0 {
            let (token, rest) = rest.split_first_chunk::<12>()?;
            (Some(Token(*token)), rest)
        } else {
            (None, rest)
        };
        let address = SocketAddr::new(ip, u16::from_be_bytes(*port));
        rest.is_empty().then_some(Self { address, ca_fingerprint: *ca_fingerprint, token })
    }

    /// The fingerprint for people, as an id is printed.
    pub fn ca_fingerprint_hex(&self) -> String {
        DeviceId(self.ca_fingerprint).to_string()
    }
}

impl fmt::Display for JoinString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.body();
        let checksum = Digest::of(&bytes).0;
        bytes.extend_from_slice(&checksum[..CHECKSUM_BYTES]);
        f.write_str(PREFIX)?;
        for (index, symbol) in symbols(&bytes).enumerate() {
            if index > 0 && index % GROUP == 0 {
                f.write_str("-")?;
            }
            write!(f, "{}", char::from(ALPHABET[usize::from(symbol)]))?;
        }
        Ok(())
    }
}

impl FromStr for JoinString {
    type Err = JoinStringError;

    fn from_str(text: &str) -> Result<Self, JoinStringError> {
        let text = text.trim();
        let prefix = text.get(..PREFIX.len()).filter(|prefix| prefix.eq_ignore_ascii_case(PREFIX));
        prefix.ok_or(JoinStringError::Prefix)?;
        if text.len() > TEXT_BYTES_MAX {
            return Err(JoinStringError::Shape);
        }
        let mut symbols = Vec::with_capacity(text.len());
        for character in text[PREFIX.len()..].chars().filter(|character| !matches!(character, '-' | ' ')) {
            symbols.push(value(character).ok_or(JoinStringError::Character(character))?);
        }
        let bytes = bytes(&symbols).ok_or(JoinStringError::Shape)?;
        let (body, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(JoinStringError::Shape)?;
        if Digest::of(body).0[..CHECKSUM_BYTES] != checksum[..] {
            return Err(JoinStringError::Checksum);
        }
        Self::from_body(body).ok_or(JoinStringError::Shape)
    }
}

/// The bytes as numbers of five bits, the most significant first; the last one is filled with zeros.
fn symbols(bytes: &[u8]) -> impl Iterator<Item = u8> {
    let bit = |index: usize| bytes.get(index / 8).map_or(0, |byte| byte >> (7 - index % 8) & 1);
    (0..(bytes.len() * 8).div_ceil(5)).map(move |symbol| (0..5).fold(0, |value, at| value << 1 | bit(symbol * 5 + at)))
}

/// The way back. `None` when a whole symbol or a bit that is set is left over.
fn bytes(symbols: &[u8]) -> Option<Vec<u8>> {
    let bit = |index: usize| symbols.get(index / 5).map_or(0, |symbol| symbol >> (4 - index % 5) & 1);
    let count = symbols.len() * 5 / 8;
    let bytes = (0..count).map(|byte| (0..8).fold(0, |value, at| value << 1 | bit(byte * 8 + at))).collect();
    let left_over = symbols.len() * 5 - count * 8;
    let clean = (count * 8..symbols.len() * 5).all(|index| bit(index) == 0);
    (left_over < 5 && clean).then_some(bytes)
}

/// The five bits that a character stands for; those that people confuse stand for the same.
fn value(character: char) -> Option<u8> {
    let character = match character.to_ascii_uppercase() {
        'O' => '0',
        'I' | 'L' => '1',
        other => other,
    };
    let found = ALPHABET.iter().position(|known| char::from(*known) == character)?;
    u8::try_from(found).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(address: &str, token: Option<Token>) -> JoinString {
        JoinString { address: address.parse().expect("an address"), ca_fingerprint: [0xc3; 16], token }
    }

    #[test]
    fn a_join_string_reads_what_it_writes() {
        for address in ["192.0.2.10:4433", "[2001:db8::7]:1"] {
            for token in [None, Some(Token([0x5a; 12]))] {
                let wanted = example(address, token);
                let text = wanted.to_string();
                assert_eq!(text.parse(), Ok(wanted), "{text}");
                assert!(text.len() < 110, "it is typed by hand: {text}");
            }
        }
    }

    #[test]
    fn it_survives_being_typed() {
        let wanted = example("192.0.2.10:4433", Some(Token([7; 12])));
        let text = wanted.to_string();
        let typed = format!("  {} ", text.to_lowercase().replace('-', " ").replace('0', "o").replace('1', "l"));
        let typed = typed.replace("starlingl:", "starling1:");
        assert_eq!(typed.parse(), Ok(wanted), "{typed}");
    }

    #[test]
    fn every_single_slip_is_noticed() {
        let text = example("192.0.2.10:4433", Some(Token([7; 12]))).to_string();
        let mut wrong = 0;
        for (index, character) in text.char_indices().skip(PREFIX.len()).filter(|(_, character)| *character != '-') {
            let other = if character == 'Z' { "Y" } else { "Z" };
            let mut slip = text.clone();
            slip.replace_range(index..=index, other);
            wrong += u32::from(slip.parse::<JoinString>().is_ok());
            let mut gap = text.clone();
            gap.remove(index);
            wrong += u32::from(gap.parse::<JoinString>().is_ok());
        }
        assert_eq!(wrong, 0);
    }

    #[test]
    fn inv8_other_texts_are_told_from_it() {
        let parse = |text: &str| text.parse::<JoinString>().expect_err("no join string");
        assert_eq!(parse("hello"), JoinStringError::Prefix);
        assert_eq!(parse("starling1:"), JoinStringError::Shape);
        assert_eq!(parse("starling1:00!"), JoinStringError::Character('!'));
        assert_eq!(parse(&format!("starling1:{}", "0".repeat(10_000))), JoinStringError::Shape);
        assert_eq!(parse("ü"), JoinStringError::Prefix);
    }

    #[test]
    fn inv10_a_token_is_not_shown_by_debug() {
        let shown = format!("{:?}", example("192.0.2.10:4433", Some(Token([0x5a; 12]))));
        assert!(!shown.contains("90") && !shown.contains("5a"), "{shown}");
    }
}
