//! Where families lie in tensors, and the weights there as rows of their units.

use std::collections::BTreeSet;

use dwf::layout::{Layout, TensorSpec};
use faer::{Accum, MatMut, MatRef, Par, linalg::matmul::matmul};

use crate::groups::Groups;

/// A family's units along one axis of one tensor.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) tensor: usize,
    pub(crate) dim: usize,
    pub(crate) family: usize,
    /// The places along the axis of every unit, [units, times].
    pub(crate) places: Vec<u32>,
    pub(crate) times: usize,
    /// Trees of the units along the tensor's other axes.
    pub(crate) others: BTreeSet<usize>,
}

/// Where every family lies.
pub(crate) fn slots(groups: &Groups) -> Vec<Slot> {
    let mut slots = Vec::new();
    for (tensor, units) in groups.tensors().iter().enumerate() {
        for (dim, along) in units.dims.iter().enumerate() {
            let Some(along) = along else { continue };
            let mut places: Vec<Vec<Vec<u32>>> = Vec::new();
            for (place, unit) in along.iter().enumerate() {
                if let Some((family, i)) = groups.place(*unit) {
                    places.resize_with(places.len().max(family + 1), Vec::new);
                    let units = groups.families()[family].units.len();
                    places[family].resize(units, Vec::new());
                    places[family][i].push(place as u32);
                }
            }
            let present = places
                .into_iter()
                .enumerate()
                .filter(|(_, p)| !p.is_empty());
            slots.extend(present.map(|(family, places)| Slot {
                tensor,
                dim,
                family,
                times: places[0].len(),
                places: places.concat(),
                others: BTreeSet::new(),
            }));
        }
    }
    slots
}

impl Slot {
    /// Slots where every unit is once: the first places of all, the second, and so on.
    pub(crate) fn once(&self) -> impl Iterator<Item = Self> + '_ {
        (0..self.times).map(|time| Self {
            places: self
                .places
                .iter()
                .skip(time)
                .step_by(self.times)
                .copied()
                .collect(),
            times: 1,
            ..self.clone()
        })
    }
}

/// The units of a slot as rows: [units, times * the rest of the tensor], at some places of another
/// axis alone if `only` says so.
pub(crate) fn unfold(
    groups: &Groups,
    spec: &TensorSpec,
    slot: &Slot,
    values: &[f32],
    only: Option<(usize, &[u32])>,
    rows: &mut Vec<f32>,
) {
    let shape = &spec.shape;
    let inner: usize = shape[slot.dim + 1..].iter().product();
    let grouped = groups.tensors()[slot.tensor].groups;
    if slot.dim == 1 && grouped > 1 {
        // Places are those of all groups' inputs; each has the rows of its group.
        let (per_group, within) = (shape[0] / grouped, shape[1]);
        for place in &slot.places {
            let (group, place) = (*place as usize / within, *place as usize % within);
            for row in group * per_group..(group + 1) * per_group {
                rows.extend(&values[(row * within + place) * inner..][..inner]);
            }
        }
        return;
    }
    let outer: usize = shape[..slot.dim].iter().product();
    let all = |count: usize| (0..count).collect::<Vec<_>>();
    let whole = 0..inner;
    let (outers, inners) = match only {
        None => (all(outer), vec![whole]),
        Some((dim, places)) if dim < slot.dim => {
            (chosen(&shape[..slot.dim], dim, places), vec![whole])
        }
        Some((dim, places)) => {
            let after = &shape[slot.dim + 1..];
            let tail: usize = shape[dim + 1..].iter().product();
            let at = dim - slot.dim - 1;
            let heads = chosen(&after[..=at], at, places);
            let ranges = heads.into_iter().map(|i| i * tail..(i + 1) * tail);
            (all(outer), ranges.collect())
        }
    };
    let each: usize = inners.iter().map(ExactSizeIterator::len).sum();
    rows.reserve(slot.places.len() * outers.len() * each);
    for place in &slot.places {
        for outer in &outers {
            let start = (outer * shape[slot.dim] + *place as usize) * inner;
            for range in &inners {
                rows.extend(&values[start + range.start..start + range.end]);
            }
        }
    }
}

/// All units of a slot in a network's weights, as rows.
pub(crate) fn rows(groups: &Groups, layout: &Layout, slot: &Slot, weights: &[f32]) -> Vec<f32> {
    let spec = &layout.tensors()[slot.tensor];
    let mut rows = Vec::new();
    unfold(groups, spec, slot, &weights[spec.range()], None, &mut rows);
    rows
}

/// products [n, n] += a [n, k] b' [k, n].
pub(crate) fn add_products(products: &mut [f32], a: &[f32], b: &[f32]) {
    let n = products.len().isqrt();
    let length = a.len() / n;
    matmul(
        MatMut::from_row_major_slice_mut(products, n, n),
        Accum::Add,
        MatRef::from_row_major_slice(a, n, length),
        MatRef::from_row_major_slice(b, n, length).transpose(),
        1.0,
        Par::Seq,
    );
}

/// Writes rows that [`unfold`] gave, of all places and of a kernel without groups, back.
pub(crate) fn fold(spec: &TensorSpec, slot: &Slot, rows: &[f32], values: &mut [f32]) {
    let outer: usize = spec.shape[..slot.dim].iter().product();
    let inner: usize = spec.shape[slot.dim + 1..].iter().product();
    let mut rows = rows.chunks_exact(inner);
    for place in &slot.places {
        for outer in 0..outer {
            let start = (outer * spec.shape[slot.dim] + *place as usize) * inner;
            let row = rows.next().expect("as many as unfolded");
            values[start..][..inner].copy_from_slice(row);
        }
    }
}

/// Row-major places over `shape` whose index along `dim` is one of these.
fn chosen(shape: &[usize], dim: usize, indices: &[u32]) -> Vec<usize> {
    let before: usize = shape[..dim].iter().product();
    let after: usize = shape[dim + 1..].iter().product();
    let mut places = Vec::with_capacity(before * indices.len() * after);
    for outer in 0..before {
        for index in indices {
            let start = (outer * shape[dim] + *index as usize) * after;
            places.extend(start..start + after);
        }
    }
    places
}
