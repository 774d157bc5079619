//! `tests/conformance`: the cases natively and through the C ABI, and the files that they use.

mod common;

use std::collections::HashMap;

use common::{
    Fixture, Reference,
    conformance::{CAbi, Case, Host, Native, compare, folder, output_of, run},
};
use dwf::{
    Model,
    artifact::Float,
    condition::{Axis, Condition, ConditionSchema},
    layout::{DType, Layout, TensorKind},
    metadata::{BasisKind, DefaultSolver},
    ode::{Grid, Method},
};

/// The committed artifacts: every basis, condition schema and kind of solver.
fn artifacts() -> [Fixture; 3] {
    let solver = |method, steps, grid| DefaultSolver {
        method,
        steps,
        grid,
        tolerance: 1e-4,
        relative_error: None,
    };
    let tiny = Fixture {
        name: "tiny",
        ..Fixture::default()
    };
    let classes = ["setosa", "versicolor", "virginica"].map(String::from);
    let conditional = Fixture {
        name: "conditional",
        basis_float: Float::F32,
        condition: Some(Condition {
            schema: ConditionSchema::Classes(classes.into()),
            unconditional: Some(vec![0.0; 3]),
        }),
        source_std: 0.5,
        solver: solver(Method::Heun, 4, Grid::Stretched),
        ..Fixture::with_basis(BasisKind::Diagonal)
    };
    let axis = |name: &str, min, max| Axis {
        name: name.into(),
        min,
        max,
    };
    let tensor = |name: &str, shape: &[usize], dtype| {
        (name.into(), shape.into(), dtype, TensorKind::Parameter)
    };
    let axes = Fixture {
        name: "axes",
        layout: Layout::pack([
            tensor("größe.weight", &[3, 5], DType::F16),
            tensor("größe.bias", &[5], DType::Bf16),
        ])
        .unwrap(),
        condition: Some(Condition {
            schema: ConditionSchema::Axes(vec![axis("speed", 0.0, 2.0), axis("größe", -1.0, 1.0)]),
            unconditional: None,
        }),
        solver: solver(Method::Dopri5, 10, Grid::Uniform),
        ..Fixture::with_basis(BasisKind::Identity)
    };
    [tiny, conditional, axes]
}

/// The committed files are what the fixtures make. `DWF_UPDATE_CONFORMANCE=1` writes them anew.
#[test]
fn the_artifacts_are_current() {
    let made = tempfile::tempdir().unwrap();
    for fixture in artifacts() {
        let path = fixture.write(made.path());
        for path in [path.with_extension("safetensors"), path] {
            let committed = folder().join(path.file_name().unwrap());
            if std::env::var_os("DWF_UPDATE_CONFORMANCE").is_some() {
                std::fs::copy(&path, &committed).unwrap();
            }
            let [made, committed] = [&path, &committed].map(|path| std::fs::read(path).unwrap());
            assert!(made == committed, "{} has drifted", path.display());
            assert!(made.len() < 60_000, "{} is large", path.display());
        }
    }
}

/// The values in the file are not what the library said once, but an independent computation.
#[test]
fn the_values_are_the_references() {
    let mut references = HashMap::new();
    for case in Case::all().into_iter().filter(Case::generates) {
        let reference = references
            .entry(case.path())
            .or_insert_with(|| Reference::open(&case.path()));
        let expected = sample(reference, &case);
        let weights = expected.len() / case.options.count();
        assert!(case.values().count() >= 3, "{}: too few values", case.name);
        for (row, column, value) in case.values() {
            let exact = expected[row * weights + column];
            // The file has 6 decimals.
            let close = (value - exact).abs() < 1e-6;
            assert!(close, "{}: {exact} at {row},{column}", case.name);
        }
    }
}

/// What the reference makes of a case; a fine grid in place of adaptive steps.
fn sample(reference: &Reference, case: &Case) -> Vec<f64> {
    let model = Model::open(case.path(), &Default::default()).unwrap();
    let default = model.metadata().solver.solver();
    let mut options = case.options.typed(default).unwrap();
    if let Some(solver) = options
        .solver
        .as_mut()
        .filter(|s| s.method == Method::Dopri5)
    {
        (solver.method, solver.steps) = (Method::Rk4, 200);
    }
    reference.sample(&options)
}

/// The lines must be the same text, but for what Rust's types cannot say.
#[test]
fn rust_and_c_agree() {
    let (rust, c) = (run(&Native), run(&CAbi));
    assert_eq!(c.lines().count(), Case::all().len());
    let missing = c.lines().filter(|line| !rust.contains(line));
    let untyped = Case::all().into_iter().filter(|case| case.untyped);
    assert_eq!(missing.count(), untyped.count());
    let files = [(Native::NAME, rust), (CAbi::NAME, c)].map(|(language, lines)| {
        let file = output_of(language);
        std::fs::write(&file, lines).unwrap();
        file
    });
    let (agree, text) = compare(&files);
    assert!(
        agree && text.contains("rust") && text.contains("c"),
        "{text}"
    );
}

/// `tests/conformance/compare` finds every kind of difference.
#[test]
fn compare_finds_differences() {
    let lines = run(&CAbi);
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let whole = file("whole", &lines);
    let busy = lines.lines().last().unwrap();
    assert!(busy.contains("busy"), "{busy}");
    let differences = [
        (
            "digit",
            lines.replacen("\"sha256\":\"", "\"sha256\":\"0", 1),
        ),
        ("status", lines.replacen("DWF_CANCELLED", "DWF_OK", 1)),
        ("missing", lines.replace(busy, "")),
        ("twice", format!("{lines}{busy}\n")),
        (
            "unknown",
            format!("{lines}{}\n", busy.replace("busy", "lazy")),
        ),
        ("empty", String::new()),
    ];
    for (name, text) in differences {
        let (agree, text) = compare(&[whole.clone(), file(name, &text)]);
        assert!(!agree && text.contains(name), "{name}: {text}");
    }
    assert!(!compare(&[folder.path().join("nowhere")]).0);
}
