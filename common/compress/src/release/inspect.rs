//! What each tensor of a release takes.

use super::Release;
use super::write;

/// One tensor of a release, before and after.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorReport {
    /// Its name in the manifest.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// The form of its values in a word ([`Values::word`](crate::tensor::Values::word)).
    pub form: String,
    /// How many weights it has.
    pub weights: usize,
    /// How many of them are kept.
    pub kept: usize,
    /// Bits of the file for each kept weight: its value, its share of the positions, scales or code book.
    pub bits_per_weight: f64,
    /// What it takes as floats.
    pub bytes_f32: usize,
    /// What it takes in the file, rounded to a byte; head and digest come on top.
    pub bytes: usize,
}

impl Release {
    /// What each tensor takes in the file, in the manifest's order.
    ///
    /// # Panics
    /// If its tensors are not those of its layers.
    pub fn inspect(&self) -> Vec<TensorReport> {
        let network = self.network().expect("layers that describe a network");
        let streams = write::write(self, &network);
        let tensors = network.manifest.tensors.iter().zip(&self.tensors).zip(streams.tensors);
        tensors
            .map(|((tensor, compressed), bits)| {
                let kept = compressed.values.len();
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of bytes")]
                let bytes = (bits / 8.0).round() as usize;
                TensorReport {
                    name: tensor.name.clone(),
                    shape: tensor.shape.clone(),
                    form: compressed.values.word(),
                    weights: tensor.len(),
                    kept,
                    bits_per_weight: bits / kept.max(1) as f64,
                    bytes_f32: 4 * tensor.len(),
                    bytes,
                }
            })
            .collect()
    }
}
