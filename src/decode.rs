//! From latents to weights through the artifact's basis.
//!
//! The basis is read once a batch, in panels of columns. Few networks: rows of a panel stream from
//! memory straight into the sums, which is bound by the memory's bandwidth. Many: a panel is packed
//! into tiles that stay in cache while every group of networks is multiplied with them.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::{
    artifact::Basis,
    error::Result,
    kernel::{Element, GROUP, Kernel, STREAMS, TILE},
    memory::{float_bytes, zeros},
    model::{Floats, Model},
    output::Writer,
    team::Team,
};

/// Columns of a panel that is streamed for one network: a row is long enough for the processor to
/// prefetch.
const STREAM_PANEL: usize = 16384;

/// Columns of a panel that is streamed for several: the rows that are added to the sums of one stay
/// in the first-level cache for those of the next.
const SHARED_PANEL: usize = 4096;

/// Columns of a panel that is packed: for about 100 components it stays in the second-level cache.
const PACK_PANEL: usize = 1024;

/// From this many networks on, packing pays.
const PACK_FROM: usize = GROUP + 2;

/// Most threads that decode: that many outrun any machine's memory, which decoding is bound by, and
/// each has its own scratch.
const MAX_DECODING: usize = 64;

/// Decodes batches of latents; holds what can be prepared ahead.
pub(crate) struct Decoder {
    kernel: Kernel,
    /// The latents times the scale of a linear basis; empty for others.
    scaled: Box<[f32]>,
    /// One a thread.
    scratches: Vec<Scratch>,
}

impl Decoder {
    /// A decoder for up to `max_batch` latents of `model` on `threads` threads.
    ///
    /// Errors: OUT_OF_MEMORY.
    pub(crate) fn new(model: &Model, max_batch: usize, threads: usize) -> Result<Self> {
        let (rows, columns) = scaled_size(model, max_batch);
        Ok(Self {
            kernel: Kernel::detect(),
            scaled: zeros(rows, columns)?,
            scratches: (0..decoding(model, threads))
                .map(|_| Scratch::new(model, max_batch))
                .collect::<Result<_>>()?,
        })
    }

    /// Bytes that one will hold.
    pub(crate) fn needed(model: &Model, max_batch: usize, threads: usize) -> u64 {
        float_bytes(&Scratch::sizes(model, max_batch))
            .saturating_mul(decoding(model, threads) as u64)
            .saturating_add(float_bytes(&[scaled_size(model, max_batch)]))
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        let scratches: usize = self.scratches.iter().map(Scratch::bytes).sum();
        size_of_val(&self.scaled[..]) + scratches
    }

    /// Decodes `latents` ([rows, latent]) into networks `first_row..` of `writer`, on all of
    /// `team` if the network is large.
    ///
    /// `Err(row)`: the first network, counted from `first_row`, with a weight that is not finite in
    /// the output's type.
    pub(crate) fn decode(
        &mut self,
        team: &Team,
        model: &Model,
        latents: &[f32],
        first_row: usize,
        writer: &Writer,
    ) -> Result<(), usize> {
        let weights = model.metadata().layout.len();
        let width = panel(latents.len() / model.latent());
        let panels = weights.div_ceil(width);
        let mut scratches = std::mem::take(&mut self.scratches);
        let batch = self.batch(model, latents);
        let next = AtomicUsize::new(0);
        let failed = AtomicUsize::new(usize::MAX);
        let work = |scratch: &mut Scratch| {
            while let panel = next.fetch_add(1, Ordering::Relaxed)
                && panel < panels
            {
                let start = panel * width;
                let columns = width.min(weights - start);
                batch.panel(start, columns, scratch, &mut |row, values| {
                    if !writer.write_decoded(first_row + row, start, values) {
                        failed.fetch_min(row, Ordering::Relaxed);
                    }
                });
            }
        };
        let (mine, others) = scratches.split_at_mut(1);
        let helpers = others.len().min(helpers(panels));
        team.run(|| work(&mut mine[0]), others[..helpers].iter_mut(), work);
        self.scratches = scratches;
        match failed.into_inner() {
            usize::MAX => Ok(()),
            row => Err(row),
        }
    }

    fn batch<'a>(&'a mut self, model: &'a Model, latents: &'a [f32]) -> Batch<'a> {
        let latent = model.latent();
        let rows = latents.len() / latent;
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
                self.scale(model.floats(scale), latents, latent);
                Map::Linear(Linear {
                    kernel: self.kernel,
                    components: model.floats(components),
                    mean: model.floats(mean),
                    weights: model.metadata().layout.len(),
                    latent,
                    scaled: &self.scaled,
                })
            }
        };
        Batch {
            kernel: self.kernel,
            rows,
            latent,
            latents,
            map,
        }
    }

    /// Stores scale * latents group by group: [groups][latent, padded][GROUP].
    fn scale(&mut self, scale: Floats, latents: &[f32], latent: usize) {
        let padded = latent.next_multiple_of(STREAMS);
        self.scaled.fill(0.0);
        for (i, row) in latents.chunks_exact(latent).enumerate() {
            let group = &mut self.scaled[i / GROUP * GROUP * padded..][..GROUP * padded];
            for (k, z) in row.iter().enumerate() {
                group[k * GROUP + i % GROUP] = z * scale.get(k);
            }
        }
    }
}

/// Rows and columns of the scaled latents.
fn scaled_size(model: &Model, max_batch: usize) -> (usize, usize) {
    match model.basis() {
        Basis::Linear { .. } => (
            max_batch.next_multiple_of(GROUP),
            model.latent().next_multiple_of(STREAMS),
        ),
        _ => (0, 0),
    }
}

/// The basis as typed slices of the mapping, and the latents of one batch.
struct Batch<'a> {
    kernel: Kernel,
    rows: usize,
    latent: usize,
    latents: &'a [f32],
    map: Map<'a>,
}

enum Map<'a> {
    Identity,
    Diagonal { mean: Floats<'a>, scale: Floats<'a> },
    Linear(Linear<'a>),
}

struct Linear<'a> {
    kernel: Kernel,
    components: Floats<'a>,
    mean: Floats<'a>,
    weights: usize,
    latent: usize,
    scaled: &'a [f32],
}

/// Columns decoded at a time, for a batch of this many networks.
fn panel(rows: usize) -> usize {
    match rows {
        1 => STREAM_PANEL,
        _ if rows < PACK_FROM => SHARED_PANEL,
        _ => PACK_PANEL,
    }
}

/// Helpers that decode so many panels: waking one is not worth it for a panel or two.
fn helpers(panels: usize) -> usize {
    panels / 2
}

/// Threads that decode, of `threads`.
fn decoding(model: &Model, threads: usize) -> usize {
    let panels = model.metadata().layout.len().div_ceil(PACK_PANEL);
    threads.min(MAX_DECODING).min(1 + helpers(panels))
}

/// Memory of one thread.
struct Scratch {
    mean: Box<[f32]>,
    sums: Box<[f32]>,
    rows: Box<[f32]>,
    /// [tiles][latent][TILE]
    tiles: Box<[f32]>,
}

impl Scratch {
    fn new(model: &Model, max_batch: usize) -> Result<Self> {
        let [mean, sums, rows, tiles] = Self::sizes(model, max_batch);
        let buffer = |(rows, columns)| zeros(rows, columns);
        Ok(Self {
            mean: buffer(mean)?,
            sums: buffer(sums)?,
            rows: buffer(rows)?,
            tiles: buffer(tiles)?,
        })
    }

    /// Rows and columns of mean, sums, rows and tiles.
    fn sizes(model: &Model, max_batch: usize) -> [(usize, usize); 4] {
        let weights = model.metadata().layout.len().next_multiple_of(TILE);
        let row = STREAM_PANEL.min(weights);
        let packed = max_batch >= PACK_FROM;
        let (row, sums, tiles) = match model.basis() {
            Basis::Identity => (0, 0, 0),
            Basis::Diagonal { .. } => (row, 1, 0),
            Basis::Linear { .. } if packed => (row, PACK_FROM, PACK_PANEL.min(weights)),
            Basis::Linear { .. } => (row, max_batch, 0),
        };
        let sums = (sums * row).min(PACK_FROM * SHARED_PANEL);
        [(1, row), (1, sums), (1, row), (tiles, model.latent())]
    }

    fn bytes(&self) -> usize {
        size_of_val(&self.mean[..])
            + size_of_val(&self.sums[..])
            + size_of_val(&self.rows[..])
            + size_of_val(&self.tiles[..])
    }
}

/// Takes the finished columns of one network.
type Emit<'a> = &'a mut dyn FnMut(usize, &[f32]);

impl Batch<'_> {
    /// Computes columns `start..start + columns` of every network.
    fn panel(&self, start: usize, columns: usize, scratch: &mut Scratch, emit: Emit) {
        match &self.map {
            Map::Identity => {
                for (i, z) in self.latents.chunks_exact(self.latent).enumerate() {
                    emit(i, &z[start..start + columns]);
                }
            }
            Map::Diagonal { mean, scale } => {
                self.diagonal(mean, scale, start, columns, scratch, emit);
            }
            Map::Linear(linear) if self.rows < PACK_FROM => {
                linear.stream(self.rows, start, columns, scratch, emit);
            }
            Map::Linear(linear) => linear.packed(self.rows, start, columns, scratch, emit),
        }
    }

    fn diagonal(
        &self,
        mean: &Floats,
        scale: &Floats,
        start: usize,
        columns: usize,
        scratch: &mut Scratch,
        emit: Emit,
    ) {
        let mean = mean.read(self.kernel, start, &mut scratch.mean[..columns]);
        let scale = scale.read(self.kernel, start, &mut scratch.rows[..columns]);
        let sums = &mut scratch.sums[..columns];
        for (i, z) in self.latents.chunks_exact(self.latent).enumerate() {
            let z = &z[start..start + columns];
            let values = sums.iter_mut().zip(mean).zip(scale).zip(z);
            for (((value, mean), scale), z) in values {
                *value = mean + scale * z;
            }
            emit(i, sums);
        }
    }
}

impl Linear<'_> {
    /// For few networks: every row of the components is read once and added to all sums.
    fn stream(&self, rows: usize, start: usize, columns: usize, scratch: &mut Scratch, emit: Emit) {
        let mean = self
            .mean
            .read(self.kernel, start, &mut scratch.mean[..columns]);
        let sums = &mut scratch.sums[..rows * columns];
        for sums in sums.chunks_exact_mut(columns) {
            sums.copy_from_slice(mean);
        }
        match self.components {
            Floats::F32(components) => self.add_streams(components, start, columns, sums),
            Floats::F16(components) => self.add_streams(components, start, columns, sums),
        }
        for (i, sums) in sums.chunks_exact(columns).enumerate() {
            emit(i, sums);
        }
    }

    fn add_streams<T: Element>(
        &self,
        components: &[T],
        start: usize,
        columns: usize,
        sums: &mut [f32],
    ) {
        for k in (0..self.latent).step_by(STREAMS) {
            let streams = std::array::from_fn(|j| {
                // Behind the last component the factors are zero: any finite row will do.
                let k = (k + j).min(self.latent - 1);
                &components[k * self.weights + start..][..columns]
            });
            for (i, sums) in sums.chunks_exact_mut(columns).enumerate() {
                let z = std::array::from_fn(|j| self.factor(i, k + j));
                self.kernel.accumulate(z, streams, sums);
            }
        }
    }

    /// For many networks: the panel is packed into tiles and multiplied group by group.
    fn packed(&self, rows: usize, start: usize, columns: usize, scratch: &mut Scratch, emit: Emit) {
        let width = columns.next_multiple_of(TILE);
        self.mean
            .read(self.kernel, start, &mut scratch.mean[..columns]);
        self.pack(start, columns, scratch);
        let (tiles, _) = scratch.tiles.as_chunks::<TILE>();
        let padded = self.latent.next_multiple_of(STREAMS);
        for first in (0..rows).step_by(GROUP) {
            let (z, _) = self.scaled[first * padded..][..GROUP * self.latent].as_chunks();
            let mut group = scratch.sums.chunks_exact_mut(width);
            let mut sums: [&mut [f32]; GROUP] =
                std::array::from_fn(|_| group.next().expect("room for a group"));
            for sums in &mut sums {
                sums.copy_from_slice(&scratch.mean[..width]);
            }
            for (t, tile) in tiles[..width / TILE * self.latent]
                .chunks_exact(self.latent)
                .enumerate()
            {
                let out = sums.each_mut().map(|sums| &mut sums.as_chunks_mut().0[t]);
                self.kernel.multiply(z, tile, out);
            }
            for (i, sums) in (first..rows).zip(sums) {
                emit(i, &sums[..columns]);
            }
        }
    }

    /// Packs columns `start..start + columns` into the tiles, padded with zeros.
    fn pack(&self, start: usize, columns: usize, scratch: &mut Scratch) {
        let row = &mut scratch.rows[..columns.next_multiple_of(TILE)];
        row[columns..].fill(0.0);
        let (tiles, _) = scratch.tiles.as_chunks_mut::<TILE>();
        for k in 0..self.latent {
            self.components
                .read(self.kernel, k * self.weights + start, &mut row[..columns]);
            for (t, chunk) in row.as_chunks().0.iter().enumerate() {
                tiles[t * self.latent + k] = *chunk;
            }
        }
    }

    /// Scaled latent `k` of network `row`; zero behind the last one.
    fn factor(&self, row: usize, k: usize) -> f32 {
        let padded = self.latent.next_multiple_of(STREAMS);
        self.scaled[(row / GROUP * padded + k) * GROUP + row % GROUP]
    }
}

impl Floats<'_> {
    fn get(&self, i: usize) -> f32 {
        match self {
            Floats::F32(from) => from[i],
            Floats::F16(from) => from[i].to_f32(),
        }
    }

    /// Elements from `start` as f32, in `to`.
    fn read<'b>(&self, kernel: Kernel, start: usize, to: &'b mut [f32]) -> &'b [f32] {
        let end = start + to.len();
        match self {
            Floats::F32(from) => kernel.widen(&from[start..end], to),
            Floats::F16(from) => kernel.widen(&from[start..end], to),
        }
        to
    }
}
