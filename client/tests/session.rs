//! The client against an aggregator played by the test, over real QUIC: what it sends, keeps and asks for.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;
use starling_client::agent::ClientError;
use starling_client::{BurnLearner, ClientConfig};
use starling_data::{load, partition, split_holdout};
use starling_model::{Network, TrainPath};
use starling_net::{Control, Credentials, Endpoint, Incoming, Link, Transport, greet_device};
use starling_spec::random::device_key;
use starling_spec::{Partition, TaskFile, TaskPlan};
use starling_testkit::pki::{Pki, deploy};
use starling_update::{Sealed, Version, difference, rounding_key, seal};
use starling_wire::{
    Address, BlobHeader, BlobKind, Decline, DeviceId, Evaluation, Fetch, Refusal, Role, RoundKind, RoundStart, RunId,
    RunPlan, TaskId, ToAggregator, ToClient, UpdateReport, Verdict,
};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const SEED: u64 = 5;
const WAIT: Duration = Duration::from_secs(60);
const INDEX: u32 = 2;

const TASK: &str = r#"
    name = "digits"
    kind = "classification"
    [data]
    format = "csv"
    train = "embedded:optdigits"
    shape = [1, 8, 8]
    scale = "unit"
    [model]
    layers = ["flatten", { linear = { out = 16 } }, "relu", { linear = { out = 10 } }]
    [train]
    lr = 0.05
    [federation]
    holdout = 0.2
    [update]
    codec = "q8"
    down = "q8"
"#;

type ToDevice = Control<ToClient, ToAggregator>;

struct Aggregator {
    endpoint: Endpoint,
    plan: TaskPlan,
    device: DeviceId,
}

impl Aggregator {
    fn new(pki: &Pki) -> Self {
        let issued = pki.issue(Role::Aggregator, 100);
        let credentials =
            Credentials::from_pem(pki.ca_pem(), &issued.certificate_pem, &issued.key_pem).expect("credentials");
        let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let endpoint = Endpoint::bind(any, &credentials, &Transport::default()).expect("a socket");
        let plan = TaskPlan::new(&TaskFile::parse(TASK, &[]).expect("a task"), SEED).expect("a plan");
        Self { endpoint, plan, device: pki.identity(Role::Device, INDEX).id }
    }

    /// Waits for the client, welcomes it and announces the run.
    async fn welcome(&self, epoch: u64) -> (Link, ToDevice) {
        let link = match timeout(WAIT, self.endpoint.accept()).await.expect("in time").expect("the endpoint is open") {
            Incoming::Connected(link) => link,
            Incoming::Failed(failure) => panic!("{failure}"),
            other => panic!("nobody else comes here: {other:?}"),
        };
        let (_, mut control) = greet_device(&link, epoch, &[Role::Device], WAIT).await.expect("a hello");
        let Ok(Some(ToAggregator::Available(available))) = control.recv().await else { panic!("no tasks") };
        assert_eq!(available.tasks, ["digits"]);
        let announced = RunPlan {
            run: RunId(1),
            owner_epoch: 1,
            task: self.task(),
            name: self.plan.name.clone(),
            plan: self.plan.to_json(),
            bundle: Vec::new(),
        };
        control.send(&ToClient::Plan(announced)).await.expect("sent");
        (link, control)
    }

    fn task(&self) -> TaskId {
        TaskId(self.plan.id())
    }

    fn start(&self, kind: RoundKind, round: u32, version: &Version) -> RoundStart {
        let address = Address { task: self.task(), run: RunId(1), round, attempt: 1 };
        RoundStart { address, kind, base: version.reference(), deadline_ms: 60_000, weight_max: 1 << 20, clip: None }
    }

    /// The update that a simulation of this device computes, from the pooled data.
    fn expected(&self, round: u32, version: &Version) -> Sealed {
        let mut section = TaskFile::parse(TASK, &[]).expect("a task").data;
        section.scale = self.plan.scale;
        let pooled = load(&section, self.plan.kind, &self.plan.shape, Path::new(""), SEED).expect("data").train;
        let base = decoded(version);
        let mut delta = base.clone();
        let path = TrainPath { device: device_key(self.device.0), round: u64::from(round) };
        let (train, _) = self.rows();
        let mut network = Network::new(&self.plan).expect("a network");
        let outcome = network.train(&mut delta, &pooled, &train, path, &AtomicBool::new(false)).expect("trained");
        delta.iter_mut().zip(&base).for_each(|(value, base)| *value -= base);
        let report = UpdateReport {
            weight: outcome.examples,
            train_loss: outcome.loss_mean,
            steps: outcome.steps,
            within_clip: false,
        };
        let key = rounding_key(SEED, self.device, round);
        seal(&report, &delta, self.plan.update.codec, key).expect("sealed")
    }

    /// Rows of this device in the pooled data: to train on, and held out.
    fn rows(&self) -> (Vec<u32>, Vec<u32>) {
        let section = TaskFile::parse(TASK, &[]).expect("a task").data;
        let loaded = load(&section, self.plan.kind, &self.plan.shape, Path::new(""), SEED).expect("data");
        let parts = partition(&loaded, Partition::Dirichlet(0.5), Some(4), SEED).expect("parts");
        split_holdout(&parts[INDEX as usize], self.plan.holdout, SEED, device_key(self.device.0))
    }
}

fn decoded(version: &Version) -> Vec<f32> {
    let count = version.master().len();
    Version::decode(&version.reference(), version.encoded(), count).expect("decoded")
}

fn initial(plan: &TaskPlan) -> Version {
    let manifest = plan.manifest().expect("a manifest");
    let master = starling_spec::init::initial_parameters(&manifest, SEED);
    Version::publish(0, master, plan.update.down).expect("published")
}

/// The version after `version`, near enough to it that a difference is worth its while.
fn next(version: &Version) -> Version {
    let mut master = version.master().to_vec();
    master.iter_mut().step_by(50).for_each(|value| *value += 0.01);
    Version::publish(version.number() + 1, master, starling_spec::CodecSpec::Quantised(8)).expect("published")
}

fn blob(kind: BlobKind, version: &Version, body: &[u8]) -> BlobHeader {
    BlobHeader {
        kind,
        codec: version.reference().codec,
        run: RunId(1),
        round: 1,
        attempt: 1,
        offset: 0,
        length: body.len() as u64,
        digest: starling_wire::Digest::of(body),
    }
}

async fn recv(control: &mut ToDevice) -> ToAggregator {
    loop {
        match timeout(WAIT, control.recv()).await.expect("in time").expect("connected").expect("a message") {
            // This aggregator keeps no log; a device asks for receipts whenever it has a moment.
            ToAggregator::WantReceipt(_) => {}
            message => return message,
        }
    }
}

async fn accepted(control: &mut ToDevice, start: &RoundStart) {
    control.send(&ToClient::RoundStart(*start)).await.expect("sent");
    assert_eq!(recv(control).await, ToAggregator::Accept(start.address));
}

async fn fetched(control: &mut ToDevice) -> Fetch {
    match recv(control).await {
        ToAggregator::Fetch(fetch) => fetch,
        other => panic!("{other:?}"),
    }
}

async fn update(link: &Link) -> (BlobHeader, Bytes) {
    let incoming = timeout(WAIT, link.accept_blob()).await.expect("in time").expect("a blob");
    let header = incoming.header().clone();
    let (bytes, digest) = incoming.receive(WAIT, 1 << 20).await.expect("received");
    assert_eq!((header.kind, digest), (BlobKind::Update, header.digest));
    (header, bytes)
}

struct Client {
    stop: oneshot::Sender<()>,
    done: JoinHandle<Result<(), ClientError>>,
}

impl Client {
    fn start(config: &ClientConfig) -> Self {
        let (stop, stopped) = oneshot::channel();
        let learner = Arc::new(BurnLearner::new(config.task.clone()));
        let config = config.clone();
        let run = async move {
            let shutdown = async {
                let _ = stopped.await;
            };
            let ended = starling_client::run(config, learner, shutdown).await;
            if let Err(error) = &ended {
                // Whoever waits for it to connect waits in vain, and would not say why.
                eprintln!("the client has ended: {error:?}");
            }
            ended
        };
        Self { stop, done: tokio::spawn(run) }
    }

    /// Asks it to stop; it says goodbye.
    async fn stop(self, link: &Link, control: &mut ToDevice) {
        self.stop.send(()).expect("it runs");
        assert_eq!(recv(control).await, ToAggregator::Bye);
        link.finish();
        self.done.await.expect("no panic").expect("a clean end");
    }
}

fn config(pki: &Pki, folder: &Path, aggregator: SocketAddr) -> ClientConfig {
    let tls = deploy(&pki.issue(Role::Device, INDEX), &folder.join("tls"), None).toml();
    let text = format!(
        r#"
        aggregator = "{aggregator}"
        state_dir = "state"
        {tls}
        [[task]]
        name = "digits"
        [task.data]
        format = "csv"
        train = "embedded:optdigits"
        [task.partition]
        how = "dirichlet:0.5"
        devices = 4
        index = {INDEX}
        seed = {SEED}
        "#
    );
    ClientConfig::parse(&folder.join("client.toml"), &text).expect("a configuration")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inv5_inv11_updates_are_simulates_bytes_and_survive_reconnections_and_restarts() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let pki = Pki::new(SEED);
    let aggregator = Aggregator::new(&pki);
    let config = config(&pki, folder.path(), aggregator.endpoint.local_addr().expect("bound"));
    let client = Client::start(&config);

    // A first round from the whole model; the connection breaks before the verdict.
    let first = initial(&aggregator.plan);
    let (link, mut control) = aggregator.welcome(1).await;
    let start = aggregator.start(RoundKind::Train, 1, &first);
    accepted(&mut control, &start).await;
    let fetch = fetched(&mut control).await;
    assert_eq!((fetch.digest, fetch.held, fetch.offset), (first.digest(), None, 0));
    link.send_blob(&blob(BlobKind::Model, &first, first.encoded()), first.encoded().clone()).await.expect("sent");
    let (header, bytes) = update(&link).await;
    let expected = aggregator.expected(1, &first);
    assert_eq!(header, expected.header(&start.address));
    assert_eq!(bytes, expected.bytes(), "a real device and a simulated one send the same bytes");
    link.close(Refusal::Internal);

    // The same process of the aggregator: the same update again, unasked.
    let (link, mut control) = aggregator.welcome(1).await;
    let (again, bytes_again) = update(&link).await;
    assert_eq!((&again, &bytes_again), (&header, &bytes));
    link.close(Refusal::ShuttingDown);

    // Another process: only under the attempt that it makes.
    let (link, mut second_control) = aggregator.welcome(2).await;
    std::mem::swap(&mut control, &mut second_control);
    let mut retry = start;
    retry.address.attempt = 2;
    accepted(&mut control, &retry).await;
    let (header, bytes_again) = update(&link).await;
    assert_eq!((header.attempt, &bytes_again), (2, &bytes), "sealed once");
    let verdict = Verdict::Committed { address: retry.address, version: 1 };
    control.send(&ToClient::Verdict(verdict)).await.expect("sent");

    // The next round comes as a difference.
    let second = next(&first);
    let start = aggregator.start(RoundKind::Train, 2, &second);
    accepted(&mut control, &start).await;
    let fetch = fetched(&mut control).await;
    assert_eq!((fetch.digest, fetch.held), (second.digest(), Some(first.digest())));
    let body = difference::encode(first.encoded(), second.encoded()).expect("smaller");
    link.send_blob(&blob(BlobKind::Difference, &second, &body), body.into()).await.expect("sent");
    let (_, bytes) = update(&link).await;
    assert_eq!(bytes, aggregator.expected(2, &second).bytes());
    let verdict = Verdict::Committed { address: start.address, version: 2 };
    control.send(&ToClient::Verdict(verdict)).await.expect("sent");

    // An evaluation on the hold-out, of the version that is held.
    let start = aggregator.start(RoundKind::Evaluate, 2, &second);
    accepted(&mut control, &start).await;
    let ToAggregator::Evaluation(Evaluation { examples, correct, loss_sum, .. }) = recv(&mut control).await else {
        panic!("no figures")
    };
    assert_eq!(examples, aggregator.rows().1.len() as u64);
    assert!(correct <= examples && loss_sum > 0.0);
    client.stop(&link, &mut control).await;

    // After a restart the version is still there: nothing is fetched.
    let client = Client::start(&config);
    let (link, mut control) = aggregator.welcome(2).await;
    let start = aggregator.start(RoundKind::Train, 3, &second);
    accepted(&mut control, &start).await;
    let (_, bytes) = update(&link).await;
    assert_eq!(bytes, aggregator.expected(3, &second).bytes());
    client.stop(&link, &mut control).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inv8_a_model_of_another_size_than_the_plans_is_not_asked_for() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let pki = Pki::new(SEED);
    let aggregator = Aggregator::new(&pki);
    let client = Client::start(&config(&pki, folder.path(), aggregator.endpoint.local_addr().expect("bound")));
    let (link, mut control) = aggregator.welcome(1).await;
    let mut start = aggregator.start(RoundKind::Train, 1, &initial(&aggregator.plan));
    start.base.length = 4 << 30;
    accepted(&mut control, &start).await;
    assert_eq!(recv(&mut control).await, ToAggregator::Decline(start.address, Decline::ModelUnavailable));
    client.stop(&link, &mut control).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_final_refusal_at_the_first_connection_ends_the_client() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let foreign = Aggregator::new(&Pki::new(SEED + 1));
    let address = foreign.endpoint.local_addr().expect("bound");
    let client = Client::start(&config(&Pki::new(SEED), folder.path(), address));
    let error = timeout(WAIT, client.done).await.expect("in time").expect("no panic").expect_err("refused");
    assert!(matches!(error, ClientError::Refused(Refusal::ForeignCertificate)), "{error}");
    drop(client.stop);
}
