//! Rotations that change nothing: of a residual stream that only layer normalisation reads, and of
//! what is inside an attention head.
//!
//! A stream x and everything that reads and writes it may be turned together by any Q with Q 1 = 1,
//! if its normalisations have unit gain and no shift; queries and keys of a head meet in inner
//! products, values and the output in a sum, so that each pair may be turned together, and even
//! multiplied by any matrix G on one side and its inverse transpose on the other. Canonical networks
//! have gains and shifts in the layers that read them, nothing along 1 in a stream, and heads whose
//! two sides have the same Gram matrix, which is where their norm is least. What is left,
//! orthogonal matrices, is matched by [`crate::procrustes`]. Permutations of a stream's channels
//! are a few of these. (Ashkboos et al., "SliceGPT", ICLR 2024, arXiv 2401.15024, turn streams to
//! compress; Theus et al., "Generalized Linear Mode Connectivity for Transformers", NeurIPS 2025,
//! arXiv 2506.22712, to merge.)
//!
//! All that is inferred is [tried](crate::trial).

use dwf::layout::{DType, Layout, TensorKind};
use faer::{Mat, MatRef, Side};

use crate::{
    attention,
    error::Result,
    groups::Groups,
    network::Network,
    procrustes,
    random::Random,
    slot::{Slot, fold, rows, slots},
    stream::{self, Norm},
    trial::Trial,
};

/// Seed of the rotations that a family is tried with.
const SEED: u64 = 0;
/// Heads with more tensors than this on both sides are not balanced: every division is tried.
const MOST_SIDED: usize = 6;
/// A side whose Gram matrix has a smaller eigenvalue, relative to its largest, is left as it is:
/// dividing by it would magnify rounding.
const LEAST_EIGENVALUE: f64 = 1e-4;

/// What may be turned in a network.
pub struct Rotations<'a> {
    pub(crate) places: Places<'a>,
    pub(crate) streams: Vec<Stream>,
    pub(crate) heads: Vec<Heads>,
    /// The families that can only be permuted.
    pub(crate) rest: Groups,
}

/// Where all families lie.
pub(crate) struct Places<'a> {
    layout: &'a Layout,
    groups: &'a Groups,
    pub(crate) slots: Vec<Slot>,
}

/// A residual stream.
pub(crate) struct Stream {
    pub(crate) family: usize,
    /// Numbers of its slots but for the normalisations'.
    pub(crate) slots: Vec<usize>,
    /// Those of tensors in which nothing else moves.
    pub(crate) anchored: Vec<usize>,
    norms: Vec<Norm>,
}

/// Attention heads of one layer.
pub(crate) struct Heads {
    pub(crate) family: usize,
    /// Slots of the heads themselves.
    pub(crate) slots: Vec<usize>,
    pub(crate) inside: Vec<Inside>,
}

/// What meets inside every head: queries and keys, or values and the output.
pub(crate) struct Inside {
    pub(crate) family: usize,
    pub(crate) slots: Vec<usize>,
    /// For every slot whether it is on the second side, if the sides are known.
    sides: Option<Vec<bool>>,
}

impl<'a> Rotations<'a> {
    /// Looks for what may be turned, in tensors of single precision.
    ///
    /// Errors: those of running the network.
    pub fn find(network: &'a Network, groups: &'a Groups) -> Result<Self> {
        let places = Places::new(network.layout(), groups);
        let mut found = Self {
            streams: places.streams(network),
            heads: places.heads(network),
            rest: groups.clone(),
            places,
        };
        if found.is_empty() {
            return Ok(found);
        }
        let mut trial = Trial::new(network)?;
        let Self {
            places,
            streams,
            heads,
            ..
        } = &mut found;
        *streams = keep(std::mem::take(streams), |stream| {
            let mut weights = trial.weights().to_vec();
            places.settle(stream, &mut weights);
            places.shake_stream(stream, &mut Random::new(SEED, 0), &mut weights);
            trial.holds(&weights)
        })?;
        *heads = keep(std::mem::take(heads), |heads| {
            let mut weights = trial.weights().to_vec();
            places.shake_heads(heads, &mut Random::new(SEED, 1), &mut weights);
            trial.holds(&weights)
        })?;
        for inside in heads.iter_mut().flat_map(|heads| &mut heads.inside) {
            inside.sides = places.sides(inside, &mut trial)?;
        }
        let turned = found.streams.iter().map(|stream| stream.family);
        let turned: Vec<usize> = turned.chain(found.heads.iter().map(|h| h.family)).collect();
        found.rest = groups.without(&turned);
        Ok(found)
    }

    /// Whether there is nothing to turn.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty() && self.heads.is_empty()
    }

    /// Brings a network to its canonical form.
    pub fn canonicalise(&self, weights: &mut [f32]) {
        for stream in &self.streams {
            self.places.settle(stream, weights);
        }
        for inside in self.heads.iter().flat_map(|heads| &heads.inside) {
            if let Some(sides) = &inside.sides {
                self.places.balance(inside, sides, weights);
            }
        }
    }

    /// Turns everything in a canonical network at random.
    pub fn shake(&self, random: &mut Random, weights: &mut [f32]) {
        for stream in &self.streams {
            self.places.shake_stream(stream, random, weights);
        }
        for heads in &self.heads {
            self.places.shake_heads(heads, random, weights);
        }
    }

    /// Units of every stream, and of a head for everything inside the heads of a layer.
    pub fn sizes(&self) -> [Vec<usize>; 2] {
        let streams = self.streams.iter();
        let inside = self.heads.iter().flat_map(|heads| &heads.inside);
        [
            streams.map(|s| self.places.count(s.family)).collect(),
            inside.map(|i| self.places.groups.share(i.family)).collect(),
        ]
    }

    /// What was found for people, by the first tensor that each lies in.
    pub fn table(&self) -> String {
        let first = |slots: &[usize]| {
            let Slot { tensor, dim, .. } = self.places.slots[slots[0]];
            format!("{}[{dim}]", self.places.layout.tensors()[tensor].name)
        };
        let streams = self.streams.iter().map(|stream| {
            let (units, first) = (self.places.count(stream.family), first(&stream.slots));
            format!("free turn  {units:>5} units of {first}\n")
        });
        let inside = self.heads.iter().flat_map(|heads| &heads.inside);
        let inside = inside.map(|inside| {
            let share = self.places.groups.share(inside.family);
            let first = first(&inside.slots);
            format!("free turn  {share:>5} units a head of {first}\n")
        });
        streams.chain(inside).collect()
    }
}

/// Those that hold.
fn keep<T>(candidates: Vec<T>, mut holds: impl FnMut(&T) -> Result<bool>) -> Result<Vec<T>> {
    let mut kept = Vec::new();
    for candidate in candidates {
        if holds(&candidate)? {
            kept.push(candidate);
        }
    }
    Ok(kept)
}

impl<'a> Places<'a> {
    fn new(layout: &'a Layout, groups: &'a Groups) -> Self {
        let slots = slots(groups);
        Self {
            layout,
            groups,
            slots: slots.iter().flat_map(Slot::once).collect(),
        }
    }

    pub(crate) fn layout(&self) -> &'a Layout {
        self.layout
    }

    /// Units of a family.
    pub(crate) fn count(&self, family: usize) -> usize {
        self.groups.families()[family].units.len()
    }

    /// The slots of a family, if all can be turned.
    fn of(&self, family: usize) -> Option<Vec<usize>> {
        let own = (0..self.slots.len()).filter(|i| self.slots[*i].family == family);
        let own: Vec<usize> = own.collect();
        let fits = |i: &usize| {
            let tensor = self.slots[*i].tensor;
            let spec = &self.layout.tensors()[tensor];
            spec.dtype == DType::F32
                && spec.kind == TensorKind::Parameter
                && self.groups.tensors()[tensor].groups == 1
        };
        own.iter().all(fits).then_some(own)
    }

    fn streams(&self, network: &Network) -> Vec<Stream> {
        let alone = |f: &usize| self.groups.inside(*f).next().is_none();
        let stream = |family: usize| {
            let norms = stream::norms(network, self.groups, family)?;
            let settled = |tensor| {
                let mut gains = norms.iter().flat_map(|n| [Some(n.gain), n.shift]);
                gains.any(|gain| gain == Some(tensor))
            };
            let mut slots = self.of(family)?;
            slots.retain(|i| !settled(self.slots[*i].tensor));
            let anchored = slots.iter().copied().filter(|i| self.is_anchored(*i));
            let stream = Stream {
                family,
                anchored: anchored.collect(),
                slots,
                norms,
            };
            self.can_settle(&stream).then_some(stream)
        };
        let outermost = self.groups.outermost().into_iter();
        outermost.filter(alone).filter_map(stream).collect()
    }

    /// Whether gains, shifts and what reads them lie in the stream once, and biases are vectors.
    fn can_settle(&self, stream: &Stream) -> bool {
        let once = |tensor| {
            let slots = self.slots.iter().filter(|slot| slot.tensor == tensor);
            slots.filter(|slot| slot.family == stream.family).count() == 1
        };
        let tensors = self.layout.tensors();
        let bias = |weights: usize, bias: usize| {
            let size = self.count(stream.family);
            tensors[bias].dtype == DType::F32
                && tensors[bias].count() * size == tensors[weights].count()
        };
        let vector = |gain: usize| tensors[gain].shape.len() == 1 && once(gain);
        stream.norms.iter().all(|norm| {
            let reads = norm.readers.iter().all(|reader| {
                once(reader.weights) && reader.bias.is_none_or(|b| bias(reader.weights, b))
            });
            reads && vector(norm.gain) && norm.shift.is_none_or(vector)
        })
    }

    fn heads(&self, network: &Network) -> Vec<Heads> {
        let groups = self.groups;
        let heads = |family: usize| {
            let inside = groups.inside(family).map(|inner| {
                let leaf = groups.inside(inner).next().is_none() && groups.share(inner) > 1;
                let slots = self.of(inner).filter(|_| leaf)?;
                Some(Inside {
                    family: inner,
                    slots,
                    sides: None,
                })
            });
            let inside: Vec<Inside> = inside.collect::<Option<_>>()?;
            let slots = self.of(family)?;
            let families: Vec<usize> = inside.iter().map(|inside| inside.family).collect();
            let turns = !inside.is_empty() && attention::is_bilinear(network, groups, &families);
            turns.then_some(Heads {
                family,
                slots,
                inside,
            })
        };
        groups.outermost().into_iter().filter_map(heads).collect()
    }

    /// The units of a slot as rows.
    pub(crate) fn rows(&self, slot: usize, weights: &[f32]) -> Vec<f32> {
        rows(self.groups, self.layout, &self.slots[slot], weights)
    }

    fn put(&self, slot: usize, rows: &[f32], weights: &mut [f32]) {
        let slot = &self.slots[slot];
        let spec = &self.layout.tensors()[slot.tensor];
        fold(spec, slot, rows, &mut weights[spec.range()]);
    }

    /// Whether nothing moves along the other axes of a slot's tensor.
    fn is_anchored(&self, slot: usize) -> bool {
        let Slot { tensor, dim, .. } = self.slots[slot];
        let dims = self.groups.tensors()[tensor].dims.iter().enumerate();
        let mut others = dims.filter(|(other, _)| *other != dim);
        let once = self
            .slots
            .iter()
            .filter(|slot| slot.tensor == tensor)
            .count()
            == 1;
        once && others.all(|(_, units)| units.is_none())
    }

    /// Replaces the units of slots, in equal blocks: each by a matrix times the block at its source.
    pub(crate) fn turn(
        &self,
        slots: &[usize],
        sources: &[usize],
        matrices: &[Mat<f32>],
        weights: &mut [f32],
    ) {
        for slot in slots {
            let rows = self.rows(*slot, weights);
            let size = rows.len() / sources.len();
            let blocks = sources.iter().zip(matrices).flat_map(|(source, matrix)| {
                let units = matrix.ncols();
                let block = &rows[source * size..][..size];
                let block = MatRef::from_row_major_slice(block, units, size / units);
                row_major(&(matrix * block))
            });
            let turned: Vec<f32> = blocks.collect();
            self.put(*slot, &turned, weights);
        }
    }

    /// Moves the gains and shifts of a stream's normalisations into what reads them, and takes the
    /// mean over its units, which they do not see, out of it.
    fn settle(&self, stream: &Stream, weights: &mut [f32]) {
        let slot = |tensor: usize| {
            let own = |slot: &Slot| slot.tensor == tensor && slot.family == stream.family;
            self.slots.iter().position(own).expect("it lies there")
        };
        for Norm {
            gain,
            shift,
            readers,
        } in &stream.norms
        {
            let gains = self.rows(slot(*gain), weights);
            let shifts = shift.map(|shift| self.rows(slot(shift), weights));
            for reader in readers {
                let mut rows = self.rows(slot(reader.weights), weights);
                let length = rows.len() / gains.len();
                if let (Some(shifts), Some(bias)) = (&shifts, reader.bias) {
                    let bias = &mut weights[self.layout.tensors()[bias].range()];
                    for (l, bias) in bias.iter_mut().enumerate() {
                        let units = shifts.iter().enumerate();
                        let moved =
                            units.map(|(u, s)| f64::from(*s) * f64::from(rows[u * length + l]));
                        *bias = (f64::from(*bias) + moved.sum::<f64>()) as f32;
                    }
                }
                for (row, gain) in rows.chunks_exact_mut(length).zip(&gains) {
                    row.iter_mut().for_each(|w| *w *= gain);
                }
                self.put(slot(reader.weights), &rows, weights);
            }
            weights[self.layout.tensors()[*gain].range()].fill(1.0);
            if let Some(shift) = shift {
                weights[self.layout.tensors()[*shift].range()].fill(0.0);
            }
        }
        let units = self.count(stream.family);
        for slot in &stream.slots {
            let mut rows = self.rows(*slot, weights);
            let length = rows.len() / units;
            for l in 0..length {
                let column = || (l..rows.len()).step_by(length);
                let mean = column().map(|i| f64::from(rows[i])).sum::<f64>() / units as f64;
                let column: Vec<usize> = column().collect();
                for i in column {
                    rows[i] = (f64::from(rows[i]) - mean) as f32;
                }
            }
            self.put(*slot, &rows, weights);
        }
    }

    /// For every slot inside heads whether it is on the second side: the division by which balanced
    /// heads compute the same.
    fn sides(&self, inside: &Inside, trial: &mut Trial) -> Result<Option<Vec<bool>>> {
        let count = inside.slots.len();
        if count > MOST_SIDED {
            return Ok(None);
        }
        for mask in 1..1usize << count.saturating_sub(1) {
            let sides: Vec<bool> = (0..count)
                .map(|i| i > 0 && mask >> (i - 1) & 1 == 1)
                .collect();
            let mut weights = trial.weights().to_vec();
            self.balance(inside, &sides, &mut weights);
            if weights != trial.weights() && trial.holds(&weights)? {
                return Ok(Some(sides));
            }
        }
        Ok(None)
    }

    /// Multiplies one side of every head by the matrix G, and the other by its inverse, with which
    /// both have the same Gram matrix.
    fn balance(&self, inside: &Inside, sides: &[bool], weights: &mut [f32]) {
        let share = self.groups.share(inside.family);
        let heads = self.count(inside.family) / share;
        let order: Vec<usize> = (0..heads).collect();
        let of = |second: bool| {
            let slots = inside.slots.iter().zip(sides);
            let slots = slots.filter(|(_, side)| **side == second);
            slots.map(|(slot, _)| *slot).collect::<Vec<_>>()
        };
        let [first, second] = [of(false), of(true)];
        let [a, b] = [&first, &second].map(|slots| self.grams(slots, share, heads, weights));
        let pairs = a.iter().zip(&b).map(|(a, b)| balancing(a, b));
        let (there, back): (Vec<_>, Vec<_>) = pairs.unzip();
        self.turn(&first, &order, &there, weights);
        self.turn(&second, &order, &back, weights);
    }

    /// For every head the inner products of its units.
    fn grams(&self, slots: &[usize], share: usize, heads: usize, weights: &[f32]) -> Vec<Mat<f64>> {
        let mut grams = vec![Mat::<f64>::zeros(share, share); heads];
        for slot in slots {
            let rows = self.rows(*slot, weights);
            let size = rows.len() / heads;
            for (gram, block) in grams.iter_mut().zip(rows.chunks_exact(size)) {
                let block = MatRef::from_row_major_slice(block, share, size / share);
                let block = Mat::from_fn(share, size / share, |i, j| f64::from(block[(i, j)]));
                *gram += &block * block.transpose();
            }
        }
        grams
    }

    fn shake_stream(&self, stream: &Stream, random: &mut Random, weights: &mut [f32]) {
        let matrix = normal(random, self.count(stream.family));
        let rotation = procrustes::rotation(procrustes::with_mean_kept(matrix).as_ref());
        self.turn(&stream.slots, &[0], &[rotation], weights);
    }

    fn shake_heads(&self, heads: &Heads, random: &mut Random, weights: &mut [f32]) {
        let order: Vec<usize> = (0..self.count(heads.family)).collect();
        for inside in &heads.inside {
            let share = self.groups.share(inside.family);
            let rotation = |_: &usize| procrustes::rotation(normal(random, share).as_ref());
            let rotations: Vec<_> = order.iter().map(rotation).collect();
            self.turn(&inside.slots, &order, &rotations, weights);
        }
    }
}

fn normal(random: &mut Random, size: usize) -> Mat<f64> {
    let mut values = vec![0f32; size * size];
    random.fill_normal(&mut values);
    Mat::from_fn(size, size, |i, j| f64::from(values[i * size + j]))
}

/// The symmetric G with G P G = G^-1 R G^-1, and its inverse: of M = G^2 holds M P M = R. The
/// identity, if P or R is all but singular.
fn balancing(p: &Mat<f64>, r: &Mat<f64>) -> (Mat<f32>, Mat<f32>) {
    let identity = || Mat::identity(p.nrows(), p.nrows());
    let found = || {
        let [root, inverse] = powers(p, [0.5, -0.5], LEAST_EIGENVALUE)?;
        powers(r, [], LEAST_EIGENVALUE)?;
        let [middle] = powers(&(&root * r * &root), [0.5], 0.0)?;
        powers(&(&inverse * middle * &inverse), [0.5, -0.5], 0.0)
    };
    let single = |m: Mat<f64>| Mat::from_fn(m.nrows(), m.ncols(), |i, j| m[(i, j)] as f32);
    found().map_or_else(
        || (identity(), identity()),
        |[g, back]| (single(g), single(back)),
    )
}

/// Powers of a symmetric matrix, if all its eigenvalues are positive and above `least` times the
/// largest.
fn powers<const N: usize>(
    matrix: &Mat<f64>,
    exponents: [f64; N],
    least: f64,
) -> Option<[Mat<f64>; N]> {
    let eigen = matrix.self_adjoint_eigen(Side::Lower).ok()?;
    let (values, vectors) = (eigen.S().column_vector(), eigen.U());
    let count = matrix.nrows();
    let largest = (0..count).map(|i| values[i]).fold(0.0, f64::max);
    let definite = |i: usize| values[i] > least * largest;
    if !(0..count).all(definite) {
        return None;
    }
    Some(exponents.map(|exponent| {
        let scaled = Mat::from_fn(count, count, |i, j| {
            vectors[(i, j)] * values[j].powf(exponent)
        });
        &scaled * vectors.transpose()
    }))
}

fn row_major(matrix: &Mat<f32>) -> Vec<f32> {
    let (rows, columns) = (matrix.nrows(), matrix.ncols());
    (0..rows)
        .flat_map(|i| (0..columns).map(move |j| matrix[(i, j)]))
        .collect()
}
