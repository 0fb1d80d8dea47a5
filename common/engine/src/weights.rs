//! Reading a release's tensors when an engine is built.

use starling_compress::Compressed;
use starling_spec::ParamTensor;

/// A checked tensor of a release.
#[derive(Clone, Copy)]
pub(crate) struct Weights<'a> {
    tensor: &'a ParamTensor,
    compressed: &'a Compressed,
}

impl<'a> Weights<'a> {
    pub(crate) fn new(tensor: &'a ParamTensor, compressed: &'a Compressed) -> Self {
        Self { tensor, compressed }
    }

    pub(crate) fn name(&self) -> &'a str {
        &self.tensor.name
    }

    pub(crate) fn shape(&self) -> &'a [usize] {
        &self.tensor.shape
    }

    pub(crate) fn len(&self) -> usize {
        self.tensor.len()
    }

    pub(crate) fn compressed(&self) -> &'a Compressed {
        self.compressed
    }

    /// How many weights are written; all others are 0.
    pub(crate) fn kept(&self) -> usize {
        self.compressed.values.len()
    }

    /// Calls `f` with the flat index and the value of each weight that is written, indices rising.
    pub(crate) fn each(&self, mut f: impl FnMut(usize, f32)) {
        let values = &self.compressed.values;
        match &self.compressed.kept {
            None => (0..values.len()).for_each(|index| f(index, values.value(self.shape(), index, index))),
            Some(kept) => {
                for (position, index) in kept.iter().enumerate() {
                    let index = *index as usize;
                    f(index, values.value(self.shape(), position, index));
                }
            }
        }
    }

    /// All weights as floats.
    pub(crate) fn dense(&self) -> Vec<f32> {
        let mut dense = vec![0f32; self.len()];
        self.compressed.decompress_into(self.shape(), &mut dense);
        dense
    }
}
