//! The real sets: the embedded one always, the larger ones where they are (`STARLING_DATA`, or `shared/data` beside the
//! repository), and the example tasks over them.

use std::path::{Path, PathBuf};

use starling_data::{Loaded, load, partition};
use starling_spec::{TaskFile, TaskKind, TaskPlan};

use super::{all_rows, classes, features, read};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn shared(what: &str) -> Option<PathBuf> {
    let place = std::env::var_os("STARLING_DATA").map_or_else(|| root().join("../shared/data"), PathBuf::from);
    if place.join(what).exists() {
        return Some(place);
    }
    eprintln!("SKIPPED: no {what} in {}; set STARLING_DATA to the folder of the real data sets", place.display());
    None
}

#[test]
fn the_embedded_digits_are_ucis() {
    let section = "format = \"csv\"\ntrain = \"embedded:optdigits\"\ntest = \"embedded:optdigits\"\nscale = \"unit\"";
    let loaded = read(Path::new("."), section, TaskKind::Classification, &[1, 8, 8]).expect("loads");
    let test = loaded.test.expect("a test set");
    assert_eq!((loaded.train.len(), test.len()), (3823, 1797));
    // The class distributions of optdigits.names.
    let counts = |set| {
        let mut counts = [0u32; 10];
        classes(set).into_iter().for_each(|class| counts[usize::try_from(class).expect("small")] += 1);
        counts
    };
    assert_eq!(counts(&loaded.train), [376, 389, 380, 389, 387, 376, 377, 387, 380, 382]);
    assert_eq!(counts(&test), [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
    let values = features(&loaded.train);
    assert_eq!(values[..6], [0.0, 1.0 / 16.0, 6.0 / 16.0, 15.0 / 16.0, 12.0 / 16.0, 1.0 / 16.0]);
    assert!(values.iter().all(|value| (0.0..=1.0).contains(value)));
    // A device with a single row divides by the same 16.
    let mut one = Vec::new();
    loaded.train.select(&[0]).features_into(&[0], &mut one);
    assert_eq!(one[..], values[..64]);
}

fn example(name: &str, data: &Path) -> (TaskFile, Loaded) {
    let text = std::fs::read_to_string(root().join("examples").join(name)).expect("an example");
    let task = TaskFile::parse(&text, &[("data.root".into(), data.display().to_string())]).expect("a task");
    let plan = TaskPlan::new(&task, 1).expect("a plan");
    let loaded = load(&task.data, task.kind, &plan.shape, Path::new("."), 1).expect("loads");
    (task, loaded)
}

fn devices(task: &TaskFile, loaded: &Loaded) -> Vec<Vec<u32>> {
    partition(loaded, task.federation.partition, task.federation.devices, 1).expect("parts")
}

#[test]
fn the_example_of_mnist_loads() {
    let Some(data) = shared("mnist") else { return };
    let (task, loaded) = example("mnist-2nn-iid.toml", &data);
    assert_eq!((loaded.train.len(), loaded.train.sample_len()), (60_000, 784));
    assert_eq!(loaded.test.as_ref().map(starling_data::Dataset::len), Some(10_000));
    let mut counts = [0u32; 10];
    classes(&loaded.train).into_iter().for_each(|class| counts[usize::try_from(class).expect("small")] += 1);
    assert_eq!(counts, [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]);
    let parts = devices(&task, &loaded);
    assert_eq!((parts.len(), parts[0].len()), (100, 600));
}

#[test]
fn the_example_of_shakespeare_loads() {
    let Some(data) = shared("tinyshakespeare") else { return };
    let (task, loaded) = example("shakespeare-role.toml", &data);
    let clients = loaded.clients.as_ref().expect("roles");
    assert!((100..=309).contains(&clients.names.len()), "{} roles", clients.names.len());
    assert!(clients.names.iter().any(|name| name == "First Citizen"));
    assert_eq!(devices(&task, &loaded).len(), clients.names.len());
    assert!(loaded.test.is_some());
    let tokens = features(&loaded.train);
    assert!(tokens.iter().all(|token| *token < 128.0), "plain ASCII");
}

#[test]
fn the_examples_of_the_embedded_digits_load() {
    for name in ["digits.toml", "regression-digits.toml"] {
        let (task, loaded) = example(name, Path::new("."));
        assert_eq!(loaded.train.len(), 3823);
        assert_eq!(devices(&task, &loaded).concat().len(), 3823);
        assert_eq!(all_rows(loaded.test.as_ref().expect("a test set")).len(), 1797);
    }
}
