//! Partitions of the embedded digits, where every build can try them.

use std::collections::BTreeSet;

use proptest::prelude::*;
use starling_data::{Loaded, SAMPLES_MIN, load, partition};
use starling_spec::{Partition, TaskKind};

use super::{classes, read, section};

fn digits() -> Loaded {
    let section = section("format = \"csv\"\ntrain = \"embedded:optdigits\"");
    load(&section, TaskKind::Classification, &[64], ".".as_ref(), 1).expect("the embedded set")
}

fn assert_covers(parts: &[Vec<u32>], rows: u32) {
    let mut all = parts.concat();
    all.sort_unstable();
    assert_eq!(all, (0..rows).collect::<Vec<_>>(), "every row on exactly one device");
    assert!(parts.iter().all(|part| part.is_sorted() && !part.is_empty()));
}

#[test]
fn inv11_partitions_depend_on_the_seed_alone() {
    let loaded = digits();
    for how in [Partition::Iid, Partition::Shards(2), Partition::Dirichlet(0.3)] {
        let once = partition(&loaded, how, Some(8), 1).expect("parts");
        assert_eq!(once, partition(&digits(), how, Some(8), 1).expect("parts"));
        assert_ne!(once, partition(&loaded, how, Some(8), 2).expect("parts"));
    }
}

#[test]
fn iid_parts_are_equal_and_mixed() {
    let loaded = digits();
    let parts = partition(&loaded, Partition::Iid, Some(10), 3).expect("parts");
    assert_covers(&parts, 3823);
    assert!(parts.iter().all(|part| (382..=383).contains(&part.len())));
    let labels = classes(&loaded.train);
    for part in &parts {
        let zeros = part.iter().filter(|row| labels[usize::try_from(**row).expect("small")] == 0).count();
        // Hypergeometric: 37.6 expected, deviation 5.5.
        assert!((16..=60).contains(&zeros), "{zeros} zeros");
    }
}

#[test]
fn a_device_sees_few_classes_under_shards() {
    let loaded = digits();
    let parts = partition(&loaded, Partition::Shards(2), Some(50), 3).expect("parts");
    assert_covers(&parts, 3823);
    let labels = classes(&loaded.train);
    for part in &parts {
        let seen: BTreeSet<u32> = part.iter().map(|row| labels[usize::try_from(*row).expect("small")]).collect();
        // A shard of 38 rows spans at most two of the ten classes.
        assert!(seen.len() <= 4, "{seen:?}");
    }
}

#[test]
fn dirichlet_skews_by_its_concentration() {
    let loaded = digits();
    let labels = classes(&loaded.train);
    // The mean over devices of the largest class's share: 1 when every device has one class, 0.1 when mixed.
    let skew = |alpha: f64| {
        let parts = partition(&loaded, Partition::Dirichlet(alpha), Some(8), 5).expect("parts");
        assert_covers(&parts, 3823);
        let share = |part: &Vec<u32>| {
            let mut counts = [0u32; 10];
            part.iter().for_each(|row| {
                let label = labels[usize::try_from(*row).expect("small")];
                counts[usize::try_from(label).expect("small")] += 1;
            });
            f64::from(*counts.iter().max().expect("ten")) / part.len() as f64
        };
        parts.iter().map(share).sum::<f64>() / parts.len() as f64
    };
    let (wild, mild, even) = (skew(0.1), skew(1.0), skew(1000.0));
    assert!(wild > mild && mild > even, "{wild} {mild} {even}");
    assert!(even < 0.15, "{even}");
}

#[test]
fn what_a_partition_lacks_is_named() {
    let loaded = digits();
    let said = |how, devices| partition(&loaded, how, devices, 1).expect_err("refused").to_string();
    assert_eq!(said(Partition::Iid, None), "federation.devices: missing: partition \"iid\" needs at least 1");
    assert!(said(Partition::Iid, Some(4000)).starts_with("federation.devices: 4000 devices, but only 3823"));
    assert!(said(Partition::Column, None).contains("needs data.client"));
    assert!(said(Partition::Shards(100), Some(50)).starts_with("federation.partition: 100 shards for each of 50"));
    let text = super::folder(&[("t", b"abcdefgh")]);
    let loaded = read(text.path(), "format = \"text\"\ntrain = \"t\"", TaskKind::NextToken, &[2]).expect("loads");
    let error = partition(&loaded, Partition::Dirichlet(1.0), Some(2), 1).expect_err("no classes");
    assert!(error.to_string().contains("goes by classes"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn dirichlet_leaves_no_device_without_samples(alpha in 0.001f64..2.0, devices in 1u32..500, seed: u64) {
        let parts = partition(&digits(), Partition::Dirichlet(alpha), Some(devices), seed).expect("parts");
        assert_covers(&parts, 3823);
        let equal = 3823 / parts.len();
        let least = SAMPLES_MIN.min(equal.div_ceil(2));
        prop_assert!(parts.iter().all(|part| part.len() >= least));
    }

    #[test]
    fn shards_cover_all_rows(devices in 1u32..200, each in 1u32..10, seed: u64) {
        assert_covers(&partition(&digits(), Partition::Shards(each), Some(devices), seed).expect("parts"), 3823);
    }
}
