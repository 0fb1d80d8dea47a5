//! Safetensors files out: eight bytes of length, a JSON header, the values.
//!
//! The header is written here rather than by the `safetensors` crate because that one keeps metadata in a hash map: the same
//! weights would give other bytes each time (invariant 11). The crate reads it back in the tests.

use std::collections::BTreeMap;

use starling_spec::ParamManifest;

use crate::error::ExchangeError;
use crate::torch;

/// One tensor to write.
struct Entry<'a> {
    name: &'a str,
    shape: &'a [usize],
}

/// `parameters` in the layout of [`crate::Layout::Starling`], with `metadata` in the header: F32, in the manifest's order. The same
/// arguments give the same bytes.
///
/// # Panics
/// If `parameters` are not as many as the manifest has.
pub fn write_safetensors(manifest: &ParamManifest, parameters: &[f32], metadata: &BTreeMap<String, String>) -> Vec<u8> {
    assert_eq!(parameters.len(), manifest.len(), "the parameters are this manifest's");
    let entries = manifest.tensors.iter().map(|tensor| Entry { name: &tensor.name, shape: &tensor.shape });
    let mut bytes = header(entries, metadata);
    put(&mut bytes, parameters.iter().copied());
    bytes
}

/// `parameters` in the layout of [`crate::Layout::Torch`]: `load_state_dict` of the `torch.nn.Sequential` with a module for each
/// layer takes it. Layers that compute with `α sign(W)` keep their real weights; see [`crate::computed_parameters`].
///
/// # Errors
/// [`ExchangeError::Parameters`] when the parameters are another network's.
pub fn write_torch_safetensors(
    manifest: &ParamManifest,
    parameters: &[f32],
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>, ExchangeError> {
    if parameters.len() != manifest.len() {
        return Err(ExchangeError::Parameters { found: parameters.len(), expected: manifest.len() });
    }
    let tensors: Vec<_> = torch::modules(manifest)?.into_iter().flat_map(torch::Module::into_tensors).collect();
    let entries = tensors.iter().map(|(name, tensor)| Entry { name, shape: &tensor.shape });
    let mut bytes = header(entries, metadata);
    for (_, tensor) in &tensors {
        let ours = &manifest.tensors[tensor.index];
        let values = &parameters[ours.range()];
        match *ours.shape.as_slice() {
            [rows, columns] if tensor.transposed => {
                let by_column =
                    (0..columns).flat_map(|column| (0..rows).map(move |row| values[row * columns + column]));
                put(&mut bytes, by_column);
            }
            _ => put(&mut bytes, values.iter().copied()),
        }
    }
    Ok(bytes)
}

/// The length and the JSON of a file of F32 tensors that follow each other; padded with spaces so that values are aligned to
/// eight bytes.
fn header<'a>(entries: impl Iterator<Item = Entry<'a>>, metadata: &BTreeMap<String, String>) -> Vec<u8> {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut parts = Vec::new();
    if !metadata.is_empty() {
        let pairs: Vec<_> = metadata.iter().map(|(key, value)| format!("{}:{}", quoted(key), quoted(value))).collect();
        parts.push(format!("\"__metadata__\":{{{}}}", pairs.join(",")));
    }
    let mut offset = 0usize;
    for Entry { name, shape } in entries {
        let end = offset + 4 * shape.iter().product::<usize>();
        let sizes = shape.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        let name = quoted(name);
        parts.push(format!("{name}:{{\"dtype\":\"F32\",\"shape\":[{sizes}],\"data_offsets\":[{offset},{end}]}}"));
        offset = end;
    }
    let mut json = format!("{{{}}}", parts.join(",")).into_bytes();
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut bytes = Vec::with_capacity(8 + json.len() + offset);
    bytes.extend((json.len() as u64).to_le_bytes());
    bytes.append(&mut json);
    bytes
}

fn put(bytes: &mut Vec<u8>, values: impl Iterator<Item = f32>) {
    bytes.extend(values.flat_map(f32::to_le_bytes));
}
