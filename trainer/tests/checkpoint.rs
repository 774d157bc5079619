//! Checkpoints of PyTorch: what is read, and what is refused with a sentence that helps.

use std::{fs, path::Path, path::PathBuf};

use dwf::layout::DType;
use dwf_trainer::checkpoint::Checkpoint;

/// Written by PyTorch: see `networks/export.py`. The values of every tensor count from 0.
fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/checkpoints")
        .join(name)
}

const TENSORS: [(&str, &[usize]); 8] = [
    ("fc1.bias", &[3]),
    ("fc1.weight", &[3, 2]),
    ("fc2.bias", &[2]),
    ("fc2.weight", &[2, 3]),
    ("norm.bias", &[3]),
    ("norm.running_mean", &[3]),
    ("norm.running_var", &[3]),
    ("norm.weight", &[3]),
];

#[test]
fn checkpoints_are_read_however_they_were_saved() {
    let files = [
        ("zip.pt", DType::F32),
        ("legacy.pth", DType::F32),
        ("nested.pt", DType::F32),
        // A whole module, whose parameters and buffers have the names of its state dict.
        ("module.pt", DType::F32),
        ("half.pt", DType::F16),
        ("bfloat16.pt", DType::Bf16),
    ];
    for (file, dtype) in files {
        let checkpoint = Checkpoint::open(&path(file)).unwrap();
        // `norm.num_batches_tracked`, an integer, is no weight; in halves it is one like others.
        let signatures = checkpoint.signatures().iter();
        let kept = signatures.filter(|s| s.name != "norm.num_batches_tracked");
        let found: Vec<_> = kept.map(|s| (s.name.as_str(), &s.shape[..])).collect();
        assert_eq!(found, TENSORS, "{file}");
        for (name, shape) in TENSORS {
            let mut values = vec![-1.0; shape.iter().product()];
            checkpoint.read(name, &mut values).unwrap();
            let counted: Vec<f32> = (0..values.len()).map(|i| i as f32).collect();
            assert_eq!(values, counted, "{file}: {name}");
        }
        assert!(
            checkpoint.signatures().iter().all(|s| s.dtype == dtype),
            "{file}"
        );
    }
}

#[test]
fn a_module_called_as_keys_are_keeps_its_name() {
    let checkpoint = Checkpoint::open(&path("own.pt")).unwrap();
    let signatures = checkpoint.signatures().iter();
    let found: Vec<&str> = signatures.map(|s| s.name.as_str()).collect();
    let expected = TENSORS.map(|(name, _)| format!("net.{name}"));
    assert_eq!(found, expected);
}

fn refused(path: &Path) -> String {
    let message = Checkpoint::open(path).err().unwrap().to_string();
    let name = path.file_name().unwrap().to_string_lossy();
    assert!(message.contains(&*name), "{message}");
    message
}

#[test]
fn what_is_no_state_dict_is_refused_with_the_sentence_to_type() {
    let message = refused(&path("nothing.pt"));
    assert!(message.contains(".state_dict()"), "{message}");
}

#[test]
fn damaged_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let whole = fs::read(path("zip.pt")).unwrap();
    for (i, bytes) in [&whole[..whole.len() / 2], b"", b"no checkpoint"]
        .iter()
        .enumerate()
    {
        let file = folder.path().join(format!("net-{i}.pt"));
        fs::write(&file, bytes).unwrap();
        refused(&file);
    }
    assert!(refused(&folder.path().join("none.pth")).contains("cannot read"));
}
