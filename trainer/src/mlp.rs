//! A plain MLP, found by the names and shapes of a checkpoint's tensors.

use std::ops::Range;

use dwf::layout::{Layout, TensorKind};

use crate::{
    checkpoint::{Signature, natural},
    error::{Result, invalid},
};

/// Linear layers with ReLU between them, over one flat weight vector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mlp {
    layers: Vec<Layer>,
}

/// One linear layer: y = W x + b.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Columns of W.
    pub inputs: usize,
    /// Rows of W.
    pub outputs: usize,
    /// W in the flat vector, [outputs, inputs] row-major.
    pub weight: Range<usize>,
    /// b in the flat vector, [outputs].
    pub bias: Range<usize>,
}

impl Mlp {
    /// Finds the chain of layers among a checkpoint's tensors: `NAME.weight` [out, in] with
    /// `NAME.bias` [out], ordered by natural sort of NAME or, where that does not chain, by shape.
    /// The layout lists weight and bias layer by layer.
    ///
    /// Errors: INVALID_ARGUMENT naming the tensor if this is not such a chain.
    pub fn find(tensors: &[Signature]) -> Result<(Self, Layout)> {
        let layers = order(pair(tensors).map_err(not_a_chain)?).map_err(not_a_chain)?;
        let layout = Layout::pack(layers.iter().flat_map(|[weight, bias]| {
            [weight, bias].map(|tensor| {
                let Signature { name, shape, dtype } = (*tensor).clone();
                (name, shape, dtype, TensorKind::Parameter)
            })
        }))?;
        let layers = layout
            .tensors()
            .chunks_exact(2)
            .map(|pair| Layer {
                inputs: pair[0].shape[1],
                outputs: pair[0].shape[0],
                weight: pair[0].range(),
                bias: pair[1].range(),
            })
            .collect();
        Ok((Self { layers }, layout))
    }

    /// The layers from input to output.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Length of an input.
    pub fn inputs(&self) -> usize {
        self.layers[0].inputs
    }

    /// Length of an output.
    pub fn outputs(&self) -> usize {
        self.layers[self.layers.len() - 1].outputs
    }

    /// The network's output for one input, with the flat vector `weights`.
    pub fn forward(&self, weights: &[f32], input: &[f32]) -> Vec<f32> {
        let mut x = input.to_vec();
        for (i, layer) in self.layers.iter().enumerate() {
            if i > 0 {
                x.iter_mut().for_each(|x| *x = x.max(0.0));
            }
            x = layer.apply(weights, &x);
        }
        x
    }
}

impl Layer {
    /// W x + b.
    pub fn apply(&self, weights: &[f32], x: &[f32]) -> Vec<f32> {
        let rows = weights[self.weight.clone()].chunks_exact(self.inputs);
        let biases = &weights[self.bias.clone()];
        rows.zip(biases)
            .map(|(row, bias)| bias + dot(row, x))
            .collect()
    }
}

/// Inner product of whole networks, whose many products are added up in double precision.
pub(crate) fn inner(a: &[f32], b: &[f32]) -> f64 {
    let pairs = a.chunks(4096).zip(b.chunks(4096));
    pairs.map(|(a, b)| f64::from(dot(a, b))).sum()
}

/// Inner product, in lanes that the compiler can vectorise.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut sums = [0f32; LANES];
    let (a, b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest = a.remainder().iter().zip(b.remainder());
    let rest: f32 = rest.map(|(a, b)| a * b).sum();
    for (a, b) in a.zip(b) {
        for i in 0..LANES {
            sums[i] += a[i] * b[i];
        }
    }
    sums.iter().sum::<f32>() + rest
}

fn not_a_chain(what: String) -> crate::error::Error {
    invalid(format!(
        "{what}. Without --network only plain MLPs are understood, a chain of NAME.weight \
         [out, in] with NAME.bias [out]; describe any other architecture by its ONNX export: \
         --network NETWORK.onnx, or network.onnx in the zoo's folder"
    ))
}

/// A layer's weight and bias.
type Pair<'a> = [&'a Signature; 2];

/// Every weight with its bias.
fn pair(tensors: &[Signature]) -> Result<Vec<Pair<'_>>, String> {
    let find = |name: String| tensors.iter().find(|tensor| tensor.name == name);
    for tensor in tensors {
        if let Some(prefix) = tensor.name.strip_suffix(".bias")
            && find(format!("{prefix}.weight")).is_none()
        {
            return Err(format!("tensor '{}' has no weight beside it", tensor.name));
        }
    }
    let mut pairs = Vec::new();
    for weight in tensors
        .iter()
        .filter(|tensor| !tensor.name.ends_with(".bias"))
    {
        let Signature { name, shape, .. } = weight;
        let Some(prefix) = name.strip_suffix(".weight") else {
            return Err(format!("tensor '{name}' is neither a weight nor a bias"));
        };
        if shape.len() != 2 || shape.contains(&0) {
            return Err(format!(
                "tensor '{name}' has shape {shape:?} instead of [out, in]"
            ));
        }
        let Some(bias) = find(format!("{prefix}.bias")) else {
            return Err(format!("tensor '{name}' has no '{prefix}.bias' beside it"));
        };
        if bias.shape != [shape[0]] {
            return Err(format!(
                "tensor '{}' has shape {:?} instead of [{}]",
                bias.name, bias.shape, shape[0]
            ));
        }
        pairs.push([weight, bias]);
    }
    Ok(pairs)
}

/// The pairs from input to output.
fn order(mut pairs: Vec<Pair<'_>>) -> Result<Vec<Pair<'_>>, String> {
    pairs.sort_by(|a, b| natural(&a[0].name, &b[0].name));
    let broken = pairs.windows(2).find(|pair| !feeds(pair[0], pair[1]));
    let Some(&[first, second]) = broken.map(|pair| <&[Pair<'_>; 2]>::try_from(pair).expect("two"))
    else {
        return if pairs.is_empty() {
            Err("there are no tensors".into())
        } else {
            Ok(pairs)
        };
    };
    let fail = format!(
        "tensors '{}' {:?} and '{}' {:?} do not chain",
        first[0].name, first[0].shape, second[0].name, second[0].shape
    );
    by_shape(pairs).ok_or(fail)
}

/// The chain that the shapes alone force: at every place exactly one layer fits.
fn by_shape(mut rest: Vec<Pair<'_>>) -> Option<Vec<Pair<'_>>> {
    let is_first = |pair: &Pair<'_>| !rest.iter().any(|other| feeds(*other, *pair));
    let mut next = only(&rest, is_first)?;
    let mut chain = vec![rest.remove(next)];
    while !rest.is_empty() {
        let last = chain[chain.len() - 1];
        next = only(&rest, |pair| feeds(last, *pair))?;
        chain.push(rest.remove(next));
    }
    Some(chain)
}

/// Index of the only item that fits.
fn only<T>(items: &[T], fits: impl Fn(&T) -> bool) -> Option<usize> {
    let mut found = (0..items.len()).filter(|i| fits(&items[*i]));
    found.next().filter(|_| found.next().is_none())
}

fn feeds(a: Pair<'_>, b: Pair<'_>) -> bool {
    a[0].shape[0] == b[0].shape[1]
}

#[cfg(test)]
mod tests {
    use dwf::layout::DType;

    use super::*;

    fn chain(names: &[(&str, usize, usize)]) -> Vec<Signature> {
        let tensor = |name: String, shape| Signature {
            name,
            shape,
            dtype: DType::F32,
        };
        let layer = |&(name, outputs, inputs): &(&str, usize, usize)| {
            [
                tensor(format!("{name}.bias"), vec![outputs]),
                tensor(format!("{name}.weight"), vec![outputs, inputs]),
            ]
        };
        names.iter().flat_map(layer).collect()
    }

    fn names(layout: &Layout) -> Vec<&str> {
        layout
            .tensors()
            .iter()
            .map(|tensor| tensor.name.as_str())
            .collect()
    }

    #[test]
    fn layers_are_ordered_by_name_then_by_shape() {
        let (_, layout) =
            Mlp::find(&chain(&[("fc10", 5, 5), ("fc2", 5, 5), ("fc1", 5, 3)])).unwrap();
        assert_eq!(
            names(&layout)[..3],
            ["fc1.weight", "fc1.bias", "fc2.weight"]
        );
        let (mlp, layout) =
            Mlp::find(&chain(&[("body", 6, 5), ("head", 2, 6), ("stem", 5, 4)])).unwrap();
        assert_eq!(names(&layout)[0], "stem.weight");
        assert_eq!((mlp.inputs(), mlp.outputs()), (4, 2));
    }

    #[test]
    fn what_does_not_chain_is_named() {
        let message = |tensors: &[Signature]| Mlp::find(tensors).unwrap_err().to_string();
        let broken = message(&chain(&[("a", 4, 3), ("b", 2, 7)]));
        assert!(
            broken.contains("'a.weight' [4, 3] and 'b.weight' [2, 7]"),
            "{broken}"
        );
        assert!(broken.contains("--network"), "{broken}");
        let mut tensors = chain(&[("a", 4, 3)]);
        tensors.remove(0);
        assert!(message(&tensors).contains("no 'a.bias' beside it"));
        let mut tensors = chain(&[("conv", 4, 3)]);
        tensors[1].shape = vec![4, 3, 3, 3];
        assert!(message(&tensors).contains("'conv.weight' has shape [4, 3, 3, 3]"));
    }
}
