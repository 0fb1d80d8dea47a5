//! What kept weights are: small signed integers, be they levels of a grid or ranks in a code book. First the sign, then the magnitude
//! bit by bit, highest first, each with a probability mixed from the weights nearby: those of neighbouring inputs of the same output
//! agree in sign nearly always (a unit that looks at an image looks at smooth patches) and are of like magnitude.

use super::adaptive::{Mixer, Slot, stretch};
use super::grid::Grid;
use super::range::{Coder, ONE};

/// Neighbours on either side: rows, columns, and how much each says of the sign.
const NEAR: [(isize, isize, i32); 12] = [
    (0, -1, 3),
    (-1, 0, 3),
    (0, 1, 3),
    (1, 0, 3),
    (-1, -1, 2),
    (-1, 1, 2),
    (1, -1, 2),
    (1, 1, 2),
    (0, -2, 1),
    (-2, 0, 1),
    (0, 2, 1),
    (2, 0, 1),
];

/// Magnitudes have at most this many bits.
const BITS_MAX: u32 = 16;
/// As many of the highest learn.
const LEARNT: u32 = 8;

const LIMIT: u32 = 700;

/// A weight to code: its flat index, and its level.
pub(crate) type Level = (u32, i32);

/// Codes the levels of kept weights, whose indices are known and rise; `bits` is what the largest magnitude takes, at most 16. With
/// `zero`, levels may be 0; otherwise magnitudes begin at 1. A decoder fills them.
pub(crate) fn code(coder: &mut impl Coder, grid: &Grid, bits: u32, zero: bool, levels: &mut [Level]) {
    let bits = bits.min(BITS_MAX);
    let fresh = Slot::new(ONE / 2, 1);
    let mut known = vec![0i32; grid.len()];
    let mut model = Model {
        signs: [vec![fresh; 32], vec![fresh; grid.outputs], vec![fresh; grid.inputs()]],
        sign_mixer: Mixer::new(4, [50_000, 10_000, 0], 30),
        nodes: vec![fresh; 17 << bits.min(LEARNT)],
        magnitude_mixer: Mixer::new(LEARNT as usize, [20_000, 19_000, 11_000, 0], 30),
        outputs: vec![(0, 0); grid.outputs],
    };
    for (index, level) in levels {
        let (input, output) = grid.input_output(*index as usize);
        let near = near(grid, &known, *index as usize, input);
        let magnitude =
            model.magnitude(coder, bits, output, near, level.unsigned_abs() - u32::from(!zero && *level != 0));
        let magnitude = magnitude + u32::from(!zero);
        let negative = magnitude > 0 && model.sign(coder, input, output, near, *level < 0);
        #[allow(clippy::cast_possible_wrap, reason = "a magnitude has at most 16 bits")]
        let magnitude = magnitude as i32;
        *level = if negative { -magnitude } else { magnitude };
        known[*index as usize] = *level;
    }
}

/// What is known nearby.
#[derive(Clone, Copy)]
struct Near {
    /// The weighted sum of signs.
    sign: i32,
    /// The sum of magnitudes, and of how many.
    magnitude: u32,
    count: u32,
}

fn near(grid: &Grid, known: &[i32], index: usize, input: usize) -> Near {
    let mut found = Near { sign: 0, magnitude: 0, count: 0 };
    if grid.plane() == 1 {
        return found;
    }
    let at = input % grid.plane();
    let (y, x) = (at / grid.width, at % grid.width);
    for (down, right, weight) in NEAR {
        let (Some(row), Some(column)) = (y.checked_add_signed(down), x.checked_add_signed(right)) else { continue };
        if row >= grid.height || column >= grid.width {
            continue;
        }
        let other = index + (row * grid.width + column) * grid.stride() - at * grid.stride();
        let level = known[other];
        if level != 0 {
            found.sign += weight * level.signum();
            found.magnitude += level.unsigned_abs();
            found.count += 1;
        }
    }
    found
}

struct Model {
    signs: [Vec<Slot>; 3],
    sign_mixer: Mixer<3>,
    nodes: Vec<Slot>,
    magnitude_mixer: Mixer<4>,
    /// The sum of magnitudes of each output so far, and of how many.
    outputs: Vec<(u32, u32)>,
}

impl Model {
    #[allow(clippy::cast_sign_loss, reason = "clamped to −15 to 15 first")]
    fn sign(&mut self, coder: &mut impl Coder, input: usize, output: usize, near: Near, negative: bool) -> bool {
        let field = (near.sign.clamp(-15, 15) + 15) as usize;
        let [of_field, of_output, of_input] = &mut self.signs;
        let slots = [&mut of_field[field], &mut of_output[output], &mut of_input[input]];
        let logits = [stretch(slots[0].one()), stretch(slots[1].one()), stretch(slots[2].one())];
        let case = near.sign.unsigned_abs().min(3) as usize;
        let negative = self.sign_mixer.code(coder, case, &logits, negative);
        for slot in slots {
            slot.learn(negative, LIMIT);
        }
        negative
    }

    fn magnitude(&mut self, coder: &mut impl Coder, bits: u32, output: usize, near: Near, magnitude: u32) -> u32 {
        let learnt = bits.min(LEARNT);
        let raw = bits - learnt;
        // Magnitudes nearby and of the output, in eighths of the largest.
        let scale = |sum: u32, count: u32| match count {
            0 => 8usize,
            _ => ((u64::from(sum) * 8 / u64::from(count)) >> bits).min(7) as usize,
        };
        let (sum, count) = self.outputs[output];
        let contexts = [16, scale(near.magnitude, near.count), 9 + scale(sum, count).min(6)];
        let mut node = 1usize;
        for depth in 0..learnt {
            let bit = magnitude >> (raw + learnt - 1 - depth) & 1 == 1;
            let at = |context: usize| context << learnt | node;
            let mut logits = [256; 4];
            for (logit, context) in logits.iter_mut().zip(contexts) {
                *logit = stretch(self.nodes[at(context)].one());
            }
            let bit = self.magnitude_mixer.code(coder, depth as usize, &logits, bit);
            for context in contexts {
                self.nodes[at(context)].learn(bit, LIMIT);
            }
            node = node << 1 | usize::from(bit);
        }
        #[allow(clippy::cast_possible_truncation, reason = "a node has at most nine bits")]
        let high = node as u32 - (1 << learnt);
        let magnitude = high << raw | coder.code_bits(magnitude, raw);
        let (sum, count) = &mut self.outputs[output];
        *sum = sum.saturating_add(magnitude);
        *count += 1;
        magnitude
    }
}
