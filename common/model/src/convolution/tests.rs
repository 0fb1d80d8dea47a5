//! Convolutions against their definition, written out in f64.

use starling_spec::random::{Purpose, Random};

use super::*;

fn uniform(count: usize, stream: u64) -> Vec<f32> {
    let mut random = Random::new(7, Purpose::Noise, &[stream]);
    (0..count).map(|_| 2.0 * random.unit_f32() - 1.0).collect()
}

/// For each term `y[o] += x[i] · w[k]` of the convolution: o, i (in the padded sample) and k.
fn terms(size: &Size) -> Vec<(usize, usize, usize)> {
    let ([height, width], mut terms) = (size.output(), Vec::new());
    for y in 0..height {
        for x in 0..width {
            for out in 0..size.out {
                for channel in 0..size.channels {
                    for ky in 0..size.kernel[0] {
                        for kx in 0..size.kernel[1] {
                            let from =
                                ((y * size.stride + ky) * (size.width + 2 * size.padding[1]) + x * size.stride + kx)
                                    * size.channels
                                    + channel;
                            let weight = ((out * size.channels + channel) * size.kernel[0] + ky) * size.kernel[1] + kx;
                            terms.push(((y * width + x) * size.out + out, from, weight));
                        }
                    }
                }
            }
        }
    }
    terms
}

fn assert_near(found: &[f32], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len());
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((f64::from(*found) - expected).abs() < 2e-4, "{what} {index}: {found} against {expected}");
    }
}

/// Tails of every kind, many channels, signals, a kernel of 1.
const SIZES: &[Size] = &[
    Size { channels: 1, height: 28, width: 28, out: 20, kernel: [5, 5], stride: 1, padding: [0, 0] },
    Size { channels: 20, height: 12, width: 12, out: 50, kernel: [5, 5], stride: 1, padding: [0, 0] },
    Size { channels: 3, height: 9, width: 7, out: 17, kernel: [3, 3], stride: 2, padding: [1, 1] },
    Size { channels: 2, height: 5, width: 5, out: 1, kernel: [5, 5], stride: 1, padding: [0, 0] },
    Size { channels: 7, height: 4, width: 6, out: 130, kernel: [3, 3], stride: 1, padding: [1, 1] },
    Size { channels: 5, height: 13, width: 1, out: 9, kernel: [4, 1], stride: 3, padding: [0, 0] },
    Size { channels: 90, height: 3, width: 3, out: 33, kernel: [2, 2], stride: 1, padding: [0, 0] },
    Size { channels: 33, height: 3, width: 2, out: 65, kernel: [1, 1], stride: 1, padding: [0, 0] },
    Size { channels: 4, height: 11, width: 1, out: 6, kernel: [3, 1], stride: 1, padding: [1, 0] },
];

#[test]
fn products_are_the_definitions() {
    for &size in SIZES {
        let Size { channels, out, kernel, .. } = size;
        let convolution = Convolution::new(size);
        let weight = uniform(out * channels * kernel[0] * kernel[1], 1);
        let bias = uniform(out, 2);
        let x = uniform(size.padded(), 3);
        let mut dy = uniform(convolution.output_len(), 4);
        let (mut y64, mut dw64) = (vec![0f64; dy.len()], vec![0f64; weight.len()]);
        let (mut dx64, mut db64) = (vec![0f64; x.len()], vec![0f64; out]);
        for (o, value) in y64.iter_mut().enumerate() {
            *value = f64::from(bias[o % out]);
            db64[o % out] += f64::from(dy[o]);
        }
        for (o, i, k) in terms(&size) {
            y64[o] += f64::from(x[i]) * f64::from(weight[k]);
            dw64[k] += f64::from(x[i]) * f64::from(dy[o]);
            dx64[i] += f64::from(weight[k]) * f64::from(dy[o]);
        }
        // What lies beyond the last sample is read and means nothing.
        dy.resize(dy.len() + PAD, 1e30);
        for build in Build::available() {
            let mut packed = Packed::default();
            convolution.pack(&weight, Some(&bias), true, &mut packed);
            let mut y = vec![f32::NAN; convolution.output_len()];
            convolution.forward(build, &packed, &x, &mut y);
            assert_near(&y, &y64, &format!("{build:?} {size:?} output"));
            let (mut dw, mut db) = (vec![0f32; convolution.gradient_len()], vec![0f32; out]);
            convolution.backward_weights(build, &x, &dy, &mut dw, &mut db);
            assert_near(&convolution.gradient(&dw), &dw64, &format!("{build:?} {size:?} weight"));
            assert_near(&db, &db64, &format!("{build:?} {size:?} bias"));
            let mut dx = vec![0f32; x.len()];
            convolution.backward_inputs(build, &packed, &dy, &mut dx);
            assert_near(&dx, &dx64, &format!("{build:?} {size:?} input"));
        }
    }
}

/// The order of additions does not depend on the width of the vectors.
#[test]
fn fused_builds_give_the_same_bits() {
    let builds: Vec<Build> = Build::available().into_iter().filter(|build| build.wide()).collect();
    let size = Size { channels: 6, height: 9, width: 11, out: 50, kernel: [3, 3], stride: 1, padding: [0, 0] };
    let convolution = Convolution::new(size);
    let mut packed = Packed::default();
    convolution.pack(&uniform(50 * 6 * 9, 1), None, true, &mut packed);
    let x = uniform(size.padded(), 2);
    let dy = uniform(convolution.output_len() + PAD, 3);
    let results: Vec<Vec<u32>> = builds
        .iter()
        .map(|build| {
            let mut results = vec![0f32; convolution.output_len()];
            convolution.forward(*build, &packed, &x, &mut results);
            let mut dw = vec![0f32; convolution.gradient_len()];
            convolution.backward_weights(*build, &x, &dy, &mut dw, &mut [0.0; 50]);
            results.extend(convolution.gradient(&dw));
            let mut dx = vec![0f32; x.len()];
            convolution.backward_inputs(*build, &packed, &dy, &mut dx);
            results.extend(dx);
            results.into_iter().map(f32::to_bits).collect()
        })
        .collect();
    assert!(results.windows(2).all(|pair| pair[0] == pair[1]));
}
