//! The administrator's end: commands ask a daemon over its local socket, or over QUIC with a certificate. It blocks.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::ToSocketAddrs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use starling_net::{
    AdminLink, AdminStream, CloseReason, Credentials, CredentialsError, DialError, Endpoint, TlsFiles, Transport,
};
use starling_wire::Refusal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;

use super::ANSWER_PATIENCE;
use crate::export::WEIGHTS_BYTES_MAX;

/// Bytes of one answer: a run of 100,000 rounds.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// How long the end of a connection may take to be told.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

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
    /// The address is none.
    #[error("{address:?} is no address of an aggregator: expected HOST:PORT")]
    Address {
        /// As it was given.
        address: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The certificate cannot be used.
    #[error("the certificate in {folder} cannot be used")]
    Identity {
        /// The folder.
        folder: PathBuf,
        /// Why.
        #[source]
        source: CredentialsError,
    },
    /// No socket, no runtime.
    #[error("no connection can be made from this machine")]
    Local(#[source] io::Error),
    /// No aggregator there, or none that this certificate's CA vouches for.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// It hung up or answered nonsense.
    #[error("the aggregator's answer could not be read")]
    Answer(#[source] io::Error),
    /// The file that goes with the request or the answer could not be read or written.
    #[error("the file could not be passed on")]
    File(#[source] io::Error),
    /// It said no.
    #[error("{0}")]
    Refused(String),
    /// Who asks may not: trying again does not help.
    #[error("{text} (code {code})")]
    Denied {
        /// Why.
        text: String,
        /// The refusal's code.
        code: u16,
    },
}

impl AdminError {
    /// Whether who asks may not, so that trying again cannot help.
    pub fn is_denied(&self) -> bool {
        match self {
            AdminError::Denied { .. } => true,
            AdminError::Dial(error) => error.refusal().is_some_and(Refusal::is_final),
            _ => false,
        }
    }
}

/// Asks the daemon that listens at `path` on this machine.
///
/// # Errors
/// When there is none, or when it says no.
pub fn ask(path: &Path, request: &Value) -> Result<Value, AdminError> {
    Daemon::here(path.to_owned()).ask(request)
}

/// A running daemon. Over QUIC one connection serves all that is asked.
pub struct Daemon {
    way: Way,
}

enum Way {
    Socket(PathBuf),
    Quic(Box<Quic>),
}

impl Daemon {
    /// The one whose socket is at `path`.
    pub fn here(path: PathBuf) -> Self {
        Self { way: Way::Socket(path) }
    }

    /// The one at `address` (HOST:PORT), with the certificate in `identity`: a folder with `certificate.pem`, `key.pem` and `ca.pem`.
    ///
    /// # Errors
    /// When the certificate cannot be used, or nobody answers whom its CA vouches for.
    pub fn remote(address: &str, identity: &Path) -> Result<Self, AdminError> {
        Ok(Self { way: Way::Quic(Box::new(Quic::connect(address, identity)?)) })
    }

    /// Asks, and returns the answer.
    ///
    /// # Errors
    /// When there is no daemon, or when it says no.
    pub fn ask(&self, request: &Value) -> Result<Value, AdminError> {
        let mut answer = self.begin(request)?.line()?;
        Ok(answer["ok"].take())
    }

    /// Asks with a request that announces a file of `length` bytes, and sends `file` when the daemon wants it.
    ///
    /// # Errors
    /// As [`Daemon::ask`]; [`AdminError::File`] when `file` ends before `length` bytes.
    pub fn ask_with_file(&self, request: &Value, file: &mut dyn Read, length: u64) -> Result<Value, AdminError> {
        let mut asked = self.begin(request)?;
        if asked.line()?["send"].as_u64() != Some(length) {
            return Err(AdminError::Answer(io::Error::other("the daemon wants another file than it was told of")));
        }
        let sent = io::copy(&mut file.take(length), asked.stream.get_mut()).map_err(failed(AdminError::File))?;
        if sent != length {
            return Err(AdminError::File(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(asked.line()?["ok"].take())
    }

    /// Asks for a file, which goes to `into`.
    ///
    /// # Errors
    /// As [`Daemon::ask`]; [`AdminError::File`] when it cannot be written.
    pub fn ask_for_file(&self, request: &Value, into: &mut dyn Write) -> Result<Value, AdminError> {
        let mut asked = self.begin(request)?;
        let mut answer = asked.line()?;
        let length = answer["bytes"].as_u64().filter(|length| *length <= WEIGHTS_BYTES_MAX);
        let length = length.ok_or_else(|| AdminError::Answer(io::Error::other("no file of a sane length follows")))?;
        let copied = io::copy(&mut asked.stream.take(length), into).map_err(failed(AdminError::File))?;
        if copied != length {
            return Err(AdminError::Answer(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(answer["ok"].take())
    }

    /// Waits at most `patience` until the aggregator ends the connection, and says why. `None` for a local socket, which is a connection a request.
    pub fn ended(&self, patience: Duration) -> Option<CloseReason> {
        let Way::Quic(quic) = &self.way else { return None };
        quic.runtime.block_on(async { tokio::time::timeout(patience, quic.link.closed()).await }).ok()
    }

    fn begin(&self, request: &Value) -> Result<Asked<'_>, AdminError> {
        let mut stream: Box<dyn Stream + '_> = match &self.way {
            Way::Socket(path) => {
                let unreachable = |source| AdminError::Unreachable { path: path.clone(), source };
                let stream = UnixStream::connect(path).map_err(unreachable)?;
                stream.set_read_timeout(Some(ANSWER_PATIENCE)).map_err(AdminError::Answer)?;
                Box::new(stream)
            }
            Way::Quic(quic) => Box::new(quic.open().map_err(failed(AdminError::Answer))?),
        };
        stream.write_all(format!("{request}\n").as_bytes()).map_err(failed(AdminError::Answer))?;
        Ok(Asked { stream: BufReader::new(stream) })
    }
}

/// What a conversation goes over.
trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

/// A conversation.
struct Asked<'a> {
    stream: BufReader<Box<dyn Stream + 'a>>,
}

impl Asked<'_> {
    /// The next line, if it is no refusal.
    fn line(&mut self) -> Result<Value, AdminError> {
        let mut line = String::new();
        (&mut self.stream).take(ANSWER_BYTES_MAX).read_line(&mut line).map_err(failed(AdminError::Answer))?;
        let answer: Value = serde_json::from_str(&line).map_err(|error| AdminError::Answer(error.into()))?;
        let Some(error) = answer.get("error").and_then(Value::as_str) else { return Ok(answer) };
        let text = error.to_owned();
        Err(match answer["code"].as_u64().and_then(|code| u16::try_from(code).ok()) {
            Some(code) => AdminError::Denied { text, code },
            None => AdminError::Refused(text),
        })
    }
}

/// A connection that the aggregator has ended with a reason is a no; every other failure is what `otherwise` makes of it.
fn failed(otherwise: impl Fn(io::Error) -> AdminError) -> impl Fn(io::Error) -> AdminError {
    move |error| match error.get_ref().and_then(|inner| inner.downcast_ref::<Ended>()) {
        Some(Ended { text, refusal }) if refusal.is_final() => {
            AdminError::Denied { text: text.clone(), code: refusal.code() }
        }
        _ => otherwise(error),
    }
}

/// The aggregator has ended the connection.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct Ended {
    text: String,
    refusal: Refusal,
}

/// A connection to a daemon elsewhere.
struct Quic {
    runtime: Runtime,
    endpoint: Endpoint,
    link: AdminLink,
}

impl Quic {
    fn connect(address: &str, identity: &Path) -> Result<Self, AdminError> {
        let file = |name| identity.join(name);
        let files = TlsFiles { ca: file("ca.pem"), certificate: file("certificate.pem"), key: file("key.pem") };
        let credentials =
            Credentials::load(&files).map_err(|source| AdminError::Identity { folder: identity.to_owned(), source })?;
        let wrong = |source| AdminError::Address { address: address.to_owned(), source };
        let addresses = address.to_socket_addrs().map_err(wrong)?;
        // The worker keeps the connection alive while the command does something else.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(AdminError::Local)?;
        let mut last = wrong(io::ErrorKind::NotFound.into());
        for remote in addresses {
            let connected = runtime.block_on(async {
                let endpoint = Endpoint::dialer(remote, &credentials, &Transport::default())
                    .map_err(|error| AdminError::Local(io::Error::other(error)))?;
                let link = endpoint.dial_admin(remote).await?;
                Ok::<_, AdminError>((endpoint, link))
            });
            match connected {
                Ok((endpoint, link)) => return Ok(Self { runtime, endpoint, link }),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn open(&self) -> io::Result<QuicStream<'_>> {
        let opened = self.runtime.block_on(async { tokio::time::timeout(ANSWER_PATIENCE, self.link.open()).await })?;
        let stream = opened.map_err(|_| self.why(io::ErrorKind::NotConnected.into()))?;
        Ok(QuicStream { quic: self, stream })
    }

    /// The reason that the aggregator gave, if it has ended the connection.
    fn why(&self, error: io::Error) -> io::Error {
        match self.link.close_reason() {
            Some(reason) => match reason.refusal {
                Some(refusal) => io::Error::other(Ended { text: reason.to_string(), refusal }),
                None => io::Error::other(reason),
            },
            None => error,
        }
    }
}

impl Drop for Quic {
    fn drop(&mut self) {
        self.link.finish();
        let idle = async { tokio::time::timeout(GOODBYE_TIMEOUT, self.endpoint.wait_idle()).await };
        // An aggregator that does not hear it learns of the end from silence.
        let _ = self.runtime.block_on(idle);
    }
}

/// One request's stream, blocking.
struct QuicStream<'a> {
    quic: &'a Quic,
    stream: AdminStream,
}

impl Read for QuicStream<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Self { quic, stream } = self;
        let read = async { tokio::time::timeout(ANSWER_PATIENCE, stream.read(into)).await };
        quic.runtime.block_on(read)?.map_err(|error| quic.why(error))
    }
}

impl Write for QuicStream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Self { quic, stream } = self;
        let written = async { tokio::time::timeout(ANSWER_PATIENCE, stream.write(bytes)).await };
        quic.runtime.block_on(written)?.map_err(|error| quic.why(error))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
