//! One cut: which weights leave, by the search's pruning settings, and the tuning of those that stay.

use starling_compress::method::{prune, sensitivity};

use crate::error::SearchError;
use crate::pruning::{PruneBy, PrunePace, PruneScope, Worth};
use crate::session::Session;
use crate::tuner::{Constraint, FineTune, Model};

/// Prunes `model` to the worthiest `share` of its prunable weights and tunes it for `epochs`.
///
/// Masks move while the network is tuned where pruning is gradual and the side with the data can do so; otherwise the mask is
/// drawn here and stands.
pub(super) fn cut(
    session: &mut Session<'_>,
    model: &mut Model,
    what: &str,
    share: f64,
    epochs: usize,
) -> Result<(), SearchError> {
    let pruning = session.settings.pruning;
    let measured;
    let worth = match (pruning.by, pruning.scope) {
        (PruneBy::Magnitude, PruneScope::Global) => Worth::Lamp,
        (PruneBy::Magnitude, PruneScope::Layer) => Worth::Magnitude,
        (PruneBy::Saliency, scope) => Worth::Saliency(scope),
        (PruneBy::Output, _) => {
            measured = measured_shares(session, model, share)?;
            Worth::Measured(&measured)
        }
    };
    let moves = pruning.pace == PrunePace::Gradual && (session.tuner.moves_masks() || matches!(worth, Worth::Lamp));
    let constraint = if moves {
        Constraint::Share(share)
    } else {
        let gradient = if worth.needs_gradient() { session.tuner.gradient(model)? } else { Vec::new() };
        let network = session.network(model)?;
        worth.mask(&network, &model.parameters, share, &gradient).apply(&mut model.parameters);
        Constraint::Pruned
    };
    let (lr, distil) = (session.settings.lr, session.settings.distil);
    session.fine_tune(what, model, &FineTune { constraint, epochs, lr, worth, distil })
}

/// The share of each prunable tensor of `model` at which its measured output differences sum to the least, `share` of all weights
/// being kept.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share, between 0 and 1, of a count of weights"
)]
fn measured_shares(session: &mut Session<'_>, model: &Model, share: f64) -> Result<Vec<f64>, SearchError> {
    session.observer.stage("measure output differences", 0);
    let network = session.network(model)?;
    let mut curves = Vec::new();
    for index in prune::prunable(&network) {
        let range = network.manifest.tensors[index].range();
        let cuts = sensitivity::cuts(&model.parameters, range.clone());
        let changed: Vec<&[f32]> = cuts.iter().map(|cut| &cut.parameters[..]).collect();
        let differences = session.tuner.output_differences(model, &changed)?;
        let present = model.parameters[range.clone()].iter().filter(|weight| **weight != 0.0).count();
        let points = cuts.iter().map(|cut| cut.kept).zip(differences).collect();
        curves.push(sensitivity::Curve { weights: range.len(), present, points });
    }
    let weights: usize = curves.iter().map(|curve| curve.weights).sum();
    Ok(sensitivity::shares(&curves, (share * weights as f64).round() as usize))
}
