//! Writes the corpora to begin with: `seeds FOLDER`.

use std::{fs, path::Path};

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
    // Any bytes are a plan for the structured targets.
    for target in ["pair", "abi"] {
        for (i, byte) in [0u8, 1, 0x55, 0xff].into_iter().enumerate() {
            let bytes: Vec<u8> = (0..=255).map(|j: u8| j.wrapping_mul(7) ^ byte).collect();
            write(target, &format!("plan{i}"), &bytes);
        }
    }
}
