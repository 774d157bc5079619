//! The bytes of a `.pt` checkpoint: a zip archive, or pickles as older PyTorch wrote them.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dwf_fuzz::checkpoint::read("pt", bytes));
