//! A release to bytes: every tensor with whichever coders make it smallest.

use half::f16;
use starling_spec::shape::Network;

use super::form::{Coding, Discrete, Form, Positions, Tag, levels, placed};
use super::{InputRange, Release, degrees};
use crate::coding::bits::BitWriter;
use crate::coding::floats::{self, Format, HALF, SINGLE};
use crate::coding::grid::{Grid, settings};
use crate::coding::huffman::Huffman;
use crate::coding::levels::{self as level_coder, Level};
use crate::coding::positions;
use crate::coding::range::{Cost, Encoder};
use crate::coding::relative;
use crate::tensor::{Compressed, Values};

/// From this many bits on, a slower coder has to save more than 1/64 to be taken.
const LARGE_BITS: f64 = (1 << 19) as f64;

/// The two streams of a release, and what each tensor takes of both, in bits.
pub(super) struct Streams {
    pub(super) bits: BitWriter,
    pub(super) mixed: Encoder,
    pub(super) tensors: Vec<f64>,
}

/// The tensors of `release`.
///
/// # Panics
/// If they are not the network's.
pub(super) fn write(release: &Release, network: &Network) -> Streams {
    assert_eq!(release.tensors.len(), network.manifest.tensors.len(), "a tensor for each of the manifest");
    assert_eq!(release.inputs.len(), release.tensors.len(), "an input range, or none, for each tensor");
    let mut streams = Streams { bits: BitWriter::default(), mixed: Encoder::new(), tensors: Vec::new() };
    for ((setting, tensor), input) in settings(network).iter().zip(&release.tensors).zip(&release.inputs) {
        let degrees = setting.source.and_then(|source| degrees(&release.tensors[source], network, source));
        let before = streams.spent();
        Writer { streams: &mut streams, grid: setting.grid, degrees, tensor }.write(*input);
        let spent = streams.spent() - before;
        streams.tensors.push(spent);
    }
    streams
}

impl Streams {
    fn spent(&self) -> f64 {
        self.bits.len() as f64 + self.mixed.bits()
    }
}

/// One tensor on its way into the streams.
struct Writer<'a> {
    streams: &'a mut Streams,
    grid: Grid,
    degrees: Option<Vec<u32>>,
    tensor: &'a Compressed,
}

impl Writer<'_> {
    fn write(&mut self, input: Option<InputRange>) {
        let values = &self.tensor.values;
        let (positions, relative) = self.choose_positions();
        let placed = levels(values).map(|(form, levels)| (form, placed(self.tensor.kept.as_deref(), &levels)));
        let (coding, fixed) = match &placed {
            Some((form, levels)) => choose_levels(*form, &self.grid, levels),
            None => choose_floats(values),
        };
        let tag = Tag { form: form(values), positions, values: coding, input: input.is_some() };
        self.streams.bits.write(tag.to_bits(), 8);
        if let Some(kept) = &self.tensor.kept {
            self.streams.bits.write_number(u32::try_from(kept.len()).expect("a tensor has at most 2^30 values"));
        }
        match positions {
            Positions::All => {}
            Positions::Relative => self.streams.bits.append(&relative),
            Positions::Mixed => {
                let mut marks = self.marks();
                let degrees = self.degrees.as_deref();
                positions::code(&mut self.streams.mixed, &self.grid, degrees, values.len(), &mut marks);
            }
        }
        if let Some(range) = input {
            self.floats(SINGLE, vec![range.low.to_bits(), range.high.to_bits()]);
        }
        self.settings();
        match (coding, placed) {
            (Coding::Packed | Coding::Huffman, _) => self.streams.bits.append(&fixed),
            (Coding::Mixed, None) => {
                let (format, bits) = float_bits(values);
                self.floats(format, bits);
            }
            (Coding::Mixed, Some((_, mut levels))) => {
                let (bits, zero) = extent(&levels);
                self.streams.bits.write(bits, 5);
                self.streams.bits.write(u32::from(zero), 1);
                level_coder::code(&mut self.streams.mixed, &self.grid, bits, zero, &mut levels);
            }
        }
    }

    /// What a form needs beside its values.
    fn settings(&mut self) {
        match &self.tensor.values {
            Values::F32(_) | Values::F16(_) => {}
            Values::Fixed { places, bits, .. } => {
                self.streams.bits.write(u32::from(places.to_le_bytes()[0]), 8);
                self.streams.bits.write(u32::from(*bits) - 1, 4);
            }
            Values::Integer { bits, scales, .. } => {
                self.streams.bits.write(u32::from(*bits) - 1, 3);
                self.scales(scales);
            }
            Values::Codebook { centroids, .. } => {
                // An empty book has one centroid that nothing uses.
                let mut halves: Vec<u32> = centroids.iter().map(|value| half_bits(*value)).collect();
                halves.resize(centroids.len().max(1), 0);
                self.streams.bits.write(u32::try_from(halves.len() - 1).expect("at most 256 centroids"), 8);
                self.floats(HALF, halves);
            }
            Values::Binary { scales, .. } => self.scales(scales),
        }
    }

    fn scales(&mut self, scales: &[f32]) {
        self.streams.bits.write(u32::from(scales.len() == 1), 1);
        self.floats(SINGLE, scales.iter().map(|scale| scale.to_bits()).collect());
    }

    fn floats(&mut self, format: Format, mut values: Vec<u32>) {
        floats::code(&mut self.streams.mixed, format, &mut values);
    }

    /// Whether each weight is kept.
    fn marks(&self) -> Vec<bool> {
        let mut marks = vec![self.tensor.kept.is_none(); self.grid.len()];
        for index in self.tensor.kept.iter().flatten() {
            marks[*index as usize] = true;
        }
        marks
    }

    /// The smaller coder of the positions, with the bits of the first.
    fn choose_positions(&self) -> (Positions, BitWriter) {
        let mut bits = BitWriter::default();
        let Some(kept) = &self.tensor.kept else { return (Positions::All, bits) };
        relative::write(kept, &mut bits);
        let mut cost = Cost::default();
        positions::code(&mut cost, &self.grid, self.degrees.as_deref(), kept.len(), &mut self.marks());
        let smaller = cost.bits() < accepted(bits.len());
        (if smaller { Positions::Mixed } else { Positions::Relative }, bits)
    }
}

/// What a slower coder must stay below to be taken instead of one that takes `bits`.
fn accepted(bits: usize) -> f64 {
    let bits = bits as f64;
    if bits > LARGE_BITS { bits * 63.0 / 64.0 } else { bits }
}

/// The smallest coder of levels, with the bits of the other two.
fn choose_levels(form: Discrete, grid: &Grid, levels: &[Level]) -> (Coding, BitWriter) {
    let mut packed = BitWriter::default();
    let symbols: Vec<u32> = levels.iter().map(|(_, level)| form.symbol(*level)).collect();
    for symbol in &symbols {
        packed.write(*symbol, form.packed_bits());
    }
    let (mut coding, mut best) = (Coding::Packed, packed);
    if let Some(count) = form.symbols() {
        let mut frequencies = vec![0; count];
        for symbol in &symbols {
            frequencies[*symbol as usize] += 1;
        }
        let code = Huffman::of(&frequencies);
        let mut bits = BitWriter::default();
        code.write(&mut bits);
        for symbol in &symbols {
            code.encode(*symbol, &mut bits);
        }
        if (bits.len() as f64) < accepted(best.len()) {
            (coding, best) = (Coding::Huffman, bits);
        }
    }
    let mut cost = Cost::default();
    let (bits, zero) = extent(levels);
    level_coder::code(&mut cost, grid, bits, zero, &mut levels.to_vec());
    if cost.bits() + 6.0 < accepted(best.len()) {
        coding = Coding::Mixed;
    }
    (coding, best)
}

/// The smaller coder of floats, with the bits of the first.
fn choose_floats(values: &Values) -> (Coding, BitWriter) {
    let (format, mut patterns) = float_bits(values);
    let mut packed = BitWriter::default();
    for bits in &patterns {
        packed.write(*bits, format.bits());
    }
    let mut cost = Cost::default();
    floats::code(&mut cost, format, &mut patterns);
    let smaller = cost.bits() < accepted(packed.len());
    (if smaller { Coding::Mixed } else { Coding::Packed }, packed)
}

/// What the largest magnitude takes, in bits, and whether any level is 0; without zeros, magnitudes are counted from 1.
fn extent(levels: &[Level]) -> (u32, bool) {
    let zero = levels.iter().any(|(_, level)| *level == 0);
    let largest = levels.iter().map(|(_, level)| level.unsigned_abs()).max().unwrap_or(u32::from(!zero));
    let largest = largest - u32::from(!zero);
    (u32::BITS - largest.leading_zeros(), zero)
}

fn form(values: &Values) -> Form {
    match values {
        Values::F32(_) => Form::F32,
        Values::F16(_) => Form::F16,
        Values::Fixed { .. } => Form::Fixed,
        Values::Integer { .. } => Form::Integer,
        Values::Codebook { .. } => Form::Codebook,
        Values::Binary { .. } => Form::Binary,
    }
}

fn half_bits(value: f32) -> u32 {
    u32::from(f16::from_f32(value).to_bits())
}

/// The bit patterns of floats; none of a discrete form.
fn float_bits(values: &Values) -> (Format, Vec<u32>) {
    match values {
        Values::F32(values) => (SINGLE, values.iter().map(|value| value.to_bits()).collect()),
        Values::F16(values) => (HALF, values.iter().map(|value| half_bits(*value)).collect()),
        _ => (HALF, Vec::new()),
    }
}
