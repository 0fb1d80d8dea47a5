//! Opening a data file: gzip is told by its magic bytes, not by its name.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use crate::error::DataError;

/// No deflate stream unpacks to more than this many times its length (a 258-byte match in two bits, RFC 1951 §3.2.5).
const DEFLATE_RATIO_MAX: u64 = 1032;
const BUFFER_BYTES: usize = 64 * 1024;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// A data file, unpacked as it is read.
pub(crate) struct Source {
    /// Its name in messages.
    pub(crate) name: String,
    pub(crate) reader: Box<dyn BufRead>,
    /// At most so many bytes can come out of it: exact for a plain file.
    pub(crate) length_max: u64,
}

impl Source {
    pub(crate) fn open(path: &Path) -> Result<Self, DataError> {
        let name = path.display().to_string();
        let file = File::open(path).map_err(|error| DataError::io(&name, error))?;
        let metadata = file.metadata().map_err(|error| DataError::io(&name, error))?;
        if !metadata.is_file() {
            return Err(DataError::file(&name, "expected a file"));
        }
        Self::over(name, BufReader::with_capacity(BUFFER_BYTES, file), metadata.len())
    }

    pub(crate) fn of_bytes(name: &str, bytes: &'static [u8]) -> Result<Self, DataError> {
        Self::over(name.to_owned(), Cursor::new(bytes), bytes.len() as u64)
    }

    fn over(name: String, mut reader: impl BufRead + 'static, length: u64) -> Result<Self, DataError> {
        let packed = reader.fill_buf().map_err(|error| DataError::io(&name, error))?.starts_with(&GZIP_MAGIC);
        Ok(if packed {
            let unpacked = BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(reader));
            Self { name, reader: Box::new(unpacked), length_max: length.saturating_mul(DEFLATE_RATIO_MAX) }
        } else {
            Self { name, reader: Box::new(reader), length_max: length }
        })
    }

    pub(crate) fn read_exact(&mut self, buffer: &mut [u8]) -> Result<(), DataError> {
        self.reader.read_exact(buffer).map_err(|error| DataError::io(&self.name, error))
    }

    /// Whether all was read.
    pub(crate) fn at_end(&mut self) -> Result<bool, DataError> {
        let rest = self.reader.fill_buf().map_err(|error| DataError::io(&self.name, error))?;
        Ok(rest.is_empty())
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.reader.read(buffer)
    }
}
