//! The descent of one network towards the reference: families moved in turns.

use super::{Matcher, Tree};
use crate::{
    assignment,
    groups::{Permutation, take, take_within_groups},
    mlp::inner,
    slot::{Slot, add_products, rows, unfold},
};

/// Gains below this part of the sum of a family's costs are rounding.
const TIE: f64 = 1e-6;
/// Descents end long before; this bounds those that rounding would keep going.
const MOST_SWEEPS: usize = 100;

/// One network on its way to the reference.
pub(super) struct Descent<'a> {
    matcher: &'a Matcher<'a>,
    /// The network as permuted so far.
    weights: Vec<f32>,
    pub(super) permutation: Permutation,
    /// For each family the similarity of each of the reference's units (row) with what lies at
    /// each place now (column), as far as slots count.
    gains: Vec<Vec<f32>>,
    /// Slots that count: all their other axes are placed.
    counted: Vec<bool>,
    placed: Vec<bool>,
    /// Trees whose costs have changed since they were matched.
    dirty: Vec<bool>,
    /// Families whose gains must be computed anew.
    stale: Vec<bool>,
}

/// New places within a family: place i takes what lies at `sources[i]`.
struct Move {
    family: usize,
    sources: Vec<u32>,
}

impl<'a> Descent<'a> {
    pub(super) fn new(matcher: &'a Matcher<'a>, network: &[f32]) -> Self {
        let families = matcher.groups.families();
        let gains = families.iter().map(|f| vec![0.0; f.units.len().pow(2)]);
        Self {
            weights: network.to_vec(),
            permutation: matcher.groups.identity(),
            gains: gains.collect(),
            counted: vec![false; matcher.slots.len()],
            placed: vec![false; matcher.trees.len()],
            dirty: vec![true; matcher.trees.len()],
            stale: vec![false; families.len()],
            matcher,
        }
    }

    /// Puts owners at the places where their blocks' spectra fit best.
    pub(super) fn match_spectra(&mut self) {
        for tree in &self.matcher.trees {
            if tree.spectra.iter().all(Vec::is_empty) {
                continue;
            }
            let own = self.matcher.spectra(tree.root, &self.weights);
            let distance = |a: &[f64], b: &[f64]| -> f64 {
                a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum()
            };
            let costs = tree.spectra.iter();
            let costs: Vec<f32> = costs
                .flat_map(|a| own.iter().map(move |b| distance(a, b) as f32))
                .collect();
            let owners = assignment::solve(&costs, own.len());
            let mut moves = Vec::new();
            self.carry(tree.root, &owners, &mut moves);
            self.apply(&moves);
        }
    }

    /// Moves of a family's units, and of all inside them, which keep their order there.
    fn carry(&self, family: usize, sources: &[usize], moves: &mut Vec<Move>) {
        for inner in self.matcher.groups.inside(family) {
            let share = self.matcher.groups.share(inner);
            let units = sources
                .iter()
                .flat_map(|owner| owner * share..(owner + 1) * share);
            self.carry(inner, &units.collect::<Vec<_>>(), moves);
        }
        let sources = sources.iter().map(|place| *place as u32).collect();
        moves.push(Move { family, sources });
    }

    /// Places one tree after the other, at each step the one of which most is known.
    pub(super) fn place(&mut self) {
        self.count_slots();
        while let Some(tree) = self.best_known() {
            let moves = self.best_moves(tree);
            if self.gain(&moves) > 0.0 {
                self.apply(&moves);
            }
            self.placed[tree] = true;
            self.count_slots();
        }
    }

    /// The tree, of those not placed, with the largest part of its energy in slots that count.
    fn best_known(&self) -> Option<usize> {
        let known = |tree: &usize| -> f64 {
            let slots = self.matcher.slots.iter().enumerate();
            let counted = slots
                .filter(|(i, slot)| self.counted[*i] && self.matcher.tree_of[slot.family] == *tree);
            let energy: f64 = counted
                .map(|(i, _)| {
                    self.matcher.rows[i]
                        .iter()
                        .map(|w| f64::from(*w).powi(2))
                        .sum::<f64>()
                })
                .sum();
            energy / self.matcher.trees[*tree].energy.max(f64::MIN_POSITIVE)
        };
        let open: Vec<usize> = (0..self.placed.len())
            .filter(|tree| !self.placed[*tree])
            .collect();
        let known: Vec<f64> = open.iter().map(known).collect();
        // The first of equals.
        let best = (0..open.len())
            .rev()
            .max_by(|a, b| known[*a].total_cmp(&known[*b]))?;
        Some(open[best])
    }

    /// Adds the slots whose other axes are all placed by now.
    fn count_slots(&mut self) {
        for i in 0..self.matcher.slots.len() {
            let slot = &self.matcher.slots[i];
            if !self.counted[i] && slot.others.iter().all(|tree| self.placed[*tree]) {
                self.counted[i] = true;
                self.add_slot(i);
                self.dirty[self.matcher.tree_of[slot.family]] = true;
            }
        }
    }

    /// Matches trees until none can be improved.
    pub(super) fn sweep(&mut self) {
        for _ in 0..MOST_SWEEPS {
            let mut changed = false;
            for tree in 0..self.matcher.trees.len() {
                if std::mem::take(&mut self.dirty[tree]) {
                    changed |= self.improve(tree);
                }
            }
            if !changed {
                return;
            }
        }
    }

    fn improve(&mut self, tree: usize) -> bool {
        let Tree {
            families,
            entangled,
            ..
        } = &self.matcher.trees[tree];
        for family in families {
            if std::mem::take(&mut self.stale[*family]) {
                self.recompute(*family);
            }
        }
        let moves = self.best_moves(tree);
        if !entangled {
            return self.accept(&moves);
        }
        if self.accept_if_nearer(&moves) {
            return true;
        }
        // Together they overshoot: one family at a time, owners staying.
        let inner = families
            .iter()
            .filter(|f| self.matcher.groups.families()[**f].owner.is_some());
        inner
            .copied()
            .collect::<Vec<_>>()
            .into_iter()
            .any(|family| {
                let moves = [self.best_within_owners(family)];
                self.accept_if_nearer(&moves)
            })
    }

    fn accept(&mut self, moves: &[Move]) -> bool {
        let worth = self.gain(moves) > self.tie(moves);
        if worth {
            self.apply(moves);
        }
        worth
    }

    /// Applies moves whose gain is only an estimate, and takes them back if it was wrong.
    fn accept_if_nearer(&mut self, moves: &[Move]) -> bool {
        if self.gain(moves) <= self.tie(moves) {
            return false;
        }
        let before = self.similarity();
        let (weights, permutation) = (self.weights.clone(), self.permutation.clone());
        self.apply(moves);
        if self.similarity() > before + self.tie(moves) {
            return true;
        }
        self.weights = weights;
        self.permutation = permutation;
        self.stale.fill(true);
        false
    }

    /// Inner product of the network and the reference.
    fn similarity(&self) -> f64 {
        inner(&self.matcher.weights, &self.weights)
    }

    /// The moves of a tree that its gains like best.
    fn best_moves(&self, tree: usize) -> Vec<Move> {
        let root = self.matcher.trees[tree].root;
        let all: Vec<usize> = (0..self.matcher.groups.families()[root].units.len()).collect();
        let mut found = Vec::new();
        self.best(root, &all, &all, Some(&mut found));
        let mut moves: Vec<Move> = self.matcher.trees[tree]
            .families
            .iter()
            .map(|family| Move {
                family: *family,
                sources: vec![0; self.matcher.groups.families()[*family].units.len()],
            })
            .collect();
        for (family, place, source) in found {
            let family = moves
                .iter_mut()
                .find(|m| m.family == family)
                .expect("in the tree");
            family.sources[place] = source as u32;
        }
        moves
    }

    /// The largest gain of a family's places `rows` taking from its places `columns`, and of all
    /// that is inside them: the family, place and source of every unit are added to `found`.
    fn best(
        &self,
        family: usize,
        rows: &[usize],
        columns: &[usize],
        found: Option<&mut Vec<(usize, usize, usize)>>,
    ) -> f64 {
        let groups = self.matcher.groups;
        let count = groups.families()[family].units.len();
        let inside: Vec<usize> = groups.inside(family).collect();
        let shares = |owner: usize, inner: usize| -> Vec<usize> {
            let share = groups.share(inner);
            (owner * share..(owner + 1) * share).collect()
        };
        let mut costs = Vec::with_capacity(rows.len() * columns.len());
        for row in rows {
            for column in columns {
                let own = f64::from(self.gains[family][row * count + column]);
                let inner = inside.iter().map(|inner| {
                    self.best(
                        *inner,
                        &shares(*row, *inner),
                        &shares(*column, *inner),
                        None,
                    )
                });
                costs.push(-(own + inner.sum::<f64>()) as f32);
            }
        }
        let assigned = assignment::solve(&costs, rows.len());
        let pairs = assigned.iter().enumerate();
        let total: f64 = pairs
            .map(|(i, j)| -f64::from(costs[i * rows.len() + j]))
            .sum();
        if let Some(found) = found {
            for (i, j) in assigned.iter().enumerate() {
                found.push((family, rows[i], columns[*j]));
                for inner in &inside {
                    let (rows, columns) = (shares(rows[i], *inner), shares(columns[*j], *inner));
                    self.best(*inner, &rows, &columns, Some(&mut *found));
                }
            }
        }
        total
    }

    fn best_within_owners(&self, family: usize) -> Move {
        let groups = self.matcher.groups;
        let (count, share) = (groups.families()[family].units.len(), groups.share(family));
        let mut found = Vec::new();
        for start in (0..count).step_by(share) {
            let own: Vec<usize> = (start..start + share).collect();
            self.best(family, &own, &own, Some(&mut found));
        }
        let mut sources = vec![0; count];
        for (_, place, source) in found.into_iter().filter(|(f, ..)| *f == family) {
            sources[place] = source as u32;
        }
        Move { family, sources }
    }

    fn gain(&self, moves: &[Move]) -> f64 {
        let gain = |Move { family, sources }: &Move| -> f64 {
            let gains = &self.gains[*family];
            let at = |row: usize, column: usize| f64::from(gains[row * sources.len() + column]);
            let places = sources.iter().enumerate();
            places
                .map(|(i, source)| at(i, *source as usize) - at(i, i))
                .sum()
        };
        moves.iter().map(gain).sum()
    }

    fn tie(&self, moves: &[Move]) -> f64 {
        let largest = |Move { family, sources }: &Move| {
            let gains = self.gains[*family].iter();
            let largest = gains.fold(0f32, |largest, gain| largest.max(gain.abs()));
            f64::from(largest) * sources.len() as f64
        };
        TIE * moves.iter().map(largest).sum::<f64>()
    }

    /// Moves units, and corrects the gains of all that they meet.
    fn apply(&mut self, moves: &[Move]) {
        let matcher = self.matcher;
        let moves: Vec<&Move> = moves.iter().filter(|m| m.moves()).collect();
        let of = |family: usize| moves.iter().find(|m| m.family == family).copied();
        let old = self.permutation.clone();
        for Move { family, sources } in &moves {
            let units = &matcher.groups.families()[*family].units;
            for (unit, source) in units.iter().zip(sources) {
                self.permutation.0[*unit as usize] = old.0[units[*source as usize] as usize];
            }
            permute_columns(&mut self.gains[*family], sources);
        }
        for tensor in 0..matcher.layout.tensors().len() {
            let own = |slot: &&Slot| slot.tensor == tensor;
            let slots: Vec<&Slot> = matcher.slots.iter().filter(own).collect();
            let moved: Vec<(&Slot, &Move)> = slots
                .iter()
                .filter_map(|slot| Some((*slot, of(slot.family)?)))
                .collect();
            if !moved.is_empty() {
                self.permute_tensor(tensor, &moved);
            }
        }
    }

    fn permute_tensor(&mut self, tensor: usize, moved: &[(&Slot, &Move)]) {
        let matcher = self.matcher;
        let spec = &matcher.layout.tensors()[tensor];
        let groups = matcher.groups.tensors()[tensor].groups;
        let old = self.weights[spec.range()].to_vec();
        let mut new = old.clone();
        let mut changed: Vec<(usize, Vec<u32>)> = Vec::new();
        for dim in 0..spec.shape.len() {
            let along: Vec<_> = moved.iter().filter(|(slot, _)| slot.dim == dim).collect();
            if along.is_empty() {
                continue;
            }
            let length = matcher.groups.tensors()[tensor].dims[dim]
                .as_ref()
                .map_or(0, Vec::len);
            let mut sources: Vec<u32> = (0..length as u32).collect();
            for (slot, step) in along {
                let times = slot.times;
                for (unit, source) in step.sources.iter().enumerate() {
                    for time in 0..times {
                        let from = slot.places[*source as usize * times + time];
                        sources[slot.places[unit * times + time] as usize] = from;
                    }
                }
            }
            let from = new.clone();
            if dim == 1 && groups > 1 {
                take_within_groups(&spec.shape, groups, &sources, &from, &mut new);
            } else {
                take(&spec.shape, dim, &sources, &from, &mut new);
            }
            let places = (0..length as u32).filter(|i| sources[*i as usize] != *i);
            changed.push((dim, places.collect()));
        }
        self.weights[spec.range()].copy_from_slice(&new);
        let meets = (0..matcher.slots.len()).filter(|i| {
            let slot = &matcher.slots[*i];
            slot.tensor == tensor && self.counted[*i] && changed.iter().any(|(d, _)| *d != slot.dim)
        });
        let mut difference: Option<Vec<f32>> = None;
        for i in meets.collect::<Vec<_>>() {
            let family = matcher.slots[i].family;
            self.dirty[matcher.tree_of[family]] = true;
            let itself = moved.iter().any(|(slot, _)| slot.family == family);
            if let [(dim, places)] = &changed[..]
                && !itself
                && groups == 1
                && !self.stale[family]
            {
                let difference = difference.get_or_insert_with(|| {
                    new.iter().zip(&old).map(|(new, old)| new - old).collect()
                });
                self.correct_slot(i, *dim, places, difference);
            } else {
                self.stale[family] = true;
            }
        }
    }

    /// Adds to a family's gains what a slot says.
    fn add_slot(&mut self, i: usize) {
        let Matcher {
            groups,
            layout,
            slots,
            ..
        } = self.matcher;
        let slot = &slots[i];
        let rows = rows(groups, layout, slot, &self.weights);
        add_products(&mut self.gains[slot.family], &self.matcher.rows[i], &rows);
    }

    /// Corrects it where the tensor has changed by `difference`, at `places` of another axis.
    fn correct_slot(&mut self, i: usize, dim: usize, places: &[u32], difference: &[f32]) {
        let Matcher {
            groups,
            layout,
            weights,
            slots,
            ..
        } = self.matcher;
        let slot = &slots[i];
        let spec = &layout.tensors()[slot.tensor];
        let (mut reference, mut rows) = (Vec::new(), Vec::new());
        let only = Some((dim, places));
        unfold(
            groups,
            spec,
            slot,
            &weights[spec.range()],
            only,
            &mut reference,
        );
        unfold(groups, spec, slot, difference, only, &mut rows);
        add_products(&mut self.gains[slot.family], &reference, &rows);
    }

    fn recompute(&mut self, family: usize) {
        self.gains[family].fill(0.0);
        for i in 0..self.matcher.slots.len() {
            if self.counted[i] && self.matcher.slots[i].family == family {
                self.add_slot(i);
            }
        }
    }
}

impl Move {
    fn moves(&self) -> bool {
        self.sources
            .iter()
            .enumerate()
            .any(|(i, source)| i != *source as usize)
    }
}

fn permute_columns(matrix: &mut [f32], sources: &[u32]) {
    let mut old = vec![0.0; sources.len()];
    for row in matrix.chunks_exact_mut(sources.len()) {
        old.copy_from_slice(row);
        for (value, source) in row.iter_mut().zip(sources) {
            *value = old[*source as usize];
        }
    }
}
