//! An aggregator with an authority of its own, as an operator sets it up, and machines that join it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use starling_certs::{Authority, Validity};
use starling_testkit::fleet::{PATIENCE, rounds};
use starling_testkit::process::run;
use starling_testkit::{Process, until};
use starling_wire::{DeviceId, Identity, Refusal, Role};
use tempfile::TempDir;

/// Longer than any single command takes on a busy machine.
pub(crate) const COMMAND: Duration = Duration::from_secs(60);

/// A fleet's folder: `ca/`, `aggregator/`, one folder a device.
pub(crate) struct Scene {
    folder: TempDir,
    pub(crate) aggregator: Option<Process>,
    address: SocketAddr,
    enrolment: String,
}

pub(crate) fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_starling"))
}

/// The time, in seconds since 1970.
pub(crate) fn now_unix_s() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs()
}

/// Runs `starling` and returns its exit code, standard output and standard error.
pub(crate) fn starling(arguments: &[&str]) -> (Option<i32>, String, String) {
    let (status, out, err) = run("starling", binary(), arguments, COMMAND);
    (status.code(), out, err)
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary path is text")
}

impl Scene {
    /// An authority and an aggregator's certificate, and the aggregator started. `enrolment` is what `[enrolment]` says beside
    /// the authority.
    pub(crate) fn new(enrolment: &str) -> Self {
        Self::with_own_life(enrolment, None)
    }

    /// As [`Scene::new`], with an aggregator's first certificate that lasts for so many seconds.
    pub(crate) fn with_own_life(enrolment: &str, own_life_s: Option<u64>) -> Self {
        let folder = tempfile::Builder::new().prefix("starling-").tempdir().expect("a temporary folder");
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut scene = Self { folder, aggregator: None, address, enrolment: enrolment.to_owned() };
        let (ca, tls) = (scene.path("ca"), scene.path("aggregator/tls"));
        assert_eq!(starling(&["certs", "init", "--dir", text(&ca)]).0, Some(0));
        let issue = ["certs", "issue", "aggregator", "--authority", text(&ca), "--name", "agg", "--out", text(&tls)];
        assert_eq!(starling(&issue).0, Some(0));
        if let Some(life_s) = own_life_s {
            scene.issue_own(life_s);
        }
        // The root's key is not needed to run.
        std::fs::rename(ca.join("root.key"), scene.path("offline-root.key")).expect("moved");
        scene.start();
        scene
    }

    /// Gives the aggregator a certificate for so many seconds from now.
    fn issue_own(&self, life_s: u64) {
        let tls = self.path("aggregator/tls");
        std::fs::remove_dir_all(&tls).expect("what was issued goes");
        let authority = Authority::open(&self.path("ca")).expect("the authority is there");
        let identity = Identity { id: DeviceId::seeded(7, 0), role: Role::Aggregator, name: "agg".into() };
        let now_s = now_unix_s();
        let validity = Validity::seconds(now_s, life_s, now_s + life_s);
        authority.issue(&identity, validity).expect("issued").write(&tls).expect("written");
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path("aggregator/config.toml")
    }

    /// Where the aggregator listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts the aggregator, or starts it again at the same address.
    #[track_caller]
    pub(crate) fn start(&mut self) {
        let config = format!(
            "listen = \"{}\"\nstate_dir = \"state\"\npath = \"loopback\"\n[tls]\nca = \"tls/ca.pem\"\n\
             certificate = \"tls/certificate.pem\"\nkey = \"tls/key.pem\"\n[enrolment]\nauthority = \"../ca\"\n{}\n",
            self.address, self.enrolment
        );
        std::fs::write(self.config(), config).expect("the folder can be written");
        let arguments = ["aggregator", "run", "--config", text(&self.config())].map(str::to_owned);
        let mut process = Process::spawn("aggregator", binary(), arguments);
        self.address =
            process.wait_stdout("its address", PATIENCE, |line| line.strip_prefix("listening ")?.trim().parse().ok());
        self.aggregator = Some(process);
    }

    /// An operator's verb, as JSON.
    #[track_caller]
    pub(crate) fn ask(&self, arguments: &[&str]) -> Value {
        let config = self.config();
        let whole = [&["aggregator"], arguments, &["--json", "--config", text(&config)]].concat();
        let (code, out, err) = starling(&whole);
        assert_eq!(code, Some(0), "{arguments:?}: {err}");
        serde_json::from_str(&out).expect("JSON")
    }

    /// Stops the aggregator as `systemctl stop` does.
    #[track_caller]
    pub(crate) fn stop(&mut self) {
        let mut aggregator = self.aggregator.take().expect("it runs");
        aggregator.terminate();
        aggregator.wait_exit(PATIENCE);
    }

    /// Waits until the device of that name is connected.
    #[track_caller]
    pub(crate) fn wait_connected(&self, name: &str) {
        until(&format!("the connection of {name}"), PATIENCE, || {
            (self.device(name)?["connected"] == true).then_some(())
        });
    }

    /// A join string.
    #[track_caller]
    pub(crate) fn invite(&self, more: &[&str]) -> String {
        let answer = self.ask(&[&["device", "invite"], more].concat());
        answer["join"].as_str().expect("a join string").to_owned()
    }

    /// The records of the audit log, which the command and the other code find whole.
    #[track_caller]
    pub(crate) fn audit_log(&self) -> Vec<Value> {
        let (config, log) = (self.config(), self.path("log.jsonl"));
        for verb in ["verify", "export"] {
            let out = if verb == "export" { vec!["--out", text(&log)] } else { vec![] };
            let (code, said, err) =
                starling(&[&["aggregator", "audit", verb, "--config", text(&config)], &out[..]].concat());
            assert_eq!(code, Some(0), "audit {verb}: {said}\n{err}");
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/audit/verify.py");
        match std::process::Command::new("python3").arg(script).arg(&log).output() {
            Ok(checked) => assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout)),
            Err(error) => eprintln!("SKIPPED: python3 cannot be run ({error})"),
        }
        let lines = std::fs::read_to_string(&log).expect("it was exported");
        let records = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        records.filter(|record| record["seq"].is_u64()).collect()
    }

    /// Joins as `name`; exit code and standard error.
    pub(crate) fn join(&self, string: &str, name: &str) -> (Option<i32>, String) {
        let out = self.path(name);
        let (code, _, err) =
            starling(&["client", "join", string, "--out", text(&out), "--name", name, "--path", "loopback"]);
        (code, err)
    }

    /// The line of `device list` for a name.
    pub(crate) fn device(&self, name: &str) -> Option<Value> {
        self.ask(&["device", "list"]).as_array()?.iter().find(|device| device["name"] == name).cloned()
    }

    /// Waits until the operator sees `reason` for somebody whom `who` fits.
    #[track_caller]
    pub(crate) fn wait_operator_sees(&self, reason: Refusal, who: &str) {
        until(&format!("{} for {who}", reason.name()), PATIENCE, || {
            let answer = self.ask(&["devices"]);
            let fits = |peer: &Value| {
                peer["code"] == reason.code() && peer["who"].as_str().is_some_and(|text| text.contains(who))
            };
            answer["turned_away"].as_array()?.iter().any(fits).then_some(())
        });
    }

    /// Joins with a fresh invitation and gives the device its part of the digits.
    #[track_caller]
    pub(crate) fn enrol(&self, name: &str, index: u32, devices: u32) {
        let (code, err) = self.join(&self.invite(&["--name", name]), name);
        assert_eq!(code, Some(0), "{err}");
        self.bind(name, index, devices);
    }

    /// Names the data of a device in the configuration that `join` has written.
    pub(crate) fn bind(&self, name: &str, index: u32, devices: u32) {
        let path = self.path(name).join("starling-client.toml");
        let written = std::fs::read_to_string(&path).expect("join has written it");
        let data = format!(
            "[[task]]\nname = \"digits\"\n[task.data]\nformat = \"csv\"\ntrain = \"embedded:optdigits\"\n\
             [task.partition]\nhow = \"iid\"\ndevices = {devices}\nindex = {index}\nseed = 1\n"
        );
        std::fs::write(&path, written + &data).expect("the folder can be written");
    }

    /// Starts the client of a device.
    pub(crate) fn run(&self, name: &str) -> Process {
        let config = self.path(name).join("starling-client.toml");
        Process::spawn(name, binary(), ["client", "run", "--config", text(&config)])
    }

    /// Starts a run of digits.
    #[track_caller]
    pub(crate) fn start_run(&self, devices: u32, rounds: u32, more: &str) -> u64 {
        let task = self.task(devices, rounds, more);
        self.ask(&["run", "start", text(&task)])["run"].as_u64().expect("a number")
    }

    /// The task file of a run of digits; `more` goes to its federation.
    pub(crate) fn task(&self, devices: u32, rounds: u32, more: &str) -> PathBuf {
        let task = self.path("digits.toml");
        let words = format!(
            "name = \"digits\"\nkind = \"classification\"\n[data]\nformat = \"csv\"\ntrain = \"embedded:optdigits\"\n\
             shape = [1, 8, 8]\nscale = \"unit\"\n[model]\nlayers = [\"flatten\", {{ linear = {{ out = 10 }} }}]\n\
             [train]\nepochs = 1\n[federation]\ndevices = {devices}\ndevices_min = {devices}\nrounds = {rounds}\n{more}\n"
        );
        std::fs::write(&task, words).expect("the folder can be written");
        task
    }

    pub(crate) fn status(&self) -> Value {
        self.ask(&["run", "status"])
    }

    /// Waits until so many rounds are committed, and returns the status then.
    #[track_caller]
    pub(crate) fn wait_rounds(&self, count: usize) -> Value {
        until(&format!("{count} rounds"), PATIENCE, || {
            let status = self.status();
            (rounds(&status).len() >= count).then_some(status)
        })
    }
}

/// What `device …` says of a device by its id.
pub(crate) fn id(device: &Value) -> String {
    device["device"].as_str().unwrap_or_else(|| panic!("a device has an id: {}", json!(device))).to_owned()
}
