//! Setting rows aside by seed: hold-outs of devices, and test sets out of training data.

use starling_spec::random::{Purpose, Random};

/// Parts a device's `rows` into those to train on and those held out for evaluation.
///
/// The same rows, seed and device give the same split, whatever the order of other devices. The hold-out has
/// `round(share × rows)` samples, at least one where `share` is above 0, and leaves at least one to train on; a device with
/// a single sample holds nothing out. Both halves are in ascending order if `rows` is.
pub fn split_holdout(rows: &[u32], share: f64, seed: u64, device: u64) -> (Vec<u32>, Vec<u32>) {
    split(rows, share, Random::new(seed, Purpose::Split, &[device]))
}

/// A test set out of training rows `0..rows` (`data.test_fraction`).
pub(crate) fn split_test(rows: u32, fraction: f64, seed: u64) -> (Vec<u32>, Vec<u32>) {
    split(&(0..rows).collect::<Vec<_>>(), fraction, Random::new(seed, Purpose::Split, &[]))
}

fn split(rows: &[u32], share: f64, mut random: Random) -> (Vec<u32>, Vec<u32>) {
    if share <= 0.0 || rows.len() < 2 {
        return (rows.to_vec(), Vec::new());
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a length, above 0")]
    let held = ((rows.len() as f64 * share).round() as usize).clamp(1, rows.len() - 1);
    let mut places: Vec<usize> = (0..rows.len()).collect();
    random.shuffle(&mut places);
    let mut out = vec![false; rows.len()];
    places[..held].iter().for_each(|place| out[*place] = true);
    let pick = |wanted: bool| rows.iter().zip(&out).filter(|(_, out)| **out == wanted).map(|(row, _)| *row).collect();
    (pick(false), pick(true))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_share_of_0_holds_nothing_out() {
        assert_eq!(split_holdout(&[4, 7], 0.0, 1, 2), (vec![4, 7], vec![]));
        assert_eq!(split_holdout(&[4], 0.5, 1, 2), (vec![4], vec![]));
    }

    #[test]
    fn inv11_a_split_depends_on_seed_and_device_alone() {
        let rows: Vec<u32> = (0..100).collect();
        assert_eq!(split_holdout(&rows, 0.2, 1, 2), split_holdout(&rows, 0.2, 1, 2));
        assert_ne!(split_holdout(&rows, 0.2, 1, 2), split_holdout(&rows, 0.2, 1, 3));
        assert_ne!(split_holdout(&rows, 0.2, 1, 2), split_holdout(&rows, 0.2, 2, 2));
    }

    proptest! {
        #[test]
        fn both_halves_together_are_all_rows(len in 2u32..300, share in 0.001f64..0.999, seed: u64, device: u64) {
            let rows: Vec<u32> = (0..len).map(|row| row * 3).collect();
            let (train, held) = split_holdout(&rows, share, seed, device);
            prop_assert!(!train.is_empty() && !held.is_empty());
            prop_assert!((held.len() as f64 - share * f64::from(len)).abs() <= 1.0);
            let mut all = [train, held].concat();
            all.sort_unstable();
            prop_assert_eq!(all, rows);
        }
    }
}
