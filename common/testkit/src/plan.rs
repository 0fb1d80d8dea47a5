//! The smallest task there is, for tests of what its other sections do.

use starling_spec::{TaskFile, TaskPlan};

/// The plan, under seed 1, of a network of 10 parameters (4 inputs, 2 classes) whose task is called `digits`, with `more` behind it: whole
/// sections of a task file.
///
/// # Panics
/// If `more` makes it no task.
pub fn small(more: &str) -> TaskPlan {
    let text = format!(
        r#"
        name = "digits"
        kind = "classification"
        [data]
        format = "csv"
        train = "embedded:optdigits"
        shape = [4]
        [model]
        layers = [{{ linear = {{ out = 2 }} }}]
        {more}
        "#
    );
    TaskPlan::new(&TaskFile::parse(&text, &[]).expect("a task"), 1).expect("a plan")
}
