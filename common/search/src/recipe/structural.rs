//! Layers and units removed: the network itself becomes smaller, for any runtime.

use starling_compress::method::quantise;
use starling_compress::method::structure::{self, Removal};
use starling_compress::{Compressed, Release};
use starling_spec::Layer;

use crate::error::SearchError;
use crate::method::Method;
use crate::pruning::Worth;
use crate::session::{Rest, Session, remove};
use crate::tuner::{Constraint, FineTune, Model};

/// Passes over the data after each removal.
const EPOCHS: usize = 4;

/// The shares of hidden units that are left, step by step.
const UNIT_SHARES: [f64; 5] = [0.75, 0.5, 0.35, 0.25, 0.15];

/// Where these do not make the network as fast as asked, each further share is so much of the one before, down to the last.
const UNITS_FURTHER: f64 = 0.6;
const UNIT_SHARE_MIN: f64 = 0.01;

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
        let first = session.candidates.len();
        let lost = add(session, Method::Layers, &format!("layers {left} of {total}"), &model)?;
        let accepted = session.settings.limits.points_lost_max.unwrap_or(crate::figures::POINTS_LOST_DEFAULT);
        if lost <= accepted {
            best = Some(model.clone());
        }
        if session.can_stop(lost, first) {
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

/// Removes neurons and channels, those with the smallest effect on the loss first (see [`structure::unit_saliency`]), and tunes
/// what is left.
pub(crate) fn units(session: &mut Session<'_>) -> Result<(), SearchError> {
    match shrink(session) {
        Err(SearchError::Unavailable(why)) => {
            session.note(format!("removing units by their effect on the loss does not apply here: {why}"));
            Ok(())
        }
        result => result,
    }
}

fn shrink(session: &mut Session<'_>) -> Result<(), SearchError> {
    let plan = session.plan;
    let mut model = session.original.clone();
    let hidden = unit_layers(session);
    if hidden.is_empty() {
        session.note(
            "removing units does not apply: the network has no hidden linear or convolution layer whose units could go",
        );
        return Ok(());
    }
    let mut share = 1.0;
    for position in 0.. {
        share = UNIT_SHARES.get(position).copied().unwrap_or(share * UNITS_FURTHER);
        if share < UNIT_SHARE_MIN {
            break;
        }
        session.observer.stage("measure units", 0);
        let gradient = session.tuner.gradient(&model)?;
        // All effects are those of the network before the step: removing from one layer shifts the others' tensors.
        let mut keeps = Vec::new();
        for layer in &hidden {
            let effects = structure::unit_saliency(
                plan.kind,
                &plan.shape,
                &model.layers,
                &model.parameters,
                &gradient,
                &layer.path,
            );
            match effects {
                Ok(effects) => keeps.push((layer, strongest(&effects, layer.keep(share)))),
                Err(error) => session.note(format!("some units stay: {error}")),
            }
        }
        for (layer, keep) in keeps {
            let removal = Removal::Units { layer: layer.path.clone(), keep };
            match remove(plan, &model, &removal) {
                Ok((layers, parameters)) => model = Model { layers, parameters },
                Err(error) => session.note(format!("some units stay: {error}")),
            }
        }
        let percent = format!("{:.0} %", share * 100.0);
        tune(session, &mut model, &format!("keep {percent} of the units"))?;
        let first = session.candidates.len();
        let lost = add(session, Method::Units, &format!("units {percent}"), &model)?;
        let is_last = position + 1 >= UNIT_SHARES.len() && session.keeps_speed(first);
        if is_last || session.can_stop(lost, first) {
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

/// The layers of the full model whose units can go.
fn unit_layers(session: &Session<'_>) -> Vec<UnitLayer> {
    let plan = session.plan;
    let found = structure::layers_with_units(plan.kind, &plan.shape, &session.original.layers);
    let several = found.into_iter().filter(|(_, units)| *units > 1);
    several.map(|(path, units)| UnitLayer { path, units }).collect()
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
        worth: Worth::default(),
        distil: session.settings.distil,
    };
    session.fine_tune(what, model, &tuning)
}

/// Adds `model` in binary16 and in calibrated integers: what is smaller still computes in any form. Gives the points that it loses
/// without the integers.
fn add(session: &mut Session<'_>, method: Method, name: &str, model: &Model) -> Result<f64, SearchError> {
    let half: Release =
        session.pack(model, Rest::Half, |_, _, values| Compressed { kept: None, values: quantise::half(values) })?;
    let lost = session.add(method, name.to_owned(), &half)?;
    session.add_integers(method, format!("{name} int8"), model, |_, values| Compressed { kept: None, values })?;
    Ok(lost)
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
    use starling_spec::preset;

    use super::*;

    #[test]
    fn the_strongest_stay_and_of_equal_ones_the_first() {
        assert_eq!(strongest(&[36.0, 9.0, 9.0], 2), [true, true, false]);
        assert_eq!(strongest(&[1.0, 9.0, 36.0], 1), [false, false, true]);
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
