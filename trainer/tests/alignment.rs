//! Alignment keeps every function and finds planted permutations, in real exports of PyTorch's.

mod common;

use dwf::onnx::{AttributeProto, NodeProto, TensorProto, attribute_type, data_type};
use dwf_trainer::{
    align::{self, Reference, align},
    groups::{Groups, Permutation},
    matching::Matcher,
    network::Network,
    random::Random,
    rows::Rows,
    verify::Verifier,
    zoo::Zoo,
};

fn mlp(sizes: &[usize]) -> Network {
    let (_, layout) = common::mlp(sizes);
    let tensors = layout.tensors().iter();
    let tensors: Vec<_> = tensors.map(|t| common::tensor(&t.name, &t.shape)).collect();
    Network::mlp(&tensors).unwrap()
}

/// Units of every family in random places, those inside others with their owners.
fn random_permutation(groups: &Groups, seed: u64) -> Permutation {
    groups.shuffled(&groups.outermost(), &mut Random::new(seed, 0))
}

/// Plants permutations of everything that may move, which must keep the function, and be found.
fn plant(network: &Network, seeds: std::ops::Range<u64>) {
    let groups = Groups::find(network).unwrap();
    assert_eq!(groups.warnings(), [""; 0]);
    let layout = network.layout();
    for seed in seeds {
        let reference = common::plausible_weights(layout, seed);
        let verifier = Verifier::new(network, &reference, seed).unwrap();
        let matcher = Matcher::new(layout, &groups, &reference);
        let planted = random_permutation(&groups, seed);
        let mut scrambled = vec![0.0; layout.len()];
        groups.permute(layout, &reference, &planted, &mut scrambled);
        verifier.check(&reference, &scrambled).unwrap();
        let found = matcher.match_network(&scrambled);
        let mut aligned = vec![0.0; layout.len()];
        groups.permute(layout, &scrambled, &found, &mut aligned);
        let wrong = reference
            .iter()
            .zip(&aligned)
            .filter(|(a, b)| a != b)
            .count();
        assert_eq!(wrong, 0, "of {} weights, seed {seed}", layout.len());
    }
}

/// The families as (units, share, units of the owners' family or 0), sorted.
fn shape(name: &str) -> Vec<(usize, usize, usize)> {
    let network = common::exported(name);
    let groups = Groups::find(&network).unwrap();
    assert_eq!(groups.warnings(), [""; 0], "{name}");
    let owners = |owner: Option<usize>| owner.map_or(0, |o| groups.families()[o].units.len());
    let families = groups.families().iter().enumerate();
    let mut shape: Vec<_> = families
        .map(|(i, f)| (f.units.len(), groups.share(i), owners(f.owner)))
        .collect();
    shape.sort_unstable();
    shape
}

#[test]
fn groups_of_plain_networks() {
    assert_eq!(shape("mlp"), [(32, 32, 0), (32, 32, 0)]);
    // Three streams, of which the narrower are padded on both sides into the wider, and a family a
    // block.
    let streams = [16, 16, 32];
    let blocks = [16, 16, 16, 32, 32, 32, 64, 64, 64];
    let mut expected: Vec<_> = streams.iter().chain(&blocks).map(|n| (*n, *n, 0)).collect();
    expected.sort_unstable();
    assert_eq!(shape("resnet20"), expected);
    let resnet18 = shape("resnet18");
    let count = |n| resnet18.iter().filter(|(units, ..)| *units == n).count();
    // A stream of each width, and two blocks.
    assert_eq!([64, 128, 256, 512].map(count), [3, 3, 3, 3]);
    assert_eq!(resnet18.len(), 12);
}

#[test]
fn groups_of_attention() {
    // A stream; in each of 6 blocks 3 heads with 64 pairs of query and key, 64 of value and
    // output, and 768 hidden units.
    let vit = shape("vit");
    let count = |shape| vit.iter().filter(|s| **s == shape).count();
    assert_eq!(count((192, 192, 0)), 1);
    assert_eq!(count((3, 3, 0)), 6);
    assert_eq!(count((192, 64, 3)), 12);
    assert_eq!(count((768, 768, 0)), 6);
    assert_eq!(vit.len(), 25);
}

#[test]
fn groups_of_bert_base() {
    let bert = shape("bert_base");
    let count = |shape| bert.iter().filter(|s| **s == shape).count();
    // Its hidden states are an output, so that the stream is fixed.
    assert_eq!(count((768, 768, 0)), 0);
    assert_eq!(count((12, 12, 0)), 12);
    assert_eq!(count((768, 64, 12)), 24);
    assert_eq!(count((3072, 3072, 0)), 12);
    assert_eq!(bert.len(), 48);
}

#[test]
fn groups_of_grouped_heads() {
    // 2 heads of keys, each for 2 of queries; rotary positions fix the neurons of queries and
    // keys inside a head, not those of values.
    let llama = shape("llama_slim");
    let count = |shape| llama.iter().filter(|s| **s == shape).count();
    assert_eq!(count((48, 48, 0)), 1);
    assert_eq!(count((2, 2, 0)), 2);
    assert_eq!(count((24, 12, 2)), 2);
    assert_eq!(count((64, 64, 0)), 2);
}

#[test]
fn groups_of_recurrent_and_grouped_layers() {
    assert_eq!(shape("gru"), [(16, 16, 0), (16, 16, 0), (24, 24, 0)]);
    assert_eq!(shape("lstm"), [(16, 16, 0), (24, 24, 0)]);
    // Channels in 4 groups of normalisation; branches of 8 and 12; a hidden layer.
    assert_eq!(
        shape("groupnorm"),
        [(4, 4, 0), (8, 8, 0), (12, 12, 0), (16, 4, 4), (32, 32, 0)]
    );
    let resnext = shape("resnext");
    assert_eq!(resnext.iter().filter(|s| **s == (4, 4, 0)).count(), 4);
    let mobilenet = shape("mobilenet");
    assert!(mobilenet.iter().all(|(units, share, _)| units == share));
}

#[test]
fn planted_permutations_of_mlps_are_found() {
    for sizes in [
        &[5, 3][..],
        &[4, 16, 3],
        &[6, 24, 20, 4],
        &[8, 32, 24, 24, 16, 5],
    ] {
        plant(&mlp(sizes), 0..10);
    }
    plant(&common::exported("mlp"), 0..3);
}

#[test]
fn planted_permutations_of_resnet20_are_found() {
    plant(&common::exported("resnet20"), 0..3);
}

#[test]
fn planted_permutations_of_resnet18_are_found() {
    plant(&common::exported("resnet18"), 0..1);
}

#[test]
fn planted_permutations_of_depthwise_and_grouped_networks_are_found() {
    plant(&common::exported("mobilenet"), 0..1);
    plant(&common::exported("resnext"), 0..1);
    plant(&common::exported("groupnorm"), 0..3);
    plant(&common::exported("shuffle"), 0..3);
}

#[test]
fn planted_permutations_of_a_vit_are_found() {
    plant(&common::exported("vit"), 0..1);
}

#[test]
fn planted_permutations_of_bert_are_found() {
    plant(&common::exported("bert_slim"), 0..3);
}

/// 110 million weights: 12 seconds and 2.7 GB.
#[test]
fn planted_permutations_of_bert_base_are_found() {
    plant(&common::exported("bert_base"), 0..1);
}

#[test]
fn planted_permutations_of_llama_are_found() {
    plant(&common::exported("llama_slim"), 0..3);
}

#[test]
fn planted_permutations_of_policies_are_found() {
    plant(&common::exported("gru"), 0..5);
    plant(&common::exported("lstm"), 0..5);
}

#[test]
fn planted_permutations_are_found_under_noise() {
    for network in [mlp(&[8, 32, 24, 24, 16, 5]), common::exported("resnet20")] {
        let groups = Groups::find(&network).unwrap();
        let layout = network.layout();
        let reference = common::plausible_weights(layout, 1);
        let noise = common::plausible_weights(layout, 2);
        let pairs = reference.iter().zip(&noise);
        let noisy: Vec<f32> = pairs.map(|(w, e)| w + 0.2 * e).collect();
        let mut scrambled = vec![0.0; layout.len()];
        groups.permute(
            layout,
            &noisy,
            &random_permutation(&groups, 3),
            &mut scrambled,
        );
        let found = Matcher::new(layout, &groups, &reference).match_network(&scrambled);
        let mut aligned = vec![0.0; layout.len()];
        groups.permute(layout, &scrambled, &found, &mut aligned);
        assert_eq!(aligned, noisy);
    }
}

fn zoo(network: &Network, count: u64) -> Zoo {
    let weights = (0..count).flat_map(|seed| common::plausible_weights(network.layout(), seed));
    Zoo::made(network.clone(), weights.collect())
}

#[test]
fn alignment_brings_networks_nearer_and_is_deterministic() {
    let network = common::exported("resnet20");
    let groups = Groups::find(&network).unwrap();
    for reference in [Reference::First, Reference::Medoid, Reference::Mean] {
        let run = || {
            let mut zoo = zoo(&network, 4);
            let report = align(&mut zoo, &groups, None, reference, None).unwrap();
            (zoo.weights.rows().collect::<Vec<_>>(), report)
        };
        let (weights, report) = run();
        assert!(report.reduction() > 0.05, "{reference:?}: {report:?}");
        assert_eq!((weights, report), run());
    }
}

#[test]
fn what_the_first_network_computes_is_kept_as_it_is() {
    let network = mlp(&[4, 16, 3]);
    let groups = Groups::find(&network).unwrap();
    let before = zoo(&network, 5);
    let mut after = zoo(&network, 5);
    align(&mut after, &groups, None, Reference::First, None).unwrap();
    assert_eq!(before.weights.row(0), after.weights.row(0));
    let distance =
        |zoo: &Zoo, i| align::distance(zoo.layout(), &zoo.weights.row(0), &zoo.weights.row(i));
    for i in 1..5 {
        assert!(distance(&after, i) < distance(&before, i));
    }
}

#[test]
fn the_largest_weights_are_matched() {
    let network = mlp(&[64, 32, 32, 8]);
    let groups = Groups::find(&network).unwrap();
    let layout = network.layout();
    let sign = |value: f32| dwf_trainer::checkpoint::LARGEST_WEIGHT.copysign(value);
    let original = common::normals(layout.len(), 3).into_iter().map(sign);
    let original: Vec<f32> = original.collect();
    let mut scrambled = original.clone();
    groups.permute(
        layout,
        &original,
        &random_permutation(&groups, 7),
        &mut scrambled,
    );
    let found = Matcher::new(layout, &groups, &original).match_network(&scrambled);
    let mut aligned = original.clone();
    groups.permute(layout, &scrambled, &found, &mut aligned);
    assert_eq!(aligned, original);
}

#[test]
fn a_network_that_was_changed_is_found_and_its_layer_named() {
    let network = common::exported("resnet20");
    let weights = common::plausible_weights(network.layout(), 1);
    let verifier = Verifier::new(&network, &weights, 0).unwrap();
    let mut changed = weights.clone();
    let range = network
        .layout()
        .get("blocks.4.conv1.weight")
        .unwrap()
        .range();
    changed[range.start..][..9].fill(1.0);
    let message = verifier.check(&weights, &changed).unwrap_err().to_string();
    assert!(
        message.contains("Conv") && message.contains("differ"),
        "{message}"
    );
    let mut broken = weights.clone();
    broken[0] = f32::NAN;
    let message = verifier.check(&broken, &broken).unwrap_err().to_string();
    assert!(message.contains("not finite"), "{message}");
}

/// An operator that tracing does not know, in the middle of a network that it knows.
#[test]
fn an_unknown_operator_fixes_what_it_touches_and_says_so() {
    let network = common::changed("mlp", |graph| {
        let relu = graph.node.iter_mut().find(|n| n.op_type() == "Relu");
        relu.unwrap().op_type = Some("Atan".into());
    });
    let groups = Groups::find(&network).unwrap();
    let [warning] = groups.warnings() else {
        panic!("{:?}", groups.warnings());
    };
    assert!(warning.contains("Atan"), "{warning}");
    // The second hidden layer still moves, the first does not.
    let moving = |name: &str, dim: usize| {
        let tensors = network.layout().tensors().iter();
        let (_, units) = tensors
            .zip(groups.tensors())
            .find(|(s, _)| s.name == name)
            .unwrap();
        units.dims[dim].is_some()
    };
    assert!(!moving("0.weight", 0) && !moving("2.weight", 1));
    assert!(moving("2.weight", 0) && moving("4.weight", 1));
    let table = groups.table(network.layout());
    assert!(
        table.contains("not understood") && table.contains("Atan"),
        "{table}"
    );
    let weights = (0..3).flat_map(|seed| common::plausible_weights(network.layout(), seed));
    let mut zoo = Zoo::made(network.clone(), weights.collect());
    // Every network is verified in there.
    let report = align(&mut zoo, &groups, None, Reference::First, None).unwrap();
    assert!(report.reduction() > 0.0, "{report:?}");
}

/// The first hidden layer plus itself with its units exchanged as in a transposition of 4 x 8: every
/// unit lies in several places of one axis, whose order differs from unit to unit.
#[test]
fn units_that_cannot_be_permuted_after_all_stay() {
    let network = common::changed("mlp", |graph| {
        let at = graph.node.iter().position(|n| n.op_type() == "Relu");
        let at = at.unwrap();
        let hidden = graph.node[at].input[0].clone();
        graph.node[at].input[0] = "sum".into();
        let shapes = [("split", vec![0, 4, 8]), ("joined", vec![0, 32])];
        graph
            .initializer
            .extend(shapes.map(|(name, shape): (&str, Vec<i64>)| TensorProto {
                dims: vec![shape.len() as i64],
                data_type: Some(data_type::INT64),
                name: Some(name.into()),
                int64_data: shape,
                ..Default::default()
            }));
        let node = |op: &str, inputs: [&str; 2], output: &str| NodeProto {
            op_type: Some(op.into()),
            input: inputs
                .iter()
                .filter(|i| !i.is_empty())
                .map(|i| i.to_string())
                .collect(),
            output: vec![output.into()],
            ..Default::default()
        };
        let mut turn = node("Transpose", ["rows", ""], "columns");
        turn.attribute.push(AttributeProto {
            name: Some("perm".into()),
            ints: vec![0, 2, 1],
            r#type: Some(attribute_type::INTS),
            ..Default::default()
        });
        let nodes = [
            node("Reshape", [&hidden, "split"], "rows"),
            turn,
            node("Reshape", ["columns", "joined"], "shuffled"),
            node("Add", [&hidden, "shuffled"], "sum"),
        ];
        graph.node.splice(at..at, nodes);
    });
    let groups = Groups::find(&network).unwrap();
    assert!(!groups.warnings().is_empty());
    for warning in groups.warnings() {
        assert!(
            warning.contains("0.weight[0]") && warning.contains("stay"),
            "{warning}"
        );
    }
    // The second hidden layer is untouched by it.
    assert!(
        groups
            .families()
            .iter()
            .any(|family| family.units.len() == 32)
    );
    let mut zoo = zoo(&network, 6);
    let report = align(&mut zoo, &groups, None, Reference::First, None).unwrap();
    assert!(report.reduction() > 0.0, "{report:?}");
}

/// MLPs of random depth and widths, for properties that hold for all. (proptest would change the
/// features of the trainer's dependencies, and build them a second time.)
fn random_mlps() -> impl Iterator<Item = (Network, u64)> {
    (0..32).map(|seed| {
        let mut random = Random::new(seed, 9);
        let layers = 2 + random.index(4);
        let sizes: Vec<usize> = (0..layers).map(|_| 1 + random.index(24)).collect();
        (mlp(&sizes), seed)
    })
}

/// Whatever the networks, aligned ones compute the same, hold the same numbers in every tensor,
/// are no farther from their mean, and stay as they are when they are aligned again.
#[test]
fn what_alignment_never_changes() {
    for (network, seed) in random_mlps() {
        let groups = Groups::find(&network).unwrap();
        let layout = network.layout();
        let weights = (0..4).flat_map(|i| common::plausible_weights(layout, 4 * seed + i));
        let before = Zoo::made(network.clone(), weights.collect());
        let mut after = Zoo::made(network.clone(), before.networks().flatten().collect());
        let report = align(&mut after, &groups, None, Reference::First, None).unwrap();
        assert!(report.after <= report.before * (1.0 + 1e-6), "seed {seed}");
        let computed = network.as_mlp().unwrap();
        let x = common::normals(computed.inputs(), seed);
        for (before, after) in before.networks().zip(after.networks()) {
            let (y, z) = (computed.forward(&before, &x), computed.forward(&after, &x));
            for (y, z) in y.iter().zip(z) {
                // f32 sums of up to 24 products in another order, over four layers.
                assert!((y - z).abs() < 1e-4 * (1.0 + y.abs()), "seed {seed}");
            }
            for tensor in layout.tensors() {
                let sorted = |weights: &[f32]| {
                    let mut values = weights[tensor.range()].to_vec();
                    values.sort_by(f32::total_cmp);
                    values
                };
                assert_eq!(sorted(&before), sorted(&after), "seed {seed}");
            }
        }
        let once: Vec<Vec<f32>> = after.networks().collect();
        align(&mut after, &groups, None, Reference::First, None).unwrap();
        assert_eq!(once, after.networks().collect::<Vec<_>>(), "seed {seed}");
    }
}

/// The order in which units lie says nothing: copies of a network with noise, scrambled in any
/// way, are aligned to the same bits. Without noise in them, heads and channels of real exports are
/// held to it by `plant`.
#[test]
fn alignment_does_not_depend_on_the_order_of_units() {
    for (network, seed) in random_mlps() {
        let groups = Groups::find(&network).unwrap();
        let layout = network.layout();
        let first = common::plausible_weights(layout, seed);
        let copies = (1..4).map(|i| {
            let noise = common::plausible_weights(layout, 1000 + 4 * seed + i);
            let pairs = first.iter().zip(noise);
            pairs.map(|(w, e)| w + 0.02 * e).collect::<Vec<f32>>()
        });
        let copies: Vec<Vec<f32>> = copies.collect();
        let aligned = |scramble: bool| {
            let mut weights = first.clone();
            for (i, copy) in copies.iter().enumerate() {
                let mut moved = copy.clone();
                if scramble {
                    let permutation = random_permutation(&groups, 10 * seed + i as u64);
                    groups.permute(layout, copy, &permutation, &mut moved);
                }
                weights.extend(moved);
            }
            let mut zoo = Zoo::made(network.clone(), weights);
            align(&mut zoo, &groups, None, Reference::First, None).unwrap();
            zoo.networks().collect::<Vec<_>>()
        };
        assert_eq!(aligned(false), aligned(true), "seed {seed}");
    }
}
