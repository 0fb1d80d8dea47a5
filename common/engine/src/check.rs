//! Everything that is asked of a release before it is believed: it may come from anywhere.
//!
//! Nothing is allocated here in proportion to a shape, only read in proportion to what the release holds already.

use starling_compress::tensor::{Compressed, Values, channels};
use starling_compress::{InputRange, Release};
use starling_spec::ParamTensor;
use starling_spec::shape::Network;

use crate::error::EngineError;

/// The most centroids of a code book: codes are bytes.
const CENTROIDS_MAX: usize = 256;

/// The network of `release`, when each of its tensors is what the manifest and its own form say.
pub(crate) fn check(release: &Release) -> Result<Network, EngineError> {
    let network = release.network()?;
    let expected = network.manifest.tensors.len();
    for (what, found) in [("tensors", release.tensors.len()), ("input ranges", release.inputs.len())] {
        if found != expected {
            return Err(EngineError::Count { what, expected, found });
        }
    }
    for (index, tensor) in network.manifest.tensors.iter().enumerate() {
        let checked = tensor_problem(tensor, &release.tensors[index])
            .or_else(|| release.inputs[index].as_ref().and_then(range_problem));
        if let Some(problem) = checked {
            return Err(EngineError::Tensor { tensor: tensor.name.clone(), problem });
        }
    }
    Ok(network)
}

fn tensor_problem(tensor: &ParamTensor, compressed: &Compressed) -> Option<String> {
    let (len, shape) = (tensor.len(), &tensor.shape);
    let found = compressed.values.len();
    match &compressed.kept {
        None if found != len => return Some(format!("{found} values for the {len} of the shape {shape:?}")),
        None => {}
        Some(kept) if found != kept.len() => {
            return Some(format!("{found} values for {} kept weights", kept.len()));
        }
        Some(kept) => {
            if let Some(pair) = kept.windows(2).find(|pair| pair[0] >= pair[1]) {
                return Some(format!("kept weight {} comes after {}; indices have to rise", pair[1], pair[0]));
            }
            if let Some(last) = kept.last().filter(|last| **last as usize >= len) {
                return Some(format!("kept weight {last} of a tensor of {len}"));
            }
        }
    }
    values_problem(compressed, channels(shape)).or_else(|| {
        let shape = &tensor.shape;
        let value = |position, index: usize| compressed.values.value(shape, position, index);
        let finite = match &compressed.kept {
            None => (0..found).all(|position| value(position, position).is_finite()),
            Some(kept) => kept.iter().enumerate().all(|(position, index)| value(position, *index as usize).is_finite()),
        };
        (!finite).then(|| "a weight is not finite".to_owned())
    })
}

/// What is wrong with the values on their own.
fn values_problem(compressed: &Compressed, channels: usize) -> Option<String> {
    match &compressed.values {
        // That they are finite is seen with all the others.
        Values::F32(_) | Values::F16(_) => None,
        Values::Fixed { places, bits, levels } => {
            if !(-126..=126).contains(places) || !(2..=16).contains(bits) {
                return Some(format!("fixed point of {bits} bits with {places} places; expected 2 to 16, −126 to 126"));
            }
            let bound = 1i32 << (bits - 1);
            let outside = levels.iter().find(|level| !(-bound..bound).contains(&i32::from(**level)));
            outside.map(|level| format!("the level {level} does not fit into {bits} bits"))
        }
        Values::Integer { bits, scales, levels } => {
            if !(2..=8).contains(bits) {
                return Some(format!("integers of {bits} bits; expected 2 to 8"));
            }
            if scales.len() != 1 && scales.len() != channels {
                return Some(format!("{} scales; expected 1, or {channels}: one an output channel", scales.len()));
            }
            let bound = (1i16 << (bits - 1)) - 1;
            let outside = levels.iter().find(|level| i16::from(**level).abs() > bound);
            outside.map(|level| format!("the level {level} lies outside ±{bound}, as {bits} bits have it"))
        }
        Values::Codebook { centroids, codes } => {
            if centroids.is_empty() || centroids.len() > CENTROIDS_MAX {
                return Some(format!("a code book of {}; expected 1 to {CENTROIDS_MAX} centroids", centroids.len()));
            }
            let outside = codes.iter().find(|code| usize::from(**code) >= centroids.len());
            outside.map(|code| format!("the code {code} of a code book of {}", centroids.len()))
        }
        Values::Binary { scales, .. } => {
            if compressed.kept.is_some() {
                return Some("binary weights that are pruned; they have to be dense".to_owned());
            }
            let wrong = scales.len() != channels;
            wrong.then(|| format!("{} scales; expected {channels}: one an output channel", scales.len()))
        }
    }
}

/// What is wrong with an input range; its 255 steps have to be normal numbers.
fn range_problem(range: &InputRange) -> Option<String> {
    let InputRange { low, high } = *range;
    let step = (high - low) / 255.0;
    let fine = low <= 0.0 && high >= 0.0 && step.is_normal() && step.recip().is_normal();
    (!fine).then(|| format!("the input range {low} to {high}; expected a finite one around 0"))
}
