//! Real processes on loopback: an aggregator and its devices, as an operator starts them. Every wait is for a state.

mod audit;
mod backup;
mod command;
mod compress;
mod dp_sgd;
mod groups;
mod kill_aggregator;
mod kill_device;
mod ledger;
mod lossy_link;
mod moments;
mod policy;
mod releases;
mod secure;
mod sigterm;
mod unlearn;
mod weights;
mod world;
