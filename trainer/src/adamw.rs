//! AdamW over one flat parameter vector, in a single pass.

/// Loshchilov and Hutter, "Decoupled weight decay regularization" (ICLR 2019), with PyTorch's
/// default betas and epsilon.
pub struct AdamW {
    first: Vec<f32>,
    second: Vec<f32>,
    step: i32,
    weight_decay: f32,
}

const BETA1: f32 = 0.9;
const BETA2: f32 = 0.999;
const EPSILON: f32 = 1e-8;

impl AdamW {
    /// For `size` parameters. PyTorch's default weight decay is 0.01.
    pub fn new(size: usize, weight_decay: f32) -> Self {
        Self {
            first: vec![0.0; size],
            second: vec![0.0; size],
            step: 0,
            weight_decay,
        }
    }

    /// One step; `average`, the exponential moving average of the parameters, follows with
    /// weight `decay` on its past.
    pub fn step(
        &mut self,
        parameters: &mut [f32],
        gradient: &[f32],
        average: &mut [f32],
        learning_rate: f32,
        decay: f32,
    ) {
        self.step += 1;
        let correction = |beta: f32| 1.0 - f64::from(beta).powi(self.step);
        let rate = (f64::from(learning_rate) / correction(BETA1)) as f32;
        let scale = (1.0 / correction(BETA2).sqrt()) as f32;
        let shrink = 1.0 - learning_rate * self.weight_decay;
        let moments = self.first.iter_mut().zip(&mut self.second);
        let values = parameters.iter_mut().zip(average).zip(gradient);
        for (((parameter, average), g), (first, second)) in values.zip(moments) {
            *first += (1.0 - BETA1) * (g - *first);
            *second += (1.0 - BETA2) * (g * g - *second);
            *parameter = *parameter * shrink - rate * *first / (second.sqrt() * scale + EPSILON);
            *average += (1.0 - decay) * (*parameter - *average);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_steps_are_those_of_the_definition() {
        let (mut p, mut average) = ([1.0f32, -2.0], [0.0f32, 0.0]);
        let gradients = [[0.5f32, -1.0], [0.25, 3.0]];
        let mut adam = AdamW::new(2, 0.01);
        let mut expected = [1.0f64, -2.0];
        let (mut m, mut v) = ([0.0f64; 2], [0.0f64; 2]);
        for (t, gradient) in gradients.iter().enumerate() {
            adam.step(&mut p, gradient, &mut average, 0.1, 0.0);
            for i in 0..2 {
                let g = f64::from(gradient[i]);
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
