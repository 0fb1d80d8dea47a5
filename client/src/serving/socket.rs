//! The local socket: whoever runs the daemon may ask it for predictions.
//!
//! Only the daemon's own user, or root, is heard ([`crate::local`]). A connection is served by a thread of its own, with an engine of its own, and
//! neither waits for training nor for the network. There is no socket before there is a release, and no thread before somebody connects.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use starling_engine::{Engine, Inference};
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

use super::codec::{Answer, LENGTH_BYTES, REQUEST_BYTES_MAX, Request, Trouble};
use super::model::Model;
use super::releases::{NoModel, Releases};
use crate::local;

/// Connections at once: each holds a thread, an engine and the buffers of its largest question.
const CONNECTIONS_MAX: usize = 16;

/// How long a connection may say nothing, or take no answer.
const PATIENCE: Duration = Duration::from_secs(600);

/// The stack of a connection's thread. Only touched pages cost memory.
const STACK_BYTES: usize = 2 << 20;

/// The first buffer of a connection: a question of an image of 28 × 28 fits.
const BUFFER_BYTES: usize = 8 << 10;

/// How long to pause after the system could not accept a connection: it has no descriptors left, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// The listening socket. Its file goes with it, and connections end at their next question.
#[derive(Debug)]
pub(crate) struct Socket {
    accepting: JoinHandle<()>,
    path: PathBuf,
}

impl Socket {
    /// Listens at `path`, within a tokio runtime.
    ///
    /// # Errors
    /// What the system said; a path has at most 107 bytes.
    pub(crate) fn listen(path: &Path, releases: &Arc<Releases>) -> io::Result<Self> {
        let accepting = tokio::spawn(accept(local::listen(path)?, Arc::downgrade(releases)));
        Ok(Self { accepting, path: path.to_owned() })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.accepting.abort();
        // Best effort: a left-over file is replaced at the next start.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn accept(listener: UnixListener, releases: Weak<Releases>) {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the serving socket could not accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if !local::is_owner(&stream) {
            continue;
        }
        let Ok(stream) = stream.into_std() else { continue };
        let place = Place::take(&open);
        let releases = releases.clone();
        let spawned = std::thread::Builder::new()
            .name("starling-serving".to_owned())
            .stack_size(if place.is_some() { STACK_BYTES } else { 0 })
            .spawn(move || {
                let ended = match place {
                    Some(_place) => serve(stream, &releases),
                    None => turn_away(stream),
                };
                if let Err(error) = ended {
                    tracing::debug!(%error, "a serving connection ended");
                }
            });
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread for a serving connection");
        }
    }
}

/// One of [`CONNECTIONS_MAX`] places; given back on drop.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(open: &Arc<AtomicUsize>) -> Option<Self> {
        // Only the accepting task adds, so nobody passes the limit in between.
        if open.load(Ordering::Relaxed) >= CONNECTIONS_MAX {
            return None;
        }
        open.fetch_add(1, Ordering::Relaxed);
        Some(Self(Arc::clone(open)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn turn_away(mut stream: StdUnixStream) -> io::Result<()> {
    let mut frame = Vec::new();
    let text = format!("{CONNECTIONS_MAX} connections are open already; close one, or ask again later");
    Answer::encode_trouble(Trouble::Busy, &text, &mut frame);
    // A short frame fits into the socket's buffer: this does not block.
    stream.write_all(&frame)
}

/// Answers one question after the other until the peer, the daemon or its patience ends.
fn serve(mut stream: StdUnixStream, releases: &Weak<Releases>) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut questions = Questions::default();
    let mut answerer = Answerer::default();
    loop {
        match questions.next(&mut stream)? {
            Next::End => return Ok(()),
            Next::TooLong(length) => {
                let text = format!("a question of {length} bytes; at most {REQUEST_BYTES_MAX} are taken");
                Answer::encode_trouble(Trouble::Malformed, &text, &mut answerer.frame);
                return stream.write_all(&answerer.frame);
            }
            Next::Question => {}
        }
        // Gone when the daemon stops.
        let Some(releases) = releases.upgrade() else { return Ok(()) };
        let keep = answerer.answer(questions.body(), &releases);
        drop(releases);
        questions.consume();
        stream.write_all(&answerer.frame)?;
        if !keep {
            return Ok(());
        }
    }
}

/// What came of waiting for a question.
enum Next {
    /// A whole one is in the buffer.
    Question,
    /// The peer has gone.
    End,
    /// It declares more bytes than a question may have.
    TooLong(usize),
}

/// Frames off a stream: mostly one system call each.
#[derive(Default)]
struct Questions {
    buffer: Vec<u8>,
    filled: usize,
    /// Bytes of the frame at the front, its length included; known once four bytes are here.
    frame: usize,
}

impl Questions {
    fn next(&mut self, stream: &mut impl Read) -> io::Result<Next> {
        if self.buffer.is_empty() {
            self.buffer.resize(BUFFER_BYTES, 0);
        }
        loop {
            if let Some(prefix) = self.buffer[..self.filled].first_chunk::<LENGTH_BYTES>() {
                let length = usize::try_from(u32::from_le_bytes(*prefix)).unwrap_or(usize::MAX);
                if length > REQUEST_BYTES_MAX {
                    return Ok(Next::TooLong(length));
                }
                self.frame = LENGTH_BYTES + length;
                if self.filled >= self.frame {
                    return Ok(Next::Question);
                }
                // The length is within its limit: now there may be room for it (invariant 8).
                if self.buffer.len() < self.frame {
                    self.buffer.resize(self.frame, 0);
                }
            }
            match stream.read(&mut self.buffer[self.filled..]) {
                Ok(0) => return Ok(Next::End),
                Ok(read) => self.filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn body(&self) -> &[u8] {
        &self.buffer[LENGTH_BYTES..self.frame]
    }

    fn consume(&mut self) {
        self.buffer.copy_within(self.frame..self.filled, 0);
        self.filled -= self.frame;
    }
}

/// The engine and the buffers of a connection.
#[derive(Default)]
struct Answerer {
    running: Option<(Arc<Model>, Engine)>,
    features: Vec<f32>,
    outputs: Vec<f32>,
    frame: Vec<u8>,
}

impl Answerer {
    /// Puts the answer into `self.frame`. Whether the connection goes on.
    fn answer(&mut self, body: &[u8], releases: &Releases) -> bool {
        let request = match Request::decode(body) {
            Ok(request) => request,
            Err(error) => {
                Answer::encode_trouble(Trouble::Malformed, &error.to_string(), &mut self.frame);
                return false;
            }
        };
        if let Err((trouble, text)) = self.predict(&request, releases) {
            Answer::encode_trouble(trouble, &text, &mut self.frame);
        }
        true
    }

    fn predict(&mut self, request: &Request<'_>, releases: &Releases) -> Result<(), (Trouble, String)> {
        let model = releases.model(request.task).map_err(|error| {
            let trouble = match error {
                NoModel::NoRelease(_) | NoModel::Several(_) => Trouble::NoRelease,
                NoModel::Unreadable(_) | NoModel::Expired => Trouble::Unavailable,
            };
            (trouble, error.to_string())
        })?;
        if request.sample_len() != model.input_len() {
            let (task, expected) = (&model.offer().task, model.input_len());
            let text = format!("samples of {} values; task {task:?} takes {expected}", request.sample_len());
            return Err((Trouble::Samples, text));
        }
        let too_large = || (Trouble::TooLarge, "the answer would be too long; ask for fewer samples".to_owned());
        let shape = model.shape(request.samples).ok_or_else(too_large)?;
        if u64::from(shape.samples) * u64::from(shape.outputs) * 4 > super::codec::ANSWER_BYTES_MAX as u64 {
            return Err(too_large());
        }
        // The engine of the version before goes when a newer one is asked.
        let same = self.running.as_ref().is_some_and(|(running, _)| Arc::ptr_eq(running, &model));
        if !same {
            self.running = None;
            let engine = model.engine().map_err(|error| (Trouble::Unavailable, error.to_string()))?;
            self.running = Some((Arc::clone(&model), engine));
        }
        let (_, engine) = self.running.as_mut().expect("filled above");
        request.features_into(&mut self.features);
        model.scale(&mut self.features);
        self.outputs.clear();
        engine.run_into(&self.features, &mut self.outputs).map_err(|error| (Trouble::Samples, error.to_string()))?;
        Answer::encode_into(&shape, &self.outputs, &mut self.frame).ok_or_else(too_large)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::ask::{AskError, Asker};
    use super::*;
    use crate::serving::model::tests::{binding, offer, release_bytes};

    struct Serving {
        releases: Arc<Releases>,
        _socket: Socket,
        path: PathBuf,
        folder: tempfile::TempDir,
    }

    fn serving() -> Serving {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Arc::new(crate::state::tests::open_store(folder.path()).expect("a store"));
        let releases = Releases::open(store, vec![binding("embedded:optdigits")], None).expect("releases");
        let releases = Arc::new(releases);
        let path = folder.path().join("serve.sock");
        let socket = Socket::listen(&path, &releases).expect("a socket");
        Serving { releases, _socket: socket, path, folder }
    }

    fn install(serving: &Serving, version: u64, weight: f32) {
        let bytes = release_bytes(weight);
        serving.releases.install(&offer(version, &bytes), &bytes, None).expect("installed");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_connection_answers_from_the_newest_release_and_says_why_when_it_cannot() {
        let serving = serving();
        let mode = std::fs::metadata(&serving.path).expect("the socket's file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut asker = Asker::connect(&serving.path).expect("connected");
        let sample = [16.0; 64];
        let error = asker.ask("digits", 1, &sample).expect_err("none yet");
        assert!(matches!(&error, AskError::Trouble { status: 2, .. }), "{error}");
        install(&serving, 1, 1.0);
        let (shape, outputs) = asker.ask("", 1, &sample).expect("served");
        assert_eq!((shape.version, outputs), (1, &[64.0, -64.0][..]), "64 pixels, scaled to 1");
        install(&serving, 2, 2.0);
        let (shape, outputs) = asker.ask("digits", 2, &[[16.0; 64], [0.0; 64]].concat()).expect("served");
        assert_eq!((shape.version, shape.samples, outputs.len()), (2, 2, 4), "the same connection, the next version");
        for (samples, features) in [(1, vec![1.0; 63]), (1, vec![f32::NAN; 64])] {
            let error = asker.ask("digits", samples, &features).expect_err("wrong");
            assert!(matches!(&error, AskError::Trouble { status: 3, .. }), "{error}");
        }
        asker.ask("digits", 1, &sample).expect("the connection goes on");
        drop(serving.folder);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn inv6_inv8_connections_and_questions_are_bounded() {
        let serving = serving();
        install(&serving, 1, 1.0);
        let mut stream = StdUnixStream::connect(&serving.path).expect("connected");
        stream.write_all(&[0xff; 4]).expect("four bytes");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer, then the end");
        assert!(matches!(Answer::decode(&answer[LENGTH_BYTES..]), Ok(Answer::Trouble(1, _))));

        let mut askers = Vec::new();
        let refused = starling_testkit::until("a connection that is too many", PATIENCE, || {
            let mut asker = Asker::connect(&serving.path).expect("connected");
            let answer = asker.ask("digits", 1, &[1.0; 64]).map(|_| ());
            askers.push(asker);
            answer.err()
        });
        assert!(askers.len() > CONNECTIONS_MAX, "{}", askers.len());
        assert!(matches!(&refused, AskError::Trouble { status: 6, .. }), "{refused}");
        askers.clear();
        starling_testkit::until("a place to be free again", PATIENCE, || {
            Asker::connect(&serving.path).expect("connected").ask("digits", 1, &[1.0; 64]).map(|_| ()).ok()
        });
    }

    #[test]
    fn questions_are_found_however_the_bytes_come() {
        let mut frame = Vec::new();
        Request::encode_into("ab", 1, &[1.0, 2.0], &mut frame).expect("a question");
        let twice = [frame.clone(), frame.clone()].concat();
        struct Drip<'a>(&'a [u8], usize);
        impl Read for Drip<'_> {
            fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
                let take = self.1.min(self.0.len()).min(out.len());
                out[..take].copy_from_slice(&self.0[..take]);
                self.0 = &self.0[take..];
                Ok(take)
            }
        }
        for step in 1..=twice.len() {
            let (mut questions, mut stream) = (Questions::default(), Drip(&twice, step));
            for _ in 0..2 {
                assert!(matches!(questions.next(&mut stream), Ok(Next::Question)));
                assert_eq!(questions.body(), &frame[LENGTH_BYTES..]);
                questions.consume();
            }
            assert!(matches!(questions.next(&mut stream), Ok(Next::End)));
        }
    }
}
