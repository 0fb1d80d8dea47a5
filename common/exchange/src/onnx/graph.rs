//! An ONNX graph while it is built: nodes, constants, and the names that tie them.

use super::protobuf::Message;

/// A setting of a node.
#[derive(Debug, Clone)]
pub(super) enum Attribute {
    Integer(i64),
    Integers(Vec<i64>),
    Float(f32),
}

/// The nodes and constants so far, and the node that is last.
#[derive(Debug, Default)]
pub(super) struct Graph {
    nodes: Vec<Node>,
    constants: Vec<Message>,
}

#[derive(Debug)]
struct Node {
    operator: &'static str,
    inputs: Vec<String>,
    outputs: Vec<String>,
    attributes: Vec<(&'static str, Attribute)>,
}

const FLOAT: i64 = 1;
const INT64: i64 = 7;

/// The type of a graph's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    Float,
    Int64,
}

impl Graph {
    /// Adds a node that computes one value, called `name`; gives that name back.
    pub(super) fn node(
        &mut self,
        operator: &'static str,
        name: String,
        inputs: &[&str],
        attributes: &[(&'static str, Attribute)],
    ) -> String {
        self.push(operator, vec![name.clone()], inputs, attributes);
        name
    }

    /// Adds a node that cuts `input` along `axis` into three parts of the constant `sizes`; gives the parts' names.
    pub(super) fn thirds(&mut self, name: &str, input: &str, sizes: &str, axis: i64) -> [String; 3] {
        let parts = [0, 1, 2].map(|part| format!("{name}.{part}"));
        self.push("Split", parts.to_vec(), &[input, sizes], &[("axis", Attribute::Integer(axis))]);
        parts
    }

    fn push(
        &mut self,
        operator: &'static str,
        outputs: Vec<String>,
        inputs: &[&str],
        attributes: &[(&'static str, Attribute)],
    ) {
        let inputs = inputs.iter().map(|&input| input.to_owned()).collect();
        self.nodes.push(Node { operator, inputs, outputs, attributes: attributes.to_vec() });
    }

    /// Adds a constant of floats and gives its name.
    pub(super) fn floats(&mut self, name: &str, shape: &[usize], values: impl IntoIterator<Item = f32>) -> String {
        let raw: Vec<u8> = values.into_iter().flat_map(f32::to_le_bytes).collect();
        self.constant(name, shape, FLOAT, &raw)
    }

    /// Adds a constant vector of integers and gives its name.
    pub(super) fn integers(&mut self, name: &str, values: &[i64]) -> String {
        let raw: Vec<u8> = values.iter().copied().flat_map(i64::to_le_bytes).collect();
        self.constant(name, &[values.len()], INT64, &raw)
    }

    fn constant(&mut self, name: &str, shape: &[usize], element: i64, raw: &[u8]) -> String {
        let tensor = dimensions(Message::default(), shape);
        let tensor = tensor.integer(2, element).piece(8, name.as_bytes()).piece(9, raw);
        self.constants.push(tensor);
        name.to_owned()
    }

    /// The finished `GraphProto`: one input and one output, each with a batch axis before its shape.
    pub(super) fn finish(
        mut self,
        name: &str,
        (element, input): (Element, &[usize]),
        (last, output): (&str, &[usize]),
    ) -> Message {
        // What the last layer computes is the output, under its own name.
        for node in &mut self.nodes {
            for value in node.inputs.iter_mut().chain(&mut node.outputs) {
                if value == last {
                    *value = OUTPUT.to_owned();
                }
            }
        }
        let mut graph = Message::default();
        for node in &self.nodes {
            graph = graph.message(1, &node.to_message());
        }
        graph = graph.piece(2, name.as_bytes());
        for constant in &self.constants {
            graph = graph.message(5, constant);
        }
        let element = if element == Element::Float { FLOAT } else { INT64 };
        graph.message(11, &value(INPUT, element, input)).message(12, &value(OUTPUT, FLOAT, output))
    }
}

/// The name of a graph's input.
pub(super) const INPUT: &str = "input";
/// The name of a graph's output.
const OUTPUT: &str = "output";

impl Node {
    /// The `NodeProto`; a node is called as its first output.
    fn to_message(&self) -> Message {
        let inputs = self.inputs.iter().fold(Message::default(), |node, input| node.piece(1, input.as_bytes()));
        let node = self.outputs.iter().fold(inputs, |node, output| node.piece(2, output.as_bytes()));
        let node = node.piece(3, self.outputs[0].as_bytes()).piece(4, self.operator.as_bytes());
        self.attributes.iter().fold(node, |node, (name, attribute)| node.message(5, &attribute.to_message(name)))
    }
}

impl Attribute {
    /// The `AttributeProto`: the value in the field of its type, then the type's number.
    fn to_message(&self, name: &str) -> Message {
        let message = Message::default().piece(1, name.as_bytes());
        match self {
            Self::Float(value) => message.float(2, *value).integer(20, 1),
            Self::Integer(value) => message.integer(3, *value).integer(20, 2),
            Self::Integers(values) => {
                values.iter().fold(message, |message, value| message.integer(8, *value)).integer(20, 7)
            }
        }
    }
}

fn dimensions(message: Message, shape: &[usize]) -> Message {
    shape.iter().fold(message, |message, size| message.integer(1, signed(*size)))
}

/// A `ValueInfoProto`: a tensor with a batch axis of any size before `shape`.
fn value(name: &str, element: i64, shape: &[usize]) -> Message {
    let batch = Message::default().piece(2, b"batch");
    let mut sizes = Message::default().message(1, &batch);
    for size in shape {
        sizes = sizes.message(1, &Message::default().integer(1, signed(*size)));
    }
    let tensor = Message::default().integer(1, element).message(2, &sizes);
    Message::default().piece(1, name.as_bytes()).message(2, &Message::default().message(1, &tensor))
}

/// A size as ONNX counts.
pub(super) fn signed(size: usize) -> i64 {
    i64::try_from(size).expect("shape inference keeps sizes below 2^30")
}
