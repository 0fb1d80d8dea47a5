//! The release: a compressed model in one file, as devices download and run it.
//!
//! ```text
//! "STRL"  magic                                4 bytes
//! version 1                                    1
//! length of the head                           1 to 3, seven bits each, lowest first; the top bit says that more follow
//! head    JSON: name, kind, shape, scale, what it standardises by, layers; deflated against a fixed dictionary
//! length of the bits                           1 to 5, as above
//! bits    for each tensor of the layers' manifest: tag, counts, settings, Huffman-coded and packed streams
//! mixed   for all tensors, one arithmetic-coded stream; it ends where the digest begins
//! digest  the first 8 bytes of the SHA-256 of everything before it
//! ```
//!
//! All numbers are read byte by byte or bit by bit, so a release reads the same on any processor. The layers fix every tensor's
//! shape; a tensor's tag (8 bits, highest first: form 3, positions 2, values 2, input range 1) says how it is written. A tensor that
//! keeps only some weights goes on with their number; then come, each in its stream, the positions, the input range, the form's
//! settings (bits of a level, binary places, scales, centroids), and the values.
//!
//! The digest finds damage. It proves nothing about who made the file: whoever distributes releases names them by the whole
//! SHA-256 of the file and signs that, so that half of it here would protect nobody; 8 bytes miss damage once in 2^64.
//!
//! Files from outside cost bounded memory and time: the layers say how many parameters there are, and a file may have at most 2^22
//! and 128 more for each of its bytes. Every error names what is wrong, and the tensor.

mod error;
mod form;
mod head;
mod inspect;
mod read;
mod write;

pub use error::ReleaseError;
pub use inspect::TensorReport;

use ring::digest::{SHA256, digest};
use starling_spec::shape::{Network, infer};
use starling_spec::{Layer, Scale, SpecError, Standardisation, TaskKind, TaskPlan};

use crate::tensor::{Compressed, channel_of, channels};
use head::Head;

/// What every release begins with.
pub const MAGIC: &[u8; 4] = b"STRL";
/// The format that is written and read.
const VERSION: u8 = 1;
/// Bytes of the digest.
const DIGEST_LEN: usize = 8;

/// A compressed model, in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Release {
    /// The task's name.
    pub name: String,
    /// What it has learnt.
    pub kind: TaskKind,
    /// The shape of one sample.
    pub shape: Vec<usize>,
    /// How the features that it takes are scaled.
    pub scale: Scale,
    /// What they are standardised by, where it is the same everywhere.
    pub standardise: Option<Standardisation>,
    /// Its layers; structural pruning has already made them fewer or smaller.
    pub layers: Vec<Layer>,
    /// One for each tensor of the layers' manifest, in its order.
    pub tensors: Vec<Compressed>,
    /// For each tensor of the manifest: the calibrated range of the values that it is multiplied with, where it is a weight of
    /// a layer that computes in integers.
    pub inputs: Vec<Option<InputRange>>,
}

/// The range that a layer's inputs had on the calibration data: what integer arithmetic spreads its 256 levels over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InputRange {
    /// The smallest, at most 0.
    pub low: f32,
    /// The largest, at least 0 and above `low`.
    pub high: f32,
}

impl Release {
    /// The release of a model that is not compressed: every tensor in floats.
    ///
    /// # Panics
    /// If `parameters` are not the plan's, or the plan was not checked.
    pub fn float(plan: &TaskPlan, parameters: &[f32]) -> Self {
        let manifest = plan.manifest().expect("a plan whose layers fit");
        assert_eq!(parameters.len(), manifest.len(), "the plan's parameters");
        let tensors = manifest.tensors.iter().map(|tensor| Compressed::dense(parameters[tensor.range()].to_vec()));
        Self {
            name: plan.name.clone(),
            kind: plan.kind,
            shape: plan.shape.clone(),
            scale: plan.scale,
            standardise: plan.standardise.clone(),
            layers: plan.layers.clone(),
            tensors: tensors.collect(),
            inputs: vec![None; manifest.tensors.len()],
        }
    }

    /// The network that its layers describe.
    ///
    /// # Errors
    /// [`SpecError`] when they describe none.
    pub fn network(&self) -> Result<Network, SpecError> {
        infer(self.kind, &self.shape, &self.layers)
    }

    /// The flat parameters that it computes with: what burn's forward pass of the same layers takes.
    ///
    /// # Panics
    /// If `network` is another release's.
    pub fn parameters(&self, network: &Network) -> Vec<f32> {
        let mut flat = vec![0f32; network.manifest.len()];
        for (tensor, compressed) in network.manifest.tensors.iter().zip(&self.tensors) {
            compressed.decompress_into(&tensor.shape, &mut flat[tensor.range()]);
        }
        flat
    }

    /// The file.
    ///
    /// # Panics
    /// If its tensors are not those of its layers.
    pub fn to_bytes(&self) -> Vec<u8> {
        let network = self.network().expect("layers that describe a network");
        let head = Head {
            name: self.name.clone(),
            kind: self.kind,
            shape: self.shape.clone(),
            scale: self.scale,
            standardise: self.standardise.clone(),
            layers: self.layers.clone(),
        };
        let streams = write::write(self, &network);
        let mut file = MAGIC.to_vec();
        file.push(VERSION);
        for part in [head.to_bytes(), streams.bits.into_bytes()] {
            let mut length = part.len();
            while length > 127 {
                file.push(0x80 | length.to_le_bytes()[0]);
                length >>= 7;
            }
            file.push(length.to_le_bytes()[0]);
            file.extend(part);
        }
        file.extend(streams.mixed.finish());
        let digest = digest(&SHA256, &file);
        file.extend(&digest.as_ref()[..DIGEST_LEN]);
        file
    }

    /// The release in a file.
    ///
    /// # Errors
    /// [`ReleaseError`] says what is wrong and, of a tensor, which.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ReleaseError> {
        if !bytes.starts_with(MAGIC) {
            return Err(ReleaseError::Magic);
        }
        let Some((body, found)) = bytes.split_last_chunk::<DIGEST_LEN>() else { return Err(ReleaseError::Digest) };
        match body.get(MAGIC.len()) {
            Some(&VERSION) => {}
            Some(&got) => return Err(ReleaseError::Version { got, read: VERSION }),
            None => return Err(ReleaseError::Digest),
        }
        if &digest(&SHA256, body).as_ref()[..DIGEST_LEN] != found {
            return Err(ReleaseError::Digest);
        }
        let mut rest = &body[MAGIC.len() + 1..];
        let head = part(&mut rest).ok_or_else(|| ReleaseError::Head("it is longer than the file".into()))?;
        let head = Head::from_bytes(head).map_err(ReleaseError::Head)?;
        let bits = part(&mut rest).ok_or_else(|| ReleaseError::Head("its tensors are longer than the file".into()))?;
        read::read(head, bits, rest, bytes.len())
    }
}

/// Takes a part with its length before it off the front of `rest`.
fn part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let mut length = 0usize;
    for place in 0..5 {
        let (first, after) = rest.split_first()?;
        *rest = after;
        length |= usize::from(first & 0x7f) << (7 * place);
        if first & 0x80 == 0 {
            let (part, after) = rest.split_at_checked(length)?;
            *rest = after;
            return Some(part);
        }
    }
    None
}

/// How many weights each output of a tensor keeps; nothing of a dense one.
fn degrees(tensor: &Compressed, network: &Network, index: usize) -> Option<Vec<u32>> {
    let shape = &network.manifest.tensors[index].shape;
    let mut degrees = vec![0; channels(shape)];
    for kept in tensor.kept.as_ref()? {
        degrees[channel_of(shape, *kept as usize)] += 1;
    }
    Some(degrees)
}

#[cfg(test)]
mod tests;
