//! From a folder of trained networks to an artifact that libdwf samples new networks from.
//!
//! The data flow, a module a stage:
//! [`zoo`] ([`checkpoint`]s of one [`network`]) -> [`align`] (hidden units matched) -> [`latent`] (whitened) ->
//! [`flow`] (trained) -> [`export`] (two files) -> [`report`] (measured);
//! [`train`] runs it from end to end.

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod adamw;
pub mod align;
pub mod assignment;
mod attention;
pub mod axes;
pub mod barrier;
pub mod canonical;
pub mod checkpoint;
pub mod classifier;
pub mod components;
pub mod condition;
pub mod coordinates;
pub mod dataset;
pub mod error;
pub mod evaluator;
pub mod export;
pub mod export_sampler;
pub mod files;
pub mod flow;
pub mod gauge;
pub mod generate;
pub mod gram;
pub mod graph;
pub mod groups;
pub mod inspect;
pub mod interrupt;
pub mod isometry;
pub mod judge;
pub mod latent;
pub mod matching;
pub mod memory;
pub mod mixer;
pub mod mixing;
pub mod mlp;
pub mod network;
pub mod obedience;
pub mod path;
pub mod pca;
pub mod pool;
pub mod probe;
pub mod procrustes;
pub mod progress;
pub mod random;
pub mod realign;
pub mod recalibrate;
pub mod reflow;
pub mod report;
pub mod rotation;
pub mod rows;
pub mod sidecar;
mod slot;
pub mod solver;
pub mod store;
mod stream;
pub mod task;
pub mod tensor;
pub mod train;
pub mod trial;
pub mod units;
pub mod velocity;
pub mod verify;
pub mod work;
pub mod zoo;
