//! The command, from a zoo to generated networks, and what it refuses.

mod common;

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use common::{TRAIN, assert_says, dwf};
use dwf::{
    Model, SampleOptions, Sampler,
    metadata::{Distribution, Source},
    onnx::{ValueInfoProto, data_type},
};
use dwf_trainer::{
    align::Reference,
    checkpoint::Checkpoint,
    groups::Groups,
    memory,
    rows::Rows,
    work::Work,
    zoo::{self, Writer, Zoo},
};
use prost::Message;

/// Its standard output.
fn succeeds(folder: &Path, arguments: &str) -> String {
    let output = dwf(folder, arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "dwf {arguments}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// Its message on standard error.
fn fails(folder: &Path, arguments: &str, code: i32) -> String {
    let output = dwf(folder, arguments);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "dwf {arguments}: {error}");
    assert!(output.stdout.is_empty());
    error
}

#[test]
fn from_a_zoo_to_generated_networks() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    assert_says(
        &succeeds(at, "zoo iris -o zoo --count 30"),
        &["30 networks", "mean accuracy"],
    );
    // 30 networks, three parts of the data, and how it was made.
    assert_eq!(common::names(&at.join("zoo")).len(), 34);

    let train = "train zoo -o out/iris.onnx --steps 400 --seed 3 --aligned-zoo out/zoo.f32";
    let table = succeeds(at, train);
    assert_says(
        &table,
        &[
            "accuracy on held-out data",
            "nearest zoo network",
            "standing still, lowest",
            "iris.onnx",
        ],
    );
    assert_eq!(
        common::names(&at.join("out")),
        ["iris.onnx", "iris.safetensors", "zoo.f32"]
    );
    assert_eq!(
        fs::metadata(at.join("out/zoo.f32")).unwrap().len(),
        30 * 131 * 4
    );

    let model = Model::open(at.join("out/iris.onnx"), &Default::default()).unwrap();
    let metadata = model.metadata();
    let keys: Vec<&str> = metadata.quality.keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        [
            "flow.held_out_loss",
            "flow.held_out_loss.lowest",
            "flow.held_out_loss.lowest_step",
            "flow.held_out_loss.standing_still",
            "flow.kept_step",
            "generated.accuracy",
            "near_copies",
            "nn_distance.generated.median",
            "nn_distance.generated.min",
            "nn_distance.zoo.median",
            "solver.evaluations",
            "solver.std_ratio",
            "std_ratio.median",
            "zoo.accuracy",
        ]
    );
    assert!(metadata.quality["zoo.accuracy"] > 0.85);
    assert!(metadata.solver.relative_error.unwrap() < 1e-3);
    assert_eq!(metadata.provenance["zoo"], "zoo");
    assert_eq!(metadata.provenance["networks"], "30");
    assert_eq!(metadata.provenance["mixing.selected"], "1024");

    succeeds(at, "generate out/iris.onnx -n 40 -o new --seed 5");
    let generated = Zoo::read(&at.join("new")).unwrap();
    assert_eq!(
        (generated.count(), generated.layout()),
        (40, &metadata.layout)
    );
    let mut weights = vec![0f32; 40 * 131];
    let mut sampler = Sampler::new(&model, &Default::default()).unwrap();
    let options = SampleOptions {
        seed: 5,
        count: 40,
        ..Default::default()
    };
    sampler.sample(options, &mut weights[..]).unwrap();
    for (file, sampled) in generated.networks().flatten().zip(&weights) {
        // The same networks in batches of another size: f32 rounding.
        assert!((file - sampled).abs() < 1e-4, "{file} and {sampled}");
    }

    // A part of them, by another process: the same bits under the same names, however many others
    // there are.
    succeeds(at, "generate out/iris.onnx -n 1001 -o many --seed 5");
    succeeds(at, "generate out/iris.onnx --range 30..37 -o part --seed 5");
    let names = |folder: &str| -> Vec<_> {
        let entries = fs::read_dir(at.join(folder)).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect()
    };
    assert_eq!(names("part").len(), 7);
    for name in names("part") {
        let read = |folder: &str| fs::read(at.join(folder).join(&name)).unwrap();
        assert!(read("part") == read("new"), "{name:?}");
        assert!(read("part") == read("many"), "{name:?}");
    }

    succeeds(
        at,
        "export-sampler out/iris.onnx -o out/sampler.onnx --solver midpoint --steps 3",
    );
    assert!(at.join("out/sampler.safetensors").exists());
    assert_says(
        &fails(at, "export-sampler out/iris.onnx -o out/iris.onnx", 1),
        &["out/iris.onnx", "replace the artifact"],
    );
    assert_says(
        &fails(at, "export-sampler out/iris.onnx -o out/sampler", 1),
        &["out/sampler", ".onnx"],
    );

    let text = succeeds(at, "inspect out/iris.onnx");
    assert_says(
        &text,
        &[
            "131 weights",
            "fc2.weight",
            "Diagonal",
            "std_ratio.median",
            "dwf-trainer",
        ],
    );

    assert_says(
        &fails(at, "generate out/iris.onnx -o new", 1),
        &["'new' is not empty"],
    );
    assert_says(&fails(at, "zoo iris -o zoo", 1), &["'zoo' is not empty"]);
}

/// The conformance artifact `name`, copied into `folder`.
fn conformance(folder: &Path, name: &str) {
    for extension in ["onnx", "safetensors"] {
        let file = format!("{name}.{extension}");
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/conformance");
        fs::copy(from.join(&file), folder.join(&file)).unwrap();
    }
}

/// What an artifact can be asked for is asked for by name, and said where it is not.
#[test]
fn networks_are_generated_as_asked() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    for (name, asked, row, guidance) in [
        ("conditional", "versicolor", &[0.0, 1.0, 0.0][..], 2.5),
        ("axes", "größe=-0.25,speed=1.5", &[1.5, -0.25], 1.0),
    ] {
        conformance(at, name);
        let options = format!("--seed 5 -n 3 --condition {asked} --guidance {guidance}");
        succeeds(at, &format!("generate {name}.onnx -o {name} {options}"));
        let model = Model::open(at.join(format!("{name}.onnx")), &Default::default()).unwrap();
        let layout = &model.metadata().layout;
        let mut sampler = Sampler::new(&model, &Default::default()).unwrap();
        let mut weights = vec![0f32; 3 * layout.len()];
        let options = SampleOptions {
            seed: 5,
            count: 3,
            condition: Some(row),
            guidance,
            ..Default::default()
        };
        sampler.sample(options, &mut weights[..]).unwrap();
        for (i, expected) in weights.chunks_exact(layout.len()).enumerate() {
            let file = at.join(name).join(format!("net-00000{i}.safetensors"));
            let checkpoint = Checkpoint::open(&file).unwrap();
            for spec in layout.tensors() {
                let mut found = vec![0f32; spec.count()];
                checkpoint.read(&spec.name, &mut found).unwrap();
                for (found, expected) in found.iter().zip(&expected[spec.range()]) {
                    // Half precision in the file at worst, and batches of another size.
                    let error = (found - expected).abs();
                    assert!(error < 1e-2 * (1.0 + expected.abs()), "{found} {expected}");
                }
            }
        }
    }
    let axes = ["speed=0 to 2, größe=-1 to 1", "axes.onnx"];
    for options in ["", "--condition speed=1", "--condition speed=1,größe=5"] {
        assert_says(
            &fails(at, &format!("generate axes.onnx -o new {options}"), 1),
            &axes,
        );
    }
    assert_says(
        &fails(at, "generate conditional.onnx -o new --condition rose", 1),
        &["'rose'", "setosa, versicolor, virginica"],
    );
    assert_says(
        &fails(at, "generate conditional.onnx -o new --guidance 2", 2),
        &["--condition"],
    );
    assert_says(&succeeds(at, "inspect axes.onnx"), &axes[..1]);
    assert_says(
        &succeeds(at, "inspect conditional.onnx"),
        &["a class of setosa, versicolor, virginica; or none"],
    );
    assert!(!at.join("new").exists());
}

#[test]
fn a_seed_gives_the_same_bytes_and_a_linear_basis_works() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    succeeds(at, "zoo iris -o zoo --count 12 --seed 4");
    fs::remove_file(at.join("zoo/held-out.csv")).unwrap();
    let train = |name: &str| {
        let options = "--steps 40 --basis linear --latent 6 --width 32";
        succeeds(at, &format!("train zoo -o {name}/flow.onnx {options}"));
        ["onnx", "safetensors"]
            .map(|e| fs::read(at.join(name).join("flow").with_extension(e)).unwrap())
    };
    assert_eq!(train("a"), train("b"));
    let model = Model::open(at.join("a/flow.onnx"), &Default::default()).unwrap();
    assert_eq!(model.latent(), 6);
    let quality = &model.metadata().quality;
    assert!((0.1..1.0).contains(&quality["explained_variance"]));
    assert!(
        !quality.contains_key("zoo.accuracy"),
        "without data there is no accuracy"
    );
    succeeds(at, "zoo iris -o zoo2 --count 12 --seed 4");
    let read = |folder| Zoo::read(&at.join(folder)).unwrap();
    assert!(read("zoo").networks().eq(read("zoo2").networks()));
}

#[test]
fn trajectories_may_start_from_uniform_noise() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let (_, layout) = common::mlp(&[4, 8, 3]);
    common::write_zoo(&at.join("zoo"), &layout, 12);
    let train = "train zoo -o flow.onnx --steps 20 --width 64 --source uniform --source-std 0.7";
    succeeds(at, train);
    let model = Model::open(at.join("flow.onnx"), &Default::default()).unwrap();
    let source = Source {
        distribution: Distribution::Uniform,
        std: 0.7,
    };
    assert_eq!(model.metadata().source, source);
    assert_says(&succeeds(at, "inspect flow.onnx"), &["Uniform, std 0.7"]);
    succeeds(at, "generate flow.onnx -n 2 -o new");
}

#[test]
fn bad_requests_are_refused_before_any_work() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    succeeds(at, "zoo iris -o zoo --count 10");
    let refuse = |arguments: &str, code: i32, parts: &[&str]| {
        assert_says(&fails(at, arguments, code), parts);
        assert_eq!(
            common::names(at),
            ["zoo"],
            "dwf {arguments} left something behind"
        );
    };
    refuse("train zoo -o flow.bin", 1, &["flow.bin", "NAME.onnx"]);
    refuse(
        "train none -o flow.onnx",
        1,
        &["cannot read the zoo 'none'"],
    );
    refuse("train zoo -o zoo", 1, &["'zoo' is not called NAME.onnx"]);
    refuse(
        "train zoo -o flow.onnx --aligned-zoo zoo",
        1,
        &["'zoo' is a folder"],
    );
    refuse(
        "train zoo -o zoo/net-000000.safetensors/flow.onnx",
        1,
        &["net-000000.safetensors"],
    );
    refuse(
        "train zoo -o flow.onnx --basis linear --latent 9",
        1,
        &["--latent 9", "give 1 to 8"],
    );
    refuse(
        "train zoo -o flow.onnx --data none.csv",
        1,
        &["cannot read 'none.csv'"],
    );
    refuse(
        "train zoo -o new/deep/flow.onnx --aligned-zoo zoo",
        1,
        &["'zoo' is a folder"],
    );
    refuse(
        "train zoo -o zoo/flow.onnx",
        1,
        &["'zoo/flow.onnx' lies in the zoo's folder"],
    );
    refuse(
        "train zoo -o flow.onnx --aligned-zoo zoo/../zoo/net-000000.safetensors",
        1,
        &["net-000000.safetensors' lies in the zoo's folder"],
    );
    for aligned in ["./new/flow.onnx", "new/flow.safetensors"] {
        refuse(
            &format!("train zoo -o new/flow.onnx --aligned-zoo {aligned}"),
            1,
            &["--aligned-zoo", aligned, "choose another name"],
        );
    }
    refuse("zoo iris -o .", 1, &["'.' is no name"]);
    refuse("zoo cartpole -o zoo/..", 1, &["'zoo/..' is no name"]);
    refuse("generate none.onnx -o new", 1, &["none.onnx"]);
    refuse(
        "inspect zoo/net-000000.safetensors",
        1,
        &["net-000000.safetensors"],
    );

    refuse("train zoo", 2, &["--output"]);
    refuse("train zoo -o flow.onnx --latent 5", 2, &["--basis linear"]);
    for error in ["0", "nan", "-1", "inf"] {
        let line = format!("train zoo -o flow.onnx --solver-error={error}");
        refuse(&line, 2, &["--solver-error", "give a number above 0"]);
    }
    refuse("train zoo -o flow.onnx --basis cubic", 2, &["cubic"]);
    refuse("zoo iris -o new --count 7", 2, &["--count"]);
    refuse("train zoo -o flow.onnx --steps 0", 2, &["--steps"]);
    refuse("train zoo -o flow.onnx --width 33", 2, &["--width", "even"]);
    refuse("generate none.onnx -n 0 -o new", 2, &["--count"]);
    refuse("generate none.onnx --range 3..3 -o new", 2, &["--range"]);
    refuse("export-sampler none.onnx -o new.onnx", 1, &["none.onnx"]);
    refuse("frobnicate", 2, &["frobnicate"]);
}

#[test]
fn foreign_files_are_not_replaced_by_a_sidecar() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    succeeds(at, "zoo iris -o zoo --count 8");
    let train = "train zoo -o mine.onnx --steps 1 --width 8";
    succeeds(at, &train.replace("mine", "flow"));
    let checkpoint = fs::read(at.join("zoo/net-000000.safetensors")).unwrap();
    for content in [&checkpoint[..], b"", b"notes of mine"] {
        fs::write(at.join("mine.safetensors"), content).unwrap();
        for request in [train, "export-sampler flow.onnx -o mine.onnx"] {
            let message = fails(at, request, 1);
            assert_says(
                &message,
                &["'mine.safetensors' exists and is not an artifact's sidecar"],
            );
            assert_eq!(fs::read(at.join("mine.safetensors")).unwrap(), content);
        }
    }
    let all = ["flow.onnx", "flow.safetensors", "mine.safetensors", "zoo"];
    assert_eq!(common::names(at), all);
    succeeds(at, &train.replace("mine", "flow"));
}

#[test]
fn a_damaged_sidecar_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    succeeds(at, "zoo iris -o zoo --count 8");
    succeeds(at, "train zoo -o flow.onnx --steps 1 --width 8");
    let mut bytes = fs::read(at.join("flow.safetensors")).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(at.join("flow.safetensors"), bytes).unwrap();
    for request in [
        "inspect flow.onnx",
        "generate flow.onnx -o new",
        "export-sampler flow.onnx -o new.onnx",
    ] {
        assert_says(&fails(at, request, 1), &["flow.safetensors"]);
    }
    let all = ["flow.onnx", "flow.safetensors", "zoo"];
    assert_eq!(common::names(at), all);
}

#[test]
fn small_zoos_are_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let warning = |count: usize| {
        succeeds(at, &format!("zoo iris -o zoo{count} --count {count}"));
        let train = format!("train zoo{count} -o flow.onnx --steps 1 --width 8");
        String::from_utf8(dwf(at, &train).stderr).unwrap()
    };
    assert_says(&warning(29), &["29 networks", "8 is the bare minimum"]);
    assert_eq!(warning(30), "");
}

#[test]
fn a_zoo_has_a_folder_by_default() {
    let folder = tempfile::tempdir().unwrap();
    succeeds(folder.path(), "zoo iris --count 8");
    assert_eq!(common::names(folder.path()), ["iris-zoo"]);
}

#[test]
fn a_width_beyond_the_memory_is_refused() {
    // What the widest takes, with some to spare.
    const MOST: usize = 120 << 30;
    if memory::available().is_none_or(|bytes| bytes > MOST) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    succeeds(folder.path(), "zoo iris -o zoo --count 8");
    let message = fails(folder.path(), "train zoo -o flow.onnx --width 65536", 1);
    assert_says(
        &message,
        &["--width 65536", "131 latents", "GB", "smaller --width"],
    );
    assert_eq!(common::names(folder.path()), ["zoo"]);
}

#[cfg(unix)]
#[test]
fn a_link_is_no_folder_to_fill() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::create_dir(at.join("empty")).unwrap();
    std::os::unix::fs::symlink("empty", at.join("link")).unwrap();
    for link in ["link", "link/"] {
        let message = fails(at, &format!("zoo iris -o {link} --count 8"), 1);
        assert_says(&message, &["link", "symbolic link"]);
    }
    assert_eq!(common::names(at), ["empty", "link"]);
}

#[cfg(unix)]
#[test]
fn a_stopped_process_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    succeeds(at, "zoo iris -o zoo --count 8");
    succeeds(at, "train zoo -o flow.onnx --steps 1 --width 8");
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let generate = "generate flow.onnx -n 20000 -o new/deep/zoo";
        let mut process = common::start(at, generate, Stdio::inherit(), Stdio::null());
        // Networks are being written.
        let staged = || {
            let folders = fs::read_dir(at.join("new/deep")).ok()?;
            let staging = folders.filter_map(Result::ok).next()?.path();
            fs::read_dir(staging).ok()?.next()
        };
        common::signal(&mut process, signal, || staged().is_some());
        assert_eq!(process.wait().unwrap().code(), Some(code));
        let all = ["flow.onnx", "flow.safetensors", "zoo"];
        assert_eq!(common::names(at), all);
    }
}

#[test]
fn data_must_fit_the_networks() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    succeeds(at, "zoo iris -o zoo --count 8");
    fs::write(at.join("narrow.csv"), "a,b,class\n1,2,0\n").unwrap();
    fs::write(at.join("classes.csv"), "a,b,c,d,class\n1,2,3,4,3\n").unwrap();
    let narrow = fails(at, "train zoo -o flow.onnx --data narrow.csv", 1);
    assert_says(&narrow, &["narrow.csv", "2 features", "4 inputs"]);
    let classes = fails(at, "train zoo -o flow.onnx --data classes.csv", 1);
    assert_says(&classes, &["classes.csv", "class 3", "3 outputs"]);
}

#[test]
fn a_zoo_is_aligned_into_another_folder() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    succeeds(at, "zoo iris -o zoo --count 8");
    for reference in ["first", "medoid", "mean"] {
        let out = format!("new-{reference}");
        let said = succeeds(at, &format!("align zoo -o {out} --reference {reference}"));
        assert_says(&said, &["8 networks, verified", "% less", &out]);
        let names = common::names(&at.join(&out));
        assert_eq!(names.len(), 8);
        assert_eq!(names[3], "net-000003.safetensors");
    }
    let read = |folder: &str| Zoo::read(&at.join(folder)).unwrap();
    let (before, after) = (read("zoo"), read("new-first"));
    assert_eq!(before.weights.row(0), after.weights.row(0));
    assert!(!before.networks().eq(after.networks()));
    // Only hidden units have moved: each network has its own weights, in another order.
    let mlp = before.network.as_mlp().unwrap();
    let x = common::normals(4, 1);
    for (before, after) in before.networks().zip(after.networks()) {
        let pairs = mlp
            .forward(&before, &x)
            .into_iter()
            .zip(mlp.forward(&after, &x));
        // f32 sums of 16 products in another order.
        pairs.for_each(|(a, b)| assert!((a - b).abs() < 1e-4, "{a} and {b}"));
    }
    let measured = succeeds(at, "align zoo -o measured --data zoo/held-out.csv");
    assert_says(&measured, &["barrier", "points of accuracy"]);
    // The same by an export of 7 rows at once, which the data's are no multiple of.
    let mut fixed = before.network.model().clone();
    let graph = fixed.graph.as_mut().unwrap();
    graph.input = vec![ValueInfoProto::tensor(
        "x",
        data_type::FLOAT,
        &[Ok(7), Ok(4)],
    )];
    graph.output = vec![ValueInfoProto::tensor(
        "y",
        data_type::FLOAT,
        &[Ok(7), Ok(3)],
    )];
    fs::write(at.join("fixed.onnx"), fixed.encode_to_vec()).unwrap();
    let by_sevens = "align zoo -o sevens --network fixed.onnx --data zoo/held-out.csv";
    let by_sevens = succeeds(at, by_sevens);
    let barrier = |said: &str| {
        let line = said.lines().find(|line| line.contains("barrier"));
        line.unwrap().to_owned()
    };
    assert_eq!(barrier(&by_sevens), barrier(&measured));
    fs::remove_file(at.join("fixed.onnx")).unwrap();
    assert_says(
        &fails(at, "align zoo -o x --data none.csv", 1),
        &["none.csv"],
    );
    fs::write(at.join("zoo/narrow.csv"), "a,b,class\n1,2,0\n").unwrap();
    assert_says(
        &fails(at, "align zoo -o x --data zoo/narrow.csv", 1),
        &["2 features", "do not fit"],
    );
    fs::write(at.join("zoo/classes.csv"), "a,b,c,d,class\n1,2,3,4,5\n").unwrap();
    assert_says(
        &fails(at, "align zoo -o x --data zoo/classes.csv", 1),
        &["classes 0 to 5", "do not fit"],
    );
    // The same again: nothing is left over, and an occupied folder is refused.
    assert_says(
        &fails(at, "align zoo -o new-first", 1),
        &["new-first", "not empty"],
    );
    let all = [
        "measured",
        "new-first",
        "new-mean",
        "new-medoid",
        "sevens",
        "zoo",
    ];
    assert_eq!(common::names(at), all);
}

#[test]
fn networks_of_any_architecture_are_aligned_and_trained_on() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let network = common::exported("groupnorm");
    let layout = network.layout();
    let mut writer = Writer::new(&at.join("zoo"), layout, 0).unwrap();
    for seed in 0..10 {
        writer
            .add(&common::plausible_weights(layout, seed))
            .unwrap();
    }
    writer.finish().unwrap();
    let graph = common::exported_path("groupnorm");
    let graph = graph.display();
    assert_says(
        &fails(at, "align zoo -o new", 1),
        &["--network", "network.onnx"],
    );
    let said = succeeds(at, &format!("align zoo --network {graph} -o new"));
    assert_says(&said, &["10 networks, verified", "% less"]);
    let table = succeeds(at, &format!("inspect --groups {graph}"));
    assert_says(
        &table,
        &[
            "stem.weight[0]",
            "fc1.weight[0], fc1.bias[0], fc2.weight[1]",
        ],
    );
    let train = format!("train zoo --network {graph} -o flow.onnx --basis linear --steps 20");
    succeeds(at, &train);
    let model = Model::open(at.join("flow.onnx"), &Default::default()).unwrap();
    assert_eq!(&model.metadata().layout, layout);
    // Without the option, from the file in the folder.
    fs::copy(
        common::exported_path("groupnorm"),
        at.join("zoo/network.onnx"),
    )
    .unwrap();
    succeeds(at, "align zoo -o again");
    assert_eq!(
        Zoo::read(&at.join("zoo")).unwrap().layout(),
        layout,
        "its own file describes it"
    );
    assert_eq!(
        common::names(at),
        ["again", "flow.onnx", "flow.safetensors", "new", "zoo"]
    );
}

#[test]
fn an_interrupted_alignment_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    succeeds(at, "zoo iris -o zoo --count 8");
    succeeds(at, "align zoo -o whole");
    // What an earlier process finished lies in the work folder: here one network, upside down.
    let source = zoo::Source::open(&at.join("zoo"), None, 8).unwrap();
    let groups = Groups::find(&source.network).unwrap();
    let key = (
        source.fingerprint(),
        Reference::First,
        false,
        env!("CARGO_PKG_VERSION"),
    );
    let work = Work::open(&at.join("new")).unwrap();
    let mut permutation = groups.identity();
    let units = &groups.families()[0].units;
    for (place, unit) in units.iter().enumerate() {
        permutation.0[*unit as usize] = units[units.len() - 1 - place];
    }
    let part = work.part("align", &key).unwrap();
    part.write("0-5", &permutation.to_bytes()).unwrap();
    succeeds(at, "align zoo -o new");
    let read = |folder: &str| Zoo::read(&at.join(folder)).unwrap();
    let (whole, resumed, zoo) = (read("whole"), read("new"), read("zoo"));
    let mut expected = vec![0.0; zoo.layout().len()];
    groups.permute(
        zoo.layout(),
        &zoo.weights.row(5),
        &permutation,
        &mut expected,
    );
    assert_eq!(resumed.weights.row(5), expected);
    assert_eq!(resumed.weights.row(4), whole.weights.row(4));
    assert_eq!(common::names(at), ["new", "whole", "zoo"]);
}

#[test]
fn a_zoo_of_copies_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    succeeds(at, "zoo iris -o zoo --count 8");
    for i in 1..8 {
        fs::copy(
            at.join("zoo/net-000000.safetensors"),
            at.join(format!("zoo/net-00000{i}.safetensors")),
        )
        .unwrap();
    }
    assert_says(&fails(at, "train zoo -o flow.onnx", 1), &["are the same"]);
}

#[test]
fn without_onnx_runtime_training_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_dwf"))
        .args(["train", "zoo", "-o", "flow.onnx"])
        .env("DWF_ONNXRUNTIME", "/nowhere/libonnxruntime.so")
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_says(
        &String::from_utf8_lossy(&output.stderr),
        &["ONNX Runtime", "/nowhere"],
    );
}

/// After Ctrl-C the same command goes on, to the bytes of a run in one go.
#[cfg(unix)]
#[test]
fn an_interrupted_training_goes_on_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    succeeds(at, "zoo iris -o zoo --count 12");
    let files = || ["onnx", "safetensors"].map(|e| fs::read(at.join("flow").with_extension(e)));
    succeeds(at, TRAIN);
    let whole = files().map(Result::unwrap);
    let mut process = common::training(at);
    common::signal(&mut process, "-INT", || true);
    assert_eq!(process.wait().unwrap().code(), Some(130));
    let kept = common::kept(&at.join("flow.work"));
    let state = kept.iter().any(|(path, _)| path.ends_with("state"));
    assert!(state, "no state is kept");
    succeeds(at, TRAIN);
    assert!(files().map(Result::unwrap) == whole);
    let all = ["flow.onnx", "flow.safetensors", "zoo"];
    assert_eq!(common::names(at), all);
}
