//! Positions of kept weights, decided one by one in the order of the tensor, each with a probability mixed from what is known of its
//! surroundings:
//!
//! - how many of its output's weights were kept so far, and of its input's (a new input begins where its neighbours ended);
//! - which weights of neighbouring inputs of the same output are kept: a field of 18 earlier ones that weigh by nearness, for
//!   weights that look at an image (kernels, and matrices behind a flattened one);
//! - how many weights the unit that makes this input keeps itself (its in-degree), or else output and input together.
//!
//! Sources: significance maps with neighbourhood contexts are H.264's (Marpe et al. 2003) and DeepCABAC's; mixing them is PAQ's.

use super::adaptive::{Mixer, Slot, stretch};
use super::grid::Grid;
use super::range::{Coder, ONE};

/// Probabilities that are mixed.
const INPUTS: usize = 7;

/// Neighbours before a weight: how many rows up, how many columns back (negative is ahead), and how much each says.
const FIELD: [(usize, isize, u8); 18] = [
    (0, 1, 8),
    (1, 0, 8),
    (1, 1, 4),
    (1, -1, 4),
    (0, 2, 3),
    (2, 0, 3),
    (2, 1, 2),
    (2, -1, 2),
    (1, 2, 2),
    (1, -2, 2),
    (2, 2, 1),
    (2, -2, 1),
    (0, 3, 1),
    (3, 0, 1),
    (3, 1, 1),
    (3, -1, 1),
    (1, 3, 1),
    (1, -3, 1),
];

/// The largest field, and the log-odds' buckets.
const FIELD_MAX: u8 = 23;
const BUCKETS: usize = 32;

/// What a slot's start counts as, in decisions; and from when on old decisions fade.
const START_SEEN: u32 = 5;
const INHERITED_SEEN: u32 = 80;
const LIMIT: u32 = 700;

/// Codes which weights of `grid` are `kept`; `total` says how many, and `degrees` how many weights each channel's maker keeps.
///
/// A decoder fills `kept`, which must hold as many as the grid. Its time is bounded by that length.
#[allow(clippy::cast_possible_truncation, reason = "a share of 2^16")]
pub(crate) fn code(coder: &mut impl Coder, grid: &Grid, degrees: Option<&[u32]>, total: usize, kept: &mut [bool]) {
    let len = grid.len();
    let prior = ((total as u64 * u64::from(ONE)) / len.max(1) as u64).clamp(8, u64::from(ONE) - 8) as u32;
    let fresh = Slot::new(prior, START_SEEN);
    let mut model = Model {
        grid: *grid,
        prior: stretch(prior),
        outputs: vec![fresh; grid.outputs],
        inputs: vec![fresh; grid.inputs()],
        channels: vec![fresh; if grid.plane() > 1 { grid.channels } else { 0 }],
        field_output: vec![fresh; (usize::from(FIELD_MAX) + 1) * BUCKETS],
        field_input: vec![fresh; (usize::from(FIELD_MAX) + 1) * BUCKETS],
        together: vec![fresh; BUCKETS * BUCKETS],
        mixer: Mixer::new(16, [9500, 9000, 4000, 10_000, 30_000, 0, 0], 6),
    };
    let mut left = total;
    let mut field = vec![0u8; grid.outputs];
    let (outer, inner) = if grid.outputs_last { (grid.inputs(), grid.outputs) } else { (grid.outputs, grid.inputs()) };
    for slow in 0..outer {
        if grid.outputs_last {
            model.inherit(slow);
            fields(grid, kept, slow, &mut field);
        }
        for (fast, index) in (slow * inner..(slow + 1) * inner).enumerate() {
            // All kept weights are found, or all that is left is kept: nothing more to say.
            if left == 0 || left == len - index {
                kept[index..].fill(left > 0);
                return;
            }
            let (input, output, near) = if grid.outputs_last {
                (slow, fast, field[fast])
            } else {
                (fast, slow, kernel_field(grid, kept, index, fast))
            };
            let degree = degrees.map(|degrees| degrees[input / grid.plane()]);
            let bit = model.code(coder, input, output, near.min(FIELD_MAX), degree, kept[index]);
            kept[index] = bit;
            left -= usize::from(bit);
        }
    }
}

struct Model {
    grid: Grid,
    prior: i32,
    outputs: Vec<Slot>,
    inputs: Vec<Slot>,
    channels: Vec<Slot>,
    field_output: Vec<Slot>,
    field_input: Vec<Slot>,
    together: Vec<Slot>,
    mixer: Mixer<INPUTS>,
}

/// Log-odds in 32 steps.
#[inline]
#[allow(clippy::cast_sign_loss, reason = "log-odds lie above −2816")]
fn bucket(logit: i32) -> usize {
    ((logit.wrapping_add(2816)) as u32 / 176) as usize & (BUCKETS - 1)
}

impl Model {
    /// Begins an input's slot where those of its neighbours in the image ended.
    fn inherit(&mut self, input: usize) {
        let at = input % self.grid.plane();
        let left = (!at.is_multiple_of(self.grid.width)).then(|| self.inputs[input - 1].one());
        let above = (at >= self.grid.width).then(|| self.inputs[input - self.grid.width].one());
        let one = match (left, above) {
            (Some(left), Some(above)) => (left + above) / 2,
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => return,
        };
        self.inputs[input] = Slot::new(one, INHERITED_SEEN);
    }

    #[inline]
    fn code(
        &mut self,
        coder: &mut impl Coder,
        input: usize,
        output: usize,
        near: u8,
        degree: Option<u32>,
        bit: bool,
    ) -> bool {
        let (output_logit, input_logit) = (stretch(self.outputs[output].one()), stretch(self.inputs[input].one()));
        let (of_output, of_input) = (bucket(output_logit), bucket(input_logit));
        let row = match degree {
            Some(degree) => (u32::BITS - degree.leading_zeros()).min(31) as usize,
            None => of_input,
        };
        let mut none = Slot::new(ONE / 2, 0);
        let channel = self.channels.get_mut(input / self.grid.plane()).unwrap_or(&mut none);
        let near = usize::from(near);
        let slots: [&mut Slot; INPUTS - 1] = [
            &mut self.outputs[output],
            &mut self.inputs[input],
            &mut self.field_output[near * BUCKETS + of_output],
            &mut self.field_input[near * BUCKETS + of_input],
            &mut self.together[row * BUCKETS + of_output],
            channel,
        ];
        let mut logits = [output_logit, input_logit, 0, 0, 0, 0, self.prior];
        for (logit, slot) in logits[2..].iter_mut().zip(&slots[2..]) {
            *logit = stretch(slot.one());
        }
        let bit = self.mixer.code(coder, near.min(15), &logits, bit);
        for slot in slots {
            slot.learn(bit, LIMIT);
        }
        bit
    }
}

/// The fields of all outputs at `input` of a matrix.
fn fields(grid: &Grid, kept: &[bool], input: usize, field: &mut [u8]) {
    field.fill(0);
    for (back, weight) in earlier(grid, input) {
        let row = (input - back) * grid.outputs;
        for (field, kept) in field.iter_mut().zip(&kept[row..row + grid.outputs]) {
            // All weights together stay below 256.
            *field = field.wrapping_add(weight & (*kept as u8).wrapping_neg());
        }
    }
}

/// The field of one weight of a kernel.
fn kernel_field(grid: &Grid, kept: &[bool], index: usize, input: usize) -> u8 {
    if grid.plane() == 1 {
        return 0;
    }
    earlier(grid, input).map(|(back, weight)| if kept[index - back] { weight } else { 0 }).sum()
}

/// The neighbours of `input` that come before it: how far back, and their weight.
fn earlier(grid: &Grid, input: usize) -> impl Iterator<Item = (usize, u8)> + use<> {
    let (height, width) = (grid.height, grid.width);
    let (y, x) = (input % (height * width) / width, input % width);
    FIELD.iter().filter(move |_| height * width > 1).filter_map(move |(up, back, weight)| {
        let column = x.checked_add_signed(-back).filter(|column| *column < width);
        (*up <= y && column.is_some()).then(|| ((up * width).wrapping_add_signed(*back), *weight))
    })
}
