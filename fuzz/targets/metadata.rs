//! The JSON of an artifact's metadata: a byte that chooses the key, then its value.

#![no_main]

use std::sync::LazyLock;

use dwf::{
    metadata::{BasisKind, Metadata},
    onnx::StringStringEntryProto,
};

static GOOD: LazyLock<Vec<StringStringEntryProto>> =
    LazyLock::new(|| dwf_fuzz::small(BasisKind::Linear).onnx.metadata_props);

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((key, value)) = bytes.split_first() else {
        return;
    };
    let Ok(value) = std::str::from_utf8(value) else {
        return;
    };
    let mut props = GOOD.clone();
    let key = usize::from(*key) % props.len();
    props[key].value = Some(value.into());
    if let Ok(metadata) = Metadata::from_props(&props) {
        let again = Metadata::from_props(&metadata.to_props()).unwrap();
        assert_eq!(again.to_props(), metadata.to_props());
    }
});
