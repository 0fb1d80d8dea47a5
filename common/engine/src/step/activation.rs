//! Functions of single values, in place.

use super::Step;
use crate::buffers::Buffers;
use crate::isa::Isa;
use crate::kernel::value;

/// Which function.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Function {
    /// `max(x, 0)`.
    Relu,
    /// `x Φ(x)`.
    Gelu,
    /// `tanh x`.
    Tanh,
    /// `1 / (1 + e^−x)`.
    Sigmoid,
    /// 1 where `x ≥ 0`, −1 elsewhere.
    Sign,
}

/// A function of each of `len` values a sample.
#[derive(Debug)]
pub(crate) struct Apply {
    pub(crate) isa: Isa,
    pub(crate) function: Function,
    pub(crate) len: usize,
}

impl Step for Apply {
    fn run(&mut self, batch: usize, buffers: &mut Buffers) {
        let values = &mut buffers.x.floats[..batch * self.len];
        match self.function {
            Function::Relu => value::relu(self.isa, values),
            Function::Gelu => value::gelu(values),
            Function::Tanh => value::tanh(values),
            Function::Sigmoid => value::sigmoid(values),
            Function::Sign => value::sign(self.isa, values),
        }
    }
}

/// `max(level, zero)` of levels: ReLU where `zero` stands for 0.
#[derive(Debug)]
pub(crate) struct LevelRelu {
    pub(crate) zero: u8,
    pub(crate) len: usize,
}

impl Step for LevelRelu {
    fn run(&mut self, batch: usize, buffers: &mut Buffers) {
        for level in &mut buffers.x.levels[..batch * self.len] {
            *level = (*level).max(self.zero);
        }
    }
}
