//! An aggregator and its devices as real processes on loopback, with certificates of one CA.
//!
//! Everything lies in one temporary folder: `aggregator/` and `device-N/`, each with `tls/`, `state/` and `config.toml`.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use starling_certs::Issued;
use starling_wire::Role;
use tempfile::TempDir;

use crate::pki::{Deployed, Pki, deploy};
use crate::process::Process;
use crate::wait::until;

/// How long a state may take to come on a machine that is busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How long the local socket may take to answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

/// The index of the aggregator in the PKI: far from any device's.
const AGGREGATOR_INDEX: u32 = 1_000_000;

/// A fleet of processes. All of them end when it is dropped.
pub struct Fleet {
    /// The CA that the fleet trusts.
    pub pki: Pki,
    /// Options of `aggregator` that stand in front of its verb, from its next start on.
    pub aggregator_options: Vec<String>,
    /// What stands at the end of the aggregator's configuration, from its next start on: whole sections.
    pub aggregator_sections: String,
    binary: PathBuf,
    folder: TempDir,
    data: String,
    address: SocketAddr,
    aggregator: Option<Process>,
    devices: BTreeMap<u32, Process>,
}

impl Fleet {
    /// A fleet whose processes are `binary`, nobody started yet. `data` is what a device's `[[task]]` says, for the device
    /// of an index: `{index}` is replaced by it.
    ///
    /// # Panics
    /// If there is no temporary folder or no entropy.
    pub fn new(binary: &str, seed: u64, data: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("starling-").tempdir().expect("a temporary folder can be made");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            pki: Pki::new(seed),
            aggregator_options: Vec::new(),
            aggregator_sections: String::new(),
            binary: binary.into(),
            folder,
            data: data.into(),
            address,
            aggregator: None,
            devices: BTreeMap::new(),
        }
    }

    /// The temporary folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The binary under test.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// Where the aggregator listens; port 0 before its first start.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The aggregator's configuration file.
    pub fn aggregator_config(&self) -> PathBuf {
        self.folder().join("aggregator/config.toml")
    }

    /// Starts the aggregator, or starts it again with its state and at the same address, and waits until it listens.
    ///
    /// # Panics
    /// If it does not come up.
    #[track_caller]
    pub fn start_aggregator(&mut self) {
        let folder = self.folder().join("aggregator");
        let tls = folder.join("tls");
        if !tls.exists() {
            deploy(&self.pki.issue(Role::Aggregator, AGGREGATOR_INDEX), &tls, None);
        }
        // Written anew at each start: the first one finds the port that the others keep.
        let state = folder.join("state").display().to_string();
        let config = format!(
            "listen = \"{}\"\nstate_dir = {state:?}\npath = \"loopback\"\n{}\n{}",
            self.address,
            deployed(&tls).toml(),
            self.aggregator_sections
        );
        std::fs::write(folder.join("config.toml"), config).expect("the folder can be written");
        let config = self.aggregator_config();
        let mut arguments = vec!["aggregator".to_owned()];
        arguments.extend(self.aggregator_options.iter().cloned());
        arguments.extend(["run".to_owned(), "--config".to_owned(), config.display().to_string()]);
        let mut process = Process::spawn("aggregator", &self.binary, arguments);
        self.address = process
            .wait_stdout("`listening ADDR`", PATIENCE, |line| line.strip_prefix("listening ")?.trim().parse().ok());
        self.aggregator = Some(process);
    }

    /// The aggregator's process.
    ///
    /// # Panics
    /// If it has not been started.
    #[track_caller]
    pub fn aggregator(&mut self) -> &mut Process {
        self.aggregator.as_mut().expect("the test has started the aggregator")
    }

    /// Writes the configuration of a client with the certificate `issued`, which trusts the fleet's CA whoever issued it.
    ///
    /// # Panics
    /// If `name` has been used before.
    pub fn configure_client(&self, name: &str, issued: &Issued, index: u32) -> PathBuf {
        self.configure_client_towards(name, issued, index, self.address)
    }

    /// As [`Fleet::configure_client`], for a client that finds the aggregator at `address`: through a [`crate::Link`].
    ///
    /// # Panics
    /// If `name` has been used before.
    pub fn configure_client_towards(&self, name: &str, issued: &Issued, index: u32, address: SocketAddr) -> PathBuf {
        let folder = self.folder().join(name);
        let files = deploy(issued, &folder.join("tls"), Some(&self.pki));
        let state = folder.join("state").display().to_string();
        let config = format!(
            "aggregator = \"{address}\"\nstate_dir = {state:?}\npath = \"loopback\"\n{}\n{}",
            files.toml(),
            self.data.replace("{index}", &index.to_string())
        );
        let path = folder.join("config.toml");
        std::fs::write(&path, config).expect("the folder can be written");
        path
    }

    /// Starts a client with the configuration at `config`.
    ///
    /// # Panics
    /// If the binary cannot be started.
    pub fn spawn_client(&self, name: &str, config: &Path) -> Process {
        let arguments = ["client".as_ref(), "run".as_ref(), "--config".as_ref(), config.as_os_str()];
        Process::spawn(name, &self.binary, arguments)
    }

    /// Starts the device of an index, or starts it again with its state.
    ///
    /// # Panics
    /// If the binary cannot be started.
    pub fn start_device(&mut self, index: u32) {
        self.start_device_as(index, "client run");
    }

    /// The same with another command of the binary than `client run`.
    ///
    /// # Panics
    /// If the binary cannot be started.
    pub fn start_device_as(&mut self, index: u32, command: &str) {
        let name = format!("device-{index}");
        let config = self.folder().join(&name).join("config.toml");
        if !config.exists() {
            self.configure_client(&name, &self.pki.issue(Role::Device, index), index);
        }
        let words = command.split(' ').map(AsRef::as_ref);
        let arguments = words.chain(["--config".as_ref(), config.as_os_str()]);
        let process = Process::spawn(&name, &self.binary, arguments);
        self.devices.insert(index, process);
    }

    /// The process of a device.
    ///
    /// # Panics
    /// If it has not been started.
    #[track_caller]
    pub fn device(&mut self, index: u32) -> &mut Process {
        self.devices.get_mut(&index).expect("the test has started this device")
    }

    /// Asks the aggregator's local socket; `None` while nobody answers there.
    ///
    /// # Panics
    /// If the answer is no JSON.
    pub fn ask(&self, request: &Value) -> Option<Result<Value, String>> {
        let socket = UnixStream::connect(self.folder().join("aggregator/state/admin.sock")).ok()?;
        socket.set_read_timeout(Some(ANSWER_PATIENCE)).ok()?;
        (&socket).write_all(format!("{request}\n").as_bytes()).ok()?;
        let mut line = String::new();
        BufReader::new(&socket).read_line(&mut line).ok()?;
        if line.is_empty() {
            return None;
        }
        let mut answer: Value = serde_json::from_str(&line).expect("the local socket speaks JSON lines");
        match answer.get("error") {
            Some(error) => Some(Err(error.as_str().unwrap_or_default().to_owned())),
            None => Some(Ok(answer["ok"].take())),
        }
    }

    /// Asks until there is an answer.
    ///
    /// # Panics
    /// If there is none, or it is an error.
    #[track_caller]
    pub fn ask_surely(&self, request: &Value) -> Value {
        until("an answer of the local socket", PATIENCE, || self.ask(request))
            .unwrap_or_else(|error| panic!("{request} was answered: {error}"))
    }

    /// Starts a run and returns its id.
    ///
    /// # Panics
    /// If it is refused.
    #[track_caller]
    pub fn start_run(&self, task: &str, seed: u64) -> u64 {
        let answer = self.ask_surely(&json!({ "verb": "run-start", "task": task, "overrides": [], "seed": seed }));
        answer["run"].as_u64().unwrap_or_else(|| panic!("a run has a number: {answer}"))
    }

    /// Waits until the status of `run` maps to something.
    ///
    /// # Panics
    /// If it does not in time: the message holds the last status.
    #[track_caller]
    pub fn wait_status<T>(&self, run: u64, what: &str, mut wanted: impl FnMut(&Value) -> Option<T>) -> T {
        let request = json!({ "verb": "run-status", "run": run });
        let mut last = Value::Null;
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until(what, PATIENCE, || {
                if let Some(Ok(status)) = self.ask(&request) {
                    last = status;
                }
                wanted(&last)
            })
        }));
        found.unwrap_or_else(|_| panic!("waited in vain for {what}; the last status was {last:#}"))
    }

    /// Waits until `run` has committed `rounds` rounds, and returns its status then.
    ///
    /// # Panics
    /// If it does not in time.
    #[track_caller]
    pub fn wait_rounds(&self, run: u64, rounds: usize) -> Value {
        let what = format!("{rounds} rounds");
        self.wait_status(run, &what, |status| (self::rounds(status).len() >= rounds).then(|| status.clone()))
    }

    /// Waits until so many devices are connected.
    ///
    /// # Panics
    /// If they are not in time.
    #[track_caller]
    pub fn wait_connected(&self, run: u64, devices: u64) {
        let what = format!("{devices} connected devices");
        self.wait_status(run, &what, |status| (status["devices_connected"] == devices).then_some(()));
    }
}

/// The rounds of a run's status.
pub fn rounds(status: &Value) -> &[Value] {
    status["rounds"].as_array().map_or(&[], Vec::as_slice)
}

/// A whole number of a status.
///
/// # Panics
/// If it is missing or no such number.
#[track_caller]
pub fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or_else(|| panic!("{field} is a whole number: {value}"))
}

fn deployed(tls: &Path) -> Deployed {
    Deployed { ca: tls.join("ca.pem"), certificate: tls.join("certificate.pem"), key: tls.join("key.pem") }
}
