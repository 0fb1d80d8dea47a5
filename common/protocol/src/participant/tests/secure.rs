//! The participant's part in a round whose updates are summed under masks.

use starling_wire::secure::letter_bytes_max;
use starling_wire::{SecureLetter, SecureMail, SecurePart};

use super::*;

const SECURE: &str = r#"
        [federation]
        devices = 4
        [update]
        codec = "q8"
        weight_max = 100
        [privacy]
        secure_aggregation = true
        clip = 1.0
    "#;

fn secure_start(round: u32, attempt: u16) -> RoundStart {
    let address = Address { task: run_plan_with(1, SECURE).task, run: RunId(1), round, attempt };
    RoundStart { address, ..start(round, attempt, 0) }
}

fn mail(start: &RoundStart, bytes: usize) -> SecureMail {
    SecureMail { address: start.address, message: vec![0; bytes], chain: Vec::new() }
}

fn part(start: &RoundStart, bytes: usize) -> SecurePart {
    let letter = SecureLetter { message: vec![7; bytes], ..SecureLetter::default() };
    letter.parts(start.address).next().expect("a part")
}

/// A participant that trains in round 1 and has entered its sum.
fn summing() -> (Participant, JobId) {
    let mut participant = Participant::new(Box::new(AllowAll));
    participant.handle_connected(1);
    participant.handle_plan(&run_plan_with(1, SECURE), Some(model(0).digest));
    participant.handle_round_start(&secure_start(1, 1), 0);
    let did = drain(&mut participant);
    let [Did::Accept(1, 1), Did::Enter(1), Did::Train(job)] = did[..] else { panic!("{did:?}") };
    (participant, job)
}

#[test]
fn keys_go_round_while_the_device_trains() {
    let (mut participant, job) = summing();
    let start = secure_start(1, 1);
    participant.handle_secure(&start.address, Ok(Some(mail(&start, 3))));
    assert_eq!(drain(&mut participant), [Did::Mail(1, 3)]);
    participant.handle_secure_part(part(&start, 5));
    assert_eq!(drain(&mut participant), [Did::Pass(5)]);
    participant.handle_secure(&start.address, Ok(None));
    participant.handle_trained(job, Ok(update()), 10);
    assert_eq!(drain(&mut participant), [Did::Upload(1, 1)]);
    participant.handle_verdict(&committed(&start), 20);
    assert_eq!(drain(&mut participant), [Did::Leave(1)]);
    assert!(participant.is_idle());
}

#[test]
fn a_device_that_leaves_the_sum_says_why_and_stops_its_work() {
    let (mut participant, job) = summing();
    let address = secure_start(1, 1).address;
    participant.handle_secure(&address, Err(Refusal::SecureTinyCohort));
    let declined = Did::Decline(1, Decline::Secure(Refusal::SecureTinyCohort));
    assert_eq!(drain(&mut participant), [declined, Did::Stop(job), Did::Leave(1)]);
    assert!(participant.is_idle());
}

#[test]
fn what_was_masked_for_one_attempt_is_never_sent_for_another() {
    let (mut participant, job) = summing();
    participant.handle_trained(job, Ok(update()), 10);
    assert_eq!(drain(&mut participant), [Did::Upload(1, 1)]);
    participant.handle_round_end(secure_start(1, 1).address, Refusal::StaleAttempt);
    assert_eq!(drain(&mut participant), [Did::Burn(1)]);
    participant.handle_round_start(&secure_start(1, 2), 20);
    assert_eq!(drain(&mut participant), [Did::Accept(1, 2), Did::Enter(2), Did::Train(JobId(2))]);
}

#[test]
fn training_that_is_under_way_serves_the_next_attempt() {
    let (mut participant, job) = summing();
    participant.handle_round_end(secure_start(1, 1).address, Refusal::StaleAttempt);
    participant.handle_round_start(&secure_start(1, 2), 20);
    assert_eq!(drain(&mut participant), [Did::Burn(1), Did::Accept(1, 2), Did::Enter(2)]);
    participant.handle_trained(job, Ok(update()), 30);
    assert_eq!(drain(&mut participant), [Did::Upload(1, 2)]);
}

#[test]
fn letters_of_another_attempt_are_passed_over() {
    let (mut participant, _) = summing();
    participant.handle_secure_part(part(&secure_start(1, 9), 5));
    participant.handle_secure(&secure_start(1, 9).address, Err(Refusal::SecureBurned));
    assert_eq!(drain(&mut participant), []);
}

#[test]
fn inv8_a_letter_longer_than_the_cohort_allows_ends_the_part_in_the_sum() {
    let (mut participant, job) = summing();
    let total = u32::try_from(letter_bytes_max(4)).expect("small") + 1;
    participant.handle_secure_part(SecurePart { total, ..part(&secure_start(1, 1), 5) });
    let declined = Did::Decline(1, Decline::Secure(Refusal::SecureMalformed));
    assert_eq!(drain(&mut participant), [declined, Did::Stop(job), Did::Leave(1)]);
}

#[test]
fn a_device_that_is_back_says_again_what_it_said() {
    let (mut participant, _) = summing();
    participant.handle_disconnected();
    participant.handle_connected(1);
    participant.handle_plan(&run_plan_with(1, SECURE), Some(model(0).digest));
    participant.handle_round_start(&secure_start(1, 1), 50);
    assert_eq!(drain(&mut participant), [Did::Accept(1, 1), Did::Enter(1)]);
}

#[test]
fn a_round_has_the_clipping_norm_that_its_plan_allows_or_is_declined() {
    let adaptive = format!("{SECURE}        adaptive_clip = {{ clip_max = 2.0 }}\n");
    let plan = run_plan_with(1, &adaptive);
    let asked =
        |clip| RoundStart { address: Address { task: plan.task, ..start(1, 1, 0).address }, clip, ..start(1, 1, 0) };
    let mut participant = Participant::new(Box::new(AllowAll));
    participant.handle_connected(1);
    participant.handle_plan(&plan, Some(model(0).digest));
    for wrong in [None, Some(2.1), Some(0.0), Some(f64::INFINITY)] {
        participant.handle_round_start(&asked(wrong), 0);
        assert_eq!(drain(&mut participant), [Did::Decline(1, Decline::PlanNotUnderstood)], "{wrong:?}");
    }
    participant.handle_round_start(&asked(Some(1.5)), 0);
    let clips: Vec<Option<f64>> = std::iter::from_fn(|| participant.poll_action())
        .filter_map(|action| match action {
            Action::Secure(SecureOrder::Enter { plan, .. }) => Some(plan.adaptive_clip()),
            Action::Train(order) => Some(order.plan.adaptive_clip()),
            _ => None,
        })
        .collect();
    assert_eq!(clips, [Some(1.5); 2], "the sum and the training are under the round's norm");

    let mut fixed = connected();
    fixed.handle_round_start(&RoundStart { clip: Some(1.0), ..start(1, 1, 0) }, 0);
    assert_eq!(drain(&mut fixed), [Did::Decline(1, Decline::PlanNotUnderstood)], "this plan's norm does not adapt");
}
