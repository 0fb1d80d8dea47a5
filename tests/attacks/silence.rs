//! Peers that connect and say nothing.

use starling_wire::{Refusal, Role};

use crate::attacker::Attacker;
use crate::battlefield::{ATTACKER, Battlefield};

/// Connections at once: several times what the honest fleet has.
const SILENT: u32 = 40;

#[test]
fn inv6_connections_without_a_hello_are_ended() {
    let mut field = Battlefield::new(40);
    let (address, ca) = (field.fleet.address(), field.fleet.pki.ca_pem().to_owned());
    let certificates: Vec<_> = (0..SILENT).map(|index| field.fleet.pki.issue(Role::Device, ATTACKER + index)).collect();
    let attackers = field.runtime.block_on(async {
        let mut attackers = Vec::new();
        for issued in &certificates {
            attackers.push(Attacker::connect(address, issued, &ca).await.expect("the certificate is good"));
        }
        attackers
    });
    field.wait_more_rounds(2);
    field.runtime.block_on(async {
        for attacker in &attackers {
            assert_eq!(attacker.closed_with().await, Some(Refusal::NoHello));
        }
    });
    field.assert_undisturbed();
}
