//! The operators, forth and back.

#![allow(
    clippy::needless_range_loop,
    reason = "several slices are run through side by side"
)]

use dwf::layout::Layout;
use faer::{Accum, MatMut, MatRef, Par, linalg::matmul::matmul};

use super::{Positions, Shape, Tensor};

/// PyTorch's default of both normalisations.
pub(super) const EPSILON: f32 = 1e-5;
/// PyTorch's default share of a batch's statistics in the running ones.
const MOMENTUM: f32 = 0.1;

/// What computes a value from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    /// W x + b at every position; W [out, in].
    Linear { weight: Tensor, bias: Tensor },
    /// A convolution; W [out, in, kernel, kernel].
    Convolution {
        weight: Tensor,
        bias: Option<Tensor>,
        window: Window,
    },
    /// Normalises every feature over the batch and its positions.
    BatchNorm {
        scale: Tensor,
        shift: Tensor,
        mean: Tensor,
        variance: Tensor,
    },
    /// Normalises every position over its features.
    LayerNorm { scale: Tensor, shift: Tensor },
    /// max(x, 0)
    Relu,
    /// x Phi(x), exactly.
    Gelu,
    /// x + y
    Add,
    /// Adds a vector of its own to every position; [1, positions, features].
    AddPositions { embedding: Tensor },
    /// Softmax attention over the positions, from queries, keys and values [3 * features].
    Attention { heads: usize },
    /// The pixels of an image as a sequence.
    Tokens,
    /// The mean over the positions.
    Mean,
}

/// Where a convolution looks: square, the same in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub kernel: usize,
    pub stride: usize,
    pub padding: usize,
}

/// A value that a node reads.
pub(super) struct Input<'a> {
    pub shape: Shape,
    pub values: &'a [f32],
}

/// The weights by tensor.
pub(super) struct Tensors<'a> {
    pub layout: &'a Layout,
    pub weights: &'a [f32],
}

impl Tensors<'_> {
    fn get(&self, tensor: Tensor) -> &[f32] {
        &self.weights[self.layout.tensors()[tensor].range()]
    }
}

/// The weights' gradient by tensor.
pub(super) struct Gradient<'a> {
    pub layout: &'a Layout,
    pub values: &'a mut [f32],
}

impl Gradient<'_> {
    fn get(&mut self, tensor: Tensor) -> &mut [f32] {
        &mut self.values[self.layout.tensors()[tensor].range()]
    }
}

impl Window {
    /// Pixels of the result along a side of this length.
    pub(super) fn outputs(self, side: usize) -> usize {
        (side + 2 * self.padding - self.kernel) / self.stride + 1
    }
}

impl Operator {
    /// The same with its tensors renumbered.
    pub(super) fn with_tensors(self, place: impl Fn(Tensor) -> Tensor) -> Self {
        match self {
            Self::Linear { weight, bias } => Self::Linear {
                weight: place(weight),
                bias: place(bias),
            },
            Self::Convolution {
                weight,
                bias,
                window,
            } => Self::Convolution {
                weight: place(weight),
                bias: bias.map(place),
                window,
            },
            Self::BatchNorm {
                scale,
                shift,
                mean,
                variance,
            } => Self::BatchNorm {
                scale: place(scale),
                shift: place(shift),
                mean: place(mean),
                variance: place(variance),
            },
            Self::LayerNorm { scale, shift } => Self::LayerNorm {
                scale: place(scale),
                shift: place(shift),
            },
            Self::AddPositions { embedding } => Self::AddPositions {
                embedding: place(embedding),
            },
            Self::Relu
            | Self::Gelu
            | Self::Add
            | Self::Attention { .. }
            | Self::Tokens
            | Self::Mean => self,
        }
    }

    /// Fills `out`, which is zero. Where there is `kept`, this is training: batch normalisation
    /// uses the batch's own statistics, and what the way back needs is put there.
    pub(super) fn forward(
        &self,
        tensors: &Tensors<'_>,
        inputs: &[Input<'_>],
        batch: usize,
        out: &mut [f32],
        kept: Option<&mut Vec<f32>>,
    ) {
        let Input { shape, values: x } = inputs[0];
        let columns = batch * shape.positions();
        let mut scratch = Vec::new();
        let training = kept.is_some();
        let kept = kept.unwrap_or(&mut scratch);
        match *self {
            Self::Linear { weight, bias } => {
                let w = matrix(tensors.get(weight), shape.features);
                multiply(out, w, matrix(x, columns));
                add_bias(tensors.get(bias), out);
            }
            Self::Convolution {
                weight,
                bias,
                window,
            } => {
                let patches = Patches::new(shape, batch, window);
                patches.gather(x, kept);
                let w = matrix(tensors.get(weight), patches.rows());
                multiply(out, w, matrix(kept, patches.columns()));
                if let Some(bias) = bias {
                    add_bias(tensors.get(bias), out);
                }
            }
            Self::BatchNorm {
                scale,
                shift,
                mean,
                variance,
            } => {
                let (scale, shift) = (tensors.get(scale), tensors.get(shift));
                if training {
                    batch_norm(x, scale, shift, out, kept);
                } else {
                    let statistics = tensors.get(mean).iter().zip(tensors.get(variance));
                    let rows = x.chunks_exact(columns).zip(out.chunks_exact_mut(columns));
                    for (i, ((x, out), (mean, variance))) in rows.zip(statistics).enumerate() {
                        let factor = scale[i] / (variance + EPSILON).sqrt();
                        for (out, x) in out.iter_mut().zip(x) {
                            *out = (x - mean) * factor + shift[i];
                        }
                    }
                }
            }
            Self::LayerNorm { scale, shift } => {
                layer_norm(x, tensors.get(scale), tensors.get(shift), out, kept);
            }
            Self::Relu => {
                for (out, x) in out.iter_mut().zip(x) {
                    *out = x.max(0.0);
                }
            }
            Self::Gelu => {
                for (out, x) in out.iter_mut().zip(x) {
                    *out = x * normal_cdf(*x).0;
                }
            }
            Self::Add => {
                for ((out, x), y) in out.iter_mut().zip(x).zip(inputs[1].values) {
                    *out = x + y;
                }
            }
            Self::AddPositions { embedding } => {
                out.copy_from_slice(x);
                let embedding = tensors.get(embedding);
                for (row, out) in out.chunks_exact_mut(columns).enumerate() {
                    for (i, out) in out.iter_mut().enumerate() {
                        *out += embedding[i % shape.positions() * shape.features + row];
                    }
                }
            }
            Self::Attention { heads } => Heads::new(shape, heads, batch).forward(x, out, kept),
            Self::Tokens => out.copy_from_slice(x),
            Self::Mean => {
                for (out, x) in out.iter_mut().zip(x.chunks_exact(shape.positions())) {
                    *out = x.iter().sum::<f32>() / x.len() as f32;
                }
            }
        }
    }

    /// Adds to `slopes`, one an input that wants its own, and to `gradient`, from the slope of what
    /// [`Operator::forward`] computed in training.
    #[allow(clippy::too_many_arguments, reason = "the way back needs all of them")]
    pub(super) fn backward(
        &self,
        tensors: &Tensors<'_>,
        inputs: &[Input<'_>],
        batch: usize,
        kept: &[f32],
        slope: &[f32],
        slopes: &mut [Option<Vec<f32>>],
        gradient: &mut Gradient<'_>,
    ) {
        let Input { shape, values: x } = inputs[0];
        let columns = batch * shape.positions();
        let dx = slopes[0].as_mut();
        match *self {
            Self::Linear { weight, bias } => {
                let dy = matrix(slope, columns);
                multiply(gradient.get(weight), dy, matrix(x, columns).transpose());
                add_sums(slope, gradient.get(bias));
                if let Some(dx) = dx {
                    let w = matrix(tensors.get(weight), shape.features);
                    multiply(dx, w.transpose(), dy);
                }
            }
            Self::Convolution {
                weight,
                bias,
                window,
            } => {
                let patches = Patches::new(shape, batch, window);
                let dy = matrix(slope, patches.columns());
                let gathered = matrix(kept, patches.columns());
                multiply(gradient.get(weight), dy, gathered.transpose());
                if let Some(bias) = bias {
                    add_sums(slope, gradient.get(bias));
                }
                if let Some(dx) = dx {
                    let w = matrix(tensors.get(weight), patches.rows());
                    let mut back = vec![0.0; kept.len()];
                    multiply(&mut back, w.transpose(), dy);
                    patches.scatter(&back, dx);
                }
            }
            Self::BatchNorm { scale, shift, .. } => {
                let dx = dx.expect("a layer lies before it");
                let (normalised, statistics) = kept.split_at(x.len());
                let rows = slope
                    .chunks_exact(columns)
                    .zip(normalised.chunks_exact(columns));
                for (i, ((dy, normal), dx)) in rows.zip(dx.chunks_exact_mut(columns)).enumerate() {
                    let sum: f32 = dy.iter().sum();
                    let product: f32 = dy.iter().zip(normal).map(|(dy, n)| dy * n).sum();
                    gradient.get(shift)[i] += sum;
                    gradient.get(scale)[i] += product;
                    let factor = tensors.get(scale)[i] * statistics[3 * i];
                    let (sum, product) = (sum / columns as f32, product / columns as f32);
                    for ((dx, dy), normal) in dx.iter_mut().zip(dy).zip(normal) {
                        *dx += factor * (dy - sum - normal * product);
                    }
                }
            }
            Self::LayerNorm { scale, shift } => {
                let dx = dx.expect("a layer lies before it");
                let (normalised, inverse) = kept.split_at(x.len());
                add_sums(slope, gradient.get(shift));
                let rows = slope
                    .chunks_exact(columns)
                    .zip(normalised.chunks_exact(columns));
                let (mut sums, mut products) = (vec![0.0; columns], vec![0.0; columns]);
                for (i, (dy, normal)) in rows.clone().enumerate() {
                    let scale = tensors.get(scale)[i];
                    for j in 0..columns {
                        sums[j] += scale * dy[j];
                        products[j] += scale * dy[j] * normal[j];
                    }
                }
                let share = 1.0 / shape.features as f32;
                for (i, ((dy, normal), dx)) in rows.zip(dx.chunks_exact_mut(columns)).enumerate() {
                    gradient.get(scale)[i] +=
                        dy.iter().zip(normal).map(|(d, n)| d * n).sum::<f32>();
                    let scale = tensors.get(scale)[i];
                    for j in 0..columns {
                        let centred = scale * dy[j] - share * (sums[j] + normal[j] * products[j]);
                        dx[j] += inverse[j] * centred;
                    }
                }
            }
            Self::Relu => {
                let dx = dx.expect("a layer lies before it");
                for ((dx, dy), x) in dx.iter_mut().zip(slope).zip(x) {
                    *dx += if *x > 0.0 { *dy } else { 0.0 };
                }
            }
            Self::Gelu => {
                let dx = dx.expect("a layer lies before it");
                for ((dx, dy), x) in dx.iter_mut().zip(slope).zip(x) {
                    let (cdf, density) = normal_cdf(*x);
                    *dx += dy * (cdf + x * density);
                }
            }
            Self::Add => {
                for dx in slopes.iter_mut().flatten() {
                    add(slope, dx);
                }
            }
            Self::AddPositions { embedding } => {
                if let Some(dx) = dx {
                    add(slope, dx);
                }
                let embedding = gradient.get(embedding);
                for (row, dy) in slope.chunks_exact(columns).enumerate() {
                    for (i, dy) in dy.iter().enumerate() {
                        embedding[i % shape.positions() * shape.features + row] += dy;
                    }
                }
            }
            Self::Attention { heads } => {
                let dx = dx.expect("a layer lies before it");
                Heads::new(shape, heads, batch).backward(x, kept, slope, dx);
            }
            Self::Tokens => {
                if let Some(dx) = dx {
                    add(slope, dx);
                }
            }
            Self::Mean => {
                let dx = dx.expect("a layer lies before it");
                let share = 1.0 / shape.positions() as f32;
                for (dx, dy) in dx.chunks_exact_mut(shape.positions()).zip(slope) {
                    dx.iter_mut().for_each(|dx| *dx += share * dy);
                }
            }
        }
    }

    /// Moves the running statistics towards those that [`Operator::forward`] kept in training, of
    /// `samples` numbers a feature.
    pub(super) fn track(&self, kept: &[f32], samples: usize, buffers: &mut Gradient<'_>) {
        let Self::BatchNorm { mean, variance, .. } = *self else {
            return;
        };
        let features = buffers.get(mean).len();
        let statistics = kept[kept.len() - 3 * features..].chunks_exact(3);
        // As PyTorch has it, running variances are unbiased ones.
        let unbiased = samples as f32 / (samples as f32 - 1.0);
        for (i, found) in statistics.enumerate() {
            for (buffer, found) in [(mean, found[1]), (variance, unbiased * found[2])] {
                let running = &mut buffers.get(buffer)[i];
                *running += MOMENTUM * (found - *running);
            }
        }
    }
}

/// Rows of this many columns.
fn matrix(values: &[f32], columns: usize) -> MatRef<'_, f32> {
    MatRef::from_row_major_slice(values, values.len() / columns, columns)
}

/// out += a b
fn multiply(out: &mut [f32], a: MatRef<'_, f32>, b: MatRef<'_, f32>) {
    let out = MatMut::from_row_major_slice_mut(out, a.nrows(), b.ncols());
    matmul(out, Accum::Add, a, b, 1.0, Par::Seq);
}

fn add(values: &[f32], to: &mut [f32]) {
    for (to, value) in to.iter_mut().zip(values) {
        *to += value;
    }
}

/// Adds a number to every row.
fn add_bias(bias: &[f32], out: &mut [f32]) {
    for (row, bias) in out.chunks_exact_mut(out.len() / bias.len()).zip(bias) {
        row.iter_mut().for_each(|out| *out += bias);
    }
}

/// Adds every row's sum.
fn add_sums(values: &[f32], to: &mut [f32]) {
    let columns = values.len() / to.len();
    for (row, to) in values.chunks_exact(columns).zip(to) {
        *to += row.iter().sum::<f32>();
    }
}

/// Keeps what is normalised, then for every row 1 / std, mean and variance.
fn batch_norm(x: &[f32], scale: &[f32], shift: &[f32], out: &mut [f32], kept: &mut Vec<f32>) {
    let columns = x.len() / scale.len();
    kept.clear();
    let mut statistics = Vec::with_capacity(3 * scale.len());
    for (i, (x, out)) in x
        .chunks_exact(columns)
        .zip(out.chunks_exact_mut(columns))
        .enumerate()
    {
        let mean = x.iter().sum::<f32>() / columns as f32;
        let variance = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>() / columns as f32;
        let inverse = 1.0 / (variance + EPSILON).sqrt();
        kept.extend(x.iter().map(|x| (x - mean) * inverse));
        for (out, normal) in out.iter_mut().zip(&kept[i * columns..]) {
            *out = normal * scale[i] + shift[i];
        }
        statistics.extend([inverse, mean, variance]);
    }
    kept.extend(statistics);
}

/// Keeps what is normalised, then for every column 1 / std.
fn layer_norm(x: &[f32], scale: &[f32], shift: &[f32], out: &mut [f32], kept: &mut Vec<f32>) {
    let features = scale.len();
    let columns = x.len() / features;
    let share = 1.0 / features as f32;
    let (mut mean, mut inverse) = (vec![0.0; columns], vec![0.0; columns]);
    for row in x.chunks_exact(columns) {
        for (mean, x) in mean.iter_mut().zip(row) {
            *mean += share * x;
        }
    }
    for row in x.chunks_exact(columns) {
        for j in 0..columns {
            inverse[j] += share * (row[j] - mean[j]) * (row[j] - mean[j]);
        }
    }
    for inverse in &mut inverse {
        *inverse = 1.0 / (*inverse + EPSILON).sqrt();
    }
    kept.clear();
    for (i, (x, out)) in x
        .chunks_exact(columns)
        .zip(out.chunks_exact_mut(columns))
        .enumerate()
    {
        kept.extend((0..columns).map(|j| (x[j] - mean[j]) * inverse[j]));
        for (out, normal) in out.iter_mut().zip(&kept[i * columns..]) {
            *out = normal * scale[i] + shift[i];
        }
    }
    kept.extend(inverse);
}

/// The standard normal's distribution function and density. The error function is Abramowitz and
/// Stegun's 7.1.26, whose error of 1.5e-7 is that of f32.
fn normal_cdf(x: f32) -> (f32, f32) {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let exp = exp(-z * z);
    let polynomial = ((((1.061_405_4 * t - 1.453_152) * t + 1.421_413_7) * t - 0.284_496_74) * t
        + 0.254_829_6)
        * t;
    let tail = 0.5 * polynomial * exp;
    let cdf = if x < 0.0 { tail } else { 1.0 - tail };
    // 1 / sqrt(2 pi)
    (cdf, 0.398_942_3 * exp)
}

/// A batch's patches for a convolution: a matrix [in * kernel * kernel, batch * pixels].
struct Patches {
    features: usize,
    batch: usize,
    height: usize,
    width: usize,
    window: Window,
}

impl Patches {
    fn new(shape: Shape, batch: usize, window: Window) -> Self {
        let Positions::Grid(height, width) = shape.positions else {
            unreachable!("convolutions are of images")
        };
        Self {
            features: shape.features,
            batch,
            height,
            width,
            window,
        }
    }

    fn rows(&self) -> usize {
        self.features * self.window.kernel * self.window.kernel
    }

    fn columns(&self) -> usize {
        self.batch * self.window.outputs(self.height) * self.window.outputs(self.width)
    }

    fn gather(&self, x: &[f32], out: &mut Vec<f32>) {
        out.clear();
        out.resize(self.rows() * self.columns(), 0.0);
        self.each_run(|pixel, patch, count| {
            let stride = self.window.stride;
            if stride == 1 {
                out[patch..patch + count].copy_from_slice(&x[pixel..pixel + count]);
            } else {
                for i in 0..count {
                    out[patch + i] = x[pixel + i * stride];
                }
            }
        });
    }

    fn scatter(&self, patches: &[f32], x: &mut [f32]) {
        self.each_run(|pixel, patch, count| {
            for i in 0..count {
                x[pixel + i * self.window.stride] += patches[patch + i];
            }
        });
    }

    /// Calls with every run of pixels in a row, `stride` apart, that lie side by side in the
    /// patches: the first's places and their number.
    fn each_run(&self, mut run: impl FnMut(usize, usize, usize)) {
        let Window {
            kernel,
            stride,
            padding,
        } = self.window;
        let (height, width) = (self.height, self.width);
        let (out_height, out_width) = (self.window.outputs(height), self.window.outputs(width));
        let columns = self.columns();
        for row in 0..self.rows() {
            let (feature, dy, dx) = (row / (kernel * kernel), row / kernel % kernel, row % kernel);
            // Columns whose pixel x = column * stride + dx - padding lies in the image.
            let first = padding.saturating_sub(dx).div_ceil(stride);
            let end = ((width + padding - dx).div_ceil(stride)).min(out_width);
            for sample in 0..self.batch {
                for y in 0..out_height {
                    let Some(pixel_y) = (y * stride + dy).checked_sub(padding) else {
                        continue;
                    };
                    if pixel_y >= height || first >= end {
                        continue;
                    }
                    let pixel_x = first * stride + dx - padding;
                    let pixel =
                        ((feature * self.batch + sample) * height + pixel_y) * width + pixel_x;
                    let patch = row * columns + (sample * out_height + y) * out_width + first;
                    run(pixel, patch, end - first);
                }
            }
        }
    }
}

/// Attention of every sample and head for itself.
struct Heads {
    /// Features of the result.
    features: usize,
    heads: usize,
    tokens: usize,
    batch: usize,
}

impl Heads {
    fn new(shape: Shape, heads: usize, batch: usize) -> Self {
        Self {
            features: shape.features / 3,
            heads,
            tokens: shape.positions(),
            batch,
        }
    }

    fn scale(&self) -> f32 {
        1.0 / ((self.features / self.heads) as f32).sqrt()
    }

    /// Calls with every sample and head: the place of its probabilities, and where the rows of its
    /// queries, keys, values and results begin.
    fn each(&self, mut head: impl FnMut(usize, &dyn Fn(usize, usize) -> usize)) {
        let (tokens, width) = (self.tokens, self.features / self.heads);
        let columns = self.batch * tokens;
        for sample in 0..self.batch {
            for h in 0..self.heads {
                let row = |which: usize, feature: usize| {
                    (which * self.features + h * width + feature) * columns + sample * tokens
                };
                head((sample * self.heads + h) * tokens * tokens, &row);
            }
        }
    }

    /// Keeps the probabilities.
    fn forward(&self, x: &[f32], out: &mut [f32], kept: &mut Vec<f32>) {
        let (tokens, width) = (self.tokens, self.features / self.heads);
        kept.clear();
        kept.resize(self.batch * self.heads * tokens * tokens, 0.0);
        self.each(|place, row| {
            let weights = &mut kept[place..][..tokens * tokens];
            for feature in 0..width {
                let query = &x[row(0, feature)..][..tokens];
                let key = &x[row(1, feature)..][..tokens];
                for (query, weights) in query.iter().zip(weights.chunks_exact_mut(tokens)) {
                    let query = query * self.scale();
                    for (weight, key) in weights.iter_mut().zip(key) {
                        *weight += query * key;
                    }
                }
            }
            weights.chunks_exact_mut(tokens).for_each(softmax);
            for feature in 0..width {
                let value = &x[row(2, feature)..][..tokens];
                let out = &mut out[row(0, feature)..][..tokens];
                for (out, weights) in out.iter_mut().zip(weights.chunks_exact(tokens)) {
                    *out = weights.iter().zip(value).map(|(w, v)| w * v).sum();
                }
            }
        });
    }

    fn backward(&self, x: &[f32], kept: &[f32], slope: &[f32], dx: &mut [f32]) {
        let (tokens, width) = (self.tokens, self.features / self.heads);
        let mut scores = vec![0.0; tokens * tokens];
        self.each(|place, row| {
            let weights = &kept[place..][..tokens * tokens];
            scores.fill(0.0);
            for feature in 0..width {
                let dy = &slope[row(0, feature)..][..tokens];
                let value = &x[row(2, feature)..][..tokens];
                let dv = &mut dx[row(2, feature)..][..tokens];
                for (i, dy) in dy.iter().enumerate() {
                    let scores = &mut scores[i * tokens..][..tokens];
                    let weights = &weights[i * tokens..][..tokens];
                    for j in 0..tokens {
                        scores[j] += dy * value[j];
                        dv[j] += dy * weights[j];
                    }
                }
            }
            for (scores, weights) in scores
                .chunks_exact_mut(tokens)
                .zip(weights.chunks_exact(tokens))
            {
                let mean: f32 = scores.iter().zip(weights).map(|(s, w)| s * w).sum();
                for (score, weight) in scores.iter_mut().zip(weights) {
                    *score = weight * (*score - mean) * self.scale();
                }
            }
            for feature in 0..width {
                let (query, key) = (row(0, feature), row(1, feature));
                for i in 0..tokens {
                    let scores = &scores[i * tokens..][..tokens];
                    let mut sum = 0.0;
                    for (j, score) in scores.iter().enumerate() {
                        sum += score * x[key + j];
                        dx[key + j] += score * x[query + i];
                    }
                    dx[query + i] += sum;
                }
            }
        });
    }
}

/// The exponential of a number that is not positive, to the precision of f32. The system's is a call
/// for each number, which took nine tenths of a transformer's training; this one is inlined into
/// loops that the compiler vectorises.
fn exp(x: f32) -> f32 {
    // Adding this leaves a whole number in the lowest bits of the sum.
    const ROUND: f32 = 1.5 * (1 << 23) as f32;
    const LN_2: [f32; 2] = [0.693_145_75, 1.428_606_8e-6];
    let x = x.max(-87.0);
    let sum = x * std::f32::consts::LOG2_E + ROUND;
    let power = sum - ROUND;
    let rest = x - power * LN_2[0] - power * LN_2[1];
    // Taylor's series: the rest is at most ln 2 / 2, where the next term is 2e-9.
    let mut series = 1.0 / 5040.0;
    for factorial in [720.0, 120.0, 24.0, 6.0, 2.0, 1.0, 1.0] {
        series = series * rest + 1.0 / factorial;
    }
    let exponent = (sum.to_bits() as i32 - ROUND.to_bits() as i32 + 127) << 23;
    series * f32::from_bits(exponent as u32)
}

/// Exponentials that sum to one.
pub fn softmax(values: &mut [f32]) {
    let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    values.iter_mut().for_each(|x| *x = exp(*x - largest));
    let sum: f32 = values.iter().sum();
    values.iter_mut().for_each(|x| *x /= sum);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponential_and_normal_distribution_are_those_of_f64() {
        for i in 0..=8000 {
            let x = -f64::from(i) / 100.0;
            let found = f64::from(exp(x as f32));
            // A few roundings, and that of x itself times the slope of exp.
            assert!(
                (found / f64::from(x as f32).exp() - 1.0).abs() < 5e-7,
                "{x}"
            );
        }
        // Phi(1), Phi(-2) and the density at 1, from tables.
        assert!((normal_cdf(1.0).0 - 0.841_344_8).abs() < 3e-7);
        assert!((normal_cdf(-2.0).0 - 0.022_750_132).abs() < 3e-7);
        assert!((normal_cdf(1.0).1 - 0.241_970_72).abs() < 3e-7);
    }
}
