//! The thread that owns the registry: it signs, it waits for the disk, and it answers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use starling_audit::Who;
use starling_net::{Clock, Endpoint, Leaf, TlsFiles};
use starling_store::{Batch, Store};
use starling_wire::enrol::CHANNEL_BYTES;
use starling_wire::{
    Credential, DeviceId, FromAuthority, Identity, JoinRequest, PublicKey, Refusal, RenewRequest, Role,
};
use tokio::sync::{mpsc, oneshot};

use super::acts::{self, Act};
use super::devices::{DeviceRecord, DeviceState};
use super::own::Own;
use super::registry::{Issuer, Registry};
use super::standings::Standings;
use crate::config::EnrolmentSection;
use crate::event::{AdminReply, IssueRequest};
use crate::worker::{Job, chain};

/// Tasks that may wait. Who finds the queue full is told to come again.
const TASKS_MAX: usize = 1024;

/// When what was only noted is written, and the own certificate looked at.
const FLUSH_EVERY: Duration = Duration::from_secs(60);

/// Seconds after which a certificate's end is looked at again: the clock may be set meanwhile.
const EXPIRY_LOOK_S: u64 = 3600;

const CLOCK_TABLE: &str = "clock";
const FLOOR_KEY: &str = "floor";

/// What the operator wants of enrolment.
#[derive(Debug)]
pub(crate) enum Verb {
    Invite { name: Option<String>, tags: Vec<String>, expires_s: Option<u64>, open: bool },
    List { pending: bool, connected: Vec<DeviceId> },
    Tag { device: DeviceId, tags: Vec<String> },
    Issue(IssueRequest),
    ListOperators { connected: Vec<DeviceId> },
    Decide { device: DeviceId, state: DeviceState, any_key: bool, word: &'static str },
    Crl,
}

impl Verb {
    /// Its word in the audit log.
    fn word(&self) -> &'static str {
        match self {
            Verb::Invite { .. } => "device-invite",
            Verb::List { .. } => "device-list",
            Verb::Tag { .. } => "device-tag",
            Verb::Issue(_) => "operator-issue",
            Verb::ListOperators { .. } => "operator-list",
            Verb::Decide { word, .. } => word,
            Verb::Crl => "device-crl",
        }
    }
}

type Reply<T> = oneshot::Sender<T>;

enum Task {
    Join {
        from: SocketAddr,
        request: Box<JoinRequest>,
        proven: bool,
        reply: Reply<FromAuthority>,
    },
    Renew {
        device: DeviceId,
        name: String,
        from: SocketAddr,
        shown: Option<PublicKey>,
        request: Box<RenewRequest>,
        proven: Option<[u8; CHANNEL_BYTES]>,
        reply: Reply<Result<Credential, Refusal>>,
    },
    Seen {
        identity: Identity,
        leaf: Leaf,
    },
    Find(String, Reply<Result<DeviceId, String>>),
    Known(DeviceId, Reply<(Option<DeviceRecord>, u32)>),
    Retire(DeviceId, bool, Reply<Result<(), String>>),
    Verb(Verb, Who, AdminReply),
    /// The daemon stops.
    End,
}

/// The way to the registrar.
#[derive(Debug, Clone)]
pub(crate) struct Registrar {
    tasks: SyncSender<Task>,
    pub(crate) standings: Arc<Standings>,
    pub(crate) clock: Arc<Clock>,
}

/// The clock with the floor that an earlier life of this daemon has written down.
pub(crate) fn clock(store: &Store) -> anyhow::Result<Arc<Clock>> {
    let clock = Clock::system(store.get::<u64>(CLOCK_TABLE, FLOOR_KEY)?.unwrap_or(0));
    if let Some(behind_s) = clock.behind_s() {
        tracing::error!(
            behind_s,
            floor_unix_s = clock.floor_unix_s(),
            "this machine's clock runs behind what this aggregator has seen: set it; certificates are judged and issued by the later time"
        );
    }
    Ok(clock)
}

impl Registrar {
    /// Starts the thread. It ends, with everything written, at [`Registrar::end`].
    pub(crate) fn start(
        store: Arc<Store>,
        section: Option<&EnrolmentSection>,
        endpoint: Endpoint,
        files: TlsFiles,
        journal: mpsc::UnboundedSender<Job>,
    ) -> anyhow::Result<(Self, std::thread::JoinHandle<()>)> {
        let clock = endpoint.credentials().clock().clone();
        let standings = Arc::new(Standings::new(Arc::clone(&store)));
        let issuer = section.map(Issuer::open).transpose()?;
        if let Some(issuer) = &issuer {
            anyhow::ensure!(
                issuer.authority.ca_pem().trim() == endpoint.credentials().ca_pem().trim()
                    || endpoint.credentials().ca_pem().contains(issuer.authority.ca_pem().trim()),
                "[enrolment] authority {} is not the CA that [tls] ca trusts: devices that join could not connect",
                issuer.section.authority.display()
            );
        }
        let registry = Registry::load(Arc::clone(&store), Arc::clone(&standings), issuer)?;
        let (tasks, queue) = sync_channel(TASKS_MAX);
        let address = endpoint.local_addr()?;
        let thread_clock = clock.clone();
        let own = Own { files, endpoint };
        let mut state = State { store, registry, own, address, clock: thread_clock, journal };
        let thread = std::thread::Builder::new().name("registrar".into()).spawn(move || state.work(&queue))?;
        Ok((Self { tasks, standings, clock }, thread))
    }

    /// A machine's request to join; `proven` says that it has the key.
    pub(crate) async fn join(&self, from: SocketAddr, request: JoinRequest, proven: bool) -> FromAuthority {
        let (reply, answer) = oneshot::channel();
        match self.tasks.try_send(Task::Join { from, request: Box::new(request), proven, reply }) {
            Ok(()) => answer.await.unwrap_or(FromAuthority::Refused(Refusal::ShuttingDown)),
            Err(_) => FromAuthority::Refused(Refusal::Busy),
        }
    }

    /// A device's request for its next certificate; `shown` is the key that its connection has proven, `proven` the
    /// channel of the connection that both keys have signed the request for.
    pub(crate) async fn renew(
        &self,
        (device, name): (DeviceId, &str),
        from: SocketAddr,
        shown: Option<PublicKey>,
        request: RenewRequest,
        proven: Option<[u8; CHANNEL_BYTES]>,
    ) -> Result<Credential, Refusal> {
        let (reply, answer) = oneshot::channel();
        let (name, request) = (name.to_owned(), Box::new(request));
        match self.tasks.try_send(Task::Renew { device, name, from, shown, request, proven, reply }) {
            Ok(()) => answer.await.unwrap_or(Err(Refusal::ShuttingDown)),
            Err(_) => Err(Refusal::Busy),
        }
    }

    /// A device was welcomed. Lost when the queue is full: the next welcome says the same.
    pub(crate) fn seen(&self, identity: Identity, leaf: Leaf) {
        let _ = self.tasks.try_send(Task::Seen { identity, leaf });
    }

    /// Waits until the certificate of a connection, whose end is in `until_unix_s`, has expired without a next one: a connection is no way to
    /// outlive it.
    pub(crate) async fn expired(&self, until_unix_s: &AtomicU64) -> Refusal {
        loop {
            let left_s = until_unix_s.load(Ordering::SeqCst).saturating_sub(self.clock.now_unix_s());
            if left_s == 0 {
                return Refusal::CertificateExpired;
            }
            tokio::time::sleep(Duration::from_secs(left_s.min(EXPIRY_LOOK_S))).await;
        }
    }

    /// A peer whose certificate is good, for the operator. The name of a device that was forgotten is said to nobody.
    pub(crate) fn described(&self, peer: &Identity, at: SocketAddr) -> (Option<DeviceId>, String) {
        let Identity { id, role, name } = peer;
        let forgotten = self.standings.is_forgotten(*id);
        let who = if forgotten { format!("forgotten {role} {id}") } else { format!("{role} {name} at {at}") };
        ((*role == Role::Device).then_some(*id), who)
    }

    /// The device that an operator means.
    pub(crate) async fn find(&self, text: String) -> Result<DeviceId, String> {
        let (reply, answer) = oneshot::channel();
        self.tasks.try_send(Task::Find(text, reply)).map_err(|_| "the registrar is busy; try again".to_owned())?;
        answer.await.unwrap_or_else(|_| Err("the aggregator is shutting down".into()))
    }

    /// What is known of a device, and how many others belong to the fleet.
    pub(crate) async fn known(&self, device: DeviceId) -> (Option<DeviceRecord>, u32) {
        let (reply, answer) = oneshot::channel();
        match self.tasks.try_send(Task::Known(device, reply)) {
            Ok(()) => answer.await.unwrap_or_default(),
            Err(_) => (None, 0),
        }
    }

    /// Takes a device out of everything that is known here; durable when this returns.
    pub(crate) async fn retire(&self, device: DeviceId, unlearn: bool) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        let retire = Task::Retire(device, unlearn, reply);
        self.tasks.try_send(retire).map_err(|_| "the registrar is busy; try again".to_owned())?;
        answer.await.unwrap_or_else(|_| Err("the aggregator is shutting down".into()))
    }

    /// Has a verb done for `who`; `reply` hears of it when it and its record are durable.
    pub(crate) fn verb(&self, verb: Verb, who: Who, reply: AdminReply) {
        if let Err(error) = self.tasks.try_send(Task::Verb(verb, who, reply))
            && let std::sync::mpsc::TrySendError::Full(Task::Verb(.., reply)) = error
        {
            let _ = reply.send(Err("the registrar is busy; try again".into()));
        }
    }

    /// Ends the thread after what is queued.
    pub(crate) fn end(&self) {
        let _ = self.tasks.send(Task::End);
    }
}

struct State {
    store: Arc<Store>,
    registry: Registry,
    own: Own,
    address: SocketAddr,
    clock: Arc<Clock>,
    /// To the audit log.
    journal: mpsc::UnboundedSender<Job>,
}

impl State {
    fn work(&mut self, queue: &Receiver<Task>) {
        let mut look_at = Instant::now();
        loop {
            if look_at <= Instant::now() {
                look_at = Instant::now() + self.look();
            }
            match queue.recv_timeout(look_at.saturating_duration_since(Instant::now())) {
                Ok(Task::End) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(task) => self.task(task),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        self.look();
    }

    /// What is done from time to time; returns how long to wait for the next time.
    fn look(&mut self) -> Duration {
        self.registry.flush();
        let now_s = self.clock.now_unix_s();
        self.clock.raise_floor(now_s);
        let mut batch = Batch::new();
        if let Err(error) = batch.put(CLOCK_TABLE, FLOOR_KEY, &now_s).and_then(|()| self.store.commit(batch)) {
            tracing::error!(error = chain(&error), "the time could not be written down");
        }
        let Some(issuer) = &mut self.registry.issuer else { return FLUSH_EVERY };
        match self.own.renew(issuer, now_s) {
            Ok((wait_s, act)) => {
                self.record(act, None);
                FLUSH_EVERY.min(Duration::from_secs(wait_s.max(1)))
            }
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "the aggregator's own certificate could not be renewed");
                FLUSH_EVERY
            }
        }
    }

    fn task(&mut self, task: Task) {
        let now_s = self.clock.now_unix_s();
        // Whoever asked may be gone: then nobody needs the answer.
        match task {
            Task::Join { from, request, proven, reply } => {
                let _ = reply.send(self.registry.join(now_s, from, &request, proven));
            }
            Task::Renew { device, name, from, shown, request, proven, reply } => {
                let _ = reply.send(self.registry.renew(now_s, (device, &name), from, shown, &request, proven));
            }
            Task::Seen { identity, leaf } => self.registry.seen(now_s, &identity, &leaf),
            Task::Find(text, reply) => {
                let _ = reply.send(self.registry.find(&text));
            }
            Task::Known(device, reply) => {
                let _ = reply.send(self.registry.known(device));
            }
            Task::Retire(device, unlearn, reply) => {
                let _ = reply.send(self.registry.retire(now_s, device, unlearn));
            }
            Task::Verb(verb, who, reply) => self.verb(now_s, verb, who, reply),
            Task::End => {}
        }
        for act in std::mem::take(&mut self.registry.acts) {
            self.record(Some(act), None);
        }
    }

    /// Hands a record to the audit log, which answers who waits for it.
    fn record(&self, act: Option<Act>, waiting: Option<(Value, AdminReply)>) {
        if let Some(Act { entry, field }) = act {
            let _ = self.journal.send(Job::Audit(Box::new(entry), field, waiting));
        } else if let Some((answer, reply)) = waiting {
            let _ = reply.send(Ok(answer.into()));
        }
    }

    fn verb(&mut self, now_s: u64, verb: Verb, who: Who, reply: AdminReply) {
        let word = verb.word();
        let before = match &verb {
            Verb::Decide { device, .. } => self.registry.state_of(*device),
            _ => None,
        };
        let mut act = match &verb {
            Verb::Invite { name, .. } => Some(acts::invitation(who, name.clone().unwrap_or_default())),
            Verb::Decide { device, state, .. } => Some(acts::decision(who, *device, before, *state)),
            Verb::Tag { device, tags } => Some(acts::tagged(who, *device, tags.len())),
            // Its record names the id, which is not there yet: the registry makes it.
            Verb::Issue(_) | Verb::List { .. } | Verb::ListOperators { .. } | Verb::Crl => None,
        };
        match self.do_verb(now_s, verb, who) {
            Ok(answer) => {
                // The name that goes with an invitation belongs to the device that it makes.
                if let Some(field) = act.as_mut().and_then(|act| act.field.as_mut()) {
                    field.device = answer["device"].as_str().and_then(|device| device.parse().ok());
                }
                let act = act.or_else(|| self.registry.acts.pop());
                self.record(act, Some((answer, reply)));
            }
            Err(error) => {
                self.record(Some(acts::could_not(who, word)), None);
                let _ = reply.send(Err(error));
            }
        }
    }

    fn do_verb(&mut self, now_s: u64, verb: Verb, who: Who) -> Result<Value, String> {
        match verb {
            Verb::Invite { open: true, .. } => {
                Ok(json!({ "join": self.registry.open_invitation(self.address)?.to_string() }))
            }
            Verb::Invite { name, tags, expires_s, open: false } => {
                let (join, expires_unix_s, device) =
                    self.registry.invite(now_s, name, tags, expires_s, self.address)?;
                Ok(json!({
                    "join": join.to_string(), "expires_unix_s": expires_unix_s,
                    "ca_fingerprint": join.ca_fingerprint_hex(), "device": device.to_string(),
                }))
            }
            Verb::List { pending, connected } => {
                let wanted = |record: &&DeviceRecord| {
                    record.role == Role::Device && (!pending || record.state == DeviceState::Pending)
                };
                let line = |record: &DeviceRecord| line(record, connected.contains(&record.id), now_s);
                Ok(self.registry.records().filter(wanted).map(line).collect())
            }
            Verb::Tag { device, tags } => {
                let record = self.registry.tag(device, tags)?;
                Ok(json!({ "device": record.id.to_string(), "name": record.name, "tags": record.tags }))
            }
            Verb::Issue(request) => {
                let (id, certificate_pem, ca_pem) = self.registry.issue(now_s, &request, who)?;
                Ok(json!({
                    "id": id.to_string(), "role": request.role, "name": request.name,
                    "certificate_pem": certificate_pem, "ca_pem": ca_pem,
                }))
            }
            Verb::ListOperators { connected } => {
                let line = |record: &DeviceRecord| line(record, connected.contains(&record.id), now_s);
                Ok(self.registry.records().filter(|record| record.role != Role::Device).map(line).collect())
            }
            Verb::Decide { device, state, any_key, .. } => {
                let record = self.registry.decide(now_s, device, state, any_key)?;
                Ok(json!({ "device": record.id.to_string(), "name": record.name, "state": record.state.word() }))
            }
            Verb::Crl => Ok(json!({ "crl_pem": self.registry.revocation_list(now_s)? })),
        }
    }
}

/// A line of `device list`.
fn line(record: &DeviceRecord, connected: bool, now_s: u64) -> Value {
    json!({
        "device": record.id.to_string(),
        "role": record.role,
        "name": record.name,
        "tags": record.tags,
        "state": record.state.word(),
        "state_since_unix_s": record.since_unix_s,
        "certificate_expires_unix_s": record.expires_unix_s,
        "last_seen_unix_s": if connected { now_s } else { record.last_seen_unix_s },
        "connected": connected,
        "key_fingerprint": record.confirmed.map(|key| key.fingerprint().to_string()),
    })
}
