//! The C ABI through the system's C compiler: every program in `tests/c`, against the shared and
//! the static library. A program that succeeds prints nothing, and so must the library.

mod common;

use std::path::{Path, PathBuf};

use common::{
    Fixture,
    c::{
        Linkage, Workshop, compiler, executable, header, instrumented, library_folder, link, root,
        snippets, sources, succeeds,
    },
    damage,
};
use dwf::{
    Status,
    artifact::Float,
    condition::{Condition, ConditionSchema},
    metadata::{BasisKind, DefaultSolver},
    ode::{Grid, Method},
    runtime::PATH_VARIABLE,
};

const BOTH: [Linkage; 2] = [Linkage::Shared, Linkage::Static];

/// A workshop with the artifacts that the programs use.
fn workshop() -> Workshop {
    let workshop = Workshop::new();
    Fixture::default().write(workshop.path());
    let classes = ["setosa", "versicolor", "virginica"].map(String::from);
    let conditional = Fixture {
        name: "classes",
        condition: Some(Condition {
            schema: ConditionSchema::Classes(classes.into()),
            unconditional: None,
        }),
        solver: DefaultSolver {
            method: Method::Heun,
            steps: 4,
            grid: Grid::Stretched,
            tolerance: 1e-4,
            relative_error: None,
        },
        ..Fixture::with_basis(BasisKind::Diagonal)
    };
    conditional.write(workshop.path());
    let wild = Fixture {
        name: "wild",
        gain: 1e39,
        weight_float: Float::F32,
        ..Default::default()
    };
    wild.write(workshop.path());
    let early = Fixture {
        name: "early",
        ..Default::default()
    };
    let mut early = early.build();
    // Before ONNX had Gelu.
    early.onnx.opset_import[0].version = Some(19);
    early.write(workshop.path());
    workshop
}

/// Compiles and runs a program on the workshop's folder, once a linkage.
fn run(name: &str, arguments: &[&str]) {
    let workshop = workshop();
    for linkage in BOTH {
        let program = workshop.compile(name, linkage);
        succeeds(executable(&program).arg(workshop.path()).args(arguments));
    }
}

#[test]
fn arguments() {
    run("arguments", &[]);
}

#[test]
fn unsupported() {
    run("unsupported", &[]);
}

#[test]
fn structs() {
    run("structs", &[]);
}

#[test]
fn buffers() {
    run("buffers", &[]);
}

#[test]
fn failures() {
    run("failures", &[]);
}

#[test]
fn info() {
    run("info", &[]);
}

#[test]
fn busy() {
    run("busy", &[]);
}

#[test]
fn log() {
    run("log", &[]);
}

#[test]
fn lifetime() {
    for order in ["sampler first", "model first", "memory", "never"] {
        run("lifetime", &[order]);
    }
}

/// ONNX Runtime's telemetry would leave a device id and a database in the user's folder.
#[test]
fn nothing_is_left_in_the_home_folder() {
    let workshop = workshop();
    let home = tempfile::tempdir().unwrap();
    let program = workshop.compile("lifetime", Linkage::Shared);
    let mut command = executable(&program);
    command
        .env("HOME", home.path())
        .env_remove("XDG_CACHE_HOME");
    succeeds(command.arg(workshop.path()).arg("sampler first"));
    assert_eq!(home.path().read_dir().unwrap().count(), 0);
}

#[test]
fn exit() {
    run("exit", &[]);
}

#[test]
fn reload() {
    let workshop = workshop();
    let program = workshop.path().join("reload");
    let mut command = compiler("cc", "gnu99");
    command
        .arg(sources().join("reload.c"))
        .arg("-o")
        .arg(&program);
    succeeds(command.args(["-Wno-unused-function", "-ldl"]));
    let library = library_folder().join("libdwf.so");
    succeeds(executable(&program).arg(workshop.path()).arg(library));
}

#[test]
fn memory() {
    if instrumented("memory, which limits the address space,") {
        return;
    }
    let workshop = Workshop::new();
    let huge = Fixture {
        name: "huge",
        ..Default::default()
    };
    let sidecar = huge.write(workshop.path()).with_extension("safetensors");
    // Sparse: it takes no room on the disk.
    let file = std::fs::File::create(sidecar).unwrap();
    file.set_len(1 << 31).unwrap();
    let wide = Fixture {
        name: "wide",
        ..Fixture::with_basis(BasisKind::Identity)
    };
    wide.write(workshop.path());
    let program = workshop.compile("memory", Linkage::Shared);
    succeeds(executable(&program).arg(workshop.path()));
}

#[test]
fn every_damaged_artifact() {
    let workshop = Workshop::new();
    let damages = damage::all();
    for linkage in BOTH {
        let program = workshop.compile("bad_artifact", linkage);
        for damage in &damages {
            let path = damage.artifact.write(workshop.path());
            expect_bad(&program, &path, damage.status, &damage.texts);
        }
    }
}

#[test]
fn missing_and_truncated_files() {
    let workshop = Workshop::new();
    let program = workshop.compile("bad_artifact", Linkage::Shared);
    let path = workshop.path().join("net.onnx");
    expect_bad(&program, &path, Status::Io, &["net.onnx", "two files"]);
    Fixture::default().write(workshop.path());
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let texts = ["net.onnx", "truncated", "copy the file again"];
    expect_bad(&program, &path, Status::BadArtifact, &texts);
    std::fs::write(&path, whole).unwrap();
    std::fs::remove_file(path.with_extension("safetensors")).unwrap();
    let texts = ["net.safetensors", "two files"];
    expect_bad(&program, &path, Status::Io, &texts);
}

#[track_caller]
fn expect_bad(program: &Path, path: &Path, status: Status, texts: &[&str]) {
    let mut command = executable(program);
    command.arg(path).arg((status as i32).to_string());
    succeeds(command.args(texts));
}

/// `tests/c/runtime.c` with its expectations, in a process with this `$DWF_ONNXRUNTIME`.
struct Runtimes {
    workshop: Workshop,
    program: PathBuf,
    variable: Option<PathBuf>,
}

impl Runtimes {
    fn new(linkage: Linkage) -> Self {
        let workshop = workshop();
        Self {
            program: workshop.compile("runtime", linkage),
            workshop,
            variable: None,
        }
    }

    fn with_variable(self, path: impl Into<PathBuf>) -> Self {
        Self {
            variable: Some(path.into()),
            ..self
        }
    }

    #[track_caller]
    fn expect(&self, each: &[(&str, Status, &str)]) {
        let mut command = executable(&self.program);
        command.arg(self.workshop.path().join("net.onnx"));
        for (path, status, text) in each {
            command.args([path, (*status as i32).to_string().as_str(), text]);
        }
        command.env_remove(PATH_VARIABLE);
        command.envs(self.variable.iter().map(|path| (PATH_VARIABLE, path)));
        succeeds(&mut command);
    }
}

fn newest() -> String {
    let path = std::env::var(PATH_VARIABLE).expect(".cargo/config.toml sets it");
    assert!(Path::new(&path).exists(), "no {path}: run .ci/onnxruntime");
    path
}

#[test]
fn no_onnx_runtime_anywhere() {
    for linkage in BOTH {
        Runtimes::new(linkage).expect(&[("", Status::RuntimeMissing, PATH_VARIABLE)]);
    }
}

#[test]
fn no_onnx_runtime_where_the_variable_points() {
    let variable = Runtimes::new(Linkage::Shared).with_variable("/nowhere/libonnxruntime.so");
    let text = "$DWF_ONNXRUNTIME";
    variable.expect(&[("", Status::RuntimeMissing, text)]);
    // What is named in the options goes before the variable.
    variable.expect(&[(&newest(), Status::Ok, "")]);
}

#[test]
fn the_variable_is_used() {
    let variable = Runtimes::new(Linkage::Shared).with_variable(newest());
    variable.expect(&[("", Status::Ok, ""), (&newest(), Status::Ok, "")]);
}

/// What is not an ONNX Runtime does not keep the next one from being loaded.
#[test]
fn what_is_no_onnx_runtime() {
    let runtimes = Runtimes::new(Linkage::Shared);
    let text_file = runtimes.workshop.path().join("libtext.so");
    std::fs::write(&text_file, "not a library").unwrap();
    let missing = Status::RuntimeMissing;
    runtimes.expect(&[
        ("/nowhere/libonnxruntime.so", missing, "No such file"),
        (
            text_file.to_str().unwrap(),
            missing,
            "libtext.so: file too short",
        ),
        (
            runtimes.workshop.path().to_str().unwrap(),
            missing,
            PATH_VARIABLE,
        ),
        ("libm.so.6", missing, "libm.so.6"),
        ("", missing, PATH_VARIABLE),
        (&newest(), Status::Ok, ""),
        ("", Status::Ok, ""),
    ]);
}

#[test]
fn an_onnx_runtime_that_is_too_old() {
    let runtimes = Runtimes::new(Linkage::Shared);
    let library = runtimes.workshop.path().join("libtoo_old.so");
    let mut command = compiler("cc", "c99");
    command
        .args(["-shared", "-fPIC"])
        .arg(sources().join("too_old.c"));
    succeeds(command.arg("-o").arg(&library));
    runtimes.expect(&[
        (library.to_str().unwrap(), Status::RuntimeMissing, "1.16.3"),
        (&newest(), Status::Ok, ""),
    ]);
}

#[test]
#[cfg_attr(not(target_arch = "x86_64"), ignore = "pinned for x86-64 only")]
fn one_onnx_runtime_a_process() {
    let old = root().join(".ort/1.20.1/libonnxruntime.so");
    assert!(old.exists(), "`make test` fetches {}", old.display());
    let (old, newest) = (old.to_str().unwrap(), newest());
    let runtimes = Runtimes::new(Linkage::Shared);
    let second = (old, Status::Unsupported, "already loaded");
    runtimes.expect(&[(&newest, Status::Ok, ""), second, ("", Status::Ok, "")]);
    let second = (newest.as_str(), Status::Unsupported, old);
    runtimes.expect(&[(old, Status::Ok, ""), second, (old, Status::Ok, "")]);
}

/// The folder of libdwf, or of the program that it is linked into, is searched.
#[test]
fn an_onnx_runtime_beside_the_library() {
    for linkage in BOTH {
        for name in ["libonnxruntime.so", "libonnxruntime.so.1.31.1"] {
            let runtimes = Runtimes::new(linkage);
            let folder = runtimes.workshop.path();
            std::fs::copy(library_folder().join("libdwf.so"), folder.join("libdwf.so")).unwrap();
            std::os::unix::fs::symlink(newest(), folder.join(name)).unwrap();
            let mut command = executable(&runtimes.program);
            command
                .env_remove(PATH_VARIABLE)
                .env("LD_LIBRARY_PATH", folder);
            command.arg(folder.join("net.onnx")).args(["", "0", ""]);
            succeeds(&mut command);
        }
    }
}

#[test]
fn the_header_compiles_everywhere() {
    let workshop = Workshop::new();
    let languages = [("c", "c99"), ("c", "c11"), ("c", "c17"), ("c++", "c++17")];
    for family in ["gcc", "clang"] {
        for (language, standard) in languages {
            let name = match (family, language) {
                ("gcc", "c++") => "g++",
                ("clang", "c++") => "clang++",
                _ => family,
            };
            let program = workshop.path().join(format!("{name}-{standard}"));
            let mut command = compiler(name, standard);
            command
                .args(["-x", language])
                .arg(sources().join("header.c"));
            command.arg(sources().join("header_other.c"));
            command.arg("-o").arg(&program);
            link(&mut command, Linkage::Shared);
            succeeds(&mut command);
            succeeds(&mut executable(&program));
        }
    }
}

/// The example on top of the header is what people copy: it must compile and work as it stands.
#[test]
fn the_example_in_the_header() {
    let header = header();
    let comment = header.split("Conventions.").next().unwrap();
    let lines = comment
        .lines()
        .filter_map(|line| line.strip_prefix(" *     "));
    let example: Vec<&str> = lines.collect();
    assert!(example.len() > 10, "no example in the header");
    let source = format!(
        "{PRELUDE}int main(void) {{\n{}\nfor (size_t i = 0; i < 100 * info.weight_count; i++)\n\
         if (!(weights[i] * weights[i] < 1e6f)) return 1;\nfree(weights);\nreturn 0;\n}}\n",
        example.join("\n")
    );
    works(&source);
}

/// So must the guide.
#[test]
fn the_guide() {
    let (file, body): (Vec<_>, Vec<_>) = snippets("docs/embedding-c.md", "c")
        .into_iter()
        .partition(|(kind, _)| kind == "file");
    assert!(file.len() == 2 && body.len() > 6);
    let code = |snippets: &[(String, String)]| -> String {
        snippets
            .iter()
            .map(|(_, code)| format!("{code}\n"))
            .collect()
    };
    works(&format!(
        "{PRELUDE}{}int main(void) {{\n{}\nreturn 0;\n}}\n",
        code(&file),
        code(&body)
    ));
}

/// And what the README shows, in C and in Rust, where it is the example of the crate's front page.
#[test]
fn the_readme() {
    let [(_, c)] = &snippets("README.md", "c")[..] else {
        panic!("not one example in C");
    };
    // The README's networks have 131 weights, the fixture's 148.
    let c = c.replace("100 * 131", "100 * 148");
    works(&format!("{PRELUDE}int main(void) {{\n{c}\nreturn 0;\n}}\n"));

    let [(_, rust)] = &snippets("README.md", "rust")[..] else {
        panic!("not one example in Rust");
    };
    let front = std::fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let lines = front.lines().filter_map(|line| line.strip_prefix("//! "));
    let shown: Vec<_> = lines
        .skip_while(|line| !line.starts_with("```"))
        .skip(1)
        .take_while(|line| !line.starts_with('#') && !line.starts_with("```"))
        .collect();
    assert_eq!(rust, &shown.join("\n"));
}

/// What snippets take for granted.
const PRELUDE: &str = "#include <dwf.h>\n#include <pthread.h>\n#include <stdio.h>\n\
    #include <stdlib.h>\n#include <string.h>\n#include <time.h>\n\
    static int fail(const char *text) { return fprintf(stderr, \"%s\\n\", text); }\n";

/// Compiles and runs `text` beside an `iris.onnx`.
fn works(text: &str) {
    let workshop = Workshop::with_iris();
    let (path, program) = (
        workshop.path().join("example.c"),
        workshop.path().join("example"),
    );
    std::fs::write(&path, text).unwrap();
    let mut command = compiler("cc", "c99");
    command.args(["-D_POSIX_C_SOURCE=200809L", "-pthread"]);
    command.arg(path).arg("-o").arg(&program);
    link(&mut command, Linkage::Shared);
    succeeds(&mut command);
    succeeds(executable(&program).current_dir(workshop.path()));
}
