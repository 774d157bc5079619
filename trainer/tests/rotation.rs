//! Rotations that change nothing are found in real exports, and matched.

mod common;

use dwf::onnx::{NodeProto, TensorProto, data_type};
use dwf_trainer::{
    align::{Reference, align, check_canonical, distance},
    canonical::Canonical,
    error::Status,
    groups::Groups,
    network::Network,
    random::Random,
    rotation::Rotations,
    rows::Rows,
    verify::Verifier,
    zoo::Zoo,
};

/// Blocks of the exported ViT.
const BLOCKS: usize = 6;
/// Largest squared distance of networks that were brought together, relative to their own squares:
/// a weight takes part in some twenty products in single precision, whose sums are off by 1e-6.
const TOLERANCE: f64 = 1e-8;

/// Units of the streams that may be turned, and of a head for everything inside heads.
fn found(name: &str) -> [Vec<usize>; 2] {
    let network = common::exported(name);
    let groups = Groups::find(&network).unwrap();
    Rotations::find(&network, &groups).unwrap().sizes()
}

#[test]
fn streams_that_only_layer_normalisation_reads_and_heads_may_be_turned() {
    assert_eq!(found("vit"), [vec![192], vec![64; 2 * BLOCKS]]);
    // What is normalised goes on as the stream; its heads are free all the same.
    assert_eq!(found("bert_slim"), [vec![], vec![12; 4]]);
}

#[test]
fn what_functions_look_at_one_by_one_may_not_be_turned() {
    // Queries and keys have rotary positions, and heads share their keys.
    for name in [
        "mlp",
        "tanh",
        "resnet20",
        "groupnorm",
        "lstm",
        "gru",
        "llama_slim",
    ] {
        assert!(found(name).concat().is_empty(), "{name}");
    }
}

/// A clip that no random weights come near: nothing that is tried shows it.
#[test]
fn heads_behind_a_clip_may_not_be_turned() {
    let network = common::changed("vit", |graph| {
        let projected = |node: &NodeProto| node.output[0] == "linear";
        let at = graph.node.iter().position(projected).unwrap();
        graph.node[at].output[0] = "unclipped".into();
        let bounds = [("least", -1e6), ("most", 1e6)];
        graph
            .initializer
            .extend(bounds.map(|(name, bound)| TensorProto {
                name: Some(name.into()),
                data_type: Some(data_type::FLOAT),
                float_data: vec![bound],
                ..Default::default()
            }));
        let clip = NodeProto {
            input: ["unclipped", "least", "most"].map(String::from).into(),
            output: vec!["linear".into()],
            op_type: Some("Clip".into()),
            ..Default::default()
        };
        graph.node.insert(at + 1, clip);
    });
    let groups = Groups::find(&network).unwrap();
    let rotations = Rotations::find(&network, &groups).unwrap();
    // Those of the other blocks still are.
    assert_eq!(rotations.sizes(), [vec![192], vec![64; 2 * (BLOCKS - 1)]]);
}

/// Of sums and products either part may come first.
#[test]
fn the_order_of_operands_does_not_matter() {
    let network = common::changed("vit", |graph| {
        let commute = |node: &&mut NodeProto| matches!(node.op_type(), "Add" | "Mul");
        let nodes = graph.node.iter_mut().filter(commute);
        nodes.for_each(|node| node.input.swap(0, 1));
    });
    let groups = Groups::find(&network).unwrap();
    let rotations = Rotations::find(&network, &groups).unwrap();
    assert_eq!(rotations.sizes(), [vec![192], vec![64; 2 * BLOCKS]]);
}

/// With a stream so far from 0 what single precision leaves of a network is not the same once its
/// mean is taken out.
#[test]
fn a_network_whose_canonical_form_computes_something_else_is_refused_and_stays() {
    let network = common::exported("vit");
    let groups = Groups::find(&network).unwrap();
    let canonical = Canonical::find(&network, &groups, true).unwrap();
    let mut far = common::plausible_weights(network.layout(), 5);
    let bias = network.layout().get("patch_embed.proj.bias").unwrap();
    far[bias.range()].iter_mut().for_each(|w| *w += 1e5);
    let near = common::plausible_weights(network.layout(), 6);
    let mut zoo = Zoo::made(network.clone(), [&near[..], &far[..]].concat());
    let error = check_canonical(&mut zoo, &canonical).unwrap_err();
    assert_eq!(error.status(), Status::Internal, "{error}");
    assert!(
        error
            .to_string()
            .contains("network 1: its canonical form computes something else")
    );
    let first = Reference::First;
    assert!(align(&mut zoo, &groups, Some(&canonical), first, None).is_err());
    let mut zoo = Zoo::made(network.clone(), [&near[..], &far[..]].concat());
    align(&mut zoo, &groups, None, first, None).unwrap();
}

/// Multiplies the gain of every normalisation, divides what reads it, and shifts both.
fn unsettle(network: &Network, random: &mut Random, weights: &mut [f32]) {
    let layout = network.layout();
    let range = |name: String| layout.get(&name).unwrap().range();
    let block = |b: usize| {
        [("norm1", "attn.qkv"), ("norm2", "mlp.fc1")]
            .map(|(norm, reader)| (format!("blocks.{b}.{norm}"), format!("blocks.{b}.{reader}")))
    };
    let pairs = (0..BLOCKS).flat_map(block);
    for (norm, reader) in pairs.chain([("norm".into(), "head".into())]) {
        let [gain, shift] = ["weight", "bias"].map(|part| range(format!("{norm}.{part}")));
        let [matrix, bias] = ["weight", "bias"].map(|part| range(format!("{reader}.{part}")));
        let units = gain.len();
        let factors: Vec<f32> = (0..units).map(|_| 0.5 + random.uniform()).collect();
        let shifts: Vec<f32> = (0..units).map(|_| random.symmetric(0.1)).collect();
        for row in 0..bias.len() {
            let row_weights = &mut weights[matrix.start + row * units..][..units];
            let mut sum = 0.0;
            for unit in 0..units {
                row_weights[unit] /= factors[unit];
                sum += row_weights[unit] * shifts[unit];
            }
            weights[bias.start + row] -= sum;
        }
        for unit in 0..units {
            weights[gain.start + unit] *= factors[unit];
            weights[shift.start + unit] =
                weights[shift.start + unit] * factors[unit] + shifts[unit];
        }
    }
}

#[test]
fn planted_rotations_gains_and_orders_of_a_vit_are_taken_away() {
    let network = common::exported("vit");
    let layout = network.layout();
    let groups = Groups::find(&network).unwrap();
    let canonical = Canonical::find(&network, &groups, true).unwrap();
    let drawn = common::plausible_weights(layout, 3);
    let verifier = Verifier::new(&network, &drawn, 3).unwrap();
    let mut random = Random::new(3, 0);
    let mut turned = drawn.clone();
    canonical.canonicalise(&mut turned);
    verifier.check(&drawn, &turned).unwrap();
    canonical
        .rotations()
        .unwrap()
        .shake(&mut random, &mut turned);
    let permutation = groups.shuffled(&groups.outermost(), &mut random);
    let mut planted = turned.clone();
    groups.permute(layout, &turned, &permutation, &mut planted);
    unsettle(&network, &mut random, &mut planted);
    verifier.check(&drawn, &planted).unwrap();

    let apart = |canonical: Option<&Canonical<'_>>| {
        let mut zoo = Zoo::made(network.clone(), [&drawn[..], &planted[..]].concat());
        align(&mut zoo, &groups, canonical, Reference::First, None).unwrap();
        let [a, b] = [0, 1].map(|i| zoo.weights.row(i));
        distance(layout, &a, &b) / distance(layout, &a, &vec![0.0; a.len()])
    };
    assert!(apart(None) > 0.1, "order alone is not enough");
    let apart = apart(Some(&canonical));
    assert!(apart < TOLERANCE, "{apart}");
}

#[test]
fn both_sides_of_canonical_heads_have_one_gram_matrix() {
    let network = common::exported("vit");
    let layout = network.layout();
    let groups = Groups::find(&network).unwrap();
    let rotations = Rotations::find(&network, &groups).unwrap();
    let mut weights = common::plausible_weights(layout, 4);
    rotations.canonicalise(&mut weights);
    let once = weights.clone();
    rotations.canonicalise(&mut weights);
    let zero = vec![0.0; weights.len()];
    let size = distance(layout, &once, &zero);
    assert!(distance(layout, &once, &weights) < TOLERANCE * size);

    let (width, share) = (192, 64);
    let tensor = |name: &str| &weights[layout.get(name).unwrap().range()];
    let qkv = tensor("blocks.2.attn.qkv.weight");
    let bias = tensor("blocks.2.attn.qkv.bias");
    let out = tensor("blocks.2.attn.proj.weight");
    // The values of the second head with their bias, and the columns that read them.
    let first = 2 * width + share;
    let value = |unit: usize| {
        let row = &qkv[(first + unit) * width..][..width];
        [row, &bias[first + unit..][..1]].concat()
    };
    let reader =
        |unit: usize| -> Vec<f32> { out.chunks(width).map(|row| row[share + unit]).collect() };
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
        products.sum()
    };
    for i in 0..share {
        for j in 0..share {
            let (a, b) = (dot(&value(i), &value(j)), dot(&reader(i), &reader(j)));
            let of_values = dot(&value(i), &value(i)).max(dot(&value(j), &value(j)));
            // Rounding of weights to single precision, in sums of some 200.
            assert!((a - b).abs() < 1e-5 * of_values, "{i}, {j}: {a} and {b}");
        }
    }
}
