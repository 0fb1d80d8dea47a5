//! The agent: one connection to the aggregator, opened again whenever it is lost.

use std::future::Future;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use starling_certs::{CertsError, Pair};
use starling_daemon::schedule::Schedule;
use starling_net::{Backoff, BindError, Clock, Credentials, CredentialsError, DialError, Endpoint, Transport};
use starling_protocol::participant::Participant;
use starling_store::{Store, StoreError};
use starling_wire::{Decline, DeviceId, Refusal, Role, RunId};
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, sleep_until, timeout};

use crate::config::ClientConfig;
use crate::keeping::Door;
use crate::learner::Learner;
use crate::policy::{AllowList, Asked, LocalTime, Owner};
use crate::receipts::Wants;
use crate::renewal::Renewal;
use crate::serving::intake::Intake;
use crate::serving::releases::Releases;
use crate::serving::socket::Socket;
use crate::state::{Shelf, clock_floor};
use crate::status::{Connection, Status};
use crate::summing::{self, Summing};
use crate::transfer::Downloads;
use crate::trust::{Keeper, TrustError};
use crate::worker::{Order, Report, Worker};

mod releases;
mod session;

/// After so long without anything to do, the data, the network and the held model leave the memory.
pub const IDLE_MS: u64 = 20_000;

/// The pause after a refusal that does not pass by itself: somebody has to renew a certificate or update a program.
pub const FINAL_REFUSAL_WAIT: Duration = Duration::from_secs(300);

/// How long the end of a connection is waited for when the client stops.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// Why a client ended without being asked to.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The certificate, key or CA.
    #[error("the credentials of [tls] cannot be used")]
    Credentials(#[from] CredentialsError),
    /// A half-finished exchange of certificate and key.
    #[error("the certificate and key of [tls] cannot be used")]
    Files(#[from] CertsError),
    /// A certificate for something else.
    #[error("the certificate is one of role {0}; a client needs one of role device")]
    Role(Role),
    /// The state folder.
    #[error("the state folder {path} cannot be used")]
    State {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: StoreError,
    },
    /// The thread that makes backups.
    #[error("[backup]: no thread could be started")]
    Backups(#[source] std::io::Error),
    /// The pinned root of trust, or what is remembered of it.
    #[error("[trust]: releases and plans cannot be judged")]
    Trust(#[from] TrustError),
    /// The socket.
    #[error("no socket to dial from")]
    Bind(#[from] BindError),
    /// The very first connection was refused for good.
    #[error("{0}")]
    Refused(Refusal),
}

/// How a session ended.
enum Ended {
    /// The client is to stop.
    Shutdown,
    /// The connection is gone, or never was.
    Lost { refusal: Option<Refusal>, text: String, welcomed: bool },
}

/// Runs a client until `shutdown` resolves.
///
/// It reconnects for ever, with back-off, and keeps trying after a refusal that looks final, only rarely: the operator may
/// renew a certificate meanwhile. Only a refusal of that kind at the first connection ends it, as a wrong installation.
///
/// # Errors
/// [`ClientError`] names what to change.
pub async fn run(
    config: ClientConfig,
    learner: Arc<dyn Learner>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ClientError> {
    Pair { certificate: config.tls.certificate.clone(), key: config.tls.key.clone() }.settle()?;
    let credentials = Credentials::load(&config.tls)?;
    let identity = credentials.identity().clone();
    if identity.role != Role::Device {
        return Err(ClientError::Role(identity.role));
    }
    let state = |source| ClientError::State { path: config.state_dir.clone(), source };
    let store = Arc::new(Store::open(&config.state_dir, &config.key_source()).map_err(state)?);
    let clock = Clock::system(clock_floor(&store).map_err(state)?);
    if let Some(behind_s) = clock.behind_s() {
        tracing::error!(behind_s, "this machine's clock runs behind what the aggregator has told: set it");
    }
    let trust = match &config.trust {
        None => None,
        Some(settings) => Some(Arc::new(Keeper::open(Arc::clone(&store), Arc::clone(&clock), settings)?)),
    };
    let credentials = credentials.with_clock(clock);
    let shelf = Shelf::open(Arc::clone(&store), identity.id).map_err(state)?;
    // Until the end of this function.
    let _backups = match config.backup.clone() {
        Some(section) => Some(Schedule::start(Arc::clone(&store), section, || ()).map_err(ClientError::Backups)?),
        None => None,
    };
    // What its owner asks of the state folder while it is open here. Training does not need it.
    let _door = Door::open(&config.state_dir, &store)
        .inspect_err(
            |error| tracing::error!(%error, "[state_dir]: keep.sock cannot be bound (a path of at most 107 bytes)"),
        )
        .ok();
    let tasks = learner.tasks();
    let policy = AllowList::new(tasks.iter().cloned());
    let owner = Owner::new(policy.clone(), &config, &store, trust.clone(), LocalTime::now).map_err(state)?;
    let owner = Arc::new(owner);
    let releases = Arc::new(Releases::open(store, config.task.clone(), trust.clone()).map_err(state)?);
    let transport = Transport::on(config.path);
    let endpoint = Endpoint::dialer(config.aggregator, &credentials, &transport)?;
    let status = Status {
        pid: std::process::id(),
        name: identity.name.clone(),
        device: identity.id.to_string(),
        aggregator: config.aggregator.to_string(),
        connection: Connection::Connecting,
        problem: None,
        runs: Default::default(),
        releases: Default::default(),
        trust: None,
        privacy: None,
        updates_committed: 0,
        updates_refused: 0,
        rss_mb: 0.0,
        written_unix_s: 0,
    };
    tracing::info!(name = identity.name, device = %identity.id, aggregator = %config.aggregator, ?tasks, "starting");
    let (worker, reports) = Worker::new(learner, Arc::clone(&owner));
    let mut agent = Agent {
        participant: Participant::new(Box::new(Asked(Arc::clone(&owner)))),
        intake: Intake::new(Arc::clone(&releases), policy, config.releases_bytes_max),
        releases,
        expired: trust.as_ref().is_some_and(|trust| trust.has_expired()),
        trust,
        socket: None,
        device: identity.id,
        aggregator: DeviceId([0; 16]),
        tasks,
        summing: Summing::new(Arc::clone(shelf.store()), identity.id, owner.ledger(), worker.reports()),
        owner,
        worker,
        credentials: credentials.clone(),
        reports,
        shelf,
        downloads: Downloads::default(),
        wants: Wants::open(&config.state_dir),
        status,
        config,
        renewal: Renewal::new(&credentials),
        begun: Instant::now(),
        idle_since_ms: None,
    };
    agent.open_socket();
    agent.write_status();
    let mut shutdown = pin!(shutdown);
    let result = agent.keep_connected(&endpoint, shutdown.as_mut()).await;
    agent.stop();
    let _ = timeout(CLOSE_WAIT, endpoint.wait_idle()).await;
    result
}

/// Everything that outlives a connection.
pub(crate) struct Agent {
    participant: Participant,
    pub(crate) device: DeviceId,
    /// Who was at the other end of the last connection; zeros, which nobody is, before the first.
    aggregator: DeviceId,
    tasks: Vec<String>,
    worker: Worker,
    summing: Summing,
    /// What this device signs its keys of secure sums by; the newest.
    pub(crate) credentials: Credentials,
    reports: Receiver<Report>,
    pub(crate) shelf: Shelf,
    downloads: Downloads,
    releases: Arc<Releases>,
    trust: Option<Arc<Keeper>>,
    owner: Arc<Owner>,
    /// Whether what says what is newest had run out when it was last looked at.
    expired: bool,
    intake: Intake,
    /// Listens from the first release on.
    socket: Option<Socket>,
    wants: Wants,
    status: Status,
    pub(crate) config: ClientConfig,
    pub(crate) renewal: Renewal,
    begun: Instant,
    /// When the last work ended; `None` while there is some, and after memory was given back.
    idle_since_ms: Option<u64>,
}

impl Agent {
    async fn keep_connected(
        &mut self,
        endpoint: &Endpoint,
        mut shutdown: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<(), ClientError> {
        let mut backoff = Backoff::default();
        let mut ever_welcomed = false;
        loop {
            let (refusal, text, welcomed) = match self.session(endpoint, shutdown.as_mut()).await {
                Ended::Shutdown => return Ok(()),
                Ended::Lost { refusal, text, welcomed } => (refusal, text, welcomed),
            };
            ever_welcomed |= welcomed;
            let mut text = text;
            if refusal == Some(Refusal::CertificateExpired) {
                match self.renew_late(endpoint).await {
                    Ok(()) => continue,
                    Err(why) => text = format!("{text}; {why}"),
                }
            }
            let hopeless = refusal.filter(|refusal| refusal.is_final());
            if let Some(refusal) = hopeless
                && !ever_welcomed
            {
                self.set_connection(Connection::Refused, Some(text));
                return Err(ClientError::Refused(refusal));
            }
            if welcomed {
                backoff.reset();
            }
            let wait = backoff.next(entropy());
            let wait = match hopeless {
                None => wait,
                // By this machine's clock its last second may not be over yet. After it, it is renewed late.
                Some(Refusal::CertificateExpired) => {
                    until_expired(&endpoint.credentials()).unwrap_or(FINAL_REFUSAL_WAIT).min(FINAL_REFUSAL_WAIT)
                }
                Some(_) => FINAL_REFUSAL_WAIT,
            };
            let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            if hopeless.is_some() {
                tracing::error!(reason = text, wait_ms, "refused; this does not pass by itself");
            } else {
                tracing::warn!(reason = text, wait_ms, "not connected; trying again");
            }
            let connection = if hopeless.is_some() { Connection::Refused } else { Connection::Connecting };
            self.set_connection(connection, Some(text));
            if self.wait(Instant::now() + wait, shutdown.as_mut()).await {
                return Ok(());
            }
        }
    }

    /// Waits without a connection; jobs go on. Whether the client is to stop.
    async fn wait(&mut self, until: Instant, mut shutdown: Pin<&mut impl Future<Output = ()>>) -> bool {
        loop {
            self.act_offline();
            let timer = self.timer();
            tokio::select! {
                () = shutdown.as_mut() => return true,
                () = sleep_until(until) => return false,
                Some(report) = self.reports.recv() => self.handle_report(report),
                () = sleep_until(timer) => self.handle_timer(),
            }
        }
    }

    /// What can be done without a connection.
    fn act_offline(&mut self) {
        use starling_protocol::participant::Action;
        while let Some(action) = self.participant.poll_action() {
            match action {
                Action::Stop(job) => self.worker.stop(job),
                Action::Forget(run) => self.forget(run),
                Action::Secure(order) => self.sum(order),
                // A participant without a connection asks for nothing else.
                _ => {}
            }
        }
    }

    fn handle_report(&mut self, report: Report) {
        let now_ms = self.now_ms();
        match report {
            Report::Rebuilt { run, base, result } => match result {
                Ok(bytes) => {
                    if let Some(task) = self.participant.task(run) {
                        self.shelf.put(run, task, base, bytes);
                    }
                    self.participant.handle_model_ready(run, base.digest);
                }
                Err(error) => {
                    tracing::warn!(%run, version = base.version, error, "a difference does not lead to its version");
                    self.participant.handle_model_failed(run, base.digest);
                }
            },
            Report::Trained { job, result } => {
                self.worker.forget(job);
                self.participant.handle_trained(job, result, now_ms);
            }
            Report::ToMask { job, run, round, trained } => {
                if !self.summing.submit(summing::Order::Mask { job, run, round, trained }) {
                    self.participant.handle_trained(job, Err(Decline::TrainingFailed), now_ms);
                }
            }
            Report::Secure { address, result } => self.participant.handle_secure(&address, result),
            Report::Answered { job, result } => {
                self.worker.forget(job);
                self.participant.handle_answered(job, result);
            }
            Report::Installed { result } => self.handle_installed(result),
            Report::Kept { run, round, result } => match result {
                Ok(held) => {
                    tracing::debug!(%run, round, held, "a receipt is kept");
                    self.wants.done(Some(held));
                }
                Err(error) => {
                    tracing::error!(%run, round, error, "the receipt of the audit log proves nothing");
                    self.wants.done(None);
                }
            },
            Report::Released { saved } => {
                saved.into_iter().for_each(|(run, digest)| self.shelf.mark_saved(run, digest));
            }
        }
    }

    /// When [`Agent::handle_timer`] is due.
    fn timer(&mut self) -> Instant {
        if !self.participant.is_idle() {
            self.idle_since_ms = None;
        } else if self.worker.is_started() && self.idle_since_ms.is_none() {
            self.idle_since_ms = Some(self.now_ms());
        }
        let idle_at = self.idle_since_ms.map(|since| since.saturating_add(IDLE_MS));
        // Far enough to be never, near enough for the clock's arithmetic.
        let never = self.now_ms().saturating_add(24 * 3600 * 1000);
        let expiry_s = self.trust.as_ref().and_then(|trust| trust.expires_in_s());
        let expiry_at = expiry_s.map(|left_s| self.now_ms().saturating_add(left_s.saturating_mul(1000)));
        let due = [self.participant.poll_timeout(), idle_at, expiry_at, Some(never)];
        let at_ms = due.into_iter().flatten().min().unwrap_or(never);
        self.begun + Duration::from_millis(at_ms)
    }

    fn handle_timer(&mut self) {
        let now_ms = self.now_ms();
        self.participant.handle_timeout(now_ms);
        self.note_expiry();
        if self.idle_since_ms.is_some_and(|since| now_ms >= since.saturating_add(IDLE_MS)) {
            tracing::debug!("idle: memory is given back");
            let order = Order::Release { store: Arc::clone(self.shelf.store()), unsaved: self.shelf.unsaved() };
            self.worker.submit(order);
            // Not again before there was work: the far future is never reached.
            self.idle_since_ms = Some(u64::MAX - IDLE_MS);
        }
    }

    fn forget(&mut self, run: RunId) {
        self.shelf.forget(run);
        self.downloads.forget(run);
        self.wants.forget(run);
        self.status.runs.remove(&run.0);
    }

    fn set_connection(&mut self, connection: Connection, problem: Option<String>) {
        self.status.connection = connection;
        self.status.problem = problem;
        self.write_status();
    }

    fn write_status(&mut self) {
        self.note_releases();
        self.status.privacy = Some(self.owner.privacy());
        if let Err(error) = self.status.write(&self.config.state_dir) {
            tracing::warn!(%error, "the status file could not be written");
        }
    }

    /// The last things before the end: what is held goes to the disk, for a difference at the next start.
    fn stop(&mut self) {
        for version in self.shelf.unsaved() {
            if let Err(error) = version.save(self.shelf.store()) {
                tracing::warn!(run = %version.run, %error, "the held model could not be saved");
            }
        }
        self.socket = None;
        if self.status.connection != Connection::Refused {
            self.set_connection(Connection::Stopped, None);
        }
        tracing::info!("stopped");
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// How long it is until a certificate's last second is over, by this machine's clock; nothing when it is.
fn until_expired(credentials: &Credentials) -> Option<Duration> {
    let left_s = credentials.leaf().not_after_unix_s.checked_sub(credentials.clock().now_unix_s())?;
    Some(Duration::from_secs(left_s.saturating_add(1)))
}

/// The refusal and the words of a dial that failed.
fn dial_failure(error: &DialError) -> Ended {
    Ended::Lost { refusal: error.refusal(), text: error.to_string(), welcomed: false }
}

/// For the jitter of a wait. Where the system has no entropy, all devices wait alike: slower for the aggregator, not wrong.
fn entropy() -> u64 {
    let mut bytes = [0u8; 8];
    let filled = SystemRandom::new().fill(&mut bytes);
    if filled.is_ok() { u64::from_le_bytes(bytes) } else { u64::MAX / 2 }
}
