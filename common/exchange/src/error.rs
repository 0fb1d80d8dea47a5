//! One error for everything that a file of weights can get wrong.

/// Why weights could not be read or a network not be written. Names and shapes are the file's own, shortened when long.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// The bytes are no safetensors file.
    #[error("this is no safetensors file: {0}")]
    Format(String),
    /// The header claims more bytes than any network needs.
    #[error("the file's header is {bytes} bytes long; at most {limit} are read")]
    HeaderTooLarge {
        /// What the file's first eight bytes say.
        bytes: u64,
        /// [`crate::HEADER_BYTES_MAX`].
        limit: u64,
    },
    /// A tensor of the network is not in the file.
    #[error("the file has no tensor {name}, of the shape {expected:?}; it has {found}")]
    Missing {
        /// The name that was looked for.
        name: String,
        /// The shape that it should have.
        expected: Vec<usize>,
        /// Some of the names that are there.
        found: String,
    },
    /// A tensor has another shape than the network gives it.
    #[error("tensor {name} has the shape {found:?}; the network expects {expected:?}")]
    Shape {
        /// Its name in the file.
        name: String,
        /// The shape in the file.
        found: Vec<usize>,
        /// The shape that it should have.
        expected: Vec<usize>,
    },
    /// A tensor's values are no floats that are read.
    #[error("tensor {name} holds {found}; expected F32, F16, BF16 or F64")]
    Type {
        /// Its name in the file.
        name: String,
        /// The type in the file.
        found: String,
    },
    /// A value is infinite or no number, or becomes infinite as `f32`.
    #[error("tensor {name}: value {index} is {value}; weights are finite f32 numbers")]
    NotFinite {
        /// Its name in the file.
        name: String,
        /// The value's position, row-major.
        index: usize,
        /// The value.
        value: String,
    },
    /// The file holds something that the network has no place for.
    #[error("the file's tensor {name}, of the shape {found:?}, belongs to no layer of the network")]
    Unexpected {
        /// Its name in the file.
        name: String,
        /// Its shape.
        found: Vec<usize>,
    },
    /// No module of a PyTorch file has the tensors of a layer.
    #[error("layer {layer} wants a module of {expected}, and no module is left with these shapes; left: {found}")]
    NoModule {
        /// The layer's position and key.
        layer: String,
        /// Its tensors and their shapes, as PyTorch has them.
        expected: String,
        /// The modules that no layer has taken.
        found: String,
    },
    /// Two modules fit one layer, and nothing says which comes first.
    #[error(
        "modules {first} and {second} have the same shapes, and their names give no order; rename them to their layers' \
         positions, as torch.nn.Sequential does: {wanted}"
    )]
    Ambiguous {
        /// One of them.
        first: String,
        /// The other.
        second: String,
        /// The positions of the layers with these shapes.
        wanted: String,
    },
    /// A layer whose tensors have no counterpart in PyTorch.
    #[error("tensor {0} has no counterpart in PyTorch that is known here; use the layout `starling`")]
    NoCounterpart(String),
    /// The flat vector is another network's.
    #[error("{found} parameters for a network of {expected}")]
    Parameters {
        /// How many there are.
        found: usize,
        /// How many the network has.
        expected: usize,
    },
    /// A file that the format cannot hold.
    #[error("the network takes {bytes} bytes as ONNX, and one protobuf message holds at most {limit}")]
    TooLarge {
        /// What it would take.
        bytes: u64,
        /// [`crate::ONNX_BYTES_MAX`].
        limit: u64,
    },
}

/// Letters of a name that a message repeats: a hostile header could hold names of megabytes.
const SHOWN_MAX: usize = 96;

/// Names that a message lists.
const LISTED_MAX: usize = 8;

/// A name of a file as messages show it: quoted, escaped and short.
pub(crate) fn shown(name: &str) -> String {
    match name.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{:?}…", &name[..end]),
        None => format!("{name:?}"),
    }
}

/// What another crate says of a file, which may repeat the file's own text: without control characters, and short.
pub(crate) fn told(error: &dyn std::error::Error) -> String {
    let text: String = error.to_string().chars().take(2 * SHOWN_MAX + 1).collect();
    let mut text = text.replace(char::is_control, " ");
    if let Some((end, _)) = text.char_indices().nth(2 * SHOWN_MAX) {
        text.replace_range(end.., "…");
    }
    text
}

/// The first few of `items`, and how many more there are.
pub(crate) fn listed<I: IntoIterator<Item = String>>(items: I) -> String {
    let mut items = items.into_iter();
    let mut text = items.by_ref().take(LISTED_MAX).collect::<Vec<_>>().join(", ");
    match items.count() {
        0 if text.is_empty() => text.push_str("nothing"),
        0 => {}
        more => text.push_str(&format!(" and {more} more")),
    }
    text
}
