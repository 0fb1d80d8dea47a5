//! A crash in the middle of an erasure. Each step is done as the daemon does it, and then nothing more: what is on the disk is what a power cut
//! would leave. The next start has to complete it, once, without being asked.

use std::path::Path;

use serde_json::{Value, json};
use starling_audit::VerifierKey;
use starling_audit::erasure::Certificate;
use starling_certs::{Authority, Validity};
use starling_store::{KeySource, Store};
use starling_testkit::fleet::PATIENCE;
use starling_testkit::until;
use starling_wire::{DeviceId, Identity, Role};

use super::tests::{joined, open};
use super::{Registry, devices};
use crate::config::AggregatorConfig;

/// How far an erasure came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The intent is durable, and nothing else has happened.
    Retired,
    /// Its key is overwritten and gone; records and blobs are still there.
    KeyDestroyed,
    /// All that belongs to it is gone.
    Forgotten,
    /// A certificate lies there that no record names.
    Signed,
}

/// Does an erasure up to `step`.
fn erase_until(step: Step, registry: &mut Registry, device: DeviceId) {
    registry.retire(1_000, device, false).expect("durable");
    let (store, id) = (&registry.store, device.to_string());
    if step == Step::KeyDestroyed {
        let keys = store.path().join("keys/devices");
        let wraps: Vec<_> =
            std::fs::read_dir(&keys).expect("a folder").map(|entry| entry.expect("a file").path()).collect();
        assert_eq!(wraps.len(), 1, "one device is known");
        // The mark of who was forgotten comes before the key goes; it is an empty file of the same name.
        let marks = store.path().join("keys/forgotten");
        std::fs::create_dir_all(&marks).expect("a folder");
        std::fs::write(marks.join(wraps[0].file_name().expect("a name")), b"").expect("marked");
        starling_store::destroy_file(&wraps[0]).expect("destroyed");
    }
    if matches!(step, Step::Forgotten | Step::Signed) {
        assert!(store.forget(&id).expect("forgotten").key_destroyed);
    }
    if step == Step::Signed {
        let digest = starling_wire::Digest::of(b"never named");
        store.put_blob(&digest.to_string(), b"never named").expect("written");
    }
}

fn configure(folder: &Path) -> AggregatorConfig {
    let authority = Authority::open(&folder.join("ca")).expect("it is there");
    let identity = Identity { id: DeviceId::seeded(7, 0), role: Role::Aggregator, name: "agg".into() };
    authority.issue(&identity, Validity::days(1)).expect("issued").write(&folder.join("tls")).expect("written");
    let text = "listen = \"127.0.0.1:0\"\nstate_dir = \"state\"\n[tls]\nca = \"tls/ca.pem\"\ncertificate = \"tls/certificate.pem\"\n\
                key = \"tls/key.pem\"\n[enrolment]\nauthority = \"ca\"\n";
    std::fs::write(folder.join("config.toml"), text).expect("written");
    AggregatorConfig::load(&folder.join("config.toml")).expect("good")
}

/// Runs the daemon until `wanted` is in its audit log; returns the records.
fn run_until(config: &AggregatorConfig, wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (own, socket) = (config.clone(), config.admin_socket());
    let daemon = std::thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        runtime.block_on(crate::server::run(own, None, async { _ = stopped.await }))
    });
    let ask = |ask: Value| crate::admin::ask(&socket, &json!({ "verb": "audit", "ask": ask })).ok();
    let records = until("the record", PATIENCE, || {
        let size = ask(json!({ "what": "checkpoint" }))?["size"].as_u64()?;
        let page = ask(json!({ "what": "records", "from": 0, "end": size }))?;
        let lines = page["lines"].as_array()?.iter().filter_map(Value::as_str);
        let records: Vec<Value> = lines.filter_map(|line| serde_json::from_str(line).ok()).collect();
        wanted(&records).then_some(records)
    });
    stop.send(()).expect("it runs");
    daemon.join().expect("no panic").expect("it stopped as it was told");
    records
}

fn erasures(records: &[Value], device: DeviceId) -> usize {
    let of_it =
        |record: &&Value| record["what"] == "device-erased" && record["about"]["device"] == device.to_string().as_str();
    records.iter().filter(of_it).count()
}

#[test]
fn inv5_an_erasure_that_a_crash_cut_off_at_any_step_is_completed_by_the_next_start() {
    for step in [Step::Retired, Step::KeyDestroyed, Step::Forgotten, Step::Signed] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut registry = open(folder.path(), false, 0);
        let (device, _) = joined(&mut registry);
        erase_until(step, &mut registry, device);
        // The power is gone: nothing is closed in an orderly way but what the kernel closes.
        drop(registry);

        let config = configure(folder.path());
        run_until(&config, |records| erasures(records, device) == 1);
        let state = folder.path().join("state");
        let certificate = || {
            let store = Store::open(&state, &KeySource::beside(&state)).expect("opened");
            store.verify().expect("whole");
            assert!(store.compartment_ids().expect("listed").is_empty(), "{step:?}: nothing of it is left");
            assert!(store.is_forgotten(&device.to_string()), "{step:?}");
            let gone = devices::gone_of(&store, device).expect("read").expect("it is known to be gone");
            assert!(gone.certificate.is_some(), "{step:?}");
            crate::erasure::certificate(&store, device).expect("read").expect("signed")
        };
        let signed = certificate();
        let keys: Vec<VerifierKey> = std::fs::read_to_string(state.join("audit.pub"))
            .expect("it is there")
            .lines()
            .map(|line| line.parse().expect("a key"))
            .collect();
        let read = Certificate::verified(&signed, &keys).expect("the log's key has signed it");
        assert_eq!(read.device, device);
        let came_first = matches!(step, Step::Retired);
        assert_eq!(read.destroyed.key, came_first, "{step:?}: it says whether the key was there when it was signed");

        // A second start finds nothing left to do.
        let stopped =
            |records: &[Value]| records.iter().filter(|record| record["what"] == "daemon-stopped").count() == 1;
        let records = run_until(&config, stopped);
        assert_eq!(erasures(&records, device), 1, "{step:?}");
        assert_eq!(certificate(), signed, "{step:?}: there is one certificate");
    }
}
