//! Rounds of devices that are in by coins of their own, and of devices whose turns are limited.

use std::collections::{BTreeMap, BTreeSet};

use starling_protocol::run::{Action, Coins, Finish, Progress, RunMachine, RunSettings, Turn, Turns};
use starling_spec::{FederationSection, Participation};
use starling_wire::{DeviceId, Refusal, RunId, TaskId};

const DEVICES: u32 = 200;
const ROUNDS: u32 = 400;

fn everybody() -> impl Iterator<Item = DeviceId> {
    (0..DEVICES).map(|index| DeviceId::seeded(0, index))
}

fn machine(participation: Participation, fraction: f64, coins: Coins, turns: Option<Turns>) -> RunMachine {
    let federation = FederationSection {
        participation,
        fraction,
        rounds: ROUNDS,
        devices: Some(DEVICES),
        devices_min: DEVICES,
        ..FederationSection::default()
    };
    let settings = RunSettings {
        task: TaskId([1; 16]),
        run: RunId(1),
        seed: 7,
        coins,
        turns,
        federation,
        tensors: 2,
        secure_cohort: None,
    };
    RunMachine::new(settings, Progress::default())
}

/// Runs to the end with devices that always report: who was in each round, and why it ended.
fn cohorts(mut run: RunMachine) -> (Vec<BTreeSet<DeviceId>>, Finish) {
    run.handle_all_available(0, everybody());
    let mut cohorts = Vec::new();
    loop {
        let mut asked = BTreeSet::new();
        while let Some(action) = run.poll_action() {
            match action {
                Action::Start { device, .. } => {
                    asked.insert(device);
                }
                Action::Commit { contributors, .. } => {
                    cohorts.push(contributors);
                    run.handle_committed(1, false);
                }
                Action::Finished(why) => return (cohorts, why),
                _ => {}
            }
        }
        let address = run.address();
        for device in asked {
            run.handle_update(1, device, &address).expect("it was asked");
        }
    }
}

#[test]
fn every_device_has_a_coin_of_its_own_each_round() {
    for coins in [Coins::Simulated(3), Coins::Secret([9; 32].into())] {
        let (cohorts, why) = cohorts(machine(Participation::Poisson, 0.1, coins, None));
        assert_eq!((cohorts.len(), why), (ROUNDS as usize, Finish::Rounds));
        // Sizes are binomial: 20 on average, with a variance of 18. A fixed size would have none.
        let sizes: Vec<f64> = cohorts.iter().map(|cohort| cohort.len() as f64).collect();
        let mean = sizes.iter().sum::<f64>() / f64::from(ROUNDS);
        let variance = sizes.iter().map(|size| (size - mean).powi(2)).sum::<f64>() / f64::from(ROUNDS);
        // Four standard errors: 4·√(18/400), and 4·18·√(2/400).
        assert!((mean - 20.0).abs() < 0.85 && (variance - 18.0).abs() < 5.1, "{mean} {variance}");
        // Devices are in alike, 40 rounds each with a variance of 36, and two of them together in 4.
        let mut each: BTreeMap<DeviceId, f64> = BTreeMap::new();
        cohorts.iter().flatten().for_each(|device| *each.entry(*device).or_default() += 1.0);
        let chi: f64 = each.values().map(|count| (count - 40.0).powi(2) / 36.0).sum();
        assert!(each.len() == DEVICES as usize && (120.0..290.0).contains(&chi), "{chi}");
        let two = [0, 1].map(|index| DeviceId::seeded(0, index));
        let together = cohorts.iter().filter(|cohort| two.iter().all(|device| cohort.contains(device))).count();
        assert!(together <= 12, "{together}");
    }
}

#[test]
fn keys_toss_differently_and_a_key_always_alike() {
    let of = |coins| cohorts(machine(Participation::Poisson, 0.1, coins, None)).0;
    let secret = |byte: u8| Coins::Secret([byte; 32].into());
    assert_eq!(of(secret(1)), of(secret(1)));
    assert_ne!(of(secret(1)), of(secret(2)));
    assert_ne!(of(Coins::Simulated(1)), of(Coins::Simulated(2)));
    assert!(!format!("{:?}", secret(77)).contains("77"));
}

#[test]
fn a_round_in_which_nobody_is_or_reports_is_committed_too() {
    let (rounds, why) = cohorts(machine(Participation::Poisson, 1e-6, Coins::Simulated(1), None));
    assert_eq!((rounds.len(), why), (ROUNDS as usize, Finish::Rounds));
    assert!(rounds.iter().all(BTreeSet::is_empty));
    let mut run = machine(Participation::Poisson, 0.5, Coins::Simulated(1), None);
    run.handle_all_available(0, everybody());
    let address = run.address();
    let asked: Vec<DeviceId> = std::iter::from_fn(|| run.poll_action())
        .filter_map(|action| if let Action::Start { device, .. } = action { Some(device) } else { None })
        .collect();
    assert!(asked.len() > 50);
    run.handle_out(1, asked[0], &address);
    assert!(run.poll_action().is_none(), "the others may still report");
    run.handle_timeout(run.poll_timeout_ms(1).expect("a deadline"));
    assert!(matches!(run.poll_action(), Some(Action::Commit { contributors, .. }) if contributors.is_empty()));
    assert_eq!(run.admit_update(asked[1], &address), Err(Refusal::RoundClosed));
}

#[test]
fn turns_are_neither_too_many_nor_too_close() {
    let turns = Turns { participations_max: 3, separation_min: 5 };
    let (rounds, why) = cohorts(machine(Participation::Any, 0.1, Coins::Simulated(1), Some(turns)));
    // 200 devices have 600 turns, at most 20 a round; the last rounds are of those who have one left.
    assert!((30..=45).contains(&rounds.len()) && why == Finish::Rounds, "{}", rounds.len());
    for device in everybody() {
        let mine: Vec<usize> = (0..rounds.len()).filter(|round| rounds[*round].contains(&device)).collect();
        assert!(mine.len() <= 3 && mine.windows(2).all(|pair| pair[1] - pair[0] >= 5), "{mine:?}");
    }
}

#[test]
fn a_run_goes_on_with_the_turns_that_were_had_and_waits_for_devices_that_have_some_left() {
    let turns = Turns { participations_max: 2, separation_min: 1 };
    let federation = FederationSection { devices: Some(4), devices_min: 2, ..FederationSection::default() };
    let settings = RunSettings {
        task: TaskId([1; 16]),
        run: RunId(1),
        seed: 7,
        coins: Coins::Simulated(1),
        turns: Some(turns),
        federation,
        tensors: 2,
        secure_cohort: None,
    };
    let devices: Vec<DeviceId> = everybody().take(4).collect();
    let had = devices[..2].iter().map(|device| (*device, Turn { count: 2, last: 9 })).collect();
    let progress = Progress { rounds_committed: 9, ..Progress::default() };
    let mut run = RunMachine::new(settings, progress).with_turns(had);
    run.handle_all_available(0, devices[..2].iter().copied());
    assert!(run.poll_action().is_none(), "neither has a turn left");
    assert!(run.poll_timeout_ms(0).is_none(), "and time alone changes nothing");
    run.handle_available(1, devices[2]);
    let asked: Vec<DeviceId> = std::iter::from_fn(|| run.poll_action())
        .filter_map(|action| if let Action::Start { device, .. } = action { Some(device) } else { None })
        .collect();
    assert_eq!(asked, [devices[2]], "one that has both left");
}
