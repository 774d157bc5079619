//! The graphs that a GPU runs, on host memory and ONNX Runtime's CPU provider: all of the way but
//! the driver and the kernels. With DWF_GPU_CHECK set to a GPU's number they run there instead
//! (`make gpu-check`).

#![allow(clippy::print_stdout, reason = "the figures of `make gpu-check`")]

#[path = "../../tests/common/mod.rs"]
mod common;

use std::sync::{Arc, Mutex};

use half::{bf16, f16};

use self::common::{
    Fixture,
    networks::{UNTOUCHED, relative_error, sample},
};
use super::*;
use crate::{
    Flow, ModelOptions, Progress,
    artifact::Float,
    condition::{Condition, ConditionSchema},
    device::{Block, cuda::Cuda},
    layout::{DType, Layout, TensorKind, Transform},
    log::{self, Level},
    metadata::BasisKind,
    ode::{Grid, Method},
    onnx::{AttributeProto, NodeProto, TensorProto, attribute_type, data_type},
    resident::Place,
    trajectory::Precision,
};

/// The GPU to test on, if not host memory.
fn gpu() -> Option<i32> {
    let text = std::env::var("DWF_GPU_CHECK").ok()?;
    Some(text.parse().expect("DWF_GPU_CHECK is a GPU's number"))
}

/// Largest relative difference to the loop on the CPU. The same float32 operations, which only
/// fusions and batch sizes order differently, and on a GPU its own kernels; float16 rounds to 5e-4
/// at every operation of the velocity network, not in the state.
fn tolerance(precision: Precision) -> f64 {
    match (precision, gpu()) {
        (Precision::Single, None) => 1e-5,
        (Precision::Single, Some(_)) => 1e-4,
        (Precision::Half, _) => 5e-3,
    }
}

fn open(fixture: &Fixture) -> Model {
    let folder = tempfile::tempdir().unwrap();
    Model::open(fixture.write(folder.path()), &ModelOptions::default()).unwrap()
}

/// What the library warns of from here on: that a trajectory runs without being recorded, say. Only
/// on a GPU, where tests run one at a time; the hook is the process's.
fn warnings() -> Warnings {
    let said = Warnings::default();
    if gpu().is_some() {
        let said = said.0.clone();
        let hook = move |_, message: &str| said.lock().unwrap().push(message.into());
        log::set(Level::Warn, Some(Box::new(hook)));
    }
    said
}

#[derive(Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    fn take(self) -> Vec<String> {
        if gpu().is_some() {
            log::set(Level::Warn, None);
        }
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn place(precision: Precision, limit: usize) -> Place {
    Place {
        space: match gpu() {
            None => Space::Host,
            Some(device_id) => Space::Cuda(Cuda::open(device_id).unwrap()),
        },
        precision,
        limit,
    }
}

fn pods<T: bytemuck::AnyBitPattern>(bytes: &[u8]) -> Vec<T> {
    let pods = bytes.chunks_exact(size_of::<T>());
    pods.map(bytemuck::pod_read_unaligned).collect()
}

/// Memory of the device, as a caller has it.
struct DeviceMemory {
    block: Block,
    space: Space,
}

impl DeviceMemory {
    fn new(space: &Space, bytes: &[u8]) -> Self {
        let mut block = space.allocate(bytes.len()).unwrap();
        // SAFETY: the block is as long; the copy is waited for.
        unsafe { space.upload(bytes, block.address()) }.unwrap();
        space.wait().unwrap();
        Self {
            block,
            space: space.clone(),
        }
    }

    fn address(&mut self) -> *mut u8 {
        self.block.address()
    }

    fn rows<'a>(&mut self, dtype: DType) -> Output<'a> {
        let device_id = gpu().unwrap_or(0);
        // SAFETY: tests keep the memory until the call has returned.
        unsafe { Output::from_raw(self.address(), self.block.bytes(), dtype) }.on_gpu(device_id)
    }

    fn read(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; self.block.bytes()];
        let from = self.address();
        // SAFETY: the block is as long.
        unsafe { self.space.download(from, &mut bytes) }.unwrap();
        bytes
    }

    fn floats(&mut self) -> Vec<f32> {
        pods(&self.read())
    }
}

fn try_device(model: &Model, place: &Place, max_batch: usize) -> Result<Sampler> {
    let runtime = Runtime::load(None).unwrap();
    Sampler::on_device(model, runtime, place, max_batch, Budget::new(model, 1, 0))
}

fn device(model: &Model, precision: Precision, max_batch: usize) -> Sampler {
    try_device(model, &place(precision, usize::MAX), max_batch).unwrap()
}

fn cpu(model: &Model) -> Sampler {
    let options = SamplerOptions {
        device: Device::Cpu,
        ..Default::default()
    };
    Sampler::new(model, &options).unwrap()
}

fn options<'a>(seed: u64, count: usize) -> SampleOptions<'a> {
    SampleOptions {
        seed,
        first_index: 5,
        count,
        ..Default::default()
    }
}

fn classes() -> Fixture {
    let names = ["a", "b", "c"].map(String::from).to_vec();
    Fixture {
        condition: Some(Condition {
            schema: ConditionSchema::Classes(names),
            unconditional: Some(vec![0.0; 3]),
        }),
        ..Fixture::default()
    }
}

/// A network of `weights` weights in three tensors, the middle one of logarithms, say: it begins and
/// ends within panels and covers some.
fn three(weights: usize, middle: Transform) -> Layout {
    let tensor = |name: &str, count| (name.into(), vec![count], DType::F32, TensorKind::Parameter);
    let third = weights / 3;
    let tensors = [("a", third), ("middle", third), ("b", weights - 2 * third)];
    Layout::pack(tensors.map(|(name, count)| tensor(name, count)))
        .unwrap()
        .transformed(middle, |tensor| tensor.name == "middle")
}

#[test]
fn the_trajectory_as_one_graph() {
    let bases = [BasisKind::Identity, BasisKind::Diagonal, BasisKind::Linear];
    let mut fixtures: Vec<Fixture> = bases.map(Fixture::with_basis).into();
    fixtures.extend(bases.map(|basis| Fixture::with_basis(basis).with_logs()));
    fixtures.push(Fixture {
        basis_float: Float::F32,
        weight_float: Float::F32,
        ..Fixture::default()
    });
    let warnings = warnings();
    for fixture in fixtures {
        let model = open(&fixture);
        let mut loops = cpu(&model);
        for precision in [Precision::Single, Precision::Half] {
            let most = tolerance(precision);
            let mut largest = 0.0f64;
            let mut graphs = device(&model, precision, 4);
            for (method, steps, grid) in [
                (Method::Rk4, 8, Grid::Uniform),
                (Method::Heun, 3, Grid::Stretched),
            ] {
                let solver = Some(Solver::fixed(method, steps, grid));
                // Buckets of 1, 2 and 4 networks, the last ones padded, and each of them again.
                for (seed, count) in [(1, 1), (2, 2), (3, 3), (4, 7), (1, 1), (4, 7)] {
                    let options = || SampleOptions {
                        solver,
                        ..options(seed, count)
                    };
                    let found = sample(&mut graphs, options());
                    let error = relative_error(&found, &sample(&mut loops, options()));
                    assert!(
                        error < most,
                        "{precision:?} {method:?} {count}: {error:.1e}"
                    );
                    assert_eq!(found, sample(&mut graphs, options()));
                    largest = largest.max(error);
                }
            }
            if gpu().is_some() {
                let basis = fixture.basis;
                println!("{basis:?}, {precision:?}: at most {largest:.1e} from the CPU's networks");
            }
        }
    }
    let warnings = warnings.take();
    assert!(warnings.is_empty(), "not recorded: {warnings:?}");
}

/// float32 in the graph that is neither stored nor given: what a float16 network computes with too.
#[test]
fn constants_among_the_nodes() {
    let mut artifact = Fixture::default().build();
    let graph = artifact.onnx.graph.as_mut().unwrap();
    let last = graph.node.last_mut().unwrap();
    last.output = vec!["raw".into()];
    let node = |op: &str, inputs: &[&str], output: &str, attribute| NodeProto {
        op_type: Some(op.into()),
        input: inputs.iter().map(|input| (*input).into()).collect(),
        output: vec![output.into()],
        attribute,
        ..NodeProto::default()
    };
    let one = TensorProto {
        data_type: Some(data_type::FLOAT),
        float_data: vec![1.0],
        ..TensorProto::default()
    };
    let attribute = |name: &str, kind| AttributeProto {
        name: Some(name.into()),
        r#type: Some(kind),
        ..AttributeProto::default()
    };
    let value = AttributeProto {
        t: Some(one),
        ..attribute("value", attribute_type::TENSOR)
    };
    let float = AttributeProto {
        f: Some(0.5),
        ..attribute("value_float", attribute_type::FLOAT)
    };
    graph.node.extend([
        node("Constant", &[], "one", vec![value]),
        node("Constant", &[], "half", vec![float]),
        node("Mul", &["raw", "one"], "whole", Vec::new()),
        node("Mul", &["whole", "half"], "v", Vec::new()),
    ]);
    let folder = tempfile::tempdir().unwrap();
    let path = artifact.write(folder.path());
    let model = Model::open(path, &ModelOptions::default()).unwrap();
    let expected = sample(&mut cpu(&model), options(3, 2));
    for precision in [Precision::Single, Precision::Half] {
        let found = sample(&mut device(&model, precision, 4), options(3, 2));
        let error = relative_error(&found, &expected);
        assert!(error < tolerance(precision), "{precision:?}: {error:.1e}");
    }
}

/// Every thread that comes to a sampler finds what the first has left, and leaves nothing.
#[test]
fn threads_that_come_and_go() {
    let model = open(&Fixture::default());
    let place = place(Precision::Half, usize::MAX);
    let mut graphs = try_device(&model, &place, 4).unwrap();
    let expected = sample(&mut graphs, options(3, 3));
    let mut in_a_thread = |_| {
        std::thread::scope(|scope| {
            let found = scope.spawn(|| sample(&mut graphs, options(3, 3)));
            assert_eq!(found.join().unwrap(), expected);
        });
    };
    (0..5).for_each(&mut in_a_thread);
    let free = || match &place.space {
        Space::Host => 0,
        Space::Cuda(gpu) => gpu.free_memory().unwrap(),
    };
    let before = free();
    (0..50).for_each(&mut in_a_thread);
    assert_eq!(free(), before);
}

/// Samplers that were freed leave nothing either.
#[test]
fn samplers_that_come_and_go() {
    let model = open(&Fixture::reference());
    let place = place(Precision::Half, usize::MAX);
    let one = || {
        let mut sampler = try_device(&model, &place, 4).unwrap();
        sample(&mut sampler, options(3, 3))
    };
    let expected = one();
    let free = || match &place.space {
        Space::Host => 0,
        Space::Cuda(gpu) => gpu.free_memory().unwrap(),
    };
    let before = free();
    for _ in 0..10 {
        assert_eq!(one(), expected);
    }
    // The driver gives memory in pieces of 2 MiB.
    assert!(before.saturating_sub(free()) <= 4 << 20);
}

/// The caller's threads keep the context that they have.
#[test]
fn the_callers_context_stays() {
    let Space::Cuda(gpu) = place(Precision::Half, 0).space else {
        return;
    };
    let model = open(&Fixture::default());
    std::thread::spawn(move || {
        assert!(gpu.current().unwrap().is_null());
        let mut graphs = device(&model, Precision::Half, 4);
        let mut counted = |_: Progress| Flow::Continue;
        let steps = SampleOptions {
            progress: Some(&mut counted),
            ..options(3, 3)
        };
        sample(&mut graphs, options(3, 3));
        sample(&mut graphs, steps);
        drop(graphs);
        assert!(gpu.current().unwrap().is_null());
    })
    .join()
    .unwrap();
}

#[test]
fn conditions_and_guidance_in_the_graph() {
    let model = open(&classes());
    let (mut graphs, mut loops) = (device(&model, Precision::Single, 4), cpu(&model));
    let rows = [
        1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0,
    ];
    for condition in [None, Some(&rows[..3]), Some(&rows[..])] {
        for guidance in [1.0, 2.5, 0.0] {
            if condition.is_none() && guidance != 1.0 {
                continue;
            }
            let options = || SampleOptions {
                condition,
                guidance,
                ..options(3, 5)
            };
            let found = sample(&mut graphs, options());
            let error = relative_error(&found, &sample(&mut loops, options()));
            assert!(
                error < tolerance(Precision::Single),
                "{condition:?} {guidance}: {error:.1e}"
            );
        }
    }
}

/// What cannot be one graph runs evaluation by evaluation, on the same device.
#[test]
fn callbacks_and_adaptive_steps() {
    let model = open(&Fixture::default());
    let (mut graphs, mut loops) = (device(&model, Precision::Single, 4), cpu(&model));
    let adaptive = || SampleOptions {
        solver: Some(Solver::adaptive(1e-4)),
        ..options(3, 6)
    };
    let found = sample(&mut graphs, adaptive());
    let error = relative_error(&found, &sample(&mut loops, adaptive()));
    assert!(error < tolerance(Precision::Single), "{error:.1e}");

    let mut seen = Vec::new();
    let mut record = |progress: Progress| {
        seen.push((progress.done, progress.total));
        Flow::Continue
    };
    let counted = SampleOptions {
        progress: Some(&mut record),
        ..options(3, 6)
    };
    let found = sample(&mut graphs, counted);
    let error = relative_error(&found, &sample(&mut graphs, options(3, 6)));
    assert!(error < tolerance(Precision::Single), "{error:.1e}");
    let expected: Vec<_> = (0..64).map(|done| (done, 64)).collect();
    assert_eq!(seen, expected);

    let mut cancel = |progress: Progress| match progress.done {
        40 => Flow::Cancel,
        _ => Flow::Continue,
    };
    let cancelled = SampleOptions {
        progress: Some(&mut cancel),
        ..options(3, 6)
    };
    let mut weights = vec![UNTOUCHED; 6 * 148];
    let error = graphs.sample(cancelled, &mut weights[..]).unwrap_err();
    assert_eq!(error.status(), Status::Cancelled);
    assert!(weights.iter().all(|weight| weight.is_nan()));
}

/// Seven panels that stay on the device, and as many that are sent with every batch.
#[test]
fn panels_resident_and_streamed() {
    const WEIGHTS: usize = 400_001;
    for float in [Float::F16, Float::F32] {
        let model = open(&Fixture {
            layout: three(WEIGHTS, Transform::Log),
            basis_float: float,
            ..Fixture::default()
        });
        let with = |limit| try_device(&model, &place(Precision::Single, limit), 1024);
        let space = place(Precision::Single, 0).space;
        let mut resident = with(usize::MAX).unwrap();
        let all = resident.info().gpu_bytes;
        let mut streamed = with(WEIGHTS * 13 * float.size()).unwrap();
        assert!(!resident.info().basis_streamed && streamed.info().basis_streamed);
        assert!(streamed.info().gpu_bytes < all);
        assert!(streamed.info().workspace_bytes < 64 << 20);
        let mut loops = cpu(&model);
        for count in [1, 3] {
            let expected = sample(&mut loops, options(9, count));
            for sampler in [&mut resident, &mut streamed] {
                for _ in 0..2 {
                    let error = relative_error(&sample(sampler, options(9, count)), &expected);
                    assert!(error < tolerance(Precision::Single), "{error:.1e}");
                }
                let mut found = DeviceMemory::new(&space, &vec![0; 4 * count * (WEIGHTS + 3)]);
                let output = found.rows(DType::F32).with_row_stride(WEIGHTS + 3);
                sampler.sample(options(9, count), output).unwrap();
                let found = found.floats();
                let rows = found.chunks(WEIGHTS + 3).zip(expected.chunks(WEIGHTS));
                for (row, expected) in rows {
                    let error = relative_error(&row[..WEIGHTS], expected);
                    assert!(error < tolerance(Precision::Single), "{error:.1e}");
                    assert_eq!(row[WEIGHTS..], [0.0; 3]);
                }
                let mut halves = DeviceMemory::new(&space, &vec![0; 2 * count * WEIGHTS]);
                let output = halves.rows(DType::F16);
                sampler.sample(options(9, count), output).unwrap();
                let bits: Vec<u16> = pods(&halves.read());
                let found: Vec<f32> = bits
                    .into_iter()
                    .map(|bits| f16::from_bits(bits).to_f32())
                    .collect();
                // Half a unit in the last place: 5e-4 of a weight at most.
                let error = relative_error(&found, &expected);
                assert!(error < 5e-4, "{error:.1e}");
            }
        }
        // What does not fit by a byte goes into narrower panels; where those do not fit, streams.
        let narrower = with(all - 1).unwrap();
        assert!(!narrower.info().basis_streamed && narrower.info().gpu_bytes < all);
        let mut fitted = false;
        for limit in (18..28).map(|bits| 1 << bits) {
            match with(limit) {
                Ok(sampler) => {
                    fitted = true;
                    assert!(sampler.info().gpu_bytes <= limit, "{limit}: {sampler:?}");
                }
                Err(error) => assert!(!fitted, "{limit}: {error}"),
            }
        }
        assert!(fitted);
        let error = with(1 << 17).unwrap_err();
        assert_eq!(error.status(), Status::OutOfMemory);
        assert!(error.message().contains("gpu_memory_limit"), "{error}");
    }
}

/// Samplers of one model, each recording its own graphs while the others run.
#[test]
fn threads_that_share_a_model() {
    let model = open(&Fixture::default());
    let counts = [1, 3, 7];
    let mut loops = cpu(&model);
    let expected = counts.map(|count| sample(&mut loops, options(3, count)));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut graphs = device(&model, Precision::Single, 4);
                for (count, expected) in counts.iter().zip(&expected) {
                    for _ in 0..3 {
                        let found = sample(&mut graphs, options(3, *count));
                        let error = relative_error(&found, expected);
                        assert!(error < tolerance(Precision::Single), "{count}: {error:.1e}");
                    }
                }
            });
        }
    });
}

/// A sampler may go to another thread; ONNX Runtime's recordings are of one.
#[test]
fn a_sampler_that_moves_to_another_thread() {
    let model = open(&Fixture::default());
    let mut graphs = device(&model, Precision::Single, 4);
    let here = sample(&mut graphs, options(3, 7));
    let (there, mut graphs) = std::thread::spawn(move || {
        let networks = sample(&mut graphs, options(3, 7));
        (networks, graphs)
    })
    .join()
    .unwrap();
    assert_eq!(here, there);
    assert_eq!(here, sample(&mut graphs, options(3, 7)));
}

/// The caller's memory on the device: every type, rows with a stride, and a pointer a tensor.
#[test]
fn output_into_device_memory() {
    let model = open(&Fixture::default().with_logs());
    let layout = &model.metadata().layout;
    let place = place(Precision::Single, usize::MAX);
    let mut sampler = try_device(&model, &place, 4).unwrap();
    let expected = sample(&mut sampler, options(3, 6));
    let (weights, stride) = (layout.len(), layout.len() + 7);

    let untouched = vec![UNTOUCHED; 6 * stride];
    let mut wide = DeviceMemory::new(&place.space, bytemuck::cast_slice(&untouched));
    let output = wide.rows(DType::F32).with_row_stride(stride);
    sampler.sample(options(3, 6), output).unwrap();
    for (row, expected) in wide.floats().chunks(stride).zip(expected.chunks(weights)) {
        assert_eq!(row[..weights], *expected);
        assert!(row[weights..].iter().all(|gap| *gap == UNTOUCHED));
    }

    for (dtype, widen, most) in [
        (
            DType::F16,
            (|bits| f16::from_bits(bits).to_f32()) as fn(u16) -> f32,
            1e-3,
        ),
        (DType::Bf16, |bits| bf16::from_bits(bits).to_f32(), 8e-3),
    ] {
        let mut halves = DeviceMemory::new(&place.space, &vec![0; 2 * expected.len()]);
        sampler.sample(options(3, 6), halves.rows(dtype)).unwrap();
        let bits: Vec<u16> = pods(&halves.read());
        let found: Vec<f32> = bits.into_iter().map(widen).collect();
        // Half a unit in the last place of every weight.
        for (found, expected) in found.iter().zip(&expected) {
            assert!(
                (found - expected).abs() <= most * expected.abs() + 1e-6,
                "{dtype:?}"
            );
        }
    }

    let sizes: Vec<usize> = layout
        .tensors()
        .iter()
        .map(|spec| 4 * spec.count())
        .collect();
    let mut tensors: Vec<DeviceMemory> = (0..6)
        .flat_map(|_| &sizes)
        .map(|bytes| DeviceMemory::new(&place.space, &vec![0; *bytes]))
        .collect();
    let pointers: Vec<*mut u8> = tensors.iter_mut().map(DeviceMemory::address).collect();
    // SAFETY: `sizes` are those of the blocks.
    let output = unsafe { Output::from_raw_tensors(&pointers, &sizes, DType::F32) };
    sampler
        .sample(options(3, 6), output.on_gpu(gpu().unwrap_or(0)))
        .unwrap();
    let found: Vec<f32> = tensors.iter_mut().flat_map(DeviceMemory::floats).collect();
    assert_eq!(found, expected);
}

/// A weight that float16 cannot hold is found on the device, and named; the call's networks are NaN.
#[test]
fn overflow_in_device_memory() {
    let model = open(&Fixture {
        spread: 2.5e4,
        ..Fixture::default()
    });
    let weights = model.metadata().layout.len();
    let place = place(Precision::Single, usize::MAX);
    let mut sampler = try_device(&model, &place, 4).unwrap();
    let overflows = |network: &[f32]| network.iter().any(|weight| weight.abs() >= 65520.0);
    // A seed with good networks before the bad one.
    let (seed, first) = (0..)
        .find_map(|seed| {
            let single = sample(&mut sampler, options(seed, 12));
            let first = single.chunks(weights).position(overflows)?;
            (first > 0).then_some((seed, first))
        })
        .unwrap();
    let ones = vec![f16::ONE; 12 * weights];
    let mut halves = DeviceMemory::new(&place.space, bytemuck::cast_slice(&ones));
    let error = sampler
        .sample(options(seed, 12), halves.rows(DType::F16))
        .unwrap_err();
    assert_eq!(error.status(), Status::Diverged);
    let text = format!("network {} of seed {seed}", 5 + first);
    assert!(error.message().contains(&text), "{error}");
    assert!(error.message().contains("float32"), "{error}");
    let halves: Vec<f16> = pods(&halves.read());
    let finished = (first / 4 + 1) * 4;
    assert!(
        halves[..finished * weights]
            .iter()
            .all(|weight| weight.is_nan())
    );
    assert!(
        halves[finished * weights..]
            .iter()
            .all(|weight| *weight == f16::ONE)
    );
}

#[test]
fn a_trajectory_that_diverges_in_the_graph() {
    let model = open(&Fixture {
        gain: 1e39,
        weight_float: Float::F32,
        ..Fixture::default()
    });
    let mut sampler = device(&model, Precision::Single, 4);
    let mut weights = vec![UNTOUCHED; 3 * 148];
    let error = sampler.sample(options(3, 3), &mut weights[..]).unwrap_err();
    assert_eq!(error.status(), Status::Diverged);
    assert!(error.message().contains("network 5 of seed 3"), "{error}");
    assert!(error.message().contains("more steps"), "{error}");
    assert!(weights.iter().all(|weight| weight.is_nan()));
}

#[test]
fn buffers_that_a_sampler_cannot_write() {
    let model = open(&Fixture::default());
    let mut weights = vec![UNTOUCHED; 148];
    let mut fails = |sampler: &mut Sampler, gpu, status, text: &str| {
        let output = Output::from(&mut weights[..]).on_gpu(gpu);
        let error = sampler.sample(options(3, 1), output).unwrap_err();
        assert_eq!(error.status(), status);
        assert!(error.message().contains(text), "{error}");
    };
    let mut graphs = device(&model, Precision::Single, 4);
    let other = gpu().unwrap_or(0) + 1;
    fails(
        &mut graphs,
        other,
        Status::InvalidArgument,
        &format!("GPU {other}"),
    );
    fails(&mut cpu(&model), 0, Status::Unsupported, "DWF_DEVICE_CUDA");
    assert!(weights.iter().all(|weight| *weight == UNTOUCHED));
}

/// `DWF_DEVICE_AUTO` takes a GPU only if it computes what the CPU does.
#[test]
fn a_device_is_checked_against_the_cpu() {
    let model = open(&classes());
    let mut graphs = device(&model, Precision::Half, 4);
    graphs.check_against(&mut cpu(&model)).unwrap();
    let other = open(&Fixture {
        seed: 2,
        ..classes()
    });
    let error = graphs.check_against(&mut cpu(&other)).unwrap_err();
    assert!(error.message().contains("differs"), "{error}");
}

/// What [`Device::Auto`] takes.
#[test]
fn the_best_device() {
    let model = open(&Fixture::reference());
    let mut best = Sampler::new(&model, &SamplerOptions::default()).unwrap();
    let expected = match gpu() {
        Some(_) => Device::Cuda,
        None => Device::Cpu,
    };
    assert_eq!(best.info().device, expected);
    let found = sample(&mut best, options(1, 3));
    let error = relative_error(&found, &sample(&mut cpu(&model), options(1, 3)));
    assert!(error < tolerance(Precision::Half), "{error:.1e}");
}

/// The first step of tests/gpu/run.
#[test]
#[ignore = "needs a GPU"]
fn a_gpu_is_there() {
    match Cuda::open(gpu().unwrap_or(0)) {
        Ok(cuda) => println!("\nGPU: {}", cuda.name()),
        Err(e) => panic!("\nGPU: {e}\n"),
    }
}

/// What tests/gpu/run compares with PyTorch on: the reference, and one with a network of ResNet-18's
/// size.
#[test]
#[ignore = "writes 2 GB into the folder DWF_REFERENCE"]
fn reference_artifacts() {
    let folder = std::env::var_os("DWF_REFERENCE").unwrap();
    Fixture::reference().write(folder.as_ref());
    Fixture {
        name: "large",
        layout: three(11_200_000, Transform::None),
        ..Fixture::reference()
    }
    .write(folder.as_ref());
}
