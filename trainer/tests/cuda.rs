//! Training on a GPU is training on the processor. tests/gpu/run runs what needs one.

mod common;

use dwf_trainer::{
    condition::Conditions,
    error::{Result, Status},
    flow::{self, FlowOptions, Keep, Progress, Quality, State, Task, Training},
    interrupt,
    path::{Latents, Target},
    random::Random,
    train::TrainOptions,
    velocity::{Device, Points, Shape, Variant, Velocity},
};
use safetensors::SafeTensors;

const NETWORKS: usize = 20;

/// Latent, width and batch: some that no block of threads divides, and the sums of many blocks.
const SIZES: [[usize; 3]; 3] = [[5, 8, 3], [99, 130, 41], [700, 320, 100]];

/// Every variant, without and with conditions.
fn shapes([latent, width, _]: [usize; 3]) -> Vec<Shape> {
    let variants = [Variant::Reference, Variant::Deep, Variant::Residual];
    let shape = |variant, condition| Shape {
        variant,
        latent,
        width,
        condition,
    };
    let both = variants.map(|variant| [shape(variant, 0), shape(variant, 1)]);
    both.concat()
}

/// A zoo for networks of this shape.
fn latents(shape: &Shape) -> Latents {
    let files: Vec<String> = (0..NETWORKS).map(|i| i.to_string()).collect();
    let rows = files.iter().map(|i| format!("{i},{i}\n"));
    let text = format!("file,speed\n{}", rows.collect::<String>());
    Latents {
        size: shape.latent,
        values: common::normals(NETWORKS * shape.latent, 1),
        conditions: (shape.condition > 0).then(|| Conditions::parse(&text, &files).unwrap()),
    }
}

fn options(device: Device, steps: usize, batch: usize) -> FlowOptions {
    let mut options = FlowOptions {
        seed: 3,
        steps,
        keep: Keep::Last,
        device,
        ..TrainOptions::default().flow
    };
    options.path.batch = batch;
    options
}

/// Trains a random network; the losses, and the state after step `stop`.
fn train(
    shape: Shape,
    options: &FlowOptions,
    state: Option<State>,
    stop: usize,
) -> (Vec<f32>, Vec<u8>) {
    let (zoo, start) = (latents(&shape), Velocity::random(shape, 2));
    let task = Task {
        target: Target::Zoo(&zoo),
        held_out: &zoo,
        start: &start,
    };
    let fine = Quality {
        std_ratio: 1.0,
        near_copies: 0.0,
        shortfall: None,
        novel_and_good: 0.0,
        loss: 0.0,
    };
    let (mut losses, mut bytes) = (Vec::new(), Vec::new());
    let mut tell = |training: &mut Training, at: Progress| -> Result<()> {
        losses.push(at.loss);
        if at.step < stop {
            return Ok(());
        }
        bytes = training.state()?.to_bytes();
        Err(interrupt::error("the state"))
    };
    let stopped = flow::train(&task, options, state, &mut |_| Ok(fine), &mut tell).unwrap_err();
    assert_eq!(stopped.status(), Status::Cancelled, "{stopped}");
    (losses, bytes)
}

/// The state's numbers of this name.
fn tensor(state: &[u8], name: &str) -> Vec<f32> {
    let file = SafeTensors::deserialize(state).unwrap();
    bytemuck::pod_collect_to_vec(file.tensor(name).unwrap().data())
}

/// The largest difference, relative to the largest number.
fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let largest = |values: &mut dyn Iterator<Item = f32>| {
        values.fold(0f32, |largest, x| match x.is_nan() {
            true => f32::INFINITY,
            false => largest.max(x.abs()),
        })
    };
    let apart = largest(&mut a.iter().zip(b).map(|(a, b)| a - b));
    apart / largest(&mut a.iter().copied())
}

/// Before any work, and as an error.
#[test]
fn a_missing_gpu_is_said() {
    let Err(error) = Device::Cuda.check() else {
        return;
    };
    assert_eq!(error.status(), Status::Unsupported);
    assert!(error.message().contains("CUDA"), "{error}");
    assert!(error.message().contains("--device cpu"), "{error}");
    let network = Velocity::random(common::shape(3, 8), 1);
    assert_eq!(network.evaluator(Device::Cuda).err(), Some(error));
}

#[test]
#[ignore = "needs a GPU"]
fn a_gpu_is_there() {
    if let Err(e) = Device::Cuda.check() {
        panic!("\nGPU: {e}\n");
    }
}

#[test]
#[ignore = "needs a GPU"]
fn velocities_are_the_processors() {
    for size in SIZES {
        for shape in shapes(size) {
            let network = Velocity::random(shape, 2);
            let mut evaluator = network.evaluator(Device::Cuda).unwrap();
            for rows in [7, 100, 1] {
                let mut random = Random::new(5, 0);
                let points = Points {
                    x: common::normals(rows * shape.latent, 4),
                    t: (0..rows).map(|_| random.uniform()).collect(),
                    condition: common::normals(rows * shape.condition, 6),
                };
                let expected = network.evaluate(&points, Device::Cpu).unwrap();
                let found = evaluator.evaluate(&points).unwrap();
                let apart = difference(&expected, &found);
                // f32 rounding through up to ten layers, twice.
                assert!(apart < 4e-5, "{shape:?}: {apart}");
            }
        }
    }
}

/// After one step the first moment is a tenth of the gradient, and the second the thousandth part of
/// its square.
#[test]
#[ignore = "needs a GPU"]
fn a_step_is_the_processors() {
    for size in SIZES {
        for shape in shapes(size) {
            for clip in [0.5, f32::INFINITY] {
                let [expected, found] = [Device::Cpu, Device::Cuda].map(|device| {
                    let mut options = options(device, 400, size[2]);
                    options.step.clip = clip;
                    train(shape, &options, None, 1)
                });
                let mut apart = vec![difference(&expected.0, &found.0)];
                for name in ["first_moment", "second_moment"] {
                    let [expected, found] = [&expected, &found].map(|run| tensor(&run.1, name));
                    apart.push(difference(&expected, &found));
                }
                // f32 rounding of sums of a hundred rows through as many layers, there and back.
                let close = apart.iter().all(|apart| *apart < 1e-4);
                assert!(close, "{shape:?} clipped to {clip}: {apart:?}");
            }
        }
    }
}

#[test]
#[ignore = "needs a GPU"]
fn a_training_is_the_processors() {
    const STEPS: usize = 40;
    for shape in shapes(SIZES[1]) {
        let [expected, found] = [Device::Cpu, Device::Cuda]
            .map(|device| train(shape, &options(device, STEPS, SIZES[1][2]), None, STEPS));
        let mut apart = vec![difference(&expected.0, &found.0)];
        for name in ["weights", "average"] {
            let [expected, found] = [&expected, &found].map(|run| tensor(&run.1, name));
            apart.push(difference(&expected, &found));
        }
        // AdamW's first steps go by the gradient's sign, which rounding may turn where it is next to
        // nothing: a weight may then be off by a few steps of at most 1e-3.
        assert!(apart[0] < 1e-3, "{shape:?}: {apart:?}");
        assert!(
            apart.iter().all(|apart| *apart < 2e-2),
            "{shape:?}: {apart:?}"
        );
    }
}

#[test]
#[ignore = "needs a GPU"]
fn a_training_repeats_itself_and_resumes() {
    const STEPS: usize = 60;
    for shape in shapes(SIZES[2]) {
        let options = options(Device::Cuda, STEPS, SIZES[2][2]);
        let (losses, whole) = train(shape, &options, None, STEPS);
        let again = train(shape, &options, None, STEPS);
        assert!(again.0 == losses && again.1 == whole, "{shape:?}");
        let (_, part) = train(shape, &options, None, 17);
        let part = State::from_bytes(&part).unwrap();
        let (_, resumed) = train(shape, &options, Some(part), STEPS);
        assert!(resumed == whole, "{shape:?}");
    }
}
