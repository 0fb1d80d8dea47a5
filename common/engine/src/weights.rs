//! Reading a release's tensors when an engine is built.

use starling_compress::tensor::{channel_of, channels};
use starling_compress::{Compressed, Values};
use starling_spec::ParamTensor;

/// A checked tensor of a release.
#[derive(Clone, Copy)]
pub(crate) struct Weights<'a> {
    tensor: &'a ParamTensor,
    compressed: &'a Compressed,
}

/// A weight as an integer level, and what a level more stands for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Levels<'a> {
    source: &'a Values,
}

impl<'a> Weights<'a> {
    pub(crate) fn new(tensor: &'a ParamTensor, compressed: &'a Compressed) -> Self {
        Self { tensor, compressed }
    }

    pub(crate) fn name(&self) -> &'a str {
        &self.tensor.name
    }

    pub(crate) fn shape(&self) -> &'a [usize] {
        &self.tensor.shape
    }

    pub(crate) fn len(&self) -> usize {
        self.tensor.len()
    }

    pub(crate) fn compressed(&self) -> &'a Compressed {
        self.compressed
    }

    /// Weights of one output.
    pub(crate) fn fan_in(&self) -> usize {
        self.len() / channels(self.shape()).max(1)
    }

    /// Calls `f` with the flat index and the position of each weight that is written, indices rising.
    fn places(&self, mut f: impl FnMut(usize, usize)) {
        match &self.compressed.kept {
            None => (0..self.compressed.values.len()).for_each(|index| f(index, index)),
            Some(kept) => kept.iter().enumerate().for_each(|(position, index)| f(*index as usize, position)),
        }
    }

    /// Calls `f` with the flat index and the value of each weight that is written, indices rising.
    pub(crate) fn each(&self, mut f: impl FnMut(usize, f32)) {
        let (values, shape) = (&self.compressed.values, self.shape());
        self.places(|index, position| f(index, values.value(shape, position, index)));
    }

    /// How many weights are not 0.
    pub(crate) fn nonzero(&self) -> usize {
        let mut count = 0;
        self.each(|_, value| count += usize::from(value != 0.0));
        count
    }

    /// All weights as floats.
    pub(crate) fn dense(&self) -> Vec<f32> {
        let mut dense = vec![0f32; self.len()];
        self.each(|index, value| dense[index] = value);
        dense
    }

    /// The weights as integers of up to 8 bits, when they are such.
    pub(crate) fn levels(&self) -> Option<Levels<'a>> {
        match &self.compressed.values {
            source @ (Values::Integer { .. } | Values::Fixed { bits: ..=8, .. }) => Some(Levels { source }),
            _ => None,
        }
    }

    /// Calls `f` with the flat index and the level of each weight that is written, indices rising.
    #[allow(clippy::cast_possible_truncation, reason = "fixed point of up to 8 bits was checked to fit")]
    pub(crate) fn each_level(&self, levels: Levels<'_>, mut f: impl FnMut(usize, i8)) {
        match levels.source {
            Values::Integer { levels, .. } => self.places(|index, position| f(index, levels[position])),
            Values::Fixed { levels, .. } => self.places(|index, position| f(index, levels[position] as i8)),
            _ => {}
        }
    }

    /// `α sign(W)`: the mean magnitude of each output channel, and whether each weight is at least 0.
    #[allow(clippy::cast_possible_truncation, reason = "the mean is rounded to f32 once, at the end, on purpose")]
    pub(crate) fn signs(&self) -> Compressed {
        let mut sums = vec![0f64; channels(self.shape())];
        let mut positive = vec![true; self.len()];
        self.each(|index, value| {
            sums[channel_of(self.shape(), index)] += f64::from(value.abs());
            positive[index] = value >= 0.0;
        });
        let count = self.fan_in() as f64;
        let scales = sums.iter().map(|sum| (sum / count) as f32).collect();
        Compressed { kept: None, values: Values::Binary { scales, positive } }
    }

    /// Whether each weight is its scale, not its opposite; empty unless they are signs.
    pub(crate) fn positive(&self) -> &'a [bool] {
        match &self.compressed.values {
            Values::Binary { positive, .. } => positive,
            _ => &[],
        }
    }

    /// What the weights of each output channel are multiples of, for integers and signs.
    pub(crate) fn scales(&self) -> Vec<f32> {
        let count = channels(self.shape());
        match &self.compressed.values {
            Values::Integer { scales, .. } | Values::Binary { scales, .. } if scales.len() == count => scales.clone(),
            Values::Integer { scales, .. } | Values::Binary { scales, .. } => vec![scales[0]; count],
            Values::Fixed { places, .. } => vec![2f32.powi(-i32::from(*places)); count],
            _ => vec![1.0; count],
        }
    }
}
