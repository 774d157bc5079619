//! Properties that hold for all inputs, tried on random ones.

mod common;

use std::sync::LazyLock;

use common::{Fixture, Reference};
use dwf::{
    Model, Result, SampleOptions, Sampler, SamplerOptions,
    artifact::Float,
    layout::{DType, Layout, TensorKind, TensorSpec},
    metadata::BasisKind,
    noise,
    ode::{Grid, Method, Solver, Workspace, integrate},
};
use proptest::{collection::vec, prelude::*, sample::select};

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        // Miri is a thousand times slower.
        cases: if cfg!(miri) { 4 } else { cases },
        failure_persistence: None,
        ..Default::default()
    }
}

fn layouts() -> impl Strategy<Value = Layout> {
    let dtype = select(vec![DType::F32, DType::F16, DType::Bf16]);
    let kind = select(vec![TensorKind::Parameter, TensorKind::Buffer]);
    let tensor = (vec(1usize..6, 0..5), dtype, kind);
    vec(tensor, 1..20).prop_map(|tensors| {
        let named = tensors.into_iter().enumerate();
        Layout::pack(named.map(|(i, (shape, dtype, kind))| (format!("t{i}"), shape, dtype, kind)))
            .unwrap()
    })
}

proptest! {
    #![proptest_config(cases(256))]

    /// Tensors tile the flat vector, and JSON brings back what was written.
    #[test]
    fn layouts_come_back(layout in layouts()) {
        let mut end = 0;
        for tensor in layout.tensors() {
            prop_assert_eq!(tensor.range().start, end);
            end = tensor.range().end;
        }
        prop_assert_eq!(end, layout.len());
        let json = serde_json::to_string(layout.tensors()).unwrap();
        let specs: Vec<TensorSpec> = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(Layout::from_specs(specs).unwrap(), layout);
    }

    /// Any tensor moved by any distance is refused.
    #[test]
    fn gaps_and_overlaps_are_refused(layout in layouts(), at in any::<usize>(), by in 1usize..1000) {
        let mut specs = layout.tensors().to_vec();
        let at = at % specs.len();
        specs[at].offset = specs[at].offset.wrapping_add(by);
        prop_assert!(Layout::from_specs(specs).is_err());
    }

    /// Noise is normal whatever the seed and the index: sums of n values have mean 0 and variance
    /// n, their squares mean n and variance 2n. Six deviations: once in 5e8.
    #[test]
    fn noise_is_normal(seed: u64, index: u64, std in 1e-3f64..1e3) {
        const N: usize = 4096;
        let mut noise = vec![0f32; N];
        noise::fill(seed, index, std, &mut noise);
        let unit = || noise.iter().map(|value| f64::from(*value) / std);
        let n = N as f64;
        prop_assert!(unit().sum::<f64>().abs() < 6.0 * n.sqrt());
        let squares: f64 = unit().map(|value| value * value).sum();
        prop_assert!((squares - n).abs() < 6.0 * (2.0 * n).sqrt());
    }

    /// Networks of neighbouring seeds and indices have nothing to do with each other: the product
    /// of two independent normals has mean 0 and variance 1.
    #[test]
    fn noise_is_independent(seed: u64, index: u64, other in 1u64..1000, by_seed: bool) {
        const N: usize = 4096;
        let (mut a, mut b) = (vec![0f32; N], vec![0f32; N]);
        noise::fill(seed, index, 1.0, &mut a);
        let (seed, index) = match by_seed {
            true => (seed.wrapping_add(other), index),
            false => (seed, index.wrapping_add(other)),
        };
        noise::fill(seed, index, 1.0, &mut b);
        let products = a.iter().zip(&b).map(|(a, b)| f64::from(*a) * f64::from(*b));
        prop_assert!(products.sum::<f64>().abs() < 6.0 * (N as f64).sqrt());
    }
}

/// Rotations x' = speed (1 + cos(frequency t) / 5) J x of points in planes, whose solutions are known.
/// Their derivatives of all orders are of one size, and an error along the circle has no part in the
/// next order of the step: the leading term rules already where it is far above float32's rounding.
#[derive(Clone, Debug)]
struct Rotations {
    speeds: Vec<f64>,
    frequency: f64,
}

impl Rotations {
    fn evaluate(&self, t: f64, x: &[f32], v: &mut [f32]) {
        let planes = v.chunks_exact_mut(2).zip(x.chunks_exact(2));
        for ((v, x), speed) in planes.zip(&self.speeds) {
            let speed = speed * (1.0 + (self.frequency * t).cos() / 5.0);
            v[0] = (-speed * f64::from(x[1])) as f32;
            v[1] = (speed * f64::from(x[0])) as f32;
        }
    }

    /// x(1) from x(0) = (1, 0).
    fn exact(&self, speed: f64) -> [f64; 2] {
        let angle = speed * (1.0 + self.frequency.sin() / (5.0 * self.frequency));
        [angle.cos(), angle.sin()]
    }

    /// Root of the summed squared errors at t = 1.
    fn error(&self, method: Method, steps: usize) -> f64 {
        let mut state = [1f32, 0.0].repeat(self.speeds.len());
        let mut velocity = |t: &[f32], x: &[f32], v: &mut [f32]| -> Result<()> {
            self.evaluate(t[0].into(), x, v);
            Ok(())
        };
        let solver = Solver::fixed(method, steps, Grid::Uniform);
        let (latent, mut workspace) = (state.len(), Workspace::default());
        integrate(
            &mut velocity,
            &solver,
            1.0,
            latent,
            &mut state,
            &mut workspace,
        )
        .unwrap();
        let exact = self.speeds.iter().flat_map(|speed| self.exact(*speed));
        let errors = state.iter().zip(exact);
        let squares = errors.map(|(x, exact)| (f64::from(*x) - exact).powi(2));
        squares.sum::<f64>().sqrt()
    }
}

proptest! {
    #![proptest_config(cases(64))]

    /// Halving the step divides the error by 2^order: measured within 0.2 of theory. The smallest
    /// errors, the fourth order's of 1e-5 and more over eight planes, are a hundred times what
    /// rounding a state of size 1 sixteen times (6e-8 each) makes of them.
    #[test]
    fn solvers_have_their_order(speeds in vec(1.5f64..2.5, 8), frequency in 1.0f64..3.0) {
        let field = Rotations { speeds, frequency };
        for (method, order, steps) in [
            (Method::Euler, 1.0, 256),
            (Method::Midpoint, 2.0, 32),
            (Method::Heun, 2.0, 32),
            (Method::Rk4, 4.0, 8),
        ] {
            let ratio = field.error(method, steps) / field.error(method, 2 * steps);
            let measured = ratio.log2();
            prop_assert!((measured - order).abs() < 0.2, "{:?}: {}", method, measured);
        }
    }
}

static MODEL: LazyLock<Model> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    Model::open(Fixture::default().write(folder.path()), &Default::default()).unwrap()
});

fn generate(threads: usize, max_batch: usize, first_index: u64, count: usize) -> Vec<f32> {
    let options = SamplerOptions {
        threads,
        max_batch,
        ..Default::default()
    };
    let mut weights = vec![0f32; count * MODEL.metadata().layout.len()];
    let options_of_call = SampleOptions {
        seed: 3,
        first_index,
        count,
        ..Default::default()
    };
    Sampler::new(&MODEL, &options)
        .and_then(|mut sampler| sampler.sample(options_of_call, &mut weights[..]))
        .unwrap();
    weights
}

static FIRST: LazyLock<Vec<f32>> = LazyLock::new(|| generate(1, 1, 0, 96));

proptest! {
    #![proptest_config(cases(48))]

    /// Network i is the same whatever it is generated with, to float32's rounding in a batch of
    /// another shape.
    #[test]
    fn a_network_does_not_depend_on_its_batch(
        threads in 1usize..4,
        max_batch in 1usize..40,
        first in 0usize..64,
        count in 1usize..32,
    ) {
        let len = MODEL.metadata().layout.len();
        let found = generate(threads, max_batch, first as u64, count);
        let expected = &FIRST[first * len..][..count * len];
        for (found, expected) in found.iter().zip(expected) {
            let tolerance = 1e-5 * expected.abs().max(1.0);
            prop_assert!((found - expected).abs() <= tolerance, "{} and {}", found, expected);
        }
    }

    /// A velocity of zero leaves the noise as it is, so that what comes out is the basis alone:
    /// mean + (scale * noise) components, in f64 here. Each of k products and sums in float32 adds
    /// a rounding of 6e-8 of the terms' size.
    #[test]
    fn decoding_agrees_with_f64(
        basis in select(vec![BasisKind::Identity, BasisKind::Diagonal, BasisKind::Linear]),
        float in select(vec![Float::F32, Float::F16]),
        latent in 1usize..40,
        weights in 1usize..5000,
        count in 1usize..30,
    ) {
        let weights = if basis == BasisKind::Linear { weights } else { weights % 400 + 1 };
        let tensor = ("all".into(), vec![weights], DType::F32, TensorKind::Parameter);
        let fixture = Fixture {
            latent,
            hidden: 4,
            basis,
            basis_float: float,
            gain: 0.0,
            layout: Layout::pack([tensor]).unwrap(),
            ..Default::default()
        };
        let folder = tempfile::tempdir().unwrap();
        let path = fixture.write(folder.path());
        let model = Model::open(&path, &Default::default()).unwrap();
        let mut found = vec![0f32; count * weights];
        let options = SampleOptions { count, ..Default::default() };
        let mut sampler = Sampler::new(&model, &Default::default()).unwrap();
        sampler.sample(options, &mut found[..]).unwrap();
        let options = SampleOptions { count, ..Default::default() };
        let expected = Reference::open(&path).sample(&options);
        let tolerance = 1e-7 * (latent as f64 + 8.0) * 8.0;
        for (found, expected) in found.iter().zip(expected) {
            prop_assert!((f64::from(*found) - expected).abs() <= tolerance, "{} {}", found, expected);
        }
    }
}
