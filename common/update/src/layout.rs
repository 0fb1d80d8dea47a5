//! What of a delta goes through the codec, and what does not: running statistics of the data (batch normalisation's means and
//! variances) travel as `f32` in front of it.
//!
//! ```text
//! payload = statistics, f32, in the manifest's order ‖ all other parameters in the manifest's order, in the plan's codec
//! ```
//!
//! A codec treats values as directions to move in: it may leave small ones out, or turn them about a block's mean. A variance
//! that is off by a tenth scales a whole channel, and there are few of them.

use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use starling_compress::{
    CodecSpec, DecodeError, EncodeError, FixedPoint, FoldSign, Rounding, check, decode_into, encode_into,
    encoded_len_bounds, fold_into,
};
use starling_spec::{ParamManifest, ParamRole};

/// Where the statistics of a model's parameters lie. Cloning is cheap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    parameters: usize,
    statistics: Arc<[Range<usize>]>,
    exact: usize,
}

/// A payload's two parts.
const EXACT: CodecSpec = CodecSpec::F32;
const EXACT_BYTES: usize = 4;

impl Layout {
    /// Parameters without statistics: all go through the codec.
    pub fn plain(parameters: usize) -> Self {
        Self { parameters, statistics: Arc::from([]), exact: 0 }
    }

    /// The layout of a network's parameters.
    pub fn of(manifest: &ParamManifest) -> Self {
        let mut statistics: Vec<Range<usize>> = Vec::new();
        for tensor in manifest.tensors.iter().filter(|tensor| tensor.role == ParamRole::Statistic) {
            match statistics.last_mut() {
                Some(last) if last.end == tensor.offset => last.end = tensor.range().end,
                _ => statistics.push(tensor.range()),
            }
        }
        let exact = statistics.iter().map(ExactSizeIterator::len).sum();
        Self { parameters: manifest.len(), statistics: statistics.into(), exact }
    }

    /// All parameters.
    pub fn parameters(&self) -> usize {
        self.parameters
    }

    /// The fewest and the most bytes of a payload.
    pub(crate) fn payload_bounds(&self, codec: CodecSpec) -> RangeInclusive<usize> {
        let exact = EXACT_BYTES * self.exact;
        let others = encoded_len_bounds(codec, self.parameters - self.exact);
        exact + others.start()..=exact + others.end()
    }

    /// The ranges between the statistics.
    fn others(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        let starts = std::iter::once(0).chain(self.statistics.iter().map(|range| range.end));
        let ends = self.statistics.iter().map(|range| range.start).chain(std::iter::once(self.parameters));
        starts.zip(ends).map(|(start, end)| start..end)
    }

    /// The ranges of the flat vector in the order in which they travel.
    fn ranges(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.statistics.iter().cloned().chain(self.others())
    }

    fn gather(&self, values: &[f32]) -> Vec<f32> {
        let mut gathered = Vec::with_capacity(values.len());
        self.ranges().for_each(|range| gathered.extend_from_slice(&values[range]));
        gathered
    }

    fn scatter(&self, gathered: &[f32], values: &mut [f32]) {
        let mut rest = gathered;
        for range in self.ranges() {
            let (part, after) = rest.split_at(range.len());
            values[range].copy_from_slice(part);
            rest = after;
        }
    }

    /// The place in the flat vector of what travels at `index`.
    fn place(&self, mut index: usize) -> usize {
        for range in self.ranges() {
            if index < range.len() {
                return range.start + index;
            }
            index -= range.len();
        }
        index
    }

    /// Appends the payload of `values`.
    pub(crate) fn encode(
        &self,
        codec: CodecSpec,
        values: &[f32],
        rounding: Rounding,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        if self.exact == 0 {
            return encode_into(codec, values, rounding, out);
        }
        let gathered = self.gather(values);
        let (exact, others) = gathered.split_at(self.exact);
        let at = |index: usize, error: EncodeError| match error {
            EncodeError::NotFinite { index: inside } => EncodeError::NotFinite { index: self.place(index + inside) },
            EncodeError::TooLarge { index: inside, codec } => {
                EncodeError::TooLarge { index: self.place(index + inside), codec }
            }
        };
        encode_into(EXACT, exact, rounding, out).map_err(|error| at(0, error))?;
        encode_into(codec, others, rounding, out).map_err(|error| at(self.exact, error))
    }

    fn split<'bytes>(&self, payload: &'bytes [u8]) -> Result<(&'bytes [u8], &'bytes [u8]), DecodeError> {
        let expected = EXACT_BYTES * self.exact;
        payload.split_at_checked(expected).ok_or(DecodeError::Length { expected, got: payload.len() })
    }

    /// Fills `values` with what `payload` says.
    pub(crate) fn decode(&self, codec: CodecSpec, payload: &[u8], values: &mut [f32]) -> Result<(), DecodeError> {
        if self.exact == 0 {
            return decode_into(codec, payload, values);
        }
        let mut gathered = vec![0f32; self.parameters];
        let (exact, others) = gathered.split_at_mut(self.exact);
        let (first, rest) = self.split(payload)?;
        decode_into(EXACT, first, exact)?;
        decode_into(codec, rest, others)?;
        self.scatter(&gathered, values);
        Ok(())
    }

    /// Finds everything that could make [`Layout::fold`] go wrong.
    pub(crate) fn check(&self, codec: CodecSpec, payload: &[u8], fixed: &FixedPoint) -> Result<(), DecodeError> {
        let (exact, others) = self.split(payload)?;
        check(EXACT, exact, self.exact, fixed)?;
        check(codec, others, self.parameters - self.exact, fixed)
    }

    /// Adds a payload that passed [`Layout::check`] to accumulators, which stand in the order in which parameters travel.
    pub(crate) fn fold(
        &self,
        codec: CodecSpec,
        payload: &[u8],
        fixed: &FixedPoint,
        weight: u32,
        sign: FoldSign,
        acc: &mut [i64],
    ) {
        let (exact, others) = payload.split_at(EXACT_BYTES * self.exact);
        let (acc_exact, acc_others) = acc.split_at_mut(self.exact);
        fold_into(EXACT, exact, fixed, weight, sign, acc_exact);
        fold_into(codec, others, fixed, weight, sign, acc_others);
    }

    /// Adds the mean of such accumulators to `master`.
    pub(crate) fn add_mean(&self, acc: &[i64], weight_sum: u64, fixed: &FixedPoint, master: &mut [f32]) {
        if self.exact == 0 {
            return fixed.add_mean(acc, weight_sum, master);
        }
        assert_eq!(master.len(), self.parameters, "one accumulator a parameter");
        let mut gathered = self.gather(master);
        fixed.add_mean(acc, weight_sum, &mut gathered);
        self.scatter(&gathered, master);
    }
}
