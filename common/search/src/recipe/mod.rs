//! How candidates are made, one file a family.

mod aim;
mod binary;
mod cut;
mod ladder;
mod post_training;
mod shared;
mod structural;

use crate::error::SearchError;
use crate::method::{Effort, Method};
use crate::session::Session;

/// Makes the candidates that the settings ask for.
pub(crate) fn run_all(session: &mut Session<'_>) -> Result<(), SearchError> {
    let method = session.settings.method;
    post_training::run(session)?;
    // What is left after whole layers are gone is what pruning starts from.
    let mut start = session.original.clone();
    if method.includes(Method::Layers)
        && let Some(smaller) = structural::layers(session)?
    {
        start = smaller;
    }
    if method.includes(Method::Units) {
        structural::units(session)?;
    }
    if method.includes(Method::Codebook) {
        shared::run(session)?;
    }
    if method.includes(Method::Deep) || method.includes(Method::Prune) {
        ladder::run(session, start)?;
    }
    match (method, session.settings.effort) {
        (Method::Binary, _) | (Method::Auto, Effort::Thorough) => binary::run(session)?,
        (Method::Auto, _) => session.note(
            "binary weights were not tried, since such a network is trained from the start: ask with --method binary or \
             --effort thorough",
        ),
        _ => {}
    }
    if session.candidates.is_empty() {
        session
            .note(format!("--method {method} makes nothing of this network; the release is the full model in floats"));
        post_training::float(session)?;
    }
    Ok(())
}
