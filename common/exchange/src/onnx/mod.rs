//! The float network as an ONNX file.
//!
//! Operators are those of opset 17 (IR version 8), so that runtimes from 2022 on read it. The batch may have any size. Features go in
//! as the network takes them (already scaled; token ids as `int64`), logits or values come out. Layers that training alone needs
//! are left out; binary layers are written as the values that they compute with ([`crate::computed_parameters`]).
//!
//! Operators: <https://onnx.ai/onnx/operators/>; the file's messages: `onnx.proto` of the same project.

mod graph;
mod layers;
mod protobuf;

use starling_spec::shape::{Network, Op};

use crate::binary::computed_parameters;
use crate::error::ExchangeError;

use self::graph::{Element, Graph, INPUT};
use self::layers::Writer;
use self::protobuf::Message;

/// Bytes of an ONNX file that is written in one piece: a protobuf message's length is a signed 32-bit number.
pub const ONNX_BYTES_MAX: u64 = (1 << 31) - 1;

/// What the graph takes beside the parameters, at most: names, nodes and constants of a thousand layers. Causal masks are counted
/// on their own.
const GRAPH_BYTES_MAX: u64 = 16 << 20;

const IR_VERSION: i64 = 8;
const OPSET: i64 = 17;

/// `network` with `parameters` as the bytes of an ONNX file, its graph called `name`. The same arguments give the same bytes.
///
/// # Errors
/// [`ExchangeError::Parameters`] when the parameters are another network's, [`ExchangeError::TooLarge`] above 2 GiB.
pub fn write_onnx(network: &Network, parameters: &[f32], name: &str) -> Result<Vec<u8>, ExchangeError> {
    if parameters.len() != network.manifest.len() {
        return Err(ExchangeError::Parameters { found: parameters.len(), expected: network.manifest.len() });
    }
    let values = parameters.len() as u64 + layers::constants(&network.nodes);
    let bytes = values.saturating_mul(4).saturating_add(GRAPH_BYTES_MAX);
    if bytes > ONNX_BYTES_MAX {
        return Err(ExchangeError::TooLarge { bytes, limit: ONNX_BYTES_MAX });
    }
    let parameters = computed_parameters(network, parameters);
    let mut writer = Writer { graph: Graph::default(), manifest: &network.manifest, parameters: &parameters };
    let last = writer.list(&network.nodes, INPUT.to_owned(), "");
    let tokens = matches!(network.nodes.first().map(|node| &node.op), Some(Op::Embedding { .. }));
    let input = if tokens { Element::Int64 } else { Element::Float };
    let graph = writer.graph.finish(name, (input, &network.input), (&last, &network.output));
    // The default domain is the empty word.
    let opset = Message::default().piece(1, b"").integer(2, OPSET);
    let model = Message::default()
        .integer(1, IR_VERSION)
        .piece(2, b"starling")
        .piece(3, env!("CARGO_PKG_VERSION").as_bytes())
        .message(7, &graph)
        .message(8, &opset);
    Ok(model.into_bytes())
}
