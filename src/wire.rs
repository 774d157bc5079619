//! An ONNX file's messages, counted before they are decoded: a message of two bytes becomes
//! hundreds in memory, so that a file of a few megabytes could ask for gigabytes.

use crate::{
    error::{Error, Result},
    limits::{MAX_DEPTH, MAX_FIELDS, MAX_MESSAGES, MAX_ONNX_BYTES},
};

/// The messages of [`crate::onnx`] that hold other messages.
#[derive(Clone, Copy)]
enum Message {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    Value,
    Type,
    TensorType,
    Shape,
    /// Holds no message.
    Leaf,
}

impl Message {
    /// What the field with this number holds, if it holds messages.
    fn field(self, number: u64) -> Option<Self> {
        Some(match (self, number) {
            (Self::Model, 7) | (Self::Attribute, 6) => Self::Graph,
            (Self::Graph, 1) => Self::Node,
            (Self::Graph, 5) | (Self::Attribute, 5) => Self::Tensor,
            (Self::Graph, 11..=13) => Self::Value,
            (Self::Node, 5) => Self::Attribute,
            (Self::Value, 2) => Self::Type,
            (Self::Type, 1) => Self::TensorType,
            (Self::TensorType, 2) => Self::Shape,
            (Self::Model, 8 | 14) | (Self::Tensor, 13) | (Self::Shape, 1) => Self::Leaf,
            _ => return None,
        })
    }
}

/// Checks an ONNX file against [`crate::limits`], in time linear in its length and without memory.
///
/// Errors: BAD_ARTIFACT naming the limit.
pub(crate) fn check(onnx: &[u8]) -> Result<()> {
    if onnx.len() > MAX_ONNX_BYTES {
        return Err(too_much("bytes", MAX_ONNX_BYTES));
    }
    let mut counter = Counter::default();
    counter.message(Message::Model, onnx, 0)
}

#[derive(Default)]
struct Counter {
    messages: usize,
    fields: usize,
}

impl Counter {
    fn message(&mut self, message: Message, mut bytes: &[u8], depth: usize) -> Result<()> {
        self.messages += 1;
        if self.messages > MAX_MESSAGES {
            return Err(too_much("messages", MAX_MESSAGES));
        }
        if depth > MAX_DEPTH {
            return Err(too_much("levels", MAX_DEPTH));
        }
        while !bytes.is_empty() {
            self.fields += 1;
            if self.fields > MAX_FIELDS {
                return Err(too_much("fields", MAX_FIELDS));
            }
            let key = varint(&mut bytes)?;
            match key & 7 {
                0 => drop(varint(&mut bytes)?),
                1 => drop(take(&mut bytes, 8)?),
                2 => {
                    let len = varint(&mut bytes)?;
                    let field = take(&mut bytes, len)?;
                    if let Some(inner) = message.field(key >> 3) {
                        self.message(inner, field, depth + 1)?;
                    }
                }
                5 => drop(take(&mut bytes, 4)?),
                _ => return Err(broken()),
            }
        }
        Ok(())
    }
}

fn varint(bytes: &mut &[u8]) -> Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(broken())
}

fn take<'a>(bytes: &mut &'a [u8], len: u64) -> Result<&'a [u8]> {
    let len = usize::try_from(len).ok();
    let (taken, rest) = len
        .and_then(|len| bytes.split_at_checked(len))
        .ok_or_else(broken)?;
    *bytes = rest;
    Ok(taken)
}

fn broken() -> Error {
    Error::artifact("not an ONNX file, or truncated; copy the file again")
}

fn too_much(what: &str, most: usize) -> Error {
    Error::artifact(format!(
        "more than {most} {what}; a velocity network's .onnx needs far fewer"
    ))
}
