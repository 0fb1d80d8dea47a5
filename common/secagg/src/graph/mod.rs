//! Who masks with whom: degree, threshold and the graph itself.

mod bounds;
mod harary;
mod topology;

pub use bounds::{Adversary, published_parameters};
pub(crate) use harary::Graph;
pub use topology::{Assumptions, Topology, TopologyError};
