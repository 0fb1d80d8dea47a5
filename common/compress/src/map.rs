//! What stands between the parameters that an optimiser moves and those that a network computes with.

/// A map from free parameters to computed ones, with the way back for gradients. Masks, code books, integers with
/// straight-through gradients and binary weights are such maps; a trainer knows only this trait.
pub trait WeightMap {
    /// Fills `computed` with what the network computes with when the optimiser holds `free`. Both are whole flat vectors.
    fn forward(&self, free: &[f32], computed: &mut [f32]);

    /// Turns the gradient by the computed parameters into the gradient by the free ones, in place.
    fn backward(&self, free: &[f32], gradient: &mut [f32]);
}

/// One map after another: what the first computes is free for the second. A pruned network with integer weights trains through a
/// mask, then integers.
#[derive(Default)]
pub struct Chain<'a>(pub Vec<&'a dyn WeightMap>);

impl Chain<'_> {
    /// What each map but the last computes.
    fn stages(&self, free: &[f32]) -> Vec<Vec<f32>> {
        let mut stages: Vec<Vec<f32>> = Vec::new();
        for map in self.0.iter().take(self.0.len().saturating_sub(1)) {
            let mut computed = vec![0.0; free.len()];
            map.forward(stages.last().map_or(free, |stage| stage), &mut computed);
            stages.push(computed);
        }
        stages
    }
}

impl WeightMap for Chain<'_> {
    fn forward(&self, free: &[f32], computed: &mut [f32]) {
        match self.0.last() {
            None => computed.copy_from_slice(free),
            Some(last) => last.forward(self.stages(free).last().map_or(free, |stage| stage), computed),
        }
    }

    fn backward(&self, free: &[f32], gradient: &mut [f32]) {
        let stages = self.stages(free);
        for (index, map) in self.0.iter().enumerate().rev() {
            map.backward(index.checked_sub(1).map_or(free, |before| &stages[before]), gradient);
        }
    }
}
