//! The pickle in a `.pt` archive that is otherwise good, its checksums included.

#![no_main]

use std::io::{Cursor, Write};

use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

/// Bytes of each storage.
const STORAGE: [u8; 64] = [0; 64];

fn archive(pickle: &[u8]) -> Vec<u8> {
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in [
        ("net/data.pkl", pickle),
        ("net/byteorder", b"little"),
        ("net/data/0", &STORAGE),
        ("net/data/1", &STORAGE),
        ("net/version", b"3\n"),
    ] {
        zip.start_file(name, options).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

libfuzzer_sys::fuzz_target!(|pickle: &[u8]| {
    dwf_fuzz::checkpoint::read("pt", &archive(pickle));
});
