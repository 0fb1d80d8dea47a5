//! What the hub does about secure sums: messages to the worker, letters to devices, stages to the run's machine.

use bytes::Bytes;
use starling_protocol::run::Stage;
use starling_secagg::Kind;
use starling_wire::{Address, BlobHeader, DeviceId, Refusal, SecureMail, ToClient, secure};

use super::Hub;
use crate::worker::{Closed, Job};

impl Hub {
    /// What a device sends in a stage. Late ones are passed over: their stage is closed, and the device hears what becomes of the round.
    pub(super) async fn mail(&mut self, device: DeviceId, mail: SecureMail) {
        let address = mail.address;
        let stage = match mail.message.get(1) {
            Some(kind) if *kind == Kind::Advertise as u8 => Stage::Advertise,
            Some(kind) if *kind == Kind::Share as u8 => Stage::Share,
            Some(kind) if *kind == Kind::Confirm as u8 => Stage::Confirm,
            Some(kind) if *kind == Kind::Reveal as u8 => Stage::Reveal,
            _ => return self.fleet.cut(device, Refusal::SecureMalformed),
        };
        let open = self.runs.get(&address.run).and_then(|run| run.open.as_ref());
        match open.map(|open| open.machine.admit_mail(device, &address, stage)) {
            Some(Ok(())) => {
                if let Some(run) = self.runs.get_mut(&address.run) {
                    run.bytes_up += mail.message.len() as u64;
                }
                self.worker.queue(Job::Mail(device, mail, stage)).await;
            }
            Some(Err(reason)) => {
                tracing::debug!(device = %device, %address, ?stage, code = reason.code(), "a message of a secure sum is passed over");
            }
            None => {}
        }
    }

    /// Whether a masked update may be read.
    pub(super) async fn admit_masked(&mut self, device: DeviceId, header: &BlobHeader) -> Result<Address, Refusal> {
        let open = self.runs.get(&header.run).and_then(|run| run.open.as_ref()).ok_or(Refusal::UnknownRun)?;
        let task = open.machine.address().task;
        let address = Address { task, run: header.run, round: header.round, attempt: header.attempt };
        open.machine.admit_mail(device, &address, Stage::Mask)?;
        let sums = open.loaded.numbers.secure.as_ref().ok_or(Refusal::UnexpectedFrame)?;
        if header.length == sums.masked_len() {
            return Ok(address);
        }
        // A member whose update can never be taken must not make the others wait for the deadline.
        self.mailed(device, address, Stage::Mask, Err(Refusal::LengthMismatch)).await;
        Err(Refusal::LengthMismatch)
    }

    /// The worker has looked at what a device sent.
    pub(super) async fn mailed(
        &mut self,
        device: DeviceId,
        address: Address,
        stage: Stage,
        taken: Result<(), Refusal>,
    ) {
        let now_ms = self.now_ms();
        match taken {
            Ok(()) => {
                self.with_machine(address.run, |machine| machine.handle_mail(now_ms, device, &address, stage)).await;
            }
            Err(reason) => {
                self.refuse_update(device, address, reason).await;
                self.with_machine(address.run, |machine| machine.handle_out(now_ms, device, &address)).await;
            }
        }
    }

    /// The worker has closed a stage: letters go out before the machine looks at the next one.
    pub(super) async fn stage_closed(&mut self, closed: Closed) {
        let Closed { address, members, letters } = closed;
        letters.into_iter().for_each(|(device, letter)| self.send_letter(device, address, letter));
        let now_ms = self.now_ms();
        self.with_machine(address.run, |machine| machine.handle_closed(now_ms, &address, members)).await;
    }

    pub(super) fn send_letter(&mut self, device: DeviceId, address: Address, letter: Bytes) {
        let down = letter.len() as u64;
        secure::parts(letter, address).for_each(|part| self.fleet.send(device, ToClient::Secure(part)));
        if let Some(run) = self.runs.get_mut(&address.run) {
            run.bytes_down += down;
        }
    }
}
