//! Training by AdamW on the cross-entropy.

use std::f32::consts::PI;

use super::{Classifier, Pass, operator};
use crate::{
    adamw::{AdamW, Step},
    dataset::Dataset,
    random::Random,
};

/// How a classifier is trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recipe {
    /// Passes over the data.
    pub epochs: usize,
    /// Samples a step.
    pub batch: usize,
    /// Learning rate after a warm-up over the first tenth; a cosine takes it to zero.
    pub learning_rate: f32,
    /// Decoupled, as in AdamW, on all parameters as is PyTorch's default. It wears off what
    /// initialisation left in weights that do nothing, so that networks differ where training
    /// made them differ.
    pub weight_decay: f32,
    /// Standard deviation of Gaussian noise on the inputs.
    pub input_noise: f32,
    /// Standard deviation of Gaussian noise on the weights of every matrix, in their root mean
    /// square, drawn anew for every step (Murray and Edwards, IEEE Transactions on Neural Networks
    /// 5, 1994). Networks then work in a whole neighbourhood, and so do mixtures of them.
    pub weight_noise: f32,
    /// Probability mass of the target that is spread over all classes.
    pub label_smoothing: f32,
}

impl Classifier {
    /// Trains `weights` on the data.
    pub fn train(&self, weights: &mut [f32], data: &Dataset, recipe: &Recipe, random: &mut Random) {
        let mut pass = Pass::new(self);
        let mut adamw = AdamW::new(self.parameters);
        let mut gradient = vec![0.0; weights.len()];
        let mut unused_average = vec![0.0; self.parameters];
        let mut noisy = Vec::new();
        let mut order: Vec<usize> = (0..data.classes.len()).collect();
        let steps = recipe.epochs * order.len().div_ceil(recipe.batch);
        let mut step = 0;
        for _ in 0..recipe.epochs {
            random.shuffle(&mut order);
            for rows in order.chunks(recipe.batch) {
                step += 1;
                let samples = samples(data, rows, recipe.input_noise, random);
                let classes: Vec<usize> = rows.iter().map(|row| data.classes[*row]).collect();
                gradient.fill(0.0);
                noisy.clear();
                noisy.extend_from_slice(weights);
                self.scatter(&mut noisy, recipe.weight_noise, random);
                self.loss_gradient(
                    &noisy,
                    &samples,
                    &classes,
                    recipe.label_smoothing,
                    &mut pass,
                    &mut gradient,
                );
                self.track(weights, &pass);
                adamw.step(
                    &mut weights[..self.parameters],
                    &gradient[..self.parameters],
                    &mut unused_average,
                    Step {
                        rate: recipe.rate(step, steps),
                        weight_decay: recipe.weight_decay,
                        average: 0.0,
                        clip: f32::INFINITY,
                    },
                );
            }
        }
    }

    /// Adds noise to every matrix, relative to the root mean square of its weights.
    fn scatter(&self, weights: &mut [f32], noise: f32, random: &mut Random) {
        if noise == 0.0 {
            return;
        }
        let mut normals = Vec::new();
        let matrices = self.layout.tensors().iter().filter(|t| t.shape.len() > 1);
        for matrix in matrices {
            let weights = &mut weights[matrix.range()];
            let square = weights.iter().map(|w| w * w).sum::<f32>() / weights.len() as f32;
            normals.resize(weights.len(), 0.0);
            random.fill_normal(&mut normals);
            let scale = noise * square.sqrt();
            let pairs = weights.iter_mut().zip(&normals);
            pairs.for_each(|(weight, normal)| *weight += scale * normal);
        }
    }

    /// The mean cross-entropy of a batch, and its gradient added to `gradient`.
    fn loss_gradient(
        &self,
        weights: &[f32],
        samples: &[f32],
        classes: &[usize],
        smoothing: f32,
        pass: &mut Pass,
        gradient: &mut [f32],
    ) -> f32 {
        let batch = classes.len();
        self.forward(weights, samples, batch, pass, true);
        let (logits, slope) = pass.clear_slopes();
        let count = logits.len() / batch;
        let mut loss = 0.0;
        for (s, class) in classes.iter().enumerate() {
            let mut shares: Vec<f32> = (0..count).map(|c| logits[c * batch + s]).collect();
            operator::softmax(&mut shares);
            for (c, share) in shares.iter().enumerate() {
                let hit = if c == *class { 1.0 - smoothing } else { 0.0 };
                let target = hit + smoothing / count as f32;
                loss -= target * share.max(f32::MIN_POSITIVE).ln() / batch as f32;
                slope[c * batch + s] = (share - target) / batch as f32;
            }
        }
        self.backward(weights, pass, gradient);
        loss
    }

    /// Lets the running statistics follow those of the batch.
    fn track(&self, weights: &mut [f32], pass: &Pass) {
        let mut buffers = operator::Gradient {
            layout: &self.layout,
            values: weights,
        };
        for (node, kept) in self.nodes.iter().zip(&pass.kept) {
            let samples = pass.batch * self.shapes[node.inputs[0]].positions();
            node.operator.track(kept, samples, &mut buffers);
        }
    }
}

impl Recipe {
    fn rate(&self, step: usize, steps: usize) -> f32 {
        let warm_up = steps / 10 + 1;
        if step <= warm_up {
            return self.learning_rate * step as f32 / warm_up as f32;
        }
        let fraction = (step - warm_up) as f32 / (steps - warm_up) as f32;
        self.learning_rate * 0.5 * (1.0 + (PI * fraction).cos())
    }
}

fn samples(data: &Dataset, rows: &[usize], noise: f32, random: &mut Random) -> Vec<f32> {
    let mut samples: Vec<f32> = rows
        .iter()
        .flat_map(|row| {
            data.x[row * data.features..][..data.features]
                .iter()
                .copied()
        })
        .collect();
    if noise > 0.0 {
        let mut normals = vec![0.0; samples.len()];
        random.fill_normal(&mut normals);
        for (x, normal) in samples.iter_mut().zip(normals) {
            *x += noise * normal;
        }
    }
    samples
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classifier::{Architecture, Image};

    const IMAGE: Image = Image {
        channels: 1,
        height: 8,
        width: 8,
    };

    /// The loss in f32 is rough, so derivatives along whole directions are compared.
    fn check_gradient(architecture: Architecture) {
        let classifier = architecture.build(IMAGE, 10);
        let mut random = Random::new(7, 0);
        let mut weights = classifier.initialise(&mut random);
        let mut samples = vec![0.0; 6 * IMAGE.len()];
        random.fill_normal(&mut samples);
        let classes = [0, 3, 9, 3, 5, 1];
        let mut pass = Pass::new(&classifier);
        let mut gradient = vec![0.0; weights.len()];
        let mut loss = |weights: &[f32], gradient: &mut [f32]| {
            classifier.loss_gradient(weights, &samples, &classes, 0.1, &mut pass, gradient)
        };
        loss(&weights, &mut gradient);
        let mut unused = vec![0.0; weights.len()];
        for tensor in classifier.layout().tensors() {
            let range = tensor.range();
            if range.start >= classifier.parameters {
                continue;
            }
            let mut direction = vec![0.0; tensor.count()];
            random.fill_normal(&mut direction);
            let norm = direction.iter().map(|d| d * d).sum::<f32>().sqrt();
            direction.iter_mut().for_each(|d| *d /= norm);
            let expected: f32 = direction
                .iter()
                .zip(&gradient[range.clone()])
                .map(|(d, g)| d * g)
                .sum();
            let mut shifted = |by: f32| {
                for (w, d) in weights[range.clone()].iter_mut().zip(&direction) {
                    *w += by * d;
                }
                let loss = loss(&weights, &mut unused);
                for (w, d) in weights[range.clone()].iter_mut().zip(&direction) {
                    *w -= by * d;
                }
                loss
            };
            let found = (shifted(1e-2) - shifted(-1e-2)) / 2e-2;
            // Rounding 1e-6 / 1e-2 of an f32 loss of size 3, and ReLUs that switch on the way.
            assert!(
                (found - expected).abs() < 2e-3 + 0.03 * expected.abs(),
                "{}: {found} and {expected}",
                tensor.name
            );
        }
    }

    #[test]
    fn gradients_match_differences() {
        check_gradient(Architecture::Mlp(&[32, 32]));
        check_gradient(Architecture::Resnet);
        check_gradient(Architecture::Vit);
    }
}
