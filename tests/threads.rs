//! Threads that meet: a sampler in many hands, a model under many samplers, models opened side by
//! side. `make tsan` runs them under the thread sanitizer.

mod common;

use std::{ffi::CString, path::Path, ptr, thread};

use common::Fixture;
use dwf::{Model, SampleOptions, Sampler, SamplerOptions, capi::*};

const THREADS: usize = 4;
const COUNT: usize = 3;

/// What all threads are to find.
fn generate(model: &Model, threads: usize) -> Vec<f32> {
    let options = SamplerOptions {
        threads,
        ..Default::default()
    };
    let mut sampler = Sampler::new(model, &options).unwrap();
    let mut weights = vec![0f32; COUNT * model.metadata().layout.len()];
    let options = SampleOptions {
        seed: 5,
        count: COUNT,
        ..Default::default()
    };
    sampler.sample(options, &mut weights[..]).unwrap();
    weights
}

fn open(path: &Path) -> Model {
    Model::open(path, &Default::default()).unwrap()
}

/// In `THREADS` threads at once.
fn everywhere(body: impl Fn() + Sync) {
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(&body);
        }
    });
}

#[test]
fn a_model_under_many_samplers() {
    let folder = tempfile::tempdir().unwrap();
    let model = open(&Fixture::default().write(folder.path()));
    let expected = generate(&model, 1);
    everywhere(|| {
        for threads in [1, 2] {
            assert_eq!(generate(&model, threads), expected);
        }
    });
}

#[test]
fn models_opened_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let path = Fixture::default().write(folder.path());
    let expected = generate(&open(&path), 1);
    everywhere(|| (0..3).for_each(|_| assert_eq!(generate(&open(&path), 1), expected)));
}

/// A C program's sampler.
struct Shared(*mut dwf_sampler);
// SAFETY: any thread may try a sampler; it says BUSY to all but one.
unsafe impl Sync for Shared {}

impl Shared {
    fn sample(&self, weights: &mut [f32]) -> dwf_status {
        // SAFETY: zero is valid for every field.
        let (mut options, mut buffer): (dwf_sample_options, dwf_buffer) =
            unsafe { std::mem::zeroed() };
        options.struct_size = size_of_val(&options);
        (options.seed, options.count) = (5, COUNT);
        buffer.struct_size = size_of_val(&buffer);
        buffer.data = weights.as_mut_ptr().cast();
        buffer.size_bytes = size_of_val(weights);
        // SAFETY: every pointer is valid for the call.
        unsafe { dwf_sample(self.0, &options, &buffer, ptr::null_mut(), 0) }
    }
}

/// Every thread in the end has its turn, and a call is made whole or not at all.
#[test]
fn a_sampler_in_many_hands() {
    const TURNS: usize = 5;
    let folder = tempfile::tempdir().unwrap();
    let path = Fixture::default().write(folder.path());
    let expected = generate(&open(&path), 1);
    let path = CString::new(path.to_str().unwrap()).unwrap();
    let (mut model, mut sampler) = (ptr::null_mut(), ptr::null_mut());
    // SAFETY: every pointer is valid for the calls.
    unsafe {
        let null = ptr::null();
        let status = dwf_model_open(path.as_ptr(), null, &mut model, ptr::null_mut(), 0);
        assert_eq!(status, DWF_OK);
        let status = dwf_sampler_new(model, ptr::null(), &mut sampler, ptr::null_mut(), 0);
        assert_eq!(status, DWF_OK);
        dwf_model_free(model);
    }
    let shared = Shared(sampler);
    everywhere(|| {
        let mut turns = 0;
        while turns < TURNS {
            let mut weights = vec![f32::NAN; expected.len()];
            match shared.sample(&mut weights) {
                DWF_OK => {
                    assert_eq!(weights, expected);
                    turns += 1;
                }
                DWF_BUSY => {
                    assert!(weights.iter().all(|weight| weight.is_nan()));
                    thread::yield_now();
                }
                other => panic!("status {other}"),
            }
        }
    });
    // SAFETY: all threads are done.
    unsafe { dwf_sampler_free(shared.0) }
}
