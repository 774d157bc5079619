//! Disks that are full or read-only, and writers that are killed: nothing half-written ever has its
//! final name.

#![cfg(target_os = "linux")]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, SystemTime},
};

use common::{TRAIN, answer, assert_says, exported, exported_path, normals, plausible_weights};
use dwf_trainer::zoo::Writer;

const DWF: &str = env!("CARGO_BIN_EXE_dwf");
const IRIS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/iris/iris.onnx");

/// Every command that writes, into the folder `disk`.
fn writers() -> Vec<(&'static str, String)> {
    vec![
        ("zoo", "zoo iris -o disk/zoo --count 30".into()),
        (
            "train",
            "train zoo -o disk/flow.onnx --steps 1 --width 64".into(),
        ),
        ("align", "align zoo -o disk/aligned".into()),
        (
            "generate",
            format!("generate {IRIS} -n 500 -o disk/networks"),
        ),
        (
            "export-sampler",
            format!("export-sampler {IRIS} -o disk/sampler.onnx"),
        ),
        (
            "report",
            "report flow.onnx --zoo zoo -n 8 -o disk/report.html".into(),
        ),
        (
            "recalibrate",
            "recalibrate residual --data images.csv -o disk/recalibrated".into(),
        ),
    ]
}

/// Runs `dwf` with `disk` being a file system of its own, mounted with `options`; also says what
/// the disk holds afterwards. `None` where nothing may be mounted.
fn on_disk(folder: &Path, options: &str, arguments: &str) -> Option<(Output, String)> {
    let script = "mount -t tmpfs -o \"$0\" tmpfs disk || exit 77; \"$@\" >&2; code=$?; \
                  ls -A disk; exit $code";
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", script, options, DWF])
        .args(arguments.split(' '))
        .current_dir(folder)
        .output()
        .ok()?;
    let left = String::from_utf8(output.stdout.clone()).unwrap();
    // unshare's own failure is 1, with nothing run.
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.code() == Some(77) || text.contains("unshare") {
        #[allow(clippy::print_stdout, reason = "a test that is skipped says so")]
        {
            println!("nothing can be mounted here, so that disks are not tried: {text}");
        }
        return None;
    }
    Some((output, left))
}

/// A zoo, an artifact that was trained on it, and networks with batch normalisation.
fn workshop() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::create_dir(at.join("disk")).unwrap();
    for arguments in [
        "zoo iris -o zoo --count 12",
        "train zoo -o flow.onnx --steps 1 --width 64",
    ] {
        let (success, text) = answer(at, arguments);
        assert!(success, "{text}");
    }
    let network = exported("resnet20");
    let mut writer = Writer::new(&at.join("residual"), network.layout(), 0).unwrap();
    for seed in 0..8 {
        let weights = plausible_weights(network.layout(), seed);
        writer.add(&weights).unwrap();
    }
    writer.finish().unwrap();
    fs::copy(exported_path("resnet20"), at.join("residual/network.onnx")).unwrap();
    fs::write(at.join("images.csv"), images(4)).unwrap();
    folder
}

/// Rows of random images for ResNet-20, 3 x 32 x 32, of class 0.
fn images(count: usize) -> String {
    const PIXELS: usize = 3 * 32 * 32;
    let names: Vec<String> = (0..PIXELS).map(|i| format!("p{i}")).collect();
    let mut text = format!("{},class\n", names.join(","));
    for pixels in normals(count * PIXELS, 7).chunks(PIXELS) {
        let pixels: Vec<String> = pixels.iter().map(f32::to_string).collect();
        text += &format!("{},0\n", pixels.join(","));
    }
    text
}

/// What a report changes beside its pages.
fn artifact(folder: &Path) -> [Vec<u8>; 2] {
    ["flow.onnx", "flow.safetensors"].map(|name| fs::read(folder.join(name)).unwrap())
}

#[test]
fn disks_that_are_full_or_read_only() {
    let folder = workshop();
    for (name, arguments) in writers() {
        let before = artifact(folder.path());
        // Room for a page or a few: enough to begin.
        for options in ["size=4k", "size=16k", "size=32k", "ro"] {
            let Some((output, left)) = on_disk(folder.path(), options, &arguments) else {
                return;
            };
            let text = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{name} {options}: {text}");
            let cause = if options == "ro" {
                "Read-only"
            } else {
                "No space"
            };
            assert!(
                text.contains(cause) && text.contains("disk/"),
                "{name} {options}: {text}"
            );
            // What is kept to go on from has a name that is no result's.
            let left: Vec<&str> = left
                .lines()
                .filter(|name| !name.ends_with(".work"))
                .collect();
            assert!(left.is_empty(), "{name} {options} leaves {left:?}");
            assert!(artifact(folder.path()) == before, "{name} {options}");
        }
        // And where there is room, the same command writes.
        let (output, left) = on_disk(folder.path(), "size=64m", &arguments).unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && !left.is_empty(),
            "{name}: {text}"
        );
    }
}

/// Killed while it writes, which nobody can clean up after: what it leaves has no final name, and
/// does not stand in the way of the next run.
#[test]
fn a_killed_writer() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    for delay in [30, 100, 300] {
        let mut process = Command::new(DWF)
            .args(["generate", IRIS, "-n", "50000", "-o", "networks"])
            .current_dir(at)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(delay));
        process.kill().unwrap();
        let ended = process.wait().unwrap();
        assert!(
            !ended.success() && !at.join("networks").exists(),
            "{delay} ms"
        );
    }
    let again = Command::new(DWF)
        .args(["generate", IRIS, "-n", "20", "-o", "networks"])
        .current_dir(at)
        .output();
    assert!(again.unwrap().status.success());
    assert_eq!(fs::read_dir(at.join("networks")).unwrap().count(), 20);
}

/// SIGKILL leaves no time to keep anything: before a state was kept, and after one was, the same
/// command makes the bytes of a run in one go.
#[test]
fn a_killed_training_goes_on_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let succeeds = |arguments: &str| {
        let (success, text) = answer(at, arguments);
        assert!(success, "{text}");
    };
    succeeds("zoo iris -o zoo --count 12");
    succeeds(TRAIN);
    let whole = artifact(at);
    let remove = || {
        for name in ["flow.onnx", "flow.safetensors"] {
            fs::remove_file(at.join(name)).unwrap();
        }
    };
    let stop = |signal: &str| {
        let mut process = common::training(at);
        let id = process.id().to_string();
        let kill = Command::new("kill").args([signal, &id]).status();
        assert!(kill.unwrap().success());
        assert!(!process.wait().unwrap().success());
        assert!(!at.join("flow.onnx").exists() && !at.join("flow.safetensors").exists());
    };
    for signals in [&["-KILL"][..], &["-INT", "-KILL"]] {
        remove();
        signals.iter().for_each(|signal| stop(signal));
        succeeds(TRAIN);
        assert!(artifact(at) == whole, "{signals:?}");
        assert_eq!(
            common::names(at),
            ["flow.onnx", "flow.safetensors", "zoo"],
            "{signals:?}"
        );
    }
}

/// Stopped while it chooses how networks are mixed, and while it selects mixtures, a training goes on
/// to the bytes of a run in one go. It judges nothing again, but for what was damaged.
#[test]
fn a_training_that_is_stopped_before_its_flow_goes_on_to_the_same_bytes() {
    // For each of 14 candidates, three batches to select one from, and that one; then three batches
    // for each of 16 selections.
    const CHOSEN: usize = 14 * (3 + 1);
    const SELECTED: usize = CHOSEN + 16 * 3;
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    assert!(answer(at, "zoo iris -o zoo --count 12").0);
    // By enough rows that it takes a while: the validation data's, again and again.
    fs::remove_file(at.join("zoo/train.csv")).unwrap();
    let validation = fs::read_to_string(at.join("zoo/validation.csv")).unwrap();
    let (names, rows) = validation.split_once('\n').unwrap();
    let many = format!("{names}\n{}", rows.repeat(300));
    fs::write(at.join("zoo/validation.csv"), many).unwrap();
    let train = || {
        let (success, text) = answer(at, &format!("{TRAIN} --json"));
        assert!(success, "{text}");
        ["mixing", "selection"].map(|stage| text.contains(&format!(r#""stage":"{stage}""#)))
    };
    assert_eq!(train(), [true, true]);
    let whole = artifact(at);
    for name in ["flow.onnx", "flow.safetensors"] {
        fs::remove_file(at.join(name)).unwrap();
    }

    let judged = || -> Vec<(PathBuf, SystemTime)> {
        let kept = common::kept(&at.join("flow.work")).into_iter();
        let of_mixing = |path: &Path| path.to_string_lossy().contains("/mixing-");
        kept.filter(|(path, _)| of_mixing(path)).collect()
    };
    let stop = |signal: &str, count: usize| {
        let mut process = common::start(at, TRAIN, Stdio::null(), Stdio::piped());
        common::signal(&mut process, signal, || judged().len() >= count);
        let output = process.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), said)
    };
    let (code, said) = stop("-INT", 5);
    assert_eq!(code, Some(130), "{said}");
    let kept = "interrupted; every batch of mixtures judged so far is kept";
    assert_says(&said, &[kept, "goes on"]);
    let chosen = judged();
    assert!(chosen.len() < CHOSEN, "it was not stopped while it chose");

    let [damaged, foreign, other] = [0, 1, 2].map(|i| &chosen[i].0);
    let before = [damaged, foreign].map(|path| fs::read(path).unwrap());
    let mut bytes = before[0].clone();
    bytes[0] ^= 1;
    fs::write(damaged, bytes).unwrap();
    fs::copy(other, foreign).unwrap();

    assert_eq!(stop("-KILL", CHOSEN + 4).0, None);
    let selected = judged();
    assert!(
        selected.len() < SELECTED,
        "it was not stopped while it selected"
    );
    let again = chosen[2..].iter().find(|file| !selected.contains(file));
    assert!(again.is_none(), "{again:?} was judged again");
    assert!([damaged, foreign].map(|path| fs::read(path).unwrap()) == before);

    assert_eq!(train(), [false, true], "what was chosen is chosen again");
    assert!(artifact(at) == whole);
    assert_eq!(common::names(at), ["flow.onnx", "flow.safetensors", "zoo"]);
}
