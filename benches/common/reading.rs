//! How fast memory can be read: the roofline of what reads much and computes little.

/// Streams that a thread reads at once; one alone does not keep the memory busy.
const STREAMS: usize = 4;

/// Words of a stream read at a time.
const BLOCK: usize = 128;

/// Reads `words` with the widest loads that the processor has; their sum, so that it must.
pub(crate) fn read(words: &[u32]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f")]
        fn avx512(words: &[u32]) -> u32 {
            sum(words)
        }
        #[target_feature(enable = "avx2")]
        fn avx2(words: &[u32]) -> u32 {
            sum(words)
        }
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has it.
            return unsafe { avx512(words) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has it.
            return unsafe { avx2(words) };
        }
    }
    sum(words)
}

#[inline(always)]
fn sum(words: &[u32]) -> u32 {
    let part = words.len() / STREAMS;
    let stream = |i: usize| words[i * part..][..part].as_chunks::<BLOCK>().0;
    let mut sums = [0u32; BLOCK];
    let streams = stream(0).iter().zip(stream(1));
    for ((a, b), (c, d)) in streams.zip(stream(2).iter().zip(stream(3))) {
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum = sum.wrapping_add((a[i] ^ b[i]).wrapping_add(c[i] ^ d[i]));
        }
    }
    sums.iter().fold(0, |a, b| a.wrapping_add(*b))
}
