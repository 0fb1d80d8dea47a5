//! Signed releases and plans, with real processes and real sockets. A hostile aggregator speaks the real protocol to a device
//! that has pinned a root of trust: each attack on TUF's list is refused with its own reason, to the aggregator and in the device's status,
//! and the old model keeps serving. And what is signed as it should be passes, from `starling publish` to the devices.

mod commands;
mod delivery;
mod expiry;
mod hostile;
mod operator;
mod plans;
mod publisher;
mod restart;
mod scene;
