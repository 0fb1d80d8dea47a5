//! A device's part in a secure sum: which message of the aggregator gets which answer, and when the update can be masked.

use starling_privacy::noise::Source;
use starling_secagg::{Device, Entropy, Fleet, Guard, IdentityKey, Kind, Policy, Refused, Setup, Unsent};
use starling_wire::DeviceId;

use starling_compress::EncodeError;

use super::{Local, SecureSums};
use crate::residual::Residual;
use crate::ring::RingError;
use crate::sealed::rounding_key;

/// Why an update is not masked.
#[derive(Debug, thiserror::Error)]
pub enum MaskError {
    /// It does not become integers.
    #[error("the update does not fit the secure sum")]
    Ring(#[from] RingError),
    /// With what is owed from before it grows beyond all bounds.
    #[error("the update cannot be added to what the device still owes")]
    Owed(#[from] EncodeError),
    /// The attempt does not take it.
    #[error("the secure sum does not take the update")]
    Refused(#[from] Refused),
}

/// One device in one attempt.
pub struct SecurePart {
    device: Device,
    sums: SecureSums,
    /// Rounding is keyed by it: a simulation and the real processes round alike.
    seed: u64,
    shared: bool,
}

impl SecurePart {
    /// Enters an attempt with fresh keys. What comes with it has to be durable, like `guard`, before it is sent.
    ///
    /// # Errors
    /// [`Refused`] when the setup is not good enough, or the attempt or the entropy not new.
    pub fn enter(
        sums: &SecureSums,
        (setup, policy, seed): (&Setup, &Policy, u64),
        id: DeviceId,
        guard: &mut Guard,
        entropy: &Entropy,
        key: &dyn IdentityKey,
    ) -> Result<(Self, Unsent), Refused> {
        let (device, unsent) = Device::begin(setup, policy, id, guard, entropy, key)?;
        Ok((Self { device, sums: sums.clone(), seed, shared: false }, unsent))
    }

    /// The answer to a message of the aggregator; none to the delivery of envelopes, after which the update can be masked.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn answer(
        &mut self,
        message: &[u8],
        fleet: &dyn Fleet,
        key: &dyn IdentityKey,
    ) -> Result<Option<Unsent>, Refused> {
        let kind = message.get(1).copied();
        if kind == Some(Kind::Deliver as u8) {
            self.device.handle_envelopes(message)?;
            self.shared = true;
            return Ok(None);
        }
        let answer = if kind == Some(Kind::Roster as u8) {
            self.device.handle_roster(message, fleet)
        } else if kind == Some(Kind::Survivors as u8) {
            self.device.handle_survivors(message, key)
        } else {
            // Everything else that is no request for shares is refused there.
            self.device.handle_unmask(message, fleet)
        };
        answer.map(Some)
    }

    /// Whether envelopes have come, so that the update can be masked.
    pub fn is_ready(&self) -> bool {
        self.shared && !self.device.is_burned()
    }

    /// Whether an update leaves out parameters that go into a later one.
    pub fn keeps_residual(&self) -> bool {
        self.sums.keeps_residual()
    }

    /// The masked update, with this device's share of noise from `words`. The keys of the attempt mask this one and no other. `before` is
    /// what the device owes; with the update comes what it will owe once that is in a version.
    ///
    /// # Errors
    /// [`MaskError`].
    pub fn mask(
        &mut self,
        local: Local<'_>,
        before: Option<Residual>,
        words: &mut impl Source,
    ) -> Result<(Unsent, Option<Residual>), MaskError> {
        let session = self.device.session().ok_or(Refused::OutOfTurn("no roster has come"))?;
        let key = rounding_key(self.seed, self.device.id(), self.device.setup().address.round);
        let owed = before.map(|before| before.owed(local.delta, self.sums.codec)).transpose()?;
        let rounded = owed.as_ref().map(Residual::rounded);
        let local = Local { delta: rounded.as_deref().unwrap_or(local.delta), ..local };
        let values = self.sums.encode(local, &session, key, words)?;
        let then = owed.map(|owed| self.sums.left(owed, &session));
        Ok((self.device.mask(&values)?, then))
    }
}
