//! A large basis is mapped, not read. The one test of this file: it reads its process's memory.

mod common;

use common::{Fixture, stretched::write_stretched};
use dwf::{Model, ModelOptions, SampleOptions, Sampler, SamplerOptions};

/// Bytes of memory that this process holds.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[test]
fn opening_a_basis_of_4_gb_reads_almost_none_of_it() {
    let weights = 170_000_000;
    let folder = tempfile::tempdir().unwrap();
    let path = write_stretched(&Fixture::default(), folder.path(), weights);
    let sidecar = path.with_extension("safetensors");
    assert!(sidecar.metadata().unwrap().len() > 4 << 30);

    let before = resident();
    let model = Model::open(&path, &ModelOptions::default()).unwrap();
    let opened = resident();
    assert!(opened - before < 20 << 20, "{}", opened - before);
    assert_eq!(model.metadata().layout.len(), weights);

    // Samplers share the mapping, and the pages that decoding touches belong to the file.
    let options = SamplerOptions {
        max_batch: 1,
        ..Default::default()
    };
    let _idle = Sampler::new(&model, &options).unwrap();
    let mut sampler = Sampler::new(&model, &options).unwrap();
    let workspace = sampler.info().workspace_bytes;
    assert!(workspace < 1 << 20, "{workspace}");
    let mut networks = vec![half::f16::ZERO; weights];
    sampler
        .sample(SampleOptions::default(), &mut networks[..])
        .unwrap();
    let own = anonymous();
    assert!(own < 2 * weights as u64 + before + (64 << 20), "{own}");
    // Whatever the batch.
    let roomy = Sampler::new(&model, &Default::default()).unwrap();
    let workspace = roomy.info().workspace_bytes;
    assert!(workspace < 64 << 20, "{workspace}");
    assert_eq!(copied("net.safetensors"), 0);
}

/// Kilobytes of a mapped file that have become this process's own, instead of the page cache's,
/// which all processes share.
fn copied(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let lines = text.lines().skip_while(|line| !line.contains(name));
    let mut fields = lines.skip(1).take_while(|line| !line.contains("VmFlags"));
    let number = |line: &str| {
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    let rss = fields
        .find(|line| line.starts_with("Rss:"))
        .expect("the file is mapped");
    assert!(number(rss) > 1 << 20, "decoding has touched it: {rss}");
    let own = fields.find(|line| line.starts_with("Anonymous:"));
    number(own.expect("a field of every mapping"))
}

/// Bytes of memory that are this process's own, not a file's.
fn anonymous() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with("RssAnon:"));
    let kilobytes = line.unwrap().split_whitespace().nth(1).unwrap();
    kilobytes.parse::<u64>().unwrap() << 10
}
