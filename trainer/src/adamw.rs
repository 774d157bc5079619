//! AdamW over one flat parameter vector, in a single pass over memory.

use pulp::Arch;
use rayon::prelude::*;
use serde::Serialize;

/// Loshchilov and Hutter, "Decoupled weight decay regularization" (ICLR 2019), with PyTorch's
/// default betas and epsilon.
#[derive(Clone, Debug, PartialEq)]
pub struct AdamW {
    /// Running mean of the gradient.
    pub first: Vec<f32>,
    /// Running mean of its square.
    pub second: Vec<f32>,
    /// Steps done.
    pub step: usize,
}

/// How one step is made.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Step {
    /// Learning rate.
    pub rate: f32,
    /// PyTorch's default is 0.01.
    pub weight_decay: f32,
    /// Weight of the parameters' moving average on its past.
    pub average: f32,
    /// The gradient is shortened to this norm if it is longer; infinite: never.
    pub clip: f32,
}

pub(crate) const BETA1: f32 = 0.9;
pub(crate) const BETA2: f32 = 0.999;
pub(crate) const EPSILON: f32 = 1e-8;
/// Parameters that a thread takes at a time, and how many times so many at the least: handing
/// over less costs more than it saves.
const CHUNK: usize = 1 << 14;
const MIN_CHUNKS: usize = 16;

impl AdamW {
    /// For `size` parameters.
    pub fn new(size: usize) -> Self {
        Self {
            first: vec![0.0; size],
            second: vec![0.0; size],
            step: 0,
        }
    }

    /// One step along `gradient`; `average`, the exponential moving average of the parameters,
    /// follows. Returns the gradient's norm before clipping.
    pub fn step(
        &mut self,
        parameters: &mut [f32],
        gradient: &[f32],
        average: &mut [f32],
        step: Step,
    ) -> f32 {
        self.step += 1;
        let norm = norm(gradient);
        let update = step.update(self.step);
        let shorten = if norm > update.clip {
            update.clip / norm
        } else {
            1.0
        };
        let places = (
            parameters.par_chunks_mut(CHUNK),
            average.par_chunks_mut(CHUNK),
            self.first.par_chunks_mut(CHUNK),
            self.second.par_chunks_mut(CHUNK),
        );
        (gradient.par_chunks(CHUNK), places.into_par_iter())
            .into_par_iter()
            .with_min_len(MIN_CHUNKS)
            .for_each(|(gradient, (parameters, average, first, second))| {
                let places = [parameters, average, first, second];
                Arch::new().dispatch(|| update.apply(gradient, shorten, places));
            });
        norm
    }
}

impl Step {
    /// The numbers of step `number`, which counts from 1.
    pub(crate) fn update(&self, number: usize) -> Update {
        let correction = |beta: f32| 1.0 - f64::from(beta).powf(number as f64);
        Update {
            clip: self.clip,
            rate: (f64::from(self.rate) / correction(BETA1)) as f32,
            scale: (1.0 / correction(BETA2).sqrt()) as f32,
            shrink: 1.0 - self.rate * self.weight_decay,
            follow: 1.0 - self.average,
        }
    }
}

/// One step's numbers.
pub(crate) struct Update {
    /// The gradient's greatest norm.
    pub(crate) clip: f32,
    /// Of the first moment, its bias corrected.
    pub(crate) rate: f32,
    /// Of the second moment's root, to correct its bias.
    pub(crate) scale: f32,
    /// What weight decay leaves of a parameter.
    pub(crate) shrink: f32,
    /// How far the average goes towards a parameter.
    pub(crate) follow: f32,
}

impl Update {
    /// To parameters, their average, first and second moments; `shorten` is the gradient's factor.
    #[inline(always)]
    fn apply(&self, gradient: &[f32], shorten: f32, places: [&mut [f32]; 4]) {
        let [parameters, average, first, second] = places;
        let values = parameters.iter_mut().zip(average).zip(gradient);
        for (((parameter, average), g), (first, second)) in values.zip(first.iter_mut().zip(second))
        {
            let g = g * shorten;
            *first += (1.0 - BETA1) * (g - *first);
            *second += (1.0 - BETA2) * (g * g - *second);
            *parameter = *parameter * self.shrink
                - self.rate * *first / (second.sqrt() * self.scale + EPSILON);
            *average += self.follow * (*parameter - *average);
        }
    }
}

/// The Euclidean norm; its sums do not depend on the number of threads.
fn norm(gradient: &[f32]) -> f32 {
    const LANES: usize = 16;
    let square = |chunk: &[f32]| -> f64 {
        let mut sums = [0f32; LANES];
        let parts = chunk.chunks_exact(LANES);
        let rest: f32 = parts.remainder().iter().map(|x| x * x).sum();
        for part in parts {
            sums.iter_mut().zip(part).for_each(|(sum, x)| *sum += x * x);
        }
        sums.iter().map(|sum| f64::from(*sum)).sum::<f64>() + f64::from(rest)
    };
    let sums: Vec<f64> = gradient
        .par_chunks(CHUNK)
        .with_min_len(MIN_CHUNKS)
        .map(|chunk| Arch::new().dispatch(|| square(chunk)))
        .collect();
    sums.iter().sum::<f64>().sqrt() as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gradients of two steps, the second longer than the clip.
    const GRADIENTS: [[f32; 2]; 2] = [[0.5, -1.0], [0.25, 3.0]];

    #[test]
    fn two_steps_are_those_of_the_definition() {
        let (mut p, mut average) = ([1.0f32, -2.0], [0.0f32, 0.0]);
        let mut adam = AdamW::new(2);
        let step = Step {
            rate: 0.1,
            weight_decay: 0.01,
            average: 0.0,
            clip: 2.0,
        };
        let mut expected = [1.0f64, -2.0];
        let (mut m, mut v) = ([0.0f64; 2], [0.0f64; 2]);
        for (t, gradient) in GRADIENTS.iter().enumerate() {
            let norm = adam.step(&mut p, gradient, &mut average, step);
            let length = gradient
                .iter()
                .map(|g| f64::from(*g).powi(2))
                .sum::<f64>()
                .sqrt();
            assert!((f64::from(norm) - length).abs() < 1e-6);
            for i in 0..2 {
                let g = f64::from(gradient[i]) * (2.0 / length).min(1.0);
                m[i] = 0.9 * m[i] + 0.1 * g;
                v[i] = 0.999 * v[i] + 0.001 * g * g;
                let corrected_m = m[i] / (1.0 - 0.9f64.powi(t as i32 + 1));
                let corrected_v = v[i] / (1.0 - 0.999f64.powi(t as i32 + 1));
                expected[i] -= 0.1 * 0.01 * expected[i];
                expected[i] -= 0.1 * corrected_m / (corrected_v.sqrt() + 1e-8);
                // f32 rounding of values of size one; 1 - 0.999 in f32 is off by 1.3e-5 of itself.
                assert!((f64::from(p[i]) - expected[i]).abs() < 2e-6);
            }
        }
        assert_eq!(average, p);
    }
}
