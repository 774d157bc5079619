//! Matching: the permutation that brings one network nearest to another.
//!
//! Weight matching after Ainsworth, Hayase and Srinivasa, "Git Re-Basin" (ICLR 2023, arXiv
//! 2209.04836), Algorithm 1, over families of units: coordinate descent, each step an exact linear
//! assignment. Owners, such as attention heads, are matched together with what is inside them: the
//! cost of a pair of heads is that of the best assignment of their neurons. They start as in
//! TransFusion (Rinaldi et al., "Update Your Transformer to the Latest Release: Re-Basin of Task
//! Vectors", ICML 2025, arXiv 2505.22697), by the spectra of their blocks, which no permutation
//! of neurons or of the residual stream changes.
//!
//! The descent begins where something is known: families are placed one after the other, each
//! judged by the tensors whose other axes are fixed or placed already. A tensor's similarities are
//! computed once, when it first counts; then, when k of an axis's n units move, their share k / n
//! is corrected.

mod descent;

use std::collections::BTreeSet;

use dwf::layout::{Layout, TensorKind};
use faer::{Accum, MatRef, Par, Side, linalg::matmul::matmul};

use self::descent::Descent;
use crate::{
    groups::{Groups, Permutation},
    slot::{Slot, rows, slots},
};

/// A network that others are matched to.
pub struct Matcher<'a> {
    groups: &'a Groups,
    layout: &'a Layout,
    /// The reference, with running statistics scaled as they count.
    weights: Vec<f32>,
    slots: Vec<Slot>,
    /// For each slot the reference's units as rows.
    rows: Vec<Vec<f32>>,
    trees: Vec<Tree>,
    /// The tree that each family is in.
    tree_of: Vec<usize>,
}

/// A family without owners, and all that is inside it.
struct Tree {
    root: usize,
    families: Vec<usize>,
    /// Whether some tensor has the tree on two axes: then costs are exact only to first order.
    entangled: bool,
    /// Energy of the reference in the tree's slots.
    energy: f64,
    /// Singular values of every owner's blocks, where it has owners.
    spectra: Vec<Vec<f64>>,
}

impl<'a> Matcher<'a> {
    /// Prepares `reference`, a network of this layout and symmetry, to match others to it.
    pub fn new(layout: &'a Layout, groups: &'a Groups, reference: &[f32]) -> Self {
        let mut slots = slots(groups);
        let tree_of = tree_of(groups);
        for i in 0..slots.len() {
            let (tensor, dim) = (slots[i].tensor, slots[i].dim);
            let other = |slot: &&Slot| slot.tensor == tensor && slot.dim != dim;
            let others = slots.iter().filter(other);
            slots[i].others = others.map(|slot| tree_of[slot.family]).collect();
        }
        let mut weights = reference.to_vec();
        scale_statistics(layout, &slots, &mut weights);
        let rows: Vec<Vec<f32>> = slots
            .iter()
            .map(|slot| rows(groups, layout, slot, &weights))
            .collect();
        let mut matcher = Self {
            groups,
            layout,
            weights,
            slots,
            rows,
            trees: Vec::new(),
            tree_of,
        };
        matcher.trees = matcher.trees();
        matcher
    }

    fn trees(&self) -> Vec<Tree> {
        let count = self.tree_of.iter().max().map_or(0, |last| last + 1);
        let tree = |tree: usize| {
            let families = (0..self.tree_of.len()).filter(|f| self.tree_of[*f] == tree);
            let families: Vec<usize> = families.collect();
            let owner = |family: &usize| self.groups.families()[*family].owner;
            let own = |slot: &&Slot| self.tree_of[slot.family] == tree;
            let energy = |i: usize| {
                self.rows[i]
                    .iter()
                    .map(|w| f64::from(*w).powi(2))
                    .sum::<f64>()
            };
            let of_tree = (0..self.slots.len()).filter(|i| own(&&self.slots[*i]));
            let root = families.iter().copied().find(|f| owner(f).is_none());
            let root = root.expect("owners end somewhere");
            Tree {
                root,
                entangled: self
                    .slots
                    .iter()
                    .filter(own)
                    .any(|s| s.others.contains(&tree)),
                energy: of_tree.map(energy).sum(),
                spectra: self.spectra(root, &self.weights),
                families,
            }
        };
        (0..count).map(tree).collect()
    }

    /// The permutation of `network` that brings it nearest to the reference, up to a local
    /// optimum: no family can be improved alone.
    pub fn match_network(&self, network: &[f32]) -> Permutation {
        let mut descent = Descent::new(self, network);
        descent.match_spectra();
        descent.place();
        descent.sweep();
        descent.permutation
    }

    /// Singular values of the blocks of weights inside every owner of a family: one row an owner.
    fn spectra(&self, root: usize, weights: &[f32]) -> Vec<Vec<f64>> {
        let owners = self.groups.families()[root].units.len();
        let mut spectra = vec![Vec::new(); owners];
        for family in self.groups.inside(root) {
            let share = self.groups.share(family);
            for slot in self.slots.iter().filter(|slot| slot.family == family) {
                let rows = rows(self.groups, self.layout, slot, weights);
                let length = rows.len() / (share * owners * slot.times);
                if share == 1 || length == 1 {
                    continue;
                }
                for (owner, block) in rows.chunks_exact(share * slot.times * length).enumerate() {
                    for time in 0..slot.times {
                        let part =
                            |unit: usize| &block[(unit * slot.times + time) * length..][..length];
                        let block: Vec<f32> =
                            (0..share).flat_map(|unit| part(unit).to_vec()).collect();
                        spectra[owner].extend(singular_values(&block, share));
                    }
                }
            }
        }
        spectra
    }
}

/// Numbers of the trees that families are in.
fn tree_of(groups: &Groups) -> Vec<usize> {
    let families = groups.families();
    let root = |family: usize| {
        let owners = std::iter::successors(Some(family), |f| families[*f].owner);
        owners.last().expect("at least itself")
    };
    let roots: BTreeSet<usize> = (0..families.len()).map(root).collect();
    let number = |family| {
        roots
            .iter()
            .position(|r| *r == root(family))
            .expect("listed")
    };
    (0..families.len()).map(number).collect()
}

/// Running means and variances count like one more parameter of each unit, whatever their size:
/// scaled so that they vary as much as the parameters that share their units are large.
fn scale_statistics(layout: &Layout, slots: &[Slot], weights: &mut [f32]) {
    let tensors = layout.tensors();
    let scale = |slot: &Slot| {
        let same = |other: &&Slot| {
            other.family == slot.family && tensors[other.tensor].kind == TensorKind::Parameter
        };
        let (mut sum, mut count) = (0.0, 0);
        for other in slots.iter().filter(same) {
            let values = &weights[tensors[other.tensor].range()];
            sum += values.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>();
            count += values.len();
        }
        let values = &weights[tensors[slot.tensor].range()];
        let mean = values.iter().map(|w| f64::from(*w)).sum::<f64>() / values.len() as f64;
        let deviations = values.iter().map(|w| (f64::from(*w) - mean).powi(2));
        let variance = deviations.sum::<f64>() / values.len() as f64;
        if count == 0 || variance == 0.0 {
            0.0
        } else {
            (sum / count as f64 / variance) as f32
        }
    };
    let statistics = slots
        .iter()
        .filter(|s| tensors[s.tensor].kind == TensorKind::Buffer);
    let scales: Vec<(usize, f32)> = statistics.map(|slot| (slot.tensor, scale(slot))).collect();
    for (tensor, scale) in scales {
        weights[tensors[tensor].range()]
            .iter_mut()
            .for_each(|w| *w *= scale);
    }
}

/// Of a block [rows, k], largest first, from the eigenvalues of its Gram matrix.
fn singular_values(block: &[f32], rows: usize) -> Vec<f64> {
    let length = block.len() / rows;
    let block = MatRef::from_row_major_slice(block, rows, length);
    let mut gram = faer::Mat::<f32>::zeros(rows, rows);
    matmul(
        &mut gram,
        Accum::Replace,
        block,
        block.transpose(),
        1.0,
        Par::Seq,
    );
    let gram = faer::Mat::from_fn(rows, rows, |i, j| f64::from(gram[(i, j)]));
    let values = gram
        .self_adjoint_eigenvalues(Side::Lower)
        .unwrap_or_default();
    values
        .iter()
        .rev()
        .map(|value| value.max(0.0).sqrt())
        .collect()
}
