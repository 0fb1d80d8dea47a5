//! A machine without a certificate: what it can do, whom it believes, and what binds its request to the session.

use starling_certs::{Key, request};
use starling_net::join::{Authority, ask};
use starling_net::{Clock, Endpoint, Incoming, JoinLink};
use starling_testkit::Pki;
use starling_wire::{Credential, FromAuthority, JoinRequest, Refusal, Role, ToAuthority, Token};

use crate::{aggregator, credentials, device, next_failure, next_link, patient, transport};

fn fingerprint(pki: &Pki) -> [u8; 16] {
    let whole = starling_certs::inspect::fingerprint(pki.ca_pem()).expect("a certificate").0;
    *whole.first_chunk().expect("32 bytes")
}

async fn next_joiner(server: &Endpoint) -> JoinLink {
    match patient(server.accept()).await {
        Some(Incoming::Joining(link)) => link,
        other => panic!("expected a joining machine, got {other:?}"),
    }
}

fn question(key: &Key) -> impl FnOnce(&[u8; 32]) -> ToAuthority {
    move |channel| ToAuthority::Join(request::join(channel, key, Some(Token([4; 12])), "pump".into(), "test".into()))
}

#[tokio::test]
async fn inv9_a_request_is_asked_once_answered_once_and_bound_to_its_session() {
    let pki = Pki::new(1);
    let (server, address) = aggregator(&pki);
    let key = Key::generate().expect("entropy");
    let wanted = Credential { certificate_pem: "leaf".into(), ca_pem: "root".into(), now_unix_s: 7 };
    let clock = Clock::system(0);
    let asking = async {
        let authority = Authority::Fingerprint(fingerprint(&pki));
        let path = transport(Default::default());
        ask(address, &authority, &clock, &path, question(&key)).await
    };
    let answering = async {
        let link = next_joiner(&server).await;
        let channel = link.channel();
        let answered = link.answer(|question| async {
            let ToAuthority::Join(request) = question else { panic!("it was a join") };
            assert!(request::is_proven_join(&channel, &request), "both sides export the same");
            let elsewhere = JoinRequest { token: None, ..request };
            assert!(!request::is_proven_join(&channel, &elsewhere));
            FromAuthority::Issued(wanted.clone())
        });
        answered.await
    };
    let (asked, answered) = patient(async { tokio::join!(asking, answering) }).await;
    assert_eq!(asked.expect("answered"), FromAuthority::Issued(wanted.clone()));
    assert_eq!(answered, Ok(None));
    // The same listener goes on to serve members.
    let member = device(&pki, &pki.issue(Role::Device, 1));
    let (up, _) = patient(async { tokio::join!(member.dial(address), next_link(&server)) }).await;
    up.expect("a member is a member");
}

#[tokio::test]
async fn a_refusal_is_told_with_its_code() {
    let pki = Pki::new(1);
    let (server, address) = aggregator(&pki);
    let key = Key::generate().expect("entropy");
    let clock = Clock::system(0);
    let authority = Authority::CaPem(pki.ca_pem());
    let path = transport(Default::default());
    let (asked, answered) = patient(async {
        tokio::join!(ask(address, &authority, &clock, &path, question(&key)), async {
            next_joiner(&server).await.answer(|_| async { FromAuthority::Refused(Refusal::TokenUsed) }).await
        })
    })
    .await;
    assert_eq!(asked.expect("answered"), FromAuthority::Refused(Refusal::TokenUsed));
    assert_eq!(answered, Ok(Some(Refusal::TokenUsed)));
}

#[tokio::test]
async fn inv9_nothing_is_said_to_an_aggregator_of_another_ca() {
    let (pki, foreign) = (Pki::new(1), Pki::new(2));
    // The impostor shows a chain of the foreign CA, and then one of the right CA for another role.
    let impostor = credentials(&foreign, &foreign.issue(Role::Aggregator, 0));
    let device = credentials(&pki, &pki.issue(Role::Device, 0));
    for (own, expected) in [(impostor, Refusal::ForeignCertificate), (device, Refusal::WrongRole)] {
        let server = Endpoint::bind(crate::ANY, &own, &transport(Default::default())).expect("a free port");
        let address = server.local_addr().expect("bound");
        let clock = Clock::system(0);
        let authority = Authority::Fingerprint(fingerprint(&pki));
        let path = transport(Default::default());
        let never = |_: &[u8; 32]| -> ToAuthority { panic!("the request was built for an impostor") };
        let (asked, failure) =
            patient(async { tokio::join!(ask(address, &authority, &clock, &path, never), next_failure(&server)) })
                .await;
        assert_eq!(asked.expect_err("refused").refusal(), Some(expected));
        assert_eq!((failure.reason.refusal, failure.reason.by_peer), (Some(expected), true), "{failure}");
    }
}
