//! Weights and networks in the formats of other tools: safetensors in and out, ONNX out.
//!
//! Inside, a network is a layer spec and one flat `f32` vector ([`starling_spec::ParamManifest`]). This crate is where it meets
//! PyTorch and the runtimes that read ONNX. Everything is a function of bytes: no file, clock or socket.
//!
//! | | names and shapes |
//! | --- | --- |
//! | [`Layout::Starling`] | the manifest's: `0.conv2d.weight`, matrices `[in, out]` |
//! | [`Layout::Torch`] | the `state_dict` of the `torch.nn.Sequential` with a module for each layer: `0.weight`, matrices `[out, in]` |
//! | [`write_onnx`] | opset 17, any batch size; `input` → `output` |
//!
//! What comes from outside is bounded before it is believed (invariant 8): a file's header by [`HEADER_BYTES_MAX`], everything
//! else by the network that the caller already has. Values that are infinite or no numbers are refused.
//!
//! ```
//! use std::collections::BTreeMap;
//!
//! use starling_exchange::{Layout, read_safetensors, write_torch_safetensors};
//! use starling_spec::init::initial_parameters;
//! use starling_spec::{TaskKind, preset, shape};
//!
//! let layers = preset::layers("lenet-300-100")?;
//! let network = shape::infer(TaskKind::Classification, &[784], &layers)?;
//! let parameters = initial_parameters(&network.manifest, 1);
//! let file = write_torch_safetensors(&network.manifest, &parameters, &BTreeMap::new())?;
//! assert_eq!(read_safetensors(&file, &network.manifest, Layout::Torch)?, parameters);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod binary;
mod error;
mod onnx;
mod tensors;
mod torch;
mod write;

use std::collections::BTreeSet;

use starling_spec::ParamManifest;

pub use binary::computed_parameters;
pub use error::ExchangeError;
pub use onnx::{ONNX_BYTES_MAX, write_onnx};
pub use tensors::{HEADER_BYTES_MAX, read_metadata};
pub use write::{write_safetensors, write_torch_safetensors};

use crate::tensors::Tensors;

/// The key of a weights file's metadata that holds the JSON of the plan whose network the weights are of.
pub const PLAN_METADATA: &str = "starling.plan";

/// How a safetensors file names and lays out a network's tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// The manifest's names and shapes.
    Starling,
    /// The `state_dict` of the equivalent `torch.nn.Sequential`: one module a layer, in order.
    ///
    /// | layer | module's tensors |
    /// | --- | --- |
    /// | `linear` | `weight` `[out, in]`, `bias` |
    /// | convolutions | `weight` `[out, in / groups, …]`, `bias` |
    /// | `batch_norm` | `weight`, `bias`, `running_mean`, `running_var` (`num_batches_tracked` is ignored) |
    /// | `group_norm`, `layer_norm` | `weight`, `bias` |
    /// | `embedding` | `weight` `[tokens, out]`, and `positions` where the layer has them |
    /// | `gru` | `weight_ih_l0` `[3 state, in]`, `weight_hh_l0`, `bias_ih_l0`, `bias_hh_l0`: reset, update, candidate |
    /// | `self_attention` | `in_proj_weight` `[3 features, features]`, `in_proj_bias`, `out_proj.weight`, `out_proj.bias` |
    /// | `residual` | a `torch.nn.Sequential` that adds its input |
    ///
    /// When the file's names are the positions (after a common prefix such as `net.`), they decide. Otherwise each layer takes
    /// the module that has its shapes; among modules of the same shapes the numbers in their names give the order (`fc1`,
    /// `fc2`), and where names differ in more than numbers the file is refused rather than guessed at.
    Torch,
}

/// The flat parameters of `manifest` from the safetensors file `bytes`: F32, or F16, BF16 or F64 converted to it.
///
/// # Errors
/// [`ExchangeError`] names the tensor, the shape expected and the shape found; also what the file has in excess.
pub fn read_safetensors(bytes: &[u8], manifest: &ParamManifest, layout: Layout) -> Result<Vec<f32>, ExchangeError> {
    let file = Tensors::read(bytes)?;
    match layout {
        Layout::Starling => read_starling(&file, manifest),
        Layout::Torch => torch::read(&file, manifest),
    }
}

fn read_starling(file: &Tensors<'_>, manifest: &ParamManifest) -> Result<Vec<f32>, ExchangeError> {
    // All shapes before any value: what the network costs is only spent on a file that fits it.
    for tensor in &manifest.tensors {
        file.expect_shape(&tensor.name, &tensor.shape)?;
    }
    let mut parameters = Vec::with_capacity(manifest.len());
    for tensor in &manifest.tensors {
        parameters.extend(file.values(&tensor.name, &tensor.shape)?);
    }
    let known: BTreeSet<_> = manifest.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    match file.names().find(|name| !known.contains(name)) {
        Some(name) => Err(file.unexpected(name)),
        None => Ok(parameters),
    }
}
