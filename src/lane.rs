//! One thread's share of a batch, from noise to latents, evaluation by evaluation.

use std::sync::Arc;

use crate::{
    error::{Error, Result, Status},
    evaluator::{Evaluator, Features, Network},
    guidance::{Guide, Guided, unconditional_row},
    memory::zeros,
    metadata::Source,
    model::Model,
    ode::{self, Solver},
    output::Writer,
    progress::{Callback, Meter},
};

/// What one thread needs to integrate its share of a batch.
pub(crate) struct Lane {
    evaluator: Evaluator,
    workspace: ode::Workspace,
    /// Velocities without condition, while guidance is at work; empty if it cannot be.
    unconditional: Box<[f32]>,
}

impl Lane {
    pub(crate) fn new(network: &Arc<Network>, model: &Model, rows: usize) -> Result<Self> {
        let guidable = unconditional_row(model).is_some();
        let mut workspace = ode::Workspace::default();
        workspace.reserve(model.metadata().solver.method, rows, model.latent())?;
        Ok(Self {
            evaluator: Evaluator::new(network, rows)?,
            workspace,
            unconditional: zeros(if guidable { rows } else { 0 }, model.latent())?,
        })
    }

    /// Bytes where the network computes.
    pub(crate) fn device_bytes(&self) -> usize {
        self.evaluator.device_bytes()
    }

    /// Bytes of host memory beside them.
    pub(crate) fn host_bytes(&self) -> usize {
        let unconditional = size_of_val(&self.unconditional[..]);
        self.evaluator.host_bytes() + self.workspace.bytes() + unconditional
    }

    /// Carries the networks of `work` from noise into `state`.
    pub(crate) fn integrate(
        &mut self,
        work: &Work,
        state: &mut [f32],
        callback: Option<Callback>,
    ) -> Result<()> {
        let Work {
            call,
            features,
            first,
            source,
            meter,
        } = *work;
        let latent = self.evaluator.latent();
        for (row, state) in (first..).zip(state.chunks_exact_mut(latent)) {
            source.fill(call.seed, call.index(row), state);
        }
        let mut velocity = Guided {
            evaluator: &mut self.evaluator,
            features,
            guide: &call.guide,
            first,
            unconditional: &mut self.unconditional,
            meter,
            callback,
        };
        ode::integrate(
            &mut velocity,
            &call.solver,
            source.std,
            latent,
            state,
            &mut self.workspace,
        )?;
        let finite = |row: &[f32]| row.iter().all(|value| value.is_finite());
        match state.chunks_exact(latent).position(|row| !finite(row)) {
            None => Ok(()),
            Some(row) => Err(call.left_finite(first + row)),
        }
    }
}

/// A thread's share of a batch.
pub(crate) struct Work<'a, 'c> {
    pub(crate) call: &'a Call<'c>,
    pub(crate) features: &'a Features,
    /// The first network, counted within the call.
    pub(crate) first: usize,
    pub(crate) source: Source,
    pub(crate) meter: &'a Meter,
}

/// What all batches of one call share.
pub(crate) struct Call<'a> {
    pub(crate) seed: u64,
    pub(crate) first_index: u64,
    pub(crate) solver: Solver,
    pub(crate) guide: Guide<'a>,
    pub(crate) writer: Writer<'a>,
}

impl Call<'_> {
    /// The index of a network from its place in the call.
    pub(crate) fn index(&self, row: usize) -> u64 {
        self.first_index + row as u64
    }

    pub(crate) fn diverged(&self, row: usize, what: &str) -> Error {
        let (index, seed) = (self.index(row), self.seed);
        Error::new(
            Status::Diverged,
            format!("network {index} of seed {seed} {what}"),
        )
    }

    /// The error of a trajectory that left the finite numbers, or that no step could follow.
    pub(crate) fn left_finite(&self, row: usize) -> Error {
        let remedy = match self.solver.evaluations() {
            Some(_) => "more steps",
            // Small ones follow a steep stretch; large ones come past one that no step follows.
            None => "another tolerance, or a solver of fixed steps",
        };
        let less = match self.guide.guidance() {
            Some(_) => ", or less guidance",
            None => "",
        };
        let what = format!("left the finite numbers while integrating; use {remedy}{less}");
        self.diverged(row, &what)
    }
}
