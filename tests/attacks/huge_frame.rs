//! A control frame that declares 4 GB.

use starling_wire::{Refusal, Role};

use crate::attacker::Attacker;
use crate::battlefield::{ATTACKER, Battlefield};

#[test]
fn inv8_a_frame_of_4_gb_is_refused_on_its_length() {
    let mut field = Battlefield::new(37);
    let (address, ca) = (field.fleet.address(), field.fleet.pki.ca_pem().to_owned());
    let issued = field.fleet.pki.issue(Role::Device, ATTACKER);
    field.runtime.block_on(async {
        let attacker = Attacker::connect(address, &issued, &ca).await.expect("the certificate is good");
        let (mut send, _receive) = attacker.enrol("device-66").await;
        send.write_all(&u32::MAX.to_le_bytes()).await.expect("sent");
        assert_eq!(attacker.closed_with().await, Some(Refusal::FrameTooLarge));

        // The same before the hello.
        let early = Attacker::connect(address, &issued, &ca).await.expect("the certificate is good");
        let (mut send, _receive) = early.connection.open_bi().await.expect("a control stream is allowed");
        send.write_all(&u32::MAX.to_le_bytes()).await.expect("sent");
        assert_eq!(early.closed_with().await, Some(Refusal::FrameTooLarge));
    });
    field.assert_undisturbed();
}
