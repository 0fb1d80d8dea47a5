//! A hostile aggregator speaks the real protocol to real devices. Each file tries one kind of thing; each attempt has its own refusal.

mod cohort;
mod setup;
mod survivors;
mod unmasking;
mod witnesses;

use starling_secagg::Refused;
use starling_wire::Refusal;

/// That `result` is this refusal, and what the peer is told.
#[track_caller]
fn refused<T>(result: Result<T, Refused>, expected: &Refused, code: Refusal) {
    let refused = result.err().expect("the device refuses");
    assert_eq!(&refused, expected);
    assert_eq!(refused.refusal(), code);
}
