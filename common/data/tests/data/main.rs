//! What files become: readers, scaling, partitions. Files are written into temporary folders; the real sets are read where
//! they are present.

mod csv;
mod idx;
mod partition;
mod real;
mod text;

use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use starling_data::{DataError, Dataset, Loaded, load};
use starling_spec::{DataSection, TaskKind};
use tempfile::TempDir;

fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).expect("a file");
    }
    folder
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("into memory");
    encoder.finish().expect("into memory")
}

fn section(text: &str) -> DataSection {
    toml::from_str(text).expect("a section")
}

fn read(base: &Path, text: &str, kind: TaskKind, shape: &[usize]) -> Result<Loaded, DataError> {
    load(&section(text), kind, shape, base, 7)
}

/// An error with its causes.
fn said(result: Result<Loaded, DataError>, base: &Path) -> String {
    let error = result.expect_err("an error");
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text.replace(&format!("{}/", base.display()), "")
}

fn all_rows(set: &Dataset) -> Vec<u32> {
    (0..u32::try_from(set.len()).expect("small")).collect()
}

fn features(set: &Dataset) -> Vec<f32> {
    let mut out = vec![9.0];
    set.features_into(&all_rows(set), &mut out);
    out
}

fn classes(set: &Dataset) -> Vec<u32> {
    let mut out = vec![9];
    set.classes_into(&all_rows(set), &mut out);
    out
}

fn values(set: &Dataset) -> Vec<f32> {
    let mut out = vec![9.0];
    set.values_into(&all_rows(set), &mut out);
    out
}
