//! Bytes to a release. The layers fix how many values every tensor has before anything of it is allocated.

use half::f16;
use starling_spec::shape::infer;

use super::error::ReleaseError;
use super::form::{Coding, Discrete, Form, Positions, Tag, negative, placed};
use super::head::Head;
use super::{InputRange, Release, degrees};
use crate::coding::Malformed;
use crate::coding::bits::BitReader;
use crate::coding::floats::{self, Format, HALF, SINGLE};
use crate::coding::grid::{Grid, settings};
use crate::coding::huffman::Huffman;
use crate::coding::levels as level_coder;
use crate::coding::positions;
use crate::coding::range::Decoder;
use crate::coding::relative;
use crate::tensor::{Compressed, Values, channels};

/// A file of any length may have as many parameters …
const PARAMETERS_FREE: usize = 1 << 22;
/// … and so many more for each of its bytes: 1/512 of a float each. No useful model is sparser.
const PARAMETERS_A_BYTE: usize = 128;

/// The release of a head, its bits and its arithmetic stream; `bytes` is the length of the whole file.
pub(super) fn read(head: Head, bits: &[u8], mixed: &[u8], bytes: usize) -> Result<Release, ReleaseError> {
    let Head { name, kind, shape, scale, standardise, layers } = head;
    let network = infer(kind, &shape, &layers)?;
    standardise.as_ref().map_or(Ok(()), |standardise| standardise.check(&shape))?;
    let most = PARAMETERS_FREE.saturating_add(bytes.saturating_mul(PARAMETERS_A_BYTE));
    let parameters = network.manifest.len();
    if parameters > most {
        return Err(ReleaseError::Parameters { parameters, bytes, most });
    }
    let mut streams = Streams { bits: BitReader::new(bits), mixed: Decoder::new(mixed) };
    let mut release =
        Release { name, kind, shape, scale, standardise, layers, tensors: Vec::new(), inputs: Vec::new() };
    for (index, setting) in settings(&network).iter().enumerate() {
        let tensor = &network.manifest.tensors[index];
        let degrees = setting.source.and_then(|source| degrees(&release.tensors[source], &network, source));
        let reader = Reader { streams: &mut streams, grid: setting.grid, shape: &tensor.shape };
        let (compressed, input) = reader
            .read(degrees.as_deref())
            .map_err(|Malformed(problem)| ReleaseError::Tensor { name: tensor.name.clone(), problem })?;
        release.tensors.push(compressed);
        release.inputs.push(input);
    }
    if !streams.bits.at_end() || streams.mixed.left_over() {
        return Err(ReleaseError::LeftOver);
    }
    Ok(release)
}

struct Streams<'a> {
    bits: BitReader<'a>,
    mixed: Decoder<'a>,
}

/// One tensor on its way out of the streams.
struct Reader<'a, 'b> {
    streams: &'a mut Streams<'b>,
    grid: Grid,
    shape: &'a [usize],
}

impl Reader<'_, '_> {
    fn read(mut self, degrees: Option<&[u32]>) -> Result<(Compressed, Option<InputRange>), Malformed> {
        let tag = Tag::from_bits(self.streams.bits.read(8)?)?;
        let kept = self.positions(tag.positions, degrees)?;
        let count = kept.as_ref().map_or(self.grid.len(), Vec::len);
        let input = if tag.input { Some(self.input()?) } else { None };
        let kept_indices = kept.as_deref();
        let values = match tag.form {
            Form::F32 => Values::F32(self.floats(tag.values, SINGLE, count)?),
            Form::F16 => Values::F16(self.floats(tag.values, HALF, count)?),
            Form::Fixed => {
                #[allow(clippy::cast_possible_truncation, reason = "eight bits")]
                let places = i8::from_le_bytes([self.streams.bits.read(8)? as u8]);
                if places < -126 {
                    return Err(Malformed("binary places beyond ±126"));
                }
                let bits = self.bits_of_level(4)?;
                let levels = self.levels(tag.values, Discrete::fixed(bits), kept_indices, count)?;
                #[allow(clippy::cast_possible_truncation, reason = "checked against 16 bits")]
                Values::Fixed { places, bits, levels: levels.into_iter().map(|level| level as i16).collect() }
            }
            Form::Integer => {
                let bits = self.bits_of_level(3)?;
                let scales = self.scales()?;
                let levels = self.levels(tag.values, Discrete::integer(bits), kept_indices, count)?;
                #[allow(clippy::cast_possible_truncation, reason = "checked against 8 bits")]
                Values::Integer { bits, scales, levels: levels.into_iter().map(|level| level as i8).collect() }
            }
            Form::Codebook => {
                let centroids = self.streams.bits.read(8)? as usize + 1;
                let centroids = self.mixed_floats(HALF, centroids)?;
                let form = Discrete::Codes { count: centroids.len(), negative: negative(&centroids) };
                let levels = self.levels(tag.values, form, kept_indices, count)?;
                #[allow(clippy::cast_possible_truncation, reason = "checked against the book's length")]
                let codes = levels.into_iter().map(|level| form.symbol(level) as u8).collect();
                Values::Codebook { centroids, codes }
            }
            Form::Binary => {
                let scales = self.scales()?;
                let levels = self.levels(tag.values, Discrete::Signs, None, count)?;
                Values::Binary { scales, positive: levels.into_iter().map(|level| level > 0).collect() }
            }
        };
        Ok((Compressed { kept, values }, input))
    }

    fn bits_of_level(&mut self, bits: u32) -> Result<u8, Malformed> {
        #[allow(clippy::cast_possible_truncation, reason = "at most 16")]
        let bits = self.streams.bits.read(bits)? as u8 + 1;
        if bits < 2 { Err(Malformed("levels of one bit")) } else { Ok(bits) }
    }

    fn positions(&mut self, coding: Positions, degrees: Option<&[u32]>) -> Result<Option<Vec<u32>>, Malformed> {
        let len = self.grid.len();
        if coding == Positions::All {
            return Ok(None);
        }
        let count = self.streams.bits.number()? as usize;
        if count > len {
            return Err(Malformed("more kept weights than weights"));
        }
        let mut kept = Vec::new();
        if coding == Positions::Relative {
            relative::read(&mut self.streams.bits, count, len, |index| kept.push(index))?;
        } else {
            let mut marks = vec![false; len];
            positions::code(&mut self.streams.mixed, &self.grid, degrees, count, &mut marks);
            self.check_mixed()?;
            kept.reserve_exact(count);
            #[allow(clippy::cast_possible_truncation, reason = "a tensor has at most 2^30 values")]
            kept.extend((0..len).filter(|index| marks[*index]).map(|index| index as u32));
            if kept.len() != count {
                return Err(Malformed("fewer kept weights than it says"));
            }
        }
        Ok(Some(kept))
    }

    fn check_mixed(&self) -> Result<(), Malformed> {
        if self.streams.mixed.overran() { Err(Malformed("its arithmetic code ends early")) } else { Ok(()) }
    }

    fn input(&mut self) -> Result<InputRange, Malformed> {
        let bounds = self.mixed_floats(SINGLE, 2)?;
        let range = InputRange { low: bounds[0], high: bounds[1] };
        if range.low <= 0.0 && range.high >= 0.0 && range.low < range.high {
            Ok(range)
        } else {
            Err(Malformed("an input range that does not hold zero"))
        }
    }

    fn scales(&mut self) -> Result<Vec<f32>, Malformed> {
        let count = if self.streams.bits.bit()? { 1 } else { channels(self.shape) };
        self.mixed_floats(SINGLE, count)
    }

    fn mixed_floats(&mut self, format: Format, count: usize) -> Result<Vec<f32>, Malformed> {
        let mut patterns = vec![0; count];
        floats::code(&mut self.streams.mixed, format, &mut patterns);
        self.check_mixed()?;
        finite(format, patterns)
    }

    fn floats(&mut self, coding: Coding, format: Format, count: usize) -> Result<Vec<f32>, Malformed> {
        match coding {
            Coding::Mixed => self.mixed_floats(format, count),
            Coding::Packed => {
                self.streams.bits.expect(count, format.bits())?;
                let patterns: Result<Vec<u32>, Malformed> =
                    (0..count).map(|_| self.streams.bits.read(format.bits())).collect();
                finite(format, patterns?)
            }
            Coding::Huffman => Err(Malformed("floats in a Huffman code")),
        }
    }

    /// `count` levels of `form`, each within it.
    fn levels(
        &mut self,
        coding: Coding,
        form: Discrete,
        kept: Option<&[u32]>,
        count: usize,
    ) -> Result<Vec<i32>, Malformed> {
        let bits = &mut self.streams.bits;
        let levels: Vec<i32> = match coding {
            Coding::Packed => {
                bits.expect(count, form.packed_bits())?;
                let levels = (0..count).map(|_| Ok(form.level(bits.read(form.packed_bits())?)));
                levels.collect::<Result<_, Malformed>>()?
            }
            Coding::Huffman => {
                let symbols = form.symbols().ok_or(Malformed("levels of more than 9 bits in a Huffman code"))?;
                let code = Huffman::read(bits, symbols)?;
                bits.expect(count, 1)?;
                let levels = (0..count).map(|_| Ok(form.level(u32::from(code.decode(bits)?))));
                levels.collect::<Result<_, Malformed>>()?
            }
            Coding::Mixed => {
                let (width, zero) = (bits.read(5)?, bits.bit()?);
                let mut placed = placed(kept, &vec![0; count]);
                level_coder::code(&mut self.streams.mixed, &self.grid, width, zero, &mut placed);
                self.check_mixed()?;
                placed.into_iter().map(|(_, level)| level).collect()
            }
        };
        levels.iter().try_for_each(|level| form.check(*level))?;
        Ok(levels)
    }
}

/// The floats of bit patterns, none of which may be infinite or no number.
fn finite(format: Format, patterns: Vec<u32>) -> Result<Vec<f32>, Malformed> {
    let value = |bits: u32| {
        #[allow(clippy::cast_possible_truncation, reason = "binary16 has 16 bits")]
        let value = if format == HALF { f16::from_bits(bits as u16).to_f32() } else { f32::from_bits(bits) };
        if value.is_finite() { Ok(value) } else { Err(Malformed("a value that is not finite")) }
    };
    patterns.into_iter().map(value).collect()
}
