//! Data on a device: readers of CSV, IDX and text, partitioners, and a small real set that every build carries.
//!
//! What it is: [`load`] turns the `[data]` section of a task into [`Dataset`]s that hand out batches; [`partition`] spreads
//! training rows over simulated devices; [`split_holdout`] sets a device's own evaluation rows aside. All of it is a function
//! of the files, the settings and a seed (invariant 11).
//!
//! What it is not: it never trains, never augments and never writes. Labels are never scaled.
//!
//! Limits: a set has at most 2³² − 1 rows, class numbers end at [`CLASS_MAX`], and a set lives in memory, in the narrowest
//! type that holds it: integers from 0 to 255 and text take one byte each, everything else four.
//!
//! ```
//! use starling_data::{load, partition};
//! use starling_spec::{Partition, TaskKind};
//!
//! let section = toml::from_str(
//!     r#"
//!         format = "csv"
//!         train = "embedded:optdigits"
//!         test = "embedded:optdigits"
//!         scale = "unit"
//!     "#,
//! )?;
//! let loaded = load(&section, TaskKind::Classification, &[1, 8, 8], ".".as_ref(), 1)?;
//! assert_eq!((loaded.train.len(), loaded.test.as_ref().map(|test| test.len())), (3823, Some(1797)));
//! let devices = partition(&loaded, Partition::Dirichlet(0.3), Some(8), 1)?;
//! let mut batch = Vec::new();
//! loaded.train.features_into(&devices[0][..2], &mut batch);
//! assert_eq!(batch.len(), 2 * 64);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod dataset;
mod embedded;
mod error;
mod idx;
mod load;
mod partition;
mod rows;
mod scale;
mod scaler;
mod source;
mod split;
mod table;
mod text;

pub use dataset::Dataset;
pub use error::DataError;
pub use load::{Clients, Loaded, load};
pub use partition::{SAMPLES_MIN, partition};
pub use rows::{Rows, read_rows};
pub use scaler::Scaler;
pub use split::split_holdout;

/// The largest class number: far above any label set that a device's network could tell apart, and low enough that a typing
/// error in a label column does not become an output layer of gigabytes.
pub const CLASS_MAX: u32 = 65_535;
