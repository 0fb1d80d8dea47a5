//! Largest values of windows, and where their gradients go; channels last, as in [`crate::convolution`].

use crate::convolution::kernel::Build;

/// A pool over `[height, width, channels]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MaxPool {
    pub(crate) channels: usize,
    pub(crate) input: [usize; 2],
    pub(crate) window: [usize; 2],
    pub(crate) stride: [usize; 2],
}

impl MaxPool {
    /// Height and width of what comes out.
    pub(crate) fn output(&self) -> [usize; 2] {
        [0, 1].map(|axis| (self.input[axis] - self.window[axis]) / self.stride[axis] + 1)
    }

    /// Values of one sample's outputs.
    pub(crate) fn output_len(&self) -> usize {
        self.output().iter().product::<usize>() * self.channels
    }

    /// The largest value of each window, and how far behind the window's beginning it lies: the first of equal ones, row by
    /// row.
    #[allow(unsafe_code, reason = "calling code compiled for features that the compiler cannot assume")]
    pub(crate) fn forward(&self, build: Build, x: &[f32], y: &mut [f32], winners: &mut [u32]) {
        #[cfg(target_arch = "x86_64")]
        {
            #[target_feature(enable = "avx2")]
            fn wide(pool: &MaxPool, x: &[f32], y: &mut [f32], winners: &mut [u32]) {
                pool.largest(x, y, winners);
            }
            if build.wide() {
                // SAFETY: a wide build exists only where the processor has AVX2.
                return unsafe { wide(self, x, y, winners) };
            }
        }
        self.largest(x, y, winners);
    }

    #[inline(always)]
    fn largest(&self, x: &[f32], y: &mut [f32], winners: &mut [u32]) {
        let channels = self.channels;
        let outputs = y.chunks_exact_mut(channels).zip(winners.chunks_exact_mut(channels));
        for ((y, winners), start) in outputs.zip(self.windows()) {
            y.copy_from_slice(&x[start..start + channels]);
            winners.fill(0);
            for offset in self.offsets().skip(1) {
                let x = &x[start + offset..][..channels];
                #[allow(clippy::cast_possible_truncation, reason = "an activation has at most 2^26 values")]
                let offset = offset as u32;
                for ((y, winner), x) in y.iter_mut().zip(winners.iter_mut()).zip(x) {
                    let larger = *x > *y;
                    *y = if larger { *x } else { *y };
                    *winner = if larger { offset } else { *winner };
                }
            }
        }
    }

    /// Adds each output's gradient to that of its winner.
    pub(crate) fn backward(&self, winners: &[u32], dy: &[f32], dx: &mut [f32]) {
        let channels = self.channels;
        let outputs = dy.chunks_exact(channels).zip(winners.chunks_exact(channels));
        for ((dy, winners), start) in outputs.zip(self.windows()) {
            for ((slope, winner), index) in dy.iter().zip(winners).zip(start..) {
                dx[index + *winner as usize] += slope;
            }
        }
    }

    /// Where windows begin.
    fn windows(&self) -> impl Iterator<Item = usize> + use<> {
        let ([height, width], pool) = (self.output(), *self);
        let row = pool.input[1] * pool.channels;
        (0..height)
            .flat_map(move |y| (0..width).map(move |x| y * pool.stride[0] * row + x * pool.stride[1] * pool.channels))
    }

    /// The values of a window, from its beginning.
    fn offsets(&self) -> impl Iterator<Item = usize> + use<> {
        let pool = *self;
        (0..pool.window[0]).flat_map(move |y| (0..pool.window[1]).map(move |x| (y * pool.input[1] + x) * pool.channels))
    }
}
