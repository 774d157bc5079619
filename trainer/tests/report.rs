//! What `dwf report` and `dwf recalibrate` say and write.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use std::{fs, path::Path};

use common::answer;
use dwf::{Model, layout::Layout};
use dwf_trainer::{
    classifier::{Architecture, Recipe},
    dataset::Dataset,
    report::key,
    task::{
        Made, Origin,
        classification::{self, alike},
        digits, train_anew,
    },
    zoo::Zoo,
};
use serde_json::Value;

fn succeeds(folder: &Path, arguments: &str) -> String {
    let (success, text) = answer(folder, arguments);
    assert!(success, "dwf {arguments}: {text}");
    text
}

fn population<'a>(report: &'a Value, name: &str) -> &'a Value {
    let populations = report["comparison"]["populations"].as_array().unwrap();
    populations.iter().find(|p| p["name"] == name).unwrap()
}

#[test]
fn classifiers_are_reported_on_with_all_baselines() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    succeeds(at, "zoo iris -o zoo --count 60");
    succeeds(at, "train zoo -o iris.onnx --steps 300 --seed 7");
    let text = succeeds(at, "report iris.onnx --zoo zoo -o out/page.html -n 40");
    assert!(text.contains("Mean accuracy within 0.3 points"), "{text}");

    let report: Value =
        serde_json::from_slice(&fs::read(at.join("out/page.json")).unwrap()).unwrap();
    let scores = |name: &str| {
        population(&report, name)["scores"]
            .as_array()
            .unwrap()
            .clone()
    };
    assert_eq!(
        (scores("zoo").len(), scores("zoo, held out").len()),
        (54, 6)
    );
    assert_eq!(scores("generated").len(), 40);
    // Noise of a tenth of the spread makes copies, and the zoo's average is new only once.
    let share = |name: &str, key: &str| population(&report, name)[key].as_f64().unwrap();
    assert_eq!(share("zoo + 0.1 std of noise", "near_copies"), 1.0);
    let average = population(&report, "average of the zoo");
    let novelty = average["novelty"].as_array().unwrap();
    assert!(novelty[0].as_f64().unwrap() > 0.1);
    assert!(novelty[1..].iter().all(|x| x.as_f64() == Some(0.0)));
    assert_eq!(report["comparison"]["ensembles"]["sizes"][0], 1);

    let page = fs::read_to_string(at.join("out/page.html")).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"));
    assert!(page.matches("<svg").count() >= 6);
    // One file that needs nothing else.
    for link in ["http", "src=", "<script", "<link"] {
        assert!(!page.contains(link), "{link}");
    }
    let model = Model::open(at.join("iris.onnx"), &Default::default()).unwrap();
    let quality = &model.metadata().quality;
    let area = share("generated", "area");
    assert!((quality[key::NOVEL_AND_GOOD] - area).abs() < 1e-12);
    assert!(quality.contains_key(key::HELD_OUT_LOSS), "{quality:?}");
    let (success, text) = answer(at, "inspect iris.onnx");
    assert!(
        success && text.contains("novel_and_good.generated"),
        "{text}"
    );
}

#[test]
fn policies_are_reported_on_by_their_return() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    succeeds(at, "zoo cartpole -o zoo --count 10");
    succeeds(at, "train zoo -o policy.onnx --steps 20");
    let text = succeeds(at, "report policy.onnx --zoo zoo -o page.html -n 10");
    assert!(text.contains("mean return of at least 475.0"), "{text}");
    let page = fs::read_to_string(at.join("page.html")).unwrap();
    assert!(page.contains("Too few networks were held out"), "{page}");
    assert!(!page.contains("Ensembles"));
    // What policies do: they differ in some states, and trained ones hardly fail.
    assert!(page.contains("Errors of their own"), "{page}");
    let report: Value = serde_json::from_slice(&fs::read(at.join("page.json")).unwrap()).unwrap();
    let differ = |name: &str| population(&report, name)["disagreement"].as_f64().unwrap();
    assert!((0.01..0.6).contains(&differ("zoo")), "{}", differ("zoo"));
    assert_eq!(differ("average of the zoo"), 0.0);
    let overlaps = population(&report, "zoo")["overlaps"].as_array().unwrap();
    assert!(
        overlaps
            .iter()
            .all(|x| (0.0..=1.0).contains(&x.as_f64().unwrap()))
    );
}

/// From networks taught half of the digits each to flows that are asked for either half.
#[test]
fn a_conditioned_zoo_is_learned_and_its_obedience_reported() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    succeeds(at, "zoo digits --count 16 --condition digits -o zoo");
    succeeds(
        at,
        "train zoo -o halves.onnx --basis linear --steps 400 --mix 21..45",
    );
    succeeds(at, "report halves.onnx --zoo zoo -o page.html -n 20");
    let report: Value = serde_json::from_slice(&fs::read(at.join("page.json")).unwrap()).unwrap();
    let classes = &report["obedience"]["classes"];
    assert_eq!(classes["names"], serde_json::json!(["0-4", "5-9"]));
    let count = |who: &str, asked: usize, read: usize| classes[who][asked][read].as_u64().unwrap();
    for who in ["zoo", "generated"] {
        let right = count(who, 0, 0) + count(who, 1, 1);
        let wrong = count(who, 0, 1) + count(who, 1, 0);
        assert!(right + wrong >= 14 && wrong <= 2, "{classes}");
    }
    let page = fs::read_to_string(at.join("page.html")).unwrap();
    assert!(page.contains("Obedience") && page.contains("asked, read as"));
    let model = Model::open(at.join("halves.onnx"), &Default::default()).unwrap();
    assert_eq!(model.metadata().provenance["mixing.selected"], "any");
    assert!(model.metadata().quality["condition.class.obeyed.generated"] > 0.85);
}

#[test]
fn what_was_learned_carries_over_to_other_digits() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let splits = digits::splits(0..=4, 0);
    let architecture = Architecture::named("mlp").unwrap();
    let classifier = architecture.build(digits::IMAGE, 5);
    let recipe = Recipe {
        epochs: 20,
        ..digits::recipe(architecture)
    };
    let origin = Origin {
        count: 10,
        seed: 0,
        shared_start: false,
    };
    let mut made = classification::zoo(
        &classifier,
        &splits,
        alike(&splits, recipe),
        origin,
        &train_anew,
    )
    .unwrap();
    let others = digits::splits(5..=9, 0);
    let about = r#"{"task":"digits","network":"mlp","count":10,"seed":0,"shared_start":false}"#;
    made.files.extend([
        ("transfer-train.csv", others.training.to_csv().into_bytes()),
        ("transfer-test.csv", others.test.to_csv().into_bytes()),
        ("zoo.json", about.into()),
    ]);
    made.write(&at.join("zoo")).unwrap();
    succeeds(at, "train zoo -o mlp.onnx --basis linear --steps 50");
    succeeds(at, "report mlp.onnx --zoo zoo -o page.html -n 8");
    let report: Value = serde_json::from_slice(&fs::read(at.join("page.json")).unwrap()).unwrap();
    let transfer = &report["transfer"];
    assert_eq!(transfer["networks"], 8);
    let score = |start: &str, i: usize| transfer[start][i].as_f64().unwrap();
    // Which start is the better one is the report's to say; everything learns.
    for start in ["zoo", "generated", "random"] {
        assert!(score(start, 2) > score(start, 0) + 0.1, "{transfer}");
    }
    let page = fs::read_to_string(at.join("page.html")).unwrap();
    assert!(page.contains("A start for another task"));
    assert!(page.contains("none leaves the affine span"));
}

#[test]
fn a_foreign_zoo_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    succeeds(at, "zoo iris -o zoo --count 10");
    succeeds(at, "train zoo -o iris.onnx --steps 20");
    succeeds(at, "zoo cartpole -o other --count 8");
    let (success, text) = answer(at, "report iris.onnx --zoo other");
    assert!(
        !success && text.contains("name the zoo that it was trained on"),
        "{text}"
    );
    assert!(!at.join("report.html").exists());
}

/// Networks of a small residual network with its statistics lost.
fn write_spoiled(folder: &Path) -> (Layout, Dataset) {
    let splits = digits::splits(0..=9, 0);
    let architecture = Architecture::Resnet;
    let classifier = architecture.build(digits::IMAGE, digits::CLASSES);
    let recipe = Recipe {
        epochs: 2,
        ..digits::recipe(architecture)
    };
    let origin = Origin {
        count: 8,
        seed: 0,
        shared_start: false,
    };
    let Made {
        layout,
        mut weights,
        condition,
        files,
    } = classification::zoo(
        &classifier,
        &splits,
        alike(&splits, recipe),
        origin,
        &train_anew,
    )
    .unwrap();
    for network in weights.chunks_exact_mut(layout.len()) {
        for tensor in layout.tensors() {
            let value = match tensor.name.rsplit('.').next() {
                Some("running_mean") => 0.0,
                Some("running_var") => 1.0,
                _ => continue,
            };
            network[tensor.range()].fill(value);
        }
    }
    let made = Made {
        layout: layout.clone(),
        weights,
        condition,
        files,
    };
    made.write(folder).unwrap();
    (layout, splits.training)
}

#[test]
fn recalibration_measures_the_statistics_that_were_lost() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let (layout, training) = write_spoiled(&at.join("spoiled"));
    let text = succeeds(
        at,
        "recalibrate spoiled --data spoiled/train.csv --test spoiled/held-out.csv -o good",
    );
    let number = |before: &str| -> f64 {
        let text = text.split(before).next().unwrap();
        let number = text.rsplit(' ').find(|word| word.parse::<f64>().is_ok());
        number.unwrap().parse().unwrap()
    };
    let (before, after) = (number(" % before"), number(" % after"));
    assert!(before < 60.0 && after > 80.0, "{text}");

    // The first normalisation sees the first convolution of the images: by hand.
    let network = |name: &str| {
        fs::copy(
            at.join("spoiled/network.onnx"),
            at.join(name).join("network.onnx"),
        )
        .unwrap();
        Zoo::read(&at.join(name)).unwrap()
    };
    let zoo = network("good");
    let found = |name: &str| {
        let range = zoo.layout().get(name).unwrap().range();
        zoo.networks().next().unwrap()[range].to_vec()
    };
    assert_eq!(zoo.layout().len(), layout.len());
    let kernel = &found("conv1.weight")[..9];
    let mut values = Vec::new();
    for image in training.x.chunks_exact(64) {
        for (y, x) in (0..64).map(|i| (i / 8, i % 8)) {
            let at = |dy: usize, dx: usize| match ((y + dy).checked_sub(1), (x + dx).checked_sub(1))
            {
                (Some(y @ 0..8), Some(x @ 0..8)) => f64::from(image[8 * y + x]),
                _ => 0.0,
            };
            let sum = (0..9).map(|i| f64::from(kernel[i]) * at(i / 3, i % 3));
            values.push(sum.sum::<f64>());
        }
    }
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (count - 1.0);
    // f32 rounding of sums of nine products.
    assert!((f64::from(found("bn1.running_mean")[0]) - mean).abs() < 1e-5);
    assert!((f64::from(found("bn1.running_var")[0]) / variance - 1.0).abs() < 1e-4);
}

#[test]
fn there_must_be_something_to_recalibrate() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    succeeds(at, "zoo iris -o zoo --count 8");
    let (success, text) = answer(at, "recalibrate zoo --data zoo/train.csv -o out");
    assert!(
        !success && text.contains("no batch normalisation"),
        "{text}"
    );
    assert!(!at.join("out").exists());
}
