//! Secret sharing (Shamir 1979, "How to share a secret") over the prime field of p = 2³¹ + 11.
//!
//! A secret is a big-endian integer, cut into digits of 31 bits, the least significant last; each digit is the value at 0 of a
//! random polynomial of degree `threshold − 1`, and a share is the polynomials' values at the holder's point (1, 2, …). Digits, field and
//! points are those of Google's federated-compute (`fcp/secagg/shared/shamir_secret_sharing.cc`), whose published shares are
//! a test here. GF(2⁸) would be a little shorter, but has only 255 points: fewer than a large cohort's neighbours.
//!
//! Fewer than `threshold` shares are independent of the secret. Nothing branches on a secret; reduction is a multiplication by a constant.

use zeroize::Zeroizing;

use crate::keystream::Keystream;

/// The field's prime.
pub(crate) const PRIME: u64 = (1 << 31) + 11;

/// Bits of a digit: every digit is below the prime.
const DIGIT_BITS: usize = 31;

/// The field elements of one share, one for each digit of the secret.
pub(crate) type Elements = Zeroizing<Vec<u32>>;

fn multiply(a: u64, b: u64) -> u64 {
    a * b % PRIME
}

fn subtract(a: u64, b: u64) -> u64 {
    (a + PRIME - b) % PRIME
}

/// The inverse by Fermat's little theorem.
fn invert(value: u64) -> u64 {
    let (mut result, mut base, mut exponent) = (1, value % PRIME, PRIME - 2);
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = multiply(result, base);
        }
        base = multiply(base, base);
        exponent >>= 1;
    }
    result
}

fn narrow(element: u64) -> u32 {
    u32::try_from(element).expect("a field element is below 2^32")
}

/// The digits of a secret of any length.
pub(crate) fn digits(secret: &[u8]) -> Elements {
    let count = (8 * secret.len()).div_ceil(DIGIT_BITS);
    let mut digits = Zeroizing::new(vec![0u32; count]);
    for (place, byte) in secret.iter().rev().enumerate() {
        let (digit, shift) = (8 * place / DIGIT_BITS, 8 * place % DIGIT_BITS);
        let wide = u64::from(*byte) << shift;
        digits[count - 1 - digit] |= narrow(wide & ((1 << DIGIT_BITS) - 1));
        if wide >> DIGIT_BITS != 0 {
            digits[count - 2 - digit] |= narrow(wide >> DIGIT_BITS);
        }
    }
    digits
}

/// The secret of `length` bytes with these digits; `None` if no secret of that length has them.
pub(crate) fn undigits(digits: &[u32], length: usize) -> Option<Zeroizing<Vec<u8>>> {
    let mut secret = Zeroizing::new(vec![0u8; length]);
    let count = (8 * length).div_ceil(DIGIT_BITS);
    if digits.len() != count || digits.iter().any(|digit| digit >> DIGIT_BITS != 0) {
        return None;
    }
    let top_bits = 8 * length - (count - 1) * DIGIT_BITS;
    if u64::from(*digits.first()?) >> top_bits != 0 {
        return None;
    }
    for (place, byte) in secret.iter_mut().rev().enumerate() {
        let (digit, shift) = (8 * place / DIGIT_BITS, 8 * place % DIGIT_BITS);
        let mut wide = u64::from(digits[count - 1 - digit]) >> shift;
        if digit + 1 < count {
            wide |= u64::from(digits[count - 2 - digit]) << (DIGIT_BITS - shift);
        }
        *byte = wide.to_le_bytes()[0];
    }
    Some(secret)
}

/// The random polynomials of one secret.
pub(crate) struct Polynomials {
    // For each digit: the digit, then `threshold - 1` random coefficients.
    coefficients: Zeroizing<Vec<u32>>,
    threshold: usize,
}

impl Polynomials {
    /// Polynomials whose coefficients are drawn uniformly from `random`.
    pub(crate) fn of(secret: &[u8], threshold: usize, random: &mut Keystream) -> Self {
        assert!(threshold > 0, "a sharing needs a threshold");
        let digits = digits(secret);
        let mut coefficients = Zeroizing::new(Vec::with_capacity(digits.len() * threshold));
        for digit in digits.iter() {
            coefficients.push(*digit);
            coefficients.extend((1..threshold).map(|_| element(random)));
        }
        Self { coefficients, threshold }
    }

    /// The share of the holder at `point`, which is not 0.
    pub(crate) fn share(&self, point: u32) -> Elements {
        assert!(point != 0, "the secret itself is no share");
        let value = |coefficients: &[u32]| {
            let horner = coefficients
                .iter()
                .rev()
                .fold(0u64, |sum, coefficient| (multiply(sum, u64::from(point)) + u64::from(*coefficient)) % PRIME);
            narrow(horner)
        };
        Zeroizing::new(self.coefficients.chunks_exact(self.threshold).map(value).collect())
    }
}

/// A uniform field element: 32 bits, drawn again while they are not below the prime.
fn element(random: &mut Keystream) -> u32 {
    loop {
        let drawn = random.next_u32();
        if u64::from(drawn) < PRIME {
            return drawn;
        }
    }
}

/// The secret of `length` bytes that these shares determine, each with its holder's point; exactly as many as the threshold.
/// `None` when they are the shares of no such secret: some are wrong.
pub(crate) fn combine(shares: &[(u32, &[u32])], length: usize) -> Option<Zeroizing<Vec<u8>>> {
    let points: Vec<u64> = shares.iter().map(|(point, _)| u64::from(*point)).collect();
    let weights: Vec<u64> = (0..points.len()).map(|index| weight_at_zero(&points, index)).collect();
    let count = (8 * length).div_ceil(DIGIT_BITS);
    let mut digits = Zeroizing::new(vec![0u32; count]);
    for (place, digit) in digits.iter_mut().enumerate() {
        let mut sum = 0;
        for ((_, elements), weight) in shares.iter().zip(&weights) {
            sum = (sum + multiply(u64::from(*elements.get(place)?) % PRIME, *weight)) % PRIME;
        }
        *digit = narrow(sum);
    }
    undigits(&digits, length)
}

/// Lagrange's weight at 0: the product of xⱼ / (xⱼ − xᵢ) over j ≠ i.
fn weight_at_zero(points: &[u64], index: usize) -> u64 {
    let own = points[index];
    let (mut above, mut below) = (1, 1);
    for (other, point) in points.iter().enumerate() {
        if other != index {
            above = multiply(above, *point);
            below = multiply(below, subtract(*point, own));
        }
    }
    multiply(above, invert(below))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn published_shares_give_the_published_secret() {
        // google-parfait/federated-compute, shamir_secret_sharing_test.cc: threshold 3, points 1 to 5, big-endian words.
        let published: [[u8; 8]; 5] = [
            [112, 207, 118, 46, 110, 212, 170, 28],
            [48, 160, 197, 172, 38, 235, 145, 204],
            [63, 115, 238, 144, 40, 68, 183, 71],
            [29, 72, 240, 207, 114, 224, 26, 141],
            [74, 31, 204, 116, 6, 189, 187, 136],
        ];
        let word = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().expect("four bytes"));
        let shares = published.map(|share| [word(&share[..4]), word(&share[4..])]);
        for chosen in [[0, 1, 2], [2, 3, 4], [0, 2, 4], [4, 1, 3]] {
            let chosen = chosen.map(|index| (u32::try_from(index).expect("small") + 1, &shares[index][..]));
            assert_eq!(combine(&chosen, 4).as_deref().map(Vec::as_slice), Some(&[0, 0, 0, 33][..]));
        }
    }

    proptest! {
        #[test]
        fn any_threshold_of_shares_gives_the_secret(
            secret in prop::array::uniform32(any::<u8>()), threshold in 1usize..12, extra in 0usize..5, key in any::<u8>()
        ) {
            let polynomials = Polynomials::of(&secret, threshold, &mut Keystream::new(&[key; 32]));
            let points: Vec<u32> = (0..threshold + extra).map(|index| 7 * u32::try_from(index).expect("small") + 3).collect();
            let shares: Vec<Elements> = points.iter().map(|point| polynomials.share(*point)).collect();
            let last: Vec<(u32, &[u32])> =
                points.iter().zip(&shares).skip(extra).map(|(point, share)| (*point, share.as_slice())).collect();
            let combined = combine(&last, 32);
            prop_assert_eq!(combined.as_deref().map(Vec::as_slice), Some(&secret[..]));
            if threshold > 1 {
                // One share fewer fixes nothing: another secret fits them as well, so interpolation gives something else.
                let fewer = combine(&last[1..], 32);
                prop_assert_ne!(fewer.as_deref().map(Vec::as_slice), Some(&secret[..]));
            }
        }

        #[test]
        fn digits_read_what_they_write(secret in prop::collection::vec(any::<u8>(), 1..70)) {
            let read = undigits(&digits(&secret), secret.len());
            prop_assert_eq!(read.as_deref(), Some(&secret));
        }
    }

    #[test]
    fn the_field_inverts() {
        for value in [1, 2, 3, 1_000_003, PRIME - 1] {
            assert_eq!(multiply(value, invert(value)), 1);
        }
    }
}
