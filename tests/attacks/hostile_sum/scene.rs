//! The devices and the connections to them, from the aggregator's side.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use starling_certs::SERVER_NAME;
use starling_net::{Control, Credentials, Endpoint, Incoming, Link, Transport, greet_device};
use starling_spec::{TaskFile, TaskPlan};
use starling_testkit::Fleet;
use starling_testkit::fleet::PATIENCE;
use starling_update::{SecureSums, Version};
use starling_wire::{
    Address, BlobHeader, BlobKind, Decline, DeviceId, Fetch, Refusal, Role, RoundKind, RoundStart, RunId, RunPlan,
    SecureLetter, SecureMail, TaskId, ToAggregator, ToClient,
};
use tokio::time::timeout;

use super::attempt::{Asked, Attempt};
use crate::battlefield::data;

/// Devices of the cohort. All of them are neighbours, three of them determine a secret, and three may be a sum.
pub(super) const DEVICES: u32 = 4;

/// Whom the aggregator lies to.
pub(super) const VICTIM: u32 = 0;

/// Examples that a device counts for; all of them have more.
const WEIGHT_MAX: u32 = 100;

const SEED: u64 = 40;
const RUN: RunId = RunId(1);

/// The aggregator's index in the PKI.
const AGGREGATOR: u32 = 1_000_000;

const TASK: &str = r#"
    name = "digits"
    kind = "classification"
    [data]
    format = "csv"
    train = "embedded:optdigits"
    shape = [1, 8, 8]
    scale = "unit"
    [model]
    layers = ["flatten", { linear = { out = 10 } }]
    [train]
    epochs = 1
    [federation]
    devices = 4
    [update]
    codec = "q8"
    weight_max = 100
    [privacy]
    secure_aggregation = true
    clip = 2.0
    dropout = 0.3
"#;

/// What a device says in an attempt.
#[derive(Debug, PartialEq)]
pub(super) enum Said {
    /// It takes part.
    Accepted,
    /// Its message in a stage.
    Mail(SecureMail),
    /// Its masked update.
    Masked(Vec<u8>),
    /// It takes no part, or no further part.
    Left(Decline),
}

impl Said {
    /// The message.
    #[track_caller]
    pub(super) fn message(self) -> Vec<u8> {
        match self {
            Said::Mail(mail) => mail.message,
            Said::Masked(bytes) => bytes,
            other => panic!("the device answers, and says {other:?}"),
        }
    }
}

/// A device's connection.
struct Seat {
    link: Link,
    control: Control<ToClient, ToAggregator>,
}

/// A hostile aggregator and its fleet.
pub(super) struct Scene {
    pub(super) fleet: Fleet,
    pub(super) plan: TaskPlan,
    pub(super) sums: SecureSums,
    /// The model that everybody trains from, and another one.
    pub(super) models: [Version; 2],
    endpoint: Endpoint,
    seats: BTreeMap<u32, Seat>,
}

impl Scene {
    /// All devices are connected and know the run.
    pub(super) async fn new() -> Self {
        let fleet = Fleet::new(env!("CARGO_BIN_EXE_starling"), SEED, &data(DEVICES));
        let credentials = credentials(&fleet.pki, Role::Aggregator, AGGREGATOR);
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let endpoint = Endpoint::bind(any, &credentials, &Transport::default()).expect("a socket");
        let plan = TaskPlan::new(&TaskFile::parse(TASK, &[]).expect("a task"), SEED).expect("a plan");
        let manifest = plan.manifest().expect("a manifest");
        let model = |seed| {
            let master = starling_spec::init::initial_parameters(&manifest, seed);
            Version::publish(0, master, plan.update.down).expect("a version")
        };
        let models = [model(SEED), model(SEED + 1)];
        let sums = SecureSums::of(&plan, manifest.len()).expect("numbers").expect("secure sums");
        let mut scene = Self { fleet, plan, sums, models, endpoint, seats: BTreeMap::new() };
        for index in 0..DEVICES {
            scene.start_device(index).await;
        }
        scene
    }

    /// The id of the device of an index.
    pub(super) fn id(&self, index: u32) -> DeviceId {
        self.fleet.pki.identity(Role::Device, index).id
    }

    /// The indices of all devices in the order of a roster: of their ids.
    pub(super) fn in_order(&self) -> Vec<u32> {
        let mut indices: Vec<u32> = (0..DEVICES).collect();
        indices.sort_by_key(|index| self.id(*index));
        indices
    }

    /// Where a device is among the neighbours of another one.
    #[track_caller]
    pub(super) fn position(&self, of: u32, around: u32) -> usize {
        self.in_order().into_iter().filter(|index| *index != around).position(|index| index == of).expect("a neighbour")
    }

    /// Starts a device, or starts it again, and waits for its hello.
    pub(super) async fn start_device(&mut self, index: u32) {
        let name = format!("device-{index}");
        if !self.fleet.folder().join(&name).exists() {
            let issued = self.fleet.pki.issue(Role::Device, index);
            let address = self.endpoint.local_addr().expect("bound");
            self.fleet.configure_client_towards(&name, &issued, index, address);
        }
        self.fleet.start_device(index);
        let link = match timeout(PATIENCE, self.endpoint.accept()).await.expect("in time").expect("an open endpoint") {
            Incoming::Connected(link) => link,
            Incoming::Failed(failure) => panic!("{failure}"),
            other => panic!("nobody else comes to {SERVER_NAME}: {other:?}"),
        };
        assert_eq!(link.peer().id, self.id(index));
        let (_, mut control) = greet_device(&link, 1, &[Role::Device], PATIENCE).await.expect("a hello");
        let available = timeout(PATIENCE, control.recv()).await.expect("in time");
        assert!(matches!(available, Ok(Some(ToAggregator::Available(_)))), "{available:?}");
        let announced = RunPlan {
            run: RUN,
            owner_epoch: 1,
            task: TaskId(self.plan.id()),
            name: self.plan.name.clone(),
            plan: self.plan.to_json(),
            bundle: Vec::new(),
        };
        control.send(&ToClient::Plan(announced)).await.expect("sent");
        self.seats.insert(index, Seat { link, control });
    }

    /// `kill -9`.
    pub(super) fn kill(&mut self, index: u32) {
        self.fleet.device(index).kill();
        self.seats.remove(&index);
    }

    /// Copies a device's state folder as it is on the disk, in place of what was at `to`. The device does not run.
    pub(super) fn copy_state(&self, from: &Path, to: &Path) {
        let _ = std::fs::remove_dir_all(to);
        copy(from, to);
    }

    /// A device's state folder.
    pub(super) fn state(&self, index: u32) -> PathBuf {
        self.fleet.folder().join(format!("device-{index}/state"))
    }

    /// An honest start of an attempt.
    pub(super) fn start(&self, attempt: u16) -> RoundStart {
        let address = Address { task: TaskId(self.plan.id()), run: RUN, round: 1, attempt };
        let base = self.models[0].reference();
        RoundStart { address, kind: RoundKind::Train, base, deadline_ms: 60_000, weight_max: WEIGHT_MAX, clip: None }
    }

    /// Sends a start, which the device accepts, and gives what it says to it then.
    pub(super) async fn tell_start(&mut self, index: u32, start: &RoundStart) -> Said {
        self.send(index, &ToClient::RoundStart(*start)).await;
        assert_eq!(self.next(index, &start.address).await, Said::Accepted);
        self.next(index, &start.address).await
    }

    /// Starts an attempt with everybody, up to the roster.
    pub(super) async fn begin(&mut self, attempt: u16) -> Attempt {
        let start = self.start(attempt);
        let mut begun = Attempt::new(self, &start);
        for index in 0..DEVICES {
            let said = self.tell_start(index, &start).await;
            begun.take_keys(self, index, said);
        }
        begun.close();
        begun
    }

    /// Carries out the stages before `asked`, honestly.
    pub(super) async fn until(&mut self, attempt: &mut Attempt, asked: Asked) {
        while attempt.asked < asked {
            self.stage(attempt).await;
        }
    }

    /// Carries out the open stage, honestly.
    async fn stage(&mut self, attempt: &mut Attempt) {
        let mut letters = Vec::new();
        for index in 0..DEVICES {
            letters.push(attempt.honest(self, index));
            self.send_letter(index, &attempt.address, &letters[index as usize]).await;
        }
        for index in 0..DEVICES {
            let said = self.next(index, &attempt.address).await;
            attempt.take(self, index, said.message());
        }
        attempt.close();
    }

    /// Sends a letter and gives what the device says to it.
    pub(super) async fn ask(&mut self, attempt: &Attempt, index: u32, letter: &SecureLetter) -> Said {
        self.send_letter(index, &attempt.address, letter).await;
        self.next(index, &attempt.address).await
    }

    /// The victim has left `attempt`. It is asked again, and says nothing; then the next attempt, which is honest, is carried out with
    /// everybody in it. [`Scene::next`] fails on anything that is still said about an attempt before.
    pub(super) async fn goes_on(mut self, attempt: &Attempt, again: &[SecureLetter]) {
        for letter in again {
            self.send_letter(VICTIM, &attempt.address, letter).await;
        }
        for index in (0..DEVICES).filter(|index| *index != VICTIM) {
            self.send(index, &ToClient::RoundEnd(attempt.address, Refusal::StaleAttempt)).await;
        }
        let mut next = self.begin(attempt.address.attempt + 1).await;
        while next.asked < Asked::Nothing {
            self.stage(&mut next).await;
        }
        let summed = next.summed(&self.sums);
        assert_eq!(summed.weight, u64::from(DEVICES * WEIGHT_MAX), "the masks are gone");
        assert!(summed.train_loss > 0.0 && summed.train_loss < 4.0, "a loss per device: {}", summed.train_loss);
    }

    pub(super) async fn send(&mut self, index: u32, message: &ToClient) {
        self.seat(index).control.send(message).await.expect("the device is connected");
    }

    pub(super) async fn send_letter(&mut self, index: u32, address: &Address, letter: &SecureLetter) {
        for part in letter.parts(*address) {
            self.send(index, &ToClient::Secure(part)).await;
        }
    }

    fn seat(&mut self, index: u32) -> &mut Seat {
        self.seats.get_mut(&index).expect("the device is connected")
    }

    /// What a device says next, which has to be about the attempt at `address`. It gets the models that it asks for.
    pub(super) async fn next(&mut self, index: u32, address: &Address) -> Said {
        loop {
            let Seat { link, control } = self.seat(index);
            let heard = async {
                tokio::select! {
                    message = control.recv() => match message.expect("connected").expect("a message") {
                        ToAggregator::Accept(of) => Ok((of, Said::Accepted)),
                        ToAggregator::Decline(of, why) => Ok((of, Said::Left(why))),
                        ToAggregator::Secure(mail) => Ok((mail.address, Said::Mail(mail))),
                        ToAggregator::Fetch(fetch) => Err(fetch),
                        other => panic!("device {index} says {other:?}"),
                    },
                    blob = link.accept_blob() => {
                        let blob = blob.expect("connected");
                        let BlobHeader { run, round, attempt, .. } = *blob.header();
                        let (bytes, _) = blob.receive(PATIENCE, 1 << 20).await.expect("a masked update");
                        Ok((Address { run, round, attempt, ..*address }, Said::Masked(bytes.to_vec())))
                    }
                }
            };
            match timeout(PATIENCE, heard).await.expect("the device says something") {
                Ok((of, said)) => {
                    assert_eq!(of, *address, "device {index} says something about another attempt: {said:?}");
                    return said;
                }
                Err(fetch) => self.serve(index, address, &fetch).await,
            }
        }
    }

    async fn serve(&mut self, index: u32, address: &Address, fetch: &Fetch) {
        let model = self.models.iter().find(|model| model.digest() == fetch.digest).expect("a model of ours");
        let header = BlobHeader {
            kind: BlobKind::Model,
            codec: model.reference().codec,
            run: address.run,
            round: address.round,
            attempt: address.attempt,
            offset: 0,
            length: model.encoded().len() as u64,
            digest: model.digest(),
        };
        let bytes = model.encoded().clone();
        self.seat(index).link.send_blob(&header, bytes).await.expect("the model arrives");
    }
}

/// Credentials with a certificate of `pki`.
pub(super) fn credentials(pki: &starling_testkit::Pki, role: Role, index: u32) -> Credentials {
    let issued = pki.issue(role, index);
    Credentials::from_pem(pki.ca_pem(), &issued.certificate_pem, &issued.key_pem).expect("credentials")
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let kind = entry.file_type().expect("its kind");
        let target = to.join(entry.file_name());
        if kind.is_dir() {
            copy(&entry.path(), &target);
        } else if kind.is_file() {
            // Sockets are left out: the next process makes its own.
            std::fs::copy(entry.path(), target).expect("a copy");
        }
    }
}
