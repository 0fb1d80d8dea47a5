//! Certificates that are not good enough: another CA's, an expired one, one that is not valid yet, one of the wrong role.
//! The client prints the reason and gives up, and the operator sees the same reason with the name in the certificate.

use starling_certs::Issued;
use starling_daemon::Exit;
use starling_net::{Credentials, Endpoint, Transport, greet_aggregator};
use starling_testkit::Pki;
use starling_testkit::fleet::PATIENCE;
use starling_wire::{Refusal, Role};

use crate::battlefield::{ATTACKER, Battlefield};

/// The real client with `issued` is refused with `reason` on both sides.
#[track_caller]
fn assert_refused(field: &mut Battlefield, name: &str, issued: &Issued, certificate_name: &str, reason: Refusal) {
    let config = field.fleet.configure_client(name, issued, 0);
    let mut client = field.fleet.spawn_client(name, &config);
    let exit = client.wait_exit(PATIENCE);
    assert_eq!(exit.code(), Some(i32::from(Exit::Refused.code())), "{}", client.transcript());
    let said = client.stderr().join("\n");
    assert!(said.contains(reason.text()), "the client says why: {}", client.transcript());
    field.wait_operator_sees(reason, certificate_name);
}

#[test]
fn inv9_certificates_that_do_not_vouch_for_a_device_are_refused_with_distinct_reasons() {
    let mut field = Battlefield::new(31);
    let foreign = Pki::new(99);
    let issued = foreign.issue(Role::Device, ATTACKER);
    assert_refused(&mut field, "foreign", &issued, "device-66", Refusal::ForeignCertificate);

    let issued = field.fleet.pki.issue_expired(Role::Device, ATTACKER + 1);
    assert_refused(&mut field, "expired", &issued, "device-67", Refusal::CertificateExpired);

    let issued = field.fleet.pki.issue_early(Role::Device, ATTACKER + 2);
    assert_refused(&mut field, "early", &issued, "device-68", Refusal::CertificateExpired);

    field.assert_undisturbed();
}

#[test]
fn inv9_a_certificate_of_another_role_is_refused_by_the_client_itself_and_by_the_aggregator() {
    let mut field = Battlefield::new(43);
    for (index, role) in [(ATTACKER, Role::Operator), (ATTACKER + 1, Role::Aggregator)] {
        let name = format!("{role}-{index}");
        let issued = field.fleet.pki.issue(role, index);
        let config = field.fleet.configure_client(&name, &issued, 0);
        let mut client = field.fleet.spawn_client(&name, &config);
        assert_eq!(client.wait_exit(PATIENCE).code(), Some(i32::from(Exit::Usage.code())), "{}", client.transcript());
        let said = client.stderr().join("\n");
        assert!(said.contains(&format!("role {role}")) && said.contains("role device"), "the client says why: {said}");

        // Somebody else's client would dial: with our own greeting, it learns the aggregator's reason.
        let credentials = Credentials::from_pem(field.fleet.pki.ca_pem(), &issued.certificate_pem, &issued.key_pem);
        let address = field.fleet.address();
        let refused = field.runtime.block_on(async {
            let transport = Transport::default();
            let endpoint = Endpoint::dialer(address, &credentials.expect("a good certificate"), &transport);
            let link = endpoint.expect("a socket").dial(address).await.expect("the CA is the right one");
            greet_aggregator(&link, "test").await.expect_err("the role is wrong")
        });
        assert_eq!(refused.refusal(), Some(Refusal::WrongRole), "{refused}");
        assert!(refused.is_final(), "trying again cannot help");
        field.wait_operator_sees(Refusal::WrongRole, &name);
    }
    field.assert_undisturbed();
}
