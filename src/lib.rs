//! libdwf samples whole neural networks from a trained flow over weights (DeepWeightFlow,
//! arXiv 2601.05052): it maps a trained artifact, integrates the flow with ONNX Runtime and
//! writes finished weights into the caller's buffers. `include/dwf.h` is the same thing in C.
//!
//! ```no_run
//! let model = dwf::Model::open("iris.onnx", &Default::default())?;
//! let mut sampler = dwf::Sampler::new(&model, &Default::default())?;
//! let mut weights = vec![0f32; 100 * model.metadata().layout.len()];
//! let options = dwf::SampleOptions { seed: 1, count: 100, ..Default::default() };
//! sampler.sample(options, &mut weights[..])?;
//! # Ok::<(), dwf::Error>(())
//! ```
//!
//! The way of the data: [`artifact`] and [`metadata`] say what the files hold, [`Model`] maps
//! them, [`runtime`] finds ONNX Runtime, [`noise`] starts trajectories, [`ode`] carries them
//! along the velocity, and [`Sampler`] decodes them into an [`Output`].

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

// The fixtures of tests/common, which say `dwf`, serve the tests in here too.
#[cfg(test)]
extern crate self as dwf;

pub mod artifact;
pub mod capi;
pub mod condition;
pub mod error;
pub mod layout;
pub mod limits;
pub mod log;
pub mod metadata;
pub mod noise;
pub mod ode;
pub mod onnx;
pub mod runtime;
pub mod trajectory;

mod budget;
mod composer;
mod decode;
mod device;
mod evaluator;
mod graph;
mod guidance;
mod kernel;
mod lane;
mod memory;
mod model;
mod options;
mod output;
mod panels;
mod progress;
mod resident;
mod sampler;
mod session;
mod team;
mod velocity;
mod wire;

pub use error::{Error, Result, Status};
pub use model::{Model, ModelOptions};
pub use options::{Device, MAX_BATCH, MAX_THREADS, SampleOptions, SamplerInfo, SamplerOptions};
pub use output::Output;
pub use progress::{Flow, Progress};
pub use sampler::Sampler;
