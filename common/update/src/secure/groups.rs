//! A cohort in several secure sums: who is in which, and how their means become one.
//!
//! A poisoned update inside a sum cannot be looked at, but the sum of its group can be compared with the others'. As long as fewer than half of
//! the groups hold one, the median of a coordinate lies between values of groups that hold none (Yin et al. 2018, "Byzantine-robust distributed
//! learning: towards optimal statistical rates", with groups in the place of devices).

use starling_spec::random::{Purpose, Random, device_key};
use starling_spec::task::GroupRule;
use starling_wire::{Address, DeviceId};

use crate::ring::RingMean;

/// Where `device` stands when the devices of an attempt are dealt out, one to each group in turn: another order in each attempt.
pub fn group_order(seed: u64, address: &Address, device: &DeviceId) -> u64 {
    let path = [address.round.into(), address.attempt.into(), device_key(device.0)];
    Random::new(seed, Purpose::Group, &path).next_u64()
}

/// What sums over so many devices each say together: `rule` of their means, and everything else as if it were one sum. Groups have no noise.
///
/// # Panics
/// If there is no group.
pub(super) fn together(rule: GroupRule, groups: Vec<(RingMean, usize)>) -> (RingMean, usize) {
    let devices = groups.iter().map(|(_, devices)| devices).sum();
    let means: Vec<&[f32]> = groups.iter().map(|(group, _)| group.mean.as_slice()).collect();
    let mean = across(rule, &means);
    let share = |of: fn(&RingMean) -> Option<f64>| {
        let weighed = groups.iter().map(|(group, count)| Some(of(group)? * *count as f64));
        Some(weighed.sum::<Option<f64>>()? / f64::max(devices as f64, 1.0))
    };
    let within_clip = share(|group| group.within_clip);
    let mut groups = groups.into_iter().map(|(group, _)| group);
    let first = groups.next().expect("an attempt has a group");
    let whole = groups.fold(RingMean { mean, within_clip, ..first }, |mut whole, group| {
        whole.weight_sum += group.weight_sum;
        whole.metrics.iter_mut().zip(&group.metrics).for_each(|(sum, more)| *sum += more);
        whole
    });
    (whole, devices)
}

/// `rule` of `means`, coordinate by coordinate.
#[allow(clippy::cast_possible_truncation, reason = "means have no more digits")]
fn across(rule: GroupRule, means: &[&[f32]]) -> Vec<f32> {
    let mut values = vec![0f32; means.len()];
    let coordinates = 0..means.first().map_or(0, |mean| mean.len());
    let one = |index: usize| {
        values.iter_mut().zip(means).for_each(|(value, mean)| *value = mean[index]);
        values.sort_by(f32::total_cmp);
        let cut = rule.cut(values.len());
        let kept = &values[cut..values.len() - cut];
        (kept.iter().map(|value| f64::from(*value)).sum::<f64>() / kept.len() as f64) as f32
    };
    coordinates.map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::SHARES;

    #[test]
    fn the_rules_are_those_of_their_names() {
        let (a, b, c, d) = ([1.0, -9.0], [2.0, 0.5], [4.0, 1.0], [80.0, 1.5]);
        let four = [&a[..], &b, &c, &d];
        assert_eq!(across(GroupRule::Median, &four), [3.0, 0.75]);
        assert_eq!(across(GroupRule::Median, &four[..3]), [2.0, 0.5]);
        assert_eq!(across(GroupRule::TrimmedMean, &four), [3.0, 0.75]);
        assert_eq!(across(GroupRule::TrimmedMean, &four[..3]), [2.0, 0.5]);
        let five = [&a[..], &b, &c, &d, &[6.0, -2.0]];
        assert_eq!(across(GroupRule::Median, &five), [4.0, 0.5]);
        assert_eq!(across(GroupRule::TrimmedMean, &five), [4.0, (-2.0 + 0.5 + 1.0) / 3.0]);
        let nine: Vec<[f32; 1]> = (1..=9u8).map(|n| [f32::from(n).powi(2)]).collect();
        let nine: Vec<&[f32]> = nine.iter().map(|mean| &mean[..]).collect();
        assert_eq!(across(GroupRule::TrimmedMean, &nine), [(9.0 + 16.0 + 25.0 + 36.0 + 49.0) / 5.0]);
        assert_eq!(across(GroupRule::Median, &[&a]), a);
    }

    #[test]
    fn fewer_than_half_of_the_groups_do_not_move_a_median_out_of_the_others() {
        let mut random = Random::new(9, Purpose::Noise, &[]);
        for case in 0..2_000 {
            let groups = 3 + case % 8;
            let honest = groups / 2 + 1;
            let means: Vec<[f32; 1]> =
                (0..groups).map(|index| [(random.unit_f32() - 0.5) * if index < honest { 1.0 } else { 1e6 }]).collect();
            let all: Vec<&[f32]> = means.iter().map(|mean| &mean[..]).collect();
            let (low, high) =
                means[..honest].iter().fold((f32::MAX, f32::MIN), |(low, high), [x]| (low.min(*x), high.max(*x)));
            let [found] = across(GroupRule::Median, &all)[..] else { panic!("one coordinate") };
            assert!((low..=high).contains(&found), "{groups} groups, {honest} honest: {found} of {low} to {high}");
        }
    }

    #[test]
    fn what_is_summed_beside_the_means_is_summed_over_all_groups() {
        let group = |weight_sum, within_clip, metrics: [i128; 2]| RingMean {
            mean: vec![1.0],
            weight_sum,
            within_clip: Some(within_clip),
            metrics: metrics.to_vec(),
            shares: [None; SHARES],
        };
        let groups = vec![(group(10, 0.5, [1, 2]), 4), (group(20, 1.0, [3, 4]), 2), (group(5, 0.0, [5, 6]), 2)];
        let (whole, devices) = together(GroupRule::Median, groups);
        assert_eq!((devices, whole.weight_sum, whole.metrics), (8, 35, vec![9, 12]));
        assert_eq!(whole.within_clip, Some(0.5));
    }
}
