//! `dwf align`: what it refuses before any work, and what it leaves when it is stopped.

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use common::{answer, assert_says};
use dwf::{
    layout::{DType, Layout},
    onnx::{
        AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto,
        attribute_type, data_type,
    },
};
use dwf_trainer::{checkpoint::Checkpoint, zoo::Writer};
use prost::Message;

/// A zoo of 8 networks 4-16-3.
fn mlps(at: &Path) {
    let (_, layout) = common::mlp(&[4, 16, 3]);
    common::write_zoo(&at.join("zoo"), &layout, 8);
}

/// A zoo of networks of an export.
fn write_plausible(folder: &Path, layout: &Layout, count: usize) {
    let mut writer = Writer::new(folder, layout, 0).unwrap();
    for seed in 0..count as u64 {
        let weights = common::plausible_weights(layout, seed);
        writer.add(&weights).unwrap();
    }
    writer.finish().unwrap();
}

/// A zoo of an export, which lies in its folder after a change.
fn exports(at: &Path, name: &str, change: impl Fn(&mut ModelProto)) {
    write_plausible(&at.join("zoo"), common::exported(name).layout(), 8);
    let bytes = fs::read(common::exported_path(name)).unwrap();
    let mut model = ModelProto::decode(&bytes[..]).unwrap();
    change(&mut model);
    fs::write(at.join("zoo/network.onnx"), model.encode_to_vec()).unwrap();
}

/// Both commands that align a zoo refuse one, saying this before any network is matched, and leave
/// nothing.
fn refused(prepare: impl Fn(&Path), parts: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    prepare(at);
    for command in ["align zoo -o new", "train zoo -o flow.onnx --steps 1"] {
        let output = common::dwf(at, &format!("{command} --json"));
        let [said, error] = [output.stdout, output.stderr].map(|t| String::from_utf8(t).unwrap());
        assert_eq!(output.status.code(), Some(1), "{command}: {error}");
        assert_says(&error, parts);
        assert!(!said.contains("\"align\""), "{command}: {said}");
        assert_eq!(common::names(at), ["zoo"], "{command} leaves something");
    }
}

#[test]
fn a_zoo_of_too_few_networks() {
    let one = |at: &Path| {
        mlps(at);
        for i in 1..8 {
            fs::remove_file(at.join(format!("zoo/net-00000{i}.safetensors"))).unwrap();
        }
    };
    refused(one, &["'zoo' has 1 checkpoints", "at least"]);
    refused(
        |at| fs::create_dir(at.join("zoo")).unwrap(),
        &["'zoo' has 0 checkpoints"],
    );
}

/// Two are what people merge.
#[test]
fn two_networks_are_aligned() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    mlps(at);
    for i in 2..8 {
        fs::remove_file(at.join(format!("zoo/net-00000{i}.safetensors"))).unwrap();
    }
    let output = common::dwf(at, "align zoo -o new");
    assert!(output.status.success(), "{output:?}");
    let written = common::names(&at.join("new"));
    assert_eq!(
        written,
        ["net-000000.safetensors", "net-000001.safetensors"]
    );
}

/// PyTorch's exports have their weights in them, beside constants of the graph's own.
#[test]
fn checkpoints_beside_a_graph_say_which_tensors_are_weights() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let mut tensors = common::exported("mlp").layout().tensors().to_vec();
    let old = std::mem::replace(&mut tensors[0].name, "first".into());
    let count = tensors[0].count();
    exports(at, "mlp", |model| {
        let graph = model.graph.as_mut().unwrap();
        let own = |tensor: &&mut TensorProto| tensor.name() == old;
        let tensor = graph.initializer.iter_mut().find(own).unwrap();
        tensor.name = Some("first".into());
        tensor.float_data = vec![1.0; count];
        let names = graph.node.iter_mut().flat_map(|node| &mut node.input);
        names
            .filter(|name| **name == old)
            .for_each(|name| *name = "first".into());
    });
    fs::rename(at.join("zoo/network.onnx"), at.join("alone.onnx")).unwrap();
    fs::remove_dir_all(at.join("zoo")).unwrap();
    write_plausible(&at.join("zoo"), &Layout::from_specs(tensors).unwrap(), 1);
    fs::copy(at.join("alone.onnx"), at.join("zoo/network.onnx")).unwrap();
    let table = |file: &str| answer(at, &format!("inspect --groups {file}"));
    let (done, said) = table("zoo/network.onnx");
    assert!(done && said.contains("first[0]"), "{said}");
    let (done, said) = table("alone.onnx");
    assert!(done && !said.contains("first"), "{said}");
}

/// What rounding to half precision costs, which 1e-4 of an output is less than, is not held against
/// the canonical form of networks that are stored so.
#[test]
fn networks_in_half_precision_have_a_canonical_form() {
    for dtype in [DType::F16, DType::Bf16] {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let mut tensors = common::exported("mlp").layout().tensors().to_vec();
        tensors.iter_mut().for_each(|tensor| tensor.dtype = dtype);
        write_plausible(&at.join("zoo"), &Layout::from_specs(tensors).unwrap(), 8);
        fs::copy(common::exported_path("mlp"), at.join("zoo/network.onnx")).unwrap();
        let (done, said) = answer(at, "align zoo -o new --canonical --json");
        assert!(done, "{said}");
        let (done, said) = answer(at, "train zoo -o flow.onnx --steps 1 --json");
        assert!(done && !said.contains("canonical form"), "{said}");
    }
}

/// Puts a network of other layers among the others, as the sixth.
fn with_another(at: &Path, layout: &Layout) {
    mlps(at);
    common::write_zoo(&at.join("other"), layout, 1);
    let [from, to] =
        ["other/net-000000", "zoo/net-000005"].map(|f| at.join(f).with_extension("safetensors"));
    fs::rename(from, to).unwrap();
    fs::remove_dir(at.join("other")).unwrap();
}

#[test]
fn networks_of_other_shapes() {
    refused(
        |at| with_another(at, &common::mlp(&[4, 12, 3]).1),
        &[
            "zoo/net-000005.safetensors'",
            "'fc1.bias'",
            "[12]",
            "[16]",
            "must be alike",
        ],
    );
}

#[test]
fn networks_of_other_tensors() {
    refused(
        |at| with_another(at, &common::mlp(&[4, 16, 3, 3]).1),
        &[
            "zoo/net-000005.safetensors'",
            "'fc3.bias' is not in",
            "must be alike",
        ],
    );
}

#[test]
fn weights_that_are_not_finite() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        refused(
            |at| {
                mlps(at);
                let path = at.join("zoo/net-000003.safetensors");
                let mut bytes = fs::read(&path).unwrap();
                // The last of fc2.weight, which safetensors puts last.
                let end = bytes.len() - size_of::<f32>();
                bytes[end..].copy_from_slice(&value.to_le_bytes());
                fs::write(&path, bytes).unwrap();
            },
            &[
                "zoo/net-000003.safetensors'",
                "'fc2.weight'",
                "leave it out",
            ],
        );
    }
}

#[test]
fn a_graph_without_some_of_the_tensors() {
    refused(
        |at| {
            exports(at, "groupnorm", |model| {
                let graph = model.graph.as_mut().unwrap();
                graph.initializer.retain(|t| t.name() != "fc1.bias");
            });
        },
        &[
            "zoo/network.onnx'",
            "the checkpoints' tensors 'fc1.bias' are not in the graph",
            "optimize=False",
        ],
    );
}

#[test]
fn a_graph_of_more_tensors() {
    refused(
        |at| {
            mlps(at);
            fs::copy(
                common::exported_path("groupnorm"),
                at.join("zoo/network.onnx"),
            )
            .unwrap();
        },
        &[
            "zoo/network.onnx'",
            "its tensors 'left.bias'",
            "more are not in the checkpoints",
        ],
    );
}

#[test]
fn a_graph_of_other_shapes() {
    refused(
        |at| {
            exports(at, "groupnorm", |model| {
                let graph = model.graph.as_mut().unwrap();
                let bias = graph
                    .initializer
                    .iter_mut()
                    .find(|t| t.name() == "fc1.bias");
                bias.unwrap().dims[0] += 1;
            });
        },
        &[
            "zoo/network.onnx'",
            "'fc1.bias'",
            "[33] in the graph",
            "[32] in the checkpoints",
        ],
    );
}

#[test]
fn a_graph_for_training() {
    refused(
        |at| {
            exports(at, "resnet20", |model| {
                let nodes = &mut model.graph.as_mut().unwrap().node;
                let norm = nodes
                    .iter_mut()
                    .find(|n| n.op_type() == "BatchNormalization");
                norm.unwrap().output.push("mean".into());
            });
        },
        &["zoo/network.onnx'", "training mode", "model.eval()"],
    );
    refused(
        |at| {
            exports(at, "mlp", |model| {
                let mut domain = model.opset_import[0].clone();
                domain.domain = Some("ai.onnx.preview.training".into());
                model.opset_import.push(domain);
            });
        },
        &["zoo/network.onnx'", "training alone"],
    );
}

#[test]
fn a_graph_of_an_unsupported_opset() {
    for version in [8, 99] {
        refused(
            |at| {
                exports(at, "mlp", |model| {
                    model.opset_import[0].version = Some(version)
                })
            },
            &[
                "zoo/network.onnx'",
                &format!("opset is {version}"),
                "opset_version=20",
            ],
        );
    }
}

#[test]
fn a_graph_that_onnx_runtime_does_not_load() {
    refused(
        |at| {
            exports(at, "mlp", |model| {
                model.graph.as_mut().unwrap().node[0].op_type = Some("Gemmm".into())
            })
        },
        &["zoo/network.onnx'", "cannot load", "Gemmm"],
    );
}

#[test]
fn what_is_no_graph() {
    refused(
        |at| {
            mlps(at);
            fs::write(at.join("zoo/network.onnx"), "no graph").unwrap();
        },
        &["zoo/network.onnx'", "not an ONNX file"],
    );
}

#[test]
fn an_output_among_the_networks() {
    let folder = tempfile::tempdir().unwrap();
    mlps(folder.path());
    let (done, said) = answer(folder.path(), "align zoo -o zoo/new");
    assert!(!done);
    assert_says(&said, &["'zoo/new' lies in the zoo's folder"]);
    assert_eq!(common::names(&folder.path().join("zoo")).len(), 8);
}

#[test]
fn an_unknown_operator_is_told_of_and_does_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    exports(at, "mlp", |model| {
        let nodes = &mut model.graph.as_mut().unwrap().node;
        let relu = nodes.iter_mut().find(|n| n.op_type() == "Relu");
        relu.unwrap().op_type = Some("Atan".into());
    });
    let (done, table) = answer(at, "inspect --groups zoo/network.onnx");
    assert!(done, "{table}");
    // The hidden units behind it are fixed, those after the second layer are not.
    assert_says(
        &table,
        &[
            "fixed  0.weight, 0.bias",
            "not understood",
            "(Atan)",
            "2.weight[0]",
        ],
    );
    assert!(!table.contains("0.weight[0]"), "{table}");
    let (done, said) = answer(at, "align zoo -o new");
    assert!(done, "{said}");
    assert_says(
        &said,
        &["warning: node", "(Atan) is not understood", "verified"],
    );
}

/// The network of the checkpoints in `tests/checkpoints`: fc1, norm, ReLU, fc2.
fn write_checkpoints_network(path: &Path) {
    let node = |op: &str, inputs: &[&str], output: &str| NodeProto {
        op_type: Some(op.into()),
        name: Some(output.into()),
        input: inputs.iter().map(|name| (*name).into()).collect(),
        output: vec![output.into()],
        ..Default::default()
    };
    let linear = |input: &str, name: &str, output: &str| {
        let [weight, bias] = ["weight", "bias"].map(|part| format!("{name}.{part}"));
        let mut gemm = node("Gemm", &[input, &weight, &bias], output);
        gemm.attribute.push(AttributeProto {
            name: Some("transB".into()),
            i: Some(1),
            r#type: Some(attribute_type::INT),
            ..Default::default()
        });
        gemm
    };
    let statistics = ["weight", "bias", "running_mean", "running_var"];
    let statistics = statistics.map(|part| format!("norm.{part}"));
    let mut norm = vec!["fc1"];
    norm.extend(statistics.iter().map(String::as_str));
    let checkpoint = Checkpoint::open(&pytorch("zip.pt")).unwrap();
    let tensors = checkpoint.signatures().iter();
    let value =
        |name, size| ValueInfoProto::tensor(name, data_type::FLOAT, &[Err("batch"), Ok(size)]);
    let graph = GraphProto {
        name: Some("checkpoints".into()),
        node: vec![
            linear("x", "fc1", "fc1"),
            node("BatchNormalization", &norm, "norm"),
            node("Relu", &["norm"], "relu"),
            linear("relu", "fc2", "y"),
        ],
        initializer: tensors
            .map(|tensor| TensorProto {
                name: Some(tensor.name.clone()),
                data_type: Some(data_type::FLOAT),
                dims: tensor.shape.iter().map(|dim| *dim as i64).collect(),
                ..Default::default()
            })
            .collect(),
        input: vec![value("x", 2)],
        output: vec![value("y", 2)],
        ..Default::default()
    };
    fs::write(
        path,
        ModelProto::opset20(graph, "test", "1").encode_to_vec(),
    )
    .unwrap();
}

fn pytorch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/checkpoints")
        .join(name)
}

/// The same network, saved by PyTorch in several ways: every copy comes out as it went in.
#[test]
fn checkpoints_of_pytorch_are_aligned_however_they_were_saved() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::create_dir(at.join("zoo")).unwrap();
    for (i, name) in ["zip.pt", "legacy.pth", "nested.pt", "module.pt"]
        .iter()
        .enumerate()
    {
        for copy in ["a", "b"] {
            let to = format!("zoo/{i}{copy}-{name}");
            fs::copy(pytorch(name), at.join(to)).unwrap();
        }
    }
    write_checkpoints_network(&at.join("zoo/network.onnx"));
    let (done, said) = answer(at, "align zoo -o new");
    assert!(done, "{said}");
    assert_says(&said, &["8 networks, verified", "0.0 % less"]);
    assert_eq!(common::names(&at.join("new"))[7], "3b-module.safetensors");
    let original = Checkpoint::open(&pytorch("zip.pt")).unwrap();
    for name in common::names(&at.join("new")) {
        let aligned = Checkpoint::open(&at.join("new").join(&name)).unwrap();
        assert_eq!(aligned.signatures(), original.signatures(), "{name}");
        // PyTorch's strict loading asks for `num_batches_tracked`.
        let integers = aligned.integers().unwrap();
        assert_eq!(integers, original.integers().unwrap(), "{name}");
        assert_eq!(integers[0].name, "norm.num_batches_tracked");
        for tensor in original.signatures() {
            let [mut a, mut b] = [0, 1].map(|_| vec![0.0; tensor.shape.iter().product()]);
            original.read(&tensor.name, &mut a).unwrap();
            aligned.read(&tensor.name, &mut b).unwrap();
            assert_eq!(a, b, "{name}: {}", tensor.name);
        }
    }
}

/// After Ctrl-C finished networks are kept, and the same command goes on from them to the bytes of
/// a run in one go.
#[cfg(unix)]
#[test]
fn a_stopped_alignment_goes_on_to_the_same_bytes() {
    use std::process::Stdio;
    const NETWORKS: usize = 12;
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    write_plausible(
        &at.join("zoo"),
        common::exported("resnet20").layout(),
        NETWORKS,
    );
    let path = common::exported_path("resnet20");
    let align = format!("align zoo --network {} --reference mean -o", path.display());
    let (done, said) = answer(at, &format!("{align} whole"));
    assert!(done, "{said}");
    let work = at.join("new.work");
    let mut before: Vec<(PathBuf, SystemTime)> = Vec::new();
    // Stopped in the first round, then in the second.
    for round in ["0-", "1-"] {
        let again = format!("{align} new");
        let mut process = common::start(at, &again, Stdio::null(), Stdio::piped());
        let in_round = |path: &Path| {
            path.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with(round)
        };
        let begun = || common::kept(&work).iter().any(|(path, _)| in_round(path));
        common::signal(&mut process, "-INT", begun);
        let output = process.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(130), "{said}");
        assert_says(
            &said,
            &[
                "interrupted",
                "every network aligned so far is kept",
                "goes on",
            ],
        );
        assert_eq!(common::names(at), ["new.work", "whole", "zoo"]);
        let kept = common::kept(&work);
        let unfinished = kept.iter().filter(|(path, _)| in_round(path)).count() < NETWORKS - 1;
        assert!(unfinished, "it was not stopped in round {round}");
        // What an earlier process finished was not done again.
        assert!(
            before.iter().all(|file| kept.contains(file)),
            "{before:?} {kept:?}"
        );
        before = kept;
    }
    let (done, said) = answer(at, &format!("{align} new"));
    assert!(done, "{said}");
    assert_eq!(common::names(at), ["new", "whole", "zoo"]);
    let names = common::names(&at.join("whole"));
    assert_eq!(names.len(), NETWORKS);
    for name in names {
        let read = |folder: &str| fs::read(at.join(folder).join(&name)).unwrap();
        assert!(read("new") == read("whole"), "{name}");
    }
}
