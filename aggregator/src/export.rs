//! Models on their way in and out of the daemon as safetensors files: the weights that a run begins with, and its newest version.

use std::collections::BTreeMap;
use std::error::Error;

use bytes::Bytes;
use starling_exchange::{HEADER_BYTES_MAX, Layout, PLAN_METADATA, read_safetensors, write_safetensors};
use starling_spec::{ParamManifest, TaskFile, TaskPlan};
use starling_store::Store;
use starling_wire::limits::PARAMETERS_MAX;

use crate::event::AdminAnswer;
use crate::records::RunRecord;

/// Bytes of a value in the widest type that is read, binary64.
const VALUE_BYTES_MAX: u64 = 8;

/// Bytes of any weights file: the protocol's largest model in the widest type, and a header with its length.
pub(crate) const WEIGHTS_BYTES_MAX: u64 = VALUE_BYTES_MAX * PARAMETERS_MAX as u64 + HEADER_BYTES_MAX + 8;

/// Bytes that a weights file for the network of `plan` may have.
pub(crate) fn weights_bytes_max(plan: &TaskPlan) -> Result<u64, starling_spec::SpecError> {
    let values = VALUE_BYTES_MAX.saturating_mul(plan.manifest()?.len() as u64);
    Ok(values.saturating_add(HEADER_BYTES_MAX + 8).min(WEIGHTS_BYTES_MAX))
}

/// The parameters in `file`, each tensor checked against the network's: the error names the tensor.
pub(crate) fn start_weights(file: &[u8], manifest: &ParamManifest, task: &str) -> Result<Vec<f32>, Box<dyn Error>> {
    read_safetensors(file, manifest, Layout::Starling)
        .map_err(|error| format!("the weights are not those of the network of task {task:?}: {error}").into())
}

/// The blob of that digest.
pub(crate) fn blob(store: &Store, digest: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    Ok(store.get_blob(digest)?.ok_or_else(|| format!("the blob {digest} is missing from the state folder"))?)
}

/// The float master in the blob of that digest, of `count` parameters.
pub(crate) fn master(store: &Store, digest: &str, count: usize) -> Result<Vec<f32>, Box<dyn Error>> {
    let bytes = blob(store, digest)?;
    let (values, rest) = bytes.as_chunks::<4>();
    if values.len() != count || !rest.is_empty() {
        return Err(format!("the stored model has {} bytes, expected 4 × {count}", bytes.len()).into());
    }
    Ok(values.iter().map(|value| f32::from_le_bytes(*value)).collect())
}

/// The newest version's float master as a safetensors file that carries its plan, as `starling model train` writes them.
pub(crate) fn model(store: &Store, record: &RunRecord) -> Result<AdminAnswer, Box<dyn Error>> {
    let task: TaskFile = serde_json::from_slice(&blob(store, &record.task_blob)?)?;
    let plan = TaskPlan::new(&task, record.seed)?;
    let manifest = plan.manifest()?;
    let parameters = master(store, &record.master_blob, manifest.len())?;
    let metadata = BTreeMap::from([(PLAN_METADATA.to_owned(), String::from_utf8(plan.to_json())?)]);
    let file = Bytes::from(write_safetensors(&manifest, &parameters, &metadata));
    let value = serde_json::json!({
        "run": record.run,
        "name": record.name,
        "version": record.version,
        "parameters": parameters.len(),
    });
    Ok(AdminAnswer { value, file: Some(file) })
}
