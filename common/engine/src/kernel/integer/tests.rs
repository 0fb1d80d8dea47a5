use super::*;
use crate::kernel::tests::Draw;

/// Levels with corners, half of them zeros when asked.
fn levels(draw: &mut Draw, count: usize, sparse: bool) -> Vec<u8> {
    let mut level = || match draw.below(8) {
        0 => 255,
        1..5 if sparse => 0,
        _ => u8::try_from(draw.below(256)).expect("a byte"),
    };
    (0..count).map(|_| level()).collect()
}

fn weight(draw: &mut Draw) -> i8 {
    match draw.below(6) {
        0 => 127,
        1 => -127,
        2 => -128,
        _ => i8::try_from(draw.below(255)).unwrap_or(-77),
    }
}

/// Panels for each build, with the plain weights that are in them, `[output][run][place]`.
fn panels(draw: &mut Draw, runs: usize, run: usize, outputs: usize, zero: u8) -> (Vec<Panels>, Vec<i8>) {
    let plain: Vec<i8> = (0..outputs * runs * run).map(|_| weight(draw)).collect();
    let of = |isa| {
        let mut panels = Panels::new(isa, runs, run, outputs);
        for (index, weight) in plain.iter().enumerate() {
            *panels.weight_mut(index / run % runs, index % run, index / run / runs) = *weight;
        }
        panels.centre(zero);
        panels
    };
    (Isa::all().into_iter().map(of).collect(), plain)
}

#[test]
fn every_build_gives_the_exact_sums() {
    let mut draw = Draw::new(21);
    for (runs, run) in [(1, 1), (1, 3), (1, 4), (1, 5), (1, 66), (3, 3), (5, 5), (2, 8), (5, 33)] {
        for outputs in (1..=18).chain([31, 32, 33, 48, 50, 64, 130, 160]) {
            let zero = [0, 7, 255][draw.below(3)];
            let (builds, plain) = panels(&mut draw, runs, run, outputs, zero);
            for rows in (1..=9).chain([15, 16, 17]) {
                let run_stride = run + draw.below(3);
                let starts: Vec<u32> = (0..rows).map(|_| u32::try_from(draw.below(40)).expect("small")).collect();
                let data = levels(&mut draw, 40 + runs * run_stride + run + SLACK, false);
                let rows = Rows { data: &data, starts: &starts, run_stride };
                let expected = starts.iter().flat_map(|start| {
                    plain.chunks(runs * run).map(|weights| {
                        let term = |(index, weight): (usize, &i8)| {
                            let place = *start as usize + index / run * run_stride + index % run;
                            (i64::from(data[place]) - i64::from(zero)) * i64::from(*weight)
                        };
                        weights.iter().enumerate().map(term).sum::<i64>()
                    })
                });
                let expected: Vec<i64> = expected.collect();
                for panels in &builds {
                    let isa = panels.isa;
                    let mut sums = vec![-1; starts.len() * panels.padded()];
                    product(panels, rows, &mut sums);
                    let found: Vec<i64> = sums
                        .chunks(panels.padded())
                        .flat_map(|row| &row[..outputs])
                        .map(|sum| i64::from(*sum))
                        .collect();
                    assert_eq!(found, expected, "{isa:?}, {runs} runs of {run}, {outputs} outputs");
                }
            }
        }
    }
}

#[test]
fn a_single_row_gives_the_sums_of_the_product() {
    let mut draw = Draw::new(22);
    for inputs in (1..=9).chain([31, 32, 33, 100, 784]) {
        for outputs in (1..=17).chain([48, 49, 100, 128, 129, 144, 300]) {
            let zero = [0, 3][draw.below(2)];
            let (builds, _) = panels(&mut draw, 1, inputs, outputs, zero);
            let mut x = levels(&mut draw, inputs, true);
            x.resize(inputs + SLACK, 9);
            let mut expected = vec![0; builds[0].padded()];
            product_portable(&builds[0], Rows { data: &x, starts: &[0], run_stride: 0 }, &mut expected);
            for panels in &builds {
                let isa = panels.isa;
                let mut sums = vec![-1; panels.padded()];
                vector(panels, &x, inputs, &mut Nonzero::default(), &mut sums);
                assert_eq!(sums, expected, "{isa:?}, {inputs} × {outputs}");
            }
        }
    }
}

#[test]
fn levels_are_the_nearest_ones_ties_to_even_and_clamped() {
    let values = [-1e30, -3.0, -0.5, 0.0, 0.25, 0.5, 1.0, 1.5, 2.5, 126.5, 127.5, 254.5, 255.5, 1e30];
    let expected = [0, 0, 0, 0, 0, 0, 1, 2, 2, 126, 128, 254, 255, 255];
    for isa in Isa::all() {
        for length in 0..=values.len() {
            for repeats in [1, 5] {
                let (x, expected) = (values[..length].repeat(repeats), expected[..length].repeat(repeats));
                let mut levels = vec![7; x.len()];
                levels_of(isa, Quantiser { scale: 1.0, steps: 1.0, zero: 0 }, &x, &mut levels);
                assert_eq!(levels, expected, "{isa:?}");
            }
        }
        let mut levels = [7; 2];
        levels_of(isa, Quantiser { scale: 0.5, steps: 2.0, zero: 3 }, &[f32::NAN, 1.0], &mut levels);
        assert_eq!(levels, [0, 5], "{isa:?}: a NaN is the lowest level");
    }
}

#[test]
fn every_build_turns_sums_into_the_same_levels_and_floats() {
    let mut draw = Draw::new(23);
    for outputs in (1usize..=40).chain([64, 100]) {
        let (padded, rows) = (outputs.next_multiple_of(WIDTH), 3);
        let mut sum = || i32::try_from(draw.below(4_000_001)).expect("small") - 2_000_000;
        let sums: Vec<i32> = (0..padded * rows).map(|_| sum()).collect();
        let factor: Vec<f32> = (0..padded).map(|_| draw.normal() * 1e-4).collect();
        let offset: Vec<f32> = (0..padded).map(|_| draw.normal() * 30.0 + 90.0).collect();
        let results: Vec<(Vec<u8>, Vec<u32>)> = Isa::all()
            .into_iter()
            .map(|isa| {
                let (mut levels, mut floats) = (vec![1; outputs * rows], vec![f32::NAN; outputs * rows]);
                sums_to_levels(isa, &sums, (&factor, &offset), 17.0, outputs, &mut levels);
                let places = Places { count: outputs, row: 1, output: rows };
                sums_to_floats(isa, &sums, (&factor, &offset), true, places, &mut floats);
                (levels, floats.iter().map(|value| value.to_bits()).collect())
            })
            .collect();
        for (output, row) in (0..outputs).flat_map(|output| (0..rows).map(move |row| (output, row))) {
            let value = sums[row * padded + output] as f32 * factor[output] + offset[output];
            assert_eq!(f32::from(results[0].0[row * outputs + output]), value.clamp(17.0, 255.0).round_ties_even());
            assert_eq!(f32::from_bits(results[0].1[output * rows + row]), value.max(0.0));
        }
        assert!(results.iter().all(|result| *result == results[0]), "{outputs} outputs");
    }
}

#[test]
fn a_quantiser_has_a_level_for_zero_and_for_both_ends() {
    for (low, high) in [(0.0, 1.0), (-1.0, 0.0), (-0.3, 0.9), (-2.0, 2.0), (0.0, 1e-30), (-1e30, 1e38)] {
        let quantiser = Quantiser::new(starling_compress::InputRange { low, high });
        let mut levels = [9; 3];
        levels_of(Isa::up_to(Level::Portable), quantiser, &[low, 0.0, high], &mut levels);
        assert_eq!(levels[1], quantiser.zero);
        assert!(levels[0] <= 1 && levels[2] >= 254, "{levels:?} for {low} to {high}");
    }
}
