//! IDX: types, sizes that lie, labels that do not fit.

use starling_spec::TaskKind::{Classification, Regression};

use super::{classes, features, folder, packed, read, said, values};

fn idx(code: u8, sizes: &[u32], values: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, code, u8::try_from(sizes.len()).expect("few")];
    sizes.iter().for_each(|size| bytes.extend(size.to_be_bytes()));
    bytes.extend(values);
    bytes
}

const SECTION: &str = "format = \"idx\"\ntrain = \"x\"\ntrain_labels = \"y\"\nscale = \"unit\"";

fn said_of(samples: &[u8], labels: &[u8]) -> String {
    let folder = folder(&[("x", samples), ("y", labels)]);
    said(read(folder.path(), SECTION, Classification, &[1, 2]), folder.path())
}

#[test]
fn bytes_are_divided_by_255_whatever_occurs() {
    let folder = folder(&[("x", &packed(&idx(8, &[2, 1, 2], &[0, 51, 102, 5]))), ("y", &idx(8, &[2], &[7, 1]))]);
    let loaded = read(folder.path(), SECTION, Classification, &[1, 2]).expect("loads");
    assert_eq!(features(&loaded.train), [0.0, 0.2, 0.4, 5.0 / 255.0]);
    assert_eq!(classes(&loaded.train), [7, 1]);
    let loaded = read(folder.path(), SECTION, Regression, &[1, 2]).expect("loads");
    assert_eq!(values(&loaded.train), [7.0, 1.0]);
}

#[test]
fn other_types_are_read_in_big_endian() {
    let float: Vec<u8> = [0.5f32, -2.0].iter().flat_map(|value| value.to_be_bytes()).collect();
    let short: Vec<u8> = 300i16.to_be_bytes().to_vec();
    let folder = folder(&[("x", &idx(0x0d, &[1, 2], &float)), ("y", &idx(0x0b, &[1], &short))]);
    let loaded = read(folder.path(), SECTION, Classification, &[1, 2]).expect("loads");
    assert_eq!((features(&loaded.train), classes(&loaded.train)), (vec![0.25, -1.0], vec![300]));
}

#[test]
fn inv8_sizes_are_compared_with_the_length_before_anything_is_allocated() {
    let labels = idx(8, &[1], &[0]);
    let huge = idx(8, &[u32::MAX, u32::MAX, 2], &[0; 16]);
    for samples in [huge.clone(), packed(&huge), idx(8, &[u32::MAX; 8], &[]), idx(8, &[1, 1, 3], &[1, 2])] {
        let error = said_of(&samples, &labels);
        assert!(error.contains("more than its length holds") || error.contains("3 values a sample"), "{error}");
    }
}

#[test]
fn a_file_that_ends_early_or_late_or_is_no_idx_is_named() {
    let labels = idx(8, &[2], &[0, 0]);
    // Packed, so that only reading shows that values are missing.
    let error = said_of(&packed(&idx(8, &[2, 1, 2], &[1, 2, 3])), &labels);
    assert_eq!(error, "x: ends after 3 values; its sizes [2, 1, 2] declare 4");
    let error = said_of(&idx(8, &[2, 1, 2], &[1, 2, 3, 4, 5]), &labels);
    assert_eq!(error, "x: goes on after the values that its sizes declare");
    let error = said_of(b"\x89PNG....", &labels);
    assert!(error.starts_with("x: starts with [89, 50, 4e, 47]; expected IDX"), "{error}");
    let whole = idx(8, &[2, 1, 2], &[1, 2, 3, 4]);
    for length in 0..whole.len() {
        assert!(said_of(&whole[..length], &labels).starts_with("x: "), "{length} bytes of {}", whole.len());
    }
}

#[test]
fn shapes_and_label_counts_that_do_not_fit_are_named() {
    let error = said_of(&idx(8, &[1, 2, 2], &[1, 2, 3, 4]), &idx(8, &[1], &[0]));
    assert_eq!(error, "x: 4 values a sample ([2, 2]), but data.shape has 2");
    let error = said_of(&idx(8, &[1, 2], &[1, 2]), &idx(8, &[2], &[0, 0]));
    assert!(error.starts_with("y: labels of sizes [2]; expected [1], one for each of "), "{error}");
    let error = said_of(&idx(8, &[1, 2], &[1, 2]), &idx(9, &[1], &[255]));
    assert!(error.starts_with("y: value 0 (from 0) is -1; expected a class number from 0 to 65535"), "{error}");
}
