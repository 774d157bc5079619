//! What a sampler promises: networks that depend on seed and index alone, honest progress, and
//! nothing in the caller's buffer that could be taken for a network when it is none.

mod common;

use std::{path::Path, thread};

use common::{
    Fixture,
    networks::{UNTOUCHED, sample},
};
use dwf::{
    Device, Error, Flow, MAX_BATCH, MAX_THREADS, Model, ModelOptions, Output, Progress,
    SampleOptions, Sampler, SamplerOptions, Status,
    artifact::Float,
    condition::{Axis, Condition, ConditionSchema},
    layout::{DType, Layout, TensorKind},
    metadata::BasisKind,
    ode::{Grid, MAX_STEPS, Method, Solver},
};
use half::{bf16, f16};

/// Weights of a network of the default fixture.
const WEIGHTS: usize = 148;
/// Evaluations of the default fixture's solver.
const EVALUATIONS: u64 = 32;

fn model(fixture: &Fixture) -> Model {
    let folder = tempfile::tempdir().unwrap();
    // The mapping outlives the file's name.
    Model::open(fixture.write(folder.path()), &Default::default()).unwrap()
}

/// On one thread, so that batches and evaluations come in order.
fn sampler(model: &Model, max_batch: usize) -> Sampler {
    let options = SamplerOptions {
        max_batch,
        threads: 1,
        ..Default::default()
    };
    Sampler::new(model, &options).unwrap()
}

fn networks<'a>(seed: u64, first_index: u64, count: usize) -> SampleOptions<'a> {
    SampleOptions {
        seed,
        first_index,
        count,
        ..Default::default()
    }
}

/// Samples where it must fail; the error, and what is in the buffer afterwards.
#[track_caller]
fn fails(sampler: &mut Sampler, options: SampleOptions, status: Status) -> (Error, Vec<f32>) {
    let len = options.count * sampler.model().metadata().layout.len();
    let mut weights = vec![UNTOUCHED; len];
    let error = sampler.sample(options, &mut weights[..]).unwrap_err();
    assert_eq!(error.status(), status, "{error}");
    (error, weights)
}

/// How many networks are NaN throughout, none being anything but that or untouched.
#[track_caller]
fn nan_networks(weights: &[f32]) -> usize {
    let networks = weights.chunks_exact(WEIGHTS);
    let nan = |network: &&[f32]| network.iter().all(|weight| weight.is_nan());
    let untouched = |network: &&[f32]| network.iter().all(|weight| *weight == UNTOUCHED);
    let known = networks.clone().filter(|n| nan(n) || untouched(n));
    assert_eq!(
        known.count(),
        networks.len(),
        "a network that is partly written"
    );
    networks.filter(nan).count()
}

fn axes() -> Fixture {
    let axis = |name: &str, min, max| Axis {
        name: name.into(),
        min,
        max,
    };
    Fixture {
        condition: Some(Condition {
            schema: ConditionSchema::Axes(vec![
                axis("speed", f32::MIN, f32::MAX),
                axis("caution", 0.0, 1.0),
            ]),
            unconditional: Some(vec![0.0, 0.0]),
        }),
        ..Default::default()
    }
}

#[test]
fn the_same_options_give_the_same_bits() {
    let model = model(&Fixture::default());
    let mut one = sampler(&model, 0);
    let first = sample(&mut one, networks(3, 5, 10));
    assert_eq!(sample(&mut one, networks(3, 5, 10)), first);
    assert_eq!(sample(&mut sampler(&model, 0), networks(3, 5, 10)), first);
}

#[test]
fn threads_do_not_change_a_bit() {
    let model = model(&Fixture::default());
    let with = |threads| {
        let options = SamplerOptions {
            threads,
            ..Default::default()
        };
        sample(
            &mut Sampler::new(&model, &options).unwrap(),
            networks(3, 5, 50),
        )
    };
    assert_eq!(with(1), with(2));
    assert_eq!(with(1), with(5));
}

#[test]
fn a_network_is_the_same_in_every_call() {
    let model = model(&Fixture::default());
    let mut single = sampler(&model, 1);
    let all = sample(&mut single, networks(3, 0, 8));
    for i in 0..8 {
        let alone = sample(&mut single, networks(3, i, 1));
        let row = i as usize * WEIGHTS;
        assert_eq!(alone, all[row..row + WEIGHTS], "network {i}");
    }
    assert_eq!(sample(&mut single, networks(3, 5, 3)), all[5 * WEIGHTS..]);
}

/// Other batch sizes may round differently: 1e-5 of the largest weight, as the header says.
#[test]
fn a_network_is_nearly_the_same_in_every_batch() {
    let model = model(&Fixture::default());
    let alone = sample(&mut sampler(&model, 1), networks(3, 0, 30));
    let largest = alone
        .iter()
        .fold(0f32, |most, weight| most.max(weight.abs()));
    for max_batch in [2, 7, 30, 100] {
        let batched = sample(&mut sampler(&model, max_batch), networks(3, 0, 30));
        for (a, b) in alone.iter().zip(batched) {
            assert!(
                (a - b).abs() <= 1e-5 * largest,
                "{a} and {b}, {max_batch} at a time"
            );
        }
    }
}

/// A sampler keeps what depends on the batch size between calls; it must notice a change.
#[test]
fn calls_of_changing_size_on_one_sampler() {
    let model = model(&Fixture::default());
    let mut kept = sampler(&model, 8);
    for count in [1, 3, 1, 8, 20, 3, 8] {
        let fresh = sample(&mut sampler(&model, 8), networks(3, 0, count));
        assert_eq!(sample(&mut kept, networks(3, 0, count)), fresh, "{count}");
    }
}

#[test]
fn the_workspace_is_bounded_by_the_batch() {
    let model = model(&Fixture::default());
    let mut sampler = sampler(&model, 4);
    sample(&mut sampler, networks(3, 0, 4));
    let bytes = sampler.info().workspace_bytes;
    sample(&mut sampler, networks(3, 0, 100));
    assert_eq!(sampler.info().workspace_bytes, bytes);
}

#[test]
fn seeds_and_indices_make_different_networks() {
    let model = model(&Fixture::default());
    let mut sampler = sampler(&model, 0);
    let keys = [(0, 0), (0, 1), (1, 0), (1, 1), (u64::MAX, 0), (0, u64::MAX)];
    let all = keys.map(|(seed, index)| sample(&mut sampler, networks(seed, index, 1)));
    for (i, a) in all.iter().enumerate() {
        for (j, b) in all[..i].iter().enumerate() {
            assert_ne!(a, b, "{:?} and {:?}", keys[i], keys[j]);
        }
    }
}

#[test]
fn half_precision_is_single_precision_rounded() {
    let model = model(&Fixture::default());
    let mut sampler = sampler(&model, 0);
    let single = sample(&mut sampler, networks(3, 0, 5));
    let mut halves = vec![f16::ZERO; single.len()];
    sampler.sample(networks(3, 0, 5), &mut halves[..]).unwrap();
    let rounded: Vec<f16> = single.iter().map(|x| f16::from_f32(*x)).collect();
    assert_eq!(halves, rounded);
    let mut brains = vec![bf16::ZERO; single.len()];
    sampler.sample(networks(3, 0, 5), &mut brains[..]).unwrap();
    let rounded: Vec<bf16> = single.iter().map(|x| bf16::from_f32(*x)).collect();
    assert_eq!(brains, rounded);
}

/// A layout that several threads decode, in stretches that do not end where tensors do.
fn wide_layout() -> Layout {
    let tensor = |name: &str, shape: &[usize]| {
        (
            name.to_owned(),
            shape.to_vec(),
            DType::F32,
            TensorKind::Parameter,
        )
    };
    Layout::pack([
        tensor("big", &[300, 133]),
        tensor("scalar", &[]),
        tensor("odd", &[7, 211]),
    ])
    .unwrap()
}

#[test]
fn scattered_tensors_hold_what_rows_hold() {
    let logs = Fixture::default().with_logs().layout;
    for layout in [common::fixture::small_layout(), wide_layout(), logs] {
        let model = model(&Fixture {
            layout: layout.clone(),
            ..Default::default()
        });
        let mut sampler = sampler(&model, 2);
        let rows = sample(&mut sampler, networks(3, 0, 3));
        let sizes: Vec<usize> = layout
            .tensors()
            .iter()
            .map(|spec| 4 * spec.count())
            .collect();
        let mut tensors: Vec<Vec<f32>> = (0..3)
            .flat_map(|_| layout.tensors())
            .map(|spec| vec![UNTOUCHED; spec.count()])
            .collect();
        let pointers: Vec<*mut u8> = tensors.iter_mut().map(|t| t.as_mut_ptr().cast()).collect();
        // SAFETY: `sizes` are those of the vectors.
        let output = unsafe { Output::from_raw_tensors(&pointers, &sizes, DType::F32) };
        sampler.sample(networks(3, 0, 3), output).unwrap();
        assert_eq!(tensors.concat(), rows);
    }
}

#[test]
fn a_row_stride_leaves_gaps_alone() {
    let model = model(&Fixture::default());
    let mut sampler = sampler(&model, 2);
    let rows = sample(&mut sampler, networks(3, 0, 3));
    let stride = WEIGHTS + 9;
    let mut wide = vec![UNTOUCHED; 2 * stride + WEIGHTS];
    let output = Output::from(&mut wide[..]).with_row_stride(stride);
    sampler.sample(networks(3, 0, 3), output).unwrap();
    for (row, expected) in wide.chunks(stride).zip(rows.chunks(WEIGHTS)) {
        assert_eq!(row[..WEIGHTS], *expected);
        assert!(row[WEIGHTS..].iter().all(|gap| *gap == UNTOUCHED));
    }
    let output = Output::from(&mut wide[..]).with_row_stride(WEIGHTS - 1);
    let error = sampler.sample(networks(3, 0, 3), output).unwrap_err();
    assert_eq!(error.status(), Status::InvalidArgument);
    assert!(error.message().contains("row_stride"), "{error}");
}

#[test]
fn progress_counts_every_evaluation() {
    let model = model(&axes());
    let condition = [0.5, 0.5];
    for (count, batches, guidance, networks_a_velocity) in
        [(1, 1, 1.0, 1), (7, 3, 1.0, 1), (7, 3, 2.0, 2)]
    {
        let mut seen = Vec::new();
        let mut record = |progress: Progress| {
            seen.push(progress);
            Flow::Continue
        };
        let options = SampleOptions {
            condition: Some(&condition),
            guidance,
            progress: Some(&mut record),
            ..networks(3, 0, count)
        };
        sample(&mut sampler(&model, 3), options);
        let total = batches * networks_a_velocity * EVALUATIONS;
        let expected = (0..total).map(|done| Progress { done, total });
        assert_eq!(seen, expected.collect::<Vec<_>>());
    }
}

#[test]
fn cancelling_leaves_no_networks() {
    let model = model(&Fixture::default());
    let mut sampler = sampler(&model, 2);
    let expected = sample(&mut sampler, networks(3, 0, 6));
    for at in [0, 1, EVALUATIONS - 1, EVALUATIONS, 3 * EVALUATIONS - 1] {
        let mut calls = 0;
        let mut cancel = |progress: Progress| {
            calls += 1;
            match progress.done == at {
                true => Flow::Cancel,
                false => Flow::Continue,
            }
        };
        let options = SampleOptions {
            progress: Some(&mut cancel),
            ..networks(3, 0, 6)
        };
        let (_, weights) = fails(&mut sampler, options, Status::Cancelled);
        assert_eq!(calls, at + 1);
        let finished = 2 * (at / EVALUATIONS) as usize;
        assert!(nan_networks(&weights) >= finished, "cancelled at {at}");
        assert_eq!(sample(&mut sampler, networks(3, 0, 6)), expected);
    }
}

/// Threads share a batch: the calling one reports what all have begun, and stops all.
#[test]
fn progress_and_cancelling_with_several_threads() {
    let model = model(&Fixture::default());
    let options = SamplerOptions {
        threads: 3,
        max_batch: 6,
        ..Default::default()
    };
    let mut several = Sampler::new(&model, &options).unwrap();
    // Two batches of 6 and 3 networks, a third of each a thread.
    let total = 2 * 3 * EVALUATIONS;
    let mut seen = Vec::new();
    let mut record = |progress: Progress| {
        seen.push(progress.done);
        assert_eq!(progress.total, total);
        Flow::Continue
    };
    let recorded = SampleOptions {
        progress: Some(&mut record),
        ..networks(3, 0, 9)
    };
    let found = sample(&mut several, recorded);
    assert!(seen.is_sorted_by(|a, b| a < b));
    assert!(seen.len() as u64 >= 2 * EVALUATIONS);
    assert!(*seen.last().unwrap() <= total);
    // One thread has other batch sizes: the same networks up to float32 rounding.
    let expected = sample(&mut sampler(&model, 6), networks(3, 0, 9));
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found - expected).abs() < 1e-4, "{found} {expected}");
    }

    for at in 0..2 * EVALUATIONS {
        let (mut calls, mut done) = (0, 0);
        let mut cancel = |progress: Progress| {
            calls += 1;
            done = progress.done;
            match calls > at {
                true => Flow::Cancel,
                false => Flow::Continue,
            }
        };
        let options = SampleOptions {
            progress: Some(&mut cancel),
            ..networks(3, 0, 9)
        };
        let (error, weights) = fails(&mut several, options, Status::Cancelled);
        assert!(error.message().contains("cancelled"), "{error}");
        assert_eq!(calls, at + 1);
        let finished = if done <= total / 2 { 0 } else { 6 };
        assert!(nan_networks(&weights) >= finished, "cancelled at {at}");
    }
}

/// A thread whose share of a batch is done goes on reporting, and can cancel, while others evaluate.
#[test]
fn progress_and_cancelling_while_waiting_for_other_threads() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance/axes.onnx");
    let model = Model::open(path, &Default::default()).unwrap();
    let options = SamplerOptions {
        threads: 2,
        max_batch: 2,
        ..Default::default()
    };
    let mut two = Sampler::new(&model, &options).unwrap();
    let mut one = sampler(&model, 1);
    // An easy network for the calling thread and a hard one for the other.
    let conditions = [2.0, 1.0, 0.0, 0.0];
    fn hard<'a>(first: u64, conditions: &'a [f32]) -> SampleOptions<'a> {
        SampleOptions {
            solver: Some(Solver::adaptive(1e-6)),
            condition: Some(conditions),
            ..networks(0, first, conditions.len() / 2)
        }
    }
    let mut alone = |i: u64| {
        let mut count = 0;
        let mut record = |_: Progress| {
            count += 1;
            Flow::Continue
        };
        let options = SampleOptions {
            progress: Some(&mut record),
            ..hard(i, &conditions[2 * i as usize..][..2])
        };
        sample(&mut one, options);
        count
    };
    let (mine, others) = (alone(0), alone(1));
    assert!(mine < others, "{mine} {others}");

    // A busy machine may let the other thread end first, but not every time.
    let caller = thread::current().id();
    let reported = (0..1000).find(|_| {
        let mut seen = Vec::new();
        let mut record = |progress: Progress| {
            assert_eq!(thread::current().id(), caller);
            seen.push(progress.done);
            Flow::Continue
        };
        let options = SampleOptions {
            progress: Some(&mut record),
            ..hard(0, &conditions)
        };
        sample(&mut two, options);
        assert!(seen.is_sorted_by(|a, b| a < b), "{seen:?}");
        assert!(*seen.last().unwrap() <= mine + others, "{seen:?}");
        seen.len() as u64 > mine
    });
    assert!(reported.is_some(), "silent while the other thread works");

    let cancelled = (0..1000).find(|_| {
        let mut calls = 0;
        let mut cancel = |_: Progress| {
            calls += 1;
            match calls > mine {
                true => Flow::Cancel,
                false => Flow::Continue,
            }
        };
        let options = SampleOptions {
            progress: Some(&mut cancel),
            ..hard(0, &conditions)
        };
        let mut weights = vec![UNTOUCHED; 2 * model.metadata().layout.len()];
        let result = two.sample(options, &mut weights[..]);
        assert_eq!(result.is_err(), calls > mine);
        let Err(error) = result else { return false };
        assert_eq!(error.status(), Status::Cancelled, "{error}");
        assert_eq!(calls, mine + 1, "called again after it cancelled");
        assert!(weights.iter().all(|weight| weight.is_nan()));
        true
    });
    assert!(cancelled.is_some());
}

#[test]
fn cancelling_marks_every_kind_of_output() {
    let model = model(&Fixture::default());
    let mut sampler = sampler(&model, 1);
    let mut cancel = |progress: Progress| match progress.done == EVALUATIONS {
        true => Flow::Cancel,
        false => Flow::Continue,
    };
    let mut halves = vec![f16::ONE; 3 * WEIGHTS];
    let options = SampleOptions {
        progress: Some(&mut cancel),
        ..networks(3, 0, 3)
    };
    sampler.sample(options, &mut halves[..]).unwrap_err();
    assert!(halves[..WEIGHTS].iter().all(|weight| weight.is_nan()));
    assert!(
        halves[2 * WEIGHTS..]
            .iter()
            .all(|weight| *weight == f16::ONE)
    );

    let stride = WEIGHTS + 3;
    let mut brains = vec![bf16::ONE; 3 * stride];
    let options = SampleOptions {
        progress: Some(&mut cancel),
        ..networks(3, 0, 3)
    };
    let output = Output::from(&mut brains[..]).with_row_stride(stride);
    sampler.sample(options, output).unwrap_err();
    assert!(brains[..WEIGHTS].iter().all(|weight| weight.is_nan()));
    assert!(brains[WEIGHTS..stride].iter().all(|gap| *gap == bf16::ONE));
}

/// A condition that overflows the network makes one sample NaN, and that one is named.
#[test]
fn a_diverging_trajectory_is_named() {
    let model = model(&axes());
    let mut conditions = [0.5f32; 2 * 7];
    conditions[2 * 4] = f32::MAX;
    let options = SampleOptions {
        condition: Some(&conditions),
        ..networks(3, 100, 7)
    };
    let (error, weights) = fails(&mut sampler(&model, 3), options, Status::Diverged);
    assert!(error.message().contains("network 104 of seed 3"), "{error}");
    assert!(error.message().contains("use more steps"), "{error}");
    assert!(nan_networks(&weights) >= 3);

    // Advice that fits the call: an adaptive solver has no steps to be given.
    let adaptive = SampleOptions {
        condition: Some(&conditions),
        solver: Some(Solver::adaptive(1e-4)),
        guidance: 2.0,
        ..networks(3, 100, 7)
    };
    let (error, _) = fails(&mut sampler(&model, 3), adaptive, Status::Diverged);
    assert!(error.message().contains("network 104 of seed 3"), "{error}");
    assert!(!error.message().contains("more steps"), "{error}");
    assert!(error.message().contains("use another tolerance"), "{error}");
    assert!(error.message().contains("less guidance"), "{error}");
}

#[test]
fn a_weight_that_float16_cannot_hold_is_named() {
    let model = model(&Fixture {
        spread: 2.5e4,
        ..Default::default()
    });
    let mut sampler = sampler(&model, 4);
    let single = sample(&mut sampler, networks(3, 0, 12));
    let overflows = |network: &[f32]| network.iter().any(|weight| weight.abs() >= 65520.0);
    let first = single.chunks(WEIGHTS).position(overflows).unwrap();
    assert!(
        first > 0,
        "the fixture must have good networks before the bad one"
    );
    let mut halves = vec![f16::ONE; single.len()];
    let error = sampler
        .sample(networks(3, 0, 12), &mut halves[..])
        .unwrap_err();
    assert_eq!(error.status(), Status::Diverged);
    let text = format!("network {first} of seed 3");
    assert!(error.message().contains(&text), "{error}");
    assert!(error.message().contains("float32"), "{error}");
    assert!(
        halves[..first * WEIGHTS]
            .iter()
            .all(|weight| weight.is_nan())
    );
    let mut brains = vec![bf16::ONE; single.len()];
    sampler.sample(networks(3, 0, 12), &mut brains[..]).unwrap();
}

#[test]
fn a_weight_that_float32_cannot_hold_is_named() {
    let model = model(&Fixture {
        spread: 2e38,
        basis_float: Float::F32,
        ..Default::default()
    });
    let options = networks(3, 0, 4);
    let (error, weights) = fails(&mut sampler(&model, 0), options, Status::Diverged);
    assert!(error.message().contains("of seed 3"), "{error}");
    assert_eq!(nan_networks(&weights), 4);
}

#[test]
fn options_out_of_range() {
    let model = model(&Fixture::default());
    let mut sampler = sampler(&model, 0);
    let solver = |steps| SampleOptions {
        solver: Some(Solver::fixed(Method::Euler, steps, Grid::Uniform)),
        ..networks(3, 0, 1)
    };
    let guided = |guidance| SampleOptions {
        guidance,
        ..networks(3, 0, 1)
    };
    let conditioned = SampleOptions {
        condition: Some(&[1.0]),
        ..networks(3, 0, 1)
    };
    for (options, text) in [
        (networks(3, 0, 0), "count"),
        (networks(3, u64::MAX, 2), "first_index"),
        (networks(3, u64::MAX - 3, 5), "first_index"),
        (solver(0), "steps"),
        (solver(MAX_STEPS + 1), "steps"),
        (solver(usize::MAX), "steps"),
        (guided(f64::NAN), "guidance"),
        (guided(f64::INFINITY), "guidance"),
        (guided(2.0), "unconditional"),
        (conditioned, "no condition"),
    ] {
        let (error, weights) = fails(&mut sampler, options, Status::InvalidArgument);
        assert!(error.message().contains(text), "{error}");
        assert_eq!(nan_networks(&weights), 0);
    }
    sample(&mut sampler, solver(1));
    sample(&mut sampler, networks(3, u64::MAX - 4, 5));
}

#[test]
fn conditions_out_of_range() {
    let model = model(&axes());
    let mut sampler = sampler(&model, 0);
    for (condition, text) in [
        (&[0.0, 1.5][..], "'caution' is 1.5, outside 0 to 1"),
        (&[0.0, -0.1], "caution"),
        (&[0.0, f32::NAN], "caution"),
        (&[f32::INFINITY, 0.0], "speed"),
        (&[0.0, 0.0, 0.0, 2.0], "row 1"),
        (&[0.0], "1 values"),
        (&[], "0 values"),
        (&[0.0; 6], "6 values"),
    ] {
        let options = SampleOptions {
            condition: Some(condition),
            ..networks(3, 0, 2)
        };
        let (error, weights) = fails(&mut sampler, options, Status::InvalidArgument);
        assert!(error.message().contains(text), "{error}");
        assert_eq!(nan_networks(&weights), 0);
    }
}

#[test]
fn a_buffer_one_weight_too_small() {
    let model = model(&Fixture::default());
    let mut weights = vec![UNTOUCHED; 3 * WEIGHTS - 1];
    let result = sampler(&model, 0).sample(networks(3, 0, 3), &mut weights[..]);
    let error = result.unwrap_err();
    assert_eq!(error.status(), Status::BufferTooSmall);
    assert!(error.message().contains("1772 bytes"), "{error}");
    assert!(error.message().contains("1776"), "{error}");
    assert!(weights.iter().all(|weight| *weight == UNTOUCHED));
}

#[test]
fn sampler_options_out_of_range() {
    let model = model(&Fixture::default());
    let check = |options: SamplerOptions, status, text: &str| {
        let error = Sampler::new(&model, &options).unwrap_err();
        assert_eq!(error.status(), status, "{error}");
        assert!(error.message().contains(text), "{error}");
    };
    let options = || SamplerOptions::default();
    let threads = MAX_THREADS + 1;
    check(
        SamplerOptions {
            threads,
            ..options()
        },
        Status::InvalidArgument,
        "threads",
    );
    let max_batch = MAX_BATCH + 1;
    check(
        SamplerOptions {
            max_batch,
            ..options()
        },
        Status::InvalidArgument,
        "max_batch",
    );
    let device = Device::Cuda;
    check(
        SamplerOptions {
            device,
            ..options()
        },
        Status::RuntimeMissing,
        "onnxruntime-gpu",
    );
}

#[test]
fn samplers_on_several_threads() {
    let model = model(&Fixture::default());
    let expected = sample(&mut sampler(&model, 4), networks(3, 0, 40));
    thread::scope(|scope| {
        for i in 0..4u64 {
            let (model, expected) = (&model, &expected);
            scope.spawn(move || {
                let mut sampler = sampler(model, 4);
                for _ in 0..3 {
                    // Batches of 4, as in the call on one thread.
                    let found = sample(&mut sampler, networks(3, 8 * i, 8));
                    let start = 8 * i as usize * WEIGHTS;
                    assert_eq!(found, expected[start..start + 8 * WEIGHTS]);
                }
            });
        }
    });
}

#[test]
fn a_sampler_moves_between_threads_and_outlives_its_model() {
    let model = model(&Fixture::default());
    let expected = sample(&mut sampler(&model, 0), networks(3, 0, 2));
    let mut sampler = sampler(&model, 0);
    drop(model);
    let found = thread::spawn(move || sample(&mut sampler, networks(3, 0, 2)));
    assert_eq!(found.join().unwrap(), expected);
}

#[test]
fn every_way_of_opening_gives_the_same_networks() {
    let folder = tempfile::tempdir().unwrap();
    let path = Fixture::default().write(folder.path());
    let generate = |model: Model| sample(&mut sampler(&model, 0), networks(3, 0, 2));
    let options = |copy, verify| ModelOptions {
        copy,
        verify,
        ..Default::default()
    };
    let open = |copy, verify| Model::open(&path, &options(copy, verify)).unwrap();
    let mapped = generate(open(false, false));
    assert_eq!(generate(open(true, true)), mapped);
    assert_eq!(generate(open(false, true)), mapped);

    let onnx = std::fs::read(&path).unwrap();
    let sidecar = std::fs::read(path.with_extension("safetensors")).unwrap();
    for copy in [false, true] {
        let model = Model::from_static(&onnx, aligned(&sidecar), &options(copy, true)).unwrap();
        assert_eq!(generate(model), mapped);
    }
}

/// The bytes at a multiple of 8, for the rest of the test.
fn aligned(bytes: &[u8]) -> &'static [u8] {
    let words = vec![0u64; bytes.len().div_ceil(8)].leak();
    let place = bytemuck::cast_slice_mut(words);
    place[..bytes.len()].copy_from_slice(bytes);
    &place[..bytes.len()]
}

/// A mapped file that shrinks kills the process; a copy does not care.
#[test]
fn a_copy_survives_a_truncated_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = Fixture::default().write(folder.path());
    let copy = ModelOptions {
        copy: true,
        ..Default::default()
    };
    let model = Model::open(&path, &copy).unwrap();
    let expected = sample(&mut sampler(&model, 0), networks(3, 0, 2));
    truncate(&path.with_extension("safetensors"));
    assert_eq!(sample(&mut sampler(&model, 0), networks(3, 0, 2)), expected);
}

fn truncate(path: &Path) {
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(0).unwrap();
}

/// An identity basis decodes the latent itself: with one Euler step of a network that is almost
/// silent, the weights are the noise.
#[test]
fn the_noise_is_where_trajectories_start() {
    let model = model(&Fixture {
        gain: 1e-6,
        source_std: 0.5,
        weight_float: Float::F32,
        ..Fixture::with_basis(BasisKind::Identity)
    });
    let found = sample(&mut sampler(&model, 0), networks(3, 7, 2));
    for (i, network) in found.chunks(WEIGHTS).enumerate() {
        let mut noise = [0f32; WEIGHTS];
        dwf::noise::fill(3, 7 + i as u64, 0.5, &mut noise);
        for (found, noise) in network.iter().zip(noise) {
            assert!((found - noise).abs() < 1e-5, "{found} from {noise}");
        }
    }
}

/// However many threads there are and however large the network is.
#[test]
fn the_workspace_of_many_threads_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let reference = Fixture::reference();
    for weights in [26_506, 10_000_000] {
        let path = common::stretched::write_stretched(&reference, folder.path(), weights);
        let model = Model::open(&path, &ModelOptions::default()).unwrap();
        for threads in [1, 64, 128, 256] {
            let options = SamplerOptions {
                threads,
                ..Default::default()
            };
            let workspace = Sampler::new(&model, &options)
                .unwrap()
                .info()
                .workspace_bytes;
            assert!(workspace < 64 << 20, "{weights}, {threads}: {workspace}");
        }
    }
}
