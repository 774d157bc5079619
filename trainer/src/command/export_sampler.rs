//! `dwf export-sampler`

use std::path::PathBuf;

use clap::ValueEnum;
use dwf::{
    Model,
    ode::{Method, Solver},
};
use dwf_trainer::{error::Result, export_sampler};

use super::at_least;

/// Write an artifact as one ONNX graph from noise to weights, for inference servers
///
/// Input `noise` [batch, latent], standard normal times the source's std, and `condition` [batch,
/// columns], if the artifact takes one: a class one-hot, or the axes' values, in the order that
/// `dwf inspect` lists; output `weights` [batch, weights] in the layout's order.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The artifact, NAME.onnx
    artifact: PathBuf,
    /// The graph to write, OTHER.onnx; its tensors go to OTHER.safetensors
    #[arg(short, long, value_name = "OTHER.onnx")]
    output: PathBuf,
    /// Solver. Default: the artifact's
    #[arg(long, value_enum)]
    solver: Option<SolverName>,
    /// Steps of the solver. Default: the artifact's
    #[arg(long, value_parser = at_least(1))]
    steps: Option<usize>,
}

/// The solvers that can be unrolled.
#[derive(Clone, Copy, ValueEnum)]
enum SolverName {
    Euler,
    Midpoint,
    Heun,
    Rk4,
}

impl From<SolverName> for Method {
    fn from(name: SolverName) -> Self {
        match name {
            SolverName::Euler => Self::Euler,
            SolverName::Midpoint => Self::Midpoint,
            SolverName::Heun => Self::Heun,
            SolverName::Rk4 => Self::Rk4,
        }
    }
}

impl Args {
    pub(crate) fn run(self) -> Result<()> {
        let model = Model::open(&self.artifact, &Default::default())?;
        let default = model.metadata().solver.solver();
        let solver = Solver {
            method: self.solver.map_or(default.method, Method::from),
            steps: self.steps.unwrap_or(default.steps),
            ..default
        };
        export_sampler::export_sampler(&self.artifact, &self.output, &solver)?;
        println!("wrote {} and its .safetensors", self.output.display());
        Ok(())
    }
}
