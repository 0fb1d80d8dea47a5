//! A compressed model with what is known of it.

use starling_compress::release::TensorReport;

use crate::figures::Figures;
use crate::method::Method;

/// One way to compress the model, carried out.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// A short name, unique in its search: `deep 3 %, 16 centroids`.
    pub name: String,
    /// The family.
    pub method: Method,
    /// What was measured.
    pub figures: Figures,
    /// The release file.
    pub file: Vec<u8>,
    /// Tensor by tensor: form, kept weights, bytes.
    pub tensors: Vec<TensorReport>,
}

impl Candidate {
    /// How many times smaller the file is than the full model's floats, which take `bytes_f32`.
    #[allow(clippy::cast_precision_loss, reason = "sizes stay far below 2^53")]
    pub fn ratio(&self, bytes_f32: u64) -> f64 {
        bytes_f32 as f64 / self.figures.bytes.max(1) as f64
    }
}
