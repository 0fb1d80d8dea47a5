//! A cohort of real processes in several secure sums, and the rule across them.

use starling_spec::{TaskFile, TaskPlan};
use starling_testkit::fleet::{number, rounds};
use starling_update::{Local, SecureSums};
use starling_wire::{Address, DeviceId, RunId, TaskId, UpdateReport};

use crate::secure::{echo, exported, sessions};
use crate::world;

const DEVICES: u32 = 9;
const GROUPS: usize = 3;

#[test]
fn the_model_is_the_median_of_what_the_groups_sums_say_bit_for_bit() {
    let seed = 37;
    let more = format!(
        r#"
        server_lr = 0.5
        [update]
        codec = "q8"
        weight_max = 1000
        [privacy]
        secure_aggregation = true
        clip = 2.0
        groups = {GROUPS}
    "#
    );
    let text = world::task(DEVICES, 1, 1, &more).replace("\"digits\"", "\"bench\"");
    let task = TaskFile::parse(&text, &[]).expect("a task");
    let (fleet, run, status) = world::bench_run(seed, DEVICES, &text);
    let round = &rounds(&status)[0];
    assert_eq!((number(round, "contributors"), number(round, "weight")), (9, 9), "{round:#}");

    let plan = TaskPlan::new(&task, seed).expect("a plan");
    let manifest = plan.manifest().expect("a manifest");
    let sums = SecureSums::of(&plan, manifest.len()).expect("numbers").expect("secure sums");
    let attempt = u16::try_from(number(round, "attempt")).expect("few");
    let address = Address { task: TaskId(plan.id()), run: RunId(u32::try_from(run).expect("few")), round: 1, attempt };
    let mut devices: Vec<DeviceId> = (0..DEVICES).map(|index| DeviceId::seeded(seed, index)).collect();
    devices.sort_by_key(|device| (starling_update::group_order(seed, &address, device), *device));
    let sessions = sessions(round);
    assert_eq!(sessions.len(), GROUPS, "{round:#}");
    let sum = |group: usize| {
        let mut sum = vec![0i64; sums.numerics().coordinates()];
        for device in devices.iter().skip(group).step_by(GROUPS) {
            let report = UpdateReport { weight: 1, train_loss: 0.0, steps: 1, within_clip: false };
            let delta = echo(seed, *device, 1, manifest.len());
            let key = starling_update::rounding_key(seed, *device, 1);
            let mut words = || -> u64 { unreachable!("the task asks for no noise") };
            let local = Local { delta: &delta, report: &report, figures: None };
            let vector = sums.encode(local, &sessions[group], key, &mut words).expect("a vector");
            sum.iter_mut().zip(&vector).for_each(|(sum, value)| *sum += value);
        }
        sum
    };
    let found: Vec<Vec<i64>> = (0..GROUPS).map(sum).collect();
    let found: Vec<_> = found.iter().zip(&sessions).map(|(sum, session)| (&sum[..], *session, 3)).collect();
    let mut expected = starling_spec::init::initial_parameters(&manifest, seed);
    sums.decode_groups(&found).expect("means").apply_step(0.5, &mut expected);
    let published = exported(&fleet, run, &manifest);
    assert!(published == expected, "the published model is the median that the groups' vectors give");
}
