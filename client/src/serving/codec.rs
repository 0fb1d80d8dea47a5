//! What travels over the local socket: one frame a question, one frame an answer, little-endian throughout.
//!
//! `docs/PROTOCOL.md` draws both. Nothing here reads a socket; whoever does compares a frame's length with its limit first
//! (invariant 8). Features are raw, as a sensor or a file has them: the daemon scales them.

use starling_spec::TaskKind;
use starling_wire::limits::NAME_BYTES_MAX;

/// Bytes of the length in front of a frame.
pub const LENGTH_BYTES: usize = 4;

/// Bytes of one question, its length left out: 1,300 images of 28 × 28. More samples are asked for in turn.
pub const REQUEST_BYTES_MAX: usize = 4 << 20;

/// Bytes of one answer, its length left out: the outputs of a language model of 256 tokens over 16,000 positions.
pub const ANSWER_BYTES_MAX: usize = 16 << 20;

/// The format of frames that this build speaks.
pub const FORMAT: u8 = 1;

/// Bytes of a question before its name.
const REQUEST_HEAD_BYTES: usize = 8;

/// Bytes of an answer before its outputs.
const ANSWER_HEAD_BYTES: usize = 24;

/// The one verb.
const PREDICT: u8 = 1;

const _: () = assert!(NAME_BYTES_MAX <= u16::MAX as usize, "a name's length fits in 16 bits");
const _: () = assert!(REQUEST_BYTES_MAX <= u32::MAX as usize, "a length of 32 bits holds a question");
const _: () = assert!(ANSWER_BYTES_MAX <= u32::MAX as usize, "and an answer");

/// Why a question has no answer: the status byte of a frame that says so in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Trouble {
    /// The frame is no question. The connection ends after it.
    Malformed = 1,
    /// No release of that task is here.
    NoRelease = 2,
    /// The samples are not those that the release takes.
    Samples = 3,
    /// The answer would be longer than [`ANSWER_BYTES_MAX`].
    TooLarge = 4,
    /// The release is here but cannot be run.
    Unavailable = 5,
    /// Too many connections.
    Busy = 6,
}

/// A frame that is no question, or no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// It ends early.
    #[error("the frame ends within its {0}")]
    Short(&'static str),
    /// Another format.
    #[error("a frame of format {0}; format {FORMAT} is spoken here")]
    Format(u8),
    /// Another verb.
    #[error("the verb {0} is not known here")]
    Verb(u8),
    /// A name that is too long or no text.
    #[error("the task's name is not 0 to {NAME_BYTES_MAX} bytes of UTF-8")]
    Name,
    /// Features that are no whole, equal samples.
    #[error("{bytes} bytes of features are not {samples} samples of 4-byte floats, at least one and all of one length")]
    Features {
        /// Bytes of features.
        bytes: usize,
        /// Samples declared.
        samples: u32,
    },
    /// A field with a value that no answer has.
    #[error("the answer's {0} cannot be what it says")]
    Field(&'static str),
}

/// A question.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Request<'a> {
    /// The task; empty means the only one that is served.
    pub task: &'a str,
    /// How many samples.
    pub samples: u32,
    /// Their raw features as little-endian `f32`, sample after sample: a multiple of 4 · `samples` bytes.
    features: &'a [u8],
}

impl<'a> Request<'a> {
    /// The question in a frame's body.
    ///
    /// # Errors
    /// [`CodecError`] says what no question has.
    pub fn decode(body: &'a [u8]) -> Result<Self, CodecError> {
        let (head, rest) = body.split_first_chunk::<REQUEST_HEAD_BYTES>().ok_or(CodecError::Short("head"))?;
        let [format, verb, n0, n1, s0, s1, s2, s3] = *head;
        if format != FORMAT {
            return Err(CodecError::Format(format));
        }
        if verb != PREDICT {
            return Err(CodecError::Verb(verb));
        }
        let name = usize::from(u16::from_le_bytes([n0, n1]));
        if name > NAME_BYTES_MAX {
            return Err(CodecError::Name);
        }
        let (name, features) = rest.split_at_checked(name).ok_or(CodecError::Short("name"))?;
        let task = std::str::from_utf8(name).map_err(|_| CodecError::Name)?;
        let samples = u32::from_le_bytes([s0, s1, s2, s3]);
        let whole = usize::try_from(samples).ok().and_then(|samples| samples.checked_mul(4)).filter(|unit| *unit > 0);
        match whole {
            Some(unit) if !features.is_empty() && features.len().is_multiple_of(unit) => {
                Ok(Self { task, samples, features })
            }
            _ => Err(CodecError::Features { bytes: features.len(), samples }),
        }
    }

    /// Values a sample.
    pub fn sample_len(&self) -> usize {
        self.features.len() / 4 / usize::try_from(self.samples).unwrap_or(usize::MAX).max(1)
    }

    /// Replaces `out` by the features.
    pub fn features_into(&self, out: &mut Vec<f32>) {
        floats_into(self.features, out);
    }

    /// Replaces `frame` by the question, length first.
    ///
    /// # Errors
    /// [`CodecError::Features`] or [`CodecError::Name`] when no daemon would take it.
    pub fn encode_into(task: &str, samples: u32, features: &[f32], frame: &mut Vec<u8>) -> Result<(), CodecError> {
        let bytes = features.len() * 4;
        let name = u16::try_from(task.len()).ok().filter(|len| usize::from(*len) <= NAME_BYTES_MAX);
        let name = name.ok_or(CodecError::Name)?;
        let length = REQUEST_HEAD_BYTES + task.len() + bytes;
        let whole = usize::try_from(samples).is_ok_and(|samples| samples > 0 && features.len().is_multiple_of(samples));
        if !whole || features.is_empty() || length > REQUEST_BYTES_MAX {
            return Err(CodecError::Features { bytes, samples });
        }
        frame.clear();
        frame.extend(u32::try_from(length).expect("checked against REQUEST_BYTES_MAX").to_le_bytes());
        frame.extend([FORMAT, PREDICT]);
        frame.extend(name.to_le_bytes());
        frame.extend(samples.to_le_bytes());
        frame.extend(task.as_bytes());
        features.iter().for_each(|value| frame.extend(value.to_le_bytes()));
        Ok(())
    }
}

/// What an answer says of its outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// What is predicted.
    pub kind: TaskKind,
    /// The release's version.
    pub version: u64,
    /// Samples that were asked for.
    pub samples: u32,
    /// Outputs a sample.
    pub outputs: u32,
    /// Outputs of one position, of which the largest is the class or token; 1 in a regression.
    pub width: u32,
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// The outputs, sample after sample.
    Outputs(Shape, Vec<f32>),
    /// Why there are none: the status, and words.
    Trouble(u8, String),
}

impl Answer {
    /// Replaces `frame` by an answer of outputs, length first. `None`, and an empty frame, when it would be too long.
    pub fn encode_into(shape: &Shape, outputs: &[f32], frame: &mut Vec<u8>) -> Option<()> {
        frame.clear();
        let length = outputs.len().checked_mul(4)?.checked_add(ANSWER_HEAD_BYTES)?;
        let length = u32::try_from(length).ok().filter(|_| length <= ANSWER_BYTES_MAX)?;
        let kind = match shape.kind {
            TaskKind::Classification => 0,
            TaskKind::Regression => 1,
            TaskKind::NextToken => 2,
        };
        frame.extend(length.to_le_bytes());
        frame.extend([FORMAT, 0, kind, 0]);
        frame.extend(shape.version.to_le_bytes());
        frame.extend(shape.samples.to_le_bytes());
        frame.extend(shape.outputs.to_le_bytes());
        frame.extend(shape.width.to_le_bytes());
        outputs.iter().for_each(|value| frame.extend(value.to_le_bytes()));
        Some(())
    }

    /// Replaces `frame` by an answer of words, length first.
    pub fn encode_trouble(trouble: Trouble, text: &str, frame: &mut Vec<u8>) {
        frame.clear();
        let text = &text.as_bytes()[..text.len().min(1024)];
        frame.extend(u32::try_from(text.len() + 4).expect("a short text").to_le_bytes());
        frame.extend([FORMAT, trouble as u8, 0, 0]);
        frame.extend(text);
    }

    /// The answer in a frame's body.
    ///
    /// # Errors
    /// [`CodecError`] says what no answer has.
    pub fn decode(body: &[u8]) -> Result<Self, CodecError> {
        let (head, rest) = body.split_first_chunk::<4>().ok_or(CodecError::Short("head"))?;
        if head[0] != FORMAT {
            return Err(CodecError::Format(head[0]));
        }
        if head[1] != 0 {
            return Ok(Self::Trouble(head[1], String::from_utf8_lossy(rest).into_owned()));
        }
        let kind = match head[2] {
            0 => TaskKind::Classification,
            1 => TaskKind::Regression,
            2 => TaskKind::NextToken,
            _ => return Err(CodecError::Field("kind")),
        };
        let (version, rest) = rest.split_first_chunk::<8>().ok_or(CodecError::Short("head"))?;
        let (sizes, rest) = rest.split_first_chunk::<12>().ok_or(CodecError::Short("head"))?;
        let size = |at: usize| u32::from_le_bytes([sizes[at], sizes[at + 1], sizes[at + 2], sizes[at + 3]]);
        let (samples, outputs, width) = (size(0), size(4), size(8));
        if u64::from(samples) * u64::from(outputs) * 4 != rest.len() as u64 {
            return Err(CodecError::Short("outputs"));
        }
        if width == 0 || !outputs.is_multiple_of(width) {
            return Err(CodecError::Field("width"));
        }
        let mut values = Vec::new();
        floats_into(rest, &mut values);
        Ok(Self::Outputs(Shape { kind, version: u64::from_le_bytes(*version), samples, outputs, width }, values))
    }
}

fn floats_into(bytes: &[u8], out: &mut Vec<f32>) {
    out.clear();
    let (values, _) = bytes.as_chunks::<4>();
    out.extend(values.iter().map(|value| f32::from_le_bytes(*value)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question() -> Vec<u8> {
        let mut frame = Vec::new();
        Request::encode_into("ab", 2, &[1.0, -2.0, 0.5, 0.0], &mut frame).expect("a question");
        frame
    }

    #[test]
    fn a_question_has_the_bytes_that_the_protocol_document_draws() {
        let mut expected = vec![26, 0, 0, 0, 1, 1, 2, 0, 2, 0, 0, 0, b'a', b'b'];
        for value in [1.0f32, -2.0, 0.5, 0.0] {
            expected.extend(value.to_le_bytes());
        }
        assert_eq!(question(), expected);
        let read = Request::decode(&expected[LENGTH_BYTES..]).expect("a question");
        let mut features = Vec::new();
        read.features_into(&mut features);
        assert_eq!((read.task, read.samples, read.sample_len()), ("ab", 2, 2));
        assert_eq!(features, [1.0, -2.0, 0.5, 0.0]);
    }

    #[test]
    fn inv8_a_question_cut_at_any_byte_or_longer_is_refused() {
        let frame = question();
        let body = &frame[LENGTH_BYTES..];
        for cut in 0..body.len() {
            // Two samples of one value are a question, too: only its length tells, and the frame's length is known.
            if cut != body.len() - 8 {
                assert!(Request::decode(&body[..cut]).is_err(), "cut at {cut}");
            }
        }
        assert!(Request::decode(&[body, &[0]].concat()).is_err());
        let mut none = body.to_vec();
        none[4..8].fill(0);
        assert!(matches!(Request::decode(&none), Err(CodecError::Features { samples: 0, .. })));
        none[4..8].fill(0xff);
        assert!(matches!(Request::decode(&none), Err(CodecError::Features { .. })));
        let mut long = body.to_vec();
        long[2..4].fill(0xff);
        assert_eq!(Request::decode(&long), Err(CodecError::Name));
        for (at, wrong) in [(0, CodecError::Format(9)), (1, CodecError::Verb(9)), (8, CodecError::Name)] {
            let mut body = body.to_vec();
            body[at] = if at == 8 { 0xff } else { 9 };
            assert_eq!(Request::decode(&body), Err(wrong));
        }
    }

    #[test]
    fn inv8_a_question_over_the_limit_is_not_written() {
        let features = vec![0.0; REQUEST_BYTES_MAX / 4];
        let mut frame = Vec::new();
        assert!(Request::encode_into("", 1, &features, &mut frame).is_err());
        assert!(Request::encode_into("", 1, &features[2..], &mut frame).is_ok());
        assert_eq!(frame.len(), LENGTH_BYTES + REQUEST_BYTES_MAX);
    }

    #[test]
    fn an_answer_reads_what_it_writes_and_no_cut_of_it() {
        let shape = Shape { kind: TaskKind::Classification, version: 7, samples: 2, outputs: 2, width: 2 };
        let mut frame = Vec::new();
        Answer::encode_into(&shape, &[0.5, 1.0, -1.0, 3.0], &mut frame).expect("short");
        let body = &frame[LENGTH_BYTES..];
        assert_eq!(Answer::decode(body), Ok(Answer::Outputs(shape, vec![0.5, 1.0, -1.0, 3.0])));
        (0..body.len()).for_each(|cut| assert!(Answer::decode(&body[..cut]).is_err(), "cut at {cut}"));
        assert!(Answer::decode(&[body, &[0]].concat()).is_err());
        Answer::encode_trouble(Trouble::NoRelease, "none", &mut frame);
        assert_eq!(Answer::decode(&frame[LENGTH_BYTES..]), Ok(Answer::Trouble(2, "none".into())));
        let long = vec![0.0; ANSWER_BYTES_MAX / 4];
        assert_eq!(Answer::encode_into(&shape, &long, &mut frame), None);
        assert!(frame.is_empty());
    }
}
