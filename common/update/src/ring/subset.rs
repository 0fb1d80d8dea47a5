//! A subset of the coordinates, the same for everybody.

use starling_spec::random::{Purpose, Random};

/// `take` of the indices below `count`, in ascending order, uniformly drawn (Knuth, volume 2, 3.4.2, Algorithm S).
pub(super) fn indices(count: usize, take: usize, seed: u64) -> impl Iterator<Item = usize> {
    let mut random = Random::new(seed, Purpose::Subset, &[count as u64, take as u64]);
    let mut missing = take as u64;
    (0..count).filter(move |index| {
        let chosen = missing > 0 && random.below((count - index) as u64) < missing;
        missing -= u64::from(chosen);
        chosen
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subset_has_its_size_and_every_index_its_chance() {
        let mut counts = [0u32; 50];
        for seed in 0..20_000 {
            let chosen: Vec<usize> = indices(50, 5, seed).collect();
            assert_eq!(chosen.len(), 5);
            assert!(chosen.windows(2).all(|pair| pair[0] < pair[1]) && chosen[4] < 50);
            chosen.into_iter().for_each(|index| counts[index] += 1);
        }
        // 2,000 expected; five standard deviations are 212.
        assert!(counts.iter().all(|count| count.abs_diff(2000) < 212), "{counts:?}");
        assert_eq!(indices(3, 3, 9).collect::<Vec<_>>(), [0, 1, 2]);
    }
}
