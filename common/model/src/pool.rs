//! Largest values of windows, and where their gradients go; channels last, as in [`crate::convolution`].

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

    /// The largest value of each window, and which one of the window it was: the first of equal ones, row by row.
    pub(crate) fn forward(&self, x: &[f32], y: &mut [f32], winners: &mut [u32]) {
        let channels = self.channels;
        let outputs = y.chunks_exact_mut(channels).zip(winners.chunks_exact_mut(channels));
        for ((y, winners), start) in outputs.zip(self.windows()) {
            y.copy_from_slice(&x[start..start + channels]);
            winners.fill(0);
            for (number, offset) in (0u32..).zip(self.offsets()).skip(1) {
                let x = &x[start + offset..][..channels];
                for ((y, winner), x) in y.iter_mut().zip(winners.iter_mut()).zip(x) {
                    let larger = *x > *y;
                    *y = if larger { *x } else { *y };
                    *winner = if larger { number } else { *winner };
                }
            }
        }
    }

    /// Adds each output's gradient to that of its winner.
    pub(crate) fn backward(&self, winners: &[u32], dy: &[f32], dx: &mut [f32]) {
        let channels = self.channels;
        let outputs = dy.chunks_exact(channels).zip(winners.chunks_exact(channels));
        for ((dy, winners), start) in outputs.zip(self.windows()) {
            for (number, offset) in (0u32..).zip(self.offsets()) {
                let dx = &mut dx[start + offset..][..channels];
                for ((dx, winner), dy) in dx.iter_mut().zip(winners).zip(dy) {
                    *dx += if *winner == number { *dy } else { 0.0 };
                }
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
