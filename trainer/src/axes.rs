//! Axes of a tensor during tracing: which units lie along them.

use crate::units::{Node, Units, hash};

/// A value of the network as tracing sees it.
#[derive(Clone, Debug, Default)]
pub struct Axes {
    /// Its shape.
    pub shape: Vec<usize>,
    /// For each dimension along which no units lie, whether its places differ. Where they do not,
    /// as in a constant of zeros, they may be permuted freely.
    pub fixed: Vec<bool>,
    /// The units along the other dimensions. Two joints overlap where units of both have the
    /// same owners.
    pub joints: Vec<Joint>,
}

/// Units over some dimensions together: along one dimension, or over the heads and the neurons
/// in each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joint {
    /// Dimensions, ascending.
    pub dims: Vec<usize>,
    /// A unit's node at every place, row-major over `dims`.
    pub nodes: Vec<Node>,
}

impl Axes {
    /// A value whose every place is its own.
    pub fn fixed(shape: &[usize]) -> Self {
        Self {
            shape: shape.to_vec(),
            fixed: shape.iter().map(|size| *size > 1).collect(),
            joints: Vec::new(),
        }
    }

    /// A parameter: new units along every dimension.
    pub fn parameter(units: &mut Units, shape: &[usize]) -> Self {
        let long = (0..shape.len()).filter(|dim| shape[*dim] > 1);
        let joints = long.map(|dim| Joint {
            dims: vec![dim],
            nodes: units.add(shape[dim]),
        });
        Self {
            shape: shape.to_vec(),
            fixed: vec![false; shape.len()],
            joints: joints.collect(),
        }
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Whether units lie along a dimension.
    pub fn has_units(&self, dim: usize) -> bool {
        self.joints.iter().any(|joint| joint.dims.contains(&dim))
    }

    /// The nodes along one dimension, if a joint lies along it alone.
    pub fn along(&self, dim: usize) -> Option<&[Node]> {
        let joint = self.joints.iter().find(|joint| joint.dims == [dim])?;
        Some(&joint.nodes)
    }

    /// Gives every place along `dim` a mark: what lies there can no longer be exchanged with what
    /// lies elsewhere along it.
    pub fn pin(&self, units: &mut Units, dim: usize, site: u64) {
        for joint in &self.joints {
            let Some(at) = joint.dims.iter().position(|d| *d == dim) else {
                continue;
            };
            for (place, node) in joint.nodes.iter().enumerate() {
                let index = joint.index(&self.shape, place)[at];
                units.mark(*node, hash(&[site, index as u64]));
            }
        }
    }

    /// Pins whole joints: none of their units can move.
    pub fn pin_joints(&self, units: &mut Units, site: u64, which: impl Fn(&Joint) -> bool) {
        for joint in self.joints.iter().filter(|joint| which(joint)) {
            for (place, node) in joint.nodes.iter().enumerate() {
                units.mark(*node, hash(&[site, place as u64]));
            }
        }
    }

    /// Takes dimensions out of joints whose units do not change along them.
    pub fn normalise(mut self, units: &Units) -> Self {
        for dim in 0..self.rank() {
            for i in 0..self.joints.len() {
                let joint = &self.joints[i];
                let Some(at) = joint.dims.iter().position(|d| *d == dim) else {
                    continue;
                };
                let slices = joint.slices(&self.shape, &[dim]);
                let same = |slice: &Vec<Node>| {
                    let pairs = slice.iter().zip(&slices[0]);
                    pairs
                        .into_iter()
                        .all(|(a, b)| units.find(*a) == units.find(*b))
                };
                if slices.iter().all(same) {
                    let mut dims = joint.dims.clone();
                    dims.remove(at);
                    let nodes = slices[0].clone();
                    self.joints[i] = Joint { dims, nodes };
                    // Whether its places differ otherwise is not known any more.
                    self.fixed[dim] |= self.shape[dim] > 1;
                }
            }
        }
        self.joints.retain(|joint| !joint.dims.is_empty());
        self.joints.dedup();
        for dim in 0..self.rank() {
            self.fixed[dim] &= !self.has_units(dim);
        }
        self
    }

    /// The same value with its dimensions in another order: the new dimension `i` is the old
    /// `order[i]`.
    pub fn transpose(&self, order: &[usize]) -> Self {
        let new = |old: usize| order.iter().position(|o| *o == old).expect("a permutation");
        Self {
            shape: order.iter().map(|old| self.shape[*old]).collect(),
            fixed: order.iter().map(|old| self.fixed[*old]).collect(),
            joints: self
                .joints
                .iter()
                .map(|joint| joint.rename(&self.shape, new))
                .collect(),
        }
    }

    /// The same elements in another shape; units whose places cannot be followed are pinned.
    pub fn reshape(&self, units: &mut Units, shape: &[usize], site: u64) -> Self {
        self.clone()
            .normalise(units)
            .reshape_normal(units, shape, site)
    }

    fn reshape_normal(&self, units: &mut Units, shape: &[usize], site: u64) -> Self {
        let mut result = Self {
            shape: shape.to_vec(),
            fixed: vec![false; shape.len()],
            joints: Vec::new(),
        };
        // Each old dimension's new ones, in groups of the same number of elements.
        let groups = groups(&self.shape, shape);
        let group_of = |dim: usize| groups.iter().position(|g| g.0.contains(&dim));
        for (old, new) in &groups {
            let differs = old.clone().any(|dim| self.fixed[dim]);
            let units = old.clone().any(|dim| self.has_units(dim));
            for dim in new.clone() {
                result.fixed[dim] = (differs || units) && shape[dim] > 1;
            }
        }
        'joints: for joint in &self.joints {
            let mut touched: Vec<usize> = joint.dims.iter().filter_map(|d| group_of(*d)).collect();
            touched.dedup();
            for group in &touched {
                let foreign = |other: &Joint| {
                    let shares = |d: &usize| groups[*group].0.contains(d);
                    let one = groups[*group].0.len() == 1;
                    !one && other != joint && other.dims.iter().any(shares)
                };
                if self.joints.iter().any(foreign) {
                    self.pin_joints(units, site, |other| other == joint);
                    continue 'joints;
                }
            }
            let spread = |group: &usize| groups[*group].0.clone();
            let old_dims: Vec<usize> = touched.iter().flat_map(spread).collect();
            let new_dims: Vec<usize> = touched
                .iter()
                .flat_map(|group| groups[*group].1.clone())
                .collect();
            // Row-major over whole groups, places keep their order.
            let wide = joint.broadcast(&self.shape, &old_dims);
            result.joints.push(Joint {
                dims: new_dims,
                nodes: wide.nodes,
            });
        }
        result.normalise(units)
    }

    /// The places `indices` along a dimension.
    pub fn take(&self, dim: usize, indices: &[usize]) -> Self {
        let mut result = self.clone();
        result.shape[dim] = indices.len();
        for joint in &mut result.joints {
            if joint.dims.contains(&dim) {
                let slices = joint.slices(&self.shape, &[dim]);
                let taken: Vec<&Vec<Node>> = indices.iter().map(|i| &slices[*i]).collect();
                *joint = joint.stack(dim, &result.shape, &taken);
            }
        }
        result.fixed[dim] &= indices.len() > 1;
        result
    }

    /// Repeats a dimension of one place.
    pub fn expand(&self, shape: &[usize]) -> Self {
        let missing = shape.len() - self.rank();
        let shift = |dim: usize| dim + missing;
        let own = self
            .joints
            .iter()
            .map(|joint| joint.rename(&self.shape, shift));
        Self {
            shape: shape.to_vec(),
            fixed: (0..shape.len())
                .map(|dim| {
                    dim >= missing && self.fixed[dim - missing] && self.shape[dim - missing] > 1
                })
                .collect(),
            joints: own.collect(),
        }
    }

    /// What is left when these dimensions are summed up, or otherwise lose their order: where
    /// units lie over them and others, the others have owners.
    pub fn reduce(&self, units: &mut Units, dims: &[usize], keep: bool) -> Self {
        let mut result = self.clone();
        result.joints.clear();
        for joint in &self.joints {
            let rest: Vec<usize> = joint
                .dims
                .iter()
                .copied()
                .filter(|d| !dims.contains(d))
                .collect();
            if rest.len() == joint.dims.len() {
                result.joints.push(joint.clone());
            } else if !rest.is_empty() {
                let nodes = units.owners(joint.slices(&self.shape, &rest));
                result.joints.push(Joint { dims: rest, nodes });
            }
        }
        for dim in dims {
            result.shape[*dim] = 1;
            result.fixed[*dim] = false;
        }
        if !keep {
            let kept: Vec<usize> = (0..self.rank()).filter(|d| !dims.contains(d)).collect();
            let new = |old: usize| kept.iter().position(|k| *k == old).expect("kept");
            let joints = result.joints.iter();
            result.joints = joints
                .map(|joint| joint.rename(&result.shape, new))
                .collect();
            result.fixed = kept.iter().map(|dim| result.fixed[*dim]).collect();
            result.shape = kept.iter().map(|dim| result.shape[*dim]).collect();
        }
        result.normalise(units)
    }

    /// An elementwise operation on values of one rank, whose dimensions of one place are repeated:
    /// what meets is united, and what meets a fixed dimension is pinned along it.
    pub fn combine(units: &mut Units, values: &[Self], site: u64) -> Self {
        let rank = values[0].rank();
        let size = |dim| {
            values
                .iter()
                .map(|v: &Self| v.shape[dim])
                .max()
                .unwrap_or(1)
        };
        let mut result = Self {
            shape: (0..rank).map(size).collect(),
            fixed: vec![false; rank],
            joints: Vec::new(),
        };
        for value in values {
            for joint in &value.joints {
                let whole = joint
                    .dims
                    .iter()
                    .all(|d| value.shape[*d] == result.shape[*d]);
                debug_assert!(whole, "units lie along dimensions of more than one place");
                result.meet(units, joint);
            }
        }
        for dim in 0..rank {
            if values.iter().any(|value| value.fixed[dim]) {
                result.pin(units, dim, hash(&[site, dim as u64]));
                result.joints.retain(|joint| joint.dims != [dim]);
                result.fixed[dim] = true;
            }
        }
        result.normalise(units)
    }

    /// Adds a joint to those that are there.
    fn meet(&mut self, units: &mut Units, joint: &Joint) {
        let mut kept = Vec::new();
        let mut absorbed = false;
        for other in std::mem::take(&mut self.joints) {
            let within = |a: &Joint, b: &Joint| a.dims.iter().all(|d| b.dims.contains(d));
            let shared: Vec<usize> = joint
                .dims
                .iter()
                .copied()
                .filter(|d| other.dims.contains(d))
                .collect();
            if shared.is_empty() {
                kept.push(other);
            } else if joint.dims == other.dims {
                for (a, b) in joint.nodes.iter().zip(&other.nodes) {
                    units.unite(*a, *b);
                }
                absorbed = true;
                kept.push(other);
            } else if within(joint, &other) {
                units.own(&joint.nodes, other.slices(&self.shape, &joint.dims));
                absorbed = true;
                kept.push(other);
            } else if within(&other, joint) {
                units.own(&other.nodes, joint.slices(&self.shape, &other.dims));
            } else {
                let a = units.owners(joint.slices(&self.shape, &shared));
                let b = units.owners(other.slices(&self.shape, &shared));
                a.into_iter().zip(b).for_each(|(a, b)| units.unite(a, b));
                kept.push(other);
            }
        }
        if !absorbed {
            kept.push(joint.clone());
        }
        self.joints = kept;
    }
}

impl Joint {
    /// The index over `dims` of a place.
    fn index(&self, shape: &[usize], place: usize) -> Vec<usize> {
        let mut rest = place;
        let mut index = vec![0; self.dims.len()];
        for (at, dim) in self.dims.iter().enumerate().rev() {
            index[at] = rest % shape[*dim];
            rest /= shape[*dim];
        }
        index
    }

    /// The nodes at each place over some of the dimensions: [places over `dims`][the rest].
    pub fn slices(&self, shape: &[usize], dims: &[usize]) -> Vec<Vec<Node>> {
        let count: usize = dims.iter().map(|dim| shape[*dim]).product();
        let mut slices = vec![Vec::new(); count];
        for (place, node) in self.nodes.iter().enumerate() {
            let index = self.index(shape, place);
            let slice = self.dims.iter().zip(&index).fold(0, |slice, (dim, i)| {
                if dims.contains(dim) {
                    slice * shape[*dim] + i
                } else {
                    slice
                }
            });
            slices[slice].push(*node);
        }
        slices
    }

    /// The joint whose slices along `dim` are these; `shape` is the result's.
    pub fn stack(&self, dim: usize, shape: &[usize], slices: &[&Vec<Node>]) -> Self {
        let at = self.dims.iter().position(|d| *d == dim).expect("along it");
        let inner: usize = self.dims[at + 1..].iter().map(|d| shape[*d]).product();
        let outer: usize = self.dims[..at].iter().map(|d| shape[*d]).product();
        let mut nodes = Vec::with_capacity(outer * inner * slices.len());
        for o in 0..outer {
            for slice in slices {
                nodes.extend(&slice[o * inner..][..inner]);
            }
        }
        let dims = self.dims.clone();
        Self { dims, nodes }
    }

    /// The same joint over more dimensions, along which nothing changes.
    pub fn broadcast(&self, shape: &[usize], dims: &[usize]) -> Self {
        let count = dims.iter().map(|dim| shape[*dim]).product();
        let wide = Self {
            dims: dims.to_vec(),
            nodes: Vec::new(),
        };
        let nodes = (0..count).map(|place| {
            let index = wide.index(shape, place);
            let narrow = self.dims.iter().fold(0, |narrow, dim| {
                let at = dims.iter().position(|d| d == dim).expect("more dimensions");
                narrow * shape[*dim] + index[at]
            });
            self.nodes[narrow]
        });
        Self {
            nodes: nodes.collect(),
            ..wide
        }
    }

    /// The joint with its dimensions under new numbers; `shape` is the old one.
    fn rename(&self, shape: &[usize], new: impl Fn(usize) -> usize) -> Self {
        let mut order: Vec<usize> = (0..self.dims.len()).collect();
        order.sort_by_key(|at| new(self.dims[*at]));
        let sizes: Vec<usize> = order.iter().map(|at| shape[self.dims[*at]]).collect();
        let mut strides = vec![1; self.dims.len()];
        for at in (0..self.dims.len().saturating_sub(1)).rev() {
            strides[at] = strides[at + 1] * shape[self.dims[at + 1]];
        }
        let nodes = (0..self.nodes.len()).map(|place| {
            let (mut rest, mut old) = (place, 0);
            for (size, at) in sizes.iter().zip(&order).rev() {
                old += rest % size * strides[*at];
                rest /= size;
            }
            self.nodes[old]
        });
        Self {
            nodes: nodes.collect(),
            dims: order.iter().map(|at| new(self.dims[*at])).collect(),
        }
    }
}

type Dims = std::ops::Range<usize>;

/// Runs of old and of new dimensions that hold the same elements.
fn groups(old: &[usize], new: &[usize]) -> Vec<(Dims, Dims)> {
    let mut groups = Vec::new();
    let (mut i, mut j) = (0, 0);
    while i < old.len() || j < new.len() {
        let (start, other) = (i, j);
        let (mut a, mut b) = (1, 1);
        loop {
            if a == b && a != 1 || i == old.len() && j == new.len() {
                break;
            }
            if a <= b && i < old.len() || j == new.len() {
                a *= old[i];
                i += 1;
            } else {
                b *= new[j];
                j += 1;
            }
        }
        groups.push((start..i, other..j));
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reshapes_are_split_where_products_agree() {
        assert_eq!(groups(&[2, 3, 4], &[6, 4]), [(0..2, 0..1), (2..3, 1..2)]);
        assert_eq!(groups(&[2, 12], &[2, 3, 4]), [(0..1, 0..1), (1..2, 1..3)]);
        let ones = groups(&[1, 6, 1], &[6]);
        assert_eq!(ones, [(0..2, 0..1), (2..3, 1..1)]);
        assert_eq!(groups(&[], &[1]), [(0..0, 0..1)]);
    }

    #[test]
    fn units_follow_reshapes_and_transposes() {
        let mut units = Units::default();
        let value = Axes::parameter(&mut units, &[5, 12]);
        let nodes = value.along(1).unwrap().to_vec();
        let heads = value.reshape(&mut units, &[5, 3, 4], 0);
        assert_eq!(heads.joints[1].dims, [1, 2]);
        let turned = heads.transpose(&[2, 0, 1]);
        assert_eq!(turned.joints[1].dims, [0, 2]);
        assert_eq!(turned.joints[1].nodes[1], nodes[4]);
        let first = turned.take(2, &[1]);
        assert_eq!(first.joints[1].nodes, nodes[4..8]);
        let back = turned
            .transpose(&[1, 2, 0])
            .reshape(&mut units, &[5, 12], 0);
        assert_eq!(back.along(1).unwrap(), nodes);
        let flat = value.take(0, &[0]).reshape(&mut units, &[2, 6], 0);
        assert_eq!(flat.joints[0].nodes, nodes);
    }

    #[test]
    fn places_repeated_by_a_flattening_stay_with_their_unit() {
        let mut units = Units::default();
        let mut value = Axes::fixed(&[2, 3, 2, 2]);
        let nodes = units.add(3);
        value.joints.push(Joint {
            dims: vec![1],
            nodes: nodes.clone(),
        });
        value.fixed[1] = false;
        let flat = value.reshape(&mut units, &[2, 12], 0);
        let repeated = flat.along(1).unwrap();
        assert_eq!(
            repeated[..5],
            [nodes[0], nodes[0], nodes[0], nodes[0], nodes[1]]
        );
        let back = flat.reshape(&mut units, &[2, 3, 2, 2], 0);
        assert_eq!(back.along(1).unwrap(), nodes);
        assert_eq!(back.fixed, [true, false, true, true]);
    }

    #[test]
    fn what_meets_is_united_and_owners_are_found() {
        let mut units = Units::default();
        let heads = |units: &mut Units| {
            let value = Axes::parameter(units, &[12]);
            value.reshape(units, &[3, 4], 0)
        };
        let (q, k) = (heads(&mut units), heads(&mut units));
        let product = Axes::combine(&mut units, &[q.clone(), k.clone()], 1);
        assert_eq!(
            units.find(q.joints[0].nodes[5]),
            units.find(k.joints[0].nodes[5])
        );
        let scores = product.reduce(&mut units, &[1], false);
        assert_eq!(scores.joints[0].dims, [0]);
        let bias = Axes::parameter(&mut units, &[3]);
        let sum = Axes::combine(&mut units, &[scores, bias.clone()], 2);
        let head = units.find(sum.along(0).unwrap()[2]);
        assert_eq!(units.find(bias.along(0).unwrap()[2]), head);
        let (found, number) = units.finish();
        let inside = &found[number[q.joints[0].nodes[9] as usize] as usize];
        assert_eq!(inside.owner, Some(number[head as usize]));
    }
}
