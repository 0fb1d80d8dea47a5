//! Starting, serving and stopping: the parts of the daemon put together.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use starling_net::{Credentials, Endpoint, Incoming, Link, Transport, greet_device};
use starling_store::Store;
use starling_wire::{Refusal, Role, ToClient};
use tokio::sync::{Semaphore, mpsc};

use crate::admin;
use crate::audit::{self, AuditLog};
use crate::config::AggregatorConfig;
use crate::evaluator::Evaluator;
use crate::event::{EVENTS_MAX, Event, OUTBOUND_MAX, Peer};
use crate::hub::Hub;
use crate::publish;
use crate::records;
use crate::session::{Context, Session, write_control};
use crate::shelf::Shelf;
use crate::staging::Staging;
use crate::worker::{Job, Worker};

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
    let credentials = Credentials::load(&config.tls)?;
    anyhow::ensure!(
        credentials.identity().role == Role::Aggregator,
        "the certificate {} is of a {}; issue one with `starling certs issue aggregator`",
        config.tls.certificate.display(),
        credentials.identity().role
    );
    let endpoint = Endpoint::bind(config.listen, &credentials, &Transport::on(config.path))?;
    let admin = admin::Socket::bind(&config.admin_socket())?;
    let audit = AuditLog::open(Arc::clone(&store), credentials.identity().id, epoch)?;

    let mut stored = Vec::new();
    for record in records::runs(&store)? {
        let rounds = records::rounds(&store, record.run)?;
        stored.push((record, rounds));
    }
    let (events, queue) = mpsc::channel(EVENTS_MAX);
    let shelf = Arc::new(Shelf::default());
    let releases = publish::put_on_shelf(&store, &shelf)?;
    let staging = Staging::new(config.staging_bytes_max);
    let (worker, thread) = Worker::start(Arc::clone(&store), audit, Arc::clone(&shelf), evaluator, events.downgrade())?;
    audit::in_background(store, worker.downgrade());
    let hub = Hub::new(worker.clone(), staging.clone(), stored, releases);
    let context_worker = worker.downgrade();
    let context = Context { events: events.clone(), shelf, staging, worker };

    let listening = endpoint.local_addr()?;
    tracing::info!(address = %listening, epoch, "listening");
    let mut stdout = std::io::stdout();
    writeln!(stdout, "listening {listening}").and_then(|()| stdout.flush())?;

    let accepting = tokio::spawn(accept(endpoint.clone(), context, epoch, config.connections_max));
    let administering = tokio::spawn(admin.serve(events.clone()));
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
    // Every handle to the worker goes with the tasks that hold it; what is queued is still done.
    tokio::task::spawn_blocking(move || thread.join())
        .await?
        .map_err(|_| anyhow::anyhow!("the worker thread panicked; the state is that of the last committed version"))
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
    while let Some(incoming) = endpoint.accept().await {
        let link = match incoming {
            Incoming::Connected(link) => link,
            Incoming::Failed(failure) => {
                if let Some(reason) = failure.reason.refusal {
                    let who = match &failure.certificate_name {
                        Some(name) => format!("{} at {}", name, failure.remote),
                        None => failure.remote.to_string(),
                    };
                    let _ = context.events.send(Event::TurnedAway { who, reason }).await;
                } else {
                    tracing::debug!(remote = %failure.remote, reason = %failure.reason.text, "a handshake failed");
                }
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            let who = format!("{} {} at {}", link.peer().role, link.peer().name, link.remote_addr());
            link.close(Refusal::Busy);
            let _ = context.events.send(Event::TurnedAway { who, reason: Refusal::Busy }).await;
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
    let (hello, control) = match greet_device(&link, epoch, &[Role::Device], HELLO_TIMEOUT).await {
        Ok(greeted) => greeted,
        Err(error) => {
            if let Some(reason) = error.refusal() {
                let who = format!("{} {} at {}", link.peer().role, link.peer().name, link.remote_addr());
                let _ = context.events.send(Event::TurnedAway { who, reason }).await;
            }
            return;
        }
    };
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
    Session { context, device, id, link, outbound }.serve(receiver).await;
    writing.abort();
}
