//! The inner loops of decoding a linear basis, compiled for what the processor has.
//!
//! Every element is its start value plus the sum over the components in their order, one
//! multiply-add each, so a network's weights do not depend on the batch it is decoded in.

/// Columns of a packed tile.
pub(crate) const TILE: usize = 64;

/// Networks that a tile is multiplied with at a time.
pub(crate) const GROUP: usize = 6;

/// Components added at a time while streaming.
pub(crate) const STREAMS: usize = 4;

/// An instruction set's version of the loops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kernel {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Whatever the build targets; NEON on 64-bit Arm.
    Portable,
}

impl Kernel {
    /// The best that this processor runs.
    pub(crate) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                return Self::Avx512;
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Self::Avx2;
            }
        }
        Self::Portable
    }

    /// out[g] += sum over k of z[k][g] * tile[k], for the networks of one group.
    pub(crate) fn multiply(
        self,
        z: &[[f32; GROUP]],
        tile: &[[f32; TILE]],
        out: [&mut [f32; TILE]; GROUP],
    ) {
        match self {
            // SAFETY: `detect` has found the features.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { x86::multiply_avx512(z, tile, out) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { x86::multiply_avx2(z, tile, out) },
            Self::Portable => multiply_portable(z, tile, out),
        }
    }

    /// out += sum over j of z[j] * rows[j].
    pub(crate) fn accumulate(self, z: [f32; STREAMS], rows: [&[f32]; STREAMS], out: &mut [f32]) {
        match self {
            // SAFETY: `detect` has found the features.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { x86::accumulate_avx512(z, rows, out) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { x86::accumulate_avx2(z, rows, out) },
            Self::Portable => accumulate(z, rows, out, multiply_add),
        }
    }
}

/// z * c + sum, fused only where the build target has the instruction: elsewhere `mul_add` calls
/// a function.
#[inline(always)]
fn multiply_add(z: f32, c: f32, sum: f32) -> f32 {
    if cfg!(any(target_feature = "fma", target_arch = "aarch64")) {
        z.mul_add(c, sum)
    } else {
        z * c + sum
    }
}

fn multiply_portable(z: &[[f32; GROUP]], tile: &[[f32; TILE]], out: [&mut [f32; TILE]; GROUP]) {
    for (g, out) in out.into_iter().enumerate() {
        let mut sums = *out;
        for (z, row) in z.iter().zip(tile) {
            for (sum, c) in sums.iter_mut().zip(row) {
                *sum = multiply_add(z[g], *c, *sum);
            }
        }
        *out = sums;
    }
}

#[inline(always)]
fn accumulate(
    z: [f32; STREAMS],
    rows: [&[f32]; STREAMS],
    out: &mut [f32],
    multiply_add: impl Fn(f32, f32, f32) -> f32,
) {
    let rows = rows.map(|row| &row[..out.len()]);
    for (i, out) in out.iter_mut().enumerate() {
        let mut sum = *out;
        for (z, row) in z.iter().zip(rows) {
            sum = multiply_add(*z, row[i], sum);
        }
        *out = sum;
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{GROUP, STREAMS, TILE};

    #[target_feature(enable = "avx512f")]
    pub(super) fn accumulate_avx512(z: [f32; STREAMS], rows: [&[f32]; STREAMS], out: &mut [f32]) {
        super::accumulate(z, rows, out, f32::mul_add);
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn accumulate_avx2(z: [f32; STREAMS], rows: [&[f32]; STREAMS], out: &mut [f32]) {
        super::accumulate(z, rows, out, f32::mul_add);
    }

    /// A multiplication that keeps `$columns` vectors of all networks in registers.
    macro_rules! multiply {
        ($name:ident, $features:literal, $lanes:literal, $columns:literal,
         $load:ident, $store:ident, $broadcast:ident, $fma:ident) => {
            #[target_feature(enable = $features)]
            pub(super) fn $name(
                z: &[[f32; GROUP]],
                tile: &[[f32; TILE]],
                mut out: [&mut [f32; TILE]; GROUP],
            ) {
                const WIDTH: usize = $lanes * $columns;
                for start in (0..TILE).step_by(WIDTH) {
                    // SAFETY: WIDTH divides TILE, so every access lies within a row.
                    unsafe {
                        let mut sums: [[_; $columns]; GROUP] = std::array::from_fn(|g| {
                            std::array::from_fn(|c| $load(out[g].as_ptr().add(start + c * $lanes)))
                        });
                        for (z, row) in z.iter().zip(tile) {
                            let row: [_; $columns] = std::array::from_fn(|c| {
                                $load(row.as_ptr().add(start + c * $lanes))
                            });
                            for (sums, z) in sums.iter_mut().zip(z) {
                                let z = $broadcast(*z);
                                for (sum, row) in sums.iter_mut().zip(row) {
                                    *sum = $fma(z, row, *sum);
                                }
                            }
                        }
                        for (out, sums) in out.iter_mut().zip(sums) {
                            for (c, sum) in sums.into_iter().enumerate() {
                                let to = out.as_mut_ptr().add(start + c * $lanes);
                                $store(to, sum);
                            }
                        }
                    }
                }
            }
        };
    }

    // 6 x 4 sums and 4 columns of 32 registers; 6 x 2 and 2 of 16.
    multiply!(
        multiply_avx512,
        "avx512f",
        16,
        4,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_set1_ps,
        _mm512_fmadd_ps
    );
    multiply!(
        multiply_avx2,
        "avx2,fma",
        8,
        2,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_set1_ps,
        _mm256_fmadd_ps
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernels() -> Vec<Kernel> {
        let mut kernels = vec![Kernel::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                kernels.push(Kernel::Avx2);
            }
            if is_x86_feature_detected!("avx512f") {
                kernels.push(Kernel::Avx512);
            }
        }
        kernels
    }

    /// Numbers in [-1, 1) without a pattern that a wrong index could reproduce.
    fn number(i: usize) -> f32 {
        let hash = (i as u32).wrapping_mul(2_654_435_769) ^ 0x5bd1_e995;
        (hash.wrapping_mul(2_246_822_519) >> 8) as f32 / (1 << 23) as f32 - 1.0
    }

    /// A sum of 99 products of numbers below 1, each step rounded to 2^-24 of at most 10.
    const TOLERANCE: f64 = 99.0 * 10.0 / (1 << 24) as f64;

    #[test]
    fn multiply_agrees_with_f64() {
        const K: usize = 99;
        let z: Vec<[f32; GROUP]> = (0..K)
            .map(|k| std::array::from_fn(|g| number(k * GROUP + g)))
            .collect();
        let tile: Vec<[f32; TILE]> = (0..K)
            .map(|k| std::array::from_fn(|c| number(10_000 + k * TILE + c)))
            .collect();
        for kernel in kernels() {
            let mut out = [[0.25f32; TILE]; GROUP];
            kernel.multiply(&z, &tile, out.each_mut());
            for (g, row) in out.iter().enumerate() {
                for (c, value) in row.iter().enumerate() {
                    let sum: f64 = (0..K).map(|k| z[k][g] as f64 * tile[k][c] as f64).sum();
                    let error = (*value as f64 - 0.25 - sum).abs();
                    assert!(error < TOLERANCE, "{kernel:?} {g} {c}: {error}");
                }
            }
        }
    }

    #[test]
    fn streaming_and_tiles_are_bit_identical() {
        const K: usize = 8;
        let z: Vec<[f32; GROUP]> = (0..K)
            .map(|k| std::array::from_fn(|g| number(k * GROUP + g)))
            .collect();
        let tile: Vec<[f32; TILE]> = (0..K)
            .map(|k| std::array::from_fn(|c| number(10_000 + k * TILE + c)))
            .collect();
        for kernel in kernels() {
            let mut tiled = [[0.25f32; TILE]; GROUP];
            kernel.multiply(&z, &tile, tiled.each_mut());
            for (g, tiled) in tiled.iter().enumerate() {
                let mut streamed = [0.25f32; TILE];
                for k in (0..K).step_by(STREAMS) {
                    let rows = std::array::from_fn(|j| &tile[k + j][..]);
                    kernel.accumulate(std::array::from_fn(|j| z[k + j][g]), rows, &mut streamed);
                }
                assert_eq!(*tiled, streamed, "{kernel:?}");
            }
        }
    }
}
