//! Scales and signs that change nothing are found in real exports, and taken away.

mod common;

use dwf_trainer::{
    align::{Reference, align},
    canonical::Canonical,
    gauge::{Gauges, Kind},
    groups::Groups,
    network::Network,
    random::Random,
    rows::Rows,
    verify::Verifier,
    zoo::Zoo,
};

/// Largest difference of canonical weights, relative to the largest: they settle to 1e-5, and a
/// weight takes part in a few families.
const TOLERANCE: f32 = 1e-4;

/// The families with a gauge as (units, kind).
fn found(name: &str) -> Vec<(usize, Kind)> {
    let network = common::exported(name);
    let groups = Groups::find(&network).unwrap();
    let gauges = Gauges::find(&network, &groups).unwrap();
    let units = |family: usize| groups.families()[family].units.len();
    let gauges = gauges.gauges().iter();
    gauges.map(|g| (units(g.family), g.kind)).collect()
}

#[test]
fn relu_frees_scales_and_tanh_signs() {
    assert_eq!(found("mlp"), [(32, Kind::Scale), (32, Kind::Scale)]);
    assert_eq!(found("tanh"), [(24, Kind::Sign), (16, Kind::Sign)]);
}

#[test]
fn batch_normalisation_is_what_is_scaled_and_streams_without_a_shortcut_are_left_out() {
    // Inside the blocks; what an identity shortcut and padding carry along has one scale, too, but
    // its widening pads with channels that nothing writes.
    let resnet20 = found("resnet20");
    let inside = [16, 16, 16, 32, 32, 32, 64, 64, 64].map(|units| (units, Kind::Scale));
    assert_eq!(resnet20, inside);
    // ResNet-18 widens by convolutions: its streams are free as well.
    let resnet18 = found("resnet18");
    assert_eq!(resnet18.len(), 12);
    assert!(resnet18.iter().all(|(_, kind)| *kind == Kind::Scale));
}

#[test]
fn what_does_not_commute_frees_nothing() {
    // GELU and layer normalisation, gates, SiLU.
    for name in ["vit", "gru", "lstm", "groupnorm", "bert_slim"] {
        assert_eq!(found(name), [], "{name}");
    }
}

/// Two networks that compute the same: one as drawn, and one with its units multiplied.
fn planted(network: &Network, groups: &Groups, gauges: &Gauges<'_>, seed: u64) -> [Vec<f32>; 2] {
    let drawn = common::plausible_weights(network.layout(), seed);
    let mut random = Random::new(seed, 9);
    let mut multiplied = drawn.clone();
    for gauge in gauges.gauges() {
        let factor = |_| match gauge.kind {
            Kind::Scale => f64::from(random.uniform()) * 3.0 + 0.3,
            Kind::Sign => f64::from(random.symmetric(1.0).signum()),
        };
        let units = groups.families()[gauge.family].units.len();
        let factors: Vec<f64> = (0..units).map(factor).collect();
        gauges.multiply(gauge, &factors, &mut multiplied);
    }
    let verifier = Verifier::new(network, &drawn, seed).unwrap();
    verifier.check(&drawn, &multiplied).unwrap();
    [drawn, multiplied]
}

fn assert_near(a: &[f32], b: &[f32]) {
    let largest = a.iter().fold(0f32, |m, w| m.max(w.abs()));
    let worst = a.iter().zip(b).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(worst < TOLERANCE * largest, "{worst} of {largest}");
}

#[test]
fn planted_scales_and_signs_are_taken_away() {
    for name in ["mlp", "tanh", "resnet20", "resnet18"] {
        let network = common::exported(name);
        let groups = Groups::find(&network).unwrap();
        let gauges = Gauges::find(&network, &groups).unwrap();
        let [mut drawn, mut multiplied] = planted(&network, &groups, &gauges, 1);
        let verifier = Verifier::new(&network, &drawn, 1).unwrap();
        let original = drawn.clone();
        gauges.canonicalise(&mut drawn);
        gauges.canonicalise(&mut multiplied);
        verifier.check(&original, &drawn).unwrap();
        assert_near(&drawn, &multiplied);
        let squares = |weights: &[f32]| weights.iter().map(|w| w * w).sum::<f32>();
        assert!(
            squares(&drawn) <= squares(&original) * (1.0 + 1e-5),
            "{name}"
        );
    }
}

#[test]
fn alignment_finds_planted_orders_scales_and_signs_together() {
    for name in ["mlp", "tanh", "resnet20"] {
        let network = common::exported(name);
        let groups = Groups::find(&network).unwrap();
        let gauges = Gauges::find(&network, &groups).unwrap();
        let [drawn, multiplied] = planted(&network, &groups, &gauges, 2);
        let mut permutation = groups.identity();
        for family in groups.families() {
            let units = &family.units;
            for (place, unit) in units.iter().enumerate() {
                permutation.0[*unit as usize] = units[(place + 1) % units.len()];
            }
        }
        let mut moved = multiplied.clone();
        groups.permute(network.layout(), &multiplied, &permutation, &mut moved);
        let mut zoo = Zoo::made(network.clone(), [drawn, moved].concat());
        let before: Vec<f32> = zoo.networks().flatten().collect();
        align(&mut zoo, &groups, None, Reference::First, None).unwrap();
        let size = network.layout().len();
        let apart = |zoo: &Zoo| {
            let [a, b] = [0, 1].map(|i| zoo.weights.row(i));
            a.iter().zip(&b).map(|(a, b)| (a - b).abs()).sum::<f32>() / size as f32
        };
        assert!(apart(&zoo) > 1e-3, "{name}: order alone is not enough");
        let mut zoo = Zoo::made(network.clone(), before);
        let canonical = Canonical::find(&network, &groups, true).unwrap();
        align(&mut zoo, &groups, Some(&canonical), Reference::First, None).unwrap();
        assert_near(&zoo.weights.row(0), &zoo.weights.row(1));
    }
}
