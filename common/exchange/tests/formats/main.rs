//! Weights through safetensors: what is written is read back, by the format's own crate too, and what does not fit is refused in
//! words. `python.rs` shows the same files to other tools.

mod hostile;
mod starling;
mod torch;

use safetensors::tensor::{Dtype, TensorView, serialize};
use starling_spec::random::{Purpose, Random};
use starling_spec::shape::{Network, infer};
use starling_spec::{Layer, ParamManifest, TaskKind};

/// The network of JSON `layers`.
fn network(kind: TaskKind, shape: &[usize], layers: &str) -> Network {
    let layers: Vec<Layer> = serde_json::from_str(layers).expect("layers");
    infer(kind, shape, &layers).expect("a network")
}

/// As many numbers as the manifest has, all different.
fn numbers(manifest: &ParamManifest) -> Vec<f32> {
    let mut random = Random::new(5, Purpose::Initialise, &[]);
    (0..manifest.len()).map(|_| random.unit_f32() - 0.5).collect()
}

/// A tensor of a file that the tests write.
struct Stored {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Stored {
    fn f32(name: &str, shape: &[usize], values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { name: name.into(), dtype: Dtype::F32, shape: shape.into(), bytes }
    }

    /// A tensor whose values do not matter.
    fn blank(name: &str, shape: &[usize]) -> Self {
        Self::f32(name, shape, &vec![0.25; shape.iter().product()])
    }
}

/// A file as the format's own crate writes it.
fn file<'a>(tensors: &'a [Stored]) -> Vec<u8> {
    let view = |tensor: &'a Stored| {
        let view = TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes).expect("a tensor");
        (tensor.name.clone(), view)
    };
    serialize(tensors.iter().map(view), None).expect("a file")
}
