//! The set that every build carries: UCI's optdigits (Alpaydin and Kaynak 1998, CC BY 4.0; `embedded/CREDITS`).

use crate::error::DataError;
use crate::source::Source;

/// What stands before the name of an embedded set in `data.train` and `data.test`.
const PREFIX: &str = "embedded:";
const TRAIN: &[u8] = include_bytes!("../embedded/optdigits.tra.gz");
const TEST: &[u8] = include_bytes!("../embedded/optdigits.tes.gz");

/// The largest value that a feature can have: pixels set in a block of 4 × 4.
pub(crate) const FEATURE_MAX: f32 = 16.0;

/// Which half of an embedded set is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Half {
    Train,
    Test,
}

pub(crate) fn is_embedded(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// Opens the embedded set called `name`.
pub(crate) fn open(name: &str, half: Half) -> Result<Source, DataError> {
    match (name.strip_prefix(PREFIX), half) {
        (Some("optdigits"), Half::Train) => Source::of_bytes("embedded:optdigits (training)", TRAIN),
        (Some("optdigits"), Half::Test) => Source::of_bytes("embedded:optdigits (test)", TEST),
        _ => Err(DataError::file(name, "no such embedded set; the one that there is is embedded:optdigits")),
    }
}
