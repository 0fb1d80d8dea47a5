//! Who is let in, and what those who are not are told; on both sides.

use std::time::{Duration, SystemTime};

use starling_certs::Validity;
use starling_net::hello::{greet_aggregator_with, own_hello};
use starling_net::{
    Credentials, CredentialsError, DialError, Endpoint, GreetError, Path, Transport, greet_aggregator, greet_device,
};
use starling_testkit::Pki;
use starling_wire::{Available, Hello, Identity, Refusal, Role, ToAggregator, ToClient};

use crate::{ANY, PATIENCE, aggregator, connected, credentials, device, next_failure, next_link, patient, transport};

#[tokio::test]
async fn inv9_a_device_of_the_fleet_is_welcomed_by_the_identity_in_its_certificate() {
    let pki = Pki::new(1);
    let (server, address) = aggregator(&pki);
    let (_client, up, down) = connected(&pki, &server, address).await;
    let (asked, answered) = patient(async {
        tokio::join!(greet_aggregator(&up, "test 1.0"), greet_device(&down, 7, &[Role::Device], PATIENCE))
    })
    .await;
    let (mut control, welcome) = asked.expect("welcomed");
    let (hello, mut other) = answered.expect("greeted");
    assert_eq!((welcome.device, welcome.epoch), (pki.identity(Role::Device, 1).id, 7));
    assert_eq!(down.peer(), &pki.identity(Role::Device, 1));
    assert_eq!(up.peer(), &pki.identity(Role::Aggregator, 0));
    assert_eq!((hello.name.as_str(), hello.software.as_str()), ("device-1", "test 1.0"));

    let available = ToAggregator::Available(Available { tasks: vec!["digits".to_owned()] });
    control.send(&available).await.expect("sent");
    assert_eq!(patient(other.recv()).await.expect("received"), Some(available));
    other.send(&ToClient::RunEnd(starling_wire::RunId(3))).await.expect("sent");
    assert_eq!(patient(control.recv()).await.expect("received"), Some(ToClient::RunEnd(starling_wire::RunId(3))));
    up.finish();
    assert!(patient(down.closed()).await.is_clean());
}

/// Dials and greets with `issued`, and returns what the client is told.
async fn refused_client(client: &Endpoint, address: std::net::SocketAddr) -> GreetError {
    let link = patient(client.dial(address)).await.expect("with TLS 1.3 the handshake succeeds at first");
    patient(greet_aggregator(&link, "test")).await.map(|_| ()).expect_err("refused")
}

#[tokio::test]
async fn bad_certificates_are_refused_with_distinct_reasons_that_both_sides_see() {
    let (pki, foreign) = (Pki::new(1), Pki::new(2));
    let (server, address) = aggregator(&pki);
    for (issued, expected) in [
        (foreign.issue(Role::Device, 1), Refusal::ForeignCertificate),
        (pki.issue_expired(Role::Device, 1), Refusal::CertificateExpired),
        (pki.issue_early(Role::Device, 1), Refusal::CertificateExpired),
    ] {
        let client = device(&pki, &issued);
        let (told, failure) = tokio::join!(refused_client(&client, address), next_failure(&server));
        assert_eq!((told.refusal(), told.reason.by_peer), (Some(expected), true), "{told}");
        assert_eq!((failure.reason.refusal, failure.reason.by_peer), (Some(expected), false), "{failure}");
        assert_eq!(failure.certificate_name.as_deref(), Some("device-1"));
        assert_eq!(failure.remote.port(), client.local_addr().expect("bound").port());
        assert!(told.is_final());
    }
    // And after all of them, a good one is welcome.
    connected(&pki, &server, address).await;
}

#[tokio::test]
async fn a_device_refuses_an_aggregator_of_another_ca_and_one_that_is_none() {
    let (pki, foreign) = (Pki::new(1), Pki::new(2));
    for (issued, trusting, expected) in [
        (pki.issue(Role::Aggregator, 0), &foreign, Refusal::ForeignCertificate),
        (pki.issue_expired(Role::Aggregator, 0), &pki, Refusal::CertificateExpired),
        (pki.issue(Role::Device, 0), &pki, Refusal::WrongRole),
    ] {
        let server = Endpoint::bind(ANY, &credentials(&pki, &issued), &transport(Default::default())).expect("bound");
        let client = device(trusting, &pki.issue(Role::Device, 1));
        let address = server.local_addr().expect("bound");
        let (dialed, failure) = patient(async { tokio::join!(client.dial(address), next_failure(&server)) }).await;
        let error = dialed.map(|_| ()).expect_err("refused");
        assert!(matches!(&error, DialError::Refused { reason, .. } if !reason.by_peer), "{error}");
        assert_eq!(error.refusal(), Some(expected), "{error}");
        assert_eq!((failure.reason.refusal, failure.reason.by_peer), (Some(expected), true), "{failure}");
    }
}

#[tokio::test]
async fn a_wrong_role_a_lie_about_the_name_and_a_foreign_version_are_refused_at_the_hello() {
    let pki = Pki::new(1);
    let (server, address) = aggregator(&pki);
    let honest = |hello: Hello| hello;
    let liar = |hello: Hello| Hello { name: "device-2".to_owned(), ..hello };
    let newer = |hello: Hello| Hello { version_min: 2, version_max: 9, ..hello };
    type Change = fn(Hello) -> Hello;
    let cases: [(Role, Change, Refusal, &str); 3] = [
        (Role::Auditor, honest, Refusal::WrongRole, "the certificate's role is auditor, expected device"),
        (Role::Device, liar, Refusal::NameMismatch, "the hello says \"device-2\", the certificate \"device-1\""),
        (Role::Device, newer, Refusal::VersionNotSpoken, "versions 2 to 9 are offered, 1 is spoken"),
    ];
    for (role, change, expected, words) in cases {
        let client = device(&pki, &pki.issue(role, 1));
        let (up, down) = tokio::join!(client.dial(address), next_link(&server));
        let up = up.expect("dialed");
        let hello = change(own_hello(&up, "test"));
        let (told, seen) = patient(async {
            tokio::join!(greet_aggregator_with(&up, hello), greet_device(&down, 1, &[Role::Device], PATIENCE))
        })
        .await;
        let (told, seen) = (told.map(|_| ()).expect_err("refused"), seen.map(|_| ()).expect_err("refused"));
        assert_eq!((told.refusal(), told.reason.by_peer), (Some(expected), true), "{told}");
        assert_eq!((seen.refusal(), seen.reason.by_peer), (Some(expected), false), "{seen}");
        assert_eq!((told.reason.text.as_str(), seen.reason.text.as_str()), (words, words));
    }
}

#[tokio::test]
async fn a_peer_without_a_hello_is_refused_in_time() {
    let pki = Pki::new(1);
    let (server, address) = aggregator(&pki);
    let (_client, up, down) = connected(&pki, &server, address).await;
    let silent = greet_device(&down, 1, &[Role::Device], Duration::from_millis(50)).await;
    assert_eq!(silent.map(|_| ()).expect_err("refused").refusal(), Some(Refusal::NoHello));
    assert_eq!(patient(up.closed()).await.refusal, Some(Refusal::NoHello));
}

#[tokio::test]
async fn a_close_reason_reaches_the_peer() {
    let pki = Pki::new(1);
    let (server, address) = aggregator(&pki);
    let (_client, up, _down) = connected(&pki, &server, address).await;
    server.close(Refusal::ShuttingDown);
    let reason = patient(up.closed()).await;
    assert_eq!((reason.refusal, reason.by_peer), (Some(Refusal::ShuttingDown), true));
    assert!(!reason.is_final(), "a restart is worth waiting for");
    assert!(patient(server.accept()).await.is_none());
    patient(server.wait_idle()).await;
}

#[tokio::test]
async fn renewed_credentials_serve_the_next_handshake_and_spare_open_links() {
    let (old, new) = (Pki::new(1), Pki::new(2));
    let (server, address) = aggregator(&old);
    let (_first, up, down) = connected(&old, &server, address).await;
    server.replace_credentials(&credentials(&new, &new.issue(Role::Aggregator, 0))).expect("usable");
    let (_second, _, down_new) = connected(&new, &server, address).await;
    assert_eq!(down_new.peer(), &new.identity(Role::Device, 1));
    let (asked, answered) = patient(async {
        tokio::join!(greet_aggregator(&up, "test"), greet_device(&down, 1, &[Role::Device], PATIENCE))
    })
    .await;
    assert!(asked.is_ok() && answered.is_ok());
}

#[test]
fn a_restarted_aggregator_tells_the_peers_of_its_former_life() {
    let pki = Pki::new(1);
    let own = credentials(&pki, &pki.issue(Role::Aggregator, 0));
    let transport = Transport { path: Path::Loopback, idle_timeout_ms: 60_000, keep_alive_ms: 200 };
    let runtime =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let (first, second, outside) = (runtime(), runtime(), runtime());
    let server = first.block_on(async { Endpoint::bind(ANY, &own, &transport) }).expect("a free port");
    let address = server.local_addr().expect("bound");
    let client = outside
        .block_on(async { Endpoint::dialer(address, &credentials(&pki, &pki.issue(Role::Device, 1)), &transport) })
        .expect("a free port");
    let (link, down) = outside.block_on(async { tokio::join!(client.dial(address), next_link(&server)) });
    let link = link.expect("dialed");

    // As `kill -9`: the tasks stop where they are, and nobody says goodbye.
    first.shutdown_background();
    drop((server, down));
    let again = || second.block_on(async { Endpoint::bind(address, &own, &transport) });
    let restarted = starling_testkit::until("the port is free again", PATIENCE, || again().ok());
    let reason = outside.block_on(patient(link.closed()));
    assert!(reason.by_peer && reason.refusal.is_none() && !reason.is_final(), "{reason}");
    drop(restarted);
}

#[tokio::test]
async fn nobody_listens_means_no_answer() {
    let pki = Pki::new(1);
    let client = device(&pki, &pki.issue(Role::Device, 1));
    let closed = std::net::UdpSocket::bind(ANY).expect("a free port");
    let address = closed.local_addr().expect("bound");
    let error = patient(client.dial(address)).await.map(|_| ()).expect_err("nobody answers");
    assert!(matches!(error, DialError::NoAnswer { .. }), "{error}");
}

#[test]
fn credentials_say_what_is_wrong_with_them() {
    let pki = Pki::new(1);
    let (one, two) = (pki.issue(Role::Device, 1), pki.issue(Role::Device, 2));
    let error = |ca: &str, certificate: &str, key: &str| {
        Credentials::from_pem(ca, certificate, key).map(|_| ()).expect_err("wrong")
    };
    assert!(matches!(error(pki.ca_pem(), &one.certificate_pem, &two.key_pem), CredentialsError::KeyMismatch));
    assert!(matches!(error("", &one.certificate_pem, &one.key_pem), CredentialsError::Empty("CA file")));
    assert!(matches!(error(pki.ca_pem(), &one.certificate_pem, ""), CredentialsError::Pem { what: "key file", .. }));
    // The root speaks for nobody.
    assert!(matches!(error(pki.ca_pem(), pki.ca_pem(), &one.key_pem), CredentialsError::NoIdentity));
}

#[cfg(unix)]
#[test]
fn inv10_a_key_that_others_can_read_is_refused_and_debug_shows_no_key() {
    use std::os::unix::fs::PermissionsExt;
    let pki = Pki::new(1);
    let folder = std::env::temp_dir().join(format!("starling-net-{}", std::process::id()));
    let deployed = starling_testkit::pki::deploy(&pki.issue(Role::Device, 1), &folder, None);
    let files =
        starling_net::TlsFiles { ca: deployed.ca, certificate: deployed.certificate, key: deployed.key.clone() };
    let loaded = Credentials::load(&files).expect("as issued");
    assert!(!format!("{loaded:?}").contains("PRIVATE") && format!("{loaded:?}").contains("device-1"));
    std::fs::set_permissions(&deployed.key, std::fs::Permissions::from_mode(0o640)).expect("own file");
    let error = Credentials::load(&files).map(|_| ()).expect_err("exposed");
    assert!(matches!(error, CredentialsError::KeyExposed { mode: 0o640, .. }), "{error}");
    std::fs::remove_dir_all(&folder).expect("own folder");
}

#[test]
fn the_certificates_end_is_known() {
    let pki = Pki::new(1);
    let end = SystemTime::now() + Duration::from_secs(3600);
    let identity = Identity { name: "pump-4".to_owned(), ..pki.identity(Role::Device, 4) };
    let issued = pki.issue_as(&identity, Validity { not_before: SystemTime::now(), not_after: end });
    let expected = end.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
    let credentials = credentials(&pki, &issued);
    assert!(credentials.valid_until_unix_s().abs_diff(i64::try_from(expected).expect("small")) <= 1);
    assert_eq!(credentials.identity(), &identity);
}
