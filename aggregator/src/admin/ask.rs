//! The operator's end of the socket. It blocks: it is called by commands.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::PATIENCE;
use crate::export::WEIGHTS_BYTES_MAX;

/// Bytes of one answer: a run of 100,000 rounds.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// Why the daemon could not be asked, or what it said no to.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// No daemon there.
    #[error("no aggregator answers at {path}; is it running with this state folder?")]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It hung up or answered nonsense.
    #[error("the aggregator's answer could not be read")]
    Answer(#[source] io::Error),
    /// The file that goes with the request or the answer could not be read or written.
    #[error("the file could not be passed on")]
    File(#[source] io::Error),
    /// It said no.
    #[error("{0}")]
    Refused(String),
}

/// Asks the daemon that listens at `path`.
///
/// # Errors
/// When there is none, or when it says no.
pub fn ask(path: &Path, request: &Value) -> Result<Value, AdminError> {
    let mut answer = Asked::new(path, request)?.line()?;
    Ok(answer["ok"].take())
}

/// Asks with a request that announces a file of `length` bytes (as `weights_bytes`), and sends `file` when the daemon wants it.
///
/// # Errors
/// As [`ask`]; [`AdminError::File`] when `file` ends before `length` bytes.
pub fn ask_with_file(path: &Path, request: &Value, file: &mut dyn Read, length: u64) -> Result<Value, AdminError> {
    let mut asked = Asked::new(path, request)?;
    if asked.line()?["send"].as_u64() != Some(length) {
        return Err(AdminError::Answer(io::Error::other("the daemon wants another file than it was told of")));
    }
    let sent = io::copy(&mut file.take(length), asked.stream.get_mut()).map_err(AdminError::File)?;
    if sent != length {
        return Err(AdminError::File(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(asked.line()?["ok"].take())
}

/// Asks for a file, which goes to `into`.
///
/// # Errors
/// As [`ask`]; [`AdminError::File`] when it cannot be written.
pub fn ask_for_file(path: &Path, request: &Value, into: &mut dyn Write) -> Result<Value, AdminError> {
    let mut asked = Asked::new(path, request)?;
    let mut answer = asked.line()?;
    let length = answer["bytes"].as_u64().filter(|length| *length <= WEIGHTS_BYTES_MAX);
    let length = length.ok_or_else(|| AdminError::Answer(io::Error::other("no file of a sane length follows")))?;
    let copied = io::copy(&mut asked.stream.take(length), into).map_err(AdminError::File)?;
    if copied != length {
        return Err(AdminError::Answer(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(answer["ok"].take())
}

/// A conversation.
struct Asked {
    stream: BufReader<UnixStream>,
}

impl Asked {
    fn new(path: &Path, request: &Value) -> Result<Self, AdminError> {
        let unreachable = |source| AdminError::Unreachable { path: path.to_owned(), source };
        let mut stream = UnixStream::connect(path).map_err(unreachable)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(AdminError::Answer)?;
        stream.write_all(format!("{request}\n").as_bytes()).map_err(AdminError::Answer)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// The next line, if it is no refusal.
    fn line(&mut self) -> Result<Value, AdminError> {
        let mut line = String::new();
        (&mut self.stream).take(ANSWER_BYTES_MAX).read_line(&mut line).map_err(AdminError::Answer)?;
        let answer: Value = serde_json::from_str(&line).map_err(|error| AdminError::Answer(error.into()))?;
        match answer.get("error").and_then(Value::as_str) {
            Some(error) => Err(AdminError::Refused(error.to_owned())),
            None => Ok(answer),
        }
    }
}
