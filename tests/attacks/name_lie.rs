//! A device with a good certificate says that it is another one.

use starling_wire::{Refusal, Role, ToClient};

use crate::attacker::{Attacker, next_message};
use crate::battlefield::{ATTACKER, Battlefield};

#[test]
fn inv9_a_hello_in_another_devices_name_is_refused() {
    let mut field = Battlefield::new(32);
    let (address, ca) = (field.fleet.address(), field.fleet.pki.ca_pem().to_owned());
    let issued = field.fleet.pki.issue(Role::Device, ATTACKER);
    field.runtime.block_on(async {
        let attacker = Attacker::connect(address, &issued, &ca).await.expect("the certificate is good");
        let (_send, mut receive) = attacker.hello("device-0").await;
        // The message may lose the race against the close code, which says the same.
        if let Some(message) = next_message(&mut receive).await {
            assert_eq!(message, ToClient::Refused(Refusal::NameMismatch));
        }
        assert_eq!(attacker.closed_with().await, Some(Refusal::NameMismatch));
    });
    field.wait_operator_sees(Refusal::NameMismatch, "device-66");
    field.assert_undisturbed();
}
