//! The velocity network in ONNX Runtime, and each thread's way into it.

use std::sync::Arc;

use crate::{
    artifact::value,
    device::{Buffer, Space},
    error::Result,
    layout::DType,
    memory::{float_bytes, zeros},
    model::Model,
    ode::Solver,
    runtime::Runtime,
    session::{Binding, Session, Tensor},
    trajectory::Precision,
    velocity::{Parts, prune, to_half},
};

/// Most elements of a grid's features.
const MAX_TABLE: usize = 4 << 20;

/// The velocity network, loaded; shared by the threads of a sampler.
pub(crate) struct Network {
    /// From the state, the features of the time and the condition to the velocity.
    rest: Arc<Session>,
    /// From times to features, on the CPU; `None`: the time is the one feature.
    time: Option<Arc<Session>>,
    names: Vec<String>,
    widths: Vec<usize>,
    space: Space,
}

impl Network {
    /// Loads the velocity network of `model`.
    ///
    /// Errors: RUNTIME_FAILED in ONNX Runtime's own words.
    pub(crate) fn new(
        runtime: &Runtime,
        model: &Model,
        space: &Space,
        precision: Precision,
    ) -> Result<Self> {
        let graph = model.description().graph.graph.clone().unwrap_or_default();
        let (parts, time, widths) = split(runtime, model, &graph);
        let mut rest = parts.evaluation(&widths);
        if precision == Precision::Half {
            to_half(&mut rest);
            prune(&mut rest);
        }
        Ok(Self {
            rest: Arc::new(Session::new(runtime, model, rest, space)?),
            time,
            names: parts.features,
            widths,
            space: space.clone(),
        })
    }

    /// Whose network it is.
    pub(crate) fn model(&self) -> &Model {
        self.rest.model()
    }

    /// The name of ONNX Runtime's provider.
    pub(crate) fn provider(&self) -> &'static str {
        self.rest.provider()
    }

    /// The features of all times on `solver`'s grid; of none for a solver whose times are not
    /// known, or too many for [`MAX_TABLE`].
    ///
    /// Errors: RUNTIME_FAILED.
    pub(crate) fn features(&self, solver: &Solver, source_std: f64) -> Result<Features> {
        let most = MAX_TABLE / self.widths.iter().sum::<usize>().max(1);
        let times = solver.times(source_std).filter(|times| times.len() <= most);
        let mut times = times.unwrap_or_default();
        let values = match &self.time {
            _ if times.is_empty() => Vec::new(),
            Some(time) => time.compute(value::T, &mut times, &self.names)?,
            None => vec![times.clone()],
        };
        Ok(Features {
            names: self.names.clone(),
            times,
            tables: self.widths.iter().copied().zip(values).collect(),
        })
    }
}

/// The network's parts, the first of them loaded. One that ONNX Runtime does not compute row by
/// row stays with the rest.
fn split(
    runtime: &Runtime,
    model: &Model,
    graph: &crate::onnx::GraphProto,
) -> (Parts, Option<Arc<Session>>, Vec<usize>) {
    let parts = Parts::new(graph);
    if let Some(time) = &parts.time {
        let loaded = Session::new(runtime, model, time.clone(), &Space::Host).and_then(|session| {
            let features = session.compute(value::T, &mut [0.0], &parts.features)?;
            Ok((session, features.iter().map(Vec::len).collect()))
        });
        if let Ok((session, widths)) = loaded {
            return (parts, Some(Arc::new(session)), widths);
        }
    }
    (Parts::whole(graph), None, vec![1])
}

/// What the velocity network makes of the times of one grid, computed ahead.
#[derive(Debug, Default)]
pub(crate) struct Features {
    names: Vec<String>,
    /// Ascending.
    times: Vec<f32>,
    /// Width and rows, a row a time, of every feature.
    tables: Vec<(usize, Vec<f32>)>,
}

impl Features {
    /// A row of every feature at time `t`, if it is on the grid.
    pub(crate) fn at(&self, t: f32) -> Option<impl Iterator<Item = &[f32]>> {
        let i = self
            .times
            .binary_search_by(|time| time.total_cmp(&t))
            .ok()?;
        let tables = self.tables.iter();
        Some(tables.map(move |(width, rows)| &rows[i * width..(i + 1) * width]))
    }

    /// Whether there are any, and these are their names.
    pub(crate) fn are(&self, names: &[String]) -> bool {
        !self.times.is_empty() && self.names == names
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        let elements: usize = self.tables.iter().map(|(_, rows)| rows.len()).sum();
        (elements + self.times.len()) * size_of::<f32>()
    }
}

/// One thread's way into the network: memory that it reads and writes, bound once.
pub(crate) struct Evaluator {
    // Field order is drop order: the bindings point into the buffers and the sessions.
    rest: Option<((usize, usize), Binding)>,
    time: Option<(usize, Binding)>,
    latent: usize,
    condition_size: usize,
    t: Box<[f32]>,
    x: Buffer,
    condition: Buffer,
    v: Buffer,
    features: Vec<Buffer>,
    network: Arc<Network>,
}

impl Evaluator {
    /// For batches of up to `max_rows` rows.
    ///
    /// Errors: OUT_OF_MEMORY.
    pub(crate) fn new(network: &Arc<Network>, max_rows: usize) -> Result<Self> {
        let model = network.rest.model();
        let latent = model.latent();
        let condition_size = model.condition_size();
        let buffer = |columns| Buffer::new(&network.space, max_rows, columns);
        Ok(Self {
            rest: None,
            time: None,
            latent,
            condition_size,
            t: zeros(max_rows, 1)?,
            x: buffer(latent)?,
            condition: buffer(condition_size)?,
            v: buffer(latent)?,
            features: network
                .widths
                .iter()
                .map(|w| buffer(*w))
                .collect::<Result<_>>()?,
            network: network.clone(),
        })
    }

    /// Bytes that the buffers of one will take, but for the features, which the graph's footprint
    /// has counted.
    pub(crate) fn needed(model: &Model, max_rows: usize) -> u64 {
        let columns = [1, model.latent(), model.condition_size(), model.latent()];
        float_bytes(&columns.map(|columns| (max_rows, columns)))
    }

    /// Length of a latent vector.
    pub(crate) fn latent(&self) -> usize {
        self.latent
    }

    /// The conditions of the next evaluation, [rows, condition], for states of `len` elements.
    pub(crate) fn condition_mut(&mut self, len: usize) -> &mut [f32] {
        let rows = len / self.latent;
        &mut self.condition.host_mut()[..rows * self.condition_size]
    }

    /// Bytes of the network's inputs and outputs, where it computes.
    pub(crate) fn device_bytes(&self) -> usize {
        self.buffers().map(Buffer::bytes).sum()
    }

    /// Bytes of host memory beside them.
    pub(crate) fn host_bytes(&self) -> usize {
        size_of_val(&self.t[..]) + self.buffers().map(Buffer::host_bytes).sum::<usize>()
    }

    fn buffers(&self) -> impl Iterator<Item = &Buffer> {
        let buffers = [&self.x, &self.condition, &self.v];
        buffers.into_iter().chain(&self.features)
    }

    /// Writes v(x, t) as [`crate::ode::Velocity`] asks for; `features` may know the time.
    ///
    /// Errors: RUNTIME_FAILED.
    pub(crate) fn evaluate(
        &mut self,
        features: &Features,
        t: &[f32],
        x: &[f32],
        v: &mut [f32],
    ) -> Result<()> {
        let rows = x.len() / self.latent;
        self.embed(features, t)?;
        // Copying in and out costs d floats a row against the network's d * h multiplications,
        // and lets the solver own its memory.
        self.x.host_mut()[..x.len()].copy_from_slice(x);
        self.x.upload(x.len())?;
        self.condition.upload(rows * self.condition_size)?;
        self.network.space.wait()?;
        let space = self.network.space.clone();
        space.run(|| self.binding(rows, t.len())?.run())?;
        v.copy_from_slice(self.v.download(x.len())?);
        Ok(())
    }

    /// Brings the features of the times `t` to where the network reads them.
    fn embed(&mut self, features: &Features, t: &[f32]) -> Result<()> {
        let known = match t {
            [t] => features.at(*t),
            _ => None,
        };
        if let Some(rows) = known {
            for (buffer, row) in self.features.iter_mut().zip(rows) {
                buffer.host_mut()[..row.len()].copy_from_slice(row);
            }
        } else if self.network.time.is_some() {
            self.t[..t.len()].copy_from_slice(t);
            self.time_binding(t.len())?.run()?;
        } else {
            self.features[0].host_mut()[..t.len()].copy_from_slice(t);
        }
        for (buffer, width) in self.features.iter_mut().zip(&self.network.widths) {
            buffer.upload(t.len() * width)?;
        }
        Ok(())
    }

    /// A binding for `rows` rows and `times` times; the last one is kept, since most calls repeat
    /// its shape.
    fn binding(&mut self, rows: usize, times: usize) -> Result<&mut Binding> {
        if !matches!(&self.rest, Some((bound, _)) if *bound == (rows, times)) {
            self.rest = None;
            self.rest = Some(((rows, times), self.bind(rows, times)?));
        }
        let (_, binding) = self.rest.as_mut().expect("bound above");
        Ok(binding)
    }

    fn bind(&mut self, rows: usize, times: usize) -> Result<Binding> {
        let mut binding = Binding::new(&self.network.rest)?;
        // SAFETY: the buffers are never reallocated and outlive the binding.
        unsafe {
            let Self {
                x, condition, v, ..
            } = self;
            binding.input(value::X, tensor(x.address(), &[rows, self.latent]))?;
            if self.condition_size > 0 {
                let shape = [rows, self.condition_size];
                binding.input(value::CONDITION, tensor(condition.address(), &shape))?;
            }
            let widths = self.network.names.iter().zip(&self.network.widths);
            for ((name, width), buffer) in widths.zip(&mut self.features) {
                binding.input(name, tensor(buffer.address(), &[times, *width]))?;
            }
            binding.output(value::V, tensor(v.address(), &[rows, self.latent]))?;
        }
        Ok(binding)
    }

    /// A binding of the part of time for `rows` times.
    fn time_binding(&mut self, rows: usize) -> Result<&mut Binding> {
        if !matches!(&self.time, Some((bound, _)) if *bound == rows) {
            self.time = None;
            self.time = Some((rows, self.bind_time(rows)?));
        }
        let (_, binding) = self.time.as_mut().expect("bound above");
        Ok(binding)
    }

    fn bind_time(&mut self, rows: usize) -> Result<Binding> {
        let session = self.network.time.as_ref().expect("there is a part of time");
        let mut binding = Binding::new(session)?;
        // SAFETY: as in `bind`; this part runs on the CPU, on what the host sees of the buffers.
        unsafe {
            binding.input(value::T, tensor(self.t.as_mut_ptr().cast(), &[rows, 1]))?;
            let widths = self.network.names.iter().zip(&self.network.widths);
            for ((name, width), buffer) in widths.zip(&mut self.features) {
                let data = buffer.host_mut().as_mut_ptr().cast();
                binding.output(name, tensor(data, &[rows, *width]))?;
            }
        }
        Ok(binding)
    }
}

fn tensor(data: *mut u8, shape: &[usize]) -> Tensor<'_> {
    Tensor::new(data, DType::F32, shape)
}
