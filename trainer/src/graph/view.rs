//! Axes as operators look at them.

use crate::axes::{Axes, Joint};

impl Axes {
    /// With ones in front.
    pub(super) fn with_rank(&self, rank: usize) -> Self {
        let missing = rank - self.rank();
        let shape = [vec![1; missing], self.shape.clone()].concat();
        self.expand(&shape)
    }

    /// With a new dimension of one place.
    pub(super) fn unsqueeze(&self, dim: usize) -> Self {
        let wide = self.with_rank(self.rank() + 1);
        let order: Vec<usize> = (1..=dim).chain([0]).chain(dim + 1..wide.rank()).collect();
        wide.transpose(&order)
    }

    /// A vector [channels] as [1, channels, 1, ..].
    pub(super) fn with_channel_rank(&self, rank: usize) -> Self {
        let mut wide = self.with_rank(2);
        while wide.rank() < rank {
            wide = wide.unsqueeze(wide.rank());
        }
        wide
    }

    /// Without a dimension of one place.
    pub(super) fn dropped(&self, dim: usize) -> Self {
        let order: Vec<usize> = [dim]
            .into_iter()
            .chain((0..self.rank()).filter(|d| *d != dim))
            .collect();
        let turned = self.transpose(&order);
        Self {
            shape: turned.shape[1..].to_vec(),
            fixed: turned.fixed[1..].to_vec(),
            joints: turned.joints.into_iter().map(Joint::shifted_down).collect(),
        }
    }

    /// The first dimensions alone.
    pub(super) fn first(&self, count: usize) -> Self {
        let within = |joint: &&Joint| joint.dims.iter().all(|dim| *dim < count);
        Self {
            shape: self.shape[..count].to_vec(),
            fixed: self.fixed[..count].to_vec(),
            joints: self.joints.iter().filter(within).cloned().collect(),
        }
    }

    /// The channels of an image: [1, channels].
    pub(super) fn channels(&self) -> Self {
        Self {
            shape: vec![1, self.shape[1]],
            fixed: vec![false, self.fixed[1]],
            joints: self
                .joints
                .iter()
                .filter(|j| j.dims == [1])
                .cloned()
                .collect(),
        }
    }

    /// Channels [channels] of an image of this shape, which comes from the image `x`.
    pub(super) fn as_channels(&self, x: &Self, shape: &[usize]) -> Self {
        let mut image = Self::fixed(shape);
        image.fixed[0] = x.fixed[0] || x.has_units(0);
        image.fixed[1] = self.fixed[0];
        let joints = self.joints.iter().cloned();
        image.joints = joints.map(|j| Joint { dims: vec![1], ..j }).collect();
        image
    }

    /// From recurrent states [time, direction, batch, hidden] to the last [direction, batch,
    /// hidden].
    pub(super) fn last_state(&self) -> Self {
        self.take(0, &[0]).dropped(0)
    }
}

impl Joint {
    fn shifted_down(self) -> Self {
        Self {
            dims: self.dims.iter().map(|dim| dim - 1).collect(),
            ..self
        }
    }
}
