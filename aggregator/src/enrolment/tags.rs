//! The tags of devices, and what they open: a run or a release that names tags is for devices that have all of them. To the others it does
//! not exist.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use starling_wire::DeviceId;

/// The tags of each device that has some, readable without waiting for a disk.
#[derive(Debug, Default)]
pub(crate) struct Tags {
    known: RwLock<BTreeMap<DeviceId, Vec<String>>>,
}

impl Tags {
    /// Whether `device` has every tag of `wanted`. A device that nothing is known of has none.
    pub(crate) fn open_to(&self, device: DeviceId, wanted: &[String]) -> bool {
        if wanted.is_empty() {
            return true;
        }
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(&device).is_some_and(|tags| wanted.iter().all(|tag| tags.contains(tag)))
    }

    /// Replaces the tags of a device.
    pub(crate) fn set(&self, device: DeviceId, tags: &[String]) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if tags.is_empty() {
            known.remove(&device);
        } else {
            known.insert(device, tags.to_vec());
        }
    }
}

#[cfg(test)]
mod tests {
    use starling_protocol::run::{Action, Coins, Progress, RunMachine, RunSettings};
    use starling_spec::FederationSection;
    use starling_wire::{RunId, TaskId};

    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_device_needs_every_tag_and_one_that_is_not_known_has_none() {
        let (tags, device, stranger) = (Tags::default(), DeviceId([1; 16]), DeviceId([2; 16]));
        tags.set(device, &words("north pumps"));
        for (wanted, open) in
            [("", true), ("north", true), ("pumps north", true), ("north south", false), ("nort", false)]
        {
            assert_eq!(tags.open_to(device, &words(wanted)), open, "{wanted:?}");
            assert_eq!(tags.open_to(stranger, &words(wanted)), wanted.is_empty(), "{wanted:?}");
        }
        tags.set(device, &[]);
        assert!(!tags.open_to(device, &words("north")));
    }

    /// Twenty devices, every other one tagged, through the hub's test and the run's machine, with neither sockets nor a disk.
    #[test]
    fn no_round_of_a_run_with_tags_ever_asks_a_device_without_them() {
        let (tags, wanted) = (Tags::default(), words("north"));
        let devices: Vec<_> = (0..20).map(|index| DeviceId::seeded(1, index)).collect();
        devices.iter().step_by(2).for_each(|device| tags.set(*device, &words("north")));
        let federation = FederationSection { fraction: 0.5, rounds: 50, ..FederationSection::default() };
        let (task, run, coins) = (TaskId([0; 16]), RunId(1), Coins::Simulated(7));
        let settings =
            RunSettings { task, run, seed: 7, coins, turns: None, federation, tensors: 0, secure_cohort: None };
        let mut machine = RunMachine::new(settings, Progress::default());
        let introduce = |machine: &mut RunMachine| {
            devices.iter().filter(|device| tags.open_to(**device, &wanted)).for_each(|device| {
                machine.handle_available(0, *device);
            });
        };
        introduce(&mut machine);
        let mut asked = BTreeMap::<DeviceId, u32>::new();
        while !machine.is_finished() {
            let mut cohort = Vec::new();
            let mut commits = false;
            while let Some(action) = machine.poll_action() {
                match action {
                    Action::Start { device, address, .. } => {
                        *asked.entry(device).or_default() += 1;
                        cohort.push((device, address));
                    }
                    Action::Commit { .. } => commits = true,
                    _ => {}
                }
            }
            cohort.into_iter().for_each(|(device, address)| _ = machine.handle_update(0, device, &address));
            if commits {
                machine.handle_committed(0, false);
            }
            if machine.rounds_committed() == 25 && tags.open_to(devices[0], &wanted) {
                // Half way a device loses its tag.
                tags.set(devices[0], &words("south"));
                machine.handle_gone(0, devices[0]);
                asked.remove(&devices[0]);
            }
        }
        let expected: Vec<_> = devices.iter().copied().step_by(2).skip(1).collect();
        let mut seen: Vec<_> = asked.into_keys().collect();
        seen.sort_unstable_by_key(|device| devices.iter().position(|known| known == device));
        // The device that lost its tag may be in the round that was under way, and in none after it.
        seen.retain(|device| *device != devices[0]);
        assert_eq!(seen, expected);
    }
}
