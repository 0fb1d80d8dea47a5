//! Code books: each tensor's kept values shared among a few centroids, which are then tuned.

use starling_compress::method::codebook::{SharedWeights, cluster};
use starling_compress::method::prune;
use starling_compress::{Compressed, Release};

use crate::error::SearchError;
use crate::method::Method;
use crate::session::{Rest, Session, sparse};
use crate::tuner::{Constraint, FineTune, Model};

/// Centroids a tensor. With the entropy coder behind it, eight and more kept weights beat sixteen and fewer at the same size.
pub(crate) const CENTROIDS: usize = 8;

/// The code books over all weights that are tried.
const DENSE_CENTROIDS: [usize; 2] = [64, 16];

/// Passes over the data for the centroids of those.
const EPOCHS: usize = 4;

/// The learning rate of centroids against that of weights: each moves for all its members.
const LR: f64 = 0.5;

/// Code books over all weights, none pruned.
pub(crate) fn run(session: &mut Session<'_>) -> Result<(), SearchError> {
    let model = session.original.clone();
    for centroids in DENSE_CENTROIDS {
        let release = share_weights(session, &model, centroids, session.settings.effort.epochs(EPOCHS))?;
        session.add(Method::Codebook, format!("codebook {centroids}"), &release)?;
    }
    Ok(())
}

/// `model` with each tensor's kept values shared among `centroids`, tuned for `epochs`.
pub(crate) fn share_weights(
    session: &mut Session<'_>,
    model: &Model,
    centroids: usize,
    epochs: usize,
) -> Result<Release, SearchError> {
    let clustered = session.pack(model, Rest::Small, |_, _, values| sparse(values, |kept| cluster(kept, centroids)))?;
    let network = session.network(model)?;
    let mut tensors: Vec<(usize, Compressed)> =
        prune::prunable(&network).into_iter().map(|index| (index, clustered.tensors[index].clone())).collect();
    let pairs: Vec<(usize, &Compressed)> = tensors.iter().map(|(index, tensor)| (*index, tensor)).collect();
    let map = SharedWeights::new(&network, &pairs);
    let mut tuned = model.clone();
    for (index, compressed) in &tensors {
        let tensor = &network.manifest.tensors[*index];
        compressed.decompress_into(&tensor.shape, &mut tuned.parameters[tensor.range()]);
    }
    let tuning = FineTune {
        constraint: Constraint::Shared(&map),
        epochs,
        lr: session.settings.lr * LR,
        distil: session.settings.distil,
    };
    session.fine_tune("tune centroids", &mut tuned, &tuning)?;
    map.codes_into(&tuned.parameters, &mut tensors);
    // The biases have moved with the centroids: they are written anew.
    let mut release = session.pack(&tuned, Rest::Small, |index, _, _| clustered.tensors[index].clone())?;
    for (index, tensor) in tensors {
        release.tensors[index] = tensor;
    }
    Ok(release)
}
