//! Where the master key comes from.

use std::env;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use ::ring::pbkdf2;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::error::KeyError;
use super::file;
use super::secret::{SECRET_BYTES, Secret, hex, random, unhex};

/// Iterations of PBKDF2-HMAC-SHA-256 for a new passphrase (OWASP's password storage cheat sheet, 2023: 600,000). The number in
/// use is in the key ring's header.
const PBKDF2_ITERATIONS: u32 = 600_000;
/// What a damaged or hostile header may ask for: ten times that, some seconds.
const PBKDF2_ITERATIONS_MAX: u32 = 10 * PBKDF2_ITERATIONS;
/// The shortest passphrase, in bytes.
const PASSPHRASE_BYTES_MIN: usize = 12;

/// Where the master key of a state folder comes from: the section `[key]` of both daemons' configurations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Section", into = "Section")]
pub enum KeySource {
    /// A file of mode 0600 with 64 hexadecimal digits; made from the system's entropy at the first start.
    File(PathBuf),
    /// A credential of systemd: the file of this name in `$CREDENTIALS_DIRECTORY`, 64 hexadecimal digits or 32 bytes.
    Credential(String),
    /// A file of mode 0600 with a passphrase of 12 bytes or more; the key is stretched from it.
    PassphraseFile(PathBuf),
}

/// The section as it is written.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    passphrase_file: Option<PathBuf>,
}

impl TryFrom<Section> for KeySource {
    type Error = KeyError;

    fn try_from(section: Section) -> Result<Self, KeyError> {
        match section {
            Section { file: Some(file), credential: None, passphrase_file: None } => Ok(Self::File(file)),
            Section { file: None, credential: Some(name), passphrase_file: None } => {
                if name.is_empty() || name.contains('/') || name.starts_with('.') {
                    return Err(KeyError::CredentialName(name));
                }
                Ok(Self::Credential(name))
            }
            Section { file: None, credential: None, passphrase_file: Some(file) } => Ok(Self::PassphraseFile(file)),
            _ => Err(KeyError::Sources),
        }
    }
}

impl From<KeySource> for Section {
    fn from(source: KeySource) -> Self {
        match source {
            KeySource::File(file) => Self { file: Some(file), ..Self::default() },
            KeySource::Credential(name) => Self { credential: Some(name), ..Self::default() },
            KeySource::PassphraseFile(file) => Self { passphrase_file: Some(file), ..Self::default() },
        }
    }
}

/// How a key is stretched from what the source holds; part of the key ring's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// Iterations of PBKDF2; 0 when the source holds a whole key.
    pub(crate) iterations: u32,
    pub(crate) salt: [u8; 16],
}

/// What was found at a source.
pub(crate) enum Found {
    Key(Secret),
    Passphrase(Zeroizing<Vec<u8>>),
}

impl KeySource {
    /// The source when the configuration names none: a file **beside** the state folder (`state` → `state.key`), so that a copy
    /// of the state folder alone does not open.
    pub fn beside(state: &Path) -> Self {
        let mut name = state.file_name().unwrap_or_default().to_owned();
        name.push(".key");
        Self::File(state.with_file_name(name))
    }

    /// With relative paths starting at `base`.
    pub fn from_folder(self, base: &Path) -> Self {
        match self {
            Self::File(file) => Self::File(base.join(file)),
            Self::PassphraseFile(file) => Self::PassphraseFile(base.join(file)),
            Self::Credential(name) => Self::Credential(name),
        }
    }

    /// For messages.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::File(file) => file.display().to_string(),
            Self::Credential(name) => format!("the credential {name:?}"),
            Self::PassphraseFile(file) => format!("the passphrase in {}", file.display()),
        }
    }

    /// Where the secret lies.
    pub(crate) fn path(&self) -> Result<PathBuf, KeyError> {
        match self {
            Self::File(file) | Self::PassphraseFile(file) => Ok(file.clone()),
            Self::Credential(name) => {
                let folder = env::var_os("CREDENTIALS_DIRECTORY").ok_or(KeyError::NoCredentials(name.clone()))?;
                Ok(PathBuf::from(folder).join(name))
            }
        }
    }

    /// Reads what is there.
    pub(crate) fn find(&self) -> Result<Option<Found>, KeyError> {
        let path = self.path()?;
        let refuse = |expected| Err(KeyError::Format { path: path.clone(), expected });
        match self {
            Self::File(_) => {
                let Some(text) = file::read_private(&path)? else { return Ok(None) };
                match unhex::<SECRET_BYTES>(text.trim_ascii()) {
                    Some(bytes) => Ok(Some(Found::Key(Secret::new(*bytes)))),
                    None => refuse("a master key is 64 hexadecimal digits"),
                }
            }
            // systemd gives credentials to the service alone, whatever mode they have.
            Self::Credential(_) => {
                let Some(text) = file::read(&path)? else { return Ok(None) };
                let raw = <[u8; SECRET_BYTES]>::try_from(&text[..]).map(Zeroizing::new).ok();
                match raw.or_else(|| unhex::<SECRET_BYTES>(text.trim_ascii())) {
                    Some(bytes) => Ok(Some(Found::Key(Secret::new(*bytes)))),
                    None => refuse("a credential with a master key is 64 hexadecimal digits or 32 bytes"),
                }
            }
            Self::PassphraseFile(_) => {
                let Some(text) = file::read_private(&path)? else { return Ok(None) };
                let passphrase = text.strip_suffix(b"\n").unwrap_or(&text);
                if passphrase.len() < PASSPHRASE_BYTES_MIN {
                    return refuse("a passphrase has at least 12 bytes");
                }
                Ok(Some(Found::Passphrase(Zeroizing::new(passphrase.to_vec()))))
            }
        }
    }

    /// Makes a new key in a file that is not there yet.
    pub(crate) fn create(path: &Path) -> Result<Secret, KeyError> {
        let secret = Secret::random()?;
        let mut text = Zeroizing::new(String::with_capacity(2 * SECRET_BYTES + 1));
        secret.bytes().iter().for_each(|byte| text.push_str(&hex(&[*byte])));
        text.push('\n');
        file::create_folder(file::parent(path))?;
        file::create(path, text.as_bytes())?;
        Ok(secret)
    }
}

impl Found {
    /// How a new key ring says that this was stretched.
    pub(crate) fn new_stretch(&self) -> Result<Stretch, KeyError> {
        let iterations = if matches!(self, Self::Passphrase(_)) { PBKDF2_ITERATIONS } else { 0 };
        Ok(Stretch { iterations, salt: random()? })
    }

    /// The master key; `None` when it is of another kind than the ring was sealed with. A passphrase is stretched anew each time: it is slow on purpose.
    pub(crate) fn master(&self, stretch: &Stretch) -> Option<Secret> {
        match (self, NonZeroU32::new(stretch.iterations)) {
            (Self::Key(secret), None) => Some(secret.again()),
            (Self::Passphrase(text), Some(iterations)) if iterations.get() <= PBKDF2_ITERATIONS_MAX => {
                let mut key = Zeroizing::new([0; SECRET_BYTES]);
                pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &stretch.salt, text, key.as_mut());
                Some(Secret::new(*key))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_default_key_lies_beside_the_state_and_not_in_it() {
        let source = KeySource::beside(Path::new("/var/lib/starling/state"));
        assert_eq!(source, KeySource::File("/var/lib/starling/state.key".into()));
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        KeySource::create(&path).expect("made");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        let source = KeySource::File(path.clone());
        assert!(matches!(source.find(), Ok(Some(Found::Key(_)))));
        for mode in [0o640, 0o604, 0o660] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
            assert!(matches!(source.find(), Err(KeyError::Readable { mode: found, .. }) if found == mode));
        }
        assert!(KeySource::create(&path).is_err(), "a key is never overwritten");
    }

    #[test]
    fn a_passphrase_is_stretched_with_the_parameters_of_the_header() {
        let found = Found::Passphrase(Zeroizing::new(b"correct horse".to_vec()));
        let stretch = Stretch { iterations: 2, salt: [1; 16] };
        let key = found.master(&stretch).expect("stretched");
        assert_ne!(key.bytes(), found.master(&Stretch { iterations: 3, ..stretch }).expect("stretched").bytes());
        assert!(found.master(&Stretch { iterations: 0, ..stretch }).is_none());
        assert!(
            found.master(&Stretch { iterations: u32::MAX, ..stretch }).is_none(),
            "a header cannot stop the daemon"
        );
        assert_eq!(found.new_stretch().expect("entropy").iterations, PBKDF2_ITERATIONS);
    }
}
