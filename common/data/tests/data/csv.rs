//! CSV: columns, header rows, labels, scaling, and errors that name line and column.

use starling_spec::TaskKind::{Classification, Regression};

use super::{all_rows, classes, features, folder, packed, read, said, values};

const NAMED: &[u8] = b"subject,steps,noise,heart,activity\nann, 1, x, 60.5, 2\nbob,2,y,70,0\n\nann,3,z,80,1\n";
const NAMED_SECTION: &str = r#"
    format = "csv"
    train = "t.csv"
    label = "activity"
    client = "subject"
    drop = ["noise"]
"#;

#[test]
fn columns_are_found_by_name() {
    let folder = folder(&[("t.csv", NAMED)]);
    let loaded = read(folder.path(), NAMED_SECTION, Classification, &[2]).expect("loads");
    assert_eq!(features(&loaded.train), [1.0, 60.5, 2.0, 70.0, 3.0, 80.0]);
    assert_eq!(classes(&loaded.train), [2, 0, 1]);
    assert_eq!(loaded.train.classes(), Some(3));
    let clients = loaded.clients.expect("clients");
    assert_eq!((clients.names, clients.of_row), (vec!["ann".to_owned(), "bob".to_owned()], vec![0, 1, 0]));
}

#[test]
fn columns_are_found_by_index_and_gzip_by_its_magic() {
    let packed = packed(b"5,1,2\n6,3,4\n");
    let folder = folder(&[("no-suffix", &packed)]);
    let text = "format = \"csv\"\ntrain = \"no-suffix\"\nlabel = 0";
    let loaded = read(folder.path(), text, Regression, &[2]).expect("loads");
    assert_eq!(features(&loaded.train), [1.0, 2.0, 3.0, 4.0]);
    assert_eq!(values(&loaded.train), [5.0, 6.0]);
    assert_eq!((loaded.train.classes(), classes(&loaded.train)), (None, vec![]));
}

#[test]
fn a_header_row_is_told_by_its_lack_of_numbers() {
    let section = "format = \"csv\"\ntrain = \"t.csv\"\nlabel = -1";
    let with_header = folder(&[("t.csv", b"a,b,c\n1,2,0\n")]);
    let loaded = read(with_header.path(), section, Classification, &[2]).expect("loads");
    assert_eq!(features(&loaded.train), [1.0, 2.0]);
    let broken = folder(&[("t.csv", b"1,2x,0\n1,2,0\n")]);
    let error = said(read(broken.path(), section, Classification, &[2]), broken.path());
    assert_eq!(error, "t.csv: line 1, column 1: \"2x\"; expected a finite number");
}

#[test]
fn a_bad_cell_names_file_line_and_column() {
    for (cell, kind, column, problem) in [
        ("oops,0", Classification, "1 (\"b\")", "\"oops\"; expected a finite number"),
        (",0", Classification, "1 (\"b\")", "\"\"; expected a finite number"),
        ("NaN,0", Classification, "1 (\"b\")", "\"NaN\"; expected a finite number"),
        ("1e99,0", Classification, "1 (\"b\")", "\"1e99\"; expected a finite number"),
        ("2,-1", Classification, "2 (\"label\")", "\"-1\"; expected a class number from 0 to 65535"),
        ("2,1.5", Classification, "2 (\"label\")", "\"1.5\"; expected a class number from 0 to 65535"),
        ("2,65536", Classification, "2 (\"label\")", "\"65536\"; expected a class number from 0 to 65535"),
        ("2,walk", Classification, "2 (\"label\")", "\"walk\"; expected a class number from 0 to 65535"),
        ("2,inf", Regression, "2 (\"label\")", "\"inf\"; expected a finite number"),
    ] {
        let text = format!("a,b,label\n\n1,2,3\n1,{cell}\n");
        let folder = folder(&[("t.csv", text.as_bytes())]);
        let section = "format = \"csv\"\ntrain = \"t.csv\"\nlabel = \"label\"";
        let error = said(read(folder.path(), section, kind, &[2]), folder.path());
        let expected = format!("t.csv: line 4, column {column}: {problem}");
        assert!(error.starts_with(&expected), "{error}\nis not\n{expected}");
    }
}

#[test]
fn a_ragged_row_names_its_line() {
    let folder = folder(&[("t.csv", b"1,2,0\n1,2,0\n1,2\n")]);
    let section = "format = \"csv\"\ntrain = \"t.csv\"\nlabel = 2";
    let error = said(read(folder.path(), section, Classification, &[2]), folder.path());
    assert_eq!(error, "t.csv: line 3: 2 columns; expected 3 as in the first row");
}

#[test]
fn a_shape_that_does_not_fit_says_both_numbers() {
    let folder = folder(&[("t.csv", b"1,2,0\n")]);
    let section = "format = \"csv\"\ntrain = \"t.csv\"\nlabel = 2";
    let error = said(read(folder.path(), section, Classification, &[3]), folder.path());
    assert!(error.starts_with("t.csv: line 1: 2 feature columns, but data.shape has 3 values"), "{error}");
}

#[test]
fn a_column_that_is_not_there_is_named() {
    let folder = folder(&[("t.csv", b"a,b\n1,0\n")]);
    for (label, expected) in [
        ("\"c\"", "data.label: t.csv has no column \"c\"; its first row is \"a\", \"b\""),
        ("2", "data.label: t.csv has no column 2: it has 2, counted from 0"),
        ("-3", "data.label: t.csv has no column -3: it has 2, counted from 0"),
    ] {
        let section = format!("format = \"csv\"\ntrain = \"t.csv\"\nlabel = {label}");
        assert_eq!(said(read(folder.path(), &section, Classification, &[1]), folder.path()), expected);
    }
    let twice = "format = \"csv\"\ntrain = \"t.csv\"\nlabel = \"a\"\nclient = 0";
    let error = said(read(folder.path(), twice, Classification, &[1]), folder.path());
    assert_eq!(error, "data.client: column 0 of t.csv is already spoken for");
}

#[test]
fn a_missing_file_and_a_broken_gzip_are_named() {
    let mut broken = packed(&b"1,2,0\n".repeat(2000));
    broken.truncate(broken.len() / 2);
    let folder = folder(&[("broken.gz", &broken), ("empty.csv", b"")]);
    let section = |file| format!("format = \"csv\"\ntrain = \"{file}\"\nlabel = 2");
    let error = said(read(folder.path(), &section("absent.csv"), Classification, &[2]), folder.path());
    assert!(error.starts_with("absent.csv: cannot be read: "), "{error}");
    let error = said(read(folder.path(), &section("broken.gz"), Classification, &[2]), folder.path());
    assert!(error.starts_with("broken.gz: cannot be read: "), "{error}");
    let error = said(read(folder.path(), &section("empty.csv"), Classification, &[2]), folder.path());
    assert_eq!(error, "empty.csv: holds no sample");
}

#[test]
fn the_test_set_is_scaled_as_the_training_set() {
    let folder = folder(&[("t.csv", b"1,-8,0\n3,4,1\n"), ("u.csv", b"16,2,1\n")]);
    let section =
        |scale| format!("format = \"csv\"\ntrain = \"t.csv\"\ntest = \"u.csv\"\nlabel = 2\nscale = \"{scale}\"");
    let loaded = read(folder.path(), &section("unit"), Classification, &[2]).expect("loads");
    assert_eq!(features(&loaded.train), [0.125, -1.0, 0.375, 0.5]);
    assert_eq!(features(&loaded.test.expect("a test set")), [2.0, 0.25]);
    let loaded = read(folder.path(), &section("standardise"), Classification, &[2]).expect("loads");
    assert_eq!(features(&loaded.train), [-1.0, -1.0, 1.0, 1.0]);
    assert_eq!(features(&loaded.test.expect("a test set")), [14.0, 4.0 / 6.0]);
}

#[test]
fn a_test_fraction_parts_the_rows_and_their_clients() {
    let text: String = (0..40).map(|row| format!("c{},{row},0\n", row % 4)).collect();
    let folder = folder(&[("t.csv", text.as_bytes())]);
    let section = "format = \"csv\"\ntrain = \"t.csv\"\nlabel = 2\nclient = 0\ntest_fraction = 0.25";
    let loaded = read(folder.path(), section, Classification, &[1]).expect("loads");
    let test = loaded.test.expect("a test set");
    assert_eq!((loaded.train.len(), test.len()), (30, 10));
    let mut all = [features(&loaded.train), features(&test)].concat();
    all.sort_by(f32::total_cmp);
    assert_eq!(all, (0u8..40).map(f32::from).collect::<Vec<_>>());
    let clients = loaded.clients.expect("clients");
    for (row, value) in features(&loaded.train).into_iter().enumerate() {
        let name = &clients.names[usize::try_from(clients.of_row[row]).expect("small")];
        assert_eq!(*name, format!("c{}", value % 4.0));
    }
}

#[test]
fn keeping_a_partition_keeps_the_scale_of_the_whole_file() {
    let folder = folder(&[("t.csv", b"a,1,0\nb,2,1\nc,10,300\n")]);
    let section = "format = \"csv\"\ntrain = \"t.csv\"\nlabel = 2\nclient = 0\nscale = \"unit\"";
    let loaded = read(folder.path(), section, Classification, &[1]).expect("loads");
    assert_eq!(loaded.train.classes(), Some(301));
    let kept = loaded.keep(&[1, 2]);
    assert_eq!((features(&kept.train), classes(&kept.train)), (vec![0.2, 1.0], vec![1, 300]));
    let clients = kept.clients.expect("clients");
    assert_eq!((clients.names, clients.of_row), (vec!["b".to_owned(), "c".to_owned()], vec![0, 1]));
    assert_eq!(all_rows(&kept.train), [0, 1]);
}

#[test]
fn keys_without_a_meaning_are_refused() {
    let folder = folder(&[("t.csv", b"1,2,0\n")]);
    for (text, key) in [
        ("format = \"csv\"\ntrain = \"t.csv\"", "data.label: missing"),
        ("format = \"csv\"\ntrain = \"t.csv\"\nlabel = 2\ncontext = 3", "data.context: "),
        ("format = \"csv\"\ntrain = \"t.csv\"\nlabel = 2\ntrain_labels = \"x\"", "data.train_labels: "),
        ("format = \"text\"\ntrain = \"t.csv\"", "data.format: "),
        ("format = \"idx\"\ntrain = \"t.csv\"", "data.train_labels: missing"),
        ("format = \"idx\"\ntrain = \"t.csv\"\ntrain_labels = \"x\"\nlabel = 2", "data.label: "),
        ("format = \"csv\"\ntrain = \"embedded:iris\"", "embedded:iris: no such embedded set"),
    ] {
        let error = said(read(folder.path(), text, Classification, &[2]), folder.path());
        assert!(error.starts_with(key), "{error} does not start with {key}");
    }
}
