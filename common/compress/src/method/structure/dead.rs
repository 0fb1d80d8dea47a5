//! Units that say nothing: their outputs are constant, or nobody listens.

use starling_spec::shape::{Network, infer};
use starling_spec::{Layer, TaskKind};

use super::Removal;
use super::follow::{Followed, follow};
use super::units::layers_with_units;

/// Removals that change no output but by rounding: units to which no weight leads any more, whose constant output
/// [`remove`](super::remove) adds to the next layer's bias, and units from which no weight leads on. At least one unit of a layer
/// stays. They can be applied one after another; each may leave further units dead, so ask again until there are none.
///
/// Left out is what would change other units: those under a norm over several units, those before binary layers (whose scale is a
/// mean over all their weights), and constants that a convolution sees only inside its padding, or that meet no bias.
///
/// # Panics
/// If `parameters` are not those of the layers.
pub fn dead_units(kind: TaskKind, shape: &[usize], layers: &[Layer], parameters: &[f32]) -> Vec<Removal> {
    let Ok(network) = infer(kind, shape, layers) else { return Vec::new() };
    assert_eq!(parameters.len(), network.manifest.len(), "the parameters of the layers");
    let mut removals = Vec::new();
    for (layer, units) in layers_with_units(kind, shape, layers) {
        let Ok(followed) = follow(&network, layers, parameters, &layer) else { continue };
        if followed.mixed || followed.consumer.binary {
            continue;
        }
        let mut keep = living(&network, &followed, parameters);
        if !keep.contains(&true) && units > 0 {
            keep[0] = true;
        }
        if keep.contains(&false) {
            removals.push(Removal::Units { layer, keep });
        }
    }
    removals
}

/// Which units matter to the consumer.
fn living(network: &Network, followed: &Followed, parameters: &[f32]) -> Vec<bool> {
    let consumer = &followed.consumer;
    let mut heard = vec![false; followed.units];
    consumer.slices.each(network, |index, slice| heard[consumer.slices.owners[slice]] |= parameters[index] != 0.0);
    let mut varies = vec![false; followed.units];
    for (slice, constant) in followed.constants.iter().enumerate() {
        let folds = match constant {
            Some(value) => *value == 0.0 || (consumer.bias.is_some() && !consumer.padded),
            None => false,
        };
        varies[consumer.slices.owners[slice]] |= !folds;
    }
    heard.iter().zip(&varies).map(|(heard, varies)| *heard && *varies).collect()
}
