use starling_spec::random::{Purpose, Random};

use super::adaptive::{Slot, code_slot, squash, stretch};
use super::bits::{BitReader, BitWriter};
use super::floats::{HALF, SINGLE};
use super::grid::Grid;
use super::huffman::Huffman;
use super::levels::Level;
use super::range::{Coder, Cost, Decoder, Encoder, ONE};
use super::*;

fn random(seed: u64) -> Random {
    Random::new(seed, Purpose::Noise, &[])
}

/// The entropy of a bit that is one with probability `one`.
fn entropy(one: f64) -> f64 {
    -one * one.log2() - (1.0 - one) * (1.0 - one).log2()
}

#[test]
fn bits_and_numbers_come_back() {
    let mut random = random(1);
    let mut out = BitWriter::default();
    let mut written = Vec::new();
    for _ in 0..2000 {
        let count = u32::try_from(random.below(33)).expect("small");
        let bits = u32::try_from(random.below(1 << 32)).expect("32 bits")
            & u32::try_from((1u64 << count) - 1).expect("32 bits");
        out.write(bits, count);
        out.write_number(bits);
        written.push((bits, count));
    }
    let length = out.len();
    let mut twice = BitWriter::default();
    twice.write(5, 3);
    twice.append(&out);
    assert_eq!(twice.len(), length + 3);
    let bytes = twice.into_bytes();
    let mut bits = BitReader::new(&bytes);
    assert_eq!(bits.read(3), Ok(5));
    for (value, count) in written {
        assert_eq!(bits.read(count), Ok(value));
        assert_eq!(bits.number(), Ok(value));
    }
    assert!(bits.at_end());
    assert!(bits.read(9).is_err());
}

/// Huffman's example of CLRS (Introduction to Algorithms, §16.3): a to f, 45, 13, 12, 16, 9, 5 times, in 224 bits.
#[test]
fn huffmans_lengths_are_the_textbooks() {
    let frequencies = [45, 13, 12, 16, 9, 5];
    let code = Huffman::of(&frequencies);
    let mut out = BitWriter::default();
    for (symbol, frequency) in (0u32..).zip(frequencies) {
        (0..frequency).for_each(|_| code.encode(symbol, &mut out));
    }
    assert_eq!(out.len(), 224);
    let mut lengths = BitWriter::default();
    code.write(&mut lengths);
    assert_eq!(lengths.into_bytes(), [0x13, 0x33, 0x44]);
}

#[test]
fn a_skewed_alphabet_stays_within_fifteen_bits() {
    // Fibonacci's numbers make the deepest tree.
    let mut frequencies = vec![1u64, 1];
    while frequencies.len() < 40 {
        frequencies.push(frequencies[frequencies.len() - 1] + frequencies[frequencies.len() - 2]);
    }
    let code = Huffman::of(&frequencies);
    let mut out = BitWriter::default();
    code.write(&mut out);
    for symbol in 0..40 {
        code.encode(symbol, &mut out);
    }
    let bytes = out.into_bytes();
    let mut bits = BitReader::new(&bytes);
    let read = Huffman::read(&mut bits, 40).expect("a code");
    assert_eq!(read, code);
    for symbol in 0..40 {
        assert_eq!(read.decode(&mut bits), Ok(symbol));
    }
    for lengths in [&[0x11, 0x10][..], &[0x12, 0x00], &[0x20, 0x00]] {
        assert!(Huffman::read(&mut BitReader::new(lengths), 4).is_err(), "{lengths:?} is no whole prefix code");
    }
}

#[test]
fn log_odds_and_probabilities_are_inverse() {
    for one in 1..ONE {
        let exact = (f64::from(one) / f64::from(ONE - one)).ln() * 256.0;
        assert!((f64::from(stretch(one)) - exact).abs() < 2.0 + exact.abs() / 200.0, "{one}");
        let back = f64::from(squash(stretch(one)));
        assert!(
            (back - f64::from(one)).abs() < 8.0 + 0.02 * f64::from(one.min(ONE - one)),
            "{one} came back as {back}"
        );
    }
    assert!(squash(-100_000) >= 1 && squash(100_000) < ONE);
}

#[test]
fn the_arithmetic_coder_takes_the_entropy() {
    for share in [0.5, 0.2, 0.01, 0.001] {
        let mut random = random(2);
        let decisions: Vec<bool> = (0..200_000).map(|_| random.unit_f64() < share).collect();
        let ones = decisions.iter().filter(|bit| **bit).count() as f64 / decisions.len() as f64;
        let mut encoder = Encoder::new();
        let mut slot = Slot::new(ONE / 2, 0);
        for bit in &decisions {
            code_slot(&mut encoder, &mut slot, *bit);
        }
        let mut known = Cost::default();
        let mut exact = Encoder::new();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a probability of 16 bits")]
        let one = (ones * 65536.0) as u32;
        for bit in &decisions {
            known.code(*bit, one);
            exact.code(*bit, one);
        }
        let lost = exact.finish().len() as f64 * 8.0 - known.bits();
        assert!(lost.abs() < 16.0 + known.bits() / 10_000.0, "the coder itself loses nothing");
        let bits = encoder.bits();
        let bytes = encoder.finish();
        assert!((bytes.len() as f64 * 8.0 - bits).abs() < 16.0, "the cost is what comes out");
        let ideal = entropy(ones) * decisions.len() as f64;
        assert!(bits < ideal * (1.01 + 0.00007 / share) + 16.0, "{bits} bits for an entropy of {ideal} at {share}");
        let mut decoder = Decoder::new(&bytes);
        let mut slot = Slot::new(ONE / 2, 0);
        assert!(decisions.iter().all(|bit| code_slot(&mut decoder, &mut slot, false) == *bit));
        assert!(!decoder.overran() && !decoder.left_over());
    }
}

#[test]
fn certain_and_raw_decisions_mix() {
    // Carries through many 0xff bytes: probabilities at both ends.
    let mut random = random(3);
    let coded: Vec<(bool, u32, u32)> = (0..50_000)
        .map(|_| {
            let one = [1, 2, ONE - 1, ONE - 2, 40_000][usize::try_from(random.below(5)).expect("small")];
            let likely = random.below(100) > 0;
            let bits = u32::try_from(random.below(1 << 13)).expect("13 bits");
            ((one > ONE / 2) == likely, one, bits)
        })
        .collect();
    let mut encoder = Encoder::new();
    for (bit, one, bits) in &coded {
        encoder.code(*bit, *one);
        encoder.code_bits(*bits, 13);
    }
    let bytes = encoder.finish();
    let mut decoder = Decoder::new(&bytes);
    for (bit, one, bits) in &coded {
        assert_eq!(decoder.code(false, *one), *bit);
        assert_eq!(decoder.code_bits(0, 13), *bits);
    }
    assert!(!decoder.overran() && !decoder.left_over());
    assert_eq!(Encoder::new().finish(), [] as [u8; 0], "nothing takes nothing");
}

/// The first layer of an image network as pruning leaves it: borders that nobody looks at, units of very different size, each with a
/// patch of its own, in which weights are of one sign.
fn pruned(kept: usize, seed: u64) -> (Grid, Vec<bool>, Vec<Level>) {
    let grid = Grid { outputs: 300, channels: 1, height: 28, width: 28, outputs_last: true };
    let mut random = random(seed);
    let units: Vec<(f64, f64, f64)> = (0..300)
        .map(|_| (6.0 + 16.0 * random.unit_f64(), 6.0 + 16.0 * random.unit_f64(), (random.normal() * 0.6).exp()))
        .collect();
    let mut scored: Vec<(f64, usize)> = (0..grid.len())
        .map(|index| {
            let (input, output) = grid.input_output(index);
            let (y, x) = ((input / 28) as f64, (input % 28) as f64);
            let (row, column, size) = units[output];
            let near = (-((y - row).powi(2) + (x - column).powi(2)) / 18.0).exp();
            (size * (near + 0.6) * -random.unit_f64().ln(), index)
        })
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut marks = vec![false; grid.len()];
    for (_, index) in &scored[..kept] {
        marks[*index] = true;
    }
    let mut levels = Vec::new();
    for index in (0..grid.len()).filter(|index| marks[*index]) {
        let (_, output) = grid.input_output(index);
        let sign = if (random.unit_f64() < 0.95) == output.is_multiple_of(2) { 1 } else { -1 };
        let magnitude = 1 + i32::try_from(random.below(4) + random.below(5)).expect("small");
        levels.push((u32::try_from(index).expect("small"), sign * magnitude));
    }
    (grid, marks, levels)
}

#[test]
fn positions_and_levels_of_a_pruned_layer_take_less_than_if_they_were_independent() {
    let (grid, marks, mut levels) = pruned(4704, 4);
    let kept: Vec<u32> = levels.iter().map(|(index, _)| *index).collect();
    let original = levels.clone();
    let mut encoder = Encoder::new();
    positions::code(&mut encoder, &grid, None, kept.len(), &mut marks.clone());
    let of_positions = encoder.bits() / kept.len() as f64;
    levels::code(&mut encoder, &grid, 3, false, &mut levels);
    let of_levels = encoder.bits() / kept.len() as f64 - of_positions;
    let mut huffman = BitWriter::default();
    relative::write(&kept, &mut huffman);
    let of_huffman = huffman.len() as f64 / kept.len() as f64;
    let independent = entropy(0.02) / 0.02;
    let mut counts = std::collections::BTreeMap::new();
    for (_, level) in &original {
        *counts.entry(*level).or_insert(0u32) += 1;
    }
    let total = original.len() as f64;
    let independent_levels: f64 =
        counts.values().map(|count| f64::from(*count) / total).map(|share| -share * share.log2()).sum();
    println!(
        "a kept weight: {of_huffman:.2} bits of relative index, {independent:.2} if independent, {of_positions:.2} mixed"
    );
    println!("a level: {independent_levels:.2} bits if independent, {of_levels:.2} mixed");
    assert!(of_huffman > independent * 0.95, "Huffman's codes know nothing of the surroundings");
    assert!(of_positions < independent * 0.85);
    assert!(of_levels < independent_levels * 0.9);
    let bytes = encoder.finish();
    let mut decoder = Decoder::new(&bytes);
    let mut found = vec![false; grid.len()];
    positions::code(&mut decoder, &grid, None, kept.len(), &mut found);
    assert_eq!(found, marks);
    let mut read: Vec<Level> = kept.iter().map(|index| (*index, 0)).collect();
    levels::code(&mut decoder, &grid, 3, false, &mut read);
    assert_eq!(read, original);
    assert!(!decoder.overran() && !decoder.left_over());
}

#[test]
fn independent_positions_take_their_entropy() {
    let grid = Grid { outputs: 200, channels: 300, height: 1, width: 1, outputs_last: true };
    let mut random = random(5);
    let mut marks: Vec<bool> = (0..grid.len()).map(|_| random.unit_f64() < 0.05).collect();
    let total = marks.iter().filter(|mark| **mark).count();
    let mut cost = Cost::default();
    positions::code(&mut cost, &grid, None, total, &mut marks);
    let ideal = entropy(total as f64 / grid.len() as f64) * grid.len() as f64;
    assert!(cost.bits() < ideal * 1.025, "{} bits for {ideal}: contexts without use cost little", cost.bits());
}

/// Deep Compression, table 2 of the arXiv version: a first layer with 8 % kept takes 3.7 bits of Huffman-coded index of 5 bits before,
/// where weights are pruned by magnitude; independent positions take 5.03 with the best code, 4.99 bits of entropy.
#[test]
fn relative_indices_are_as_large_as_deep_compressions_order() {
    let mut random = random(6);
    let kept: Vec<u32> = (0..235_200).filter(|_| random.unit_f64() < 0.08).collect();
    let mut out = BitWriter::default();
    relative::write(&kept, &mut out);
    let bits = out.len() as f64 / kept.len() as f64;
    let ideal = entropy(0.08) / 0.08;
    assert!((ideal..ideal * 1.02).contains(&bits), "{bits} bits for {ideal}");
    let bytes = out.into_bytes();
    let mut found = Vec::new();
    relative::read(&mut BitReader::new(&bytes), kept.len(), 235_200, |index| found.push(index)).expect("positions");
    assert_eq!(found, kept);
    let short = relative::read(&mut BitReader::new(&bytes), kept.len(), 235_000, |_| {});
    assert_eq!(short, Err(Malformed("a position beyond its end")));
}

#[test]
fn floats_of_both_formats_come_back() {
    let mut random = random(7);
    for (format, mask) in [(SINGLE, u32::MAX), (HALF, 0xffff), (SINGLE, 0xffff_0000), (HALF, 0xffc0), (SINGLE, 0)] {
        let values: Vec<u32> =
            (0..500).map(|_| u32::try_from(random.below(1 << 32)).expect("32 bits") & mask).collect();
        let values: Vec<u32> =
            values.iter().map(|value| value & if format == HALF { 0xffff } else { u32::MAX }).collect();
        let mut encoder = Encoder::new();
        floats::code(&mut encoder, format, &mut values.clone());
        let bits = encoder.bits();
        let bytes = encoder.finish();
        let mut read = vec![0; values.len()];
        floats::code(&mut Decoder::new(&bytes), format, &mut read);
        assert_eq!(read, values);
        let stored = f64::from(mask.count_ones().min(format.bits())) * 500.0;
        assert!(bits < stored * 1.03 + 600.0, "{bits} bits for {stored}");
    }
}

/// A million damaged or random streams: every reader ends, none panics, and none gives more than it was asked for.
#[test]
fn damaged_streams_end() {
    let small = Grid { outputs: 4, channels: 3, height: 3, width: 2, outputs_last: true };
    let kernels = Grid { outputs_last: false, ..small };
    let mut random = random(8);
    let runs = if cfg!(debug_assertions) { 10_000 } else { 1_000_000 };
    let mut bytes = [0u8; 24];
    for run in 0..runs {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&random.next_u64().to_le_bytes());
        }
        let bytes = &bytes[..run % 25];
        match run % 5 {
            0 => {
                let mut found = 0;
                let read = relative::read(&mut BitReader::new(bytes), 30, 72, |index| {
                    assert!(index < 72);
                    found += 1;
                });
                assert!(found <= 30 && (read.is_err() || found == 30));
            }
            1 => {
                if let Ok(code) = Huffman::read(&mut BitReader::new(bytes), 8) {
                    let mut bits = BitReader::new(bytes);
                    while let Ok(symbol) = code.decode(&mut bits) {
                        assert!(symbol < 8);
                    }
                }
            }
            2 => {
                let mut marks = vec![false; 72];
                let grid = if run % 2 == 0 { small } else { kernels };
                positions::code(&mut Decoder::new(bytes), &grid, None, run % 73, &mut marks);
                assert!(marks.iter().filter(|mark| **mark).count() <= run % 73);
            }
            3 => {
                let mut levels: Vec<Level> = (0..20).map(|index| (index * 3, 0)).collect();
                let bits = u32::try_from(run % 18).expect("small");
                levels::code(&mut Decoder::new(bytes), &small, bits, run % 3 == 0, &mut levels);
                assert!(levels.iter().all(|(_, level)| level.unsigned_abs() <= 1 << bits.min(16)));
            }
            _ => {
                let mut values = [0; 9];
                floats::code(&mut Decoder::new(bytes), if run % 2 == 0 { HALF } else { SINGLE }, &mut values);
            }
        }
    }
}
