//! Thirty-two secret bytes in a file of their own, in the clear or sealed under a passphrase: keys that belong to a person and not to
//! a state folder, such as a publisher's.
//!
//! ```text
//! in the clear   64 hexadecimal digits
//! sealed         starling-key-1 ITERATIONS SALT NONCE SEALED      AES-256-GCM under HKDF(PBKDF2(passphrase, salt), salt, "key-file");
//!                                                                  what stands in front of SEALED is associated data
//! ```
//!
//! Either has mode 0600 and is never written over another file.

use std::path::Path;

use zeroize::Zeroizing;

use super::error::KeyError;
use super::file;
use super::secret::{NONCE_BYTES, SECRET_BYTES, Secret, TAG_BYTES, hex, random, unhex};
use super::source::{Found, KeySource, Stretch};

const MAGIC: &str = "starling-key-1";
const PURPOSE: &str = "key-file";

/// Makes a secret from the system's entropy and writes it to `path`: sealed, when the file `passphrase` holds a passphrase (12 bytes or
/// more, mode 0600).
///
/// # Errors
/// There is a file already, the passphrase cannot be used, or the disk says no.
pub fn create_key_file(path: &Path, passphrase: Option<&Path>) -> Result<Zeroizing<[u8; SECRET_BYTES]>, KeyError> {
    let secret = Secret::random()?;
    let text = match passphrase {
        None => Zeroizing::new(hex(secret.bytes()) + "\n"),
        Some(passphrase) => {
            let found = find(passphrase)?;
            let stretch = found.new_stretch()?;
            let nonce: [u8; NONCE_BYTES] = random()?;
            let head = head(&stretch, nonce);
            let mut sealed = Vec::with_capacity(SECRET_BYTES + TAG_BYTES);
            sealed.extend_from_slice(secret.bytes());
            key(&found, &stretch).expect("its own parameters").seal(nonce, head.as_bytes(), &mut sealed, 0);
            Zeroizing::new(format!("{head}{}\n", hex(&sealed)))
        }
    };
    file::create_folder(file::parent(path))?;
    file::create(path, text.as_bytes())?;
    Ok(Zeroizing::new(*secret.bytes()))
}

/// Reads what [`create_key_file`] wrote.
///
/// # Errors
/// Others can read the file, it is none, or it is sealed and the passphrase is missing or another one.
pub fn read_key_file(path: &Path, passphrase: Option<&Path>) -> Result<Zeroizing<[u8; SECRET_BYTES]>, KeyError> {
    let text = file::read_private(path)?;
    let text = text.ok_or_else(|| KeyError::io("read", path)(std::io::ErrorKind::NotFound.into()))?;
    if let Some(secret) = unhex::<SECRET_BYTES>(text.trim_ascii()) {
        return Ok(secret);
    }
    let wrong = |expected| KeyError::Format { path: path.to_owned(), expected };
    let sealed = parse(&text).ok_or_else(|| wrong("a key is 64 hexadecimal digits, or sealed under a passphrase"))?;
    let passphrase = passphrase.ok_or_else(|| wrong("the key is sealed: name the file of its passphrase"))?;
    let found = find(passphrase)?;
    let Sealed { stretch, nonce, mut bytes } = sealed;
    let key = key(&found, &stretch).ok_or_else(|| wrong("the key asks for a stretching that is not done here"))?;
    let head = head(&stretch, nonce);
    let opened = key.open(nonce, head.as_bytes(), bytes.as_mut()).and_then(|opened| opened.try_into().ok());
    opened.map(Zeroizing::new).ok_or_else(|| wrong("the passphrase is another one, or the file was changed"))
}

struct Sealed {
    stretch: Stretch,
    nonce: [u8; NONCE_BYTES],
    bytes: Zeroizing<[u8; SECRET_BYTES + TAG_BYTES]>,
}

fn parse(text: &[u8]) -> Option<Sealed> {
    let text = std::str::from_utf8(text).ok()?;
    let words: Vec<&str> = text.trim_end().split(' ').collect();
    let [magic, iterations, salt, nonce, sealed] = words[..] else { return None };
    let stretch = Stretch { iterations: iterations.parse().ok()?, salt: *unhex(salt.as_bytes())? };
    let nonce = *unhex(nonce.as_bytes())?;
    (magic == MAGIC).then_some(Sealed { stretch, nonce, bytes: unhex(sealed.as_bytes())? })
}

fn head(stretch: &Stretch, nonce: [u8; NONCE_BYTES]) -> String {
    format!("{MAGIC} {} {} {} ", stretch.iterations, hex(&stretch.salt), hex(&nonce))
}

fn find(passphrase: &Path) -> Result<Found, KeyError> {
    let found = KeySource::PassphraseFile(passphrase.to_owned()).find()?;
    found.ok_or_else(|| KeyError::io("read", passphrase)(std::io::ErrorKind::NotFound.into()))
}

fn key(found: &Found, stretch: &Stretch) -> Option<Secret> {
    Some(found.master(stretch)?.derive(&stretch.salt, PURPOSE))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn passphrase(folder: &Path, name: &str, text: &str) -> std::path::PathBuf {
        let path = folder.join(name);
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
        path
    }

    #[test]
    fn a_key_comes_back_and_a_sealed_one_only_with_its_passphrase() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let good = passphrase(folder.path(), "good", "correct horse battery\n");
        let other = passphrase(folder.path(), "other", "incorrect horse battery\n");
        for (name, sealed) in [("plain.key", None), ("sealed.key", Some(good.as_path()))] {
            let made = create_key_file(&at(name), sealed).expect("made");
            assert_eq!(fs::metadata(at(name)).expect("there").permissions().mode() & 0o777, 0o600);
            assert_eq!(*read_key_file(&at(name), sealed).expect("read"), *made);
            assert!(create_key_file(&at(name), sealed).is_err(), "a key is never overwritten");
            let text = fs::read_to_string(at(name)).expect("text");
            assert_eq!(text.contains(&hex(&*made)), sealed.is_none(), "a sealed key is not in its file");
        }
        for wrong in [None, Some(other.as_path())] {
            assert!(matches!(read_key_file(&at("sealed.key"), wrong), Err(KeyError::Format { .. })));
        }
        fs::set_permissions(at("plain.key"), fs::Permissions::from_mode(0o640)).expect("set");
        assert!(matches!(read_key_file(&at("plain.key"), None), Err(KeyError::Readable { .. })));
    }

    #[test]
    fn a_changed_key_file_is_refused_whatever_was_changed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("sealed.key");
        let good = passphrase(folder.path(), "good", "correct horse battery\n");
        create_key_file(&path, Some(&good)).expect("made");
        let text = fs::read_to_string(&path).expect("text");
        let words: Vec<&str> = text.trim_end().split(' ').collect();
        for changed in 0..words.len() {
            let mut words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            // The last digit of each word becomes another one: few iterations more at most.
            let last = words[changed].pop().expect("no word is empty");
            words[changed].push(if last == '1' { '2' } else { '1' });
            fs::write(&path, words.join(" ")).expect("written");
            assert!(matches!(read_key_file(&path, Some(&good)), Err(KeyError::Format { .. })), "word {changed}");
        }
        for junk in ["", "starling-key-1", "starling-key-1 a b c d", "starling-key-1 0 00 00 00"] {
            fs::write(&path, junk).expect("written");
            assert!(matches!(read_key_file(&path, Some(&good)), Err(KeyError::Format { .. })), "{junk:?}");
        }
    }
}
