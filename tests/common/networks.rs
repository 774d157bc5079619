//! Networks from a sampler, and how far they are apart.

use dwf::{SampleOptions, Sampler};

/// A value that no network has.
pub const UNTOUCHED: f32 = 12345.0;

/// What `options` ask for.
pub fn sample(sampler: &mut Sampler, options: SampleOptions) -> Vec<f32> {
    let len = options.count * sampler.model().metadata().layout.len();
    let mut weights = vec![UNTOUCHED; len];
    sampler.sample(options, &mut weights[..]).unwrap();
    weights
}

/// In the 2-norm.
pub fn relative_error(found: &[f32], expected: &[f32]) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f32>| {
        values.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt()
    };
    let difference = norm(&mut found.iter().zip(expected).map(|(a, b)| a - b));
    difference / norm(&mut expected.iter().copied())
}
