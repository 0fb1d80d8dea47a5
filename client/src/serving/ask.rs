//! The other end of the local socket: asks a running daemon.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::codec::{ANSWER_BYTES_MAX, Answer, CodecError, LENGTH_BYTES, Request, Shape};

/// How long an answer may take: the first one may have to read the release and its data from the disk.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No daemon there.
    #[error("no client serves at {path}; is one running with this configuration, and does it have a release?")]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It hung up, or was silent for too long.
    #[error("the client's answer could not be read")]
    Answer(#[source] io::Error),
    /// The question or the answer is none.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The answer's length.
    #[error("the client's answer declares {0} bytes; at most {ANSWER_BYTES_MAX} are taken")]
    TooLong(usize),
    /// It said no.
    #[error("{text}")]
    Trouble {
        /// The status byte, a [`super::codec::Trouble`].
        status: u8,
        /// Why, in words.
        text: String,
    },
}

/// A connection to a daemon.
#[derive(Debug)]
pub struct Asker {
    stream: UnixStream,
    frame: Vec<u8>,
    outputs: Vec<f32>,
}

impl Asker {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// [`AskError::Unreachable`].
    pub fn connect(path: &Path) -> Result<Self, AskError> {
        let unreachable = |source| AskError::Unreachable { path: path.to_owned(), source };
        let stream = UnixStream::connect(path).map_err(unreachable)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(unreachable)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(unreachable)?;
        Ok(Self { stream, frame: Vec::new(), outputs: Vec::new() })
    }

    /// Asks for the outputs of `samples` samples of raw features; an empty `task` means the only one that is served.
    ///
    /// # Errors
    /// [`AskError`]; after [`AskError::Trouble`] the connection can be asked again.
    pub fn ask(&mut self, task: &str, samples: u32, features: &[f32]) -> Result<(Shape, &[f32]), AskError> {
        Request::encode_into(task, samples, features, &mut self.frame)?;
        self.stream.write_all(&self.frame).map_err(AskError::Answer)?;
        let mut prefix = [0u8; LENGTH_BYTES];
        self.stream.read_exact(&mut prefix).map_err(AskError::Answer)?;
        let length = usize::try_from(u32::from_le_bytes(prefix)).unwrap_or(usize::MAX);
        if length > ANSWER_BYTES_MAX {
            return Err(AskError::TooLong(length));
        }
        self.frame.resize(length, 0);
        self.stream.read_exact(&mut self.frame).map_err(AskError::Answer)?;
        match Answer::decode(&self.frame)? {
            Answer::Outputs(shape, outputs) => {
                self.outputs = outputs;
                Ok((shape, &self.outputs))
            }
            Answer::Trouble(status, text) => Err(AskError::Trouble { status, text }),
        }
    }
}
