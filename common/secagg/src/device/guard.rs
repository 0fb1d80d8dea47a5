//! What a device remembers of the attempts that it has begun, so that none is begun twice.

use starling_wire::{Address, RunId};

use crate::limits::SEEDS_REMEMBERED;
use crate::refused::Refused;
use starling_wire::Reader;

const FORMAT: u8 = 1;

/// The attempts of one run: the latest, how many there were, and fingerprints of the seeds that they used. The caller keeps it on
/// the disk for as long as the run may go on, and writes it before the first byte of an attempt leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    run: RunId,
    round: u32,
    attempt: u16,
    begun: u64,
    seeds: Vec<[u8; 16]>,
}

impl Guard {
    /// The guard of a run that nothing was begun in.
    pub fn new(run: RunId) -> Self {
        Self { run, round: 0, attempt: 0, begun: 0, seeds: Vec::new() }
    }

    /// Attempts begun: what a counter that no disk image can turn back (a TPM's, a secure element's) should be raised to after the guard
    /// was written.
    pub fn begun(&self) -> u64 {
        self.begun
    }

    pub(crate) fn begin(&mut self, address: &Address, fingerprint: [u8; 16]) -> Result<(), Refused> {
        let Address { run, round, attempt, .. } = *address;
        if run != self.run || (round, attempt) <= (self.round, self.attempt) {
            return Err(Refused::ReplayedRound { run: run.0, round, attempt });
        }
        if self.seeds.contains(&fingerprint) {
            return Err(Refused::ReusedSeed);
        }
        (self.round, self.attempt) = (round, attempt);
        self.begun += 1;
        if self.seeds.len() == SEEDS_REMEMBERED {
            self.seeds.remove(0);
        }
        self.seeds.push(fingerprint);
        Ok(())
    }

    /// Its bytes:
    ///
    /// ```text
    ///  0  1  format, 1
    ///  1  4  run
    ///  5  4  round    of the latest attempt
    ///  9  2  attempt
    /// 11  8  attempts begun
    /// 19  …  fingerprints of the seeds of the latest attempts, 16 bytes each, at most 64
    /// ```
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        out.extend_from_slice(&self.run.0.to_le_bytes());
        out.extend_from_slice(&self.round.to_le_bytes());
        out.extend_from_slice(&self.attempt.to_le_bytes());
        out.extend_from_slice(&self.begun.to_le_bytes());
        self.seeds.iter().for_each(|seed| out.extend_from_slice(seed));
        out
    }

    /// The guard in `bytes`. `counted` is the value of a counter that cannot be turned back, where the device has one.
    ///
    /// # Errors
    /// [`Refused::Malformed`]; [`Refused::RolledBack`] when more attempts were counted than the guard knows of: the state is
    /// an older copy.
    pub fn from_bytes(bytes: &[u8], counted: Option<u64>) -> Result<Self, Refused> {
        let mut reader = Reader::new(bytes);
        if reader.array()? != [FORMAT] {
            return Err(Refused::Malformed("a guard's format is not 1"));
        }
        let (run, round, attempt) = (RunId(reader.u32()?), reader.u32()?, reader.u16()?);
        let begun = reader.u64()?;
        if !reader.rest_len().is_multiple_of(16) || reader.rest_len() / 16 > SEEDS_REMEMBERED {
            return Err(Refused::Malformed("a guard does not hold whole fingerprints, or too many"));
        }
        let seeds = (0..reader.rest_len() / 16).map(|_| reader.array()).collect::<Result<_, _>>()?;
        if let Some(counted) = counted.filter(|counted| *counted > begun) {
            return Err(Refused::RolledBack { begun, counted });
        }
        Ok(Self { run, round, attempt, begun, seeds })
    }
}

#[cfg(test)]
mod tests {
    use starling_wire::TaskId;

    use super::*;

    fn at(round: u32, attempt: u16) -> Address {
        Address { task: TaskId([0; 16]), run: RunId(4), round, attempt }
    }

    #[test]
    fn attempts_only_increase_and_seeds_are_new() {
        let mut guard = Guard::new(RunId(4));
        guard.begin(&at(3, 1), [1; 16]).expect("the first");
        guard.begin(&at(3, 2), [2; 16]).expect("the next attempt");
        for again in [at(3, 2), at(3, 1), at(2, 9)] {
            assert!(matches!(guard.begin(&again, [3; 16]), Err(Refused::ReplayedRound { .. })));
        }
        assert!(matches!(
            guard.begin(&Address { run: RunId(5), ..at(9, 1) }, [3; 16]),
            Err(Refused::ReplayedRound { run: 5, .. })
        ));
        assert_eq!(guard.begin(&at(4, 1), [1; 16]), Err(Refused::ReusedSeed));
        let before = guard.clone();
        for round in 4..4 + 2 * u32::try_from(SEEDS_REMEMBERED).expect("small") {
            let mut seed = [0; 16];
            seed[..4].copy_from_slice(&round.to_le_bytes());
            guard.begin(&at(round, 1), seed).expect("a later round");
        }
        let bytes = guard.to_bytes();
        assert_eq!(bytes.len(), 19 + 16 * SEEDS_REMEMBERED);
        assert_eq!(Guard::from_bytes(&bytes, Some(guard.begun())), Ok(guard.clone()));
        let rolled_back = Guard::from_bytes(&before.to_bytes(), Some(guard.begun()));
        assert_eq!(rolled_back, Err(Refused::RolledBack { begun: 2, counted: guard.begun() }));
    }

    #[test]
    fn inv8_torn_guards_are_refused() {
        let mut guard = Guard::new(RunId(4));
        guard.begin(&at(1, 1), [1; 16]).expect("the first");
        let bytes = guard.to_bytes();
        for cut in (0..bytes.len()).filter(|cut| *cut != 19) {
            assert!(matches!(Guard::from_bytes(&bytes[..cut], None), Err(Refused::Malformed(_))), "{cut}");
        }
        let long = [bytes, vec![0; 16 * SEEDS_REMEMBERED]].concat();
        assert!(matches!(Guard::from_bytes(&long, None), Err(Refused::Malformed(_))));
    }
}
