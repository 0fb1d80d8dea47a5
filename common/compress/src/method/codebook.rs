//! Shared weights: a code book of a few values for a whole tensor (Han, Mao, Dally 2016, "Deep Compression", §3), found by k-means
//! from centroids spread evenly over the range (their "linear initialisation", which keeps the few large weights that matter), and
//! tuned further by training.

use starling_spec::shape::Network;

use half::f16;

use crate::map::WeightMap;
use crate::tensor::{Compressed, Values};

/// Rounds of Lloyd's algorithm; one-dimensional k-means settles long before.
const ROUNDS_MAX: usize = 300;

/// Centroids of a tensor: codes are bytes.
const CODES_MAX: usize = 256;

/// A code book of at most `centroids` values for the kept weights of a tensor, given in order. Centroids rise; they are binary16
/// numbers of as many significant bits as tell so many apart, and two more, since each is written in the release. Fewer come back
/// where fewer distinct values suffice.
///
/// # Panics
/// If `centroids` is not 1 to 256.
pub fn cluster(values: &[f32], centroids: usize) -> Values {
    assert!((1..=CODES_MAX).contains(&centroids), "1 to 256 centroids");
    let mut sorted: Vec<f32> = values.iter().map(|value| if value.is_nan() { 0.0 } else { *value }).collect();
    sorted.sort_unstable_by(f32::total_cmp);
    let mut found = KMeans::new(&sorted, centroids).settle();
    for centroid in &mut found {
        *centroid = f64::from(rounded(*centroid, centroids));
    }
    found.dedup();
    let centroids: Vec<f32> = found.iter().map(|centroid| rounded(*centroid, centroids)).collect();
    // What lies under the middle of two neighbours belongs to the lower.
    let middles: Vec<f64> = found.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0).collect();
    #[allow(clippy::cast_possible_truncation, reason = "there are at most 256 centroids")]
    let codes =
        values.iter().map(|value| middles.partition_point(|middle| *middle < f64::from(*value)) as u8).collect();
    Values::Codebook { centroids, codes }
}

/// The nearest finite binary16 with so many mantissa bits as a book of `count` centroids asks for: a quarter of the mean distance
/// between them is then the most that one moves.
#[allow(clippy::cast_possible_truncation, reason = "a centroid is rounded to binary16")]
fn rounded(centroid: f64, count: usize) -> f32 {
    let spare = 8u32.saturating_sub(usize::BITS - count.saturating_sub(1).leading_zeros());
    // Adding half a step to the magnitude rounds half up; a carry moves on into the exponent, as it should.
    let bits = f16::from_f64(centroid.clamp(-65504.0, 65504.0)).to_bits();
    let bits = (bits & 0x7fff) + (1 << spare >> 1);
    let magnitude = f16::from_bits((bits >> spare << spare).min(0x7bff)).to_f32();
    if centroid < 0.0 { -magnitude } else { magnitude }
}

/// One-dimensional k-means over sorted values: a cluster is a range of them, its sums come from prefix sums.
struct KMeans {
    sorted: Vec<f64>,
    /// Sums of the first i values, and of their squares.
    sums: Vec<f64>,
    squares: Vec<f64>,
    centroids: Vec<f64>,
}

impl KMeans {
    fn new(sorted: &[f32], count: usize) -> Self {
        let sorted: Vec<f64> = sorted.iter().map(|value| f64::from(*value).clamp(-65504.0, 65504.0)).collect();
        let prefix = |value: fn(f64) -> f64| {
            let sums = sorted.iter().scan(0.0, |sum, next| {
                *sum += value(*next);
                Some(*sum)
            });
            std::iter::once(0.0).chain(sums).collect::<Vec<f64>>()
        };
        let (sums, squares) = (prefix(|value| value), prefix(|value| value * value));
        let (low, high) = (sorted.first().copied().unwrap_or(0.0), sorted.last().copied().unwrap_or(0.0));
        let distinct = 1 + sorted.windows(2).filter(|pair| pair[0] != pair[1]).count();
        let count = count.min(distinct);
        let step = (high - low) / (count.max(2) - 1) as f64;
        let centroids = match count {
            1 => vec![sums[sorted.len()] / sorted.len().max(1) as f64],
            _ => (0..count).map(|index| low + step * index as f64).collect(),
        };
        Self { sorted, sums, squares, centroids }
    }

    /// The end of each centroid's range.
    fn ends(&self) -> Vec<usize> {
        let mut ends: Vec<usize> = self
            .centroids
            .windows(2)
            .map(|pair| self.sorted.partition_point(|value| *value <= (pair[0] + pair[1]) / 2.0))
            .collect();
        ends.push(self.sorted.len());
        ends
    }

    fn mean(&self, start: usize, end: usize) -> f64 {
        (self.sums[end] - self.sums[start]) / (end - start) as f64
    }

    /// The squared error of the values `start..end` around their mean.
    fn scatter(&self, start: usize, end: usize) -> f64 {
        if start == end {
            return 0.0;
        }
        let sum = self.sums[end] - self.sums[start];
        (self.squares[end] - self.squares[start] - sum * sum / (end - start) as f64).max(0.0)
    }

    /// One round: each centroid moves to the mean of its values; one without values halves the cluster of the largest error.
    /// Whether anything moved.
    fn round(&mut self) -> bool {
        let ends = self.ends();
        let starts = || std::iter::once(0).chain(ends.iter().copied());
        let mut ranges: Vec<(usize, usize)> =
            starts().zip(ends.iter().copied()).filter(|(start, end)| start < end).collect();
        while ranges.len() < self.centroids.len() {
            let Some(widest) = (0..ranges.len())
                .filter(|index| self.sorted[ranges[*index].0] < self.sorted[ranges[*index].1 - 1])
                .max_by(|a, b| {
                    let error = |index: &usize| self.scatter(ranges[*index].0, ranges[*index].1);
                    error(a).total_cmp(&error(b))
                })
            else {
                break;
            };
            let (start, end) = ranges[widest];
            let mean = self.mean(start, end);
            let inside = self.sorted[start..end].partition_point(|value| *value <= mean);
            let middle = (start + inside).clamp(start + 1, end - 1);
            ranges[widest] = (start, middle);
            ranges.insert(widest + 1, (middle, end));
        }
        let means: Vec<f64> = ranges.iter().map(|(start, end)| self.mean(*start, *end)).collect();
        let moved = means != self.centroids;
        self.centroids = means;
        moved
    }

    fn settle(mut self) -> Vec<f64> {
        if !self.sorted.is_empty() {
            for _ in 0..ROUNDS_MAX {
                if !self.round() {
                    break;
                }
            }
        }
        self.centroids
    }
}

/// Trained code books: all members of a cluster move together, pruned weights stay zero, other tensors are free.
///
/// The free vector holds a cluster's value in each of its members. Computed is the mean of the members: the orthogonal projection on
/// the vectors whose members agree. The way back is its transpose, which gives every member the mean of the members' gradients. The
/// paper (§3, eq. 3) moves a centroid by their **sum**. Both point the same way; but projected gradient descent on the weights
/// themselves moves a centroid by the mean, so a learning rate that suits the weights suits their clusters too, whereas the sum
/// over a thousand members is a step a thousand times as long. As all members get the same gradient, element-wise optimisers (SGD,
/// momentum, Adam) give them the same step and they never part.
#[derive(Debug, Clone)]
pub struct SharedWeights {
    tensors: Vec<Shared>,
}

/// A tensor with shared weights.
#[derive(Debug, Clone)]
struct Shared {
    /// Its index in the manifest.
    tensor: usize,
    /// The flat index of its first value, and how many it has.
    offset: usize,
    len: usize,
    /// The flat indices of the kept values.
    members: Vec<u32>,
    /// The cluster of each.
    codes: Vec<u8>,
    clusters: usize,
}

impl SharedWeights {
    /// For the tensors of `network` that are given with their code books; a tensor in another form is left free.
    ///
    /// # Panics
    /// If a tensor was not made for its place in the manifest.
    #[allow(clippy::cast_possible_truncation, reason = "flat indices lie below 2^30")]
    pub fn new(network: &Network, per_tensor: &[(usize, &Compressed)]) -> Self {
        let mut tensors = Vec::new();
        for (tensor, compressed) in per_tensor {
            let Values::Codebook { centroids, codes } = &compressed.values else { continue };
            let range = network.manifest.tensors[*tensor].range();
            let offset = range.start as u32;
            let members: Vec<u32> = match &compressed.kept {
                Some(kept) => kept.iter().map(|index| offset + index).collect(),
                None => (range.start as u32..range.end as u32).collect(),
            };
            assert_eq!(members.len(), codes.len(), "a code for each kept weight");
            assert!(codes.iter().all(|code| usize::from(*code) < centroids.len()), "codes of the code book");
            tensors.push(Shared {
                tensor: *tensor,
                offset: range.start,
                len: range.len(),
                members,
                codes: codes.clone(),
                clusters: centroids.len(),
            });
        }
        Self { tensors }
    }

    /// The code books that are in `parameters` already: for each linear and convolution weight, values that are equal are a
    /// cluster. A tensor with more than 256 values that differ has no code book and is left free.
    ///
    /// # Panics
    /// If `parameters` are another network's.
    pub fn of_equals(network: &Network, parameters: &[f32]) -> Self {
        let books: Vec<(usize, Compressed)> = super::prune::prunable(network)
            .into_iter()
            .filter_map(|index| {
                let values = &parameters[network.manifest.tensors[index].range()];
                of_equal_values(values).map(|book| (index, book))
            })
            .collect();
        let given: Vec<(usize, &Compressed)> = books.iter().map(|(index, book)| (*index, book)).collect();
        Self::new(network, &given)
    }

    /// Writes the tuned centroids, rounded as [`cluster`] does, into the code books of `tensors`. Codes stay as they are.
    ///
    /// # Panics
    /// If a tensor's code book is not the one that the map was made with.
    pub fn codes_into(&self, free: &[f32], tensors: &mut [(usize, Compressed)]) {
        for (tensor, compressed) in tensors {
            let Some(shared) = self.tensors.iter().find(|shared| shared.tensor == *tensor) else { continue };
            if let Values::Codebook { centroids, .. } = &mut compressed.values {
                assert_eq!(centroids.len(), shared.clusters, "the code book that was tuned");
                for (centroid, (mean, members)) in centroids.iter_mut().zip(shared.means(free)) {
                    if members > 0 {
                        *centroid = rounded(f64::from(mean), shared.clusters);
                    }
                }
            }
        }
    }
}

/// The kept values of a tensor by their distinct values, if a code names them all.
fn of_equal_values(values: &[f32]) -> Option<Compressed> {
    let mut centroids: Vec<f32> = Vec::new();
    for value in values.iter().filter(|value| **value != 0.0) {
        if let Err(place) = centroids.binary_search_by(|centroid| centroid.total_cmp(value)) {
            if centroids.len() == CODES_MAX {
                return None;
            }
            centroids.insert(place, *value);
        }
    }
    let indexed = values.iter().zip(0u32..).filter(|(value, _)| **value != 0.0);
    let (kept, codes) = indexed
        .map(|(value, index)| {
            let code = centroids.partition_point(|centroid| centroid.total_cmp(value).is_lt());
            (index, u8::try_from(code).expect("at most 256 centroids"))
        })
        .unzip();
    Some(Compressed { kept: Some(kept), values: Values::Codebook { centroids, codes } })
}

impl Shared {
    /// The mean of each cluster's members in `flat`, and how many there are.
    #[allow(clippy::cast_possible_truncation, reason = "a mean is rounded to the precision of the weights")]
    fn means(&self, flat: &[f32]) -> Vec<(f32, usize)> {
        let mut sums = vec![(0f64, 0usize); self.clusters];
        for (index, code) in self.members.iter().zip(&self.codes) {
            let (sum, members) = &mut sums[usize::from(*code)];
            *sum += f64::from(flat[*index as usize]);
            *members += 1;
        }
        sums.into_iter().map(|(sum, members)| ((sum / members.max(1) as f64) as f32, members)).collect()
    }

    /// Puts the mean of each cluster into all its members, and zeros elsewhere in the tensor.
    fn project(&self, source: &[f32], out: &mut [f32]) {
        let means = self.means(source);
        out[self.offset..self.offset + self.len].fill(0.0);
        for (index, code) in self.members.iter().zip(&self.codes) {
            out[*index as usize] = means[usize::from(*code)].0;
        }
    }
}

impl WeightMap for SharedWeights {
    fn forward(&self, free: &[f32], computed: &mut [f32]) {
        computed.copy_from_slice(free);
        for shared in &self.tensors {
            shared.project(free, computed);
        }
    }

    fn backward(&self, _free: &[f32], gradient: &mut [f32]) {
        for shared in &self.tensors {
            let means = shared.means(gradient);
            gradient[shared.offset..shared.offset + shared.len].fill(0.0);
            for (index, code) in shared.members.iter().zip(&shared.codes) {
                gradient[*index as usize] = means[usize::from(*code)].0;
            }
        }
    }
}
