//! A blob whose header declares 4 GB: refused on the header, whether its sender is in the cohort or not.

use quinn::{RecvStream, SendStream, WriteError};
use starling_wire::{
    Available, BlobHeader, BlobKind, CodecId, Digest, Refusal, Role, RoundStart, RunId, ToAggregator, ToClient, encode,
};
use tokio::time::timeout;

use crate::attacker::{Attacker, PATIENCE, next_message};
use crate::battlefield::{ATTACKER, Battlefield};

const FOUR_GB: u64 = 4_000_000_000;

fn header(run: RunId, round: u32, attempt: u16) -> BlobHeader {
    BlobHeader {
        kind: BlobKind::Update,
        codec: CodecId { family: 1, parameter: 0 },
        run,
        round,
        attempt,
        offset: 0,
        length: FOUR_GB,
        digest: Digest([7; 32]),
    }
}

/// Sends the header and then zeros until the aggregator stops the stream. Returns its reason and the bytes that it took.
async fn pour(attacker: &Attacker, header: &BlobHeader) -> (Option<Refusal>, u64) {
    let mut stream = attacker.connection.open_uni().await.expect("a stream is allowed");
    stream.write_all(&header.to_bytes()).await.expect("sent");
    let mut sent = 0;
    let zeros = vec![0u8; 64 * 1024];
    let poured = async {
        loop {
            match stream.write(&zeros).await {
                Ok(written) => sent += written as u64,
                Err(WriteError::Stopped(code)) => return Refusal::from_code(code.into_inner()),
                Err(other) => panic!("the stream ended otherwise: {other}"),
            }
        }
    };
    let reason = timeout(PATIENCE, poured).await.expect("the aggregator stops the stream");
    (reason, sent)
}

#[test]
fn inv8_a_header_of_4_gb_from_outside_the_cohort_is_refused_unread() {
    let mut field = Battlefield::new(33);
    let (address, ca) = (field.fleet.address(), field.fleet.pki.ca_pem().to_owned());
    let issued = field.fleet.pki.issue(Role::Device, ATTACKER);
    let run = RunId(u32::try_from(field.run).expect("a small number"));
    let round = u32::try_from(starling_testkit::fleet::rounds(&field.fleet.wait_rounds(field.run, 1)).len() + 1);
    let round = round.expect("a small number");
    field.runtime.block_on(async {
        let attacker = Attacker::connect(address, &issued, &ca).await.expect("the certificate is good");
        let (_send, _receive) = attacker.enrol("device-66").await;
        for (run, reasons) in [
            (RunId(4_000_000), &[Refusal::UnknownRun][..]),
            // The round may have gone on meanwhile.
            (run, &[Refusal::NotInCohort, Refusal::RoundClosed, Refusal::StaleAttempt]),
        ] {
            let (reason, sent) = pour(&attacker, &header(run, round, 1)).await;
            assert!(reason.is_some_and(|reason| reasons.contains(&reason)), "{reason:?}");
            assert!(sent < 16 << 20, "{sent} bytes were taken of a blob that is refused on its header");
        }
    });
    field.assert_undisturbed();
}

/// Offers itself for the task and waits until a round asks for it.
async fn join(send: &mut SendStream, receive: &mut RecvStream) -> RoundStart {
    let available = ToAggregator::Available(Available { tasks: vec!["digits".to_owned()] });
    send.write_all(&encode(&available).expect("it fits")).await.expect("sent");
    loop {
        match next_message(receive).await.expect("the connection lives") {
            ToClient::RoundStart(start) => return start,
            _ => continue,
        }
    }
}

#[test]
fn inv8_a_member_of_the_cohort_that_declares_4_gb_is_refused_and_the_round_commits_without_it() {
    let mut field = Battlefield::new(34);
    let (address, ca) = (field.fleet.address(), field.fleet.pki.ca_pem().to_owned());
    let issued = field.fleet.pki.issue(Role::Device, ATTACKER);
    // The attacker stays, so that the rest of the fleet has to get along with it.
    let (attacker, _send, _receive, start) = field.runtime.block_on(async {
        let attacker = Attacker::connect(address, &issued, &ca).await.expect("the certificate is good");
        let (mut send, mut receive) = attacker.enrol("device-66").await;
        let start = join(&mut send, &mut receive).await;
        let address = start.address;
        let (reason, sent) = pour(&attacker, &header(address.run, address.round, address.attempt)).await;
        assert_eq!(reason, Some(Refusal::LengthMismatch));
        assert!(sent < 16 << 20, "{sent} bytes were taken of a blob that is refused on its header");
        (attacker, send, receive, start)
    });
    let round = u64::from(start.address.round);
    let status = field.fleet.wait_rounds(field.run, usize::try_from(round).expect("a small number"));
    let committed = &starling_testkit::fleet::rounds(&status)[usize::try_from(round - 1).expect("a small number")];
    assert_eq!(committed["contributors"], crate::battlefield::HONEST, "{committed}");
    assert!(attacker.connection.close_reason().is_none(), "inv 12: the stream has ended, not the connection");
    drop(attacker);
    field.assert_undisturbed();
}
