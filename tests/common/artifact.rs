//! Both files of an artifact in memory, open to every kind of damage.

use std::path::{Path, PathBuf};

use dwf::onnx::{GraphProto, ModelProto, StringStringEntryProto, TensorProto};
use prost::Message;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The two files before they are written.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// File name without extension.
    pub name: String,
    pub onnx: ModelProto,
    pub sidecar: Vec<u8>,
}

impl Artifact {
    /// Writes both files into `folder`; the path of the `.onnx`.
    pub fn write(&self, folder: &Path) -> PathBuf {
        let path = folder.join(format!("{}.onnx", self.name));
        std::fs::write(&path, self.onnx.encode_to_vec()).unwrap();
        std::fs::write(path.with_extension("safetensors"), &self.sidecar).unwrap();
        path
    }

    pub fn graph(&mut self) -> &mut GraphProto {
        self.onnx.graph.as_mut().unwrap()
    }

    /// The initialiser `input.weight`.
    pub fn weight(&mut self) -> &mut TensorProto {
        let mut weights = self.graph().initializer.iter_mut();
        weights
            .find(|weight| weight.name() == "input.weight")
            .unwrap()
    }

    /// Sets an external-data key of `input.weight`.
    pub fn set_external(&mut self, key: &str, value: &str) {
        let entries = &mut self.weight().external_data;
        entries.retain(|entry| entry.key() != key);
        entries.push(StringStringEntryProto::new(key, value));
    }

    pub fn prop(&self, key: &str) -> &str {
        let props = &self.onnx.metadata_props;
        props.iter().find(|prop| prop.key() == key).unwrap().value()
    }

    /// Sets a metadata key.
    pub fn set_prop(&mut self, key: &str, value: &str) {
        self.remove_prop(key);
        let entry = StringStringEntryProto::new(key, value);
        self.onnx.metadata_props.push(entry);
    }

    pub fn remove_prop(&mut self, key: &str) {
        self.onnx.metadata_props.retain(|prop| prop.key() != key);
    }

    /// Sets the value that a JSON pointer leads to within a metadata key.
    pub fn set_in_prop(&mut self, key: &str, pointer: &str, value: Value) {
        let mut json: Value = serde_json::from_str(self.prop(key)).unwrap();
        *json.pointer_mut(pointer).expect(pointer) = value;
        self.set_prop(key, &json.to_string());
    }

    /// Replaces text in the sidecar's header, where it must occur. The data stay where they are:
    /// a longer text eats into the header's padding, a shorter one adds to it.
    pub fn replace_in_header(&mut self, from: &str, to: &str) {
        let end = self.header_end();
        let header = std::str::from_utf8(&self.sidecar[8..end]).unwrap();
        assert!(header.contains(from), "the header holds no '{from}'");
        let changed = header.replacen(from, to, 1);
        let text = changed.trim_end();
        assert!(text.len() <= header.len(), "no room for '{to}'");
        let padded = format!("{text:<width$}", width = header.len());
        self.sidecar[8..end].copy_from_slice(padded.as_bytes());
    }

    /// Where the sidecar's header ends and its data begin.
    pub fn header_end(&self) -> usize {
        8 + u64::from_le_bytes(self.sidecar[..8].try_into().unwrap()) as usize
    }

    /// Makes the sidecar's header a byte longer, with every offset that counts from its start.
    pub fn shift_data(&mut self) {
        let end = self.header_end();
        self.sidecar.insert(end, b' ');
        self.sidecar[..8].copy_from_slice(&(end as u64 - 8 + 1).to_le_bytes());
        for weight in &mut self.graph().initializer {
            for entry in &mut weight.external_data {
                if entry.key() == "offset" {
                    let offset: usize = entry.value().parse().unwrap();
                    entry.value = Some((offset + 1).to_string());
                }
            }
        }
    }
}

/// SHA-256 in lower-case hex digits.
pub fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
