//! `include/dwf.hpp` through the system's C++ compilers: every program in `tests/cpp`. A program
//! that succeeds prints nothing.

mod common;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use common::{
    c::{Linkage, Workshop, executable, link, root, snippets, succeeds},
    conformance::{Native, compare, folder, output_of, run},
};

/// Everything that g++ can say, near enough.
const GCC: [&str; 10] = [
    "-Wall",
    "-Wextra",
    "-Wpedantic",
    "-Wconversion",
    "-Wsign-conversion",
    "-Wshadow",
    "-Wold-style-cast",
    "-Wuseless-cast",
    "-Weffc++",
    "-Werror",
];

/// Everything that clang++ can say, but for what a modern header-only library cannot satisfy.
const CLANG: [&str; 8] = [
    "-Weverything",
    "-Werror",
    "-Wno-unknown-warning-option",
    // We want what C++17 has.
    "-Wno-c++98-compat",
    "-Wno-c++98-compat-pedantic",
    // A remark, not a fault.
    "-Wno-padded",
    // `dwf::error` is a class with a virtual function, and there is no file to put it into.
    "-Wno-weak-vtables",
    // Spans are made of pointers somewhere.
    "-Wno-unsafe-buffer-usage",
];

const COMPILERS: [(&str, &[&str]); 2] = [("g++", &GCC), ("clang++", &CLANG)];

/// `compiler` with its warnings, finding the header and the tests' own.
fn compiler(compiler: &str, warnings: &[&str]) -> Command {
    let mut command = Command::new(compiler);
    command.arg("-O1").args(warnings);
    for folder in ["include", "tests/cpp"] {
        command.arg("-I").arg(root().join(folder));
    }
    command
}

fn source(name: &str) -> PathBuf {
    root().join("tests/cpp").join(name)
}

/// A program of one source file.
fn build(command: &mut Command, source: &Path, workshop: &Workshop, linkage: Linkage) -> PathBuf {
    let program = workshop.path().join("program");
    command.arg(source).arg("-o").arg(&program);
    link(command, linkage);
    succeeds(command);
    program
}

/// All standards, with and without exceptions, in one program.
#[test]
fn every_variant_in_one_program() {
    let variants = [
        ("cpp17", "-std=c++17", "-fexceptions"),
        ("cpp17_results", "-std=c++17", "-fno-exceptions"),
        ("cpp20", "-std=c++20", "-fexceptions"),
        ("cpp20_results", "-std=c++20", "-DDWF_NO_EXCEPTIONS"),
    ];
    for (name, warnings) in COMPILERS {
        let workshop = Workshop::new();
        let object = |name: &str| workshop.path().join(name).with_extension("o");
        for (variant, standard, exceptions) in variants {
            let mut command = compiler(name, warnings);
            command.args([standard, exceptions, "-c", "-o"]);
            command.arg(object(variant)).arg(source("variant.cpp"));
            succeeds(command.arg(format!("-DVARIANT={variant}")));
        }
        let mut command = compiler(name, warnings);
        command.args(variants.map(|(variant, ..)| object(variant)));
        let main = source("variants.cpp");
        let program = build(&mut command, &main, &workshop, Linkage::Shared);
        succeeds(executable(&program).arg(folder()));
    }
}

#[test]
fn callbacks_that_throw() {
    for (name, warnings) in COMPILERS {
        for linkage in [Linkage::Shared, Linkage::Static] {
            let workshop = Workshop::new();
            let mut command = compiler(name, warnings);
            command.args(["-std=c++17", "-pthread"]);
            let program = build(&mut command, &source("exceptions.cpp"), &workshop, linkage);
            succeeds(executable(&program).arg(folder()));
        }
    }
}

/// Into memory that is there.
#[test]
fn sampling_does_not_allocate() {
    for (name, warnings) in COMPILERS {
        let workshop = Workshop::new();
        let counter = workshop.path().join("allocations.o");
        let mut command = Command::new("cc");
        command.arg("-c").arg(root().join("examples/allocations.c"));
        succeeds(command.arg("-o").arg(&counter));
        let mut command = compiler(name, warnings);
        command.arg("-std=c++17").arg(counter);
        let main = source("allocation.cpp");
        let program = build(&mut command, &main, &workshop, Linkage::Shared);
        succeeds(executable(&program).arg(folder()));
    }
}

/// The same program where every address and every operation is watched.
#[test]
fn sanitizers_find_nothing() {
    for name in ["exceptions.cpp", "variant.cpp"] {
        let workshop = Workshop::new();
        let mut command = compiler("g++", &GCC);
        command.args(["-std=c++17", "-g", "-fsanitize=address,undefined"]);
        command.args(["-fno-sanitize-recover=all", "-DVARIANT=alone"]);
        if name == "variant.cpp" {
            let main = workshop.path().join("main.cpp");
            let text = "#include <string>\nint alone(const std::string &folder);\n\
                        int main(int, char **argv) { return alone(argv[1]) - 1; }\n";
            std::fs::write(&main, text).unwrap();
            command.arg(main);
        }
        let program = build(&mut command, &source(name), &workshop, Linkage::Shared);
        succeeds(executable(&program).arg(folder()));
    }
}

#[test]
fn conformance() {
    let folder_of_rust = Workshop::new();
    let rust = folder_of_rust.path().join("rust");
    std::fs::write(&rust, run(&Native)).unwrap();
    for ((name, warnings), standard) in COMPILERS.into_iter().zip(["-std=c++17", "-std=c++20"]) {
        let workshop = Workshop::new();
        let mut command = compiler(name, warnings);
        command.arg(standard);
        let main = source("conformance.cpp");
        let program = build(&mut command, &main, &workshop, Linkage::Shared);
        let lines = output_of("cpp");
        let mut command = executable(&program);
        command.env("DWF_CONFORMANCE_OUT", &lines);
        succeeds(command.arg(folder()));
        let (agree, text) = compare(&[&rust, &lines]);
        assert!(agree, "{text}");
    }
}

/// Compiles and runs `text` beside an `iris.onnx`.
fn works(text: &str, arguments: &[&str]) {
    for (name, warnings) in COMPILERS {
        let workshop = Workshop::with_iris();
        let main = workshop.path().join("main.cpp");
        std::fs::write(&main, text).unwrap();
        let mut command = compiler(name, warnings);
        command.args(["-std=c++17", "-pthread"]).args(arguments);
        let program = build(&mut command, &main, &workshop, Linkage::Shared);
        succeeds(executable(&program).current_dir(workshop.path()));
    }
}

/// What the guide shows is what people copy: it must compile and work as it stands.
#[test]
fn the_guide() {
    let (results, throwing): (Vec<_>, Vec<_>) = snippets("docs/embedding-cpp.md", "cpp")
        .into_iter()
        .partition(|(kind, _)| kind == "results");
    assert!(throwing.len() >= 6 && results.len() == 1);
    let blocks: String = throwing
        .iter()
        .map(|(_, code)| format!("{{\n{code}\n}}\n"))
        .collect();
    let text = format!(
        "#include <dwf.hpp>\n#include <atomic>\n#include <future>\n\
         int main() {{\n\
         dwf::model model = dwf::model::open(\"iris.onnx\");\n\
         dwf::sampler sampler = dwf::sampler::create(model);\n\
         {blocks}}}\n"
    );
    // A snippet may make a model of its own, and leave its networks alone.
    works(&text, &["-Wno-shadow", "-Wno-unused"]);
    let text = format!(
        "#include <dwf.hpp>\n#include <cstdio>\n\
         static int fail(const char *text) {{ return std::fputs(text, stderr); }}\n\
         static bool used = false;\n\
         static void use(const std::vector<float> &networks) {{ used = !networks.empty(); }}\n\
         static int run() {{\n{}\nreturn used ? 0 : 1;\n}}\nint main() {{ return run(); }}\n",
        results[0].1
    );
    works(&text, &["-fno-exceptions"]);
}

/// So must the example on top of the header.
#[test]
fn the_example_in_the_header() {
    let header = std::fs::read_to_string(root().join("include/dwf.hpp")).unwrap();
    let comment = header.split("Conventions").next().unwrap();
    let lines = comment
        .lines()
        .filter_map(|line| line.strip_prefix(" *     "));
    let example = lines.collect::<Vec<_>>().join("\n");
    assert!(example.contains("sampler.sample(options)"), "{example}");
    let text = format!(
        "#include <dwf.hpp>\nstatic int used = 0;\n\
         static void use(float value) {{ used += value * value < 1e6f; }}\n\
         int main() {{\n{example}\nreturn used == 100 * 16 ? 0 : 1;\n}}\n"
    );
    works(&text, &[]);
}
