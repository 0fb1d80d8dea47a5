//! Files that a user names and that have a largest sensible size.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system said no.
    #[error("{} cannot be read", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// More bytes than such a file may have.
    #[error("{} has more than {bytes_max} bytes, the most that {what} may have", .path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// What it should be: `a task file`.
        what: &'static str,
        /// The limit.
        bytes_max: u64,
    },
}

impl ReadError {
    /// The file.
    pub fn path(&self) -> &Path {
        let (Self::Unreadable { path, .. } | Self::TooLong { path, .. }) = self;
        path
    }
}

/// The bytes of the file at `path`, which should be `what` and have at most `bytes_max`. No more than one further byte is read, also of a
/// file that grows meanwhile.
///
/// # Errors
/// [`ReadError`].
pub fn read_at_most(path: &Path, what: &'static str, bytes_max: u64) -> Result<Vec<u8>, ReadError> {
    let unreadable = |source| ReadError::Unreadable { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    let length = file.metadata().map_err(unreadable)?.len();
    let too_long = || ReadError::TooLong { path: path.to_owned(), what, bytes_max };
    if length > bytes_max {
        return Err(too_long());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > bytes_max { Err(too_long()) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inv8_a_file_is_read_up_to_its_limit_and_refused_beyond() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("file");
        std::fs::write(&path, [7; 10]).expect("written");
        assert_eq!(read_at_most(&path, "a test", 10).expect("it fits"), [7; 10]);
        let error = read_at_most(&path, "a test", 9).expect_err("one too many").to_string();
        assert!(error.ends_with("has more than 9 bytes, the most that a test may have"), "{error}");
        // A file without a length of its own never ends.
        let endless = read_at_most(Path::new("/dev/zero"), "a test", 1000);
        assert!(matches!(endless, Err(ReadError::TooLong { .. })));
        let missing = read_at_most(&folder.path().join("none"), "a test", 9);
        assert!(matches!(missing, Err(ReadError::Unreadable { .. })));
    }
}
