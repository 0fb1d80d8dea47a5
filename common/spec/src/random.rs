//! The deterministic generator of everything that must not depend on thread, order or platform (invariant 11):
//! initialisers, batch order, dropout masks, partitions, cohorts of a simulation, stochastic rounding.
//!
//! It is counter-based: word `i` of a stream is a function of (key, `i`) alone, so streams can be split and vectorised. It is
//! **not** cryptographic: nothing secret may come from it.
//!
//! The mixing function is the finaliser of SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number
//! generators", §4, constants of Stafford's variant 13), applied to key + golden-ratio × counter.

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Mixes all bits of `z`.
#[inline]
pub const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What a stream is for; streams of different purposes never coincide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// Initial parameters.
    Initialise = 1,
    /// Order of the samples.
    Shuffle = 2,
    /// Dropout masks.
    Dropout = 3,
    /// Stochastic rounding.
    Round = 4,
    /// Spreading data over devices.
    Partition = 5,
    /// Drawing a cohort.
    Cohort = 6,
    /// The synthetic update of a runtime bench.
    Noise = 7,
    /// Splitting data into training and test or hold-out.
    Split = 8,
    /// The signs of a random rotation.
    Rotate = 9,
    /// Which coordinates a round's updates hold.
    Subset = 10,
    /// Keys of simulated devices in simulated secure sums.
    Secure = 11,
    /// The noise of a simulated run.
    Privacy = 12,
    /// The coins of a simulated run's devices.
    Coin = 13,
    /// Dealing a cohort out to groups.
    Group = 14,
}

/// A stream of random words.
#[derive(Debug, Clone)]
pub struct Random {
    key: u64,
    counter: u64,
}

impl Random {
    /// The stream of `purpose` under `seed`, told apart from its siblings by `path` (device, round, step, tensor …).
    pub fn new(seed: u64, purpose: Purpose, path: &[u64]) -> Self {
        let mut key = mix(seed ^ (purpose as u64).wrapping_mul(GOLDEN));
        for part in path {
            key = mix(key.wrapping_add(GOLDEN) ^ mix(*part));
        }
        Self { key, counter: 0 }
    }

    /// The key: with [`word`] it gives any word of the stream at once.
    pub fn key(&self) -> u64 {
        self.key
    }

    /// The next 64 bits.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        let word = word(self.key, self.counter);
        self.counter += 1;
        word
    }

    /// The next value, uniform in [0, 1), of 53 bits.
    #[inline]
    pub fn unit_f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// The next value, uniform in [0, 1), of 24 bits.
    #[inline]
    pub fn unit_f32(&mut self) -> f32 {
        (self.next_u64() >> 40) as f32 * (1.0 / (1u32 << 24) as f32)
    }

    /// The next value, uniform in `0..bound`, without bias (Lemire 2019, "Fast random integer generation in an interval").
    ///
    /// # Panics
    /// If `bound` is 0.
    #[allow(clippy::cast_possible_truncation, reason = "the two halves of a 128-bit product are taken on purpose")]
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "an empty range has no values");
        loop {
            let product = u128::from(self.next_u64()) * u128::from(bound);
            let low = product as u64;
            if low >= bound.wrapping_neg() % bound {
                return (product >> 64) as u64;
            }
        }
    }

    /// The next value of the standard normal distribution (Box and Muller 1958; one of the pair is dropped).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit_f64()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit_f64()).cos()
    }

    /// Puts `items` in random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = usize::try_from(self.below(last as u64 + 1)).expect("an index fits in usize");
            items.swap(last, other);
        }
    }
}

/// Word `counter` of the stream of `key`.
#[inline]
pub const fn word(key: u64, counter: u64) -> u64 {
    mix(key.wrapping_add(GOLDEN.wrapping_mul(counter.wrapping_add(1))))
}

/// What a device's id is in the path of a stream: its first eight bytes, little-endian.
pub const fn device_key(id: [u8; 16]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = id;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_splitmix64() {
        // The reference implementation (Vigna, splitmix64.c) seeded with 1234567.
        let words: Vec<u64> = (0..3).map(|counter| word(1_234_567, counter)).collect();
        assert_eq!(words, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn purposes_and_paths_part_streams() {
        let first = |purpose, path: &[u64]| Random::new(1, purpose, path).next_u64();
        assert_ne!(first(Purpose::Shuffle, &[1]), first(Purpose::Dropout, &[1]));
        assert_ne!(first(Purpose::Shuffle, &[1, 2]), first(Purpose::Shuffle, &[2, 1]));
        assert_ne!(first(Purpose::Shuffle, &[]), first(Purpose::Shuffle, &[0]));
    }

    #[test]
    fn a_bounded_draw_is_uniform() {
        let mut random = Random::new(9, Purpose::Shuffle, &[]);
        let mut counts = [0u32; 7];
        for _ in 0..70_000 {
            counts[usize::try_from(random.below(7)).expect("small")] += 1;
        }
        // Six degrees of freedom: chi-square below 22.46 in 99.9 % of fair draws.
        let chi: f64 = counts.iter().map(|count| (f64::from(*count) - 10_000.0).powi(2) / 10_000.0).sum();
        assert!(chi < 22.46, "chi-square {chi}");
    }
}
