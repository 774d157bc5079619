//! The classifiers that zoos are made of, with the tensor names of their usual PyTorch definitions.

use super::{Builder, Classifier, Positions, Shape, Start, operator::Operator, operator::Window};

/// A kind of classifier for small images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// Linear layers of these hidden widths with ReLU between them: `fc1`, `fc2`, ...
    Mlp(&'static [usize]),
    /// A residual network of basic blocks with batch normalisation, named as torchvision's: 64
    /// channels, then half the resolution and 128. Narrower ones do not connect: at 8 and 16 the
    /// average of two that were trained apart and aligned is worth nothing.
    Resnet,
    /// A vision transformer of pre-norm blocks, named as timm's: patches of a quarter of the image's
    /// side, or of 4 pixels if that is more, 64 wide, 2 deep, 16 heads, the mean of its tokens
    /// classified.
    Vit,
}

/// What an image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image {
    /// 1 or 3.
    pub channels: usize,
    /// Rows of pixels.
    pub height: usize,
    /// Pixels of a row.
    pub width: usize,
}

const CHANNELS: [usize; 2] = [64, 128];
const WIDTH: usize = 64;
const DEPTH: usize = 2;
const HEADS: usize = 16;
/// Patches along a side of an image, if they have so many pixels along theirs.
const PATCHES: usize = 4;
const LEAST_PATCH: usize = 4;

impl Image {
    /// Numbers in one image.
    #[allow(clippy::len_without_is_empty, reason = "an image is never empty")]
    pub fn len(self) -> usize {
        self.channels * self.height * self.width
    }
}

impl Architecture {
    /// The architectures of the digits' zoos: `mlp`, `resnet`, `vit`.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "mlp" => Some(Self::Mlp(&[32, 32])),
            "resnet" => Some(Self::Resnet),
            "vit" => Some(Self::Vit),
            _ => None,
        }
    }

    /// The classifier of such images into `classes`.
    pub fn build(self, image: Image, classes: usize) -> Classifier {
        match self {
            Self::Mlp(hidden) => mlp(image.len(), hidden, classes),
            Self::Resnet => resnet(image, classes),
            Self::Vit => vit(image, classes),
        }
    }
}

fn mlp(inputs: usize, hidden: &[usize], classes: usize) -> Classifier {
    let flat = |features| Shape {
        features,
        positions: Positions::Single,
    };
    let mut net = Builder::new(flat(inputs));
    let mut x = 0;
    for (i, width) in hidden.iter().chain([&classes]).enumerate() {
        if i > 0 {
            x = net.relu(x);
        }
        x = net.linear(x, &format!("fc{}", i + 1), *width);
    }
    net.finish()
}

fn resnet(image: Image, classes: usize) -> Classifier {
    let mut net = Builder::new(pixels(image));
    let window = |stride| Window {
        kernel: 3,
        stride,
        padding: 1,
    };
    let mut x = net.convolution(0, "conv1", CHANNELS[0], window(1), false);
    x = net.batch_norm(x, "bn1");
    x = net.relu(x);
    for (stage, channels) in CHANNELS.into_iter().enumerate() {
        let name = format!("layer{}.0", stage + 1);
        let stride = stage + 1;
        let mut y = net.convolution(x, &format!("{name}.conv1"), channels, window(stride), false);
        y = net.batch_norm(y, &format!("{name}.bn1"));
        y = net.relu(y);
        y = net.convolution(y, &format!("{name}.conv2"), channels, window(1), false);
        y = net.batch_norm(y, &format!("{name}.bn2"));
        if stride > 1 {
            let point = Window {
                kernel: 1,
                stride,
                padding: 0,
            };
            x = net.convolution(x, &format!("{name}.downsample.0"), channels, point, false);
            x = net.batch_norm(x, &format!("{name}.downsample.1"));
        }
        x = net.add(x, y);
        x = net.relu(x);
    }
    x = net.mean(x);
    net.linear(x, "fc", classes);
    net.finish()
}

fn vit(image: Image, classes: usize) -> Classifier {
    let mut net = Builder::new(pixels(image));
    let side = image.height.min(image.width);
    let side = side / (side / LEAST_PATCH).clamp(1, PATCHES);
    let patch = Window {
        kernel: side,
        stride: side,
        padding: 0,
    };
    let mut x = net.convolution(0, "patch_embed.proj", WIDTH, patch, true);
    x = net.tokens(x);
    x = net.add_positions(x, "pos_embed");
    for block in 0..DEPTH {
        let name = format!("blocks.{block}");
        let mut y = net.layer_norm(x, &format!("{name}.norm1"));
        y = net.linear(y, &format!("{name}.attn.qkv"), 3 * WIDTH);
        y = net.attention(y, HEADS);
        y = net.linear(y, &format!("{name}.attn.proj"), WIDTH);
        x = net.add(x, y);
        y = net.layer_norm(x, &format!("{name}.norm2"));
        y = net.linear(y, &format!("{name}.mlp.fc1"), 2 * WIDTH);
        y = net.gelu(y);
        y = net.linear(y, &format!("{name}.mlp.fc2"), WIDTH);
        x = net.add(x, y);
    }
    x = net.layer_norm(x, "norm");
    x = net.mean(x);
    net.linear(x, "head", classes);
    net.finish()
}

fn pixels(image: Image) -> Shape {
    Shape {
        features: image.channels,
        positions: Positions::Grid(image.height, image.width),
    }
}

/// The layers, with PyTorch's initialisation.
impl Builder {
    fn linear(&mut self, x: usize, name: &str, outputs: usize) -> usize {
        let Shape {
            features: inputs,
            positions,
        } = self.shapes[x];
        let start = Start::Uniform { inputs };
        let operator = Operator::Linear {
            weight: self.parameter(format!("{name}.weight"), &[outputs, inputs], start),
            bias: self.parameter(format!("{name}.bias"), &[outputs], start),
        };
        let shape = Shape {
            features: outputs,
            positions,
        };
        self.push(operator, &[x], shape)
    }

    fn convolution(
        &mut self,
        x: usize,
        name: &str,
        outputs: usize,
        window: Window,
        bias: bool,
    ) -> usize {
        let Shape {
            features: inputs,
            positions: Positions::Grid(height, width),
        } = self.shapes[x]
        else {
            unreachable!("convolutions are of images")
        };
        let kernel = window.kernel;
        let start = Start::Uniform {
            inputs: inputs * kernel * kernel,
        };
        let weight = self.parameter(
            format!("{name}.weight"),
            &[outputs, inputs, kernel, kernel],
            start,
        );
        let operator = Operator::Convolution {
            weight,
            bias: bias.then(|| self.parameter(format!("{name}.bias"), &[outputs], start)),
            window,
        };
        let shape = Shape {
            features: outputs,
            positions: Positions::Grid(window.outputs(height), window.outputs(width)),
        };
        self.push(operator, &[x], shape)
    }

    fn batch_norm(&mut self, x: usize, name: &str) -> usize {
        let shape = self.shapes[x];
        let features = &[shape.features];
        let operator = Operator::BatchNorm {
            scale: self.parameter(format!("{name}.weight"), features, Start::Ones),
            shift: self.parameter(format!("{name}.bias"), features, Start::Zeros),
            mean: self.buffer(format!("{name}.running_mean"), features, Start::Zeros),
            variance: self.buffer(format!("{name}.running_var"), features, Start::Ones),
        };
        self.push(operator, &[x], shape)
    }

    fn layer_norm(&mut self, x: usize, name: &str) -> usize {
        let shape = self.shapes[x];
        let operator = Operator::LayerNorm {
            scale: self.parameter(format!("{name}.weight"), &[shape.features], Start::Ones),
            shift: self.parameter(format!("{name}.bias"), &[shape.features], Start::Zeros),
        };
        self.push(operator, &[x], shape)
    }

    fn relu(&mut self, x: usize) -> usize {
        self.push(Operator::Relu, &[x], self.shapes[x])
    }

    fn gelu(&mut self, x: usize) -> usize {
        self.push(Operator::Gelu, &[x], self.shapes[x])
    }

    fn add(&mut self, x: usize, y: usize) -> usize {
        self.push(Operator::Add, &[x, y], self.shapes[x])
    }

    fn tokens(&mut self, x: usize) -> usize {
        let shape = self.shapes[x];
        let positions = Positions::Sequence(shape.positions());
        self.push(Operator::Tokens, &[x], Shape { positions, ..shape })
    }

    fn add_positions(&mut self, x: usize, name: &str) -> usize {
        let shape = self.shapes[x];
        let size = [1, shape.positions(), shape.features];
        let embedding = self.parameter(name.into(), &size, Start::Normal(0.02));
        self.push(Operator::AddPositions { embedding }, &[x], shape)
    }

    fn attention(&mut self, x: usize, heads: usize) -> usize {
        let shape = self.shapes[x];
        let features = shape.features / 3;
        self.push(
            Operator::Attention { heads },
            &[x],
            Shape { features, ..shape },
        )
    }

    fn mean(&mut self, x: usize) -> usize {
        let shape = Shape {
            positions: Positions::Single,
            ..self.shapes[x]
        };
        self.push(Operator::Mean, &[x], shape)
    }
}
