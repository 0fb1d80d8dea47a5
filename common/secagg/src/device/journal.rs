//! What is on the disk before it is on the wire, and what a process that starts again can do with it.

use std::collections::BTreeMap;
use std::fmt;

use starling_wire::Digest;

use crate::message::Kind;
use crate::refused::Refused;
use crate::setup::Setup;
use starling_wire::Reader;

const MAGIC: &[u8; 4] = b"StSj";
const DIGEST_AT: usize = 4 + 32;
const MESSAGE_AT: usize = DIGEST_AT + 32;

/// A message that may leave the device once its record is durable. The record holds no secret: it is the message, which the
/// aggregator will see anyway.
///
/// ```text
///  0  4  "StSj"
///  4 32  digest of the setup
/// 36 32  SHA-256 of the first 36 bytes and of the message
/// 68  …  the message
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Unsent {
    record: Vec<u8>,
}

impl fmt::Debug for Unsent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unsent({} bytes)", self.record.len())
    }
}

impl Unsent {
    pub(crate) fn new(about: &Digest, message: &[u8]) -> Self {
        let mut record = Vec::with_capacity(MESSAGE_AT + message.len());
        record.extend_from_slice(MAGIC);
        record.extend_from_slice(&about.0);
        let digest = Digest::of_parts(&[&record, message]);
        record.extend_from_slice(&digest.0);
        record.extend_from_slice(message);
        Self { record }
    }

    /// What has to be durable first: appended to the attempt's journal, fsynced. Writing it twice does no harm.
    pub fn record(&self) -> &[u8] {
        &self.record
    }

    /// The message, for a caller who has made the record durable.
    pub fn persisted(mut self) -> Vec<u8> {
        self.record.drain(..MESSAGE_AT);
        self.record
    }
}

/// A device whose process has started again in the middle of an attempt, or from an old copy of its disk. Its keys are gone: what it says was
/// said before, byte for byte, so no seed masks two vectors and no two survivor lists are confirmed, whatever the age of
/// the copy.
pub struct Restored {
    messages: BTreeMap<u8, Vec<u8>>,
}

impl fmt::Debug for Restored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Restored({} messages)", self.messages.len())
    }
}

impl Restored {
    /// Reads the records of an attempt. A record that is torn was never sent, and is left out; so is one of another attempt.
    pub fn read<'a>(setup: &Setup, records: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let about = setup.digest();
        let messages = records.into_iter().filter_map(|record| message_of(record, &about));
        Self { messages: messages.filter_map(|message| Some((*message.get(1)?, message.to_vec()))).collect() }
    }

    /// The advertisement, if it was sent.
    pub fn advertisement(&self) -> Option<&[u8]> {
        self.messages.get(&(Kind::Advertise as u8)).map(Vec::as_slice)
    }

    /// The masked input, if it was sent.
    pub fn masked(&self) -> Option<&[u8]> {
        self.messages.get(&(Kind::Masked as u8)).map(Vec::as_slice)
    }

    /// What was answered to the aggregator's message of the kind that `bytes` are, whatever they say now.
    ///
    /// # Errors
    /// [`Refused::Burned`] when that phase was not answered before.
    pub fn handle(&self, bytes: &[u8]) -> Result<&[u8], Refused> {
        // Each message of the aggregator is answered by the kind after it.
        let answer = bytes.get(1).map_or(0, |kind| kind.saturating_add(1));
        self.messages.get(&answer).map(Vec::as_slice).ok_or(Refused::Burned)
    }
}

fn message_of<'a>(record: &'a [u8], about: &Digest) -> Option<&'a [u8]> {
    let mut reader = Reader::new(record);
    let fits = reader.array().ok()? == *MAGIC && reader.digest().ok()? == *about;
    let digest = reader.digest().ok()?;
    let message = reader.remainder();
    (fits && digest == Digest::of_parts(&[&record[..DIGEST_AT], message])).then_some(message)
}
