//! The trainer's modules that read checkpoints and trace networks, compiled from where they are.

#![allow(dead_code, reason = "the trainer uses more of them")]

#[path = "../../trainer/src/axes.rs"]
pub mod axes;
#[path = "../../trainer/src/checkpoint.rs"]
pub mod checkpoint;
#[path = "../../trainer/src/error.rs"]
pub mod error;
#[path = "../../trainer/src/evaluator.rs"]
pub mod evaluator;
#[path = "../../trainer/src/graph.rs"]
pub mod graph;
#[path = "../../trainer/src/groups.rs"]
pub mod groups;
#[path = "../../trainer/src/mlp.rs"]
pub mod mlp;
#[path = "../../trainer/src/network.rs"]
pub mod network;
#[path = "../../trainer/src/probe.rs"]
pub mod probe;
#[path = "../../trainer/src/random.rs"]
pub mod random;
#[path = "../../trainer/src/tensor.rs"]
pub mod tensor;
#[path = "../../trainer/src/units.rs"]
pub mod units;
