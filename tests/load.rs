//! A model under many threads, for seconds, which are too short to say much about memory; `make
//! load` takes ten minutes.

mod common;

use common::c::{Linkage, Workshop, executable, root};

#[test]
fn many_threads_and_many_opens() {
    let workshop = Workshop::new();
    let program = workshop.compile("load", Linkage::Shared);
    let mut command = executable(&program);
    command.arg(root().join("examples/iris/iris.onnx"));
    let output = command
        .args(["8", "1000", "2", "100", "100"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{text}");
    for line in [
        "100 times opened",
        "8 threads",
        "since the second part",
        "a call of 64: p50",
    ] {
        assert!(text.contains(line), "{text}");
    }
}
