//! The bytes of a sidecar, read beside a good `.onnx`.

#![no_main]

use std::sync::LazyLock;

use dwf::{
    artifact::{Basis, Description},
    metadata::BasisKind,
};
use prost::Message;

static DESCRIPTIONS: LazyLock<[Description; 2]> = LazyLock::new(|| {
    [BasisKind::Linear, BasisKind::Diagonal].map(|basis| {
        let onnx = dwf_fuzz::small(basis).onnx.encode_to_vec();
        Description::parse(&onnx).unwrap()
    })
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for description in &*DESCRIPTIONS {
        let Ok(basis) = description.basis(bytes) else {
            continue;
        };
        let views = match &basis {
            Basis::Identity => vec![],
            Basis::Diagonal { mean, scale } => vec![mean, scale],
            Basis::Linear {
                components,
                mean,
                scale,
            } => vec![components, mean, scale],
        };
        for view in views {
            assert!(bytes.get(view.bytes.clone()).is_some());
            assert_eq!(view.bytes.start % view.float.size(), 0);
        }
        for weight in &description.weights {
            assert!(bytes.get(weight.bytes.clone()).is_some());
        }
    }
});
