//! Writes the corpora to begin with: `seeds FOLDER`.

use std::{
    fs,
    io::{Cursor, Read},
    path::Path,
};

use dwf::metadata::BasisKind;
use prost::Message;

fn main() {
    let folder = std::env::args().nth(1).expect("seeds FOLDER");
    let write = |target: &str, name: &str, bytes: &[u8]| {
        let folder = Path::new(&folder).join(target);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(name), bytes).unwrap();
    };
    for basis in [BasisKind::Identity, BasisKind::Diagonal, BasisKind::Linear] {
        let artifact = dwf_fuzz::small(basis);
        let name = format!("{basis:?}").to_lowercase();
        write("onnx", &name, &artifact.onnx.encode_to_vec());
        write("sidecar", &name, &artifact.sidecar);
        for (key, prop) in artifact.onnx.metadata_props.iter().enumerate() {
            let name = prop.key().replace("dwf.", "");
            write(
                "metadata",
                &name,
                &[&[key as u8], prop.value().as_bytes()].concat(),
            );
        }
    }
    // The corpora of `pytorch` and `network` are links to the trainer's test data.
    for name in ["zip", "nested", "module", "bfloat16", "nothing"] {
        write("pickle", name, &pickle(name));
    }
    write("safetensors", "mlp", &safetensors());
    // Any bytes are a plan for the structured targets.
    for target in ["pair", "abi", "tracer"] {
        for (i, byte) in [0u8, 1, 0x55, 0xff].into_iter().enumerate() {
            let bytes: Vec<u8> = (0..=255).map(|j: u8| j.wrapping_mul(7) ^ byte).collect();
            write(target, &format!("plan{i}"), &bytes);
        }
    }
}

/// The pickle in one of the trainer's test checkpoints.
fn pickle(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../trainer/tests/checkpoints");
    let file = fs::read(folder.join(name).with_extension("pt")).unwrap();
    let mut archive = zip::ZipArchive::new(Cursor::new(file)).unwrap();
    let names: Vec<String> = archive
        .file_names()
        .map(|name| name.unwrap().into())
        .collect();
    let name = names
        .iter()
        .find(|name| name.ends_with("data.pkl"))
        .unwrap();
    let mut bytes = Vec::new();
    let mut pickle = archive.by_name(name).unwrap();
    pickle.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Two layers and a counter, in the three float types.
fn safetensors() -> Vec<u8> {
    let header = r#"{"__metadata__":{"format":"pt"},
"fc1.weight":{"dtype":"F32","shape":[3,2],"data_offsets":[0,24]},
"fc1.bias":{"dtype":"F16","shape":[3],"data_offsets":[24,30]},
"fc2.weight":{"dtype":"BF16","shape":[1,3],"data_offsets":[30,36]},
"fc2.bias":{"dtype":"F32","shape":[1],"data_offsets":[36,40]},
"steps":{"dtype":"I64","shape":[],"data_offsets":[40,48]}}"#;
    let data: Vec<u8> = (0..48).collect();
    let length = (header.len() as u64).to_le_bytes();
    [&length[..], header.as_bytes(), &data].concat()
}
