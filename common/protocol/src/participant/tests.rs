//! The participant without sockets: a plan, rounds, and everything that goes wrong between them.

mod secure;

use starling_spec::TaskFile;
use starling_update::seal;
use starling_wire::{CodecId, PolicyRule, UpdateReport};

use super::*;

const DEADLINE_MS: u64 = 10_000;

struct AllowAll;

impl Consent for AllowAll {
    fn consent(&self, _: &TaskPlan, _: &RoundStart) -> Result<(), Decline> {
        Ok(())
    }
}

struct Forbid;

impl Consent for Forbid {
    fn consent(&self, _: &TaskPlan, _: &RoundStart) -> Result<(), Decline> {
        Err(Decline::Policy(PolicyRule::Task))
    }
}

fn run_plan(run: u32) -> RunPlan {
    run_plan_with(run, "")
}

fn run_plan_with(run: u32, more: &str) -> RunPlan {
    let text = r#"
        name = "digits"
        kind = "classification"
        [data]
        format = "csv"
        train = "embedded:optdigits"
        shape = [4]
        [model]
        layers = [{ linear = { out = 2 } }]
    "#;
    let task = TaskFile::parse(&format!("{text}{more}"), &[]).expect("a task");
    let plan = TaskPlan::new(&task, 1).expect("a plan");
    RunPlan {
        run: RunId(run),
        owner_epoch: 1,
        task: TaskId(plan.id()),
        name: plan.name.clone(),
        plan: plan.to_json(),
        bundle: Vec::new(),
    }
}

fn model(version: u64) -> ModelRef {
    let digest = Digest::of(&version.to_le_bytes());
    ModelRef { version, digest, length: 40, codec: CodecId { family: 1, parameter: 0 } }
}

fn start(round: u32, attempt: u16, version: u64) -> RoundStart {
    start_of(RoundKind::Train, round, attempt, version)
}

fn start_of(kind: RoundKind, round: u32, attempt: u16, version: u64) -> RoundStart {
    let address = Address { task: run_plan(1).task, run: RunId(1), round, attempt };
    RoundStart { address, kind, base: model(version), deadline_ms: DEADLINE_MS, weight_max: 100, clip: None }
}

fn update() -> Arc<Sealed> {
    let report = UpdateReport { weight: 3, train_loss: 0.5, steps: 1, within_clip: false };
    Arc::new(seal(&report, &[0.5; 10], starling_spec::CodecSpec::F32, 1).expect("it is sealed"))
}

/// The actions, shortened to what the tests are about.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Did {
    Accept(u32, u16),
    Decline(u32, Decline),
    Fetch(u64, bool),
    Train(JobId),
    Answer(JobId, RoundKind),
    Evaluation(u32),
    Statistics(u32),
    Stop(JobId),
    Upload(u32, u16),
    Enter(u16),
    Pass(usize),
    Burn(u16),
    Leave(u16),
    Mail(u16, usize),
    Forget,
}

fn drain(participant: &mut Participant) -> Vec<Did> {
    std::iter::from_fn(|| participant.poll_action())
        .map(|action| match action {
            Action::Send(ToAggregator::Accept(address)) => Did::Accept(address.round, address.attempt),
            Action::Send(ToAggregator::Decline(address, reason)) => Did::Decline(address.round, reason),
            Action::Send(ToAggregator::Evaluation(evaluation)) => Did::Evaluation(evaluation.address.round),
            Action::Send(ToAggregator::Statistics(statistics)) => Did::Statistics(statistics.address.round),
            Action::Fetch(fetch, base) => Did::Fetch(base.version, fetch.held.is_some()),
            Action::Train(order) => Did::Train(order.job),
            Action::Answer(order) => Did::Answer(order.job, order.start.kind),
            Action::Stop(job) => Did::Stop(job),
            Action::Upload(address, _) => Did::Upload(address.round, address.attempt),
            Action::Secure(SecureOrder::Enter { start, .. }) => Did::Enter(start.address.attempt),
            Action::Secure(SecureOrder::Answer { letter, .. }) => Did::Pass(letter.message.len()),
            Action::Secure(SecureOrder::Burn(address)) => Did::Burn(address.attempt),
            Action::Secure(SecureOrder::Leave(address)) => Did::Leave(address.attempt),
            Action::Send(ToAggregator::Secure(mail)) => Did::Mail(mail.address.attempt, mail.message.len()),
            Action::Forget(_) => Did::Forget,
            Action::Send(other) => panic!("never sent by a participant: {other:?}"),
        })
        .collect()
}

fn connected() -> Participant {
    let mut participant = Participant::new(Box::new(AllowAll));
    participant.handle_connected(1);
    participant.handle_plan(&run_plan(1), None);
    participant
}

/// A participant that trains in round 1 from version 0.
fn training() -> (Participant, JobId) {
    let mut participant = connected();
    participant.handle_round_start(&start(1, 1, 0), 0);
    participant.handle_model_ready(RunId(1), model(0).digest);
    let did = drain(&mut participant);
    let [Did::Accept(1, 1), Did::Fetch(0, false), Did::Train(job)] = did[..] else { panic!("{did:?}") };
    (participant, job)
}

/// A participant that has sent its update of round 1.
fn sent() -> Participant {
    let (mut participant, job) = training();
    participant.handle_trained(job, Ok(update()), 100);
    assert_eq!(drain(&mut participant), [Did::Upload(1, 1)]);
    participant
}

fn reconnect(participant: &mut Participant, epoch: u64) {
    participant.handle_disconnected();
    participant.handle_connected(epoch);
    participant.handle_plan(&run_plan(1), None);
}

fn committed(start: &RoundStart) -> Verdict {
    Verdict::Committed { address: start.address, version: start.base.version + 1 }
}

#[test]
fn a_round_goes_from_selection_to_commit() {
    let mut participant = sent();
    assert!(!participant.is_idle());
    participant.handle_verdict(&committed(&start(1, 1, 0)), 200);
    assert!(participant.is_idle() && participant.poll_timeout().is_none());
    participant.handle_round_start(&start(2, 1, 1), 300);
    assert_eq!(drain(&mut participant), [Did::Accept(2, 1), Did::Fetch(1, true)], "a difference from what is held");
}

#[test]
fn a_model_that_is_held_is_not_fetched() {
    let mut participant = Participant::new(Box::new(AllowAll));
    participant.handle_connected(1);
    participant.handle_plan(&run_plan(1), Some(model(4).digest));
    participant.handle_round_start(&start(5, 1, 4), 0);
    assert_eq!(drain(&mut participant), [Did::Accept(5, 1), Did::Train(JobId(1))]);
}

#[test]
fn inv13_a_forbidden_round_is_declined_before_any_work() {
    let mut participant = Participant::new(Box::new(Forbid));
    participant.handle_connected(1);
    participant.handle_plan(&run_plan(1), None);
    participant.handle_round_start(&start(1, 1, 0), 0);
    assert_eq!(drain(&mut participant), [Did::Decline(1, Decline::Policy(PolicyRule::Task))]);
    assert!(participant.is_idle());
}

#[test]
fn a_plan_under_a_false_id_is_not_understood() {
    let mut plan = run_plan(1);
    plan.name = "another".into();
    let mut participant = Participant::new(Box::new(AllowAll));
    participant.handle_connected(1);
    participant.handle_plan(&plan, None);
    participant.handle_round_start(&start(1, 1, 0), 0);
    participant.handle_round_start(&RoundStart { kind: RoundKind::Statistics, ..start(2, 1, 0) }, 0);
    let unknown = Decline::PlanNotUnderstood;
    assert_eq!(drain(&mut participant), [Did::Decline(1, unknown), Did::Decline(2, unknown)]);
}

#[test]
fn inv5_a_sealed_update_is_sent_again_after_a_reconnection() {
    let mut participant = sent();
    reconnect(&mut participant, 1);
    assert_eq!(drain(&mut participant), [Did::Upload(1, 1)]);
    // The aggregator asks the vanished member again for the same attempt: nothing is sent twice on one connection.
    participant.handle_round_start(&start(1, 1, 0), 300);
    assert_eq!(drain(&mut participant), [Did::Accept(1, 1)]);
    // The first transfer had arrived after all.
    participant.handle_verdict(&Verdict::Refused { address: start(1, 1, 0).address, reason: Refusal::Duplicate }, 400);
    assert!(!participant.is_idle(), "it is kept until the commit");
    participant.handle_verdict(&committed(&start(1, 1, 0)), 500);
    assert!(participant.is_idle());
}

#[test]
fn inv5_a_restarted_aggregator_gets_the_same_update_under_the_new_attempt() {
    let mut participant = sent();
    reconnect(&mut participant, 2);
    assert_eq!(drain(&mut participant), [], "the old address means nothing to a new process");
    participant.handle_round_start(&start(1, 2, 0), 300);
    assert_eq!(drain(&mut participant), [Did::Accept(1, 2), Did::Upload(1, 2)], "sealed once, never trained again");
}

#[test]
fn inv5_a_given_up_attempt_keeps_the_update_for_the_next_one() {
    let mut participant = sent();
    participant.handle_round_end(start(1, 1, 0).address, Refusal::StaleAttempt);
    assert_eq!(drain(&mut participant), []);
    participant.handle_round_start(&start(1, 2, 0), 300);
    assert_eq!(drain(&mut participant), [Did::Accept(1, 2), Did::Upload(1, 2)]);
    // A late verdict on the old attempt changes nothing.
    let address = start(1, 1, 0).address;
    participant.handle_verdict(&Verdict::Refused { address, reason: Refusal::StaleAttempt }, 310);
    assert!(!participant.is_idle());
}

#[test]
fn a_new_attempt_during_training_readdresses_the_result() {
    let (mut participant, job) = training();
    participant.handle_round_end(start(1, 1, 0).address, Refusal::StaleAttempt);
    participant.handle_round_start(&start(1, 2, 0), 300);
    participant.handle_trained(job, Ok(update()), 400);
    assert_eq!(drain(&mut participant), [Did::Accept(1, 2), Did::Upload(1, 2)]);
}

#[test]
fn training_goes_on_without_a_connection() {
    let (mut participant, job) = training();
    participant.handle_disconnected();
    participant.handle_trained(job, Ok(update()), 100);
    assert_eq!(drain(&mut participant), []);
    participant.handle_connected(1);
    participant.handle_plan(&run_plan(1), None);
    assert_eq!(drain(&mut participant), [Did::Upload(1, 1)]);
}

#[test]
fn a_new_base_for_the_same_round_is_trained_anew() {
    let mut participant = sent();
    participant.handle_round_start(&start(1, 2, 7), 300);
    assert_eq!(drain(&mut participant), [Did::Accept(1, 2), Did::Fetch(7, true)]);
}

#[test]
fn inv2_a_committed_round_is_not_entered_again() {
    let mut participant = sent();
    participant.handle_verdict(&committed(&start(1, 1, 0)), 200);
    participant.handle_round_start(&start(1, 2, 0), 300);
    assert_eq!(drain(&mut participant), [Did::Decline(1, Decline::Busy)]);
}

#[test]
fn a_closed_round_stops_the_job_and_its_late_result_is_dropped() {
    let (mut participant, job) = training();
    participant.handle_round_end(start(1, 1, 0).address, Refusal::RoundClosed);
    participant.handle_trained(job, Ok(update()), 400);
    assert_eq!(drain(&mut participant), [Did::Stop(job)]);
    assert!(participant.is_idle());
}

#[test]
fn an_older_round_does_not_displace_a_newer_one() {
    let mut participant = connected();
    participant.handle_round_start(&start(3, 1, 2), 0);
    drain(&mut participant);
    participant.handle_round_start(&start(2, 1, 1), 10);
    assert_eq!(drain(&mut participant), [Did::Decline(2, Decline::Busy)]);
}

#[test]
fn a_difference_that_fails_is_followed_by_the_whole_model_once() {
    let mut participant = Participant::new(Box::new(AllowAll));
    participant.handle_connected(1);
    participant.handle_plan(&run_plan(1), Some(model(0).digest));
    participant.handle_round_start(&start(2, 1, 1), 0);
    assert_eq!(drain(&mut participant), [Did::Accept(2, 1), Did::Fetch(1, true)]);
    participant.handle_model_failed(RunId(1), model(1).digest);
    assert_eq!(drain(&mut participant), [Did::Fetch(1, false)]);
    participant.handle_fetch_refused(model(1).digest);
    assert_eq!(drain(&mut participant), [Did::Decline(2, Decline::ModelUnavailable)]);
    assert!(participant.is_idle());
}

#[test]
fn failed_training_is_told() {
    let (mut participant, job) = training();
    participant.handle_trained(job, Err(Decline::NoData), 10);
    assert_eq!(drain(&mut participant), [Did::Decline(1, Decline::NoData)]);
    assert!(participant.is_idle());
}

#[test]
fn an_evaluation_goes_before_training_and_one_job_runs_at_a_time() {
    let mut participant = Participant::new(Box::new(AllowAll));
    participant.handle_connected(1);
    participant.handle_plan(&run_plan(1), None);
    participant.handle_round_start(&start_of(RoundKind::Evaluate, 1, 1, 1), 0);
    participant.handle_round_start(&start(2, 1, 1), 0);
    assert_eq!(drain(&mut participant), [Did::Accept(1, 1), Did::Fetch(1, false), Did::Accept(2, 1)]);
    participant.handle_model_ready(RunId(1), model(1).digest);
    assert_eq!(drain(&mut participant), [Did::Answer(JobId(1), RoundKind::Evaluate)]);
    let figures = Figures { examples: 9, correct: 4, loss_sum: 2.0 };
    participant.handle_answered(JobId(1), Ok(Answer::Figures(figures)));
    assert_eq!(drain(&mut participant), [Did::Evaluation(1), Did::Train(JobId(2))]);
}

#[test]
fn a_statistics_round_is_answered_with_ranges() {
    let mut participant = connected();
    participant.handle_round_start(&start_of(RoundKind::Statistics, 1, 1, 0), 0);
    participant.handle_model_ready(RunId(1), model(0).digest);
    let job = JobId(1);
    let did = drain(&mut participant);
    assert_eq!(did, [Did::Accept(1, 1), Did::Fetch(0, false), Did::Answer(job, RoundKind::Statistics)]);
    participant.handle_answered(job, Ok(Answer::Ranges(5, vec![None, None])));
    assert_eq!(drain(&mut participant), [Did::Statistics(1)]);
}

#[test]
fn inv6_every_wait_ends() {
    let mut waiting = connected();
    waiting.handle_round_start(&start(1, 1, 0), 0);
    assert_eq!(waiting.poll_timeout(), Some(DEADLINE_MS));
    let (training, _) = training();
    assert_eq!(training.poll_timeout(), Some(2 * DEADLINE_MS));
    let sent = sent();
    assert_eq!(sent.poll_timeout(), Some(100 + SEALED_KEPT_MS_MAX));
    for mut participant in [waiting, training, sent] {
        participant.handle_timeout(participant.poll_timeout().expect("a wait"));
        assert!(participant.poll_timeout().is_none());
    }
    let mut far = connected();
    far.handle_round_start(&RoundStart { deadline_ms: u64::MAX, ..start(1, 1, 0) }, 5);
    assert_eq!(far.poll_timeout(), Some(5 + DEADLINE_MS_MAX));
}

#[test]
fn inv6_runs_are_bounded_and_idle_ones_make_room() {
    let mut participant = Participant::new(Box::new(AllowAll));
    participant.handle_connected(1);
    for run in 0..1000 {
        participant.handle_plan(&run_plan(run), None);
    }
    assert_eq!(participant.runs.len(), RUNS_MAX);
    assert!(drain(&mut participant).iter().all(|did| *did == Did::Forget));
}

#[test]
fn a_full_staging_area_is_tried_again_later() {
    let mut participant = sent();
    let address = start(1, 1, 0).address;
    participant.handle_verdict(&Verdict::Refused { address, reason: Refusal::StagingFull }, 200);
    assert_eq!(drain(&mut participant), []);
    assert_eq!(participant.poll_timeout(), Some(200 + RESEND_MS));
    participant.handle_timeout(200 + RESEND_MS);
    assert_eq!(drain(&mut participant), [Did::Upload(1, 1)]);
}

#[test]
fn the_end_of_a_run_drops_everything_of_it() {
    let (mut participant, job) = training();
    participant.handle_run_end(RunId(1));
    assert_eq!(drain(&mut participant), [Did::Stop(job), Did::Forget]);
    participant.handle_trained(job, Ok(update()), 10);
    participant.handle_round_start(&start(2, 1, 1), 20);
    assert_eq!(drain(&mut participant), [Did::Decline(2, Decline::PlanNotUnderstood)]);
}
