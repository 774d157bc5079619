//! The source noise: its values are part of what a seed means, so they may never change.

use dwf::noise::{fill, fill_uniform};

fn noise(seed: u64, index: u64, len: usize) -> Vec<f32> {
    let mut noise = vec![f32::NAN; len];
    fill(seed, index, 1.0, &mut noise);
    noise
}

/// Values from a second implementation (ChaCha12 by its paper, Box-Muller in Python's floats), bit
/// for bit; the last two come from the 125th block of the key stream.
#[test]
fn golden_values() {
    let golden = [
        (0, 0, 1.0, [0x3fc6cb94, 0xbf323c8e, 0xbfb2f0e5, 0xbe296dfe]),
        (1, 0, 1.0, [0x3f4e5d10, 0x3f0fa26c, 0x3d684bc2, 0x3e6ce2df]),
        (0, 1, 1.0, [0xbfc247bd, 0xbfacc9a5, 0xc0315cef, 0xbe75097f]),
        (
            0x0123_4567_89ab_cdef,
            u64::MAX,
            0.01,
            [0x3bde7cc4, 0x3cb0c8ae, 0xbc110716, 0xbb906501],
        ),
    ];
    for (seed, index, std, bits) in golden {
        let mut noise = [0f32; 4];
        fill(seed, index, std, &mut noise);
        assert_eq!(noise.map(f32::to_bits), bits, "seed {seed}, index {index}");
    }
    assert_eq!(noise(5, 6, 1000)[998..], [-0.10587925, -0.18568344]);
}

/// From the second implementation, as above.
const UNIFORM: [u32; 3] = [0xbf6b0e30, 0x3fbff644, 0xbee456cc];

const MANY: usize = 1 << 20;
/// Four standard errors of a mean of that many independent values of variance 1.
const FOUR_SIGMA: f64 = 4.0 / 1024.0;

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    values.sum::<f64>() / MANY as f64
}

/// A normal variable has moments 0, 1, 0, 3; the powers' own variances are 1, 2, 15, 96.
#[test]
fn moments() {
    let noise = noise(1, 2, MANY);
    for (power, moment, variance) in [(1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)]
    {
        let found = mean(noise.iter().map(|x| f64::from(*x).powi(power)));
        let bound = FOUR_SIGMA * f64::sqrt(variance);
        assert!((found - moment).abs() < bound, "moment {power} is {found}");
    }
    // P(|x| > 4) = 6.334e-5, whose count has a standard deviation of its square root.
    let tail = noise.iter().filter(|x| x.abs() > 4.0).count() as f64;
    let expected = 6.334e-5 * MANY as f64;
    assert!(
        (tail - expected).abs() < 4.0 * expected.sqrt(),
        "{tail} beyond 4"
    );
}

/// A uniform variable of variance 1 has moments 0, 1, 0, 9/5, and lies within sqrt(3).
#[test]
fn uniform_draws() {
    let mut noise = vec![0f32; MANY];
    fill_uniform(1, 2, 1.0, &mut noise);
    assert!(noise.iter().all(|x| x.abs() <= 3f32.sqrt()));
    // The powers' own variances: 1, 9/5 - 1, 27/7, 9 - 81/25.
    for (power, moment, variance) in [
        (1, 0.0, 1.0),
        (2, 1.0, 0.8),
        (3, 0.0, 27.0 / 7.0),
        (4, 1.8, 5.76),
    ] {
        let found = mean(noise.iter().map(|x| f64::from(*x).powi(power)));
        let bound = FOUR_SIGMA * f64::sqrt(variance);
        assert!((found - moment).abs() < bound, "moment {power} is {found}");
    }
    let mut golden = [0f32; 3];
    fill_uniform(0, 0, 1.0, &mut golden);
    assert_eq!(golden.map(f32::to_bits), UNIFORM);
}

#[test]
fn neighbours_are_independent() {
    let one = noise(1, 2, MANY + 2);
    let pairs = [
        ("index", noise(1, 3, MANY)),
        ("seed", noise(2, 2, MANY)),
        ("both", noise(2, 1, MANY)),
        ("place", one[1..=MANY].to_vec()),
        ("pair", one[2..].to_vec()),
    ];
    for (what, other) in pairs {
        let products = one.iter().zip(other);
        let correlation = mean(products.map(|(a, b)| f64::from(*a) * f64::from(b)));
        assert!(correlation.abs() < FOUR_SIGMA, "{what}: {correlation}");
    }
}

#[test]
fn the_standard_deviation_scales() {
    let unit = noise(1, 2, 1000);
    let mut small = vec![0f32; 1000];
    fill(1, 2, 0.01, &mut small);
    for (unit, small) in unit.iter().zip(small) {
        // One rounding each, of 6e-8.
        assert!(
            (f64::from(small) - 0.01 * f64::from(*unit)).abs() <= 2e-7 * f64::from(small.abs())
        );
    }
}

#[test]
fn a_longer_vector_begins_with_the_shorter() {
    let long = noise(1, 2, 1000);
    for len in [2, 64, 998] {
        assert_eq!(noise(1, 2, len), long[..len]);
    }
    assert!(noise(1, 2, 7).iter().all(|x| x.is_finite()));
    assert!(noise(1, 2, 0).is_empty());
}
