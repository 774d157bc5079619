//! What reads checkpoints and traces networks: a second root beside `lib.rs`, for the fuzzers, which
//! do without the rest (`fuzz/trainer`).

#![allow(dead_code, reason = "the trainer uses more of them")]

pub mod axes;
pub mod checkpoint;
pub mod error;
pub mod evaluator;
pub mod graph;
pub mod groups;
pub mod mlp;
pub mod network;
pub mod probe;
pub mod random;
pub mod tensor;
pub mod trial;
pub mod units;
pub mod verify;
