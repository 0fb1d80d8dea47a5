//! Deltas through the ring's numbers, the machines of a secure sum, and back: the whole way but the network.

#[path = "../../secagg/tests/rounds/world.rs"]
#[allow(dead_code, reason = "the tests of secure aggregation use the rest")]
mod world;

use std::collections::BTreeMap;

use starling_privacy::noise::Simulated;
use starling_secagg::{RingVector, Setup};
use starling_spec::random::{Purpose, Random, device_key};
use starling_update::CodecSpec;
use starling_update::ring::{RingNumerics, RingReport, RingSettings, Tallies};
use starling_wire::DeviceId;
use world::{Leaves, World, device_id, nobody};

const PARAMETERS: usize = 3000;

fn delta(id: &DeviceId) -> Vec<f32> {
    let mut random = Random::new(1, Purpose::Noise, &[device_key(id.0)]);
    #[allow(clippy::cast_possible_truncation, reason = "a test's delta")]
    (0..PARAMETERS).map(|_| (0.01 * random.normal()) as f32).collect()
}

#[test]
fn the_mean_of_the_survivors_comes_out_and_rotation_and_subset_follow_from_the_session() {
    let settings = RingSettings {
        codec: CodecSpec::Quantised(8),
        clip: 1.0,
        weight_max: 100,
        subset_per_million: 500_000,
        cohort_max: 12,
        tallies: Some(Tallies { metrics_max: vec![100] }),
        noise: None,
    };
    let numerics = RingNumerics::new(&settings, PARAMETERS).expect("good settings");
    let setup = Setup { weight_max: 100, ..world::setup(12, numerics.coordinates(), numerics.value_max()) };
    assert_eq!(setup.ring().expect("a ring"), numerics.ring());
    let gone = device_id(3);
    let leaves = |id: &DeviceId| if *id == gone { Leaves::Masking } else { Leaves::Never };
    let mut world = World::new(&setup, 12, 1, &nobody);
    world.share(&nobody).expect("twelve devices");
    let session = world.aggregator.session().expect("a roster");
    let examples: BTreeMap<DeviceId, u32> =
        (1u32..).map(|index| 20 * index).zip(0..12).map(|(n, index)| (device_id(index), n)).collect();
    let encode = |id: &DeviceId| {
        let report = RingReport { examples: examples[id], metrics: &[5], shares: [0.5; 2] };
        numerics
            .encode(&delta(id), report, &session, device_key(id.0), &mut Simulated::new(0, &[]))
            .expect("a good delta")
    };
    world.mask(&encode, &leaves).expect("eleven devices");
    world.confirm(&leaves).expect("eleven devices");
    let sum = world.unmask(&leaves).expect("eleven devices");

    // Bit for bit the sum of what the survivors encoded.
    let survivors: Vec<DeviceId> = examples.keys().copied().filter(|id| *id != gone).collect();
    assert_eq!(sum.survivors(), survivors);
    let mut plain = RingVector::zero(numerics.ring(), numerics.coordinates());
    for id in &survivors {
        let mut packed = Vec::new();
        RingVector::from_signed(numerics.ring(), &encode(id)).pack_into(&mut packed);
        plain.add_packed(&packed).expect("the same ring");
    }
    assert_eq!(sum.values(), plain.to_signed());

    let mean = numerics.decode(&sum.values(), &session, 11).expect("a sum");
    let weights: u32 = survivors.iter().map(|id| examples[id].min(100)).sum();
    assert_eq!((mean.weight_sum, &mean.metrics[..]), (weights.into(), &[55][..]));
    let (mut error, mut energy, mut touched) = (0.0, 0.0, 0);
    for index in (0..PARAMETERS).filter(|index| mean.mean[*index] != 0.0) {
        let weighted = |id: &DeviceId| f64::from(examples[id].min(100)) * f64::from(delta(id)[index]);
        let expected = survivors.iter().map(weighted).sum::<f64>() / f64::from(weights);
        error += (f64::from(mean.mean[index]) - expected).powi(2);
        energy += expected.powi(2);
        touched += 1;
        if touched == 200 {
            break;
        }
    }
    assert!(touched == 200 && error < 0.05 * energy, "{error} {energy}");
}
