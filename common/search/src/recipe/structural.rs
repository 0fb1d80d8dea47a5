//! Layers and units removed: the network itself becomes smaller, for any runtime.

use starling_compress::method::quantise;
use starling_compress::method::structure::{self, Removal};
use starling_compress::tensor::{channel_of, channels};
use starling_compress::{Compressed, Release};
use starling_spec::manifest::ParamTensor;
use starling_spec::{Layer, ParamManifest};

use crate::error::SearchError;
use crate::method::Method;
use crate::session::{Rest, Session, remove};
use crate::tuner::{Constraint, FineTune, Model};

/// Passes over the data after each removal.
const EPOCHS: usize = 4;

/// The shares of hidden units that are left, step by step.
const UNIT_SHARES: [f64; 5] = [0.75, 0.5, 0.35, 0.25, 0.15];

/// Removes whole layers and residual blocks, each time the one whose loss the network feels least, and tunes what is left.
/// Gives the smallest network that stays within the accepted loss of accuracy.
pub(crate) fn layers(session: &mut Session<'_>) -> Result<Option<Model>, SearchError> {
    let plan = session.plan;
    let mut model = session.original.clone();
    let total = parametric_layers(&model.layers);
    let mut best = None;
    let mut removed_any = false;
    loop {
        session.observer.stage("measure layers", 0);
        let mut least: Option<(f64, Model)> = None;
        for path in structure::blocks(plan.kind, &plan.shape, &model.layers) {
            let Ok((layers, parameters)) = remove(plan, &model, &Removal::Block(path)) else { continue };
            // An activation alone saves nothing.
            if parametric_layers(&layers) == parametric_layers(&model.layers) {
                continue;
            }
            let without = Model { layers, parameters };
            let loss = session.tuner.loss(&without)?;
            if least.as_ref().is_none_or(|(smallest, _)| loss < *smallest) {
                least = Some((loss, without));
            }
        }
        let Some((_, without)) = least else { break };
        removed_any = true;
        model = without;
        let left = parametric_layers(&model.layers);
        tune(session, &mut model, &format!("remove layers, {left} left"))?;
        let release = packed(session, &model)?;
        let lost = session.add(Method::Layers, format!("layers {left} of {total}"), &release)?;
        let accepted = session.settings.limits.points_lost_max.unwrap_or(crate::figures::POINTS_LOST_DEFAULT);
        if lost <= accepted {
            best = Some(model.clone());
        }
        if session.is_hopeless(lost, usize::MAX) {
            break;
        }
    }
    if !removed_any {
        session.note(
            "removing whole layers does not apply: no layer or residual block can go without changing the shapes around it",
        );
    }
    Ok(best)
}

/// Removes neurons and channels, those with the smallest effect on the loss first: `(Σ w·g)²` over a unit's own weights
/// (Molchanov et al. 2019, eq. 8), and tunes what is left.
pub(crate) fn units(session: &mut Session<'_>) -> Result<(), SearchError> {
    let mut model = session.original.clone();
    let hidden = unit_layers(session, &model);
    if hidden.is_empty() {
        session.note(
            "removing units does not apply: the network has no hidden linear or convolution layer whose units could go",
        );
        return Ok(());
    }
    for share in UNIT_SHARES {
        session.observer.stage("measure units", 0);
        let gradient = session.tuner.gradient(&model)?;
        let network = session.network(&model)?;
        // All effects are those of the network before the step: removing from one layer shifts the others' tensors.
        let keeps: Vec<Vec<bool>> = hidden
            .iter()
            .map(|layer| {
                strongest(&effects(&network.manifest, &layer.path, &model.parameters, &gradient), layer.keep(share))
            })
            .collect();
        for (layer, keep) in hidden.iter().zip(keeps) {
            let removal = Removal::Units { layer: layer.path.clone(), keep };
            match remove(session.plan, &model, &removal) {
                Ok((layers, parameters)) => model = Model { layers, parameters },
                Err(error) => session.note(format!("some units stay: {error}")),
            }
        }
        let percent = format!("{:.0} %", share * 100.0);
        tune(session, &mut model, &format!("keep {percent} of the units"))?;
        let release = packed(session, &model)?;
        let lost = session.add(Method::Units, format!("units {percent}"), &release)?;
        if session.is_hopeless(lost, usize::MAX) {
            break;
        }
    }
    Ok(())
}

/// A layer whose units can be removed, and how many it had at first.
struct UnitLayer {
    path: Vec<usize>,
    units: usize,
}

impl UnitLayer {
    /// How many units are left of it at `share`: at least one.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share, between 0 and 1, of a small count"
    )]
    fn keep(&self, share: f64) -> usize {
        ((self.units as f64 * share).round() as usize).max(1)
    }
}

/// The layers of `model` that can do without their first unit, found by trying.
fn unit_layers(session: &Session<'_>, model: &Model) -> Vec<UnitLayer> {
    let mut found = Vec::new();
    walk(&model.layers, &mut Vec::new(), &mut |path, layer| {
        let units = match layer {
            Layer::Linear(linear) => linear.out,
            Layer::Conv1d(conv) | Layer::Conv2d(conv) => conv.out,
            _ => return,
        };
        let keep = (0..units).map(|unit| unit > 0).collect();
        let removal = Removal::Units { layer: path.to_vec(), keep };
        if units > 1 && remove(session.plan, model, &removal).is_ok() {
            found.push(UnitLayer { path: path.to_vec(), units });
        }
    });
    found
}

/// Calls `see` for every layer, those inside residuals included, with its path.
fn walk(layers: &[Layer], path: &mut Vec<usize>, see: &mut dyn FnMut(&[usize], &Layer)) {
    for (index, layer) in layers.iter().enumerate() {
        path.push(index);
        see(path, layer);
        if let Layer::Residual(residual) = layer {
            walk(&residual.layers, path, see);
        }
        path.pop();
    }
}

/// The effect of each unit of the layer at `path` on the loss: `(Σ w·g)²` over its own weights and bias.
fn effects(manifest: &ParamManifest, path: &[usize], parameters: &[f32], gradient: &[f32]) -> Vec<f64> {
    let place: String = path.iter().map(|index| format!("{index}.")).collect();
    let own = |tensor: &&ParamTensor| tensor.name.strip_prefix(&place).is_some_and(|rest| rest.split('.').count() == 2);
    let mut sums: Vec<f64> = Vec::new();
    for tensor in manifest.tensors.iter().filter(own) {
        // A bias has one value a unit, as a channel has.
        let units = if tensor.shape.len() == 1 { tensor.len() } else { channels(&tensor.shape) };
        sums.resize(units.max(sums.len()), 0.0);
        let values = parameters[tensor.range()].iter().zip(&gradient[tensor.range()]);
        for (index, (weight, slope)) in values.enumerate() {
            let unit = if tensor.shape.len() == 1 { index } else { channel_of(&tensor.shape, index) };
            sums[unit] += f64::from(*weight) * f64::from(*slope);
        }
    }
    sums.iter().map(|sum| sum * sum).collect()
}

/// Marks the `count` largest of `effects`; of equal ones the first stay.
fn strongest(effects: &[f64], count: usize) -> Vec<bool> {
    let mut order: Vec<usize> = (0..effects.len()).collect();
    order.sort_by(|a, b| effects[*b].total_cmp(&effects[*a]));
    let mut keep = vec![false; effects.len()];
    order.iter().take(count).for_each(|unit| keep[*unit] = true);
    keep
}

fn tune(session: &mut Session<'_>, model: &mut Model, what: &str) -> Result<(), SearchError> {
    let tuning = FineTune {
        constraint: Constraint::Free,
        epochs: session.settings.effort.epochs(EPOCHS),
        lr: session.settings.lr,
        distil: session.settings.distil,
    };
    session.fine_tune(what, model, &tuning)
}

fn packed(session: &Session<'_>, model: &Model) -> Result<Release, SearchError> {
    session.pack(model, Rest::Half, |_, _, values| Compressed { kept: None, values: quantise::half(values) })
}

/// Layers with weights, those inside residuals included.
fn parametric_layers(layers: &[Layer]) -> usize {
    let mut count = 0;
    walk(layers, &mut Vec::new(), &mut |_, layer| {
        count += usize::from(matches!(
            layer,
            Layer::Linear(_)
                | Layer::Conv1d(_)
                | Layer::Conv2d(_)
                | Layer::DepthwiseConv2d(_)
                | Layer::Embedding(_)
                | Layer::Gru(_)
                | Layer::SelfAttention(_)
        ));
    });
    count
}

#[cfg(test)]
mod tests {
    use starling_spec::shape::infer;
    use starling_spec::{TaskKind, preset};

    use super::*;

    #[test]
    fn a_units_effect_is_that_of_its_own_weights() {
        let layers: Vec<Layer> = small_layers();
        let manifest = infer(TaskKind::Classification, &[2], &layers).expect("a network").manifest;
        // Layer 0: weight [2, 3] and bias [3]; layer 2: weight [3, 2] and bias [2].
        let parameters = [1., 2., 3., 4., 5., 6., 0.5, 0., 0., 9., 9., 9., 9., 9., 9., 9., 9.];
        let gradient = [1., 1., -1., 1., -1., 0., 2., 0., 0., 9., 9., 9., 9., 9., 9., 9., 9.];
        // Unit 0: 1·1 + 4·1 + 0.5·2 = 6; unit 1: 2·1 − 5·1 = −3; unit 2: −3.
        assert_eq!(effects(&manifest, &[0], &parameters, &gradient), [36.0, 9.0, 9.0]);
        assert_eq!(strongest(&[36.0, 9.0, 9.0], 2), [true, true, false]);
    }

    fn small_layers() -> Vec<Layer> {
        let linear = |out| Layer::Linear(starling_spec::layer::Linear { out, bias: true, binary: false });
        vec![linear(3), Layer::Relu, linear(2)]
    }

    #[test]
    fn layers_are_counted_inside_residuals_too() {
        let inner = small_layers();
        let nested = vec![inner[0].clone(), Layer::Residual(starling_spec::layer::Residual { layers: inner })];
        assert_eq!(parametric_layers(&nested), 3);
        assert_eq!(parametric_layers(&preset::layers("lenet-5").expect("a preset")), 4);
    }
}
