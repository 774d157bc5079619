//! Operators that choose, repeat and lay together, and sums over dimensions.

use dwf::onnx::NodeProto;

use super::{Tracer, dimension};
use crate::{
    axes::{Axes, Joint},
    network::attribute,
    units::{Node, hash},
};

impl Tracer<'_> {
    pub(super) fn reduction(&mut self, node: &NodeProto, x: &Axes) -> Option<Axes> {
        let listed = attribute(node, "axes").map(|a| a.ints.clone());
        let axes = match (listed, self.has(node, 1)) {
            (Some(axes), _) => axes,
            (None, true) => self.integers(node, 1)?,
            (None, false) => Vec::new(),
        };
        let dims: Option<Vec<usize>> = axes.iter().map(|a| dimension(*a, x.rank())).collect();
        let dims = match dims? {
            none if none.is_empty() => (0..x.rank()).collect(),
            some => some,
        };
        let keep = attribute(node, "keepdims").is_none_or(|a| a.i() != 0);
        Some(x.reduce(&mut self.units, &dims, keep))
    }

    pub(super) fn tile(&mut self, node: &NodeProto, x: &Axes) -> Option<Axes> {
        let repeats = self.integers(node, 1)?;
        let mut result = x.clone();
        for (dim, repeat) in repeats.iter().enumerate() {
            let size = x.shape[dim];
            let indices: Vec<usize> = (0..size * *repeat as usize).map(|i| i % size).collect();
            if *repeat != 1 && x.has_units(dim) {
                result = result.take(dim, &indices);
            }
            result.shape[dim] = indices.len();
        }
        Some(result)
    }

    pub(super) fn slice(&mut self, node: &NodeProto, x: &Axes) -> Option<Axes> {
        let (starts, ends) = (self.integers(node, 1)?, self.integers(node, 2)?);
        let axes = match self.has(node, 3) {
            true => self.integers(node, 3)?,
            false => (0..starts.len() as i64).collect(),
        };
        let steps = match self.has(node, 4) {
            true => self.integers(node, 4)?,
            false => vec![1; starts.len()],
        };
        let mut result = x.clone();
        for i in 0..starts.len() {
            let dim = dimension(axes[i], x.rank())?;
            let size = x.shape[dim] as i64;
            let (low, high) = if steps[i] > 0 {
                (0, size)
            } else {
                (-1, size - 1)
            };
            let place = |value: i64| {
                let value = if value < 0 {
                    value.saturating_add(size)
                } else {
                    value
                };
                value.clamp(low, high)
            };
            let (mut at, end) = (place(starts[i]), place(ends[i]));
            let mut indices = Vec::new();
            while steps[i] > 0 && at < end || steps[i] < 0 && at > end {
                indices.push(at as usize);
                at += steps[i];
            }
            result = result.take(dim, &indices);
        }
        Some(result)
    }

    /// Output `i` of a split, whose parts are as large as the run found them.
    pub(super) fn split(&mut self, node: &NodeProto, x: &Axes, i: usize) -> Option<Axes> {
        let dim = dimension(attribute(node, "axis").map_or(0, |a| a.i()), x.rank())?;
        let size = |name: &String| self.tensors.get(name.as_str()).map(|t| t.shape[dim]);
        let sizes: Option<Vec<usize>> = node.output[..=i].iter().map(size).collect();
        let sizes = sizes?;
        let start: usize = sizes[..i].iter().sum();
        let indices: Vec<usize> = (start..start + sizes[i]).collect();
        Some(x.take(dim, &indices))
    }

    pub(super) fn gather(&mut self, node: &NodeProto, inputs: &[Axes], site: u64) -> Option<Axes> {
        let (data, indices) = (&inputs[0], &inputs[1]);
        let dim = dimension(attribute(node, "axis").map_or(0, |a| a.i()), data.rank())?;
        let size = data.shape[dim];
        if let Some(values) = self.integers(node, 1) {
            let place = |value: &i64| (value.rem_euclid(size as i64)) as usize;
            let taken = data.take(dim, &values.iter().map(place).collect::<Vec<_>>());
            self.note(&taken);
            let shape = self.output_shape(node);
            return Some(taken.reshape(&mut self.units, &shape, site));
        }
        if !indices.joints.is_empty() {
            return None;
        }
        // Which places are taken is the input's to say.
        data.pin(&mut self.units, dim, site);
        let whole = |joint: &&Joint| !joint.dims.contains(&dim);
        let mut rest = data.clone();
        rest.joints = data.joints.iter().filter(whole).cloned().collect();
        rest.shape[dim] = indices.shape.iter().product();
        rest.fixed[dim] = true;
        let lost = |joint: &Joint| joint.dims.len() > 1 && joint.dims.contains(&dim);
        data.pin_joints(&mut self.units, hash(&[site, 3]), lost);
        for joint in data.joints.iter().filter(|joint| lost(joint)) {
            joint.dims.iter().for_each(|dim| rest.fixed[*dim] = true);
        }
        let shape = self.output_shape(node);
        Some(rest.reshape(&mut self.units, &shape, site))
    }

    /// Values laid behind each other. Equal `sites` say that what has no units in two of them is the
    /// same.
    pub(super) fn concat(&mut self, inputs: &[Axes], axis: i64, sites: &[u64]) -> Option<Axes> {
        let rank = inputs[0].rank();
        let dim = dimension(axis, rank)?;
        // Joints along the axis are laid behind each other, the others meet.
        let others: Vec<Axes> = inputs
            .iter()
            .map(|axes| {
                let mut others = axes.clone();
                others.joints.retain(|joint| !joint.dims.contains(&dim));
                others.shape[dim] = 1;
                others.fixed[dim] = false;
                others
            })
            .collect();
        let mut result = Axes::combine(&mut self.units, &others, hash(sites));
        result.shape[dim] = inputs.iter().map(|axes| axes.shape[dim]).sum();
        let mut dims = vec![dim];
        for axes in inputs {
            let along = axes.joints.iter().filter(|joint| joint.dims.contains(&dim));
            if along.clone().count() > 1 {
                return None;
            }
            dims.extend(along.flat_map(|joint| joint.dims.iter().copied()));
        }
        dims.sort_unstable();
        dims.dedup();
        if !inputs.iter().any(|axes| axes.has_units(dim)) {
            result.fixed[dim] = true;
            return Some(result);
        }
        let mut slices: Vec<Vec<Node>> = Vec::new();
        for (axes, site) in inputs.iter().zip(sites) {
            let joint = match axes.joints.iter().find(|joint| joint.dims.contains(&dim)) {
                Some(joint) => joint.clone(),
                None => {
                    // Places without units are units of their own here.
                    let nodes = self.units.add(axes.shape[dim]);
                    for (place, node) in nodes.iter().enumerate() {
                        let place = if axes.fixed[dim] { place as u64 } else { 0 };
                        self.units.mark(*node, hash(&[*site, place]));
                    }
                    Joint {
                        dims: vec![dim],
                        nodes,
                    }
                }
            };
            let wide = joint.broadcast(&axes.shape, &dims);
            slices.extend(wide.slices(&axes.shape, &[dim]));
        }
        let slices: Vec<&Vec<Node>> = slices.iter().collect();
        let nodes = Vec::new();
        let joint = Joint { dims, nodes }.stack(dim, &result.shape, &slices);
        result.fixed[dim] = false;
        result.joints.push(joint);
        Some(result.normalise(&self.units))
    }

    /// Constant padding: places of the same number everywhere.
    pub(super) fn pad(&mut self, node: &NodeProto, x: &Axes, site: u64) -> Option<Axes> {
        let mode = attribute(node, "mode").map(|a| a.s().to_vec());
        let constant = mode.is_none_or(|mode| mode == b"constant");
        let pads = self.integers(node, 1)?;
        let axes: Vec<i64> = match self.has(node, 3) {
            true => self.integers(node, 3)?,
            false => (0..x.rank() as i64).collect(),
        };
        let mut result = x.clone();
        for (i, axis) in axes.iter().enumerate() {
            let dim = dimension(*axis, x.rank())?;
            let [before, after] = [pads[i], pads[i + axes.len()]];
            if before == 0 && after == 0 {
                continue;
            }
            if !x.has_units(dim) {
                result.shape[dim] = (x.shape[dim] as i64 + before + after) as usize;
                result.fixed[dim] = true;
                continue;
            }
            if !constant || before < 0 || after < 0 {
                return None;
            }
            let padding = |size: i64| {
                let mut shape = result.shape.clone();
                shape[dim] = size as usize;
                let fixed = vec![false; shape.len()];
                let joints = Vec::new();
                Axes {
                    shape,
                    fixed,
                    joints,
                }
            };
            // One number on both sides, so that its places are alike wherever they are.
            let outside = hash(&[site, i as u64]);
            let parts = [
                (padding(before), outside),
                (result.clone(), hash(&[outside, 0])),
                (padding(after), outside),
            ];
            let (parts, sites): (Vec<Axes>, Vec<u64>) =
                parts.into_iter().filter(|p| p.0.shape[dim] > 0).unzip();
            result = self.concat(&parts, *axis, &sites)?;
        }
        Some(result)
    }
}
