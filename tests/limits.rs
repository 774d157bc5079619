//! What an artifact may ask for: refused before memory is taken, whatever a small file claims.

mod common;

use std::{
    alloc::{GlobalAlloc, Layout as Block, System},
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use common::{Artifact, Fixture};
use dwf::{
    Model, ModelOptions, SampleOptions, Sampler, SamplerOptions, Status,
    artifact::Description,
    layout::{DType, Layout, TensorKind},
    limits::{MAX_FIELDS, MAX_MESSAGES, MAX_METADATA_BYTES, MAX_ONNX_BYTES},
    metadata::BasisKind,
    ode::Method,
    onnx::{AttributeProto, NodeProto, TensorProto, ValueInfoProto, data_type},
};
use prost::Message;

/// The system's allocator, which knows how much is held, and the most since it was asked.
struct Measuring;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is the system's.
unsafe impl GlobalAlloc for Measuring {
    unsafe fn alloc(&self, block: Block) -> *mut u8 {
        let held = HELD.fetch_add(block.size(), Relaxed) + block.size();
        MOST.fetch_max(held, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(block) }
    }

    unsafe fn dealloc(&self, at: *mut u8, block: Block) {
        HELD.fetch_sub(block.size(), Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, block) }
    }
}

#[global_allocator]
static ALLOCATOR: Measuring = Measuring;

/// Tests take turns: memory is the process's.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> std::sync::MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Bytes of heap that `body` held at most, beyond what was held before.
fn heap<T>(body: impl FnOnce() -> T) -> (usize, T) {
    let before = HELD.load(Relaxed);
    MOST.store(before, Relaxed);
    let result = body();
    (MOST.load(Relaxed) - before, result)
}

fn model(artifact: &Artifact) -> Model {
    let folder = tempfile::tempdir().unwrap();
    Model::open(artifact.write(folder.path()), &Default::default()).unwrap()
}

fn sampler(
    model: &Model,
    threads: usize,
    max_batch: usize,
    memory_limit: u64,
) -> dwf::Result<Sampler> {
    let options = SamplerOptions {
        threads,
        max_batch,
        memory_limit,
        ..Default::default()
    };
    Sampler::new(model, &options)
}

/// The bytes that a sampler's refusal names.
fn reckoned(model: &Model, threads: usize, max_batch: usize) -> u64 {
    let error = sampler(model, threads, max_batch, 1).unwrap_err();
    assert_eq!(error.status(), Status::OutOfMemory, "{error}");
    let (_, rest) = error.message().split_once("may take ").unwrap();
    rest.split(' ').next().unwrap().parse().unwrap()
}

/// A file of a few kilobytes whose latents would take terabytes.
fn vast() -> Model {
    let weights = 1usize << 40;
    let mut artifact = Fixture::default().build();
    let tensor = (
        "all".into(),
        vec![weights],
        DType::F32,
        TensorKind::Parameter,
    );
    let layout = Layout::pack([tensor]).unwrap();
    artifact.set_prop(
        "dwf.layout",
        &serde_json::to_string(layout.tensors()).unwrap(),
    );
    artifact.set_prop("dwf.basis", "\"identity\"");
    let graph = artifact.graph();
    for (list, name) in [(&mut graph.input, "x"), (&mut graph.output, "v")] {
        list[0] = ValueInfoProto::tensor(name, data_type::FLOAT, &[Err("batch"), Ok(weights)]);
    }
    graph.node = vec![NodeProto {
        input: vec!["x".into()],
        output: vec!["v".into()],
        op_type: Some("Identity".into()),
        ..Default::default()
    }];
    model(&artifact)
}

#[test]
fn a_small_file_cannot_ask_for_much() {
    let _turn = turn();
    let model = vast();
    let (held, error) = heap(|| sampler(&model, 1, 1, 0).unwrap_err());
    assert_eq!(error.status(), Status::OutOfMemory, "{error}");
    for text in ["net.onnx", "memory_limit", "max_batch"] {
        assert!(error.message().contains(text), "{error}");
    }
    assert!(held < 1 << 20, "{held}");
}

/// With the batch left to the library it is as large as the limit allows; asked for, it is refused.
#[test]
fn the_batch_fits_the_limit() {
    let _turn = turn();
    let model = model(&Fixture::with_basis(BasisKind::Diagonal).build());
    let most = |threads| {
        let sampler = sampler(&model, threads, 0, 0).unwrap();
        sampler.info().max_batch
    };
    assert_eq!([most(1), most(3)], [64, 192]);
    let limit = reckoned(&model, 1, 64) - 1;
    let mut smaller = sampler(&model, 1, 0, limit).unwrap();
    assert_eq!(smaller.info().max_batch, 32);
    let error = sampler(&model, 1, 64, limit).unwrap_err();
    assert_eq!(error.status(), Status::OutOfMemory);

    // A call whose solver needs more is refused too, and another one still works.
    let mut weights = vec![0f32; model.metadata().layout.len()];
    let mut sample = |sampler: &mut Sampler, method| {
        let mut solver = model.metadata().solver.solver();
        solver.method = method;
        let options = SampleOptions {
            solver: Some(solver),
            ..Default::default()
        };
        sampler.sample(options, &mut weights[..])
    };
    let exact = reckoned(&model, 1, 32);
    let mut exact = sampler(&model, 1, 32, exact).unwrap();
    let error = sample(&mut exact, Method::Dopri5).unwrap_err();
    assert_eq!(error.status(), Status::OutOfMemory);
    sample(&mut exact, Method::Rk4).unwrap();
    sample(&mut smaller, Method::Euler).unwrap();
}

#[test]
fn a_copy_keeps_to_its_limit() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let path = Fixture::default().write(folder.path());
    let sidecar = path.with_extension("safetensors");
    let size = sidecar.metadata().unwrap().len();
    let open = |memory_limit| {
        let options = ModelOptions {
            copy: true,
            memory_limit,
            ..Default::default()
        };
        Model::open(&path, &options)
    };
    open(size).unwrap();
    let error = open(size - 1).unwrap_err();
    assert_eq!(error.status(), Status::OutOfMemory);
    assert!(error.message().contains("memory_limit"), "{error}");
    // 16 TB of holes, which take no disk.
    let file = std::fs::File::options().write(true).open(&sidecar).unwrap();
    file.set_len(1 << 43).unwrap();
    let (held, error) = heap(|| open(0).unwrap_err());
    assert_eq!(error.status(), Status::OutOfMemory);
    assert!(held < 1 << 20, "{held}");
}

/// What a sampler takes in truth, ONNX Runtime's part included, is not more than was reckoned, and
/// not a small part of it. Each case has a process of its own, with no memory left from others.
#[test]
fn the_reckoning_holds() {
    const CASE: &str = "LIMITS_CASE";
    if let Ok(case) = std::env::var(CASE) {
        let (threads, batch) = case.split_once(' ').unwrap();
        return reckoning(threads.parse().unwrap(), batch.parse().unwrap());
    }
    for case in ["1 1", "1 512", "2 512"] {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["the_reckoning_holds", "--exact"])
            .env(CASE, case);
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{case}: {text}");
    }
}

fn reckoning(threads: usize, batch: usize) {
    // ONNX Runtime's own code and first arena are not the artifact's.
    sampler(&model(&Fixture::default().build()), 1, 1, 0).unwrap();
    let wide = Fixture {
        latent: 512,
        hidden: 2048,
        ..Default::default()
    };
    let model = model(&wide.build());
    let reckoned = reckoned(&model, threads, batch);
    let mut weights = vec![1f32; batch * model.metadata().layout.len()];
    // SAFETY: it gives freed memory back to the system and has no preconditions.
    unsafe { libc::malloc_trim(0) };
    let before = resident("VmRSS:");
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let mut sampler = sampler(&model, threads, batch, 0).unwrap();
    let mut solver = model.metadata().solver.solver();
    solver.steps = 1;
    let options = SampleOptions {
        count: batch,
        solver: Some(solver),
        ..Default::default()
    };
    sampler.sample(options, &mut weights[..]).unwrap();
    let taken = resident("VmHWM:") - before;
    // Mapped pages of the sidecar count as resident; threads have stacks.
    let slack = model_bytes(&model) + (8 << 20);
    assert!(taken <= reckoned + slack, "{taken} of {reckoned} bytes");
    assert!(reckoned <= 4 * taken, "{taken} of {reckoned} bytes");
}

fn model_bytes(model: &Model) -> u64 {
    let hidden = 2048u64;
    2 * (2 * model.latent() as u64 * hidden + hidden * hidden)
}

/// A line of /proc/self/status in bytes.
fn resident(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    let kilobytes = line.split_whitespace().nth(1).unwrap();
    kilobytes.parse::<u64>().unwrap() << 10
}

/// The files that grow most when they are read: each is refused or read within 256 MiB.
#[test]
fn reading_a_description_is_bounded() {
    let _turn = turn();
    let mut worst = 0;
    let mut read = |what: &str, artifact: &Artifact| {
        let bytes = artifact.onnx.encode_to_vec();
        assert!(bytes.len() <= MAX_ONNX_BYTES, "{what}: {}", bytes.len());
        let (held, _) = heap(|| Description::parse(&bytes).is_ok());
        assert!(
            held < 256 << 20,
            "{what}: {held} bytes from {}",
            bytes.len()
        );
        worst = worst.max(held);
    };
    let attribute = AttributeProto::default();
    let many = |change: &dyn Fn(&mut Artifact)| {
        let mut artifact = Fixture::default().build();
        change(&mut artifact);
        artifact
    };
    read(
        "attributes",
        &many(&|a| a.graph().node[0].attribute = vec![attribute.clone(); MAX_MESSAGES - 1000]),
    );
    read(
        "nodes",
        &many(&|a| a.graph().node = vec![NodeProto::default(); MAX_MESSAGES - 1000]),
    );
    read(
        "names",
        &many(&|a| a.graph().node[0].input = vec!["a".into(); MAX_FIELDS - 5000]),
    );
    read(
        "packed numbers",
        &many(&|a| {
            a.graph().initializer.push(TensorProto {
                int64_data: vec![0; MAX_ONNX_BYTES - 100_000],
                ..Default::default()
            });
        }),
    );
    let json = |key: &str, open: &str, each: &str, close: &str| {
        let count = (MAX_METADATA_BYTES - 10_000) / each.len();
        let text = format!("{open}{}{close}", each.repeat(count).trim_end_matches(','));
        many(&|a| a.set_prop(key, &text))
    };
    let tensor = r#"{"name":"","shape":[],"dtype":"f32","offset":0},"#;
    read("tensors", &json("dwf.layout", "[", tensor, "]"));
    let shape = r#"[{"name":"a","shape":["#;
    read(
        "dimensions",
        &json("dwf.layout", shape, "1,", r#"],"dtype":"f32","offset":0}]"#),
    );
    read(
        "classes",
        &json("dwf.condition", r#"{"classes":["#, "\"\",", "]}"),
    );
    read(
        "row",
        &json(
            "dwf.condition",
            r#"{"axes":[],"unconditional":["#,
            "0,",
            "]}",
        ),
    );
    read("brackets", &json("dwf.layout", "", "[", ""));
    assert!(worst > 16 << 20, "nothing grew: {worst}");
}
