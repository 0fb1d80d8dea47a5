//! The geometry of a convolution: where each tap of each window lies in a padded copy of its input.

use crate::error::EngineError;

/// Values of a padded copy of one sample, at most: 256 MiB of floats. A kernel as large as the specification allows could ask
/// for far more than its input has.
const STAGED_MAX: usize = 1 << 26;

/// A convolution's sizes. A signal is an image of one line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Window {
    pub(crate) channels: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    /// The kernel's lines and columns.
    pub(crate) kernel: (usize, usize),
    /// Steps down and across.
    pub(crate) stride: (usize, usize),
    /// Zeros above (and below), and to the left (and right).
    pub(crate) padding: (usize, usize),
    pub(crate) out_height: usize,
    pub(crate) out_width: usize,
}

impl Window {
    /// The window of a convolution from a sample of the shape `input` to one of `output`, checked to be of a bearable size.
    pub(crate) fn new(
        layer: &'static str,
        input: &[usize],
        output: &[usize],
        kernel: usize,
        stride: usize,
        padding: usize,
    ) -> Result<Self, EngineError> {
        let image = input.len() == 3;
        let line = |axes: &[usize]| if image { axes[1] } else { 1 };
        let window = Self {
            channels: input[0],
            height: line(input),
            width: input[input.len() - 1],
            kernel: (if image { kernel } else { 1 }, kernel),
            stride: (if image { stride } else { 1 }, stride),
            padding: (if image { padding } else { 0 }, padding),
            out_height: line(output),
            out_width: output[output.len() - 1],
        };
        let (height, width) = window.padded();
        // Rounded up to whole phases, so that the copies of a step of any size count.
        let phased = |side: usize, stride: usize| side.checked_next_multiple_of(stride);
        let values = phased(height, window.stride.0)
            .zip(phased(width, window.stride.1))
            .and_then(|(height, width)| height.checked_mul(width)?.checked_mul(window.channels));
        match values {
            Some(values) if values <= STAGED_MAX => Ok(window),
            values => Err(EngineError::Memory { layer, values: values.unwrap_or(usize::MAX), limit: STAGED_MAX }),
        }
    }

    /// Lines and columns of the input with its padding.
    pub(crate) fn padded(&self) -> (usize, usize) {
        (self.height + 2 * self.padding.0, self.width + 2 * self.padding.1)
    }

    /// Values of one output channel.
    pub(crate) fn positions(&self) -> usize {
        self.out_height * self.out_width
    }

    /// Values of the input.
    pub(crate) fn input_len(&self) -> usize {
        self.channels * self.height * self.width
    }
}

/// Padded planes of floats, one a channel. With a step of more than one, each plane is taken apart into phases, so that what
/// the windows of neighbouring positions see under one tap always lies side by side:
///
/// ```text
/// phase (a, b) of a channel, at (i, j)  =  padded(i · step + a, j · step + b)
/// output (y, x) under the tap at o      =  planes[o + y · pitch + x]
/// ```
///
/// The outputs of a channel are then one run of `(out_height − 1) · pitch + out_width` values with some waste between its
/// lines, and a tap adds one run to another.
#[derive(Debug, Clone)]
pub(crate) struct Planes {
    window: Window,
    /// Values between lines of a phase.
    pitch: usize,
    /// Values of a phase.
    phase: usize,
    values: Vec<f32>,
}

impl Planes {
    pub(crate) fn new(window: Window) -> Self {
        let (height, width) = window.padded();
        let pitch = width.div_ceil(window.stride.1);
        Self { window, pitch, phase: height.div_ceil(window.stride.0) * pitch, values: Vec::new() }
    }

    /// Where the tap of `channel` at line `down` and column `across` of the kernel begins.
    #[allow(clippy::cast_possible_truncation, reason = "the window was checked to have at most 2^26 values")]
    pub(crate) fn tap(&self, channel: usize, down: usize, across: usize) -> u32 {
        let (step_down, step_across) = self.window.stride;
        let phases = (channel * step_down + down % step_down) * step_across + across % step_across;
        (phases * self.phase + down / step_down * self.pitch + across / step_across) as u32
    }

    /// Values between lines of outputs.
    pub(crate) fn pitch(&self) -> usize {
        self.pitch
    }

    /// Values of a line of outputs.
    pub(crate) fn out_width(&self) -> usize {
        self.window.out_width
    }

    /// Values of the outputs of a channel, with the waste between lines.
    pub(crate) fn run(&self) -> usize {
        (self.window.out_height - 1) * self.pitch + self.window.out_width
    }

    /// Copies one sample in, and gives the planes with at least `slack` values behind them.
    pub(crate) fn fill(&mut self, x: &[f32], slack: usize) -> &[f32] {
        let window = self.window;
        let (step_down, step_across) = window.stride;
        let len = window.channels * step_down * step_across * self.phase + slack;
        if self.values.len() < len {
            // The padding is never written afterwards, so it stays 0.
            self.values.resize(len, 0.0);
        }
        for (channel, x) in x.chunks_exact(window.height * window.width).enumerate() {
            for (line, x) in x.chunks_exact(window.width).enumerate() {
                let down = line + window.padding.0;
                for across in 0..step_across.min(window.width) {
                    let column = across + window.padding.1;
                    let start = self.tap(channel, down, column) as usize;
                    if step_across == 1 {
                        self.values[start..start + x.len()].copy_from_slice(x);
                    } else {
                        let from = x[across..].iter().step_by(step_across);
                        self.values[start..].iter_mut().zip(from).for_each(|(to, x)| *to = *x);
                    }
                }
            }
        }
        &self.values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taps_see_the_padded_input_at_their_places() {
        for (stride, padding, kernel) in [(1, 0, 3), (1, 2, 5), (2, 1, 3), (3, 0, 2), (3, 2, 5), (2, 0, 1)] {
            let (channels, height, width) = (2, 7, 9);
            let out = |side: usize| (side + 2 * padding - kernel) / stride + 1;
            let output = [1, out(height), out(width)];
            let window = Window::new("conv2d", &[channels, height, width], &output, kernel, stride, padding);
            let mut planes = Planes::new(window.expect("small"));
            let x: Vec<f32> = (0..channels * height * width).map(|value| value as f32 + 1.0).collect();
            planes.fill(&x, 8);
            for channel in 0..channels {
                for (down, across) in (0..kernel).flat_map(|down| (0..kernel).map(move |across| (down, across))) {
                    let tap = planes.tap(channel, down, across) as usize;
                    for (line, column) in (0..output[1]).flat_map(|y| (0..output[2]).map(move |x| (y, x))) {
                        let source = |place: usize, offset: usize, side: usize| {
                            (place * stride + offset).checked_sub(padding).filter(|at| *at < side)
                        };
                        let expected = source(line, down, height)
                            .zip(source(column, across, width))
                            .map_or(0.0, |(y, x_at)| x[(channel * height + y) * width + x_at]);
                        assert_eq!(planes.values[tap + line * planes.pitch + column], expected);
                    }
                }
            }
        }
    }

    #[test]
    fn a_kernel_far_larger_than_its_input_is_refused() {
        let side = 32_767;
        let error = Window::new("conv2d", &[1, 1, 1], &[1, 1, 1], side, 1, side / 2).expect_err("4 GiB");
        assert!(error.to_string().contains("conv2d"), "{error}");
        let window = Window::new("conv1d", &[1, 5], &[1, 1], 5, usize::MAX / 2, 0);
        assert!(matches!(window, Err(EngineError::Memory { .. })), "{window:?}");
    }
}
