//! Attacks you can watch: what an aggregator makes of real updates of devices that hold pictures, and what stops it.
//!
//! | part | what |
//! | --- | --- |
//! | [`scene`] | pictures, plans, devices that train |
//! | [`seen`] | what the aggregator gets to see: one plain update, or a secure sum, with or without noise |
//! | [`inversion`] | pictures out of an honest network's gradient |
//! | [`imprint`] | a malicious network that files pictures in bins |
//! | [`publisher`] | what a device that has pinned a publisher's key says to a plan |
//! | [`canary`] | a lower bound on ε, measured |
//! | [`study`] | all of them, one line for each attack and protection |
//! | [`report`] | the page with the pictures |
//!
//! The attacker is the aggregator. Training, codecs, sealing, secure sums, noise, accountant and signatures are the product's own code; only
//! what the attacker computes is here. Everything follows from a seed, so that a picture that was stolen once is stolen again.

pub mod algebra;
pub mod canary;
pub mod imprint;
pub mod interval;
pub mod inversion;
pub mod picture;
pub mod publisher;
pub mod report;
pub mod scene;
pub mod seen;
pub mod study;
