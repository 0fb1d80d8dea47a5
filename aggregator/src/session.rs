//! One connection of one device: its control frames go to the hub, its blobs to staging, and models go out to it.
//!
//! A mistake of the device ends its stream or its connection, and nothing else (invariant 12).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use starling_net::{BlobError, ControlReceiver, ControlSender, IncomingBlob, Link};
use starling_wire::limits::TASKS_PER_DEVICE_MAX;
use starling_wire::{
    Address, BLOB_HEADER_BYTES, BlobHeader, DeviceId, Fetch, Refusal, RenewRequest, RunId, ToAggregator, ToClient,
};
use tokio::sync::{mpsc, oneshot};

use crate::access::{self, Caller, Denied, Verb};
use crate::enrolment::Registrar;
use crate::event::{Event, SessionId};
use crate::shelf::{Offer, Shelf};
use crate::staging::Staging;
use crate::worker::{Job, Worker};

/// How long a blob may stand still before it is refused.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(30);

/// What every session shares.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) staging: Staging,
    pub(crate) worker: Worker,
    pub(crate) registrar: Registrar,
}

/// One device's connection.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) context: Context,
    pub(crate) device: DeviceId,
    pub(crate) caller: Caller,
    pub(crate) id: SessionId,
    pub(crate) link: Arc<Link>,
    pub(crate) outbound: mpsc::Sender<ToClient>,
    /// The end of the device's newest certificate.
    pub(crate) until_unix_s: Arc<AtomicU64>,
}

impl Session {
    /// Serves the connection until it ends.
    pub(crate) async fn serve(self, receiver: ControlReceiver<ToAggregator>) {
        let reason = tokio::select! {
            reason = self.read_control(receiver) => reason,
            reason = self.read_blobs() => reason,
            reason = self.context.registrar.expired(&self.until_unix_s) => Some(reason),
            reason = self.link.closed() => {
                tracing::debug!(device = %self.device, reason = %reason.text, "the connection ended");
                None
            }
        };
        if let Some(refusal) = reason {
            tracing::warn!(device = %self.device, code = refusal.code(), reason = refusal.text(), "a device was cut off");
            self.link.close(refusal);
            let _ = self.context.events.send(Event::Cut(self.device, refusal)).await;
        }
        let _ = self.context.events.send(Event::Disconnected(self.device, self.id)).await;
    }

    /// Returns the refusal that ends the connection, or nothing when the device said good-bye or is gone.
    async fn read_control(&self, mut receiver: ControlReceiver<ToAggregator>) -> Option<Refusal> {
        // One fetch at a time for each run: a device that asks again gives the first one up.
        let mut fetches: BTreeMap<RunId, tokio::task::JoinHandle<()>> = BTreeMap::new();
        loop {
            let message = match receiver.recv().await {
                Ok(Some(message)) => message,
                Ok(None) => return None,
                Err(error) => return error.refusal(),
            };
            if let Err(denied) = access::decide(&self.caller, access::of_message(&message)) {
                return self.deny(denied).await;
            }
            match message {
                ToAggregator::Hello(_) => return Some(Refusal::UnexpectedFrame),
                ToAggregator::Fetch(wanted) => {
                    fetches.retain(|_, fetch| !fetch.is_finished());
                    let room = fetches.len() < TASKS_PER_DEVICE_MAX || fetches.contains_key(&wanted.run);
                    let given_up =
                        if room { fetches.remove(&wanted.run) } else { fetches.pop_first().map(|first| first.1) };
                    if let Some(before) = given_up {
                        before.abort();
                    }
                    let session = self.clone();
                    fetches.insert(wanted.run, tokio::spawn(async move { session.send_model(wanted).await }));
                }
                ToAggregator::Renew(request) => {
                    let answer = self.renew(request).await;
                    let _ = self.outbound.send(answer).await;
                }
                message => {
                    let event = Event::Message(self.device, self.id, message);
                    if self.context.events.send(event).await.is_err() {
                        return Some(Refusal::ShuttingDown);
                    }
                }
            }
        }
    }

    /// The next certificate, over the connection that the one before vouches for; rounds go on meanwhile.
    async fn renew(&self, request: RenewRequest) -> ToClient {
        let channel = self.link.channel();
        let proven = starling_certs::request::is_proven_renewal(&channel, self.device, &request).then_some(channel);
        let identity = (self.device, self.link.peer().name.as_str());
        let shown = self.link.peer_leaf().key;
        match self.context.registrar.renew(identity, self.link.remote_addr(), shown, request, proven).await {
            Ok(credential) => {
                let until_s = starling_certs::inspect::parse(&credential.certificate_pem)
                    .map_or(0, |chain| chain[0].not_after_unix_s());
                self.until_unix_s.store(until_s, Ordering::SeqCst);
                ToClient::Renewed(credential)
            }
            Err(refusal) => {
                tracing::warn!(device = %self.device, code = refusal.code(), reason = refusal.text(), "a certificate is not renewed");
                let _ = self.context.events.send(Event::NotRenewed(self.device, refusal)).await;
                ToClient::RenewRefused(refusal)
            }
        }
    }

    async fn send_model(&self, wanted: Fetch) {
        let offer = self.context.shelf.find(wanted.run, wanted.digest, wanted.held);
        // A digest that a device knows from elsewhere opens nothing either.
        let tags = &self.context.registrar.standings.tags;
        let Some(offer) = offer.filter(|offer| tags.open_to(self.device, &offer.tags)) else {
            let _ = self.outbound.send(ToClient::FetchRefused(wanted.digest, Refusal::UnknownBlob)).await;
            return;
        };
        let Offer { kind, codec, digest, bytes, tags: _ } = offer;
        let length = bytes.len() as u64;
        let offset =
            wanted.offset.min(length) / starling_wire::blob::RESUME_UNIT_BYTES * starling_wire::blob::RESUME_UNIT_BYTES;
        let header = BlobHeader { kind, codec, run: wanted.run, round: 0, attempt: 0, offset, length, digest };
        let from = usize::try_from(offset).expect("an offset within bytes in memory");
        let body = bytes.slice(from..);
        let sent = BLOB_HEADER_BYTES as u64 + body.len() as u64;
        match self.link.send_blob(&header, body).await {
            Ok(()) => {
                let _ = self.context.events.send(Event::Moved { run: wanted.run, up: 0, down: sent }).await;
            }
            Err(error) => tracing::debug!(device = %self.device, error = %error, "a model was not sent to its end"),
        }
    }

    async fn read_blobs(&self) -> Option<Refusal> {
        loop {
            match self.link.accept_blob().await {
                Ok(blob) => {
                    let session = self.clone();
                    // QUIC allows a device `UNI_STREAMS_MAX` streams, so no more tasks than that are alive.
                    tokio::spawn(async move { session.receive_update(blob).await });
                }
                Err(BlobError::Closed(_)) => return None,
                // The header was refused: that ends the stream only.
                Err(error) => tracing::warn!(device = %self.device, error = %error, "a blob was refused"),
            }
        }
    }

    async fn receive_update(&self, blob: IncomingBlob) {
        if let Err(denied) = access::decide(&self.caller, Verb::Deliver) {
            blob.refuse(denied.reason);
            self.deny(denied).await;
            return;
        }
        let header = blob.header().clone();
        let (reply, answer) = oneshot::channel();
        if self.context.events.send(Event::Header(self.device, header.clone(), reply)).await.is_err() {
            return;
        }
        let (address, numerics) = match answer.await {
            Ok(Ok(admitted)) => admitted,
            Ok(Err(refusal)) => return blob.refuse(refusal),
            Err(_) => return blob.refuse(Refusal::ShuttingDown),
        };
        let Some(reservation) = self.context.staging.reserve(header.length).await else {
            blob.refuse(Refusal::StagingFull);
            return self.refused(address, Refusal::StagingFull).await;
        };
        match blob.receive(PROGRESS_TIMEOUT, header.length).await {
            Ok((body, digest)) => {
                let up = BLOB_HEADER_BYTES as u64 + body.len() as u64;
                let _ = self.context.events.send(Event::Moved { run: header.run, up, down: 0 }).await;
                let device = self.device;
                let job = match numerics {
                    Some(numerics) => Job::Admit { device, address, header, body, digest, numerics, reservation },
                    None => Job::Masked { device, address, header, body, digest, reservation },
                };
                self.context.worker.queue(job).await;
            }
            // The device keeps its update and sends it again when it is back.
            Err(error) => match error.cause.refusal() {
                Some(refusal) => self.refused(address, refusal).await,
                None => tracing::debug!(device = %self.device, error = %error, "an update did not arrive to its end"),
            },
        }
    }

    async fn deny(&self, denied: Denied) -> Option<Refusal> {
        let _ = self.context.events.send(Event::Denied(denied)).await;
        Some(denied.reason)
    }

    async fn refused(&self, address: Address, refusal: Refusal) {
        let _ = self.context.events.send(Event::Body(self.device, address, Err(refusal))).await;
    }
}

/// Writes what the hub has for a device, in order, until the device or the hub is gone.
pub(crate) async fn write_control(mut sender: ControlSender<ToClient>, mut outbound: mpsc::Receiver<ToClient>) {
    while let Some(message) = outbound.recv().await {
        if let Err(error) = sender.send(&message).await {
            tracing::debug!(error = %error, "a control frame could not be sent");
            return;
        }
    }
}
