//! Binary weights and activations, trained from the start under the full model's guidance.

use starling_compress::method::structure;
use starling_compress::method::{binary, quantise};
use starling_compress::{Compressed, Values};
use starling_spec::init::initial_parameters;

use crate::error::SearchError;
use crate::method::Method;
use crate::pruning::Worth;
use crate::session::{Rest, Session, binary_weights};
use crate::tuner::{Constraint, FineTune, Model};

/// Passes over the data.
const EPOCHS: usize = 20;

/// The learning rate against that of fine-tuning: the network begins at random.
const LR: f64 = 2.0;

pub(crate) fn run(session: &mut Session<'_>) -> Result<(), SearchError> {
    let layers = match structure::to_binary(&session.plan.layers) {
        Ok(layers) => layers,
        Err(error) => {
            session.note(format!("binary weights do not apply: {error}"));
            return Ok(());
        }
    };
    let mut model = Model { layers, parameters: Vec::new() };
    let network = session.network(&model)?;
    model.parameters = initial_parameters(&network.manifest, session.settings.seed);
    let tuning = FineTune {
        constraint: Constraint::Free,
        epochs: session.settings.effort.epochs(EPOCHS),
        lr: session.settings.lr * LR,
        worth: Worth::default(),
        distil: session.settings.distil,
    };
    session.fine_tune("train binary weights", &mut model, &tuning)?;
    let marked = binary_weights(&network);
    let release = session.pack(&model, Rest::Half, |index, tensor, values| Compressed {
        kept: None,
        values: if marked.contains(&index) { binary::binary(values, &tensor.shape) } else { real(values) },
    })?;
    session.add(Method::Binary, "binary".into(), &release)?;
    Ok(())
}

/// The weights that stay real, of the first or last layer.
fn real(values: &[f32]) -> Values {
    quantise::half(values)
}
