//! Rows as a network takes them.

use dwf::onnx::data_type;

use super::Dataset;
use crate::{
    error::{Result, invalid},
    evaluator::Tensor,
    network::Network,
};

/// Rows that a network is run on at a time.
const BATCH: usize = 256;

/// A dataset that fits a network's input.
pub struct Batches {
    data: Dataset,
    /// Of one row.
    shape: Vec<usize>,
    /// Rows that the network takes at a time, if it does not take any number.
    fixed: Option<usize>,
}

impl Batches {
    /// Rows are reshaped to what the network's only input takes.
    ///
    /// Errors: INVALID_ARGUMENT if it does not take such rows, or has not as many outputs as there
    /// are classes.
    pub fn new(network: &Network, data: Dataset) -> Result<Self> {
        let [input] = network.inputs() else {
            return Err(invalid(format!(
                "the network has {} inputs; only networks of one input can be run on rows",
                network.inputs().len()
            )));
        };
        if input.elem_type != data_type::FLOAT {
            return Err(invalid(format!(
                "input '{}' of the network does not take floats; it cannot be run on rows",
                input.name
            )));
        }
        let free = |dims: &[Option<usize>]| dims.iter().map(|dim| dim.unwrap_or(1)).collect();
        let shape: Vec<usize> = input.shape.get(1..).map(free).unwrap_or_default();
        let output = network
            .outputs()
            .first()
            .and_then(|output| *output.shape.last()?);
        data.check(shape.iter().product(), output.unwrap_or(usize::MAX))?;
        let fixed = input.shape.first().copied().flatten();
        Ok(Self { data, shape, fixed })
    }

    /// The rows.
    pub fn data(&self) -> &Dataset {
        &self.data
    }

    /// Batch by batch with the rows' classes, and where the network takes a fixed number, with rows
    /// of zeros behind the last.
    pub fn filled(&self) -> impl Iterator<Item = (Tensor, &[usize])> {
        let batch = self.fixed.unwrap_or(BATCH);
        let rows = self.data.x.chunks(batch * self.data.features);
        rows.zip(self.data.classes.chunks(batch))
            .map(|(rows, classes)| {
                let count = self.fixed.unwrap_or(classes.len());
                let mut x = rows.to_vec();
                x.resize(count * self.data.features, 0.0);
                (self.tensor(x), classes)
            })
    }

    /// Batch by batch.
    pub fn tensors(&self) -> impl Iterator<Item = Tensor> {
        let rows = self.data.x.chunks(BATCH * self.data.features);
        rows.map(|rows| self.tensor(rows.to_vec()))
    }

    fn tensor(&self, x: Vec<f32>) -> Tensor {
        let mut shape = vec![x.len() / self.data.features];
        shape.extend(&self.shape);
        Tensor::f32(shape, x)
    }
}
