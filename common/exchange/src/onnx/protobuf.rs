//! Writing protobuf messages: the two wire forms that ONNX needs, integers and pieces with a length.
//!
//! Encoding: <https://protobuf.dev/programming-guides/encoding/>. Field numbers are those of `onnx.proto`.

/// A message while it is written.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Message {
    bytes: Vec<u8>,
}

const VARINT: u64 = 0;
const LENGTH_DELIMITED: u64 = 2;
const FIXED_32: u64 = 5;

impl Message {
    /// The finished message.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// An `int64` or an enumeration's number.
    #[allow(clippy::cast_sign_loss, reason = "negative numbers are written as their two's complement")]
    pub(super) fn integer(mut self, field: u64, value: i64) -> Self {
        self.key(field, VARINT);
        self.varint(value as u64);
        self
    }

    /// A `float`.
    pub(super) fn float(mut self, field: u64, value: f32) -> Self {
        self.key(field, FIXED_32);
        self.bytes.extend(value.to_le_bytes());
        self
    }

    /// A `string` or `bytes`.
    pub(super) fn piece(mut self, field: u64, piece: &[u8]) -> Self {
        self.key(field, LENGTH_DELIMITED);
        self.varint(piece.len() as u64);
        self.bytes.extend_from_slice(piece);
        self
    }

    /// A message inside this one.
    pub(super) fn message(self, field: u64, message: &Message) -> Self {
        self.piece(field, &message.bytes)
    }

    fn key(&mut self, field: u64, form: u64) {
        self.varint(field << 3 | form);
    }

    fn varint(&mut self, mut value: u64) {
        loop {
            let low = value.to_le_bytes()[0] & 0x7f;
            value >>= 7;
            if value == 0 {
                self.bytes.push(low);
                return;
            }
            self.bytes.push(low | 0x80);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_specification() {
        // "Message structure" and "length-delimited records" of the encoding guide: a = 150; b = "testing".
        assert_eq!(Message::default().integer(1, 150).into_bytes(), [0x08, 0x96, 0x01]);
        let text = Message::default().piece(2, b"testing").into_bytes();
        assert_eq!(text, [&[0x12, 0x07][..], b"testing"].concat());
        let inner = Message::default().integer(1, 150);
        assert_eq!(Message::default().message(3, &inner).into_bytes(), [0x1a, 0x03, 0x08, 0x96, 0x01]);
        // −2 takes ten bytes.
        assert_eq!(Message::default().integer(1, -2).into_bytes()[1..], {
            [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]
        });
        assert_eq!(Message::default().float(2, 1.0).into_bytes(), [0x15, 0, 0, 0x80, 0x3f]);
        assert_eq!(Message::default().integer(16, 0).into_bytes(), [0x80, 0x01, 0x00]);
    }
}
