//! Making a sampler: on which device, and what it may take.

use std::sync::Arc;

use super::{Decoding, Sampler};
use crate::{
    MAX_BATCH, MAX_THREADS, SampleOptions, SamplerOptions,
    budget::Budget,
    decode::Decoder,
    device::{Space, cuda::Cuda},
    error::{Error, Result, Status},
    evaluator::{Features, Network},
    lane::Lane,
    log::{self, Level},
    memory::zeros,
    model::Model,
    resident::{Place, Resident},
    runtime::Runtime,
    session::has_cuda,
    team::Team,
    trajectory::Precision,
};

/// Rows a thread takes at a time unless the options say otherwise; enough to be compute-bound.
const ROWS_A_THREAD: usize = 64;

/// Rows a GPU takes at a time unless the options say otherwise.
const ROWS_A_GPU: usize = 256;

/// Largest relative difference between a GPU's network and the CPU's: tens of evaluations in half
/// precision, of 5e-4 each.
const AGREEMENT: f64 = 2e-2;

impl Sampler {
    pub(super) fn on_best(model: &Model, options: &SamplerOptions) -> Result<Self> {
        // A GPU's number does not make the CPU an error here.
        let cpu = SamplerOptions {
            device_id: 0,
            ..options.clone()
        };
        let mut cpu = Self::on_cpu(model, &cpu)?;
        let why = if has_cuda()? {
            let gpu = Self::on_cuda(model, options).and_then(|mut gpu| {
                gpu.check_against(&mut cpu)?;
                Ok(gpu)
            });
            match gpu {
                Ok(gpu) => return Ok(gpu),
                Err(e) => e.message().to_owned(),
            }
        } else {
            "this ONNX Runtime has no CUDA provider".into()
        };
        let level = match options.device_id {
            0 => Level::Info,
            _ => Level::Warn,
        };
        log::write(level, || format!("DWF_DEVICE_AUTO takes the CPU: {why}"));
        Ok(cpu)
    }

    pub(super) fn on_cpu(model: &Model, options: &SamplerOptions) -> Result<Self> {
        if options.device_id != 0 {
            return Err(Error::argument(
                "device_id chooses a GPU, and this sampler runs on the CPU; leave it 0",
            ));
        }
        let threads = limited("threads", options.threads, MAX_THREADS, cores)?;
        let (budget, max_batch) = budget(model, options, threads, threads * ROWS_A_THREAD)?;
        let runtime = Runtime::load(options.onnxruntime.as_deref())?;
        let network = Network::new(runtime, model, &Space::Host, Precision::Single)?;
        Self::assemble(runtime, network, threads, max_batch, budget, |_| {
            Ok(Decoding::Host(Decoder::new(model, max_batch, threads)?))
        })
    }

    pub(super) fn on_cuda(model: &Model, options: &SamplerOptions) -> Result<Self> {
        limited("threads", options.threads, MAX_THREADS, cores)?;
        let (budget, max_batch) = budget(model, options, 1, ROWS_A_GPU)?;
        let runtime = Runtime::load(options.onnxruntime.as_deref())?;
        if !has_cuda()? {
            return Err(Error::new(
                Status::RuntimeMissing,
                format!(
                    "ONNX Runtime {} from {} has no CUDA provider; PyPI's package onnxruntime-gpu \
                     holds one that has, or use DWF_DEVICE_CPU",
                    runtime.version,
                    runtime.path.display()
                ),
            ));
        }
        let device_id = options.device_id;
        let gpu = Cuda::open(device_id)?;
        log::write(Level::Info, || format!("GPU {device_id}: {}", gpu.name()));
        let limit = match options.gpu_memory_limit {
            0 => gpu.free_memory()? / 2,
            limit => usize::try_from(limit).unwrap_or(usize::MAX),
        };
        let place = Place {
            space: Space::Cuda(gpu),
            precision: Precision::Half,
            limit,
        };
        Self::on_device(model, runtime, &place, max_batch, budget)
    }

    /// A sampler whose trajectories and decoding run as graphs where `place` says.
    pub(super) fn on_device(
        model: &Model,
        runtime: &'static Runtime,
        place: &Place,
        max_batch: usize,
        budget: Budget,
    ) -> Result<Self> {
        let network = Network::new(runtime, model, &place.space, place.precision)?;
        Self::assemble(runtime, network, 1, max_batch, budget, |lanes| {
            let taken = lanes.iter().map(Lane::device_bytes).sum();
            let resident = Resident::new(runtime, model, place, max_batch, taken)?;
            Ok(Decoding::Device(Box::new(resident)))
        })
    }

    fn assemble(
        runtime: &'static Runtime,
        network: Network,
        threads: usize,
        max_batch: usize,
        budget: Budget,
        decoding: impl FnOnce(&[Lane]) -> Result<Decoding>,
    ) -> Result<Self> {
        let model = network.model().clone();
        let network = Arc::new(network);
        let lanes = threads.min(max_batch);
        let rows = max_batch.div_ceil(lanes);
        let lanes: Vec<Lane> = (0..lanes)
            .map(|_| Lane::new(&network, &model, rows))
            .collect::<Result<_>>()?;
        Ok(Self {
            runtime,
            team: Team::new(threads)?,
            decoding: decoding(&lanes)?,
            lanes,
            network,
            features: Features::default(),
            grid: None,
            state: zeros(max_batch, model.latent())?,
            max_batch,
            budget,
            model,
        })
    }

    /// Whether one network comes out as it does on the CPU, up to what half precision in the
    /// velocity network costs. Skipped for networks that are too large to hold twice.
    pub(super) fn check_against(&mut self, cpu: &mut Self) -> Result<()> {
        const LARGEST: usize = 1 << 24;
        let weights = self.model.metadata().layout.len();
        if weights > LARGEST {
            return Ok(());
        }
        let condition = self.model.metadata().condition.clone();
        let condition = condition.map(|condition| condition.any_row());
        let sample = |sampler: &mut Self| -> Result<Box<[f32]>> {
            let mut network = zeros(1, weights)?;
            let options = SampleOptions {
                condition: condition.as_deref(),
                ..Default::default()
            };
            sampler.sample(options, &mut network[..])?;
            Ok(network)
        };
        let (found, expected) = (sample(self)?, sample(cpu)?);
        let norm = |values: &mut dyn Iterator<Item = f32>| -> f64 {
            values.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt()
        };
        let difference = norm(&mut found.iter().zip(&expected).map(|(a, b)| a - b));
        let relative = difference / norm(&mut expected.iter().copied());
        if relative < AGREEMENT {
            return Ok(());
        }
        Err(Error::new(
            Status::RuntimeFailed,
            format!("its network differs from the CPU's by {relative:.1e}, relative"),
        ))
    }
}

/// An option's value, its default for 0.
fn limited(
    name: &str,
    value: usize,
    most: usize,
    default: impl FnOnce() -> usize,
) -> Result<usize> {
    match value {
        0 => Ok(default()),
        _ if value <= most => Ok(value),
        _ => Err(Error::argument(format!(
            "{name} is {value}; at most {most}"
        ))),
    }
}

fn cores() -> usize {
    std::thread::available_parallelism()
        .map_or(1, std::num::NonZero::get)
        .min(MAX_THREADS)
}

/// What the sampler may take, and its batch: `batch` or as many as fit, unless the options say.
fn budget(
    model: &Model,
    options: &SamplerOptions,
    threads: usize,
    batch: usize,
) -> Result<(Budget, usize)> {
    let method = model.metadata().solver.method;
    let budget = Budget::new(model, threads, options.memory_limit);
    let max_batch = limited("max_batch", options.max_batch, MAX_BATCH, || {
        budget.batch(method, MAX_BATCH.min(batch))
    })?;
    budget.check(method, max_batch)?;
    Ok((budget, max_batch))
}
