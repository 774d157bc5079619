//! A sampler allocates when it is made and on its first call of a kind, not while it samples.

mod common;

use std::{
    alloc::{GlobalAlloc, Layout as Block, System},
    sync::atomic::{AtomicUsize, Ordering},
};

use common::Fixture;
use dwf::{
    Model, SampleOptions, Sampler, SamplerOptions,
    metadata::BasisKind,
    ode::{Grid, Method, Solver},
};

/// The system's allocator, counting. ONNX Runtime's own allocations are not Rust's.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is the system's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, block: Block) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
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

/// Allocations of one call.
fn allocations(sampler: &mut Sampler, solver: Solver, weights: &mut [f32]) -> usize {
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    let options = SampleOptions {
        count: weights.len() / sampler.model().metadata().layout.len(),
        solver: Some(solver),
        ..Default::default()
    };
    sampler.sample(options, weights).unwrap();
    ALLOCATIONS.load(Ordering::Relaxed) - before
}

/// One test, because other threads' allocations would count.
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
                let again = allocations(&mut one, solver, &mut weights);
                assert_eq!(again, 0, "{basis:?}, {count} networks, {solver:?}");
            }
        }

        // Several: a few a call, to hand out the work, however many evaluations there are.
        let mut several = sampler(3);
        let mut weights = vec![0f32; 20 * len];
        for (few, many) in solvers(2).into_iter().zip(solvers(200)) {
            allocations(&mut several, many, &mut weights);
            let few = allocations(&mut several, few, &mut weights);
            let many = allocations(&mut several, many, &mut weights);
            assert!(many <= few + 2 && many < 20, "{basis:?}: {few} and {many}");
        }
    }
}
