//! What can be wrong with a release file.

use starling_spec::SpecError;

/// Why bytes are no release that this program reads.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ReleaseError {
    /// It does not begin as a release does.
    #[error("this is no release: it does not begin with \"STRL\"")]
    Magic,
    /// A later format.
    #[error("a release of format {got}, and this program reads format {read}; update the program")]
    Version {
        /// The file's.
        got: u8,
        /// The one that is read.
        read: u8,
    },
    /// The digest at its end is not that of what precedes it.
    #[error("the release is damaged or cut off: its digest does not match; fetch it again")]
    Digest,
    /// Its head cannot be read.
    #[error("the head of the release: {0}")]
    Head(String),
    /// Its layers describe no network.
    #[error("the release's {0}")]
    Network(#[from] SpecError),
    /// More parameters than a file of its size may expand to.
    #[error("the release has {parameters} parameters in {bytes} bytes; expected at most {most}")]
    Parameters {
        /// What its layers ask for.
        parameters: usize,
        /// The length of the file.
        bytes: usize,
        /// What a file of that length may have.
        most: usize,
    },
    /// A tensor cannot be read.
    #[error("tensor {name} of the release: {problem}")]
    Tensor {
        /// Its name in the manifest.
        name: String,
        /// What no release says.
        problem: &'static str,
    },
    /// There is more behind the last tensor.
    #[error("the release holds more than its tensors")]
    LeftOver,
}
