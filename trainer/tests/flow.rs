//! Flow matching learns a distribution, and does so reproducibly.

mod common;

use dwf::ode::{Grid, Method, Solver, Workspace, integrate};
use dwf_trainer::flow::{self, FlowOptions};

const OPTIONS: FlowOptions = FlowOptions {
    seed: 1,
    steps: 600,
    width: 32,
};

/// [count, 2]: unit variances, correlation 0.9.
fn latents(count: usize) -> Vec<f32> {
    let noise = common::normals(2 * count, 8);
    let correlated = |pair: &[f32]| [pair[0], 0.9 * pair[0] + 0.19f32.sqrt() * pair[1]];
    noise.chunks_exact(2).flat_map(correlated).collect()
}

#[test]
fn a_correlated_gaussian_is_learned() {
    let (training, held_out) = (latents(400), latents(450)[800..].to_vec());
    let flow = flow::train(&training, &held_out, 2, &OPTIONS, |_| ());
    let mut state = common::normals(2 * 1000, 11);
    let solver = Solver::fixed(Method::Rk4, 16, Grid::Uniform);
    let mut velocity = |t: &[f32], x: &[f32], v: &mut [f32]| {
        v.copy_from_slice(&flow.velocity.evaluate(x, &t.repeat(x.len() / 2)));
        Ok(())
    };
    integrate(
        &mut velocity,
        &solver,
        1.0,
        2,
        &mut state,
        &mut Workspace::default(),
    )
    .unwrap();
    let mean = |f: &dyn Fn(&[f32]) -> f32| state.chunks_exact(2).map(f).sum::<f32>() / 1000.0;
    // Sampling errors of 1000 draws are 0.03 to 0.05; a short training adds as much.
    for i in 0..2 {
        assert!(mean(&|x| x[i]).abs() < 0.15);
        let variance = mean(&|x| x[i] * x[i]);
        assert!((0.8..1.2).contains(&variance), "variance {variance}");
    }
    let covariance = mean(&|x| x[0] * x[1]);
    assert!((0.7..1.1).contains(&covariance), "covariance {covariance}");
    // pi / 2 is the least for independent coordinates; 2 is a flow that stands still.
    assert!(
        flow.held_out_loss < 1.5,
        "held-out loss {}",
        flow.held_out_loss
    );
}

#[test]
fn the_same_seed_gives_the_same_bits() {
    let (training, held_out) = (latents(20), latents(25)[40..].to_vec());
    let options = FlowOptions {
        steps: 30,
        ..OPTIONS
    };
    let train = |options| {
        let mut losses = Vec::new();
        let flow = flow::train(&training, &held_out, 2, &options, |at| losses.push(at.loss));
        (flow, losses)
    };
    assert_eq!(train(options), train(options));
    assert_ne!(
        train(options).0,
        train(FlowOptions { seed: 2, ..options }).0
    );
    assert_eq!(train(options).1.len(), 30);
}
