//! Pruning with weights that may come back: the mask is drawn anew while the network trains.

use std::cell::RefCell;

use starling_compress::WeightMap;
use starling_compress::method::prune::Mask;
use starling_spec::shape::Network;

use crate::pruning::Worth;

/// Steps between two drawings of the mask: a drawing costs about as much as a step of a dense network.
const STEPS_PER_MASK: usize = 16;

/// How strongly a weight that is out of the network is pulled to zero. It keeps weights that merely wander from coming back.
const OUTSIDE_DECAY: f32 = 3e-4;

/// The part of a training after which the mask stands, so that what is kept settles.
const MOVING_SHARE: f64 = 0.8;

/// What the mean square of a gradient keeps of itself from step to step: it looks back over some 20 batches.
const SQUARES_KEEP: f32 = 0.95;

/// Dynamic network surgery (Guo, Yao, Chen 2016, "Dynamic network surgery for efficient DNNs", §3): the network computes with the
/// worthiest share of the weights, but gradients move all of them, so that one that was cut too early returns.
///
/// Where worth is a weight's effect on the loss, its slope is the root of the mean square over the last batches (Molchanov et al.
/// 2019, "Importance estimation for neural network pruning", eq. 8: the mean of a trained network's gradient is nearly 0, that of
/// its square is not); the first mask then waits for the first batches.
#[derive(Debug)]
pub struct Surgery<'a> {
    network: &'a Network,
    share: f64,
    worth: Worth<'a>,
    /// The step at which the first mask is drawn.
    first_at: usize,
    /// The step from which on the mask stands.
    still_from: usize,
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    steps: usize,
    mask: Option<Mask>,
    /// The mean square of each parameter's gradient over the last batches, where worth goes by it.
    squares: Vec<f32>,
}

impl<'a> Surgery<'a> {
    /// Keeps the worthiest `share` of the prunable weights of `network` in a training of `steps` steps.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of a count of steps"
    )]
    pub fn new(network: &'a Network, share: f64, worth: Worth<'a>, steps: usize) -> Self {
        let still_from = (steps as f64 * MOVING_SHARE) as usize;
        let first_at = if worth.needs_gradient() { STEPS_PER_MASK.min(still_from).max(1) } else { 0 };
        Self { network, share, worth, first_at, still_from, state: RefCell::default() }
    }
}

impl WeightMap for Surgery<'_> {
    /// Draws the mask where it is due, and applies it.
    fn forward(&self, free: &[f32], computed: &mut [f32]) {
        let mut state = self.state.borrow_mut();
        let moves = state.steps.is_multiple_of(STEPS_PER_MASK) && state.steps < self.still_from;
        if state.steps >= self.first_at && (moves || state.mask.is_none()) {
            let slopes: Vec<f32> = state.squares.iter().map(|square| square.sqrt()).collect();
            state.mask = Some(self.worth.mask(self.network, free, self.share, &slopes));
        }
        state.steps += 1;
        computed.copy_from_slice(free);
        if let Some(mask) = &state.mask {
            mask.apply(computed);
        }
    }

    /// Lets the gradient through to weights outside the mask as long as it moves; afterwards they stay as they are.
    fn backward(&self, free: &[f32], gradient: &mut [f32]) {
        let mut state = self.state.borrow_mut();
        if self.worth.needs_gradient() {
            state.squares.resize(gradient.len(), 0.0);
            for (square, slope) in state.squares.iter_mut().zip(&*gradient) {
                *square = SQUARES_KEEP * *square + (1.0 - SQUARES_KEEP) * slope * slope;
            }
        }
        let Some(mask) = &state.mask else { return };
        let moves = state.steps < self.still_from;
        for ((slope, kept), weight) in gradient.iter_mut().zip(mask.kept()).zip(free) {
            match (kept, moves) {
                (true, _) => {}
                (false, true) => *slope += OUTSIDE_DECAY * weight,
                (false, false) => *slope = 0.0,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use starling_spec::layer::Linear;
    use starling_spec::shape::infer;
    use starling_spec::{Layer, TaskKind};

    use super::*;
    use crate::pruning::PruneScope;

    fn network() -> Network {
        let layers = [Layer::Linear(Linear { out: 2, bias: true, binary: false })];
        infer(TaskKind::Classification, &[4], &layers).expect("a network")
    }

    #[test]
    fn a_weight_that_grows_outside_comes_back_while_the_mask_moves() {
        let network = network();
        let surgery = Surgery::new(&network, 0.25, Worth::Lamp, 100);
        // Eight weights and two biases; a quarter is two weights.
        let mut free = [4.0, 3.0, 2.0, 1.0, 0.5, 0.5, 0.5, 0.5, 9.0, 9.0];
        let mut computed = [0.0; 10];
        surgery.forward(&free, &mut computed);
        assert_eq!(computed, [4.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 9.0, 9.0]);
        let mut gradient = [1.0; 10];
        surgery.backward(&free, &mut gradient);
        assert_eq!((gradient[0], gradient[9]), (1.0, 1.0));
        assert_eq!(gradient[2], 1.0 + OUTSIDE_DECAY * 2.0, "it goes on learning, and is pulled to zero");
        free[2] = 5.0;
        for _ in 1..STEPS_PER_MASK {
            surgery.forward(&free, &mut computed);
        }
        assert_eq!(computed[2], 0.0, "not before the mask is drawn again");
        surgery.forward(&free, &mut computed);
        assert_eq!(computed[..3], [4.0, 0.0, 5.0]);
    }

    #[test]
    fn at_the_end_the_mask_stands() {
        let network = network();
        let surgery = Surgery::new(&network, 0.25, Worth::Lamp, 20);
        let mut free = [4.0, 3.0, 2.0, 1.0, 0.5, 0.5, 0.5, 0.5, 9.0, 9.0];
        let mut computed = [0.0; 10];
        for _ in 0..16 {
            surgery.forward(&free, &mut computed);
        }
        free[2] = 5.0;
        for _ in 0..64 {
            surgery.forward(&free, &mut computed);
        }
        assert_eq!(computed[2], 0.0);
        let mut gradient = [1.0; 10];
        surgery.backward(&free, &mut gradient);
        assert_eq!((gradient[0], gradient[2]), (1.0, 0.0));
    }

    #[test]
    fn saliency_waits_for_gradients_and_keeps_what_the_loss_feels_most() {
        let network = network();
        let surgery = Surgery::new(&network, 0.25, Worth::Saliency(PruneScope::Global), 100);
        let free = [4.0, 3.0, 2.0, 1.0, 0.5, 0.5, 0.5, 0.5, 9.0, 9.0];
        let mut computed = [0.0; 10];
        // Its sign alternates, as that of a trained network's gradient does: the mean is nothing, the mean square is not.
        for step in 0..STEPS_PER_MASK {
            surgery.forward(&free, &mut computed);
            assert_eq!(computed, free, "no gradient has told anything yet");
            let sign = if step.is_multiple_of(2) { 1.0 } else { -1.0 };
            let mut gradient = [0.1, 0.1, 0.1, 8.0, 0.1, 0.1, 0.1, 20.0, 1.0, 1.0].map(|slope| sign * slope);
            surgery.backward(&free, &mut gradient);
        }
        surgery.forward(&free, &mut computed);
        assert_eq!(computed, [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.5, 9.0, 9.0]);
    }

    #[test]
    fn a_training_shorter_than_the_wait_is_pruned_all_the_same() {
        let network = network();
        let surgery = Surgery::new(&network, 0.25, Worth::Saliency(PruneScope::Layer), 1);
        let free = [4.0, 3.0, 2.0, 1.0, 0.5, 0.5, 0.5, 0.5, 9.0, 9.0];
        let mut computed = [0.0; 10];
        surgery.forward(&free, &mut computed);
        surgery.backward(&free, &mut [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        surgery.forward(&free, &mut computed);
        assert_eq!(computed, [0.0, 0.0, 2.0, 1.0, 0.0, 0.0, 0.0, 0.0, 9.0, 9.0]);
    }
}
