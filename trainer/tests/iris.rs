//! The measures of the Iris flow: what the README promises of the demo.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use dwf_trainer::{
    iris,
    report::key,
    train::{TrainOptions, train},
    zoo::Writer,
};

#[test]
fn generated_classifiers_are_as_good_as_the_zoo_and_new() {
    let folder = tempfile::tempdir().unwrap();
    let zoo = folder.path().join("zoo");
    let made = iris::zoo(100, 0, || ());
    let mut writer = Writer::new(&zoo, &made.zoo.layout, 100).unwrap();
    made.zoo
        .networks()
        .for_each(|network| writer.add(network).unwrap());
    writer
        .add_text("held-out.csv", &made.held_out.to_csv(&iris::FEATURES))
        .unwrap();
    writer.finish().unwrap();

    let quality = train(
        &zoo,
        &folder.path().join("iris.onnx"),
        &TrainOptions::default(),
    )
    .unwrap();
    let accuracy = quality[key::GENERATED_ACCURACY];
    assert!(quality[key::ZOO_ACCURACY] > 0.95, "{quality:?}");
    assert!(
        (quality[key::ZOO_ACCURACY] - accuracy).abs() < 0.01,
        "{quality:?}"
    );
    assert!(
        (0.75..1.1).contains(&quality[key::STD_RATIO]),
        "{quality:?}"
    );
    let tenth = quality[key::ZOO_DISTANCE] / 10.0;
    assert!(quality[key::GENERATED_DISTANCE_MIN] > tenth, "{quality:?}");
}
