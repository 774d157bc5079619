//! From latents to weights through the artifact's basis, panel by panel of columns.

use std::sync::atomic::{AtomicUsize, Ordering};

use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;

use crate::{
    artifact::Basis,
    model::{Floats, Model},
    output::Writer,
};

/// Columns decoded at a time: k rows of it in f32 stay in the first-level cache for k about 100.
const PANEL: usize = 64;

/// Columns a task takes, so that a network is worth splitting only when it is large.
const TASK: usize = 256 * PANEL;

/// Decodes `latents` ([rows, latent]) into networks `first_row..` of `writer`, in parallel on
/// the current rayon pool if the network is large.
///
/// `Err(row)`: the first network, counted from `first_row`, with a weight that is not finite in
/// the output's type.
pub(crate) fn decode(
    model: &Model,
    latents: &[f32],
    first_row: usize,
    writer: &Writer,
) -> Result<(), usize> {
    let weights = model.metadata().layout.len();
    let decoder = Decoder::new(model, latents);
    let failed = AtomicUsize::new(usize::MAX);
    let task = |start: usize| {
        let mut scratch = decoder.scratch();
        for start in (start..weights.min(start + TASK)).step_by(PANEL) {
            let columns = PANEL.min(weights - start);
            decoder.panel(start, columns, &mut scratch, |row, values| {
                if !writer.write(first_row + row, start, values) {
                    failed.fetch_min(row, Ordering::Relaxed);
                }
            });
        }
    };
    if weights <= TASK {
        task(0);
    } else {
        let tasks = weights.div_ceil(TASK);
        (0..tasks).into_par_iter().for_each(|i| task(i * TASK));
    }
    match failed.into_inner() {
        usize::MAX => Ok(()),
        row => Err(row),
    }
}

/// The basis as typed slices of the mapping, and the latents of one batch.
struct Decoder<'a> {
    latent: usize,
    latents: &'a [f32],
    map: Map<'a>,
}

enum Map<'a> {
    Identity,
    Diagonal {
        mean: Floats<'a>,
        scale: Floats<'a>,
    },
    Linear {
        components: Floats<'a>,
        mean: Floats<'a>,
        weights: usize,
        /// The latents times the scale, [rows, latent].
        scaled: Vec<f32>,
    },
}

/// Memory of one task.
struct Scratch {
    mean: [f32; PANEL],
    scale: [f32; PANEL],
    components: Vec<[f32; PANEL]>,
}

impl<'a> Decoder<'a> {
    fn new(model: &'a Model, latents: &'a [f32]) -> Self {
        let latent = model.latent();
        let map = match model.basis() {
            Basis::Identity => Map::Identity,
            Basis::Diagonal { mean, scale } => Map::Diagonal {
                mean: model.floats(mean),
                scale: model.floats(scale),
            },
            Basis::Linear {
                components,
                mean,
                scale,
            } => {
                let mut row = vec![0.0; latent];
                model.floats(scale).read(0, &mut row);
                let scaled = latents.iter().zip(row.iter().cycle());
                Map::Linear {
                    components: model.floats(components),
                    mean: model.floats(mean),
                    weights: model.metadata().layout.len(),
                    scaled: scaled.map(|(z, scale)| z * scale).collect(),
                }
            }
        };
        Self {
            latent,
            latents,
            map,
        }
    }

    fn scratch(&self) -> Scratch {
        let rows = match self.map {
            Map::Linear { .. } => self.latent,
            _ => 0,
        };
        Scratch {
            mean: [0.0; PANEL],
            scale: [0.0; PANEL],
            components: vec![[0.0; PANEL]; rows],
        }
    }

    /// Computes columns `start..start + columns` of every row.
    fn panel(
        &self,
        start: usize,
        columns: usize,
        scratch: &mut Scratch,
        mut emit: impl FnMut(usize, &[f32]),
    ) {
        let rows = self.latents.chunks_exact(self.latent).enumerate();
        match &self.map {
            Map::Identity => rows.for_each(|(i, z)| emit(i, &z[start..start + columns])),
            Map::Diagonal { mean, scale } => {
                mean.read(start, &mut scratch.mean[..columns]);
                scale.read(start, &mut scratch.scale[..columns]);
                for (i, z) in rows {
                    let mut values = scratch.mean;
                    let z = &z[start..start + columns];
                    for ((value, scale), z) in values.iter_mut().zip(&scratch.scale).zip(z) {
                        *value += scale * z;
                    }
                    emit(i, &values[..columns]);
                }
            }
            Map::Linear {
                components,
                mean,
                weights,
                scaled,
            } => {
                mean.read(start, &mut scratch.mean[..columns]);
                for (k, row) in scratch.components.iter_mut().enumerate() {
                    components.read(k * weights + start, &mut row[..columns]);
                }
                for (i, z) in scaled.chunks_exact(self.latent).enumerate() {
                    let mut values = scratch.mean;
                    for (z, component) in z.iter().zip(&scratch.components) {
                        for (value, component) in values.iter_mut().zip(component) {
                            *value += z * component;
                        }
                    }
                    emit(i, &values[..columns]);
                }
            }
        }
    }
}

impl Floats<'_> {
    /// Reads elements from `start` into `to`.
    fn read(&self, start: usize, to: &mut [f32]) {
        let end = start + to.len();
        match self {
            Floats::F32(from) => to.copy_from_slice(&from[start..end]),
            Floats::F16(from) => from[start..end].convert_to_f32_slice(to),
        }
    }
}
