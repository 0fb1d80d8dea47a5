//! A fleet in this process: the run machine, codecs and fold of real devices (see [`crate::simulation`]).

use std::num::NonZeroUsize;

use anyhow::Result;
use indicatif::ProgressBar;

use super::{Fleet, Ran};
use crate::simulation::simulate_in;
use crate::task_input::TaskInput;
use crate::world::World;

/// Simulated devices.
pub(in crate::model) struct SimulatedFleet {
    world: World,
    threads: usize,
}

impl SimulatedFleet {
    /// The devices of `input`.
    pub(in crate::model) fn new(input: &TaskInput) -> Result<Self> {
        let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Ok(Self { world: World::new(input)?.without_test(), threads })
    }
}

impl Fleet for SimulatedFleet {
    fn run(&mut self, input: &TaskInput, start: Vec<f32>) -> Result<Ran> {
        let world = self.world.with_plan(input.plan.clone())?;
        let ran = simulate_in(&world, input, Some(start), self.threads, &ProgressBar::hidden())?;
        let train_loss = ran.simulated.rounds.last().map(|round| round.train_loss);
        Ok(Ran { parameters: ran.parameters, train_loss, answer: ran.answer })
    }

    fn holders(&self) -> String {
        format!("{} simulated devices", self.world.devices.iter().filter(|device| device.holds_out()).count())
    }
}
