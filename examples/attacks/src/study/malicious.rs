//! A malicious network behind a secure sum of ten devices with ten pictures each, and what stops it.

use anyhow::Result;
use starling_spec::TaskPlan;
use starling_update::Version;

use super::{EPSILON, Line, Part, noise_multiplier, secure};
use crate::imprint;
use crate::publisher::{Publisher, consent};
use crate::scene::{Scene, Terms, first_layer};
use crate::seen;

/// Neurons of the network that everybody agreed to, and bins of the trap.
const AGREED: usize = 300;
const BINS: usize = 512;

/// The clipping norm.
pub const CLIP: f64 = 1.0;

/// What stands against a trap, beside the secure sum.
#[derive(Debug, Clone, Copy)]
pub struct Against<'a> {
    /// The codec of the sum.
    pub codec: &'a str,
    /// The clipping norm.
    pub clip: f64,
    /// The ε of noise, if there is any.
    pub epsilon: Option<f64>,
}

impl Default for Against<'_> {
    fn default() -> Self {
        Self { codec: "q16", clip: CLIP, epsilon: None }
    }
}

/// What a network of its own brings the aggregator.
///
/// # Errors
/// What a part of the product refuses.
pub fn crafted(scene: &Scene, against: Against<'_>) -> Result<Line> {
    trap(scene, BINS, "crafted network of 512 bins", "", against)
}

/// What crafted weights bring in the network of a signed plan.
///
/// # Errors
/// What a part of the product refuses.
pub fn agreed(scene: &Scene, against: Against<'_>) -> Result<Line> {
    trap(scene, AGREED, "crafted weights, the signed network", ", signed plan", against)
}

fn trap(scene: &Scene, bins: usize, attack: &str, more: &str, against: Against<'_>) -> Result<Line> {
    let plan = plan(scene, bins, against)?;
    let thresholds = imprint::thresholds(&scene.public(1000), bins);
    let version = Version::publish(0, imprint::parameters(&plan, &thresholds)?, plan.update.down)?;
    let rows = scene.rows(10, 10);
    let trained = scene.train(&plan, &version, &rows, 1)?;
    let layer = first_layer(&plan, &seen::summed(&plan, version.digest(), &trained)?)?;
    let guesses = imprint::pictures(&layer, &thresholds, scene.side())?;
    let codec = against.codec;
    let clipped = if against.clip < CLIP { format!(", clip {}", against.clip) } else { String::new() };
    let noise = against.epsilon.map_or_else(String::new, |epsilon| format!(", noise of ε = {epsilon}"));
    let labels = (attack, &*format!("secure sum ({codec}){more}{clipped}{noise}"));
    Ok(Line::judged(scene, Part::Malicious, labels, &scene.truth(&rows.concat()), &guesses))
}

fn plan(scene: &Scene, hidden: usize, against: Against<'_>) -> Result<TaskPlan> {
    scene.plan(
        10,
        Terms { hidden, codec: against.codec, privacy: &secure(against.clip, against.epsilon)?, ..Terms::default() },
    )
}

pub(super) fn lines(scene: &Scene) -> Result<Vec<Line>> {
    let bare = Against::default();
    let noisy = Against { epsilon: Some(EPSILON), ..bare };
    let multiplier = noise_multiplier(EPSILON)?;
    let mut lines = vec![
        crafted(scene, bare)?,
        crafted(scene, Against { codec: "q8", ..bare })?,
        crafted(scene, Against { codec: "q4", ..bare })?
            .noting("Rounding is in the way here; but the codec is the aggregator's, who takes another."),
        crafted(scene, Against { clip: CLIP / 100.0, ..bare })?
            .noting("A clip scales a device's update as a whole, which changes no picture in it."),
        crafted(scene, noisy)?.noting(format!("Noise multiplier {multiplier:.3}, in ten shares that devices draw.")),
    ];
    lines.extend(signatures(scene)?);
    lines.push(agreed(scene, bare)?.noting(
        "A signature covers the plan and no weights: they are the aggregator's, from round to round. Codec, clip, width and noise are signed.",
    ));
    lines.push(agreed(scene, noisy)?);
    Ok(lines)
}

/// What a device that has pinned a publisher's key says to the crafted plan, without a signature and behind another plan's.
///
/// # Errors
/// What a part of the product refuses.
pub fn signatures(scene: &Scene) -> Result<Vec<Line>> {
    let publisher = Publisher::new(scene.seed())?;
    let (agreed, crafted) = (plan(scene, AGREED, Against::default())?, plan(scene, BINS, Against::default())?);
    let signed = publisher.sign(&agreed)?;
    anyhow::ensure!(consent(&publisher.root(), &agreed, &signed).is_ok(), "the plan that was signed is trained");
    let truth = scene.truth(&scene.rows(10, 10).concat());
    let ways: [(&str, &[u8]); 2] =
        [("crafted network, unsigned", &[]), ("crafted network, another plan's signature", &signed)];
    let line = |(attack, bundle): (&str, &[u8])| {
        let labels = (attack, "pinned publisher's signature");
        match consent(&publisher.root(), &crafted, bundle) {
            Err(refused) => Ok(Line::refused(scene, labels, &truth, refused)),
            Ok(()) => anyhow::bail!("a plan that nobody signed is trained"),
        }
    };
    ways.into_iter().map(line).collect()
}
