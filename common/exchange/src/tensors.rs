//! A safetensors file: what its header says, and its values as `f32`.
//!
//! Hostile files cost little: the header's length is compared with its limit before it is parsed, and every tensor is a view of
//! the bytes that the caller already holds.

use std::collections::BTreeMap;

use half::{bf16, f16};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use crate::error::{ExchangeError, listed, shown, told};

/// Bytes of a header that are read. A tensor's entry takes about 100 bytes and the largest network has about 6,000 tensors; the
/// rest is room for metadata.
pub const HEADER_BYTES_MAX: u64 = 4 << 20;

/// The tensors of a file by name.
pub(crate) struct Tensors<'a> {
    views: BTreeMap<String, TensorView<'a>>,
}

/// What `metadata` a file carries: the `__metadata__` of its header, empty when there is none.
///
/// # Errors
/// [`ExchangeError::Format`] or [`ExchangeError::HeaderTooLarge`] when the bytes are no safetensors file.
pub fn read_metadata(bytes: &[u8]) -> Result<BTreeMap<String, String>, ExchangeError> {
    bound_header(bytes)?;
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| ExchangeError::Format(told(&error)))?;
    Ok(metadata.metadata().iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect())
}

fn bound_header(bytes: &[u8]) -> Result<(), ExchangeError> {
    let Some(length) = bytes.first_chunk::<8>() else {
        return Err(ExchangeError::Format(format!("it has {} bytes, and its header's length takes 8", bytes.len())));
    };
    match u64::from_le_bytes(*length) {
        length if length > HEADER_BYTES_MAX => {
            Err(ExchangeError::HeaderTooLarge { bytes: length, limit: HEADER_BYTES_MAX })
        }
        _ => Ok(()),
    }
}

impl<'a> Tensors<'a> {
    /// The file in `bytes`; all offsets are checked here.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, ExchangeError> {
        bound_header(bytes)?;
        let file = SafeTensors::deserialize(bytes).map_err(|error| ExchangeError::Format(told(&error)))?;
        Ok(Self { views: file.tensors().into_iter().collect() })
    }

    /// All names, in alphabetical order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.views.keys().map(String::as_str)
    }

    /// The shape of the tensor `name`.
    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.views.get(name).map(TensorView::shape)
    }

    /// The error that `name` is not there.
    pub(crate) fn missing(&self, name: &str, expected: &[usize]) -> ExchangeError {
        ExchangeError::Missing {
            name: shown(name),
            expected: expected.to_vec(),
            found: listed(self.names().map(shown)),
        }
    }

    /// The error that nobody wants `name`.
    pub(crate) fn unexpected(&self, name: &str) -> ExchangeError {
        ExchangeError::Unexpected { name: shown(name), found: self.shape(name).unwrap_or_default().to_vec() }
    }

    /// Refuses a tensor `name` that is missing or has another shape than `expected`.
    pub(crate) fn expect_shape(&self, name: &str, expected: &[usize]) -> Result<&TensorView<'a>, ExchangeError> {
        let view = self.views.get(name).ok_or_else(|| self.missing(name, expected))?;
        if view.shape() != expected {
            let (found, expected) = (view.shape().to_vec(), expected.to_vec());
            return Err(ExchangeError::Shape { name: shown(name), found, expected });
        }
        Ok(view)
    }

    /// The values of the tensor `name`, which has the shape `expected`, row-major.
    pub(crate) fn values(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>, ExchangeError> {
        let view = self.expect_shape(name, expected)?;
        let bytes = view.data();
        #[allow(clippy::cast_possible_truncation, reason = "weights are f32; what overflows is found below")]
        let values: Vec<f32> = match view.dtype() {
            Dtype::F32 => numbers(bytes, f32::from_le_bytes),
            Dtype::F16 => numbers(bytes, |bytes| f16::from_le_bytes(bytes).to_f32()),
            Dtype::BF16 => numbers(bytes, |bytes| bf16::from_le_bytes(bytes).to_f32()),
            Dtype::F64 => numbers(bytes, |bytes| f64::from_le_bytes(bytes) as f32),
            other => return Err(ExchangeError::Type { name: shown(name), found: other.to_string() }),
        };
        match values.iter().position(|value| !value.is_finite()) {
            Some(index) => Err(ExchangeError::NotFinite { name: shown(name), index, value: values[index].to_string() }),
            None => Ok(values),
        }
    }
}

/// Numbers of `SIZE` bytes each.
fn numbers<const SIZE: usize>(bytes: &[u8], read: impl Fn([u8; SIZE]) -> f32) -> Vec<f32> {
    bytes.as_chunks::<SIZE>().0.iter().map(|bytes| read(*bytes)).collect()
}
