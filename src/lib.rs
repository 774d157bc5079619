//! libdwf samples whole neural networks from a trained flow over weights.

pub mod artifact;
pub mod error;
pub mod layout;
pub mod metadata;
pub mod ode;
pub mod onnx;
