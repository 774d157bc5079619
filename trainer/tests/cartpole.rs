//! The measures of the CartPole flow: what examples/swarm runs on.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::process::Command;

use dwf::{Model, SampleOptions, Sampler};
use dwf_trainer::{
    task::{
        Origin,
        cartpole::{CartPole, State},
        evolution::{self, Plant},
        train_anew,
    },
    zoo::Zoo,
};

#[test]
fn episodes_are_those_of_the_task() {
    // Always to the right the pole falls to the left, in 8 to 10 steps as everybody's CartPole.
    let mut right = [0f32; 114];
    right[113] = 1.0;
    let starts = CartPole::held_out_starts(100, 0);
    let mean = CartPole::default().mean_return(&right, &starts);
    assert!((8.5..10.5).contains(&mean), "{mean}");
    assert_ne!(starts, CartPole::held_out_starts(100, 1));
    let within = |State(state): &State| state.iter().all(|x| x.abs() <= 0.05);
    assert!(starts.iter().all(within));
}

#[test]
fn every_trained_policy_solves_the_task_and_follows_from_the_seed() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_dwf"))
        .args([
            "zoo", "cartpole", "-o", "zoo", "--count", "8", "--seed", "5",
        ])
        .current_dir(&folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stdout)
            .contains("8 networks of 114 weights to zoo: mean return")
    );
    let zoo = Zoo::read(&folder.path().join("zoo")).unwrap();
    let starts = CartPole::held_out_starts(100, 5);
    for network in zoo.networks() {
        assert!(CartPole::default().mean_return(&network, &starts) >= CartPole::SOLVED);
    }
    let origin = Origin {
        count: 2,
        seed: 5,
        shared_start: false,
    };
    let again = evolution::zoo(|_| CartPole::default(), origin, &train_anew).unwrap();
    let networks: Vec<Vec<f32>> = zoo.networks().collect();
    assert_eq!(networks[..2].concat(), again.weights);
    assert_ne!(networks[0], networks[1]);
}

#[test]
fn almost_every_policy_of_the_committed_artifact_solves_the_task() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../examples/swarm/cartpole.onnx"
    );
    let model = Model::open(path, &Default::default()).unwrap();
    let size = model.metadata().layout.len();
    let mut weights = vec![0f32; 1000 * size];
    let options = SampleOptions {
        seed: 1,
        count: 1000,
        ..Default::default()
    };
    let mut sampler = Sampler::new(&model, &Default::default()).unwrap();
    sampler.sample(options, &mut weights[..]).unwrap();
    let starts = CartPole::held_out_starts(100, 0);
    let networks = weights.chunks_exact(size);
    let solved = networks
        .filter(|network| CartPole::default().mean_return(network, &starts) >= CartPole::SOLVED);
    let solved = solved.count();
    assert!(solved >= 950, "{solved} of 1000");
}
