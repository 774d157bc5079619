//! `tests/conformance/cases.json`: the cases, the memory they write to, and what must come of it.

mod abi;
mod case;
mod memory;
mod native;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;

pub use self::{
    abi::CAbi,
    case::{Case, Op},
    memory::Memory,
    native::Native,
};
use super::{artifact::sha256, c::root};

/// A way to use the library.
pub trait Host {
    /// How its file is called.
    const NAME: &str;

    /// Runs a case; `None` if the host's types cannot say it.
    fn run(&self, case: &Case) -> Option<Outcome>;
}

/// What came of a case.
#[derive(Debug, Default)]
pub struct Outcome {
    /// "DWF_OK" or the error's name.
    pub status: String,
    pub error: String,
    /// The caller's memory after the call, for operations that have one.
    pub memory: Option<Memory>,
    /// Calls of progress.
    pub calls: u64,
    /// The total that progress was told last.
    pub total: u64,
    /// Status of the sampling within `busy`'s callback.
    pub nested_status: Option<String>,
    pub info: Option<serde_json::Value>,
    pub tensors: Option<serde_json::Value>,
}

impl Outcome {
    /// The line that is compared between languages.
    fn line(&self, name: &str) -> String {
        let sha256 = self.memory.as_ref().map(|memory| sha256(&memory.bytes()));
        let sha256 = sha256.unwrap_or_default();
        json!({ "name": name, "status": self.status, "sha256": sha256 }).to_string() + "\n"
    }
}

/// The folder of the cases and their artifacts.
pub fn folder() -> PathBuf {
    root().join("tests/conformance")
}

/// Where every language's lines go.
pub fn output_of(language: &str) -> PathBuf {
    let folder = root().join("build/conformance");
    std::fs::create_dir_all(&folder).unwrap();
    folder.join(format!("{language}.jsonl"))
}

/// Runs and checks every case; the lines.
pub fn run<H: Host>(host: &H) -> String {
    let mut lines = String::new();
    for case in Case::all() {
        if let Some(outcome) = host.run(&case) {
            case.check(&outcome);
            lines += &outcome.line(&case.name);
        } else {
            assert!(case.untyped, "{}: left out by {}", case.name, H::NAME);
        }
    }
    lines
}

/// Runs the script on files of lines; whether they agree, and what it says.
pub fn compare(files: &[impl AsRef<Path>]) -> (bool, String) {
    let files = files.iter().map(AsRef::as_ref);
    let output = Command::new(folder().join("compare")).args(files).output();
    let output = output.unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}
