//! One attempt from the aggregator's side: the honest machine, and what it would tell each device.

use starling_net::Certified;
use starling_secagg::Setup;
use starling_secagg::limits::MEMBER_BYTES;
use starling_update::{SecureRound, SecureSums, Summed};
use starling_wire::{Address, DeviceId, RoundStart, SecureLetter};

use super::scene::{Said, Scene};

/// Where in a roster its members begin: behind format, kind, digest and their number.
const MEMBERS_AT: usize = 36;

/// What devices are asked in a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Asked {
    /// Their own keys.
    Keys,
    /// To share their secrets with everybody in the roster.
    Roster,
    /// To mask, now that the others' envelopes are there.
    Envelopes,
    /// To confirm who survived.
    Survivors,
    /// For the shares that take masks off.
    Shares,
    /// Nothing any more.
    Nothing,
}

impl Asked {
    const ALL: [Asked; 6] =
        [Asked::Keys, Asked::Roster, Asked::Envelopes, Asked::Survivors, Asked::Shares, Asked::Nothing];
}

/// An attempt under way.
pub(super) struct Attempt {
    pub(super) address: Address,
    pub(super) setup: Setup,
    /// What the devices are asked now.
    pub(super) asked: Asked,
    /// What each device has said, by its index, in the order of the stages.
    pub(super) said: Vec<(u32, Vec<u8>)>,
    round: SecureRound,
    certified: Certified,
    certificates: Vec<Vec<u8>>,
}

impl Attempt {
    /// One whose devices are asked for their keys.
    pub(super) fn new(scene: &Scene, start: &RoundStart) -> Self {
        let setup = scene.sums.setup(start.address, start.base.digest);
        let round = SecureRound::new(&setup).expect("a setup");
        let (certified, certificates) = (Certified::default(), Vec::new());
        Self { address: start.address, setup, asked: Asked::Keys, said: Vec::new(), round, certified, certificates }
    }

    /// Takes what a device shows of itself.
    #[track_caller]
    pub(super) fn take_keys(&mut self, scene: &Scene, index: u32, said: Said) {
        let Said::Mail(mail) = said else { panic!("keys are a message, and not {said:?}") };
        let judge = super::scene::credentials(&scene.fleet.pki, starling_wire::Role::Aggregator, 7);
        let chain: Vec<&[u8]> = mail.chain.iter().map(|certificate| certificate.as_slice()).collect();
        self.certificates.extend(chain.iter().map(|certificate| certificate.to_vec()));
        self.certified.extend(Certified::check(&judge, chain));
        self.take(scene, index, mail.message);
    }

    /// Takes what a device said in the open stage.
    #[track_caller]
    pub(super) fn take(&mut self, scene: &Scene, index: u32, message: Vec<u8>) {
        self.round.take(scene.id(index), &message, &self.certified).expect("an honest device's message");
        self.said.push((index, message));
    }

    /// Closes the open stage.
    #[track_caller]
    pub(super) fn close(&mut self) {
        self.round.close().expect("enough devices");
        self.asked = Asked::ALL[self.asked as usize + 1];
    }

    /// What an honest aggregator sends to a device now.
    #[track_caller]
    pub(super) fn honest(&self, scene: &Scene, index: u32) -> SecureLetter {
        let message = self.round.message(&scene.id(index)).expect("the device is asked").to_vec();
        let certificates = if self.round.names_members() { self.certificates.clone() } else { Vec::new() };
        SecureLetter { message, certificates, rolls: Vec::new() }
    }

    /// What a device has said, in the order of the stages.
    pub(super) fn said_by(&self, device: u32) -> Vec<&[u8]> {
        self.said.iter().filter(|(index, _)| *index == device).map(|(_, message)| message.as_slice()).collect()
    }

    /// What the sum says.
    #[track_caller]
    pub(super) fn summed(&self, sums: &SecureSums) -> Summed {
        self.round.summed(sums).expect("a sum").expect("a mean")
    }
}

/// The members of a roster, each beginning with its id, in the order of these.
pub(super) fn members(roster: &[u8]) -> Vec<Vec<u8>> {
    roster[MEMBERS_AT..].chunks(MEMBER_BYTES).map(<[u8]>::to_vec).collect()
}

/// A roster of these members for `setup`.
pub(super) fn roster(setup: &Setup, mut members: Vec<Vec<u8>>) -> Vec<u8> {
    members.sort();
    let count = u16::try_from(members.len()).expect("a small cohort");
    [&[1, 2][..], &setup.digest().0, &count.to_le_bytes(), &members.concat()].concat()
}

/// The place of a device in a roster's members.
#[track_caller]
pub(super) fn place(members: &[Vec<u8>], device: DeviceId) -> usize {
    members.iter().position(|member| member[..16] == device.0).expect("a member")
}
