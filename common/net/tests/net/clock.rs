//! Clocks that are wrong by two days, in virtual time: what passes, and what the diagnosis says.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use starling_certs::Validity;
use starling_net::{Clock, Endpoint, greet_aggregator};
use starling_testkit::Pki;
use starling_wire::{Identity, Refusal, Role};

use crate::{ANY, credentials, next_failure, next_link, patient, transport};

const HOUR: u64 = 3600;
/// A month from now: the CA, which is made now, is valid two days earlier and two days later.
static NOW: LazyLock<u64> = LazyLock::new(|| Clock::system(0).now_unix_s() + 30 * 24 * HOUR);

/// A certificate that was issued an hour ago for a day.
fn issue(pki: &Pki, role: Role) -> starling_certs::Issued {
    let at = |unix_s| SystemTime::UNIX_EPOCH + Duration::from_secs(unix_s);
    let identity = Identity { ..pki.identity(role, 3) };
    pki.issue_as(&identity, Validity { not_before: at(*NOW - HOUR), not_after: at(*NOW + 23 * HOUR) })
}

#[tokio::test]
async fn a_late_clock_is_corrected_by_what_is_known_and_diagnosed_where_nothing_is() {
    let pki = Pki::new(1);
    let own = credentials(&pki, &issue(&pki, Role::Aggregator)).with_clock(Clock::standing(*NOW));
    let server = Endpoint::bind(ANY, &own, &transport(Default::default())).expect("a free port");
    let address = server.local_addr().expect("bound");
    let late = Clock::standing(*NOW - 48 * HOUR);
    let device = credentials(&pki, &issue(&pki, Role::Device)).with_clock(late.clone());
    let client = Endpoint::dialer(ANY, &device, &transport(Default::default())).expect("a free port");

    let (dialed, failure) = patient(async { tokio::join!(client.dial(address), next_failure(&server)) }).await;
    let error = dialed.map(|_| ()).expect_err("for this clock nobody is valid yet");
    assert_eq!(error.refusal(), Some(Refusal::CertificateExpired));
    let text = error.to_string();
    assert!(text.contains("not valid yet") && text.contains(&(*NOW - 48 * HOUR).to_string()), "{text}");
    assert_eq!(failure.reason.refusal, Some(Refusal::CertificateExpired));

    // The aggregator's time, learnt a minute ago: both sides agree again.
    assert!(late.raise_floor(*NOW - 60));
    let (up, down) = patient(async { tokio::join!(client.dial(address), next_link(&server)) }).await;
    up.expect("the floor counts");
    assert_eq!(down.peer().role, Role::Device);
}

#[tokio::test]
async fn an_early_clock_is_diagnosed_on_either_side() {
    let pki = Pki::new(1);
    for (aggregator_clock, device_clock, by_device) in [(*NOW, *NOW + 48 * HOUR, true), (*NOW + 48 * HOUR, *NOW, false)]
    {
        let own = credentials(&pki, &issue(&pki, Role::Aggregator)).with_clock(Clock::standing(aggregator_clock));
        let server = Endpoint::bind(ANY, &own, &transport(Default::default())).expect("a free port");
        let address = server.local_addr().expect("bound");
        let device = credentials(&pki, &issue(&pki, Role::Device)).with_clock(Clock::standing(device_clock));
        let client = Endpoint::dialer(ANY, &device, &transport(Default::default())).expect("a free port");
        let asking = async {
            match client.dial(address).await {
                Ok(link) => greet_aggregator(&link, "test").await.map(|_| ()).expect_err("refused").reason,
                Err(starling_net::DialError::Refused { reason, .. }) => reason,
                Err(other) => panic!("{other}"),
            }
        };
        let (told, failure) = patient(async { tokio::join!(asking, next_failure(&server)) }).await;
        assert_eq!((told.refusal, told.by_peer), (Some(Refusal::CertificateExpired), !by_device), "{told}");
        assert_eq!(failure.reason.refusal, Some(Refusal::CertificateExpired), "{failure}");
        let own_words = if by_device { &told.text } else { &failure.reason.text };
        assert!(own_words.contains("expired") && own_words.contains(&(*NOW + 48 * HOUR).to_string()), "{own_words}");
    }
}
