//! A sampler allocates when it is made and on its first call of a kind, not while it samples.

mod common;

use std::{
    alloc::{GlobalAlloc, Layout as Block, System},
    cell::Cell,
    sync::atomic::{AtomicUsize, Ordering},
};

use common::Fixture;
use dwf::{
    Flow, Model, SampleOptions, Sampler, SamplerOptions, Status,
    metadata::BasisKind,
    ode::{Grid, Method, Solver},
};

/// The system's allocator, counting. ONNX Runtime's own allocations are not Rust's.
struct Counting;

/// Those of all threads.
static ALL: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Those of this thread: others may still be ending, or belong to the test harness.
    static MINE: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is the system's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, block: Block) -> *mut u8 {
        ALL.fetch_add(1, Ordering::Relaxed);
        // None while a thread ends.
        let _ = MINE.try_with(|mine| mine.set(mine.get() + 1));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(block) }
    }

    unsafe fn dealloc(&self, at: *mut u8, block: Block) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, block) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `body` returns, and the allocations that it made on this thread and on all.
fn counted<T>(body: impl FnOnce() -> T) -> (T, usize, usize) {
    let now = || (MINE.get(), ALL.load(Ordering::Relaxed));
    let before = now();
    let result = body();
    let after = now();
    (result, after.0 - before.0, after.1 - before.1)
}

/// Generates networks; the allocations that took on this thread and on all.
fn allocations(sampler: &mut Sampler, solver: Solver, weights: &mut [f32]) -> (usize, usize) {
    let options = SampleOptions {
        count: weights.len() / sampler.model().metadata().layout.len(),
        solver: Some(solver),
        ..Default::default()
    };
    let (result, mine, all) = counted(|| sampler.sample(options, weights));
    result.unwrap();
    (mine, all)
}

#[test]
fn sampling_does_not_allocate() {
    for basis in [BasisKind::Identity, BasisKind::Diagonal, BasisKind::Linear] {
        let folder = tempfile::tempdir().unwrap();
        let path = Fixture::with_basis(basis).write(folder.path());
        let model = Model::open(path, &Default::default()).unwrap();
        let len = model.metadata().layout.len();
        let sampler = |threads| {
            let options = SamplerOptions {
                threads,
                max_batch: 20,
                ..Default::default()
            };
            Sampler::new(&model, &options).unwrap()
        };
        let solvers = |steps| {
            [
                Solver::fixed(Method::Euler, steps, Grid::Uniform),
                Solver::fixed(Method::Rk4, steps, Grid::Stretched),
                Solver::adaptive(1e-4),
            ]
        };

        // One thread: nothing at all, after a first call of the same kind.
        let mut one = sampler(1);
        for count in [1, 20] {
            let mut weights = vec![0f32; count * len];
            for solver in solvers(8) {
                allocations(&mut one, solver, &mut weights);
                let (again, _) = allocations(&mut one, solver, &mut weights);
                assert_eq!(again, 0, "{basis:?}, {count} networks, {solver:?}");
            }
        }
        // Nor does being cancelled allocate.
        let mut weights = vec![0f32; len];
        let mut cancelled = || {
            let options = SampleOptions {
                progress: Some(&mut |progress| match progress.done {
                    5 => Flow::Cancel,
                    _ => Flow::Continue,
                }),
                ..Default::default()
            };
            let (result, made, _) = counted(|| one.sample(options, &mut weights[..]));
            assert_eq!(result.unwrap_err().status(), Status::Cancelled);
            made
        };
        cancelled();
        assert_eq!(cancelled(), 0, "{basis:?}, cancelled");
        // Nor does asking what the sampler is.
        assert_eq!(counted(|| one.info()).1, 0);

        // Several: a few a call, to hand out the work, and now and then a block of rayon's queue, where
        // 200 steps or more would each add one.
        let mut several = sampler(3);
        let mut weights = vec![0f32; 20 * len];
        for solver in solvers(200) {
            allocations(&mut several, solver, &mut weights);
            let made = allocations(&mut several, solver, &mut weights).1;
            assert!(made < 20, "{basis:?}, {solver:?}: {made}");
        }
    }
}
