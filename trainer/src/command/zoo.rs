//! `dwf zoo`

use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use clap::ValueEnum;
use dwf_trainer::{
    classifier::{Architecture, Classifier, Recipe},
    dataset::{Dataset, Images, Splits},
    error::Result,
    progress,
    task::{
        self, About, Made, Origin, cartpole,
        classification::{self, file},
        digits, images, iris, pendulum,
    },
    zoo::MIN_NETWORKS,
};

use super::at_least;

/// Train a zoo to try everything on
///
/// A zoo of classifiers gets its data beside the networks: train.csv, validation.csv (to choose
/// settings by) and held-out.csv (to report on); and network.onnx, the graph without weights of
/// networks that are no plain MLP.
#[derive(clap::Subcommand)]
pub(crate) enum Zoo {
    /// MLPs 4-16-3 on Fisher's Iris data
    Iris(Common),
    /// Classifiers of handwritten digits, 8x8 pixels (UCI, 1797 images)
    Digits {
        #[command(flatten)]
        common: Common,
        /// The network to train
        #[arg(long, value_enum, default_value_t = NetworkName::Mlp)]
        network: NetworkName,
        /// Only the digits A to B, as classes from 0 on; what was learned on some can then be
        /// carried over to the others
        #[arg(long, value_name = "A-B", default_value = "0-9", value_parser = digit_range)]
        digits: RangeInclusive<usize>,
    },
    /// Classifiers of images that you have: MNIST, Fashion-MNIST, CIFAR-10, CIFAR-100
    Images {
        /// Folder with the files as they are published: IDX files (also .gz), or CIFAR's binary
        /// version
        data: PathBuf,
        #[command(flatten)]
        common: Common,
        /// The network to train
        #[arg(long, value_enum, default_value_t = NetworkName::Mlp)]
        network: NetworkName,
        /// Passes over the images
        #[arg(long, default_value_t = 10, value_parser = at_least(1))]
        epochs: usize,
    },
    /// Policies 4-16-2 that balance the pole of CartPole-v1
    Cartpole(Common),
    /// Policies 3-16-1 that swing up Pendulum-v1
    Pendulum(Common),
}

/// What every zoo is asked.
#[derive(clap::Args)]
pub(crate) struct Common {
    /// Folder to write, new or empty. Default: the task's name and -zoo
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// How many networks, at least 8
    #[arg(long, default_value_t = 100, value_parser = at_least(MIN_NETWORKS))]
    count: usize,
    /// Seed of the split and of every network; the same seed gives the same zoo
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Start all networks from one initialisation, so that they differ only by chance on the way.
    /// They lie close together, which makes everything easier; a zoo of independent networks, the
    /// default, says more
    #[arg(long)]
    shared_init: bool,
}

/// Networks for small images.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum NetworkName {
    /// Hidden layers of 32 and 32
    Mlp,
    /// Residual, 5266 weights with batch normalisation's statistics (for the digits)
    Resnet,
    /// Vision transformer, 4986 weights (for the digits)
    Vit,
}

impl NetworkName {
    fn name(self) -> &'static str {
        match self {
            Self::Mlp => "mlp",
            Self::Resnet => "resnet",
            Self::Vit => "vit",
        }
    }

    fn architecture(self) -> Architecture {
        Architecture::named(self.name()).expect("it has a name")
    }
}

impl Common {
    fn about(&self, task: &str, network: Option<NetworkName>) -> About {
        About {
            task: task.into(),
            network: network.map(|network| network.name().into()),
            origin: Origin {
                count: self.count,
                seed: self.seed,
                shared_start: self.shared_init,
            },
        }
    }

    fn folder(&self, about: &About) -> PathBuf {
        let default = || format!("{}-zoo", about.task).into();
        self.output.clone().unwrap_or_else(default)
    }
}

impl Zoo {
    pub(crate) fn run(self) -> Result<()> {
        match self {
            Self::Iris(common) => {
                let about = common.about("iris", None);
                let splits = iris::splits(common.seed);
                let classifier = iris::classifier();
                classifiers(&common, &about, &classifier, &splits, &iris::RECIPE, None)
            }
            Self::Digits {
                common,
                network,
                digits,
            } => {
                let architecture = network.architecture();
                let classes = digits.clone().count();
                let classifier = architecture.build(digits::IMAGE, classes);
                let others = digits::others(&digits);
                let others = others.map(|others| digits::splits(others, common.seed));
                let splits = digits::splits(digits, common.seed);
                let recipe = digits::recipe(architecture);
                let about = common.about("digits", Some(network));
                classifiers(&common, &about, &classifier, &splits, &recipe, others)
            }
            Self::Images {
                data,
                common,
                network,
                epochs,
            } => {
                let images = Images::read(&data)?;
                let architecture = network.architecture();
                let classifier = architecture.build(images.image, images.classes);
                let recipe = Recipe {
                    epochs,
                    ..digits::recipe(architecture)
                };
                let splits = images::splits(images, common.seed);
                let about = common.about("images", Some(network));
                classifiers(&common, &about, &classifier, &splits, &recipe, None)
            }
            Self::Cartpole(common) => policies(
                &common,
                cartpole::NAME,
                cartpole::zoo,
                cartpole::mean_return,
                &cartpole::held_out_starts(TRIALS, common.seed),
            ),
            Self::Pendulum(common) => policies(
                &common,
                pendulum::NAME,
                pendulum::zoo,
                pendulum::mean_return,
                &pendulum::held_out_starts(TRIALS, common.seed),
            ),
        }
    }
}

/// Starts that policies are measured on.
const TRIALS: usize = 100;

/// `others` is another task, to carry over to what was learned.
fn classifiers(
    common: &Common,
    about: &About,
    classifier: &Classifier,
    splits: &Splits,
    recipe: &Recipe,
    others: Option<Splits>,
) -> Result<()> {
    let folder = common.folder(about);
    let made = task::make(&folder, about, |origin, done| {
        let mut made = classification::zoo(classifier, splits, recipe, origin, done);
        if let Some(others) = others {
            let csv = |data: &Dataset| data.to_csv().into_bytes();
            made.files.extend([
                (file::TRANSFER_TRAINING, csv(&others.training)),
                (file::TRANSFER_TEST, csv(&others.test)),
            ]);
        }
        made
    })?;
    let accuracies = classification::accuracies(classifier, &made, &splits.test);
    say(common, &folder, &made, "accuracy", "rows", &accuracies);
    Ok(())
}

fn policies<S>(
    common: &Common,
    task: &str,
    zoo: impl Fn(Origin, &(dyn Fn() + Sync)) -> Made,
    mean_return: impl Fn(&[f32], &[S]) -> f64,
    starts: &[S],
) -> Result<()> {
    let about = common.about(task, None);
    let folder = common.folder(&about);
    let made = task::make(&folder, &about, zoo)?;
    let returns: Vec<f64> = made
        .networks()
        .map(|network| mean_return(network, starts))
        .collect();
    say(common, &folder, &made, "return", "starts", &returns);
    Ok(())
}

fn say(common: &Common, folder: &Path, made: &Made, score: &str, on: &str, scores: &[f64]) {
    let mean = scores.iter().sum::<f64>() / scores.len() as f64;
    let worst = scores.iter().copied().fold(f64::INFINITY, f64::min);
    progress::say(&format!(
        "wrote {} networks of {} weights to {}: mean {score} {mean:.4} on held-out {on}, worst \
         {worst:.4}",
        common.count,
        made.layout.len(),
        folder.display()
    ));
    if common.shared_init {
        progress::say(
            "They share one initialisation: they are nearer to each other than independently \
             trained networks, and figures of flows learned from them say less",
        );
    }
}

fn digit_range(text: &str) -> Result<RangeInclusive<usize>, String> {
    let bounds = text.split_once('-');
    match bounds.map(|(a, b)| (a.parse(), b.parse())) {
        Some((Ok(a), Ok(b))) if a < b && b < digits::CLASSES => Ok(a..=b),
        _ => Err("give two digits, the first below the second, as 0-4".into()),
    }
}
