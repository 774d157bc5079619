//! `install.mk`: libdwf as others find it, by pkg-config, by CMake, statically, and in a tarball
//! on a machine that has nothing else.

mod common;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Mutex,
};

use common::{c::root, conformance::folder};
use tempfile::TempDir;

/// Largest shared library, in bytes.
const MOST_BYTES: u64 = 5_000_000;
/// Longest time from start to first network, in milliseconds; of the processor, since tests share
/// theirs with other programs.
const MOST_MILLISECONDS: f64 = 100.0;

/// Runs a command that must succeed; what it prints.
#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let text = text(&output);
    assert!(output.status.success(), "{command:?}: {text}");
    text
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// Why a test cannot be made here.
fn lacks(program: &str) -> Option<String> {
    let missing = Command::new(program).arg("--version").output().is_err();
    missing.then(|| format!("skipped: no {program}; apt-get install {program}"))
}

/// `make ARGUMENTS`; what it prints. One at a time: the first builds the library.
fn make(arguments: &[String]) -> String {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap();
    let mut command = Command::new("make");
    command.args(["--no-print-directory", "-f", "install.mk"]);
    command.args(arguments).current_dir(root());
    // From the `make test` that may run this.
    command.env_remove("MAKEFLAGS").env_remove("MAKELEVEL");
    run(&mut command)
}

/// An installation that was moved after it was made.
struct Installation {
    folder: TempDir,
}

impl Installation {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let before = folder.path().join("before");
        make(&["install".into(), format!("PREFIX={}", before.display())]);
        fs::rename(before, folder.path().join("prefix")).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("prefix").join(name)
    }

    /// The words that `pkg-config ARGUMENTS dwf` gives.
    fn pkg_config(&self, arguments: &[&str]) -> Vec<String> {
        let mut command = Command::new("pkg-config");
        command.env("PKG_CONFIG_PATH", self.path("lib/pkgconfig"));
        let words = run(command.args(arguments).arg("dwf"));
        words.split_whitespace().map(str::to_owned).collect()
    }

    /// Compiles a program from `tests`.
    fn compile(&self, compiler: &str, source: &str, arguments: &[String]) -> PathBuf {
        let program = self.folder.path().join(source.replace('/', "-"));
        let mut command = Command::new(compiler);
        command
            .arg(root().join("tests").join(source))
            .args(arguments);
        run(command.arg("-o").arg(&program));
        program
    }

    /// `program`, finding the shared library in the installation.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("LD_LIBRARY_PATH", self.path("lib"));
        command
    }
}

/// Where `first` says that it got libdwf from, its size in bytes, and how many milliseconds of the
/// processor it took.
fn first(command: &mut Command) -> (String, u64, f64) {
    let line = run(command.arg(folder().join("tiny.onnx")));
    let words: Vec<&str> = line.split_whitespace().collect();
    let busy = words[5].trim_start_matches('(').parse().unwrap();
    (
        words[7].trim_end_matches(',').to_owned(),
        words[0].parse().unwrap(),
        busy,
    )
}

#[test]
fn by_pkg_config() {
    if let Some(reason) = lacks("pkg-config") {
        return eprintln!("{reason}");
    }
    let installation = Installation::new();
    let version = installation.pkg_config(&["--modversion"]);
    assert_eq!(version, [env!("CARGO_PKG_VERSION")]);
    let flags = installation.pkg_config(&["--cflags", "--libs"]);
    let program = installation.compile("cc", "install/first.c", &flags);
    let (place, ..) = first(&mut installation.command(&program));
    assert_eq!(
        place,
        installation.path("lib/libdwf.so.0").to_str().unwrap()
    );
    let program = installation.compile("c++", "cpp/exceptions.cpp", &flags);
    run(installation.command(&program).arg(folder()));
}

#[test]
fn statically() {
    if let Some(reason) = lacks("pkg-config") {
        return eprintln!("{reason}");
    }
    let installation = Installation::new();
    fs::remove_file(installation.path("lib/libdwf.so")).unwrap();
    let flags = installation.pkg_config(&["--static", "--cflags", "--libs"]);
    let program = installation.compile("cc", "install/first.c", &flags);
    let (place, ..) = first(&mut Command::new(&program));
    assert_eq!(place, program.to_str().unwrap());
}

#[test]
fn by_cmake() {
    if let Some(reason) = lacks("cmake") {
        return eprintln!("{reason}");
    }
    let installation = Installation::new();
    let build = installation.folder.path().join("build");
    let prefix = format!("-DCMAKE_PREFIX_PATH={}", installation.path("").display());
    let mut command = Command::new("cmake");
    command
        .args([&prefix, "-S", "tests/install", "-B"])
        .arg(&build);
    run(command.current_dir(root()));
    run(Command::new("cmake").arg("--build").arg(&build));
    let program = |name: &str| {
        let mut command = Command::new(build.join(name));
        command.env_remove("LD_LIBRARY_PATH");
        command
    };
    let (place, ..) = first(&mut program("first"));
    assert!(place.ends_with("prefix/lib/libdwf.so.0"), "{place}");
    let (place, ..) = first(&mut program("first_static"));
    assert!(place.ends_with("first_static"), "{place}");
    run(program("exceptions").arg(folder()));
}

/// The library is small and starts fast.
#[test]
fn the_budgets() {
    let installation = Installation::new();
    let include = format!("-I{}", installation.path("include").display());
    let library = format!("-L{}", installation.path("lib").display());
    let flags = [include, library, "-ldwf".into()];
    let program = installation.compile("cc", "install/first.c", &flags);
    let runs = (0..5).map(|_| first(&mut installation.command(&program)));
    // The first run warms the files; the fastest is not disturbed by other tests.
    let (_, size, took) = runs.min_by(|a, b| a.2.total_cmp(&b.2)).unwrap();
    println!("{size} bytes, {took} ms of the processor to the first network");
    assert!(size < MOST_BYTES, "{size} bytes");
    assert!(took < MOST_MILLISECONDS, "{took} ms");
    let symbols = installation.path("lib/libdwf.so");
    let symbols = run(Command::new("readelf").args(["-d", "-S"]).arg(symbols));
    assert!(symbols.contains("soname: [libdwf.so.0]"), "{symbols}");
    assert!(!symbols.contains(".symtab"), "not stripped");
}

/// cargo-c installs the same files, but for the CMake package, and a library that programs built
/// with ours find.
#[test]
fn by_cargo_c() {
    let version = Command::new("cargo")
        .args(["cinstall", "--version"])
        .output();
    if !version.is_ok_and(|output| output.status.success()) {
        return eprintln!("skipped: no cargo-c; cargo install cargo-c");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let mut command = Command::new("cargo");
    command.args([
        "cinstall",
        "-p",
        "libdwf",
        "--release",
        "--prefix=/usr",
        "--libdir=/usr/lib",
    ]);
    command.arg(format!("--destdir={}", path("theirs").display()));
    run(command.current_dir(root()));
    let ours = format!("DESTDIR={}", path("ours").display());
    make(&["install".into(), ours, "PREFIX=/usr".into()]);

    let names = |folder: &str| -> BTreeSet<PathBuf> {
        let files = files(&path(folder));
        let relative = files
            .iter()
            .map(|file| file.strip_prefix(path(folder)).unwrap());
        relative
            .filter(|file| !file.starts_with("usr/lib/cmake"))
            .map(Path::to_owned)
            .collect()
    };
    assert_eq!(names("theirs"), names("ours"));
    for header in ["dwf.h", "dwf.hpp"] {
        let read = |folder| fs::read(path(folder).join("usr/include").join(header)).unwrap();
        assert!(read("theirs") == read("ours"), "{header} differs");
    }
    let library = path("theirs").join("usr/lib/libdwf.so");
    let dynamic = run(Command::new("readelf").arg("-d").arg(library));
    assert!(dynamic.contains("soname: [libdwf.so.0]"), "{dynamic}");

    let [include, libraries] = ["include", "lib"].map(|name| path("ours/usr").join(name));
    let program = path("first");
    let mut command = Command::new("cc");
    command.arg(root().join("tests/install/first.c"));
    command.arg("-I").arg(include).arg("-L").arg(libraries);
    run(command.arg("-ldwf").arg("-o").arg(&program));
    let theirs = path("theirs/usr/lib");
    let (place, ..) = first(Command::new(&program).env("LD_LIBRARY_PATH", &theirs));
    assert_eq!(place, theirs.join("libdwf.so.0").to_str().unwrap());
}

/// Nothing stays behind, in odd places too.
#[test]
fn uninstall() {
    let folder = tempfile::tempdir().unwrap();
    let places = [
        format!("DESTDIR={}", folder.path().display()),
        "PREFIX=/opt/dwf".into(),
        "LIBDIR=/opt/dwf/lib/x86_64-linux-gnu".into(),
        "INCLUDEDIR=/opt/dwf/include/dwf".into(),
    ];
    let run = |target: &str| make(&[&[target.to_owned()][..], &places].concat());
    run("install");
    let library = folder.path().join("opt/dwf/lib/x86_64-linux-gnu");
    assert!(library.join("libdwf.so").exists());
    let pc = fs::read_to_string(library.join("pkgconfig/dwf.pc")).unwrap();
    assert!(pc.contains("prefix=${pcfiledir}/../../..\n"), "{pc}");
    assert!(pc.contains("includedir=${prefix}/include/dwf\n"), "{pc}");
    run("uninstall");
    assert_eq!(files(folder.path()), Vec::<PathBuf>::new());
}

/// All files and links below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries
        .flat_map(|entry| match entry.file_type().unwrap().is_dir() {
            true => files(&entry.path()),
            false => vec![entry.path()],
        })
        .collect()
}

/// The tarball runs where it is unpacked, without a word from the environment; and in a bare
/// Debian, where one can be made.
#[test]
fn the_tarball() {
    let folder = tempfile::tempdir().unwrap();
    let built = format!("BUILD={}", folder.path().display());
    let printed = make(&["dist".into(), built]);
    let tarball = PathBuf::from(printed.lines().last().unwrap());
    let mut command = Command::new("tar");
    command
        .arg("-xzf")
        .arg(&tarball)
        .arg("-C")
        .arg(folder.path());
    run(command.arg("--strip-components=1"));
    let mut command = Command::new(folder.path().join("bin/spawn"));
    let shared = folder.path().join("share/dwf");
    let inputs = ["iris.onnx", "held-out.csv", "zoo.f32"];
    let printed = run(command
        .args(inputs.map(|name| shared.join(name)))
        .env_clear());
    assert!(printed.contains("generated accuracy"), "{printed}");
    // What its README links to.
    let guide = folder.path().join("share/doc/dwf/docs/embedding-c.md");
    assert!(guide.exists());

    let bare = root().join("tests/install/bare");
    let output = Command::new(bare).arg(&tarball).output().unwrap();
    let text = text(&output);
    match output.status.code() {
        Some(0) => assert!(text.contains("generated accuracy"), "{text}"),
        Some(77) => eprint!("{text}"),
        other => panic!("{other:?}: {text}"),
    }
}
