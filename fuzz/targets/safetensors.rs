//! The bytes of a `.safetensors` checkpoint.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dwf_fuzz::checkpoint::read("safetensors", bytes));
