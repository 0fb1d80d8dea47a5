//! Somebody who has the disk and is in no hurry: tries every key that lies there on everything that lies there.
//!
//! It shares no code with the store. It knows the formats from their descriptions, and it checks no tag: AES-GCM decrypts in counter mode, so
//! whatever has the right key and nonce is read, also where a record's name is lost, and in parts of files that nothing refers to.

use std::path::{Path, PathBuf};

use aes::Aes256;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use ring::{aead, hkdf};

type Key = [u8; 32];

const CHUNK: usize = 64 << 10;
const TAG: usize = 16;
/// The longest sealed record.
const RECORD: usize = 4_500;

/// Where a text was found, and by which means.
pub(crate) type Found = Vec<(PathBuf, String)>;

#[derive(Default)]
struct Keys {
    records: Vec<(String, Key)>,
    blobs: Vec<(String, Key)>,
}

/// Looks for `needle` in all files under `roots`, as it is and under every key that is found there.
pub(crate) fn find(roots: &[&Path], needle: &str) -> Found {
    let mut files = Vec::new();
    roots.iter().for_each(|root| list(root, &mut files));
    assert!(!files.is_empty(), "there is something to look through");
    let contents: Vec<(PathBuf, Vec<u8>)> =
        files.into_iter().map(|path| (path.clone(), std::fs::read(&path).unwrap_or_default())).collect();
    let keys = keys(&contents);
    let mut found = Vec::new();
    for (path, bytes) in &contents {
        let mut note = |how: &str| found.push((path.clone(), how.to_owned()));
        if holds(bytes, needle) {
            note("in the clear");
        }
        for at in 0..bytes.len() {
            for (name, key) in keys.records.iter().filter(|_| is_record(&bytes[at..])) {
                let nonce = bytes[at + 13..at + 25].try_into().expect("twelve bytes");
                if holds(&decrypted(key, nonce, &bytes[at + 25..bytes.len().min(at + 25 + RECORD)]), needle) {
                    note(&format!("a record of {name}"));
                }
            }
            for (name, key) in keys.blobs.iter().filter(|_| bytes[at..].starts_with(b"SB1\0")) {
                if holds(&blob(key, &bytes[at..]), needle) {
                    note(&format!("a blob of {name}"));
                }
            }
        }
    }
    found
}

fn list(path: &Path, files: &mut Vec<PathBuf>) {
    match std::fs::read_dir(path) {
        Ok(entries) => entries.for_each(|entry| list(&entry.expect("an entry").path(), files)),
        Err(_) if path.is_file() => files.push(path.to_owned()),
        // A socket.
        Err(_) => {}
    }
}

fn holds(bytes: &[u8], needle: &str) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle.as_bytes())
}

/// format 1, a generation, a commit's number, a nonce.
fn is_record(bytes: &[u8]) -> bool {
    let number =
        |range: std::ops::Range<usize>| bytes[range].iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    bytes.len() > 25 && bytes[0] == 1 && (1..=256).contains(&number(1..5)) && number(5..13) < 1 << 32
}

fn keys(contents: &[(PathBuf, Vec<u8>)]) -> Keys {
    let masters: Vec<Key> = contents.iter().filter_map(|(_, bytes)| unhex(bytes.trim_ascii())).collect();
    let mut keys = Keys::default();
    for (_, ring) in contents.iter().filter(|(_, bytes)| bytes.starts_with(b"starkeys")) {
        let store = &ring[10..26];
        let bodies = masters
            .iter()
            .filter_map(|master| open(&derive(master, store, "ring"), &ring[62..74], &ring[..62], &ring[74..]));
        for body in bodies {
            let (data, wraps) = generations(&body);
            data.iter().for_each(|key| keys.add("the store", key, store));
            for (path, wrapped) in contents.iter().filter(|(_, bytes)| bytes.starts_with(b"stardevk")) {
                let Some(tag) = path.file_name().and_then(|name| unhex16(name.to_str()?.as_bytes())) else { continue };
                let about = [&wrapped[..14], store, &tag].concat();
                let opened = wraps.iter().find_map(|wrap| {
                    open(&derive(wrap, store, "device keys"), &wrapped[14..26], &about, &wrapped[26..])
                });
                if let Some(opened) = opened {
                    let key = opened[..32].try_into().expect("a key");
                    keys.add(&String::from_utf8_lossy(&opened[32..]), &key, store);
                }
            }
        }
    }
    assert!(!keys.records.is_empty(), "the state folder's own keys are found: the search is one");
    keys
}

impl Keys {
    fn add(&mut self, name: &str, key: &Key, store: &[u8]) {
        self.records.push((name.to_owned(), derive(key, store, "records")));
        self.blobs.push((name.to_owned(), derive(key, store, "blobs")));
    }
}

/// The data keys and the wrapping keys of a ring: names key, two lists of (number, key, number), a flag; numbers as bincode's varints.
fn generations(body: &[u8]) -> (Vec<Key>, Vec<Key>) {
    let mut at = 32;
    let number = |at: &mut usize| {
        let (width, start) = match body[*at] {
            251 => (2, 1),
            252 => (4, 1),
            253 => (8, 1),
            _ => (1, 0),
        };
        let bytes = &body[*at + start..*at + start + width];
        *at += start + width;
        bytes.iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte))
    };
    let mut list = || {
        let count = number(&mut at);
        let mut keys = Vec::new();
        for _ in 0..count {
            number(&mut at);
            keys.push(body[at..at + 32].try_into().expect("a key"));
            at += 32;
            number(&mut at);
        }
        keys
    };
    (list(), list())
}

fn blob(key: &Key, bytes: &[u8]) -> Vec<u8> {
    let Some(salt) = bytes.get(8..40) else { return Vec::new() };
    let key = derive(key, salt, "blob");
    let mut whole = Vec::new();
    for (index, chunk) in bytes.get(88..).unwrap_or_default().chunks(CHUNK + TAG).enumerate() {
        let last = 88 + (index + 1) * (CHUNK + TAG) >= bytes.len();
        let mut nonce = [0; 12];
        nonce[3..11].copy_from_slice(&(index as u64).to_be_bytes());
        nonce[11] = u8::from(last);
        whole.extend(decrypted(&key, nonce, &chunk[..chunk.len().saturating_sub(TAG)]));
    }
    whole
}

/// AES-256-GCM without its tag: counter mode from 2 on (NIST SP 800-38D, 7.2).
fn decrypted(key: &Key, nonce: [u8; 12], sealed: &[u8]) -> Vec<u8> {
    let cipher = Aes256::new(key.into());
    let mut plain = sealed.to_vec();
    for (chunk, counter) in plain.chunks_mut(16).zip(2_u32..) {
        let mut block = [0; 16];
        block[..12].copy_from_slice(&nonce);
        block[12..].copy_from_slice(&counter.to_be_bytes());
        let mut block = block.into();
        cipher.encrypt_block(&mut block);
        chunk.iter_mut().zip(block).for_each(|(byte, stream)| *byte ^= stream);
    }
    plain
}

fn open(key: &Key, nonce: &[u8], about: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let key = aead::LessSafeKey::new(aead::UnboundKey::new(&aead::AES_256_GCM, key).ok()?);
    let nonce = aead::Nonce::try_assume_unique_for_key(nonce).ok()?;
    let mut bytes = sealed.to_vec();
    Some(key.open_in_place(nonce, aead::Aad::from(about), &mut bytes).ok()?.to_vec())
}

fn derive(key: &Key, salt: &[u8], purpose: &str) -> Key {
    let mut out = [0; 32];
    let info = [b"starling/store/1/", purpose.as_bytes()];
    let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(key);
    extracted.expand(&info, hkdf::HKDF_SHA256).and_then(|okm| okm.fill(&mut out)).expect("32 bytes");
    out
}

fn unhex(text: &[u8]) -> Option<Key> {
    let bytes = digits(text)?;
    bytes.try_into().ok()
}

fn unhex16(text: &[u8]) -> Option<[u8; 16]> {
    digits(text)?.try_into().ok()
}

fn digits(text: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?;
    let even = text.len() % 2 == 0 && text.is_ascii();
    (0..text.len() / 2)
        .map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok())
        .collect::<Option<_>>()
        .filter(|_| even)
}
