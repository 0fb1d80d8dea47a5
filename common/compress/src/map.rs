//! What stands between the parameters that an optimiser moves and those that a network computes with.

/// A map from free parameters to computed ones, with the way back for gradients. Masks, code books, integers with
/// straight-through gradients and binary weights are such maps; a trainer knows only this trait.
pub trait WeightMap {
    /// Fills `computed` with what the network computes with when the optimiser holds `free`. Both are whole flat vectors.
    fn forward(&self, free: &[f32], computed: &mut [f32]);

    /// Turns the gradient by the computed parameters into the gradient by the free ones, in place.
    fn backward(&self, free: &[f32], gradient: &mut [f32]);
}
