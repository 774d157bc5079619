//! The C ABI as a C programmer meets it: the header, a compiler, and the freshly built library.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use dwf::condition::{Condition, ConditionSchema};
use tempfile::TempDir;

use super::Fixture;

/// What issue and header promise to compile without a warning.
pub const STRICT: [&str; 5] = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1"];

/// How a program gets at the library.
#[derive(Clone, Copy, Debug)]
pub enum Linkage {
    Shared,
    Static,
}

/// A folder for programs and artifacts.
pub struct Workshop {
    folder: TempDir,
}

impl Workshop {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// With an `iris.onnx` that takes conditions, for code that people copy.
    pub fn with_iris() -> Self {
        let workshop = Self::new();
        let classes = ["setosa", "versicolor", "virginica"].map(String::from);
        let iris = Fixture {
            name: "iris",
            condition: Some(Condition {
                schema: ConditionSchema::Classes(classes.into()),
                unconditional: Some(vec![0.0; 3]),
            }),
            ..Default::default()
        };
        iris.write(workshop.path());
        workshop
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Compiles `tests/c/NAME.c` with the system compiler.
    pub fn compile(&self, name: &str, linkage: Linkage) -> PathBuf {
        self.compile_against(&root().join("include"), name, linkage)
    }

    /// The same with the `dwf.h` of a folder.
    pub fn compile_against(&self, header: &Path, name: &str, linkage: Linkage) -> PathBuf {
        let source = sources().join(format!("{name}.c"));
        let program = self.path().join(format!("{name}-{linkage:?}"));
        let mut command = strict("cc", "c99");
        command.arg("-I").arg(header);
        command.args(["-D_POSIX_C_SOURCE=200809L", "-pthread"]);
        command.arg(source).arg("-o").arg(&program);
        link(&mut command, linkage);
        succeeds(&mut command);
        program
    }
}

/// `compiler` for strict `standard`, finding the header.
pub fn compiler(compiler: &str, standard: &str) -> Command {
    let mut command = strict(compiler, standard);
    command.arg("-I").arg(root().join("include"));
    command
}

fn strict(compiler: &str, standard: &str) -> Command {
    let mut command = Command::new(compiler);
    command.arg(format!("-std={standard}")).args(STRICT);
    // `make sanitize` sets it.
    let flags = std::env::var("DWF_TEST_CFLAGS").unwrap_or_default();
    command.args(flags.split_whitespace());
    command
}

/// Appends the library.
pub fn link(command: &mut Command, linkage: Linkage) {
    let folder = library_folder();
    match linkage {
        Linkage::Shared => {
            command.arg("-L").arg(&folder).arg("-ldwf");
            command.arg(format!("-Wl,-rpath,{}", folder.display()));
        }
        Linkage::Static => {
            command.arg(folder.join("libdwf.a"));
            command.args(["-lgcc_s", "-lpthread", "-ldl"]);
        }
    }
    command.arg("-lm");
}

/// Where `cargo test` has built the libraries: beside the test programs.
pub fn library_folder() -> PathBuf {
    std::env::current_exe()
        .unwrap()
        .parent()
        .unwrap()
        .to_owned()
}

/// A compiled program, to be run. Cargo's `LD_LIBRARY_PATH` would find the library of an earlier
/// `cargo build`; its environment is otherwise a user's.
pub fn executable(path: &Path) -> Command {
    let runner = runner();
    let mut words = runner.split_whitespace();
    let mut command = Command::new(words.next().map_or(path.as_os_str(), OsStr::new));
    if !runner.is_empty() {
        command.args(words).arg(path);
    }
    command.env_remove("LD_LIBRARY_PATH");
    command.env_remove("ORT_DISABLE_TELEMETRY");
    command
}

/// What programs are run by, with its arguments: `make valgrind` sets it.
fn runner() -> String {
    std::env::var("DWF_TEST_RUNNER").unwrap_or_default()
}

/// Whether programs run under a sanitizer or a runner, which need address space and memory of their
/// own: tests that limit them are skipped, and say so.
pub fn instrumented(test: &str) -> bool {
    let flags = std::env::var("DWF_TEST_CFLAGS").unwrap_or_default();
    let instrumented = flags.contains("-fsanitize") || !runner().is_empty();
    if instrumented {
        #[allow(clippy::print_stdout, reason = "a test that is skipped says so")]
        {
            println!("{test}: skipped under a sanitizer or valgrind");
        }
    }
    instrumented
}

/// Runs a command that must succeed and print nothing.
#[track_caller]
pub fn succeeds(command: &mut Command) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap_or_else(|e| {
        panic!(
            "{:?} cannot be run ({e}); the README lists what the tests need",
            command.get_program()
        )
    });
    let printed = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
    assert!(
        status.code() == Some(0) && printed.is_empty(),
        "{command:?}: {status}\n{printed}"
    );
}

/// The code blocks of a document in `language`, each with what follows that on its first line.
pub fn snippets(document: &str, language: &str) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(root().join(document)).unwrap();
    let blocks = text.split("\n```").skip(1).step_by(2);
    let snippets = blocks.filter_map(|block| {
        let (head, code) = block.split_once('\n')?;
        let kind = head.strip_prefix(language)?;
        (kind.is_empty() || kind.starts_with(' '))
            .then(|| (kind.trim().to_owned(), code.to_owned()))
    });
    snippets.collect()
}

/// `include/dwf.h`.
pub fn header() -> String {
    std::fs::read_to_string(root().join("include/dwf.h")).unwrap()
}

pub fn sources() -> PathBuf {
    root().join("tests/c")
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
