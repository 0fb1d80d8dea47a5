//! The device's machine.
//!
//! ```text
//!  begin ──▶ advertised ── handle_roster ──▶ shared ── handle_envelopes ──▶ received ── mask ──▶ masked
//!                                                 revealed ◀── handle_unmask ── confirmed ◀── handle_survivors ──┘
//! ```
//!
//! What leaves the device comes as [`Unsent`]: the caller writes its record to the disk and gets the message for it. A message that was
//! answered is answered with the same bytes again; another message in its place is refused. A reason that
//! [`Refused::burns`](crate::Refused::burns) ends the device's part in the attempt and wipes its keys.
//!
//! Secrets are in memory only. A process that starts again has none, so it can send again what it had sent ([`Restored`]) and nothing else.

mod guard;
mod input;
mod journal;
mod share;
mod unmask;

use std::collections::BTreeMap;

use starling_wire::{DeviceId, Digest};
use zeroize::Zeroizing;

pub use self::guard::Guard;
pub use self::journal::{Restored, Unsent};
use crate::agreement::KeyPair;
use crate::bitmap::Bitmap;
use crate::identity::{IdentityKey, advertisement};
use crate::keys::{Entropy, Key, Purpose, Shares};
use crate::limits::SHARE_BYTES;
use crate::message::{Kind, Member};
use crate::refused::Refused;
use crate::session::Session;
use crate::setup::{Policy, Setup};

/// One device in one attempt.
pub struct Device {
    setup: Setup,
    about: Digest,
    policy: Policy,
    member: Member,
    // None once the attempt has been burned.
    secrets: Option<Secrets>,
    joined: Option<Joined>,
    // What was answered to the aggregator's message of each kind, and to which bytes.
    answered: BTreeMap<u8, (Digest, Option<Unsent>)>,
}

/// What only this device knows.
struct Secrets {
    mask: KeyPair,
    envelope: KeyPair,
    seed: Key,
    // For the polynomials of the shares.
    polynomials: Key,
}

/// What there is once the roster is accepted.
struct Joined {
    session: Session,
    index: usize,
    neighbours: Vec<usize>,
    // Whom the owner's witnesses know, this device included; nothing where he asks for none.
    witnessed: Option<Bitmap>,
    // For each neighbour the key of its envelope to us.
    incoming: Vec<Key>,
    // Our own share of our own seed.
    own_share: Zeroizing<[u8; SHARE_BYTES]>,
    // Which neighbours have shared, and what we hold for each of those.
    present: Bitmap,
    held: Vec<Option<Shares>>,
    masked: bool,
    survivors: Option<Bitmap>,
}

impl Device {
    /// Enters an attempt with fresh keys: checks the setup against the owner's policy, notes the attempt in `guard`, and advertises.
    /// The caller persists `guard` with the record.
    ///
    /// # Errors
    /// [`Refused`] when the setup is not good enough, the attempt is not new, or the entropy is not.
    pub fn begin(
        setup: &Setup,
        policy: &Policy,
        device: DeviceId,
        guard: &mut Guard,
        entropy: &Entropy,
        key: &dyn IdentityKey,
    ) -> Result<(Self, Unsent), Refused> {
        policy.check(setup)?;
        guard.begin(&setup.address, entropy.fingerprint())?;
        let about = setup.digest();
        let mask = KeyPair::from_secret(&entropy.derive(&Purpose::MaskSecret, &about));
        let envelope = KeyPair::from_secret(&entropy.derive(&Purpose::EnvelopeSecret, &about));
        let signature = key.sign(&advertisement(&about, &device, mask.public(), envelope.public()));
        let member = Member {
            device,
            round: setup.address.round,
            attempt: setup.address.attempt,
            model: setup.model,
            mask_key: *mask.public(),
            envelope_key: *envelope.public(),
            signature,
        };
        let secrets = Secrets {
            mask,
            envelope,
            seed: entropy.derive(&Purpose::SelfMaskSeed, &about),
            polynomials: entropy.derive(&Purpose::Polynomials, &about),
        };
        let unsent = Unsent::new(&about, &member.advertise(&about));
        let machine = Self {
            setup: *setup,
            about,
            policy: *policy,
            member,
            secrets: Some(secrets),
            joined: None,
            answered: BTreeMap::new(),
        };
        Ok((machine, unsent))
    }

    /// Which device this is.
    pub fn id(&self) -> DeviceId {
        self.member.device
    }

    /// What the attempt was set up as.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// The digest of setup and roster, once the roster is accepted: what a cohort draws its rotation and its coordinate subset from.
    pub fn session(&self) -> Option<Digest> {
        self.joined.as_ref().map(|joined| joined.session.digest)
    }

    /// Whether the keys are gone: nothing new will be sent in this attempt.
    pub fn is_burned(&self) -> bool {
        self.secrets.is_none()
    }

    /// Leaves the attempt for good: the keys and the shares of others are wiped.
    pub fn burn(&mut self) {
        self.secrets = None;
        if let Some(joined) = &mut self.joined {
            joined.held.clear();
            joined.incoming.clear();
            joined.own_share = Zeroizing::new([0; SHARE_BYTES]);
        }
    }

    /// The step for one message of the aggregator: answered before, it is answered alike; otherwise `step` answers it once.
    fn once(
        &mut self,
        kind: Kind,
        bytes: &[u8],
        second: Refused,
        step: impl FnOnce(&mut Self) -> Result<Option<Unsent>, Refused>,
    ) -> Result<Option<Unsent>, Refused> {
        let digest = Digest::of(bytes);
        let result = match self.answered.get(&(kind as u8)) {
            Some((before, answer)) if *before == digest => return Ok(answer.clone()),
            Some(_) => Err(second),
            None if self.is_burned() => return Err(Refused::Burned),
            None => step(self),
        };
        match result {
            Ok(answer) => {
                self.answered.insert(kind as u8, (digest, answer.clone()));
                Ok(answer)
            }
            Err(refused) => {
                if refused.burns() {
                    self.burn();
                }
                Err(refused)
            }
        }
    }

    fn secrets(&self) -> Result<&Secrets, Refused> {
        self.secrets.as_ref().ok_or(Refused::Burned)
    }
}
