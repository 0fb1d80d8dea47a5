//! Windows of images: their largest values or means. They do not overlap the border: there is no padding.

use super::window::Window;

compiled_twice!(
    /// The largest value of each window, for any number of channels after each other. `line` is scratch of one line.
    max / max_body(window: &Window, x: &[f32], line: &mut [f32], y: &mut [f32])
);

#[inline(always)]
fn max_body(window: &Window, x: &[f32], line: &mut [f32], y: &mut [f32]) {
    windows(window, x, line, y, |a, b| if a > b { a } else { b }, 1.0);
}

compiled_twice!(
    /// The mean of each window.
    mean / mean_body(window: &Window, x: &[f32], line: &mut [f32], y: &mut [f32])
);

#[inline(always)]
fn mean_body(window: &Window, x: &[f32], line: &mut [f32], y: &mut [f32]) {
    let share = 1.0 / (window.kernel.0 * window.kernel.1) as f32;
    windows(window, x, line, y, |a, b| a + b, share);
}

/// First down, line by line, where neighbours lie side by side; then across. The common windows of 2 × 2 go in one pass.
#[inline(always)]
fn windows(
    window: &Window,
    x: &[f32],
    line: &mut [f32],
    y: &mut [f32],
    join: impl Fn(f32, f32) -> f32 + Copy,
    scale: f32,
) {
    let (width, (down, across), (step_down, step)) = (window.width, window.kernel, window.stride);
    let pairs = (down, across, step) == (2, 2, 2);
    let planes = x.chunks_exact(window.height * width).zip(y.chunks_exact_mut(window.positions()));
    for (x, y) in planes {
        for (top, y) in y.chunks_exact_mut(window.out_width).enumerate() {
            let x = &x[top * step_down * width..];
            if pairs {
                let (above, below) = (x[..width].as_chunks::<2>().0, x[width..2 * width].as_chunks::<2>().0);
                for ((y, above), below) in y.iter_mut().zip(above).zip(below) {
                    *y = join(join(above[0], below[0]), join(above[1], below[1])) * scale;
                }
                continue;
            }
            line.copy_from_slice(&x[..width]);
            for x in x.chunks_exact(width).take(down).skip(1) {
                line.iter_mut().zip(x).for_each(|(line, x)| *line = join(*line, *x));
            }
            for (at, y) in y.iter_mut().enumerate() {
                let values = &line[at * step..][..across];
                *y = values[1..].iter().fold(values[0], |joined, value| join(joined, *value)) * scale;
            }
        }
    }
}

compiled_twice!(
    /// The largest level of each window of one image with its channels last.
    max_levels / max_levels_body(window: &Window, x: &[u8], y: &mut [u8])
);

#[inline(always)]
fn max_levels_body(window: &Window, x: &[u8], y: &mut [u8]) {
    let (line, channels) = (window.width * window.channels, window.channels);
    let step = window.stride.1 * channels;
    for (top, y) in y.chunks_exact_mut(window.out_width * channels).enumerate() {
        let x = &x[top * window.stride.0 * line..];
        for (down, x) in x.chunks_exact(line).take(window.kernel.0).enumerate() {
            for (column, y) in y.chunks_exact_mut(channels).enumerate() {
                for across in 0..window.kernel.1 {
                    let x = &x[column * step + across * channels..][..channels];
                    if (down, across) == (0, 0) {
                        y.copy_from_slice(x);
                    } else {
                        y.iter_mut().zip(x).for_each(|(y, x)| *y = (*y).max(*x));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::kernel::tests::Draw;

    #[test]
    fn every_build_gives_what_the_windows_hold() {
        let mut draw = Draw::new(61);
        for (height, width, size, stride) in
            [(1, 1, 1, 1), (4, 4, 2, 2), (7, 9, 2, 2), (7, 20, 3, 2), (9, 8, 2, 3), (24, 24, 2, 2)]
        {
            let out = |side: usize| (side - size) / stride + 1;
            let (channels, shape) = (19, [19, out(height), out(width)]);
            let window = Window::new("max_pool2d", &[channels, height, width], &shape, size, stride, 0).expect("small");
            let x = draw.wholes(channels * height * width);
            let positions = shape[1] * shape[2];
            let each = |join: fn(f32, f32) -> f32, start: f32| -> Vec<f32> {
                (0..channels * positions)
                    .map(|index| {
                        let (channel, position) = (index / positions, index % positions);
                        let (top, left) = (position / shape[2] * stride, position % shape[2] * stride);
                        let places = (0..size * size).map(|place| (top + place / size, left + place % size));
                        places.map(|(line, column)| x[(channel * height + line) * width + column]).fold(start, join)
                    })
                    .collect()
            };
            let largest = each(f32::max, f32::NEG_INFINITY);
            let sums = each(|a, b| a + b, 0.0);
            let levels: Vec<u8> =
                (0..channels * height * width).map(|_| u8::try_from(draw.below(256)).expect("a byte")).collect();
            for isa in Isa::all() {
                let (mut line, mut y) = (vec![0.0; width], vec![f32::NAN; largest.len()]);
                max(isa, &window, &x, &mut line, &mut y);
                assert_eq!(y, largest, "{isa:?}");
                mean(isa, &window, &x, &mut line, &mut y);
                for (mean, sum) in y.iter().zip(&sums) {
                    assert!((mean * (size * size) as f32 - sum).abs() <= 1e-4, "{isa:?} {mean} {sum}");
                }
                let mut y = vec![1; largest.len()];
                max_levels(isa, &window, &levels, &mut y);
                for (index, level) in y.iter().enumerate() {
                    let (position, channel) = (index / channels, index % channels);
                    let (top, left) = (position / shape[2] * stride, position % shape[2] * stride);
                    let places = (0..size * size).map(|place| (top + place / size) * width + left + place % size);
                    assert_eq!(Some(*level), places.map(|place| levels[place * channels + channel]).max(), "{isa:?}");
                }
            }
        }
    }
}
