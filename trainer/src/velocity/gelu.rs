//! x Phi(x) and its derivative Phi(x) + x phi(x), without branches, so that compilers vectorise
//! them.

/// x Phi(x) of every value.
#[inline(always)]
pub(super) fn forward(x: &[f32], y: &mut [f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = x * normal(*x).0;
    }
}

/// Adds the derivative times `dy`; nothing if `dx` is empty.
#[inline(always)]
pub(super) fn backward(x: &[f32], dy: &[f32], dx: &mut [f32]) {
    for ((dx, x), dy) in dx.iter_mut().zip(x).zip(dy) {
        let (distribution, density) = normal(*x);
        *dx += dy * (distribution + x * density);
    }
}

/// Distribution and density of the standard normal: Abramowitz and Stegun, "Handbook of mathematical
/// functions", formula 7.1.26 for the error function of x / sqrt 2, exact to 1.5e-7.
#[inline(always)]
fn normal(x: f32) -> (f32, f32) {
    const P: f32 = 0.327_591_1;
    const A: [f32; 5] = [
        0.254_829_6,
        -0.284_496_74,
        1.421_413_7,
        -1.453_152,
        1.061_405_4,
    ];
    const DENSITY: f32 = 0.398_942_3;
    let bell = exp_minus(0.5 * x * x);
    let t = 1.0 / (1.0 + P * std::f32::consts::FRAC_1_SQRT_2 * x.abs());
    let [a, b, c, d, e] = A;
    let tail = 0.5 * t * (a + t * (b + t * (c + t * (d + t * e)))) * bell;
    let distribution = if x < 0.0 { tail } else { 1.0 - tail };
    (distribution, DENSITY * bell)
}

/// exp(-x) for x >= 0 to a few units in the last place; about 1e-38 beyond 87.
#[inline(always)]
fn exp_minus(x: f32) -> f32 {
    // Added to a small float, it leaves the nearest integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts, the first of few bits, so that n times it is exact.
    const LN2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    let x = -x.min(87.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN2[0]) - n * LN2[1];
    // Taylor's series: |r| <= 0.35 leaves less than 2e-7.
    let series = 1.0
        + r * (1.0
            + r * (0.5
                + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0))))));
    // 2^n by its exponent's bits.
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    series * power
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against integration by the trapezoidal rule in f64, which is exact to 1e-12 here.
    #[test]
    fn distribution_and_density_are_the_normals() {
        let density = |x: f64| (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let (step, mut expected) = (1.0 / 1024.0, 0.0);
        for i in -10_240..=10_240 {
            let x = f64::from(i) * step;
            expected += step * 0.5 * (density(x - step) + density(x));
            let (found, bell) = normal(x as f32);
            // The formula's error, the rule's of 1e-7 and f32 rounding.
            assert!(
                (f64::from(found) - expected).abs() < 5e-7,
                "{x}: {found}, {expected}"
            );
            assert!((f64::from(bell) - density(x)).abs() < 2e-7, "{x}: {bell}");
        }
    }
}
