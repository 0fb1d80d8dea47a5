//! Every task file under `examples/` is a task whose layers fit: a stale sample fails here.

use std::fs;
use std::path::Path;

use starling_spec::{TaskFile, TaskPlan};

#[test]
fn every_example_is_a_task_with_a_plan() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut seen = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder of examples") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("text");
        // The daemons' sample files are checked by their own crates: a task has a kind.
        if !text.lines().any(|line| line.starts_with("kind = ")) {
            continue;
        }
        let task = TaskFile::parse(&text, &[]).unwrap_or_else(|error| panic!("{name}: {error}"));
        let plan = TaskPlan::new(&task, 1).unwrap_or_else(|error| panic!("{name}: {error}"));
        let back = TaskPlan::from_json(&plan.to_json()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(back.id(), plan.id(), "{name} changes on its way to a device");
        seen.push(name);
    }
    for wanted in ["mnist-2nn-iid.toml", "digits.toml", "regression-digits.toml", "shakespeare-role.toml"] {
        assert!(seen.iter().any(|name| name == wanted), "{wanted} is missing from {seen:?}");
    }
}
