//! The tensors of a network as `torch.nn.Sequential` names and lays them out.

mod matching;

use starling_spec::ParamManifest;

use crate::error::ExchangeError;
use crate::tensors::Tensors;

/// One layer with tensors, as a module of PyTorch.
#[derive(Debug)]
pub(crate) struct Module {
    /// Its position, dotted inside residuals: the module's name in a `torch.nn.Sequential`.
    pub(crate) position: String,
    /// The layer's key.
    pub(crate) key: String,
    /// Its tensors.
    pub(crate) tensors: Vec<ModuleTensor>,
}

/// One tensor of a module.
#[derive(Debug)]
pub(crate) struct ModuleTensor {
    /// Its name inside the module.
    pub(crate) suffix: &'static str,
    /// Its shape in PyTorch.
    pub(crate) shape: Vec<usize>,
    /// The manifest's tensor.
    pub(crate) index: usize,
    /// Whether PyTorch's is the transpose of the manifest's.
    pub(crate) transposed: bool,
}

impl Module {
    /// The tensors with their names in a `torch.nn.Sequential`.
    pub(crate) fn into_tensors(self) -> impl Iterator<Item = (String, ModuleTensor)> {
        let Self { position, tensors, .. } = self;
        tensors.into_iter().map(move |tensor| (format!("{position}.{}", tensor.suffix), tensor))
    }
}

/// What PyTorch calls the tensor `word` of the layer `key`, and whether it holds the transpose.
fn counterpart(key: &str, word: &str) -> Option<(&'static str, bool)> {
    Some(match (key, word) {
        ("linear", "weight") => ("weight", true),
        ("conv1d" | "conv2d" | "depthwise_conv2d", "weight") => ("weight", false),
        ("linear" | "conv1d" | "conv2d" | "depthwise_conv2d", "bias") => ("bias", false),
        ("batch_norm" | "group_norm" | "layer_norm", "scale") => ("weight", false),
        ("batch_norm" | "group_norm" | "layer_norm", "shift") => ("bias", false),
        ("batch_norm", "mean") => ("running_mean", false),
        ("batch_norm", "variance") => ("running_var", false),
        ("embedding", "table") => ("weight", false),
        ("embedding", "positions") => ("positions", false),
        // Both keep the thirds in the order reset, update, candidate.
        ("gru", "input_weight") => ("weight_ih_l0", true),
        ("gru", "input_bias") => ("bias_ih_l0", false),
        ("gru", "state_weight") => ("weight_hh_l0", true),
        ("gru", "state_bias") => ("bias_hh_l0", false),
        // Both keep the thirds in the order query, key, value.
        ("self_attention", "weight") => ("in_proj_weight", true),
        ("self_attention", "bias") => ("in_proj_bias", false),
        ("self_attention", "out_weight") => ("out_proj.weight", true),
        ("self_attention", "out_bias") => ("out_proj.bias", false),
        _ => return None,
    })
}

/// The modules of `manifest`, in the order of its layers.
pub(crate) fn modules(manifest: &ParamManifest) -> Result<Vec<Module>, ExchangeError> {
    let mut modules: Vec<Module> = Vec::new();
    for (index, tensor) in manifest.tensors.iter().enumerate() {
        // position.key.word, where only the position has dots of its own
        let mut parts = tensor.name.rsplitn(3, '.');
        let (word, key, position) = (parts.next(), parts.next(), parts.next());
        let known = key.zip(word).and_then(|(key, word)| counterpart(key, word));
        let (Some(key), Some(position), Some((suffix, transposed))) = (key, position, known) else {
            return Err(ExchangeError::NoCounterpart(tensor.name.clone()));
        };
        let mut shape = tensor.shape.clone();
        if transposed {
            shape.reverse();
        }
        let tensor = ModuleTensor { suffix, shape, index, transposed };
        match modules.last_mut() {
            Some(module) if module.position == position => module.tensors.push(tensor),
            _ => modules.push(Module { position: position.into(), key: key.into(), tensors: vec![tensor] }),
        }
    }
    Ok(modules)
}

/// The flat parameters of `manifest` from a `state_dict`.
pub(crate) fn read(file: &Tensors<'_>, manifest: &ParamManifest) -> Result<Vec<f32>, ExchangeError> {
    let modules = modules(manifest)?;
    let names = matching::names(file, &modules)?;
    // All shapes before any value: what the network costs is only spent on a file that fits it.
    let tensors = || modules.iter().flat_map(|module| &module.tensors);
    for (name, tensor) in names.iter().zip(tensors()) {
        file.expect_shape(name, &tensor.shape)?;
    }
    let mut parameters = vec![0f32; manifest.len()];
    for (name, tensor) in names.iter().zip(tensors()) {
        let values = file.values(name, &tensor.shape)?;
        let out = &mut parameters[manifest.tensors[tensor.index].range()];
        match *tensor.shape.as_slice() {
            [rows, columns] if tensor.transposed => {
                for (position, value) in values.into_iter().enumerate() {
                    out[position % columns * rows + position / columns] = value;
                }
            }
            _ => out.copy_from_slice(&values),
        }
    }
    Ok(parameters)
}
