//! An aggregator with a good certificate that cheats at secure sums: over QUIC, against real clients, each a process of its own. It speaks
//! the protocol as it is until it lies to one device in one step. The device leaves with the lie's own reason, says nothing more in that
//! attempt, whatever is asked, and takes its part in the next attempt once that is honest.
//!
//! `common/secagg/tests/rounds/attacks` has the refusals that need more devices (survivors that fall into parts of a ring) or a device that
//! takes part in the lie (keys of low order).

mod attempt;
mod disk;
mod envelopes;
mod replays;
mod roster;
mod scene;
mod shares;
mod start;
mod survivors;

use starling_wire::{Decline, Refusal, SecureLetter};

use attempt::{Asked, Attempt};
use scene::{Said, Scene, VICTIM};

/// A lie: from the attempt and the honest letter to what the victim is sent in its place, one letter after the other.
type Lie = fn(&Scene, &Attempt, SecureLetter) -> Vec<SecureLetter>;

/// Plays an attempt up to the letters of `asked`, lies to the victim in them, and sees that it answers all letters but the last, leaves at that
/// one for `reason`, and is in the next attempt.
async fn refused(asked: Asked, reason: Refusal, lie: Lie) {
    let mut scene = Scene::new().await;
    let mut attempt = scene.begin(1).await;
    scene.until(&mut attempt, asked).await;
    let honest = attempt.honest(&scene, VICTIM);
    let letters = lie(&scene, &attempt, honest.clone());
    let (last, before) = letters.split_last().expect("a lie");
    for letter in before {
        let said = scene.ask(&attempt, VICTIM, letter).await;
        assert!(matches!(said, Said::Mail(_)), "there is nothing wrong with it yet: {said:?}");
    }
    assert_eq!(scene.ask(&attempt, VICTIM, last).await, Said::Left(Decline::Secure(reason)));
    scene.goes_on(&attempt, &[honest]).await;
}

/// Sets or clears the bit of `position` in the bitmap that begins at `at`.
fn set(message: &mut [u8], at: usize, position: usize, wanted: bool) {
    let (byte, bit) = (&mut message[at + position / 8], 1 << (position % 8));
    *byte = if wanted { *byte | bit } else { *byte & !bit };
}
