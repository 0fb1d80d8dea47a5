//! The randomised Hadamard transform of one block in place: random signs, then the Walsh-Hadamard matrix by butterflies
//! (Fino and Algazi 1976). Both are plain sums and differences in an order that the length alone fixes, so every processor
//! computes the same bits.
//!
//! The matrix is not normalised: applied twice it multiplies by the length.

/// Lanes of one register; a block is a multiple of it.
pub(crate) const LANES: usize = 8;

/// Applies the Hadamard matrix; the length is a power of two from [`LANES`] on.
#[inline(always)]
pub(crate) fn transform(values: &mut [f32]) {
    for eight in values.as_chunks_mut::<LANES>().0 {
        *eight = within::<4>(within::<2>(within::<1>(*eight)));
    }
    let mut half = LANES;
    // Two levels of butterflies at a time: half the loads and stores of one at a time, and the same sums.
    while half * 4 <= values.len() {
        for span in values.chunks_exact_mut(half * 4) {
            let (low, high) = span.split_at_mut(half * 2);
            let ((a, b), (c, d)) = (low.split_at_mut(half), high.split_at_mut(half));
            for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
                let (sum, difference) = (*a + *b, *a - *b);
                let (sum_high, difference_high) = (*c + *d, *c - *d);
                *a = sum + sum_high;
                *b = difference + difference_high;
                *c = sum - sum_high;
                *d = difference - difference_high;
            }
        }
        half *= 4;
    }
    if half < values.len() {
        let (low, high) = values.split_at_mut(half);
        for (a, b) in low.iter_mut().zip(high) {
            (*a, *b) = (*a + *b, *a - *b);
        }
    }
}

/// One level of butterflies between lanes `half` apart.
#[inline(always)]
fn within<const HALF: usize>(v: [f32; LANES]) -> [f32; LANES] {
    let mut out = [0f32; LANES];
    for (lane, out) in out.iter_mut().enumerate() {
        *out = v[lane ^ HALF] + if lane & HALF == 0 { v[lane] } else { -v[lane] };
    }
    out
}

/// Flips the signs that the stream of `key` says, 64 a word, from word `first` on.
#[inline(always)]
pub(crate) fn flip_signs(values: &mut [f32], key: u64, first: u64) {
    for (index, values) in (first..).zip(values.chunks_mut(64)) {
        let word = starling_spec::random::word(key, index).to_le_bytes();
        for (eight, signs) in values.as_chunks_mut::<LANES>().0.iter_mut().zip(word) {
            for (lane, value) in eight.iter_mut().enumerate() {
                let sign = u32::from(signs) << (31 - lane) & 0x8000_0000;
                *value = f32::from_bits(value.to_bits() ^ sign);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transform_is_the_matrix_of_walsh_and_hadamard() {
        // Entry (i, j) is −1 to the number of ones that i and j share (Sylvester's construction).
        for length in [8usize, 16, 32, 64, 512] {
            let input: Vec<f32> = (0u8..=255).map(f32::from).cycle().take(length).collect();
            let mut got = input.clone();
            transform(&mut got);
            for (row, got) in got.iter().enumerate() {
                let signed = |(column, value): (usize, &f32)| {
                    if (row & column).count_ones() % 2 == 0 { *value } else { -*value }
                };
                assert_eq!(*got, input.iter().enumerate().map(signed).sum::<f32>(), "row {row} of {length}");
            }
        }
    }

    #[test]
    fn signs_are_half_and_half_and_flip_back() {
        let mut values = [1f32; 4096];
        flip_signs(&mut values, 7, 3);
        let negative = values.iter().filter(|value| **value < 0.0).count();
        // Five standard deviations around 2,048.
        assert!((1888..=2208).contains(&negative), "{negative}");
        flip_signs(&mut values, 7, 3);
        assert_eq!(values, [1.0; 4096]);
    }
}
