//! From the operator's word to the end of a connection, without the start of any command: this process asks over the daemon's socket, or over
//! QUIC, and is itself the device that is thrown out.

use std::time::{Duration, Instant};

use serde_json::json;
use starling_aggregator::Daemon;
use starling_net::{Control, Credentials, Endpoint, Link, TlsFiles, Transport, greet_aggregator};
use starling_testkit::fleet::{PATIENCE, rounds};
use starling_wire::{Refusal, ToAggregator, ToClient};
use tokio::runtime::Runtime;

use crate::scene::{Scene, id, text};

/// A revoked device's connection is gone within this.
const CUT: Duration = Duration::from_secs(1);

/// Devices that are thrown out by each of the two ways.
const TIMES: usize = 5;

/// A device that is nothing but a connection; without its control stream the aggregator would take it for gone.
async fn connect(scene: &Scene, name: &str) -> (Endpoint, Link, Control<ToAggregator, ToClient>) {
    let file = |file| scene.path(name).join(file);
    let files = TlsFiles { ca: file("ca.pem"), certificate: file("certificate.pem"), key: file("key.pem") };
    let credentials = Credentials::load(&files).expect("it has joined");
    let endpoint = Endpoint::dialer(scene.address(), &credentials, &Transport::default()).expect("a socket");
    let link = endpoint.dial(scene.address()).await.expect("the aggregator listens");
    let (control, _) = greet_aggregator(&link, "test").await.expect("it is welcome");
    (endpoint, link, control)
}

/// From before the request is written until the device hears of its end; and until the operator is answered.
fn revoke(runtime: &Runtime, scene: &Scene, name: &str, operator: &Daemon) -> (Duration, Duration) {
    let device = id(&scene.device(name).expect("it is listed"));
    let (_endpoint, link, _control) = runtime.block_on(connect(scene, name));
    scene.wait_connected(name);
    let watching = runtime.spawn(async move {
        let reason = tokio::time::timeout(PATIENCE, link.closed()).await.expect("it is cut");
        (Instant::now(), reason.refusal)
    });
    let spoken = Instant::now();
    operator.ask(&json!({ "verb": "device-revoke", "device": device })).expect("it may");
    let answered = spoken.elapsed();
    let (ended, refusal) = runtime.block_on(watching).expect("it has watched");
    assert_eq!(refusal, Some(Refusal::Revoked));
    (ended - spoken, answered)
}

#[test]
fn a_revoked_devices_connection_ends_within_a_second_of_the_operators_word() {
    let scene = Scene::new("");
    scene.enrol("worker", 0, 1);
    let _client = scene.run("worker");
    scene.start_run(1, 1_000_000, "");
    scene.wait_rounds(1);
    let (operator, address) = (scene.path("alice"), scene.address().to_string());
    scene.ask(&["operator", "issue", "operator", "--name", "alice", "--out", text(&operator)]);
    let runtime = Runtime::new().expect("a runtime");
    let ways = [
        ("local socket", Daemon::here(scene.path("aggregator/state/admin.sock"))),
        ("devices' QUIC endpoint", Daemon::remote(&address, &operator).expect("dialed")),
    ];
    for (way, daemon) in ways {
        let mut times: Vec<_> = (0..TIMES)
            .map(|index| {
                let name = format!("{}-{index}", &way[..5]);
                assert_eq!(scene.join(&scene.invite(&["--name", &name]), &name).0, Some(0));
                revoke(&runtime, &scene, &name, &daemon)
            })
            .collect();
        times.sort();
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let answered = times.iter().map(|(_, answered)| *answered).max().expect("some");
        let (median, longest) = (times[TIMES / 2].0, times[TIMES - 1].0);
        eprintln!(
            "revoked over the {way}, {TIMES} times while rounds go by: the connection ended after {:.1} ms (median; at most \
             {:.1} ms), the word was durable and answered after at most {:.1} ms",
            ms(median),
            ms(longest),
            ms(answered)
        );
        assert!(longest < CUT, "over the {way} it took {longest:?}");
    }
    let before = rounds(&scene.status()).len();
    scene.wait_rounds(before + 1);
}
