//! The run machine without sockets and with virtual time.

mod secure;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use starling_spec::FederationSection;
use starling_spec::task::Goal;
use starling_wire::{RoundKind, RunId, TaskId, ValueRange};

use super::*;

fn device(index: u32) -> DeviceId {
    DeviceId::seeded(0, index)
}

fn machine(change: impl FnOnce(&mut FederationSection)) -> RunMachine {
    let mut federation = FederationSection { rounds: 2, deadline_ms: 10_000, ..FederationSection::default() };
    change(&mut federation);
    RunMachine::new(settings(federation), Progress::default())
}

fn settings(federation: FederationSection) -> RunSettings {
    let (task, run, coins) = (TaskId([1; 16]), RunId(1), Coins::Simulated(7));
    RunSettings { task, run, seed: 7, coins, turns: None, federation, tensors: 2, secure_cohort: None }
}

fn actions(machine: &mut RunMachine) -> Vec<Action> {
    std::iter::from_fn(|| machine.poll_action()).collect()
}

fn started(actions: &[Action]) -> BTreeSet<DeviceId> {
    actions
        .iter()
        .filter_map(|action| if let Action::Start { device, .. } = action { Some(*device) } else { None })
        .collect()
}

fn committed(actions: &[Action]) -> Option<BTreeSet<DeviceId>> {
    actions.iter().find_map(|action| match action {
        Action::Commit { contributors, .. } => Some(contributors.clone()),
        _ => None,
    })
}

#[test]
fn a_round_waits_for_enough_devices_and_commits_when_all_have_reported() {
    let mut run = machine(|federation| federation.devices_min = 2);
    run.handle_available(0, device(0));
    assert_eq!(actions(&mut run), []);
    run.handle_available(1, device(1));
    assert_eq!(started(&actions(&mut run)).len(), 2);
    let address = run.address();
    run.handle_update(2, device(0), &address).expect("admitted");
    assert_eq!(committed(&actions(&mut run)), None);
    run.handle_update(3, device(1), &address).expect("admitted");
    assert_eq!(committed(&actions(&mut run)).map(|who| who.len()), Some(2));
}

#[test]
fn inv1_a_cohort_does_not_depend_on_the_order_of_arrival() {
    let cohort = |order: &[u32]| {
        let mut run = machine(|federation| {
            federation.fraction = 0.4;
            federation.devices_min = 10;
        });
        order.iter().for_each(|index| run.handle_available(0, device(*index)));
        started(&actions(&mut run))
    };
    let forward = cohort(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(forward.len(), 4);
    assert_eq!(forward, cohort(&[9, 3, 1, 0, 8, 2, 5, 4, 7, 6]));
}

#[test]
fn over_selection_asks_more_and_commits_without_the_slowest() {
    let mut run = machine(|federation| {
        federation.fraction = 0.5;
        federation.over_selection = 1.5;
        federation.devices_min = 8;
    });
    (0..8).for_each(|index| run.handle_available(0, device(index)));
    let asked = started(&actions(&mut run));
    assert_eq!(asked.len(), 6);
    let address = run.address();
    for reporter in asked.iter().take(4) {
        run.handle_update(5, *reporter, &address).expect("admitted");
    }
    assert_eq!(committed(&actions(&mut run)).map(|who| who.len()), Some(4));
    let late = *asked.iter().next_back().expect("six were asked");
    assert_eq!(run.handle_update(6, late, &address), Err(Refusal::RoundClosed));
    run.handle_committed(7, false);
    let ended = actions(&mut run).iter().filter(|action| matches!(action, Action::End { .. })).count();
    assert_eq!(ended, 2, "those who were still at work are told");
}

#[test]
fn inv2_a_second_update_of_a_device_is_a_duplicate() {
    let mut run = machine(|federation| federation.devices_min = 2);
    run.handle_available(0, device(0));
    run.handle_available(0, device(1));
    let address = run.address();
    assert_eq!(run.handle_update(1, device(0), &address), Ok(()));
    assert_eq!(run.handle_update(1, device(0), &address), Err(Refusal::Duplicate));
    assert_eq!(run.handle_update(1, device(5), &address), Err(Refusal::NotInCohort));
    let stale = Address { attempt: 9, ..address };
    assert_eq!(run.handle_update(1, device(1), &stale), Err(Refusal::StaleAttempt));
}

/// Two devices commit the round under way; the driver then says how many rounds the budget has left.
fn commit_and_limit(run: &mut RunMachine, rounds_left: u32) -> Vec<Action> {
    let address = run.address();
    (0..2).for_each(|index| run.handle_update(1, device(index), &address).expect("admitted"));
    assert!(committed(&actions(run)).is_some());
    run.limit_rounds(rounds_left + 1);
    run.handle_committed(2, false);
    actions(run)
}

#[test]
fn a_run_is_over_when_its_privacy_budget_is_and_begins_no_round_without() {
    let settings = |federation: &mut FederationSection| {
        federation.devices_min = 2;
        federation.rounds = 5;
    };
    let mut run = machine(settings);
    run.limit_rounds(2);
    (0..2).for_each(|index| run.handle_available(0, device(index)));
    actions(&mut run);
    assert_eq!(started(&commit_and_limit(&mut run, 1)).len(), 2, "one is left");
    assert_eq!(commit_and_limit(&mut run, 0), [Action::Finished(Finish::Budget)]);
    // After a restart nothing begins either, not even once for want of devices.
    let mut again = machine(settings);
    again.limit_rounds(0);
    again.handle_all_available(0, []);
    assert_eq!(actions(&mut again), [Action::Finished(Finish::Budget)]);
}

#[test]
fn a_device_that_vanishes_costs_seconds_and_no_round() {
    let mut run = machine(|federation| federation.devices_min = 3);
    (0..3).for_each(|index| run.handle_available(0, device(index)));
    let address = run.address();
    run.handle_update(10, device(0), &address).expect("admitted");
    run.handle_update(20, device(1), &address).expect("admitted");
    run.handle_gone(30, device(2));
    actions(&mut run);
    assert_eq!(run.poll_timeout_ms(30), Some(30 + GRACE_MS));
    run.handle_timeout(30 + GRACE_MS);
    assert_eq!(committed(&actions(&mut run)).map(|who| who.len()), Some(2));
}

#[test]
fn a_device_that_returns_in_time_is_asked_again_for_the_same_attempt() {
    let mut run = machine(|federation| federation.devices_min = 2);
    run.handle_available(0, device(0));
    run.handle_available(0, device(1));
    let address = run.address();
    actions(&mut run);
    run.handle_gone(5, device(1));
    run.handle_available(50, device(1));
    assert_eq!(started(&actions(&mut run)), BTreeSet::from([device(1)]));
    assert_eq!(run.admit_update(device(1), &address), Ok(()));
}

#[test]
fn an_attempt_below_its_quorum_is_given_up_and_tried_again_after_a_pause() {
    let mut run = machine(|federation| {
        federation.devices_min = 4;
        federation.quorum = 0.75;
    });
    (0..4).for_each(|index| run.handle_available(0, device(index)));
    let first = run.address();
    run.handle_update(1, device(0), &first).expect("admitted");
    actions(&mut run);
    run.handle_timeout(10_000);
    assert!(actions(&mut run).contains(&Action::Abandon { address: first }));
    assert_eq!(run.admit_update(device(0), &first), Err(Refusal::StaleAttempt));
    assert_eq!(run.poll_timeout_ms(10_000), Some(10_000 + RETRY_MS));
    run.handle_timeout(10_000 + RETRY_MS);
    assert_eq!(run.address(), Address { attempt: 2, ..first });
    assert_eq!(started(&actions(&mut run)).len(), 4);
}

#[test]
fn an_evaluation_round_follows_and_sums_what_the_devices_say() {
    let mut run = machine(|federation| {
        federation.devices_min = 2;
        federation.rounds = 1;
        federation.evaluate_every = 1;
        federation.holdout = 0.2;
    });
    run.handle_available(0, device(0));
    run.handle_available(0, device(1));
    let address = run.address();
    run.handle_update(1, device(0), &address).expect("admitted");
    run.handle_update(1, device(1), &address).expect("admitted");
    run.handle_committed(2, false);
    let evaluation = Evaluation { address: run.address(), examples: 10, correct: 9, loss_sum: 1.5 };
    run.handle_evaluation(3, device(0), evaluation);
    run.handle_evaluation(3, device(0), evaluation);
    run.handle_evaluation(3, device(1), Evaluation { correct: 7, ..evaluation });
    let figures = HeldOut { devices: 2, examples: 20, correct: 16, loss_sum: 3.0 };
    let actions = actions(&mut run);
    let answered = Action::Answered { address: evaluation.address, answer: Answer::HeldOut(figures) };
    assert!(actions.contains(&answered), "{actions:?}");
    assert!(actions.contains(&Action::Finished(Finish::Rounds)));
}

/// A run with a goal of one round, under way on three devices.
fn asking(goal: Goal) -> RunMachine {
    let mut run = machine(|federation| {
        federation.rounds = 1;
        federation.goal = goal;
        federation.holdout = 0.2;
        federation.devices_min = 3;
    });
    run.handle_all_available(0, (0..3).map(device));
    run
}

fn kinds(actions: &[Action]) -> BTreeSet<&'static str> {
    let word = |kind: &RoundKind| match kind {
        RoundKind::Train => "train",
        RoundKind::Evaluate => "evaluate",
        _ => "statistics",
    };
    actions
        .iter()
        .filter_map(|action| if let Action::Start { kind, .. } = action { Some(word(kind)) } else { None })
        .collect()
}

#[test]
fn a_run_whose_goal_is_to_evaluate_asks_everybody_once_and_makes_no_version() {
    let mut run = asking(Goal::Evaluate);
    let asked = actions(&mut run);
    assert_eq!((started(&asked).len(), kinds(&asked)), (3, BTreeSet::from(["evaluate"])));
    let address = run.address();
    assert_eq!((address.round, address.attempt), (1, 1));
    for index in 0..3 {
        let evaluation = Evaluation { address, examples: 10, correct: 4 + u64::from(index), loss_sum: 1.0 };
        run.handle_evaluation(1, device(index), evaluation);
    }
    let figures = HeldOut { devices: 3, examples: 30, correct: 15, loss_sum: 3.0 };
    let answered = Action::Answered { address, answer: Answer::HeldOut(figures) };
    assert_eq!(actions(&mut run), [answered, Action::Finished(Finish::Rounds)]);
}

#[test]
fn below_the_quorum_an_answer_is_asked_for_again_under_a_new_attempt() {
    let mut run = asking(Goal::Evaluate);
    let first = run.address();
    let evaluation = |address| Evaluation { address, examples: 10, correct: 5, loss_sum: 1.0 };
    run.handle_evaluation(1, device(0), evaluation(first));
    run.handle_out(2, device(1), &first);
    run.handle_out(2, device(2), &first);
    let said = actions(&mut run);
    assert!(said.contains(&Action::Abandon { address: first }), "one of three is less than half: {said:?}");
    run.handle_timeout(2 + RETRY_MS);
    let second = run.address();
    assert_eq!((second.round, second.attempt, started(&actions(&mut run)).len()), (1, 2, 3));
    run.handle_evaluation(3_000, device(0), evaluation(first));
    for index in [0, 1] {
        run.handle_evaluation(3_001, device(index), evaluation(second));
    }
    run.handle_out(3_002, device(2), &second);
    let figures = HeldOut { devices: 2, examples: 20, correct: 10, loss_sum: 2.0 };
    let answered = Action::Answered { address: second, answer: Answer::HeldOut(figures) };
    assert!(actions(&mut run).contains(&answered), "two of three are enough, and the first attempt's answer is not in");
}

#[test]
fn ranges_become_the_widest_whatever_the_order_and_nonsense_is_left_out() {
    let range = |low, high| Some(ValueRange { low, high });
    let seen = [[range(-1.0, 2.0), None], [range(-3.0, 0.5), None], [range(f32::NAN, 1.0), None]];
    let all = |order: [usize; 3]| {
        let mut run = asking(Goal::Ranges);
        assert_eq!(kinds(&actions(&mut run)), BTreeSet::from(["statistics"]));
        let address = run.address();
        for index in order {
            let ranges = seen[index].to_vec();
            let who = u32::try_from(index).expect("small");
            run.handle_statistics(1, device(who), &Statistics { address, examples: 5, ranges });
        }
        actions(&mut run)
    };
    let widest = Ranges { devices: 2, examples: 10, ranges: vec![range(-3.0, 2.0), None] };
    let answered = |said: &[Action]| {
        said.iter()
            .any(|action| matches!(action, Action::Answered { answer: Answer::Ranges(found), .. } if *found == widest))
    };
    assert!(answered(&all([0, 1, 2])) && answered(&all([2, 1, 0])));
}

#[test]
fn inv8_ranges_of_another_network_count_as_no_answer() {
    let mut run = asking(Goal::Ranges);
    let address = run.address();
    for (index, length) in [(0, 0), (1, 3), (2, 2000)] {
        let statistics = Statistics { address, examples: 5, ranges: vec![None; length] };
        run.handle_statistics(1, device(index), &statistics);
    }
    let said = actions(&mut run);
    assert!(said.contains(&Action::Abandon { address }), "{said:?}");
    assert!(!said.iter().any(|action| matches!(action, Action::Answered { .. })));
}

#[test]
fn a_run_that_begins_among_many_devices_draws_from_all_of_them() {
    let mut run = machine(|federation| federation.devices_min = 1);
    run.handle_all_available(0, (0..5).map(device));
    assert_eq!(started(&actions(&mut run)).len(), 5);
}

proptest! {
    /// Random inputs; after each, what must hold; then the faults stop and the run must finish.
    #[test]
    fn a_run_survives_any_order_of_events_and_then_finishes(
        seed in any::<u64>(),
        events in prop::collection::vec((0u8..6, 0u32..6, 1u64..4_000), 0..200),
    ) {
        let mut run = machine(|federation| {
            federation.devices_min = 2;
            federation.fraction = 0.7;
            federation.over_selection = 1.3;
            federation.rounds = 3;
            federation.evaluate_every = 2;
        });
        run.settings.seed = seed;
        let mut world = World::default();
        for (what, who, pause_ms) in events {
            world.now_ms += pause_ms;
            let (now_ms, who, address) = (world.now_ms, device(who), run.address());
            match what {
                0 | 1 => run.handle_available(now_ms, who),
                2 => run.handle_gone(now_ms, who),
                3 => world.update(&mut run, who, &address)?,
                4 => run.handle_out(now_ms, who, &address),
                _ => run.handle_timeout(now_ms),
            }
            world.settle(&mut run)?;
        }
        for index in 0..6 {
            run.handle_available(world.now_ms, device(index));
        }
        for _ in 0..40 {
            world.settle(&mut run)?;
            let address = run.address();
            for index in 0..6 {
                world.update(&mut run, device(index), &address)?;
                run.handle_evaluation(world.now_ms, device(index), Evaluation { address, examples: 1, correct: 1, loss_sum: 0.0 });
                world.settle(&mut run)?;
            }
            world.now_ms += 10_000;
            run.handle_timeout(world.now_ms);
        }
        prop_assert!(run.is_finished());
        prop_assert_eq!(world.commits, 3);
    }
}

/// What a driver keeps, as an oracle.
#[derive(Default)]
struct World {
    now_ms: u64,
    commits: u32,
    /// Contributions that the machine said to fold, by attempt.
    folded: BTreeMap<(u32, u16), BTreeSet<DeviceId>>,
}

impl World {
    fn update(&mut self, run: &mut RunMachine, who: DeviceId, address: &Address) -> Result<(), TestCaseError> {
        if run.handle_update(self.now_ms, who, address).is_ok() {
            let new = self.folded.entry((address.round, address.attempt)).or_default().insert(who);
            prop_assert!(new, "invariant 2: a device contributed twice");
        }
        Ok(())
    }

    fn settle(&mut self, run: &mut RunMachine) -> Result<(), TestCaseError> {
        while let Some(action) = run.poll_action() {
            match action {
                Action::Commit { address, contributors, .. } => {
                    prop_assert_eq!(self.folded.get(&(address.round, address.attempt)), Some(&contributors));
                    prop_assert_eq!(address.round, self.commits + 1, "versions only increase");
                    self.commits += 1;
                    run.handle_committed(self.now_ms, false);
                }
                Action::Abandon { address } => {
                    self.folded.remove(&(address.round, address.attempt));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Three devices at work; the first has reported.
fn one_of_three_has_reported() -> (RunMachine, Address) {
    let mut run = machine(|federation| {
        federation.devices_min = 3;
        federation.quorum = 0.5;
    });
    (0..3).for_each(|index| run.handle_available(0, device(index)));
    assert_eq!(started(&actions(&mut run)).len(), 3);
    let address = run.address();
    run.handle_update(1, device(0), &address).expect("admitted");
    (run, address)
}

#[test]
fn an_expelled_devices_contribution_is_taken_out_and_the_round_commits_without_it() {
    let (mut run, address) = one_of_three_has_reported();
    assert_eq!(run.handle_expelled(2, device(0), true), Expelled::TakeOut);
    assert_eq!(run.admit_update(device(0), &address), Err(Refusal::RoundClosed), "it does not come back in");
    for index in [1, 2] {
        run.handle_update(3, device(index), &address).expect("admitted");
    }
    assert_eq!(committed(&actions(&mut run)), Some(BTreeSet::from([device(1), device(2)])));
    assert_eq!(run.handle_expelled(4, device(1), true), Expelled::Nothing, "a commit that has begun is completed");
}

#[test]
fn an_expelled_device_is_not_waited_for() {
    let (mut run, address) = one_of_three_has_reported();
    assert_eq!(run.handle_expelled(2, device(1), true), Expelled::Nothing);
    run.handle_update(3, device(2), &address).expect("admitted");
    assert_eq!(committed(&actions(&mut run)), Some(BTreeSet::from([device(0), device(2)])));
}

#[test]
fn where_a_contribution_cannot_be_taken_out_the_attempt_is_given_up_whole() {
    let (mut run, address) = one_of_three_has_reported();
    assert_eq!(run.handle_expelled(2, device(0), false), Expelled::Abandoned);
    let said = actions(&mut run);
    assert!(said.contains(&Action::Abandon { address }) && committed(&said).is_none(), "{said:?}");
    assert_eq!(run.admit_update(device(1), &address), Err(Refusal::StaleAttempt));
    run.handle_available(3, device(3));
    let again = run.poll_timeout_ms(3).expect("a next attempt");
    run.handle_timeout(again);
    assert_eq!(started(&actions(&mut run)), BTreeSet::from([device(1), device(2), device(3)]));
    assert_eq!((run.address().round, run.address().attempt), (address.round, address.attempt + 1));
}
