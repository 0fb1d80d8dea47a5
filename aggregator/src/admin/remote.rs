//! Administrators who are elsewhere: QUIC on the devices' own endpoint, with a certificate of an operator, a publisher or an auditor.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use starling_net::AdminLink;
use starling_wire::Refusal;
use tokio::sync::{Semaphore, mpsc};

use super::Desk;
use crate::access::{Caller, Door};
use crate::enrolment::Registrar;
use crate::event::Event;

/// Connections of administrators at once. They have places of their own, so that no number of devices shuts an operator out.
const ADMINISTRATORS_MAX: usize = 16;

/// How long an administrator may ask nothing: a forgotten connection must not keep a place.
const IDLE_MAX: Duration = Duration::from_secs(120);

/// Serves administrators.
#[derive(Clone)]
pub(crate) struct Remote {
    places: Arc<Semaphore>,
    desk: Arc<Desk>,
    registrar: Registrar,
    events: mpsc::Sender<Event>,
}

impl Remote {
    pub(crate) fn new(events: mpsc::Sender<Event>, registrar: Registrar) -> Self {
        let places = Arc::new(Semaphore::new(ADMINISTRATORS_MAX));
        Self { places, desk: Arc::new(Desk::new(events.clone())), registrar, events }
    }

    /// Serves `link` until it ends.
    pub(crate) async fn serve(self, link: AdminLink) {
        let caller = Caller::certified(link.peer());
        if let Err(denied) = caller.enters(Door::Administration) {
            link.close_with(denied.reason, &denied.to_string());
            let _ = self.events.send(Event::Denied(denied)).await;
            return self.turned_away(&link, denied.reason).await;
        }
        let standing = self.registrar.standings.admit(link.peer().id, link.peer_leaf().key.as_ref());
        let place = standing.and_then(|()| self.places.try_acquire().map_err(|_| Refusal::Busy));
        let _place = match place {
            Ok(place) => place,
            Err(refusal) => {
                link.close(refusal);
                return self.turned_away(&link, refusal).await;
            }
        };
        self.registrar.seen(link.peer().clone(), link.peer_leaf().clone());
        tracing::info!(who = %caller.who(), name = link.peer().name, address = %link.remote_addr(), "an administrator is here");
        if self.events.send(Event::Administering(link.clone())).await.is_err() {
            return link.close(Refusal::ShuttingDown);
        }
        let until_unix_s = AtomicU64::new(link.peer_leaf().not_after_unix_s);
        tokio::select! {
            () = self.requests(&caller, &link) => link.finish(),
            refusal = self.registrar.expired(&until_unix_s) => link.close(refusal),
            _ = link.closed() => {}
        }
        let _ = self.events.send(Event::AdministratorGone(link.number())).await;
    }

    /// One request after another; returns when there are no more.
    async fn requests(&self, caller: &Caller, link: &AdminLink) {
        while let Ok(Ok(stream)) = tokio::time::timeout(IDLE_MAX, link.accept()).await {
            let (read, write) = tokio::io::split(stream);
            if let Err(error) = self.desk.serve(caller, read, write).await {
                tracing::warn!(who = %caller.who(), error = %error, "an administrator's request failed");
            }
        }
    }

    async fn turned_away(&self, link: &AdminLink, reason: Refusal) {
        let (device, who) = self.registrar.described(link.peer(), link.remote_addr());
        let _ = self.events.send(Event::TurnedAway { device, who, reason }).await;
    }
}
