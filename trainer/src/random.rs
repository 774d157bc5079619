//! Seeded random numbers: everything the trainer draws comes from here.

use dwf::metadata::{Distribution, Source};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};
use rayon::prelude::*;

/// Numbers that are worth a thread; even.
const CHUNK: usize = 1 << 15;

/// A generator; two with the same seed and stream draw the same numbers.
pub struct Random(ChaCha8Rng);

impl Random {
    /// Streams of one seed are independent: one a purpose, or one a network.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        generator.set_stream(stream);
        Self(generator)
    }

    /// Uniform in [0, 1), on a grid of 2^-24.
    pub fn uniform(&mut self) -> f32 {
        (self.0.next_u32() >> 8) as f32 / (1 << 24) as f32
    }

    /// Uniform in [-bound, bound).
    pub fn symmetric(&mut self, bound: f32) -> f32 {
        (2.0 * self.uniform() - 1.0) * bound
    }

    /// PyTorch's default start of a linear layer or convolution, weights and biases: uniform within
    /// 1 / sqrt(inputs).
    pub fn fill_layer(&mut self, weights: &mut [f32], inputs: usize) {
        let bound = 1.0 / (inputs as f32).sqrt();
        weights.iter_mut().for_each(|w| *w = self.symmetric(bound));
    }

    /// Uniform in 0..count.
    pub fn index(&mut self, count: usize) -> usize {
        // A 64-bit fraction of `count`: its bias is below count / 2^64.
        ((u128::from(self.0.next_u64()) * count as u128) >> 64) as usize
    }

    /// The first `count` of the items are chosen from all of them at random, and in random order.
    pub fn choose<T>(&mut self, items: &mut [T], count: usize) {
        for i in 0..count {
            items.swap(i, i + self.index(items.len() - i));
        }
    }

    /// Two different numbers, uniform in 0..count.
    pub fn pair(&mut self, count: usize) -> [usize; 2] {
        let first = self.index(count);
        let second = self.index(count - 1);
        [first, second + usize::from(second >= first)]
    }

    /// Standard normals (Box-Muller), the same on any number of threads.
    pub fn fill_normal(&mut self, values: &mut [f32]) {
        if values.len() <= CHUNK {
            return self.fill_pairs(values);
        }
        let chunks = values.par_chunks_mut(CHUNK).enumerate();
        chunks.for_each(|(i, chunk)| self.after_normals(i * CHUNK).fill_pairs(chunk));
        *self = self.after_normals(values.len().next_multiple_of(2));
    }

    /// Where the generator is after so many normals, an even number.
    fn after_normals(&self, count: usize) -> Self {
        let mut generator = self.0.clone();
        // A pair takes two words of the stream.
        generator.set_word_pos(generator.get_word_pos() + count as u128);
        Self(generator)
    }

    fn fill_pairs(&mut self, values: &mut [f32]) {
        for pair in values.chunks_mut(2) {
            let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
            let (sin, cos) = (std::f32::consts::TAU * self.uniform()).sin_cos();
            for (value, factor) in pair.iter_mut().zip([cos, sin]) {
                *value = radius * factor;
            }
        }
    }

    /// The next `count` standard normals, for when they are needed.
    pub fn take_normals(&mut self, count: usize) -> Normals {
        let normals = Normals(self.after_normals(0));
        *self = self.after_normals(count.next_multiple_of(2));
        normals
    }

    /// Normals of this standard deviation.
    pub fn normal(&mut self, count: usize, std: f64) -> Vec<f32> {
        let mut values = vec![0.0; count];
        self.fill_normal(&mut values);
        if std != 1.0 {
            values.iter_mut().for_each(|value| *value *= std as f32);
        }
        values
    }

    /// Noise of this source.
    pub fn noise(&mut self, count: usize, source: Source) -> Vec<f32> {
        match source.distribution {
            Distribution::Normal => self.normal(count, source.std),
            Distribution::Uniform => {
                let bound = (source.std * 3f64.sqrt()) as f32;
                (0..count).map(|_| self.symmetric(bound)).collect()
            }
        }
    }

    /// A uniform permutation of the items, in place (Fisher-Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.index(i + 1));
        }
    }
}

/// Standard normals that are drawn when they are read, from any place.
pub struct Normals(Random);

impl Normals {
    /// Those from number `from` on, as many as `to` takes: the numbers that
    /// [`Random::fill_normal`] gives.
    pub fn read(&self, from: usize, to: &mut [f32]) {
        let mut random = self.0.after_normals(from / 2 * 2);
        let (first, rest) = to.split_at_mut((from % 2).min(to.len()));
        if let [second] = first {
            let mut pair = [0.0; 2];
            random.fill_normal(&mut pair);
            *second = pair[1];
        }
        random.fill_normal(rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normals_are_the_same_on_threads() {
        for count in [CHUNK, CHUNK + 1, 3 * CHUNK + 5] {
            let (mut at_once, mut in_turn) = (Random::new(1, 2), Random::new(1, 2));
            // In the middle of a block of the stream.
            assert_eq!(at_once.uniform(), in_turn.uniform());
            let values = at_once.normal(count, 1.0);
            let pairs = (0..count).step_by(2);
            let expected: Vec<f32> = pairs.flat_map(|_| in_turn.normal(2, 1.0)).collect();
            assert!(values == expected[..count]);
            assert_eq!(at_once.uniform(), in_turn.uniform());
        }
    }

    #[test]
    fn normals_are_the_same_wherever_reading_begins() {
        let mut random = Random::new(3, 1);
        // An odd number of words before them.
        random.uniform();
        let normals = random.take_normals(101);
        let after = random.uniform();
        let mut random = Random::new(3, 1);
        random.uniform();
        let all = random.normal(101, 1.0);
        assert_eq!(after, random.uniform());
        for from in [0, 1, 2, 33, 100, 101] {
            let mut part = vec![0.0; 101 - from];
            normals.read(from, &mut part);
            assert_eq!(part, all[from..]);
        }
    }
}
