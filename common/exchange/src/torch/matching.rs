//! Which tensor of a `state_dict` belongs to which layer.
//!
//! A safetensors file is sorted by name, so the order of the modules is lost but for what the names say. Names that are the layers'
//! positions decide; otherwise shapes do, and numbers in names order modules of equal shapes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::error::{ExchangeError, listed, shown};
use crate::tensors::Tensors;

use super::Module;

/// A counter of batch normalisation that no inference reads.
const IGNORED: &str = "num_batches_tracked";

/// The tensors of a module of the file, or of a layer: names inside the module with shapes.
type Signature = BTreeMap<String, Vec<usize>>;

/// The file's name of each tensor of `modules`, in order.
pub(super) fn names(file: &Tensors<'_>, modules: &[Module]) -> Result<Vec<String>, ExchangeError> {
    let names: BTreeSet<&str> = file.names().filter(|name| suffix_of(name) != IGNORED).collect();
    match by_position(&names, modules) {
        Some(found) => Ok(found),
        None => by_shape(file, &names, modules),
    }
}

/// The names, when the file has exactly the layers' positions after a common prefix.
fn by_position(names: &BTreeSet<&str>, modules: &[Module]) -> Option<Vec<String>> {
    let wanted: Vec<String> = modules
        .iter()
        .flat_map(|module| module.tensors.iter().map(move |tensor| format!("{}.{}", module.position, tensor.suffix)))
        .collect();
    if names.len() != wanted.len() {
        return None;
    }
    let first = wanted.first()?;
    let prefixes = names.iter().filter_map(|name| name.strip_suffix(first.as_str()));
    for prefix in prefixes.filter(|prefix| prefix.is_empty() || prefix.ends_with('.')) {
        let named: Vec<String> = wanted.iter().map(|wanted| format!("{prefix}{wanted}")).collect();
        if named.iter().all(|name| names.contains(name.as_str())) {
            return Some(named);
        }
    }
    None
}

fn by_shape(file: &Tensors<'_>, names: &BTreeSet<&str>, modules: &[Module]) -> Result<Vec<String>, ExchangeError> {
    let mut found: BTreeMap<Signature, Vec<String>> = BTreeMap::new();
    for (module, tensors) in file_modules(file, names) {
        found.entry(tensors).or_default().push(module);
    }
    let mut places: BTreeMap<Signature, Vec<&str>> = BTreeMap::new();
    for module in modules {
        places.entry(signature_of(module)).or_default().push(&module.position);
    }
    let mut queues = BTreeMap::new();
    for (signature, names) in found {
        let positions = places.get(&signature).map_or(&[][..], Vec::as_slice);
        let names = VecDeque::from(ordered(names, positions)?);
        queues.insert(signature, names);
    }
    let mut named = Vec::new();
    for module in modules {
        let signature = signature_of(module);
        let Some(name) = queues.get_mut(&signature).and_then(VecDeque::pop_front) else {
            return Err(ExchangeError::NoModule {
                layer: format!("{}.{}", module.position, module.key),
                expected: described(&signature),
                found: listed(queues.iter().flat_map(|(signature, names)| {
                    names.iter().map(|name| format!("{} ({})", shown(name), described(signature)))
                })),
            });
        };
        named.extend(module.tensors.iter().map(|tensor| joined(&name, tensor.suffix)));
    }
    let left = queues.iter().find_map(|(signature, names)| Some((names.front()?, signature.keys().next()?)));
    match left {
        Some((module, suffix)) => Err(file.unexpected(&joined(module, suffix))),
        None => Ok(named),
    }
}

/// The modules of the file: a tensor belongs to what stands before its last dot. The output projection of an attention is a
/// module of its own in PyTorch and part of the attention here.
fn file_modules(file: &Tensors<'_>, names: &BTreeSet<&str>) -> BTreeMap<String, Signature> {
    let mut modules: BTreeMap<String, Signature> = BTreeMap::new();
    for name in names {
        let (module, suffix) = name.rsplit_once('.').unwrap_or(("", name));
        let attention = match module.strip_suffix("out_proj").map(|outer| outer.strip_suffix('.').unwrap_or(outer)) {
            Some(outer) if names.contains(joined(outer, "in_proj_weight").as_str()) => Some(outer),
            _ => None,
        };
        let (module, suffix) = match attention {
            Some(outer) => (outer, format!("out_proj.{suffix}")),
            None => (module, suffix.into()),
        };
        let shape = file.shape(name).unwrap_or_default().to_vec();
        modules.entry(module.into()).or_default().insert(suffix, shape);
    }
    modules
}

fn signature_of(module: &Module) -> Signature {
    module.tensors.iter().map(|tensor| (tensor.suffix.into(), tensor.shape.clone())).collect()
}

/// Modules of equal shapes in the order of the numbers in their names; names that differ in more than numbers have none.
fn ordered(mut names: Vec<String>, positions: &[&str]) -> Result<Vec<String>, ExchangeError> {
    // With one place, or none, for several modules the error is that too many are there.
    if positions.len() > 1
        && let Some(other) = names.iter().find(|name| skeleton(name) != skeleton(&names[0]))
    {
        return Err(ExchangeError::Ambiguous {
            first: shown(&names[0]),
            second: shown(other),
            wanted: listed(positions.iter().map(ToString::to_string)),
        });
    }
    names.sort_by_key(|name| numbers(name));
    Ok(names)
}

/// A name with each of its numbers replaced by a mark.
fn skeleton(name: &str) -> String {
    let mut skeleton = String::with_capacity(name.len());
    for letter in name.chars() {
        match letter.is_ascii_digit() {
            true if skeleton.ends_with('\0') => {}
            true => skeleton.push('\0'),
            false => skeleton.push(letter),
        }
    }
    skeleton
}

/// The numbers in a name; without leading zeros they compare by length, then by digits.
fn numbers(name: &str) -> Vec<(usize, String)> {
    name.split(|letter: char| !letter.is_ascii_digit())
        .filter(|digits| !digits.is_empty())
        .map(|digits| digits.trim_start_matches('0'))
        .map(|digits| (digits.len(), digits.to_owned()))
        .collect()
}

fn described(signature: &Signature) -> String {
    listed(signature.iter().map(|(suffix, shape)| format!("{} {shape:?}", shown(suffix).replace('"', ""))))
}

fn suffix_of(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(_, suffix)| suffix)
}

fn joined(module: &str, suffix: &str) -> String {
    if module.is_empty() { suffix.into() } else { format!("{module}.{suffix}") }
}
