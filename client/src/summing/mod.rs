//! The device's parts in secure sums, on a thread of their own: keys and shares go round while the worker trains, and signatures,
//! agreements and masks are CPU work.
//!
//! What leaves it is durable in the journal first. A process that has started again repeats what it said, byte for byte, or leaves
//! the attempt.

mod journal;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use ring::rand::{SecureRandom, SystemRandom};
use serde_bytes::ByteBuf;
use starling_daemon::entropy;
use starling_net::{Certified, Credentials};
use starling_protocol::participant::JobId;
use starling_secagg::{Entropy, Refused, Restored, Unsent};
use starling_spec::TaskPlan;
use starling_store::Store;
use starling_update::{Local, MaskError, Sealed, SecurePart, SecureSums, seal_masked, seal_restored};
use starling_wire::{Address, Decline, DeviceId, Refusal, RoundStart, RunId, SecureLetter, SecureMail};
use tokio::sync::mpsc;
use zeroize::Zeroizing;

pub(crate) use journal::Journal;
pub(crate) use watch::Watch;

use crate::ending::{Ending, halves};
use crate::learner::with_causes;
use crate::ledger::Ledger;
use crate::owed::{Owed, OwedError};
use crate::worker::{Report, ToMask, parameters};
use watch::Cohort;

/// Orders that may wait: a few for each run that the device takes part in.
const ORDERS_MAX: usize = 4 * starling_protocol::participant::RUNS_MAX;

/// Something to do for a secure sum.
pub(crate) enum Order {
    /// Enter an attempt, by the key of these credentials.
    Enter { plan: Arc<TaskPlan>, start: RoundStart, credentials: Box<Credentials>, terms: Terms },
    /// Answer the aggregator.
    Answer { address: Address, letter: SecureLetter },
    /// Mask an update once the others' shares are there.
    Mask { job: JobId, run: RunId, round: u32, trained: Box<ToMask> },
    /// Burn the keys of an attempt; what was trained stays.
    Burn(Address),
    /// Leave the round.
    Leave(Address),
}

/// What the owner asks of a cohort, beyond what the plan does.
#[derive(Debug, Clone, Default)]
pub(crate) struct Terms {
    /// The smallest one; 0 for any.
    pub(crate) cohort_min: u16,
    /// Who has to know those that count towards it; nothing where certificates are enough.
    pub(crate) watch: Option<Watch>,
}

/// The agent's end of the thread.
pub(crate) struct Summing {
    store: Arc<Store>,
    device: DeviceId,
    ledger: Arc<Ledger>,
    reports: mpsc::Sender<Report>,
    orders: Option<SyncSender<Order>>,
    /// After the orders: without them the thread ends.
    ending: Option<Ending>,
}

impl Summing {
    /// No thread yet.
    pub(crate) fn new(store: Arc<Store>, device: DeviceId, ledger: Arc<Ledger>, reports: mpsc::Sender<Report>) -> Self {
        Self { store, device, ledger, reports, orders: None, ending: None }
    }

    /// Hands an order to the thread, which starts with the first. `false` when it cannot take any more.
    pub(crate) fn submit(&mut self, order: Order) -> bool {
        if self.orders.is_none() {
            let (sender, receiver) = sync_channel(ORDERS_MAX);
            let journal = Journal::new(Arc::clone(&self.store));
            let ledger = Arc::clone(&self.ledger);
            let owed = Owed::new(Arc::clone(&self.store));
            let keeper = Keeper { journal, device: self.device, ledger, owed, rounds: BTreeMap::new() };
            let reports = self.reports.clone();
            let (alive, ending) = halves();
            let spawned = thread::Builder::new().name("starling-summing".into()).spawn(move || {
                serve(&receiver, keeper, &reports);
                drop((receiver, reports));
                drop(alive);
            });
            match spawned {
                Ok(_) => (self.orders, self.ending) = (Some(sender), Some(ending)),
                Err(error) => {
                    tracing::error!(%error, "the thread of secure sums could not be started");
                    return false;
                }
            }
        }
        self.orders.as_ref().is_some_and(|orders| orders.try_send(order).is_ok())
    }
}

fn serve(orders: &Receiver<Order>, mut keeper: Keeper, reports: &mpsc::Sender<Report>) {
    while let Ok(order) = orders.recv() {
        for report in keeper.carry_out(order) {
            // Fails when the agent has gone, and then nobody wants the rest either.
            if reports.blocking_send(report).is_err() {
                return;
            }
        }
    }
}

/// Why the device leaves an attempt.
#[derive(Debug, thiserror::Error)]
enum Left {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    Mask(#[from] MaskError),
    #[error("what is said has to be durable first")]
    Journal(#[from] journal::JournalError),
    #[error("what is owed has to be known, and durable, first")]
    Owed(#[from] OwedError),
    #[error("the system gives no entropy")]
    Entropy,
    #[error("the plan's secure sums cannot be carried out here")]
    Plan,
    #[error("no attempt at this address was entered")]
    Unknown,
}

impl Left {
    fn refusal(&self) -> Refusal {
        match self {
            Self::Refused(refused) | Self::Mask(MaskError::Refused(refused)) => refused.refusal(),
            Self::Mask(MaskError::Ring(_) | MaskError::Owed(_)) | Self::Plan => Refusal::SecureSetup,
            Self::Journal(_) | Self::Owed(_) | Self::Entropy | Self::Unknown => Refusal::SecureBurned,
        }
    }
}

/// The attempts that the device is in, one a run.
struct Keeper {
    journal: Journal,
    device: DeviceId,
    ledger: Arc<Ledger>,
    owed: Owed,
    rounds: BTreeMap<RunId, Round>,
}

struct Round {
    start: RoundStart,
    plan: Arc<TaskPlan>,
    credentials: Box<Credentials>,
    said: Said,
    /// What came with the roster: certificates, and who is enrolled.
    cohort: Cohort,
    watch: Option<Watch>,
    trained: Option<(JobId, Box<ToMask>)>,
    /// The others' shares are there again for a process that is gone.
    delivered: bool,
}

/// Who speaks for the device in an attempt.
enum Said {
    /// The machine that has its keys.
    Here(Box<SecurePart>),
    /// A process that is gone: only what it said.
    Before(Restored),
    /// Nobody any more.
    Burned,
}

impl Keeper {
    fn carry_out(&mut self, order: Order) -> Vec<Report> {
        match order {
            Order::Enter { plan, start, credentials, terms } => {
                let address = start.address;
                let entered = self.enter(plan, start, credentials, terms);
                vec![self.reported(address, entered.map(Some))]
            }
            Order::Answer { address, letter } => {
                let answer = self.answer(&address, &letter);
                let mut reports = vec![self.reported(address, answer)];
                reports.extend(self.mask(address.run));
                reports
            }
            Order::Mask { job, run, round, trained } => {
                match self.rounds.get_mut(&run).filter(|of| of.start.address.round == round) {
                    Some(of) => of.trained = Some((job, trained)),
                    None => return vec![Report::Trained { job, result: Err(Decline::TrainingFailed) }],
                }
                self.mask(run).into_iter().collect()
            }
            Order::Burn(address) => {
                if let Some(round) = self.rounds.get_mut(&address.run).filter(|round| round.start.address == address) {
                    round.said = Said::Burned;
                }
                Vec::new()
            }
            Order::Leave(address) => {
                if self.rounds.get(&address.run).is_some_and(|round| round.start.address == address) {
                    self.rounds.remove(&address.run);
                    if let Err(error) = self.journal.end(address.run) {
                        tracing::warn!(%address, error = with_causes(&error), "the journal of a secure sum stays as it was");
                    }
                }
                Vec::new()
            }
        }
    }

    fn reported(&mut self, address: Address, answer: Result<Option<SecureMail>, Left>) -> Report {
        let result = answer.map_err(|left| {
            tracing::warn!(%address, error = with_causes(&left), "the device leaves a secure sum");
            // Its keys go now; whatever else comes is refused.
            if let Some(round) = self.rounds.get_mut(&address.run).filter(|round| round.start.address == address) {
                round.said = Said::Burned;
            }
            left.refusal()
        });
        Report::Secure { address, result }
    }

    fn enter(
        &mut self,
        plan: Arc<TaskPlan>,
        start: RoundStart,
        credentials: Box<Credentials>,
        terms: Terms,
    ) -> Result<SecureMail, Left> {
        let address = start.address;
        let (got, wanted) = (start.weight_max, plan.update.weight_max);
        if got != wanted {
            // With caps of its own for each device the aggregator would choose whose update the mean is.
            return Err(Refused::InflatedWeight { got, wanted }.into());
        }
        let count = parameters(&plan).ok_or(Left::Plan)?;
        let sums = SecureSums::of(&plan, count).ok().flatten().ok_or(Left::Plan)?;
        let setup = sums.setup(address, start.base.digest);
        let chain = || credentials.chain().into_iter().map(ByteBuf::from).collect();
        let mut guard = self.journal.guard(address.run)?;
        let key = &*credentials;
        let entropy = fresh()?;
        let entered = SecurePart::enter(
            &sums,
            (&setup, &sums.policy(terms.cohort_min), plan.seed),
            self.device,
            &mut guard,
            &entropy,
            key,
        );
        let (said, message) = match entered {
            Ok((part, unsent)) => {
                self.journal.begin(address.run, &guard, &unsent)?;
                (Said::Here(Box::new(part)), unsent.persisted())
            }
            // Begun before: by this process, asked again after a mere reconnection, or by one that is gone.
            Err(replayed @ Refused::ReplayedRound { .. }) => {
                let before = self.journal.restored(&setup)?;
                let message = before.advertisement().ok_or(replayed)?.to_vec();
                let mail = SecureMail { address, message: message.clone(), chain: chain() };
                match self.rounds.get_mut(&address.run) {
                    Some(round) if round.start.address == address => return Ok(mail),
                    _ => (Said::Before(before), message),
                }
            }
            Err(refused) => return Err(refused.into()),
        };
        let mail = SecureMail { address, message, chain: chain() };
        let same = |round: &Round| {
            let before = round.start;
            before.address.round == address.round && before.base.digest == start.base.digest
        };
        let trained = self.rounds.remove(&address.run).filter(same).and_then(|round| round.trained);
        // Until a roster comes nobody is known to a witness.
        let cohort = Cohort { witnessed: terms.watch.is_some().then(Default::default), ..Cohort::default() };
        let round = Round { start, plan, credentials, said, cohort, watch: terms.watch, trained, delivered: false };
        self.rounds.insert(address.run, round);
        Ok(mail)
    }

    fn answer(&mut self, address: &Address, letter: &SecureLetter) -> Result<Option<SecureMail>, Left> {
        let round = self.rounds.get_mut(&address.run).filter(|round| round.start.address == *address);
        let round = round.ok_or(Left::Unknown)?;
        let mail = |message: Vec<u8>| SecureMail { address: *address, message, chain: Vec::new() };
        match &mut round.said {
            Said::Burned => Err(Refused::Burned.into()),
            Said::Before(before) => {
                let again = before.handle(&letter.message)?;
                if before.masked() == Some(again) {
                    // It goes as the update that it is, once the agent has done with the training.
                    round.delivered = true;
                    return Ok(None);
                }
                Ok(Some(mail(again.to_vec())))
            }
            Said::Here(part) => {
                let shown = letter.certificates.iter().map(Vec::as_slice);
                if !letter.certificates.is_empty() {
                    let certified = Certified::check(&round.credentials, shown);
                    let now_unix_s = round.credentials.clock().now_unix_s();
                    let known = |watch: &Watch| watch.known(&letter.rolls, &certified, now_unix_s);
                    let witnessed = round.watch.as_ref().map(known);
                    round.cohort = Cohort { certified, witnessed };
                }
                let said: Option<Unsent> = part.answer(&letter.message, &round.cohort, &*round.credentials)?;
                let Some(said) = said else { return Ok(None) };
                self.journal.note(address.run, &said)?;
                Ok(Some(mail(said.persisted())))
            }
        }
    }

    /// The masked update, once the training and the others' shares are there.
    fn mask(&mut self, run: RunId) -> Option<Report> {
        let round = self.rounds.get_mut(&run)?;
        let part = match &mut round.said {
            Said::Here(part) => part,
            Said::Before(before) if round.delivered => {
                let sealed = seal_restored(before, round.plan.update.codec)?;
                let (job, _) = round.trained.take()?;
                return Some(Report::Trained { job, result: Ok(Arc::new(sealed)) });
            }
            Said::Before(_) | Said::Burned => return None,
        };
        if !part.is_ready() {
            return None;
        }
        let (job, trained) = round.trained.as_ref()?;
        let job = *job;
        let RoundStart { address, base, .. } = round.start;
        // Durable before the masked update exists: whoever else helps to unmask it, this device cannot take it back.
        let spent = self.ledger.spend(&round.plan, &address, base.digest).map_err(Decline::Policy);
        let result: Result<Arc<Sealed>, Decline> = spent.and_then(|()| {
            let ToMask { trained, figures } = &**trained;
            let local = Local { delta: &trained.delta, report: &trained.report, figures: figures.as_ref() };
            let sealed = (|| {
                let count = local.delta.len();
                let before =
                    part.keeps_residual().then(|| self.owed.before(address.task, &address, count)).transpose()?;
                let (masked, then) = part.mask(local, before, &mut entropy::words())?;
                if let Some(then) = then {
                    // Durable before a byte leaves: what is sent must not be owed again after a crash.
                    self.owed.pend(address.task, &address, &then)?;
                }
                self.journal.note(run, &masked)?;
                Ok(seal_masked(masked, round.plan.update.codec))
            })();
            sealed.map(Arc::new).map_err(|left: Left| {
                tracing::warn!(%address, error = with_causes(&left), "the update is not masked");
                Decline::Secure(left.refusal())
            })
        });
        if result.is_err() {
            round.said = Said::Burned;
        }
        round.trained = None;
        Some(Report::Trained { job, result })
    }
}

fn fresh() -> Result<Entropy, Left> {
    let mut bytes = Zeroizing::new([0; 32]);
    SystemRandom::new().fill(&mut bytes[..]).map_err(|_| Left::Entropy)?;
    Ok(Entropy::new(bytes))
}
