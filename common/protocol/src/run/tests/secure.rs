//! The run machine's rounds whose updates are summed under masks.

use super::*;

/// A run that takes so many devices, none of which is there yet.
fn machine(cohort: SecureCohort, change: impl FnOnce(&mut FederationSection)) -> RunMachine {
    let mut federation = FederationSection { rounds: 1, deadline_ms: 40_000, ..FederationSection::default() };
    change(&mut federation);
    let settings = RunSettings {
        task: TaskId([1; 16]),
        run: RunId(1),
        seed: 7,
        coins: Coins::Simulated(7),
        turns: None,
        federation,
        tensors: 2,
        secure_cohort: Some(cohort),
    };
    RunMachine::new(settings, Progress::default())
}

/// A run under way on `devices` devices with cohorts of at least three.
fn summing(devices: u32, change: impl FnOnce(&mut FederationSection)) -> RunMachine {
    let cohort = SecureCohort { asked_min: 3, summed_min: 3, max: devices as usize };
    let mut run = machine(cohort, |federation| {
        federation.devices_min = devices;
        change(federation);
    });
    run.handle_all_available(0, (0..devices).map(device));
    assert_eq!(started(&actions(&mut run)).len(), devices as usize);
    run
}

fn all(devices: std::ops::Range<u32>) -> BTreeSet<DeviceId> {
    devices.map(device).collect()
}

/// `who` answer in `stage`; what the machine says then.
fn answer(run: &mut RunMachine, now_ms: u64, who: std::ops::Range<u32>, stage: Stage) -> Vec<Action> {
    let address = run.address();
    for index in who {
        assert_eq!(run.admit_mail(device(index), &address, stage), Ok(()));
        run.handle_mail(now_ms, device(index), &address, stage);
    }
    actions(run)
}

/// All of `who` answer in every stage before `until`, which is open then.
fn up_to(run: &mut RunMachine, who: std::ops::Range<u32>, until: Stage) {
    let address = run.address();
    for stage in [Stage::Advertise, Stage::Share, Stage::Mask, Stage::Confirm, Stage::Reveal] {
        if stage == until {
            return;
        }
        assert_eq!(answer(run, 1, who.clone(), stage), [Action::Close { address, stage }]);
        run.handle_closed(1, &address, Ok(all(who.clone())));
        assert_eq!(actions(run), []);
    }
}

#[test]
fn a_sum_goes_through_its_stages_and_commits_the_survivors() {
    let mut run = summing(4, |_| ());
    let address = run.address();
    up_to(&mut run, 0..4, Stage::Reveal);
    assert_eq!(answer(&mut run, 2, 0..4, Stage::Reveal), [Action::Close { address, stage: Stage::Reveal }]);
    run.handle_closed(3, &address, Ok(all(0..4)));
    assert_eq!(committed(&actions(&mut run)), Some(all(0..4)));
    run.handle_committed(4, false);
    assert_eq!(actions(&mut run), [Action::Finished(Finish::Rounds)]);
}

#[test]
fn who_is_late_has_dropped_out_and_is_told_when_the_round_is_over() {
    let mut run = summing(5, |_| ());
    let address = run.address();
    up_to(&mut run, 0..5, Stage::Mask);
    assert_eq!(answer(&mut run, 2, 0..4, Stage::Mask), [], "training is waited for");
    run.handle_timeout(40_000);
    assert_eq!(actions(&mut run), [Action::Close { address, stage: Stage::Mask }]);
    assert_eq!(run.admit_mail(device(4), &address, Stage::Mask), Err(Refusal::RoundClosed));
    run.handle_closed(40_000, &address, Ok(all(0..4)));
    answer(&mut run, 40_001, 0..4, Stage::Confirm);
    run.handle_closed(40_001, &address, Ok(all(0..4)));
    answer(&mut run, 40_002, 0..4, Stage::Reveal);
    run.handle_closed(40_002, &address, Ok(all(0..4)));
    let said = actions(&mut run);
    assert_eq!(committed(&said), Some(all(0..4)));
    assert!(said.contains(&Action::End { device: device(4), address, reason: Refusal::RoundClosed }), "{said:?}");
}

#[test]
fn key_stages_have_a_quarter_of_the_deadline_and_masks_all_of_it() {
    let mut run = summing(4, |_| ());
    assert_eq!(run.poll_timeout_ms(0), Some(10_000));
    up_to(&mut run, 0..4, Stage::Mask);
    assert_eq!(run.poll_timeout_ms(1), Some(40_000));
}

#[test]
fn below_the_smallest_cohort_the_attempt_is_given_up_and_everybody_is_told() {
    let mut run = summing(4, |_| ());
    let address = run.address();
    answer(&mut run, 2, 0..2, Stage::Advertise);
    run.handle_timeout(10_000);
    let said = actions(&mut run);
    assert!(said.contains(&Action::Abandon { address }), "{said:?}");
    assert_eq!(said.iter().filter(|action| matches!(action, Action::End { .. })).count(), 4);
    run.handle_timeout(10_000 + RETRY_MS);
    assert_eq!((run.address().attempt, started(&actions(&mut run)).len()), (2, 4));
    assert_eq!(run.admit_mail(device(0), &address, Stage::Share), Err(Refusal::StaleAttempt));
}

#[test]
fn groups_want_all_their_devices_to_begin_with_and_three_groups_in_the_end() {
    // Five groups of at least three.
    let begun = || {
        let cohort = SecureCohort { asked_min: 15, summed_min: 9, max: 20 };
        let mut run = machine(cohort, |federation| federation.fraction = 0.1);
        run.handle_all_available(0, (0..14).map(device));
        assert_eq!(actions(&mut run), [], "one of the groups would be too small");
        run.handle_available(0, device(14));
        assert_eq!(started(&actions(&mut run)).len(), 15, "a tenth of them would be too few");
        up_to(&mut run, 0..15, Stage::Mask);
        run
    };
    for (left, goes_on) in [(9, true), (8, false)] {
        let mut run = begun();
        let address = run.address();
        answer(&mut run, 2, 0..left, Stage::Mask);
        run.handle_timeout(40_000);
        let said = actions(&mut run);
        assert_eq!(said.contains(&Action::Close { address, stage: Stage::Mask }), goes_on, "{left}: {said:?}");
        assert_eq!(said.contains(&Action::Abandon { address }), !goes_on, "{left}: {said:?}");
    }
}

#[test]
fn a_stage_that_cannot_be_closed_ends_the_attempt() {
    let mut run = summing(4, |_| ());
    let address = run.address();
    up_to(&mut run, 0..4, Stage::Mask);
    answer(&mut run, 2, 0..4, Stage::Mask);
    run.handle_closed(3, &address, Err(Refusal::StaleAttempt));
    assert!(actions(&mut run).contains(&Action::Abandon { address }));
}

#[test]
fn a_device_thrown_out_before_its_update_is_in_has_dropped_out() {
    let mut run = summing(5, |_| ());
    up_to(&mut run, 0..5, Stage::Mask);
    answer(&mut run, 2, 0..4, Stage::Mask);
    let address = run.address();
    assert_eq!(run.handle_expelled(3, device(4), false), Expelled::DropOut);
    assert_eq!(actions(&mut run), [Action::Close { address, stage: Stage::Mask }], "nobody else is waited for");
}

#[test]
fn a_device_thrown_out_after_its_update_is_in_ends_the_attempt_in_every_later_stage() {
    for stage in [Stage::Mask, Stage::Confirm, Stage::Reveal] {
        let mut run = summing(5, |_| ());
        let address = run.address();
        up_to(&mut run, 0..5, stage);
        answer(&mut run, 2, 0..1, stage);
        assert_eq!(run.handle_expelled(3, device(0), true), Expelled::Abandoned, "{stage:?}");
        assert!(actions(&mut run).contains(&Action::Abandon { address }));
    }
}

#[test]
fn a_device_that_is_back_is_told_again_what_is_asked() {
    let mut run = summing(4, |_| ());
    let address = run.address();
    up_to(&mut run, 0..4, Stage::Confirm);
    run.handle_gone(5, device(2));
    run.handle_available(6, device(2));
    let said = actions(&mut run);
    assert_eq!(started(&said), BTreeSet::from([device(2)]));
    assert!(said.contains(&Action::Remind { device: device(2), address }), "{said:?}");
}

#[test]
fn inv2_a_second_message_and_one_out_of_turn_are_not_taken() {
    let mut run = summing(4, |_| ());
    let address = run.address();
    answer(&mut run, 1, 0..1, Stage::Advertise);
    assert_eq!(run.admit_mail(device(0), &address, Stage::Advertise), Err(Refusal::Duplicate));
    assert_eq!(run.admit_mail(device(1), &address, Stage::Mask), Err(Refusal::SecureOutOfTurn));
    assert_eq!(run.admit_mail(device(9), &address, Stage::Advertise), Err(Refusal::NotInCohort));
    assert_eq!(run.admit_update(device(1), &address), Err(Refusal::RoundClosed), "nothing in the clear is taken");
}
