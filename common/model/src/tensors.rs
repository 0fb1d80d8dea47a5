//! Tensors whose rank is known at run time only: activations on their way and parameters as leaves of a graph.

use burn::tensor::{Device, Gradients, Tensor, TensorData};
use starling_spec::ParamTensor;

/// An activation of a batch; the first axis is the batch.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    D2(Tensor<2>),
    D3(Tensor<3>),
    D4(Tensor<4>),
}

/// Applies the same expression to an activation of any rank.
macro_rules! each {
    ($act:expr, $x:ident => $result:expr) => {
        match $act {
            $crate::tensors::Act::D2($x) => $crate::tensors::Act::D2($result),
            $crate::tensors::Act::D3($x) => $crate::tensors::Act::D3($result),
            $crate::tensors::Act::D4($x) => $crate::tensors::Act::D4($result),
        }
    };
}
pub(crate) use each;

impl Act {
    /// A batch of samples of the shape `shape`.
    pub(crate) fn new(values: Vec<f32>, batch: usize, shape: &[usize], device: &Device) -> Self {
        match *shape {
            [a] => Self::D2(Tensor::from_data(TensorData::new(values, [batch, a]), device)),
            [a, b] => Self::D3(Tensor::from_data(TensorData::new(values, [batch, a, b]), device)),
            [a, b, c] => Self::D4(Tensor::from_data(TensorData::new(values, [batch, a, b, c]), device)),
            _ => unreachable!("shape inference keeps samples at one to three axes"),
        }
    }

    /// The same values as a batch of samples of the shape `shape`.
    pub(crate) fn shaped(self, batch: usize, shape: &[usize]) -> Self {
        match *shape {
            [a] => Self::D2(self.flat(batch, a)),
            [a, b] => Self::D3(match self {
                Self::D2(x) => x.reshape([batch, a, b]),
                Self::D3(x) => x.reshape([batch, a, b]),
                Self::D4(x) => x.reshape([batch, a, b]),
            }),
            [a, b, c] => Self::D4(match self {
                Self::D2(x) => x.reshape([batch, a, b, c]),
                Self::D3(x) => x.reshape([batch, a, b, c]),
                Self::D4(x) => x.reshape([batch, a, b, c]),
            }),
            _ => unreachable!("shape inference keeps samples at one to three axes"),
        }
    }

    /// One row a sample.
    pub(crate) fn flat(self, batch: usize, len: usize) -> Tensor<2> {
        match self {
            Self::D2(x) => x,
            Self::D3(x) => x.reshape([batch, len]),
            Self::D4(x) => x.reshape([batch, len]),
        }
    }

    /// The same values in a graph of its own, remembering their gradient.
    pub(crate) fn tracked(self) -> Self {
        each!(self, x => x.autodiff().require_grad())
    }

    /// The gradient, row-major.
    pub(crate) fn gradient(&self, gradients: &mut Gradients) -> Option<Vec<f32>> {
        match self {
            Self::D2(x) => x.grad_remove(gradients).map(values),
            Self::D3(x) => x.grad_remove(gradients).map(values),
            Self::D4(x) => x.grad_remove(gradients).map(values),
        }
    }

    /// How many values there are in the batch.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::D2(x) => x.shape().num_elements(),
            Self::D3(x) => x.shape().num_elements(),
            Self::D4(x) => x.shape().num_elements(),
        }
    }

    /// `self + other`, of equal shapes.
    pub(crate) fn plus(self, other: Self) -> Self {
        match (self, other) {
            (Self::D2(a), Self::D2(b)) => Self::D2(a + b),
            (Self::D3(a), Self::D3(b)) => Self::D3(a + b),
            (Self::D4(a), Self::D4(b)) => Self::D4(a + b),
            _ => unreachable!("shape inference keeps a residual's shape"),
        }
    }
}

/// A parameter tensor.
#[derive(Debug, Clone)]
pub(crate) enum Leaf {
    D1(Tensor<1>),
    D2(Tensor<2>),
    D3(Tensor<3>),
    D4(Tensor<4>),
}

/// Applies the same expression to a leaf of any rank; the result has no rank.
macro_rules! any_leaf {
    ($leaf:expr, $x:ident => $result:expr) => {
        match $leaf {
            Leaf::D1($x) => $result,
            Leaf::D2($x) => $result,
            Leaf::D3($x) => $result,
            Leaf::D4($x) => $result,
        }
    };
}

impl Leaf {
    /// A leaf with the shape of `tensor`; it takes the vector without a copy.
    pub(crate) fn new(values: Vec<f32>, tensor: &ParamTensor, device: &Device) -> Self {
        match *tensor.shape.as_slice() {
            [a] => Self::D1(Tensor::from_data(TensorData::new(values, [a]), device)),
            [a, b] => Self::D2(Tensor::from_data(TensorData::new(values, [a, b]), device)),
            [a, b, c] => Self::D3(Tensor::from_data(TensorData::new(values, [a, b, c]), device)),
            [a, b, c, d] => Self::D4(Tensor::from_data(TensorData::new(values, [a, b, c, d]), device)),
            _ => unreachable!("shape inference makes parameters of one to four axes"),
        }
    }

    /// What stands for a tensor that no graph computes with.
    pub(crate) fn absent(device: &Device) -> Self {
        Self::D1(Tensor::from_data(TensorData::new(vec![0f32], [1]), device))
    }

    /// The same leaf in a graph of its own, remembering its gradient.
    pub(crate) fn tracked(self) -> Self {
        match self {
            Self::D1(x) => Self::D1(x.autodiff().require_grad()),
            Self::D2(x) => Self::D2(x.autodiff().require_grad()),
            Self::D3(x) => Self::D3(x.autodiff().require_grad()),
            Self::D4(x) => Self::D4(x.autodiff().require_grad()),
        }
    }

    /// The leaf's gradient, row-major.
    pub(crate) fn gradient(&self, gradients: &mut Gradients) -> Option<Vec<f32>> {
        any_leaf!(self, x => x.grad_remove(gradients).map(values))
    }

    /// The values again; without a copy when the graph has let go of them.
    pub(crate) fn into_values(self) -> Vec<f32> {
        any_leaf!(self, x => values(x.without_autodiff()))
    }

    pub(crate) fn d1(&self) -> Tensor<1> {
        match self {
            Self::D1(x) => x.clone(),
            _ => unreachable!("shape inference made this a vector"),
        }
    }

    pub(crate) fn d2(&self) -> Tensor<2> {
        match self {
            Self::D2(x) => x.clone(),
            _ => unreachable!("shape inference made this a matrix"),
        }
    }

    pub(crate) fn d3(&self) -> Tensor<3> {
        match self {
            Self::D3(x) => x.clone(),
            _ => unreachable!("shape inference made this a kernel of a signal"),
        }
    }

    pub(crate) fn d4(&self) -> Tensor<4> {
        match self {
            Self::D4(x) => x.clone(),
            _ => unreachable!("shape inference made this a kernel of an image"),
        }
    }
}

/// A tensor's values, row-major; without a copy where nobody else holds them.
pub(crate) fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec::<f32>().expect("all float tensors here are f32")
}
