//! An honest network: what its updates give away.

use anyhow::Result;

use super::{EPSILON, Line, Part, first_version, secure};
use crate::inversion::{batch, one};
use crate::picture::Picture;
use crate::scene::{Scene, Terms, first_layer};
use crate::seen;

/// Sets of rows that the attacker tries; fewer for large batches, in which no number that anybody can try is enough.
const DRAWS: u64 = 100_000;
const DRAWS_OF_MANY: u64 = 500;

/// The clipping norm of secure sums.
const CLIP: f64 = 1.0;

/// One device's plain update, after training on so many pictures.
///
/// # Errors
/// What a part of the product refuses.
pub fn of_update(scene: &Scene, pictures: usize, codec: &str) -> Result<Line> {
    let plan = scene.plan(1, Terms { codec, ..Terms::default() })?;
    let rows = scene.rows(1, pictures);
    let trained = scene.train(&plan, &first_version(&plan)?, &rows, 1)?;
    let layer = first_layer(&plan, &seen::plain(&plan, &trained[0])?)?;
    let guesses = guesses(&layer, scene, pictures);
    let steps = trained[0].report.steps as usize;
    let attack = format!("one update, {} in {}", counted(pictures, "picture"), counted(steps, "step"));
    let labels = (attack.as_str(), &*format!("none ({codec})"));
    Ok(Line::judged(scene, Part::Inversion, labels, &scene.truth(&rows[0]), &guesses))
}

/// The secure sum of ten devices with `each` pictures each, with the noise of that ε where one is given.
///
/// # Errors
/// What a part of the product refuses.
pub fn of_sum(scene: &Scene, each: usize, codec: &str, epsilon: Option<f64>) -> Result<Line> {
    let privacy = secure(CLIP, epsilon)?;
    let plan = scene.plan(10, Terms { codec, privacy: &privacy, ..Terms::default() })?;
    let rows = scene.rows(10, each);
    let version = first_version(&plan)?;
    let trained = scene.train(&plan, &version, &rows, 1)?;
    let layer = first_layer(&plan, &seen::summed(&plan, version.digest(), &trained)?)?;
    let guesses = guesses(&layer, scene, 10 * each);
    let attack = format!("sum of ten devices, {} each", counted(each, "picture"));
    let protection = match epsilon {
        None => format!("secure sum ({codec})"),
        Some(epsilon) => format!("secure sum ({codec}), noise of ε = {epsilon}"),
    };
    Ok(Line::judged(scene, Part::Inversion, (&attack, &protection), &scene.truth(&rows.concat()), &guesses))
}

pub(super) fn lines(scene: &Scene) -> Result<Vec<Line>> {
    let blurred = "Rounding blurs. By how much is chance, it is drawn anew each round, and it averages out.";
    Ok(vec![
        of_update(scene, 1, "f32")?,
        of_update(scene, 1, "q8")?,
        of_update(scene, 10, "f32")?,
        of_update(scene, 10, "q8")?.noting(blurred),
        of_update(scene, 50, "f32")?.noting(
            "Each step begins where the one before ended, and 50 pictures are too many to unmix. Slower attacks by \
             optimisation exist.",
        ),
        of_sum(scene, 10, "q16", None)?,
        of_sum(scene, 1, "q16", None)?.noting(
            "Ten devices with one picture each, in one step, are a batch of ten: the sum is no protection by itself.",
        ),
        of_sum(scene, 1, "q8", None)?.noting(blurred),
        of_sum(scene, 1, "q4", None)?.noting(blurred),
        of_sum(scene, 1, "q16", Some(EPSILON))?,
    ])
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// What the attacker would put on the table: the closed form, and the batch unmixed.
fn guesses(layer: &[Vec<f64>], scene: &Scene, pictures: usize) -> Vec<Picture> {
    if pictures == 1 {
        return vec![one(layer, scene.side())];
    }
    let draws = if pictures > 10 { DRAWS_OF_MANY } else { DRAWS };
    batch(layer, scene.side(), pictures, draws, scene.seed()).pictures
}
