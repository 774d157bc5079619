//! The cases in Rust's own types.

use dwf::{
    Error, Flow, Model, Output, Progress, Sampler, SamplerOptions,
    condition::{Axis, ConditionSchema},
    layout::TensorSpec,
    metadata::Metadata,
};
use serde_json::{Value, json};

use super::{Case, Host, Memory, Op, Outcome, case::name_of};

pub struct Native;

impl Host for Native {
    const NAME: &str = "rust";

    fn run(&self, case: &Case) -> Option<Outcome> {
        let model = match Model::open(case.path(), &Default::default()) {
            Ok(model) => model,
            Err(error) => return Some(Outcome::default().ended(Err(error))),
        };
        let mut outcome = Outcome::default();
        match case.op {
            Op::Open => {}
            Op::Info => outcome.info = Some(info(&model)),
            Op::Tensors => {
                let tensors = model.metadata().layout.tensors();
                outcome.tensors = Some(tensors.iter().map(tensor).collect());
            }
            Op::Sample | Op::Cancel | Op::Busy => return sample(case, &model),
        }
        Some(outcome.ended(Ok(())))
    }
}

impl Outcome {
    fn ended(mut self, result: Result<(), Error>) -> Self {
        self.status = "DWF_OK".into();
        if let Err(error) = result {
            self.status = name_of(error.status());
            self.error = error.message().to_owned();
        }
        self
    }
}

fn sample(case: &Case, model: &Model) -> Option<Outcome> {
    let metadata = model.metadata();
    let sizes: Vec<usize> = metadata
        .layout
        .tensors()
        .iter()
        .map(|t| t.count())
        .collect();
    let mut memory = Memory::new(case, &sizes);
    let mut outcome = Outcome::default();
    let mut progress = |progress: Progress| {
        outcome.calls += 1;
        outcome.total = progress.total;
        match case.cancel_at {
            Some(at) if at == progress.done => Flow::Cancel,
            _ => Flow::Continue,
        }
    };
    let mut options = case.options.typed(metadata.solver.solver())?;
    if case.op != Op::Sample {
        options.progress = Some(&mut progress);
    }
    let mut sampler = Sampler::new(
        model,
        &SamplerOptions {
            threads: 1,
            max_batch: 4,
            ..Default::default()
        },
    )
    .unwrap();
    let result = write(case, &sizes, &mut memory, |output| {
        sampler.sample(options, output)
    });
    // The compiler refuses what would be BUSY: the callback cannot borrow the sampler.
    outcome.nested_status = (case.op == Op::Busy).then(|| "DWF_BUSY".into());
    outcome.memory = Some(memory);
    Some(outcome.ended(result))
}

/// Hands `memory` to `sample` in the arrangement that the case asks for.
fn write<T>(
    case: &Case,
    tensors: &[usize],
    memory: &mut Memory,
    sample: impl FnOnce(Output) -> T,
) -> T {
    let dtype = case.buffer.dtype;
    let pointers = memory.pointers();
    if case.buffer.scatter {
        let sizes: Vec<usize> = tensors.iter().map(|len| len * dtype.size()).collect();
        // SAFETY: every block is as long as its tensor, and ours for the call.
        return sample(unsafe { Output::from_raw_tensors(&pointers, &sizes, dtype) });
    }
    // SAFETY: the block is that long, and ours for the call.
    let output = unsafe { Output::from_raw(pointers[0], memory.blocks[0].size, dtype) };
    sample(match case.buffer.row_stride {
        None => output,
        Some(stride) => output.with_row_stride(stride),
    })
}

fn info(model: &Model) -> Value {
    let metadata: &Metadata = model.metadata();
    let condition = metadata.condition.as_ref();
    let text = |json: serde_json::Result<String>| json.unwrap();
    let bounds = |bound: fn(&Axis) -> f32| match condition.map(|condition| &condition.schema) {
        Some(ConditionSchema::Axes(axes)) => axes.iter().map(bound).collect(),
        _ => Value::Null,
    };
    json!({
        "weight_count": metadata.layout.len(),
        "tensor_count": metadata.layout.tensors().len(),
        "latent_size": model.latent(),
        "condition_size": condition.map_or(0, |condition| condition.size()),
        "steps": metadata.solver.steps,
        "evaluations": metadata.solver.solver().evaluations().unwrap_or(0),
        "solver_error": metadata.solver.relative_error,
        "source_std": metadata.source.std,
        "solver": metadata.solver.method as u32,
        "grid": metadata.solver.grid as u32,
        "basis": metadata.basis as u32,
        "unconditional":
            u32::from(condition.is_none_or(|condition| condition.unconditional.is_some())),
        "quality": text(serde_json::to_string(&metadata.quality)),
        "provenance": text(serde_json::to_string(&metadata.provenance)),
        "condition": condition.map(|condition| text(serde_json::to_string(condition))),
        "condition_names": condition.map(|condition| match &condition.schema {
            ConditionSchema::Classes(names) => json!(names),
            ConditionSchema::Axes(axes) => axes.iter().map(|axis| axis.name.as_str()).collect(),
        }),
        "condition_min": bounds(|axis| axis.min),
        "condition_max": bounds(|axis| axis.max),
    })
}

fn tensor(spec: &TensorSpec) -> Value {
    json!({
        "name": spec.name,
        "shape": spec.shape,
        "offset": spec.offset,
        "count": spec.count(),
        "dtype": spec.dtype as u32,
        "kind": spec.kind as u32,
    })
}
