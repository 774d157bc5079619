//! The inner loops of decoding a linear basis, compiled for what the processor has.
//!
//! Every element is its start value plus the sum over the components in their order, one
//! multiply-add each, so a network's weights do not depend on the batch it is decoded in.

#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::*;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use half::{f16, slice::HalfFloatSliceExt};

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
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// Whatever the build targets.
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
            if x86::has_avx2() {
                return Self::Avx2;
            }
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("neon") {
            return Self::Neon;
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
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Self::Neon => unsafe { neon::multiply_neon(z, tile, out) },
            Self::Portable => multiply_portable(z, tile, out),
        }
    }

    /// out += sum over j of z[j] * rows[j], all of one length.
    pub(crate) fn accumulate<T: Element>(
        self,
        z: [f32; STREAMS],
        rows: [&[T]; STREAMS],
        out: &mut [f32],
    ) {
        let rows = rows.map(|row| &row[..out.len()]);
        match self {
            // SAFETY: `detect` has found the features.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { x86::accumulate_avx512(z, rows, out) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { x86::accumulate_avx2(z, rows, out) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Self::Neon => unsafe { neon::accumulate_neon(z, rows, out) },
            Self::Portable => accumulate_portable(z, rows, out),
        }
    }

    /// Converts `from` to float32.
    pub(crate) fn widen<T: Element>(self, from: &[T], to: &mut [f32]) {
        let from = &from[..to.len()];
        match self {
            // SAFETY: `detect` has found the features.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { x86::widen_avx512(from, to) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { x86::widen_avx2(from, to) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Self::Neon => unsafe { neon::widen_neon(from, to) },
            Self::Portable => T::widen(from, to),
        }
    }
}

/// An element type of the basis.
pub(crate) trait Element: Copy {
    fn to_f32(self) -> f32;

    /// The portable conversion.
    fn widen(from: &[Self], to: &mut [f32]);

    /// The first 16 elements from `from`.
    ///
    /// # Safety
    /// They are readable.
    #[cfg(target_arch = "x86_64")]
    unsafe fn load_avx512(from: *const Self) -> __m512;

    /// The first 8 elements from `from`.
    ///
    /// # Safety
    /// They are readable.
    #[cfg(target_arch = "x86_64")]
    unsafe fn load_avx2(from: *const Self) -> __m256;

    /// The first 4 elements from `from`.
    ///
    /// # Safety
    /// They are readable.
    #[cfg(target_arch = "aarch64")]
    unsafe fn load_neon(from: *const Self) -> float32x4_t;
}

impl Element for f32 {
    fn to_f32(self) -> f32 {
        self
    }

    fn widen(from: &[Self], to: &mut [f32]) {
        to.copy_from_slice(from);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f")]
    unsafe fn load_avx512(from: *const Self) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load_avx2(from: *const Self) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[cfg(target_arch = "aarch64")]
    #[target_feature(enable = "neon")]
    unsafe fn load_neon(from: *const Self) -> float32x4_t {
        // SAFETY: the caller's promise.
        unsafe { vld1q_f32(from) }
    }
}

impl Element for f16 {
    fn to_f32(self) -> f32 {
        f16::to_f32(self)
    }

    fn widen(from: &[Self], to: &mut [f32]) {
        from.convert_to_f32_slice(to);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f")]
    unsafe fn load_avx512(from: *const Self) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load_avx2(from: *const Self) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }

    #[cfg(target_arch = "aarch64")]
    #[target_feature(enable = "neon")]
    unsafe fn load_neon(from: *const Self) -> float32x4_t {
        // SAFETY: the caller's promise.
        unsafe { vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from.cast()))) }
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

fn accumulate_portable<T: Element>(z: [f32; STREAMS], rows: [&[T]; STREAMS], out: &mut [f32]) {
    let mut wide = [0.0; TILE];
    for (block, out) in out.chunks_mut(TILE).enumerate() {
        for (z, row) in z.iter().zip(rows) {
            let wide = &mut wide[..out.len()];
            T::widen(&row[block * TILE..][..out.len()], wide);
            for (out, c) in out.iter_mut().zip(wide) {
                *out = multiply_add(*z, *c, *out);
            }
        }
    }
}

/// Loops over whole vectors, and one by one over the rest.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! stream {
    ($accumulate:ident, $widen:ident, $features:literal, $lanes:literal,
     $element:ident, $load:ident, $store:ident, $broadcast:ident, $fma:ident) => {
        #[target_feature(enable = $features)]
        pub(super) fn $accumulate<T: Element>(
            z: [f32; STREAMS],
            rows: [&[T]; STREAMS],
            out: &mut [f32],
        ) {
            let whole = out.len() / $lanes * $lanes;
            for i in (0..whole).step_by($lanes) {
                // SAFETY: the caller has cut the rows to the length of `out`.
                unsafe {
                    let mut sum = $load(out.as_ptr().add(i));
                    for (z, row) in z.iter().zip(rows) {
                        sum = $fma($broadcast(*z), T::$element(row.as_ptr().add(i)), sum);
                    }
                    $store(out.as_mut_ptr().add(i), sum);
                }
            }
            for i in whole..out.len() {
                for (z, row) in z.iter().zip(rows) {
                    out[i] = z.mul_add(row[i].to_f32(), out[i]);
                }
            }
        }

        #[target_feature(enable = $features)]
        pub(super) fn $widen<T: Element>(from: &[T], to: &mut [f32]) {
            let whole = to.len() / $lanes * $lanes;
            for i in (0..whole).step_by($lanes) {
                // SAFETY: the caller has cut `from` to the length of `to`.
                unsafe { $store(to.as_mut_ptr().add(i), T::$element(from.as_ptr().add(i))) }
            }
            for i in whole..to.len() {
                to[i] = from[i].to_f32();
            }
        }
    };
}

/// A multiplication that keeps `$columns` vectors of all networks in registers.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
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
                        let row: [_; $columns] =
                            std::array::from_fn(|c| $load(row.as_ptr().add(start + c * $lanes)));
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

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Element, GROUP, STREAMS, TILE};

    pub(super) fn has_avx2() -> bool {
        is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
    }

    stream!(
        accumulate_avx512,
        widen_avx512,
        "avx512f",
        16,
        load_avx512,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_set1_ps,
        _mm512_fmadd_ps
    );
    stream!(
        accumulate_avx2,
        widen_avx2,
        "avx2,fma,f16c",
        8,
        load_avx2,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_set1_ps,
        _mm256_fmadd_ps
    );

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
        "avx2,fma,f16c",
        8,
        2,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_set1_ps,
        _mm256_fmadd_ps
    );
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use std::arch::aarch64::*;

    use super::{Element, GROUP, STREAMS, TILE};

    /// z * c + sum, in the order of the other instruction sets.
    #[target_feature(enable = "neon")]
    fn multiply_add(z: float32x4_t, c: float32x4_t, sum: float32x4_t) -> float32x4_t {
        vfmaq_f32(sum, z, c)
    }

    stream!(
        accumulate_neon,
        widen_neon,
        "neon",
        4,
        load_neon,
        vld1q_f32,
        vst1q_f32,
        vdupq_n_f32,
        multiply_add
    );
    // 6 x 4 sums and 4 columns of 32 registers.
    multiply!(
        multiply_neon,
        "neon",
        4,
        4,
        vld1q_f32,
        vst1q_f32,
        vdupq_n_f32,
        multiply_add
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernels() -> Vec<Kernel> {
        let mut kernels = vec![Kernel::Portable];
        #[cfg(target_arch = "x86_64")]
        if x86::has_avx2() {
            kernels.push(Kernel::Avx2);
        }
        if Kernel::detect() != kernels[kernels.len() - 1] {
            kernels.push(Kernel::detect());
        }
        kernels
    }

    /// Numbers in [-1, 1) without a pattern that a wrong index could reproduce.
    fn number(i: usize) -> f32 {
        let hash = (i as u32).wrapping_mul(2_654_435_769) ^ 0x5bd1_e995;
        (hash.wrapping_mul(2_246_822_519) >> 8) as f32 / (1 << 23) as f32 - 1.0
    }

    /// Factors of one group and a tile, for `k` components.
    fn operands(k: usize) -> (Vec<[f32; GROUP]>, Vec<[f32; TILE]>) {
        let z = |k| std::array::from_fn(|g| number(k * GROUP + g));
        let row = |k| std::array::from_fn(|c| number(10_000 + k * TILE + c));
        ((0..k).map(z).collect(), (0..k).map(row).collect())
    }

    /// A sum of 99 products of numbers below 1, each step rounded to 2^-24 of at most 10.
    const TOLERANCE: f64 = 99.0 * 10.0 / (1 << 24) as f64;

    #[test]
    fn multiply_agrees_with_f64() {
        const K: usize = 99;
        let (z, tile) = operands(K);
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
        let (z, tile) = operands(K);
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
