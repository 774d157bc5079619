//! What the test programs and benches share: artifacts made from scratch, and what their networks
//! must be by an independent computation.

#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "every test program uses its own part"
)]

pub mod artifact;
pub mod c;
pub mod conformance;
pub mod damage;
pub mod fixture;
pub mod graph;
pub mod networks;
pub mod reference;
pub mod sidecar;
pub mod stretched;

pub use artifact::Artifact;
pub use fixture::Fixture;
pub use reference::Reference;
