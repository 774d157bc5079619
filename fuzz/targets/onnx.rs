//! The bytes of a `.onnx`.

#![no_main]

use dwf::artifact::Description;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = Description::parse(bytes);
});
