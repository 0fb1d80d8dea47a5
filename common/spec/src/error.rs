//! One error for everything that a task file can get wrong.

/// What is wrong with a task, in the terms of the file that a person wrote.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SpecError {
    /// The text is no TOML, or a key is unknown, missing or of the wrong type. The message names it.
    #[error("{0}")]
    Toml(String),
    /// A value that is understood and not allowed.
    #[error("{key} = {value}: {expected}")]
    Value {
        /// The key, dotted from the top of the file.
        key: String,
        /// The value as it was written.
        value: String,
        /// What is expected instead.
        expected: String,
    },
    /// A layer that does not fit what comes before it.
    #[error("model.layers[{index}] ({layer}): {problem}")]
    Layer {
        /// The position in the list, from 0; nested lists are dotted.
        index: String,
        /// The layer's key.
        layer: String,
        /// What does not fit, with both shapes.
        problem: String,
    },
}

impl SpecError {
    /// A value that is not allowed.
    pub fn value(key: impl Into<String>, value: impl ToString, expected: impl Into<String>) -> Self {
        Self::Value { key: key.into(), value: value.to_string(), expected: expected.into() }
    }
}
