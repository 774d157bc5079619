//! Networks and zoos to test with.

#![allow(dead_code, reason = "every test program uses some of it")]

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, SystemTime},
};

use dwf::{
    layout::{DType, Layout},
    metadata::Source,
    onnx::{GraphProto, ModelProto, data_type},
};
use dwf_trainer::{
    export::About,
    mlp::Mlp,
    network::{Network, Signature},
    random::Random,
    solver,
    velocity::{Points, Shape, Variant},
    zoo::Writer,
};
use prost::Message;

/// An MLP with these layer sizes, tensors `fc1.weight`, `fc1.bias`, ...
pub(crate) fn mlp(sizes: &[usize]) -> (Mlp, Layout) {
    let mut tensors = Vec::new();
    for (i, pair) in sizes.windows(2).enumerate() {
        tensors.push(tensor(&format!("fc{}.weight", i + 1), &[pair[1], pair[0]]));
        tensors.push(tensor(&format!("fc{}.bias", i + 1), &[pair[1]]));
    }
    Mlp::find(&tensors).unwrap()
}

pub(crate) fn tensor(name: &str, shape: &[usize]) -> Signature {
    Signature {
        name: name.into(),
        shape: shape.into(),
        dtype: DType::F32,
    }
}

/// Standard normals.
pub(crate) fn normals(count: usize, seed: u64) -> Vec<f32> {
    let mut values = vec![0.0; count];
    Random::new(seed, 0).fill_normal(&mut values);
    values
}

/// A zoo folder of `count` random networks.
pub(crate) fn write_zoo(folder: &Path, layout: &Layout, count: usize) {
    let mut writer = Writer::new(folder, layout, 0).unwrap();
    for network in normals(count * layout.len(), 5).chunks_exact(layout.len()) {
        writer.add(network).unwrap();
    }
    writer.finish().unwrap();
}

/// What an artifact over `layout` says about itself.
pub(crate) fn about(layout: &Layout) -> About {
    About {
        layout: layout.clone(),
        source: Source::STANDARD,
        condition: None,
        solver: solver::unmeasured(),
        provenance: BTreeMap::from([("tool".into(), "test".into())]),
        quality: BTreeMap::new(),
    }
}

/// A velocity network of the reference's kind, without conditions.
pub(crate) fn shape(latent: usize, width: usize) -> Shape {
    Shape {
        variant: Variant::Reference,
        latent,
        width,
        condition: 0,
    }
}

/// Points without conditions.
pub(crate) fn points(x: &[f32], t: &[f32]) -> Points {
    Points {
        x: x.to_vec(),
        t: t.to_vec(),
        condition: Vec::new(),
    }
}

/// Whole files in the parts of a work folder, with the times at which they were written.
pub(crate) fn kept(work: &Path) -> Vec<(PathBuf, SystemTime)> {
    let parts = fs::read_dir(work).into_iter().flatten().flatten();
    let files = parts.flat_map(|part| fs::read_dir(part.path()).into_iter().flatten().flatten());
    let paths = files.map(|file| file.path());
    let whole = paths.filter(|path| path.extension().is_none());
    whole
        .filter_map(|path| Some((path.clone(), fs::metadata(&path).ok()?.modified().ok()?)))
        .collect()
}

/// Names in a folder, sorted; hidden ones too.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Runs the command.
pub(crate) fn dwf(folder: &Path, arguments: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dwf"))
        .args(arguments.split_whitespace())
        .current_dir(folder)
        .output()
        .unwrap()
}

/// Starts the command; what becomes of its output is the caller's to say.
pub(crate) fn start(folder: &Path, arguments: &str, stdout: Stdio, stderr: Stdio) -> Child {
    Command::new(env!("CARGO_BIN_EXE_dwf"))
        .args(arguments.split_whitespace())
        .current_dir(folder)
        .stdout(stdout)
        .stderr(stderr)
        .spawn()
        .unwrap()
}

/// Sends a process this signal once something has happened, which it must not end before.
pub(crate) fn signal(process: &mut Child, signal: &str, happened: impl Fn() -> bool) {
    while !happened() {
        assert!(process.try_wait().unwrap().is_none(), "it ended too soon");
        std::thread::sleep(Duration::from_millis(1));
    }
    let kill = Command::new("kill")
        .args([signal, &process.id().to_string()])
        .status();
    assert!(kill.unwrap().success());
}

/// A training that is long enough to be stopped.
pub(crate) const TRAIN: &str = "train zoo -o flow.onnx --steps 600 --width 64";

/// Starts it with an account of what it does, and waits until it has begun.
pub(crate) fn training(folder: &Path) -> Child {
    let json = format!("{TRAIN} --json");
    let mut process = start(folder, &json, Stdio::piped(), Stdio::null());
    let lines = BufReader::new(process.stdout.as_mut().unwrap()).lines();
    let mut lines = lines.map_while(Result::ok);
    // The first look at the flow.
    assert!(lines.any(|line| line.contains("\"check\"")));
    process
}

/// Whether the command succeeds, and all that it says.
pub(crate) fn answer(folder: &Path, arguments: &str) -> (bool, String) {
    let output = dwf(folder, arguments);
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

pub(crate) fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "'{part}' is missing in: {message}");
    }
}

/// A network that PyTorch exported: see `tests/networks/export.py`.
pub(crate) fn exported_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/networks/{name}.onnx"))
}

/// The tensors that were stripped of their data: the module's.
pub(crate) fn exported_tensors(name: &str) -> Vec<Signature> {
    let bytes = fs::read(exported_path(name)).unwrap();
    let graph = ModelProto::decode(&bytes[..]).unwrap().graph.unwrap();
    let initializers = graph.initializer.iter();
    initializers
        .filter(|t| t.data_type() == data_type::FLOAT)
        .filter(|t| t.raw_data.is_none() && t.float_data.is_empty())
        .map(|t| {
            let shape: Vec<usize> = t.dims.iter().map(|dim| *dim as usize).collect();
            tensor(t.name(), &shape)
        })
        .collect()
}

pub(crate) fn exported(name: &str) -> Network {
    Network::read(&exported_path(name), &exported_tensors(name)).unwrap()
}

/// Weights that keep values of size one on their way through a network: normal matrices scaled by
/// their inputs, normalisations around the identity.
pub(crate) fn plausible_weights(layout: &Layout, seed: u64) -> Vec<f32> {
    let mut weights = normals(layout.len(), seed);
    for tensor in layout.tensors() {
        let values = &mut weights[tensor.range()];
        let inputs: usize = tensor.shape.iter().skip(1).product();
        let scale = match tensor.shape.len() {
            0 | 1 => 0.2,
            _ => 1.0 / (inputs as f32).sqrt(),
        };
        values.iter_mut().for_each(|w| *w *= scale);
        if tensor.name.ends_with("running_var") {
            values.iter_mut().for_each(|w| *w = 1.0 + w.abs());
        } else if tensor.shape.len() == 1 && tensor.name.ends_with("weight") {
            values.iter_mut().for_each(|w| *w += 1.0);
        }
    }
    weights
}

/// An export after a change of its graph.
pub(crate) fn changed(name: &str, change: impl Fn(&mut GraphProto)) -> Network {
    let mut model = exported(name).model().clone();
    change(model.graph.as_mut().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("network.onnx");
    fs::write(&path, model.encode_to_vec()).unwrap();
    Network::read_alone(&path).unwrap()
}
