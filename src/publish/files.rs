//! Keys, bundles and dates, as the verbs of `starling publish` read and write them.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use starling_daemon::{now_unix_s, read_at_most};
use starling_trust::limits::BUNDLE_BYTES_MAX;
use starling_trust::{Bundle, Head, PublicKey, SigningKey, Trusted};
use starling_wire::Digest;

/// The keys that sign.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct KeyArgs {
    /// A key that signs, as `starling publish key` made it; can be given again
    #[arg(long = "key", value_name = "FILE")]
    keys: Vec<PathBuf>,
    /// A file of mode 0600 with the passphrase of the keys that are sealed
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl KeyArgs {
    /// Reads them.
    pub(crate) fn read(&self) -> Result<Vec<SigningKey>> {
        let read = |path: &PathBuf| {
            let seed = starling_store::read_key_file(path, self.passphrase_file.as_deref())?;
            Ok(SigningKey::from_seed(seed))
        };
        self.keys.iter().map(read).collect()
    }
}

/// The public key in a file.
pub(crate) fn read_public(path: &Path) -> Result<PublicKey> {
    let shown = path.display();
    let text = read_at_most(path, "a bundle or a key", BUNDLE_BYTES_MAX as u64)?;
    let text = String::from_utf8(text).ok().with_context(|| format!("{shown} is no text"))?;
    text.trim().parse().with_context(|| {
        format!("{shown} is no public key: the .pub file that `starling publish key` wrote holds 64 hexadecimal digits")
    })
}

/// The bundle in a file.
pub(crate) fn read_bundle(path: &Path) -> Result<Bundle> {
    Bundle::parse(&read_at_most(path, "a bundle or a key", BUNDLE_BYTES_MAX as u64)?)
        .with_context(|| format!("{} is no bundle", path.display()))
}

/// The roots in a file, each checked against the one before.
pub(crate) fn read_roots(path: &Path) -> Result<(Bundle, Trusted)> {
    let bytes = read_at_most(path, "a bundle or a key", BUNDLE_BYTES_MAX as u64)?;
    let wrong = || format!("{} holds no complete root of trust", path.display());
    let trusted = Trusted::pin(&bytes).with_context(wrong)?;
    Ok((Bundle::parse(&bytes).with_context(wrong)?, trusted))
}

/// Writes a bundle, in one step in the place of the one that is there.
pub(crate) fn write_bundle(path: &Path, bundle: &Bundle) -> Result<()> {
    let unwritable = || format!("{} cannot be written", path.display());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).with_context(unwritable)?;
    file.write_all(&bundle.to_bytes()?).and_then(|()| file.as_file().sync_all()).with_context(unwritable)?;
    readable_by_all(file.as_file()).with_context(unwritable)?;
    file.persist(path).with_context(unwritable)?;
    Ok(())
}

/// A bundle is public, and an aggregator under another user may have to read it.
fn readable_by_all(file: &std::fs::File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

/// A head that is issued now.
pub(crate) fn head(version: u64, expires_s: u64, origin: Digest) -> Result<Head> {
    let issued_unix_s = now_unix_s();
    let expires_unix_s = issued_unix_s.checked_add(expires_s).context("--expires lies beyond what can be counted")?;
    Ok(Head { version, issued_unix_s, expires_unix_s, origin })
}

/// `name` with `.bundle` after it.
pub(crate) fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".bundle");
    PathBuf::from(name)
}
