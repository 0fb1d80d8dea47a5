//! Starting, serving and stopping: the parts of the daemon put together.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use starling_daemon::schedule::Schedule;
use starling_net::{Credentials, Endpoint, Incoming, Link, Transport, greet_device_if};
use starling_store::Store;
use starling_wire::{Refusal, Role, RunId, ToClient};
use tokio::sync::{Semaphore, mpsc};

use crate::access::{Caller, Door};
use crate::admin::remote::Remote;
use crate::admin::{self, Desk};
use crate::audit::{self, AuditLog};
use crate::bundles;
use crate::config::AggregatorConfig;
use crate::enrolment::{Registrar, devices, join, registrar};
use crate::evaluator::Evaluator;
use crate::event::{EVENTS_MAX, Event, OUTBOUND_MAX, Peer};
use crate::hub::Hub;
use crate::ledger;
use crate::publish;
use crate::records;
use crate::run::Run;
use crate::session::{Context, Session, write_control};
use crate::shelf::Shelf;
use crate::staging::Staging;
use crate::worker::{self, Job, Worker};

/// How long a connected device may take to say hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// How long devices may take to hear that the daemon stops.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs the daemon until `shutdown` is done. `listening ADDRESS` on stdout says that devices can connect.
///
/// # Errors
/// When the state cannot be opened, a certificate cannot be read or an address cannot be bound.
pub async fn run(
    config: AggregatorConfig,
    evaluator: Option<Arc<dyn Evaluator>>,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let store = Arc::new(Store::open(&config.state_dir, &config.key_source())?);
    let epoch = store.next_epoch()?;
    starling_certs::Pair { certificate: config.tls.certificate.clone(), key: config.tls.key.clone() }.settle()?;
    let credentials = Credentials::load(&config.tls)?.with_clock(registrar::clock(&store)?);
    anyhow::ensure!(
        credentials.identity().role == Role::Aggregator,
        "the certificate {} is of a {}; issue one with `starling certs issue aggregator`",
        config.tls.certificate.display(),
        credentials.identity().role
    );
    let endpoint = Endpoint::bind(config.listen, &credentials, &Transport::on(config.path))?;
    let admin = admin::socket::Socket::bind(&config.admin_socket())?;
    let audit = AuditLog::open(Arc::clone(&store), credentials.identity().id, epoch)?;

    let mut stored = Vec::new();
    for record in records::runs(&store)? {
        let rounds = records::rounds(&store, record.run)?;
        let answer = records::answer(&store, record.run)?;
        let balance = ledger::stored(&store, &record)?;
        let mut run = Run::stored(record, rounds, answer);
        run.balance = balance;
        stored.push(run);
    }
    let run_last = RunId(records::run_last(&store)?);
    let (events, queue) = mpsc::channel(EVENTS_MAX);
    let shelf = Arc::new(Shelf::default());
    let mut releases = Vec::new();
    for release in publish::put_on_shelf(&store, &shelf)? {
        let bundle = bundles::load(&store, &bundles::of_release(&release.task))?;
        releases.push((release, bundle));
    }
    let staging = Staging::new(config.staging_bytes_max);
    for (device, gone) in devices::gone(&store)?.into_iter().filter(|(_, gone)| gone.certificate.is_none()) {
        // Nobody reads events yet; there are never as many of these as fit.
        let _ = events.try_send(Event::Unfinished(device, gone.unlearn));
    }
    let backups = match config.backup {
        Some(section) => {
            if let Some(problem) = section.problem() {
                anyhow::bail!("[backup]: {problem}");
            }
            let events = events.downgrade();
            let made = move || {
                if let Some(events) = events.upgrade() {
                    // A hub that is gone writes nothing down.
                    let _ = events.blocking_send(Event::BackedUp);
                }
            };
            Some(Schedule::start(Arc::clone(&store), section, made)?)
        }
        None => None,
    };
    let making = worker::Making { evaluator, keep: config.versions, backups, endpoint: endpoint.clone() };
    let (worker, thread) = Worker::start(Arc::clone(&store), audit, Arc::clone(&shelf), making, events.downgrade())?;
    audit::in_background(Arc::clone(&store), worker.downgrade());
    let (registrar, registering) = Registrar::start(
        store,
        config.enrolment.as_ref(),
        endpoint.clone(),
        config.tls.clone(),
        journal(worker.clone()),
    )?;
    let hub = Hub::new(worker.clone(), staging.clone(), registrar.clone(), (stored, run_last), releases);
    let context_worker = worker.downgrade();
    let context = Context { events: events.clone(), shelf, staging, worker, registrar: registrar.clone() };

    let listening = endpoint.local_addr()?;
    tracing::info!(address = %listening, epoch, "listening");
    let mut stdout = std::io::stdout();
    writeln!(stdout, "listening {listening}").and_then(|()| stdout.flush())?;

    let accepting = tokio::spawn(accept(endpoint.clone(), context, epoch, config.connections_max));
    let administering = tokio::spawn(admin.serve(Desk::new(events.clone())));
    let flushing = tokio::spawn(flush_audit(context_worker));
    hub.serve(queue, shutdown).await;

    tracing::info!("stopping");
    accepting.abort();
    administering.abort();
    flushing.abort();
    drop(events);
    endpoint.close(Refusal::ShuttingDown);
    // A device that does not answer must not hold the daemon up.
    let _ = tokio::time::timeout(GOODBYE_TIMEOUT, endpoint.wait_idle()).await;
    registrar.end();
    tokio::task::spawn_blocking(move || registering.join())
        .await?
        .map_err(|_| anyhow::anyhow!("the registrar thread panicked; what it had answered is durable"))?;
    // Every handle to the worker goes with the tasks that hold it; what is queued is still done.
    tokio::task::spawn_blocking(move || thread.join())
        .await?
        .map_err(|_| anyhow::anyhow!("the worker thread panicked; the state is that of the last committed version"))
}

/// The way of the registrar's records to the worker. The registrar must not wait for the worker's queue: the worker may wait for the
/// hub, and the hub for the registrar. Each record comes after a write of the registrar's to the disk, so few of them wait here.
fn journal(worker: Worker) -> mpsc::UnboundedSender<Job> {
    let (journal, mut records) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(job) = records.recv().await {
            worker.queue(job).await;
        }
    });
    journal
}

/// What the audit log has not written with another batch becomes durable within this time.
const AUDIT_FLUSH_INTERVAL: Duration = Duration::from_secs(1);

async fn flush_audit(worker: tokio::sync::mpsc::WeakSender<Job>) {
    let mut interval = tokio::time::interval(AUDIT_FLUSH_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        // A full queue means that batches are on their way anyway.
        match worker.upgrade() {
            Some(jobs) => drop(jobs.try_send(Job::AuditFlush)),
            None => return,
        }
    }
}

async fn accept(endpoint: Endpoint, context: Context, epoch: u64, connections_max: usize) {
    let places = Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS)));
    let joining = Arc::new(Semaphore::new(join::JOINING_MAX));
    let administering = Remote::new(context.events.clone(), context.registrar.clone());
    while let Some(incoming) = endpoint.accept().await {
        let link = match incoming {
            Incoming::Connected(link) => link,
            Incoming::Joining(link) => {
                join::serve(link, &joining, context.registrar.clone(), context.events.clone());
                continue;
            }
            Incoming::Administering(link) => {
                tokio::spawn(administering.clone().serve(link));
                continue;
            }
            Incoming::Failed(failure) => {
                if let Some(reason) = failure.reason.refusal {
                    let who = match &failure.certificate_name {
                        Some(name) => format!("{} at {}", name, failure.remote),
                        None => failure.remote.to_string(),
                    };
                    let _ = context.events.send(Event::TurnedAway { device: None, who, reason }).await;
                } else {
                    tracing::debug!(remote = %failure.remote, reason = %failure.reason.text, "a handshake failed");
                }
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            let (device, who) = context.registrar.described(link.peer(), link.remote_addr());
            link.close(Refusal::Busy);
            let _ = context.events.send(Event::TurnedAway { device, who, reason: Refusal::Busy }).await;
            continue;
        };
        let context = context.clone();
        tokio::spawn(async move {
            welcome(link, context, epoch).await;
            drop(place);
        });
    }
}

async fn welcome(link: Link, context: Context, epoch: u64) {
    let standings = &context.registrar.standings;
    let admit = |link: &Link| standings.admit(link.peer().id, link.peer_leaf().key.as_ref());
    let (hello, control) = match greet_device_if(&link, epoch, &Door::Devices.roles(), HELLO_TIMEOUT, admit).await {
        Ok(greeted) => greeted,
        Err(error) => {
            if let Some(reason) = error.refusal() {
                let (device, who) = context.registrar.described(link.peer(), link.remote_addr());
                let _ = context.events.send(Event::TurnedAway { device, who, reason }).await;
            }
            return;
        }
    };
    context.registrar.seen(link.peer().clone(), link.peer_leaf().clone());
    let link = Arc::new(link);
    let (device, id) = (link.peer().id, link.number() as u64);
    let (sender, receiver) = control.split();
    let (outbound, queue) = mpsc::channel::<ToClient>(OUTBOUND_MAX);
    let peer = Peer {
        device,
        name: link.peer().name.clone(),
        software: hello.software,
        session: id,
        outbound: outbound.clone(),
        link: Arc::clone(&link),
    };
    if context.events.send(Event::Connected(peer)).await.is_err() {
        return link.close(Refusal::ShuttingDown);
    }
    let writing = tokio::spawn(write_control(sender, queue));
    let until_unix_s = Arc::new(AtomicU64::new(link.peer_leaf().not_after_unix_s));
    let caller = Caller::certified(link.peer());
    Session { context, device, caller, id, link, outbound, until_unix_s }.serve(receiver).await;
    writing.abort();
}
