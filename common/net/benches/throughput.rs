//! What one core moves between two endpoints of one process: plain quinn, then blobs with header and SHA-256.
//!
//! ```text
//! taskset -c 1 cargo bench -p starling-net --bench throughput            # 1 GiB each
//! taskset -c 1 cargo bench -p starling-net --bench throughput -- 4096    # 4 GiB each, in MiB
//! ```
//!
//! Rates are bytes over CPU time (one thread does everything), so that a busy machine does not spoil them.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use starling_net::{Credentials, Endpoint, Incoming, Link, Path, Transport, measure};
use starling_testkit::Pki;
use starling_wire::{BlobHeader, BlobKind, CodecId, Digest, Role, RunId};

/// The blob of the budgets: 1.66 M parameters as f32.
const BLOB_BYTES: usize = 4 * 1_660_000;

/// The devices of the budgets.
const DEVICES: usize = 10;

fn main() {
    // `cargo bench` adds `--bench`; a bare number is MiB.
    let mib = std::env::args().skip(1).find_map(|argument| argument.parse::<u64>().ok()).unwrap_or(1024);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    println!("path      datagram  plain MB/s  blobs MB/s  share   (per second of CPU)");
    for path in [Path::Internet, Path::Loopback] {
        let (plain, blobs) = runtime.block_on(measure_path(path, mib << 20));
        println!(
            "{:<9} {:>8} {plain:>11.0} {blobs:>11.0} {:>5.0}%",
            format!("{path:?}").to_lowercase(),
            path.mtu_bytes(),
            100.0 * blobs / plain
        );
    }
    for path in [Path::Internet, Path::Loopback] {
        let (cpu_ms, lost) = runtime.block_on(fan_in(path));
        println!(
            "{DEVICES} devices send {BLOB_BYTES} bytes each over {path:?}: best of 5 {cpu_ms} ms of CPU, {lost} packets lost"
        );
    }
}

/// [`DEVICES`] devices send one blob each, at the same time: `(CPU milliseconds, packets lost)`.
async fn fan_in(path: Path) -> (u128, u64) {
    let pki = Pki::new(1);
    let transport = Transport { path, ..Transport::default() };
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let server = Endpoint::bind(any, &credentials(&pki, Role::Aggregator), &transport).expect("a free port");
    let address = server.local_addr().expect("bound");
    let mut pairs = Vec::new();
    for _ in 0..DEVICES {
        let client = Endpoint::dialer(address, &credentials(&pki, Role::Device), &transport).expect("a free port");
        let (up, arrived) = tokio::join!(client.dial(address), server.accept());
        let (Ok(up), Some(Incoming::Connected(down))) = (up, arrived) else { panic!("the handshake failed") };
        pairs.push((client, up, down));
    }
    let mut best = (u128::MAX, u64::MAX);
    for _ in 0..5 {
        let lost_before: u64 = pairs.iter().map(|(_, up, _)| up.traffic().packets_lost).sum();
        let started = cpu();
        let mut tasks = Vec::new();
        for (_, up, down) in &pairs {
            let (up, down) = (up.clone(), down.clone());
            tasks.push(tokio::spawn(async move { blobs(&up, &down, 1).await }));
        }
        for task in tasks {
            task.await.expect("no panic");
        }
        let lost: u64 = pairs.iter().map(|(_, up, _)| up.traffic().packets_lost).sum();
        best = best.min(((cpu() - started).as_millis(), lost - lost_before));
    }
    best
}

fn credentials(pki: &Pki, role: Role) -> Credentials {
    let issued = pki.issue(role, 0);
    Credentials::from_pem(pki.ca_pem(), &issued.certificate_pem, &issued.key_pem).expect("fresh credentials")
}

async fn measure_path(path: Path, bytes: u64) -> (f64, f64) {
    let pki = Pki::new(1);
    let transport = Transport { path, ..Transport::default() };
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let server = Endpoint::bind(any, &credentials(&pki, Role::Aggregator), &transport).expect("a free port");
    let address = server.local_addr().expect("bound");
    let client = Endpoint::dialer(address, &credentials(&pki, Role::Device), &transport).expect("a free port");
    let (up, arrived) = tokio::join!(client.dial(address), server.accept());
    let (Ok(up), Some(Incoming::Connected(down))) = (up, arrived) else { panic!("the handshake failed") };

    // The first transfer finds the path's datagram size and opens the congestion window.
    measure::plain_transfer(&up, &down, bytes / 16).await.expect("warm-up");
    let started = cpu();
    measure::plain_transfer(&up, &down, bytes).await.expect("plain");
    let plain = rate(bytes, cpu() - started);
    (plain, blobs(&up, &down, bytes).await)
}

async fn blobs(up: &Link, down: &Link, bytes: u64) -> f64 {
    let body = Bytes::from(vec![7u8; BLOB_BYTES]);
    let header = BlobHeader {
        kind: BlobKind::Update,
        codec: CodecId { family: 1, parameter: 0 },
        run: RunId(1),
        round: 1,
        attempt: 1,
        offset: 0,
        length: BLOB_BYTES as u64,
        digest: Digest::of(&body),
    };
    let count = bytes.div_ceil(BLOB_BYTES as u64);
    let started = cpu();
    let send = async {
        for _ in 0..count {
            up.send_blob(&header, body.clone()).await.expect("sent");
        }
    };
    let receive = async {
        for _ in 0..count {
            let blob = down.accept_blob().await.expect("accepted");
            let (_, digest) = blob.receive(Duration::from_secs(10), BLOB_BYTES as u64).await.expect("received");
            assert_eq!(digest, header.digest);
        }
    };
    tokio::join!(send, receive);
    rate(count * BLOB_BYTES as u64, cpu() - started)
}

/// CPU time of this thread so far: the first number of the kernel's account, in nanoseconds.
fn cpu() -> Duration {
    let account = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux with scheduler statistics");
    Duration::from_nanos(account.split(' ').next().and_then(|first| first.parse().ok()).expect("a number"))
}

#[allow(clippy::cast_precision_loss, reason = "a rate for people's eyes")]
fn rate(bytes: u64, took: Duration) -> f64 {
    bytes as f64 / 1e6 / took.as_secs_f64()
}
