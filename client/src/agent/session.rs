//! One connection, from the dial to its end.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use starling_net::{
    BlobError, ControlSender, Endpoint, IncomingBlob, Link, ReceiveError, TransferError, greet_aggregator,
};
use starling_protocol::participant::{Action, SecureOrder};
use starling_update::Sealed;
use starling_wire::{
    Address, Available, BlobHeader, BlobKind, Decline, DeviceId, Digest, Receipt, Refusal, ReleaseOffer, RoundStart,
    ToAggregator, ToClient, Verdict,
};
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

use super::{Agent, CLOSE_WAIT, Ended, dial_failure};
use crate::learner::with_causes;
use crate::owed::Owed;
use crate::receipts::Arrived;
use crate::status::{Connection, RunStatus};
use crate::summing;
use crate::transfer::{Arrival, receive};
use crate::worker::Order;

/// Name and version, for the operator's eyes.
const SOFTWARE: &str = concat!("starling-client/", env!("CARGO_PKG_VERSION"));

/// A blob's journey that has ended.
enum Transfer {
    In(BlobHeader, Result<(Bytes, Digest), ReceiveError>),
    Out(Address, Result<(), TransferError>),
}

/// What belongs to the connection alone.
struct Wires {
    link: Link,
    sender: ControlSender<ToAggregator>,
    transfers: JoinSet<Transfer>,
}

impl Agent {
    pub(super) async fn session(
        &mut self,
        endpoint: &Endpoint,
        mut shutdown: Pin<&mut impl Future<Output = ()>>,
    ) -> Ended {
        let aggregator = self.config.aggregator;
        let tasks = self.tasks.clone();
        let connect = async {
            let link = endpoint.dial(aggregator).await.map_err(|error| dial_failure(&error))?;
            let greeted = greet_aggregator(&link, SOFTWARE).await;
            let (mut control, welcome) = greeted.map_err(|error| Ended::Lost {
                refusal: error.refusal(),
                text: error.reason.to_string(),
                welcomed: false,
            })?;
            let available = control.send(&ToAggregator::Available(Available { tasks })).await;
            available.map_err(|error| lost(error.refusal(), error.to_string()))?;
            Ok((link, control, welcome))
        };
        let connected = {
            let mut connect = std::pin::pin!(connect);
            loop {
                // Jobs end while the handshake runs.
                tokio::select! {
                    connected = connect.as_mut() => break connected,
                    () = shutdown.as_mut() => return Ended::Shutdown,
                    Some(report) = self.reports.recv() => self.handle_report(report),
                }
                self.act_offline();
            }
        };
        let (link, control, welcome) = match connected {
            Ok(connected) => connected,
            Err(ended) => return ended,
        };
        tracing::info!(aggregator = link.peer().name, remote = %link.remote_addr(), epoch = welcome.epoch, "connected");
        self.aggregator = link.peer().id;
        self.participant.handle_connected(welcome.epoch);
        self.set_connection(Connection::Connected, None);
        self.wants.connected();
        let (sender, mut receiver) = control.split();
        let mut wires = Wires { link, sender, transfers: JoinSet::new() };
        let ended = loop {
            if let Err(ended) = self.act(&mut wires).await {
                break ended;
            }
            let timer = self.timer();
            let renew_at = self.renewal.due;
            tokio::select! {
                message = receiver.recv() => match message {
                    Ok(Some(ToClient::Renewed(credential))) => self.handle_renewed(endpoint, &credential),
                    Ok(Some(ToClient::RenewRefused(refusal))) => self.handle_not_renewed(endpoint, refusal),
                    Ok(Some(message)) => {
                        if let Err(ended) = self.handle_message(message, wires.link.peer().id) {
                            break ended;
                        }
                    }
                    Ok(None) => break lost(None, "the aggregator has closed the control stream".to_owned()),
                    Err(error) => break lost(error.refusal(), error.to_string()),
                },
                blob = wires.link.accept_blob() => match blob {
                    Ok(blob) => self.handle_blob(blob, &mut wires.transfers),
                    Err(BlobError::Closed(reason)) => break lost(reason.refusal, reason.to_string()),
                    Err(error) => tracing::warn!(%error, "a blob from the aggregator"),
                },
                Some(transfer) = wires.transfers.join_next() => {
                    if let Ok(transfer) = transfer {
                        self.handle_transfer(transfer);
                    }
                }
                Some(report) = self.reports.recv() => self.handle_report(report),
                () = sleep_until(timer) => self.handle_timer(),
                () = sleep_until(renew_at) => {
                    if let Err(ended) = self.ask_renewal(&mut wires).await {
                        break ended;
                    }
                }
                () = shutdown.as_mut() => break Ended::Shutdown,
            }
        };
        self.leave(wires, matches!(ended, Ended::Shutdown)).await;
        ended
    }

    /// Asks for the next certificate over the open connection.
    async fn ask_renewal(&mut self, wires: &mut Wires) -> Result<(), Ended> {
        let Some(request) = self.new_request(&wires.link.channel()) else { return Ok(()) };
        let sent = wires.sender.send(&ToAggregator::Renew(request)).await;
        sent.map_err(|error| lost(error.refusal(), error.to_string()))
    }

    /// Ends what is left of a connection, and keeps what had arrived of a model.
    async fn leave(&mut self, mut wires: Wires, on_purpose: bool) {
        if on_purpose {
            // The aggregator closes when the control stream has ended; when it is gone, it is gone.
            if wires.sender.send(&ToAggregator::Bye).await.is_ok() {
                wires.sender.finish();
                let _ = timeout(CLOSE_WAIT, wires.link.closed()).await;
            }
        }
        wires.link.finish();
        // A closed connection ends every transfer at its next step.
        while let Ok(Some(transfer)) = timeout(CLOSE_WAIT, wires.transfers.join_next()).await {
            if let Ok(transfer) = transfer {
                self.handle_transfer(transfer);
            }
        }
        self.participant.handle_disconnected();
        self.intake.handle_disconnected();
        self.act_offline();
    }

    /// Does what the participant asks for.
    async fn act(&mut self, wires: &mut Wires) -> Result<(), Ended> {
        while let Some(action) = self.participant.poll_action() {
            let message = match action {
                Action::Send(message) => Some(message),
                Action::Fetch(fetch, base) => {
                    let plan = self.participant.plan(fetch.run).map(Arc::clone);
                    let task = self.participant.task(fetch.run);
                    let begun = plan.zip(task).and_then(|(plan, task)| self.downloads.begin(task, fetch, base, &plan));
                    if begun.is_none() {
                        self.participant.handle_model_failed(fetch.run, base.digest);
                    }
                    begun.map(ToAggregator::Fetch)
                }
                Action::Train(order) | Action::Answer(order) => {
                    let (job, start) = (order.job, order.start);
                    self.note_round(&start, &order.plan.name);
                    let source = self.shelf.source(start.address.run);
                    if !source.is_some_and(|source| self.worker.work(order, self.device, source, self.owed())) {
                        let now_ms = self.now_ms();
                        self.participant.handle_trained(job, Err(Decline::ModelUnavailable), now_ms);
                        self.participant.handle_answered(job, Err(Decline::ModelUnavailable));
                    }
                    None
                }
                Action::Stop(job) => {
                    self.worker.stop(job);
                    None
                }
                Action::Upload(address, sealed) => {
                    self.wants.sent(&address, sealed.header(&address).digest);
                    self.owner.move_bytes(sealed.bytes().len() as u64);
                    let link = wires.link.clone();
                    wires.transfers.spawn(upload(link, address, sealed));
                    None
                }
                Action::Forget(run) => {
                    self.forget(run);
                    None
                }
                Action::Secure(order) => {
                    self.sum(order);
                    None
                }
            };
            if let Some(message) = message {
                let sent = wires.sender.send(&message).await;
                sent.map_err(|error| lost(error.refusal(), error.to_string()))?;
            }
        }
        while let Some(message) = self.intake.poll() {
            let sent = wires.sender.send(&message).await;
            sent.map_err(|error| lost(error.refusal(), error.to_string()))?;
        }
        if let Some(want) = self.wants.poll() {
            let sent = wires.sender.send(&ToAggregator::WantReceipt(want)).await;
            sent.map_err(|error| lost(error.refusal(), error.to_string()))?;
        }
        Ok(())
    }

    /// Hands an order on to the thread of secure sums.
    pub(super) fn sum(&mut self, order: SecureOrder) {
        let order = match order {
            SecureOrder::Enter { plan, start } => {
                let credentials = Box::new(self.credentials.clone());
                summing::Order::Enter { plan, start, credentials, terms: self.terms() }
            }
            SecureOrder::Answer { address, letter } => summing::Order::Answer { address, letter },
            SecureOrder::Burn(address) => summing::Order::Burn(address),
            SecureOrder::Leave(address) => summing::Order::Leave(address),
        };
        let address = match &order {
            summing::Order::Enter { start, .. } => Some(start.address),
            summing::Order::Answer { address, .. } => Some(*address),
            _ => None,
        };
        if let (false, Some(address)) = (self.summing.submit(order), address) {
            self.participant.handle_secure(&address, Err(Refusal::SecureBurned));
        }
    }

    /// What the owner asks of a cohort.
    fn terms(&self) -> summing::Terms {
        let witnesses = self.owner.witnesses();
        let (aggregator, pinned) = (self.aggregator, self.config.audit.key.clone());
        let state_dir = self.config.state_dir.clone();
        let watch = (!witnesses.is_empty()).then_some(summing::Watch { witnesses, aggregator, pinned, state_dir });
        summing::Terms { cohort_min: self.config.policy.cohort_min.unwrap_or(0), watch }
    }

    fn note_round(&mut self, start: &RoundStart, task: &str) {
        let address = start.address;
        tracing::info!(%address, kind = ?start.kind, version = start.base.version, "working");
        let status = RunStatus { task: task.to_owned(), round: address.round };
        self.status.runs.insert(address.run.0, status);
    }

    fn handle_message(&mut self, message: ToClient, aggregator: DeviceId) -> Result<(), Ended> {
        let now_ms = self.now_ms();
        match message {
            ToClient::Plan(plan) => {
                tracing::info!(run = %plan.run, task = plan.name, "a run is offered");
                self.judge_plan(&plan);
                let held = self.shelf.digest(plan.run, plan.task);
                self.participant.handle_plan(&plan, held);
            }
            ToClient::RoundStart(start) => self.participant.handle_round_start(&start, now_ms),
            ToClient::RoundEnd(address, reason) => {
                tracing::info!(%address, reason = reason.name(), "the round goes on without this device");
                self.settle(&address, false);
                self.participant.handle_round_end(address, reason);
            }
            ToClient::Secure(part) => self.participant.handle_secure_part(part),
            ToClient::Verdict(verdict) => {
                self.note_verdict(&verdict);
                self.participant.handle_verdict(&verdict, now_ms);
            }
            ToClient::RunEnd(run) => {
                tracing::info!(%run, "the run is over");
                self.participant.handle_run_end(run);
            }
            ToClient::FetchRefused(digest, reason) => {
                tracing::warn!(%digest, %reason, "a fetch was refused");
                if self.intake.handle_fetch_refused(digest) {
                    self.write_status();
                } else {
                    self.participant.handle_fetch_refused(digest);
                }
            }
            ToClient::Release(offered) => {
                let ReleaseOffer { task, version, length, .. } = &offered.offer;
                tracing::info!(task, version, bytes = length, "a release is offered");
                self.intake.handle_offer(offered);
                self.note_expiry();
                self.install_releases();
                self.write_status();
            }
            ToClient::Receipt(receipt) => self.handle_receipt(receipt, aggregator),
            ToClient::ReceiptRefused(run, round, reason) => {
                if self.wants.answered(self.device, run, round).is_some() {
                    tracing::warn!(%run, round, %reason, "the audit log gives no receipt");
                    self.wants.done(None);
                }
            }
            ToClient::Refused(refusal) => return Err(lost(Some(refusal), refusal.to_string())),
            // A second welcome, or a message of a later protocol: neither changes anything.
            _ => tracing::debug!("a message that is not expected here was passed over"),
        }
        Ok(())
    }

    /// A receipt that was asked for goes to the worker, which checks it.
    fn handle_receipt(&mut self, receipt: Receipt, aggregator: DeviceId) {
        let Some(wanted) = self.wants.answered(self.device, receipt.run, receipt.round) else { return };
        let (pinned, state_dir) = (self.config.audit.key.clone(), self.config.state_dir.clone());
        let arrived = Arrived { receipt, wanted, pinned, aggregator, state_dir };
        if !self.worker.submit(Order::Keep(Box::new(arrived))) {
            self.wants.done(None);
        }
    }

    /// What this device owes, for rounds whose codec keeps a residual.
    fn owed(&self) -> Owed {
        Owed::new(Arc::clone(self.shelf.store()))
    }

    /// Settles what is owed after a round; without a residual there is nothing to settle.
    fn settle(&self, address: &Address, committed: bool) {
        if let Err(error) = self.owed().settle(address.task, address, committed) {
            tracing::error!(%address, error = with_causes(&error), "what the device owes could not be written down");
        }
    }

    fn note_verdict(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Committed { address, version } => {
                self.settle(address, true);
                tracing::info!(%address, version, "committed");
                if self.config.audit.receipts {
                    self.wants.committed(address);
                }
                self.status.updates_committed += 1;
            }
            Verdict::Refused { address, reason } => {
                self.settle(address, false);
                tracing::warn!(%address, %reason, "the update was refused");
                self.status.updates_refused += 1;
            }
        }
        self.write_status();
    }

    fn handle_blob(&mut self, blob: IncomingBlob, transfers: &mut JoinSet<Transfer>) {
        let admitted = match blob.header().kind {
            BlobKind::Release => self.intake.admit(blob.header()),
            _ => self.downloads.admit(blob.header()),
        };
        match admitted {
            Ok((kept, length_max)) => {
                self.owner.move_bytes(blob.header().length.saturating_sub(blob.header().offset));
                transfers.spawn(async move {
                    let (header, result) = receive(blob, kept, length_max).await;
                    Transfer::In(header, result)
                });
            }
            Err(refusal) => {
                tracing::warn!(run = %blob.header().run, %refusal, "a blob from the aggregator was refused");
                blob.refuse(refusal);
                self.write_status();
            }
        }
    }

    fn handle_transfer(&mut self, transfer: Transfer) {
        match transfer {
            Transfer::In(header, result) => self.handle_arrival(&header, result),
            Transfer::Out(address, Ok(())) => tracing::debug!(%address, "the update has been sent"),
            // The connection's end is told elsewhere, and the update is kept.
            Transfer::Out(_, Err(TransferError::Closed(_))) => {}
            Transfer::Out(address, Err(TransferError::Refused(reason))) => {
                tracing::warn!(%address, %reason, "the update was refused before it was read");
                self.settle(&address, false);
                let verdict = Verdict::Refused { address, reason };
                self.participant.handle_verdict(&verdict, self.now_ms());
            }
            Transfer::Out(address, Err(error)) => {
                tracing::warn!(%address, %error, "the update could not be sent; trying again");
                self.participant.handle_upload_failed(address, self.now_ms());
            }
        }
    }

    fn handle_arrival(&mut self, header: &BlobHeader, result: Result<(Bytes, Digest), ReceiveError>) {
        if header.kind == BlobKind::Release {
            self.intake.handle_arrival(result);
            self.install_releases();
            return self.write_status();
        }
        let run = header.run;
        match self.downloads.complete(header, result) {
            Some(Arrival::Model { task, base, bytes }) => {
                self.shelf.put(run, task, base, bytes);
                self.participant.handle_model_ready(run, base.digest);
            }
            Some(Arrival::Difference { base, bytes }) => {
                let rebuilding = self
                    .shelf
                    .source(run)
                    .is_some_and(|held| self.worker.submit(Order::Rebuild { run, base, held, difference: bytes }));
                if !rebuilding {
                    self.participant.handle_model_failed(run, base.digest);
                }
            }
            Some(Arrival::Failed { base }) => self.participant.handle_model_failed(run, base.digest),
            Some(Arrival::Interrupted) | None => {}
        }
    }
}

async fn upload(link: Link, address: Address, sealed: Arc<Sealed>) -> Transfer {
    let result = link.send_blob(&sealed.header(&address), sealed.bytes().clone()).await;
    Transfer::Out(address, result)
}

fn lost(refusal: Option<Refusal>, text: String) -> Ended {
    Ended::Lost { refusal, text, welcomed: true }
}
