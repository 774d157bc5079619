//! The most that an artifact may hold. Far beyond any real one, these bound what a hostile one can
//! make its reader do before it is refused.

/// Bytes of the `.onnx`, which holds no weights.
pub const MAX_ONNX_BYTES: usize = 16 << 20;

/// Messages within the `.onnx`: nodes, attributes, tensors, entries, dimensions.
pub const MAX_MESSAGES: usize = 1 << 16;

/// Fields of all these messages, a list's elements counted one by one.
pub const MAX_FIELDS: usize = 1 << 19;

/// Messages around the innermost one.
pub const MAX_DEPTH: usize = 12;

/// Bytes of all `dwf.*` metadata together.
pub const MAX_METADATA_BYTES: usize = 8 << 20;

/// Bytes of the sidecar's header.
pub const MAX_HEADER_BYTES: usize = 16 << 20;

/// Nodes of the velocity network.
pub const MAX_NODES: usize = 1 << 13;

/// Initialisers of the velocity network; tensors of the target network.
pub const MAX_TENSORS: usize = 1 << 16;

/// Dimensions of a tensor, in the velocity network or the target network.
pub const MAX_RANK: usize = 8;

/// Memory that a model's copy, or a sampler, may take unless the options say otherwise.
pub const DEFAULT_MEMORY: u64 = 4 << 30;
