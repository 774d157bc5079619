//! Flow matching learns a distribution, and does so reproducibly.

mod common;

use dwf::ode::{Grid, Method, Solver, Workspace, integrate};
use dwf_trainer::flow::{self, FlowOptions, HeldOutLoss};

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
    let HeldOutLoss {
        standing_still,
        lowest,
        lowest_step,
        last,
    } = flow.held_out;
    assert!(last < 1.5, "held-out loss {last}");
    // 50 latents of unit variance: three sampling errors of their mean square plus 1.
    assert!((1.4..2.6).contains(&standing_still), "{standing_still}");
    assert!(lowest <= last && (1..=OPTIONS.steps).contains(&lowest_step));
}

#[test]
fn the_lowest_held_out_loss_is_remembered() {
    // Two training points far from the held-out one: the more is learned of them, the worse.
    let training = [3.0, 3.0, 3.0, 3.1];
    let losses = std::cell::RefCell::new(Vec::new());
    let flow = flow::train(&training, &[-1.0, 0.5], 2, &OPTIONS, |at| {
        losses.borrow_mut().push(at.held_out_loss);
    });
    let losses = losses.into_inner();
    let held_out = flow.held_out;
    assert_eq!(held_out.last, losses[OPTIONS.steps - 1]);
    let seen = losses.into_iter().fold(held_out.standing_still, f64::min);
    assert_eq!(held_out.lowest, seen);
    assert!(held_out.last > 2.0 * held_out.lowest, "{held_out:?}");
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
