//! What the shared library offers to a linker, and how the header's structs lie in memory.

mod common;

use std::{collections::BTreeSet, process::Command};

use common::c::{Workshop, compiler, header, library_folder, succeeds};

#[test]
fn exports_are_what_the_header_declares() {
    let library = library_folder().join("libdwf.so");
    let output = Command::new("nm")
        .args(["-D", "--defined-only", "--format=posix"])
        .arg(&library)
        .output()
        .unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let exported = text.lines().filter_map(|line| line.split(' ').next());
    let exported: BTreeSet<String> = exported.map(String::from).collect();
    assert_eq!(exported, declared_functions());
}

/// Names before the first parenthesis of a declaration, which cbindgen begins in column 0.
fn declared_functions() -> BTreeSet<String> {
    let header = header();
    let declarations = header.lines().filter(|line| {
        line.starts_with(|c: char| c.is_ascii_lowercase()) && !line.starts_with("typedef")
    });
    let functions: BTreeSet<String> = declarations
        .filter_map(|line| line.split_once('('))
        .filter_map(|(head, _)| head.rsplit([' ', '*']).next())
        .map(String::from)
        .collect();
    assert!(functions.contains("dwf_sample") && functions.contains("dwf_version"));
    functions
}

/// A struct is as long as its fields together: nothing between them that a compiler chose, or that
/// a caller could leave uninitialised.
#[test]
fn structs_have_no_padding() {
    let header = header();
    let mut source = String::from("#include <dwf.h>\n");
    let mut structs = 0;
    for part in header.split("typedef struct ").skip(1) {
        let Some((name, body)) = part.split_once(" {\n") else {
            continue;
        };
        if name.contains(';') {
            continue;
        }
        let fields = body.split('}').next().unwrap().lines().filter_map(field);
        let sizes: Vec<String> = fields
            .map(|field| format!("sizeof((({name} *)0)->{field})"))
            .collect();
        assert!(
            sizes[0].ends_with("->struct_size)"),
            "{name} begins with {}",
            sizes[0]
        );
        let sum = sizes.join(" + ");
        source += &format!("_Static_assert(sizeof({name}) == {sum}, \"{name}\");\n");
        structs += 1;
    }
    assert_eq!(structs, 7);
    let workshop = Workshop::new();
    let path = workshop.path().join("padding.c");
    std::fs::write(&path, source).unwrap();
    succeeds(compiler("cc", "c11").arg("-fsyntax-only").arg(path));
}

/// The name that a line of a struct declares.
fn field(line: &str) -> Option<&str> {
    let declaration = line.trim().strip_suffix(';')?;
    (!declaration.starts_with("//")).then(|| declaration.rsplit([' ', '*']).next())?
}
