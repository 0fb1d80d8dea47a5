//! A model version: the `f32` master that only the aggregator holds, and the bytes that everybody trains from.

use std::borrow::Cow;

use bytes::Bytes;
use starling_compress::{
    CodecSpec, DecodeError, EncodeError, Rounding, codec_id, codec_spec, decode_into, difference, encode_into,
    encoded_len,
};
use starling_wire::limits::PARAMETERS_MAX;
use starling_wire::{Digest, ModelRef};

/// Bytes that are not the version that a reference names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// A codec that this build does not know.
    #[error("model version {0} uses a codec that is not spoken here; update this side")]
    Codec(u64),
    /// A codec in which only updates travel.
    #[error("model version {version} is encoded in {codec}, which is for updates only")]
    UpdatesOnly {
        /// The version.
        version: u64,
        /// The codec.
        codec: CodecSpec,
    },
    /// More parameters than any model here has.
    #[error("a model of {0} parameters is larger than any allowed one ({PARAMETERS_MAX})")]
    Parameters(usize),
    /// The bytes are not those of the reference.
    #[error("the bytes of model version {0} do not have the digest of its reference")]
    Digest(u64),
    /// The bytes are no model.
    #[error("the bytes of model version {version} could not be decoded")]
    Decode {
        /// The version.
        version: u64,
        /// What is wrong with them.
        #[source]
        source: DecodeError,
    },
}

/// A version, encoded to nearest once: everybody gets the same bytes.
#[derive(Debug, Clone)]
pub struct Version {
    number: u64,
    master: Vec<f32>,
    codec: CodecSpec,
    encoded: Bytes,
    digest: Digest,
}

/// The bytes of a version of `count` parameters; `None` for codecs in which no version travels.
pub fn version_len(codec: CodecSpec, count: usize) -> Option<usize> {
    if codec.encodes_versions() { encoded_len(codec, count) } else { None }
}

impl Version {
    /// Encodes `master` as version `number`. The same master and codec give the same bytes again, so a restart may publish what
    /// it reads back.
    ///
    /// # Errors
    /// [`EncodeError`] when the model has left the codec's range, or the codec is none for versions.
    pub fn publish(number: u64, master: Vec<f32>, codec: CodecSpec) -> Result<Self, EncodeError> {
        let length = version_len(codec, master.len()).ok_or(EncodeError::NotForVersions { codec })?;
        let mut encoded = Vec::with_capacity(length);
        encode_into(codec, &master, Rounding::Nearest, &mut encoded)?;
        let digest = Digest::of(&encoded);
        Ok(Self { number, master, codec, encoded: Bytes::from(encoded), digest })
    }

    /// The version's number; 0 is the initial model.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The parameters that the next mean is added to.
    pub fn master(&self) -> &[f32] {
        &self.master
    }

    /// The codec of the published bytes.
    pub fn codec(&self) -> CodecSpec {
        self.codec
    }

    /// The master alone; the published bytes go.
    pub fn into_master(self) -> Vec<f32> {
        self.master
    }

    /// The parameters as every device decodes them: what a version is judged by.
    ///
    /// # Panics
    /// Never: the bytes were encoded here.
    pub fn decoded(&self) -> Cow<'_, [f32]> {
        if self.codec == CodecSpec::F32 {
            return Cow::Borrowed(&self.master);
        }
        let mut values = vec![0f32; self.master.len()];
        decode_into(self.codec, &self.encoded, &mut values).expect("the bytes were encoded here, from as many values");
        Cow::Owned(values)
    }

    /// The bytes that devices get.
    pub fn encoded(&self) -> &Bytes {
        &self.encoded
    }

    /// SHA-256 of [`Version::encoded`].
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What a round names the version by.
    pub fn reference(&self) -> ModelRef {
        ModelRef {
            version: self.number,
            digest: self.digest,
            length: self.encoded.len() as u64,
            codec: codec_id(self.codec),
        }
    }

    /// The `count` parameters in `bytes`, which the transfer (or [`Version::rebuild`]) has found to have the reference's digest.
    ///
    /// # Errors
    /// [`VersionError`]; the length is compared before anything is allocated (invariant 8).
    pub fn decode(reference: &ModelRef, bytes: &[u8], count: usize) -> Result<Vec<f32>, VersionError> {
        let version = reference.version;
        let codec = codec_spec(reference.codec).ok_or(VersionError::Codec(version))?;
        if count > PARAMETERS_MAX {
            return Err(VersionError::Parameters(count));
        }
        let expected = version_len(codec, count).ok_or(VersionError::UpdatesOnly { version, codec })?;
        if bytes.len() != expected {
            let source = DecodeError::Length { expected, got: bytes.len() };
            return Err(VersionError::Decode { version, source });
        }
        let mut values = vec![0f32; count];
        decode_into(codec, bytes, &mut values).map_err(|source| VersionError::Decode { version, source })?;
        Ok(values)
    }

    /// The bytes of the version that `reference` names, from the bytes `held` of an older one and the difference between them.
    ///
    /// # Errors
    /// [`VersionError`] when the difference does not apply or leads to other bytes than the reference's.
    pub fn rebuild(reference: &ModelRef, held: &[u8], difference: &[u8]) -> Result<Vec<u8>, VersionError> {
        let version = reference.version;
        let length = usize::try_from(reference.length).unwrap_or(usize::MAX);
        let bytes =
            difference::apply(held, difference, length).map_err(|source| VersionError::Decode { version, source })?;
        if Digest::of(&bytes) == reference.digest { Ok(bytes) } else { Err(VersionError::Digest(version)) }
    }
}
