//! Zoos: what is read, what is refused, and that nothing half-written is left.

mod common;

use std::{fs, path::Path};

use common::assert_says;
use dwf::layout::{DType, Layout, TensorKind};
use dwf_trainer::zoo::{Writer, Zoo};
use safetensors::{Dtype, tensor::TensorView};

/// A file with these f32 tensors in the place of network `index`.
fn replace(folder: &Path, index: usize, tensors: &[(&str, Vec<usize>, Vec<f32>)]) {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, _, values)| values.iter().flat_map(|v| v.to_le_bytes()).collect())
        .collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
        (
            *name,
            TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap(),
        )
    });
    let file = safetensors::serialize(views, None).unwrap();
    fs::write(folder.join(format!("net-{index:06}.safetensors")), file).unwrap();
}

/// The message about a zoo of ten networks 2-3 in which network 4 is replaced.
fn refused(tensors: &[(&str, Vec<usize>, Vec<f32>)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    common::write_zoo(folder.path(), &common::mlp(&[2, 3]).1, 10);
    replace(folder.path(), 4, tensors);
    Zoo::read(folder.path()).unwrap_err().to_string()
}

#[test]
fn a_zoo_is_read_as_it_was_written() {
    for dtype in [DType::F32, DType::F16, DType::Bf16] {
        let folder = tempfile::tempdir().unwrap();
        let shapes = [("a.weight", vec![3, 2]), ("a.bias", vec![3])];
        let tensors = shapes.map(|(n, shape)| (n.to_owned(), shape, dtype, TensorKind::Parameter));
        let layout = Layout::pack(tensors).unwrap();
        let target = folder.path().join("zoo");
        common::write_zoo(&target, &layout, 12);
        fs::write(target.join("notes.txt"), "not a network").unwrap();
        let zoo = Zoo::read(&target).unwrap();
        assert_eq!((zoo.count(), zoo.layout()), (12, &layout));
        // Relative rounding of the stored type: half a unit in the last of 24, 11, 8 bits.
        let tolerance = match dtype {
            DType::F32 => 0.0,
            DType::F16 => 2f32.powi(-11),
            DType::Bf16 => 2f32.powi(-8),
        };
        let networks = zoo.networks().flatten();
        for (read, written) in networks.zip(common::normals(12 * layout.len(), 5)) {
            // 6e-8: the spacing of f16's subnormal numbers.
            assert!((read - written).abs() <= tolerance * written.abs() + tolerance * 6e-8);
        }
    }
}

#[test]
fn numbers_are_checked() {
    let bias = || ("fc1.bias", vec![3], vec![0.0; 3]);
    for bad in [f32::NAN, f32::INFINITY, -1.1e15] {
        let mut values = vec![0.5; 6];
        values[2] = bad;
        let message = refused(&[("fc1.weight", vec![3, 2], values), bias()]);
        assert_says(
            &message,
            &[
                "net-000004.safetensors",
                "'fc1.weight'",
                "element 2",
                "diverged",
            ],
        );
    }
}

#[test]
fn networks_must_be_alike() {
    let weight = || ("fc1.weight", vec![3, 2], vec![0.5; 6]);
    let bias = || ("fc1.bias", vec![3], vec![0.0; 3]);
    let other_shape = refused(&[("fc1.weight", vec![2, 3], vec![0.5; 6]), bias()]);
    assert_says(
        &other_shape,
        &[
            "net-000004",
            "'fc1.weight'",
            "[2, 3]",
            "[3, 2]",
            "net-000000",
        ],
    );
    let extra = refused(&[weight(), bias(), ("fc2.bias", vec![3], vec![0.0; 3])]);
    assert_says(&extra, &["net-000004", "'fc2.bias'", "net-000000"]);
    let missing = refused(&[weight()]);
    assert_says(&missing, &["net-000004", "'fc1.bias'", "missing"]);
}

#[test]
fn other_types_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    common::write_zoo(folder.path(), &common::mlp(&[2, 3]).1, 10);
    let bytes = [0u8; 48];
    let weight = TensorView::new(Dtype::F64, vec![3, 2], &bytes).unwrap();
    let file = safetensors::serialize([("fc1.weight", weight)], None).unwrap();
    fs::write(folder.path().join("net-000003.safetensors"), file).unwrap();
    let message = Zoo::read(folder.path()).unwrap_err().to_string();
    assert_says(&message, &["net-000003", "'fc1.weight'", "F64", "F16"]);
}

#[test]
fn types_may_not_be_mixed() {
    let folder = tempfile::tempdir().unwrap();
    common::write_zoo(folder.path(), &common::mlp(&[2, 3]).1, 10);
    let (weight, bias) = ([0u8; 12], [0u8; 12]);
    let weight = TensorView::new(Dtype::F16, vec![3, 2], &weight).unwrap();
    let bias = TensorView::new(Dtype::F32, vec![3], &bias).unwrap();
    let file = safetensors::serialize([("fc1.weight", weight), ("fc1.bias", bias)], None).unwrap();
    fs::write(folder.path().join("net-000009.safetensors"), file).unwrap();
    let message = Zoo::read(folder.path()).unwrap_err().to_string();
    assert_says(&message, &["net-000009", "'fc1.weight'", "F16", "F32"]);
}

#[test]
fn files_must_be_safetensors() {
    let folder = tempfile::tempdir().unwrap();
    common::write_zoo(folder.path(), &common::mlp(&[2, 3]).1, 10);
    let file = folder.path().join("net-000002.safetensors");
    let whole = fs::read(&file).unwrap();
    for bytes in [&b"PK\x03\x04 not this"[..], &whole[..whole.len() - 1], &[]] {
        fs::write(&file, bytes).unwrap();
        let message = Zoo::read(folder.path()).unwrap_err().to_string();
        assert_says(
            &message,
            &["net-000002.safetensors", "not a safetensors file"],
        );
    }
}

#[test]
fn few_networks_or_none_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let message = |folder: &Path| Zoo::read(folder).unwrap_err().to_string();
    assert_says(&message(folder.path()), &["0 checkpoints", "at least 8"]);
    assert_says(
        &message(&folder.path().join("none")),
        &["cannot read the zoo", "none"],
    );
    let few = folder.path().join("few");
    common::write_zoo(&few, &common::mlp(&[2, 3]).1, 7);
    assert_says(&message(&few), &["7 checkpoints", "at least 8"]);
}

#[test]
fn only_chains_of_linear_layers_are_read() {
    let folder = tempfile::tempdir().unwrap();
    for i in 0..8 {
        let weights = vec![0.1; 36];
        replace(
            folder.path(),
            i,
            &[
                ("conv.weight", vec![2, 2, 3, 3], weights),
                ("conv.bias", vec![2], vec![0.0; 2]),
            ],
        );
    }
    let message = Zoo::read(folder.path()).unwrap_err().to_string();
    assert_says(
        &message,
        &["net-000000", "'conv.weight'", "[2, 2, 3, 3]", "--network"],
    );
}

#[test]
fn a_folder_is_filled_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let (_, layout) = common::mlp(&[2, 3]);
    let target = folder.path().join("zoo");
    let mut writer = Writer::new(&target, &layout, 0).unwrap();
    writer.add(&vec![1.0; layout.len()]).unwrap();
    drop(writer);
    assert!(
        common::names(folder.path()).is_empty(),
        "an unfinished zoo leaves nothing"
    );

    fs::create_dir(&target).unwrap();
    common::write_zoo(&target, &layout, 2);
    assert_eq!(
        common::names(&target),
        ["net-000000.safetensors", "net-000001.safetensors"]
    );
    let message = Writer::new(&target, &layout, 0).err().unwrap().to_string();
    assert_says(&message, &["zoo", "is not empty"]);
    assert_eq!(common::names(folder.path()), ["zoo"]);
}

#[test]
fn weights_out_of_a_types_range_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let tensor = (
        "a.weight".to_owned(),
        vec![1, 1],
        DType::F16,
        TensorKind::Parameter,
    );
    let layout = Layout::pack([tensor]).unwrap();
    let mut writer = Writer::new(&folder.path().join("zoo"), &layout, 0).unwrap();
    let message = writer.add(&[1e6]).unwrap_err().to_string();
    assert_says(&message, &["net-000000", "'a.weight'", "F16"]);
}
