//! An artifact with a basis of any size that takes no room on the disk.

use std::{
    fs::OpenOptions,
    path::{Path, PathBuf},
};

use dwf::layout::{DType, Layout, TensorKind};

use super::Fixture;

/// Writes the fixture's artifact for a network of one tensor with `weights` elements. The new basis
/// lies behind the old tensors as a hole in the file, which reads as zeros and takes no disk.
pub fn write_stretched(fixture: &Fixture, folder: &Path, weights: usize) -> PathBuf {
    let mut artifact = fixture.build();
    let tensor = (
        "weight".into(),
        vec![weights],
        DType::F32,
        TensorKind::Parameter,
    );
    let layout = Layout::pack([tensor]).unwrap();
    let tensors = serde_json::to_string(layout.tensors()).unwrap();
    artifact.set_prop("dwf.layout", &tensors);

    let header_end = artifact.header_end();
    let data = artifact.sidecar[header_end..].to_vec();
    let header = serde_json::from_slice(&artifact.sidecar[8..header_end]).unwrap();
    let (header, total) = stretched_header(header, data.len(), fixture.latent, weights);
    for tensor in &mut artifact.graph().initializer {
        for entry in &mut tensor.external_data {
            if entry.key() == "offset" {
                let offset: usize = entry.value().parse().unwrap();
                entry.value = Some((offset - header_end + 8 + header.len()).to_string());
            }
        }
    }
    artifact.sidecar = (header.len() as u64).to_le_bytes().to_vec();
    artifact.sidecar.extend(header.as_bytes());
    artifact.sidecar.extend(data);
    let sidecar_start = 8 + header.len();
    let path = artifact.write(folder);
    let sidecar = OpenOptions::new()
        .write(true)
        .open(path.with_extension("safetensors"))
        .unwrap();
    sidecar.set_len((sidecar_start + total) as u64).unwrap();
    path
}

/// The header with the old basis under other names and a new one at the end of `len` bytes of
/// data; and the new length of the data.
fn stretched_header(
    header: serde_json::Map<String, serde_json::Value>,
    len: usize,
    latent: usize,
    weights: usize,
) -> (String, usize) {
    let old = |name: String| match name.strip_prefix("basis.") {
        Some(rest) => format!("old.{rest}"),
        None => name,
    };
    let mut header: serde_json::Map<_, _> = header
        .into_iter()
        .map(|(name, tensor)| (old(name), tensor))
        .collect();
    let mut end = len;
    for (name, shape) in [
        ("basis.components", vec![latent, weights]),
        ("basis.mean", vec![weights]),
        ("basis.scale", vec![latent]),
    ] {
        let start = end;
        end += 2 * shape.iter().product::<usize>();
        let tensor = serde_json::json!({
            "dtype": "F16", "shape": shape, "data_offsets": [start, end],
        });
        header.insert(name.into(), tensor);
    }
    let mut text = serde_json::to_string(&header).unwrap();
    text.push_str(&" ".repeat(text.len().next_multiple_of(8) - text.len()));
    (text, end)
}
