//! Disks that are full or read-only, and writers that are killed: nothing half-written ever has its
//! final name.

#![cfg(target_os = "linux")]

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

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

fn workshop() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("disk")).unwrap();
    let zoo = Command::new(DWF)
        .args(["zoo", "iris", "-o", "zoo", "--count", "12"])
        .current_dir(folder.path())
        .output();
    assert!(zoo.unwrap().status.success());
    folder
}

#[test]
fn disks_that_are_full_or_read_only() {
    let folder = workshop();
    for (name, arguments) in writers() {
        // Room for a page or a few: enough to begin.
        for options in ["size=4k", "size=16k", "size=64k", "ro"] {
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
