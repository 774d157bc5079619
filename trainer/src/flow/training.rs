//! A training under way, where its device is.

use super::{Check, Flow, FlowOptions, Keep, State};
#[cfg(feature = "cuda")]
use crate::velocity::cuda;
use crate::{
    error::{Error, Result, Status},
    path::Batch,
    velocity::{Device, Gradient},
};

/// A training under way.
pub struct Training {
    /// On a GPU, its weights and moments lag behind until somebody asks for them.
    state: State,
    place: Place,
}

/// What takes the steps.
enum Place {
    /// The processor, on the state itself.
    Cpu(Box<Gradient>),
    #[cfg(feature = "cuda")]
    Cuda {
        training: Box<cuda::Training>,
        /// Whether it took a step since the state was brought back.
        ahead: bool,
    },
}

impl Training {
    pub(super) fn new(state: State, device: Device) -> Result<Self> {
        let place = match device {
            Device::Cpu => Place::Cpu(Box::new(Gradient::new(state.velocity.shape))),
            #[cfg(feature = "cuda")]
            Device::Cuda => {
                let State {
                    velocity,
                    average,
                    adamw,
                    ..
                } = &state;
                Place::Cuda {
                    training: Box::new(cuda::Training::new(velocity, average, adamw)?),
                    ahead: false,
                }
            }
            #[cfg(not(feature = "cuda"))]
            Device::Cuda => return Err(crate::velocity::without_cuda()),
        };
        Ok(Self { state, place })
    }

    /// Steps done.
    pub(super) fn steps(&self) -> usize {
        self.state.step()
    }

    /// One step of the optimiser; the loss before it.
    ///
    /// Errors: the device's; DIVERGED if the loss is not finite.
    pub(super) fn step(&mut self, batch: &Batch, options: &FlowOptions) -> Result<f32> {
        let Batch { points, velocity } = batch;
        let state = &mut self.state;
        let step = state.next_step(options);
        let loss = match &mut self.place {
            Place::Cpu(gradient) => {
                let loss = gradient.loss(&state.velocity.weights, points, velocity);
                let (weights, average) = (&mut state.velocity.weights, &mut state.average.weights);
                state.adamw.step(weights, &gradient.values, average, step);
                loss
            }
            #[cfg(feature = "cuda")]
            Place::Cuda { training, ahead } => {
                *ahead = true;
                state.adamw.step += 1;
                training.step(points, velocity, &step.update(state.adamw.step))?
            }
        };
        if loss.is_finite() {
            return Ok(loss);
        }
        let step = self.steps();
        let message = format!("training diverged: the loss is {loss} at step {step}; lower --rate");
        Err(Error::new(Status::Diverged, message))
    }

    /// All that the rest of it depends on.
    ///
    /// Errors: the device's.
    pub fn state(&mut self) -> Result<&State> {
        #[cfg(feature = "cuda")]
        if let Place::Cuda { training, ahead } = &mut self.place
            && *ahead
        {
            let state = &mut self.state;
            training.read(&mut state.velocity, &mut state.average, &mut state.adamw)?;
            *ahead = false;
        }
        Ok(&self.state)
    }

    /// See [`State::see`].
    pub(super) fn see(&mut self, check: Check, keep: Keep) -> Result<()> {
        self.state()?;
        self.state.see(check, keep)
    }

    /// The newest check.
    pub(super) fn last_check(&self) -> Option<Check> {
        self.state.checks().last().copied()
    }

    /// See [`State::exhausted`].
    pub(super) fn exhausted(&self, keep: Keep) -> bool {
        self.state.exhausted(keep)
    }

    pub(super) fn finish(mut self) -> Result<Flow> {
        self.state()?;
        Ok(self.state.finish())
    }
}
