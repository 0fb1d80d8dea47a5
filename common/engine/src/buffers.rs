//! The memory that activations live in while an engine runs.

/// Values that a kernel may read or write behind the last one of a buffer: the widest vector, in its smallest element.
pub(crate) const SLACK: usize = 64;

/// An activation of a batch, in the form that its reader computes with.
#[derive(Debug, Default)]
pub(crate) struct Activation {
    /// Floats, channels first, as features arrive.
    pub(crate) floats: Vec<f32>,
    /// Integer levels: rows of features, or channels last.
    pub(crate) levels: Vec<u8>,
    /// Signs, a bit each (1 is +1): rows of whole words, or channels last with whole words a position.
    pub(crate) bits: Vec<u64>,
}

/// What the steps of an engine hand each other.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    /// What the next step reads.
    pub(crate) x: Activation,
    /// What it writes; [`Buffers::turn`] then makes it the next input.
    pub(crate) y: Activation,
    /// Whether the two have changed places since [`Buffers::rewind`].
    turned: bool,
    /// Inputs seen, by tensor, while calibrating.
    pub(crate) seen: Vec<Option<crate::calibrate::Seen>>,
}

/// The non-zero values of a vector, with their places.
#[derive(Debug, Default)]
pub(crate) struct Nonzero {
    /// Places, rising.
    pub(crate) places: Vec<u32>,
    /// Floats at the places.
    pub(crate) values: Vec<f32>,
    /// Four levels at a place, in the order of memory.
    pub(crate) quads: Vec<[u8; 4]>,
}

impl Buffers {
    /// Makes what was written the next input.
    #[inline]
    pub(crate) fn turn(&mut self) {
        std::mem::swap(&mut self.x, &mut self.y);
        self.turned = !self.turned;
    }

    /// Puts both back where they began: each then grows to what the same steps need, and no further.
    #[inline]
    pub(crate) fn rewind(&mut self) {
        if self.turned {
            self.turn();
        }
    }

    /// Empty buffers that note what the tensors of `seen` are multiplied with.
    pub(crate) fn observing(seen: Vec<Option<crate::calibrate::Seen>>) -> Self {
        Self { seen, ..Self::default() }
    }
}

/// The first `len` values of `buffer`, with [`SLACK`] values behind them; it only ever grows.
#[inline]
pub(crate) fn room<T: Copy + Default>(buffer: &mut Vec<T>, len: usize) -> &mut [T] {
    let needed = len + SLACK;
    if buffer.len() < needed {
        buffer.resize(needed, T::default());
    }
    &mut buffer[..needed]
}
