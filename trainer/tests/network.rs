//! Target networks: what is read from ONNX files, what is refused, and how they compute.

mod common;

use std::fs;

use common::assert_says;
use dwf::{
    layout::TensorKind,
    onnx::{ModelProto, data_type},
};
use dwf_trainer::{
    evaluator::{Data, Evaluator, Tensor},
    network::{Network, Signature},
};
use prost::Message;

const EXPORTS: [&str; 12] = [
    "mlp",
    "resnet20",
    "resnet18",
    "mobilenet",
    "resnext",
    "vit",
    "bert_base",
    "bert_slim",
    "llama_slim",
    "gru",
    "lstm",
    "groupnorm",
];

#[test]
fn exports_of_pytorch_are_read() {
    for name in EXPORTS {
        let tensors = common::exported_tensors(name);
        let network = common::exported(name);
        assert_eq!(network.layout().tensors().len(), tensors.len(), "{name}");
        assert!(
            network.inputs().iter().all(|x| x.shape[0].is_none()),
            "{name}"
        );
    }
    let layout = |name| common::exported(name).layout().clone();

    let parameters = |name| -> usize {
        let layout = layout(name);
        let tensors = layout.tensors().iter();
        let kept = tensors.filter(|t| t.kind == TensorKind::Parameter);
        kept.map(|tensor| tensor.count()).sum()
    };
    // Figures of torchvision, timm and Hugging Face.
    assert_eq!(parameters("resnet18"), 11_689_512);
    assert_eq!(parameters("bert_base"), 109_482_240);
    assert_eq!(layout("resnet18").len() - parameters("resnet18"), 2 * 4800);
    let resnet = common::exported("resnet20");
    assert_eq!(resnet.layout().tensors()[0].name, "conv1.weight");
    let norms = resnet.batch_norms();
    assert_eq!(norms.len(), 19);
    let mean = resnet.layout().get("bn1.running_mean").unwrap();
    assert_eq!(
        (norms[0].mean.clone(), mean.kind),
        (mean.range(), TensorKind::Buffer)
    );
}

#[test]
fn an_export_alone_says_which_tensors_are_weights() {
    for name in EXPORTS {
        let alone = Network::read_alone(&common::exported_path(name)).unwrap();
        assert_eq!(alone.layout(), common::exported(name).layout(), "{name}");
    }
}

#[test]
fn an_mlp_computes_as_its_layers_do() {
    let (mlp, layout) = common::mlp(&[5, 7, 6, 3]);
    let tensors: Vec<Signature> = layout
        .tensors()
        .iter()
        .map(|t| common::tensor(&t.name, &t.shape))
        .collect();
    let network = Network::mlp(&tensors).unwrap();
    assert_eq!(network.layout(), &layout);
    let mut evaluator = Evaluator::watching(&network, &["hidden1"]).unwrap();
    let x = common::normals(4 * 5, 1);
    for seed in 0..3 {
        let weights = common::normals(layout.len(), seed);
        let inputs = [Tensor::f32([4, 5], x.clone())];
        let results = evaluator.run(&weights, &inputs).unwrap();
        assert_eq!(
            (&results[0].shape, &results[1].shape),
            (&vec![4, 3], &vec![4, 7])
        );
        let y = x.chunks_exact(5).flat_map(|x| mlp.forward(&weights, x));
        for (a, b) in y.zip(results[0].floats().unwrap()) {
            // f32 sums of about twenty products in another order.
            assert!((a - b).abs() < 1e-4 * (1.0 + a.abs()), "{a} and {b}");
        }
        assert!(results[1].floats().unwrap().iter().all(|h| *h >= 0.0));
    }
    let wrong = evaluator.run(&common::normals(layout.len(), 1), &[]);
    assert!(wrong.unwrap_err().to_string().contains("1 inputs and 0"));
}

#[test]
fn exports_run_with_weights_from_outside() {
    for name in ["resnet20", "bert_slim", "gru", "llama_slim"] {
        let network = common::exported(name);
        let mut evaluator = Evaluator::new(&network).unwrap();
        let inputs: Vec<Tensor> = network
            .inputs()
            .iter()
            .map(|input| {
                let shape: Vec<usize> = input.shape.iter().map(|dim| dim.unwrap_or(2)).collect();
                let count = shape.iter().product();
                let data = match input.elem_type {
                    data_type::FLOAT => Data::F32(common::normals(count, 3)),
                    _ => Data::I64(vec![1; count]),
                };
                Tensor { shape, data }
            })
            .collect();
        let mut run = |seed| {
            let weights = common::plausible_weights(network.layout(), seed);
            evaluator.run(&weights, &inputs).unwrap()[0].clone()
        };
        let (first, second) = (run(1), run(2));
        assert!(
            first.floats().unwrap().iter().all(|y| y.is_finite()),
            "{name}"
        );
        assert_ne!(first, second, "{name}");
        assert_eq!(first, run(1), "{name}");
    }
}

/// The message about an export of a network under a change.
fn refused(name: &str, change: impl Fn(&mut ModelProto, &mut Vec<Signature>)) -> String {
    let folder = tempfile::tempdir().unwrap();
    let bytes = fs::read(common::exported_path(name)).unwrap();
    let mut model = ModelProto::decode(&bytes[..]).unwrap();
    let mut tensors = common::exported_tensors(name);
    change(&mut model, &mut tensors);
    let path = folder.path().join("net.onnx");
    fs::write(&path, model.encode_to_vec()).unwrap();
    let message = Network::read(&path, &tensors).unwrap_err().to_string();
    assert!(message.contains("net.onnx"), "{message}");
    message
}

#[test]
fn folded_exports_are_refused_with_the_call_to_type() {
    let tensors = common::exported_tensors("resnet20");
    let path = common::exported_path("resnet20_optimized");
    let message = Network::read(&path, &tensors).unwrap_err().to_string();
    assert_says(
        &message,
        &[
            "resnet20_optimized",
            "'blocks.0.bn1.bias'",
            "more",
            "optimize=False",
        ],
    );
}

#[test]
fn names_and_shapes_must_agree() {
    let missing = refused("mlp", |_, tensors| {
        tensors.retain(|tensor| tensor.name != "2.bias");
    });
    assert_says(
        &missing,
        &["its tensors '2.bias' are not in the checkpoints"],
    );
    let extra = refused("mlp", |_, tensors| {
        tensors.push(common::tensor("6.bias", &[3]))
    });
    assert_says(
        &extra,
        &["the checkpoints' tensors '6.bias' are not in the graph"],
    );
    let shape = refused("mlp", |_, tensors| tensors[0].shape.reverse());
    assert_says(&shape, &["'0.weight'", "[32, 784]", "[784, 32]"]);
}

#[test]
fn graphs_that_cannot_be_followed_are_refused() {
    let opset = refused("mlp", |model, _| model.opset_import[0].version = Some(8));
    assert_says(&opset, &["opset is 8", "opset_version=20"]);
    let training = refused("mlp", |model, _| {
        model.opset_import[0].domain = Some("ai.onnx.preview.training".into());
    });
    assert_says(&training, &["training"]);
    let mode = refused("resnet20", |model, _| {
        let nodes = &mut model.graph.as_mut().unwrap().node;
        let norm = nodes
            .iter_mut()
            .find(|n| n.op_type() == "BatchNormalization");
        norm.unwrap().output.push("mean".into());
    });
    assert_says(&mode, &["BatchNormalization", "training mode"]);
    let message = Network::read(&common::exported_path("none"), &[]).unwrap_err();
    assert_says(
        &message.to_string(),
        &["cannot read the network", "none.onnx"],
    );
    let script = common::exported_path("export").with_extension("py");
    let message = Network::read(&script, &[]).unwrap_err().to_string();
    assert_says(&message, &["export.py", "not an ONNX file"]);
}
