//! Counter-based noise: network `index` of `seed` is the same on every machine, in any
//! batch and in any order.

use std::f64::consts::TAU;

use rand_chacha::{
    ChaCha12Rng,
    rand_core::{Rng, SeedableRng},
};

/// Fills `noise` with independent normal draws of mean 0 and standard deviation `std`.
///
/// ChaCha12 keyed by `seed`, stream `index`, feeds the Box-Muller transform in f64 with a
/// pure-Rust libm; the draws are bit-identical everywhere. A longer `noise` begins with the
/// shorter one's values when both lengths are even.
pub fn fill(seed: u64, index: u64, std: f64, noise: &mut [f32]) {
    let mut rng = generator(seed, index);
    for pair in noise.chunks_mut(2) {
        let normals = normal_pair(rng.next_u64(), rng.next_u64());
        for (value, normal) in pair.iter_mut().zip(normals) {
            *value = (std * normal) as f32;
        }
    }
}

/// Fills `noise` with independent uniform draws of mean 0 and standard deviation `std`, between plus
/// and minus std sqrt(3): the middles of 2^53 equal parts, from the words that [`fill`] takes.
pub fn fill_uniform(seed: u64, index: u64, std: f64, noise: &mut [f32]) {
    let mut rng = generator(seed, index);
    let most = std * 3f64.sqrt();
    for value in noise {
        let unit = ((rng.next_u64() >> 11) as f64 + 0.5) * UNIT;
        *value = (most * (2.0 * unit - 1.0)) as f32;
    }
}

/// ChaCha12 keyed by `seed`, stream `index`.
fn generator(seed: u64, index: u64) -> ChaCha12Rng {
    let mut key = *b"........libdwf source noise, v1.";
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let mut rng = ChaCha12Rng::from_seed(key);
    rng.set_stream(index);
    rng
}

/// A 53-bit integer's share of [0, 1).
const UNIT: f64 = 1.0 / (1u64 << 53) as f64;

/// Two independent standard normals from 128 random bits (Box and Muller, 1958).
fn normal_pair(a: u64, b: u64) -> [f64; 2] {
    // In (0, 1], so that the logarithm is finite.
    let radius = ((a >> 11) + 1) as f64 * UNIT;
    let angle = (b >> 11) as f64 * UNIT;
    let radius = (-2.0 * libm::log(radius)).sqrt();
    let (sin, cos) = libm::sincos(TAU * angle);
    [radius * cos, radius * sin]
}
