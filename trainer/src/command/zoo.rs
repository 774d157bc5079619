//! `dwf zoo`

use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use clap::ValueEnum;
use dwf::metadata::hex;
use dwf_trainer::{
    classifier::{Architecture, Classifier, Recipe},
    dataset::{Dataset, Images, Splits},
    error::Result,
    progress,
    task::{
        self, About, Condition, Made, Origin,
        cartpole::{self, CartPole},
        classification::{self, Lesson, alike, file},
        digits::{self, Curriculum, Difference},
        evolution::{self, Plant},
        images, iris,
        pendulum::Pendulum,
    },
    zoo::MIN_NETWORKS,
};
use sha2::{Digest, Sha256};

use super::at_least;

/// Train a zoo to try everything on
///
/// A zoo of classifiers gets its data beside the networks: train.csv, validation.csv (to choose
/// settings by) and held-out.csv (to report on); and network.onnx, the graph without weights of
/// networks that are no plain MLP.
///
/// Ctrl-C stops it so that the same command goes on where it was: finished networks lie in DIR.work
/// until then.
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
        /// What the networks differ by on purpose; written to conditions.csv, so that the flow
        /// learns to make what is asked for
        #[arg(long, value_enum)]
        condition: Option<DigitsCondition>,
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
    Cartpole {
        #[command(flatten)]
        common: Common,
        /// What the policies differ by on purpose; written to conditions.csv
        #[arg(long, value_enum)]
        condition: Option<CartpoleCondition>,
    },
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
    /// Residual, 64 and 128 channels, with batch normalisation
    Resnet,
    /// Vision transformer, 64 wide, two blocks of sixteen heads
    Vit,
}

/// What classifiers of digits differ by.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum DigitsCondition {
    /// The digits that they were taught: the lower half or the upper, a class
    Digits,
    /// The noise on the inputs that they were trained with, 0 to 1
    Noise,
}

/// What policies differ by.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum CartpoleCondition {
    /// The pole's length, half to twice that of CartPole-v1
    Length,
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
    fn origin(&self) -> Origin {
        Origin {
            count: self.count,
            seed: self.seed,
            shared_start: self.shared_init,
        }
    }

    fn about(&self, task: &str, network: Option<NetworkName>, condition: Option<&str>) -> About {
        About {
            task: task.into(),
            network: network.map(|network| network.name().into()),
            condition: condition.map(Into::into),
            origin: self.origin(),
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
            Self::Iris(common) => Classifiers {
                about: common.about("iris", None, None),
                classifier: iris::classifier(),
                splits: iris::splits(common.seed),
                others: None,
            }
            .make_alike(&common, iris::RECIPE),
            Self::Digits {
                common,
                network,
                digits,
                condition,
            } => {
                let difference = condition.map(DigitsCondition::difference);
                let about = common.about("digits", Some(network), difference.map(|d| d.1));
                let recipe = digits::recipe(network.architecture());
                let classes = digits.clone().count();
                let zoo = Classifiers {
                    about,
                    classifier: network.architecture().build(digits::IMAGE, classes),
                    splits: digits::splits(digits.clone(), common.seed),
                    others: digits::others(&digits)
                        .map(|others| digits::splits(others, common.seed)),
                };
                let difference = difference.map(|d| d.0);
                let curriculum =
                    Curriculum::new(difference, &digits, &zoo.splits, recipe, common.origin());
                let lesson = |network| curriculum.lesson(network);
                zoo.make(&common, lesson, curriculum.condition())
            }
            Self::Images {
                data,
                common,
                network,
                epochs,
            } => {
                let images = Images::read(&data)?;
                let architecture = network.architecture();
                let recipe = Recipe {
                    epochs,
                    weight_noise: 0.0,
                    ..digits::recipe(architecture)
                };
                Classifiers {
                    about: common.about("images", Some(network), None),
                    classifier: architecture.build(images.image, images.classes),
                    splits: images::splits(images, common.seed),
                    others: None,
                }
                .make_alike(&common, recipe)
            }
            Self::Cartpole { common, condition } => match condition {
                None => policies(&common, None, |_| CartPole::default(), None),
                Some(CartpoleCondition::Length) => {
                    let (poles, condition) = cartpole::poles(common.origin());
                    let pole = |network: u64| poles[network as usize];
                    policies(&common, Some("length"), pole, Some(condition))
                }
            },
            Self::Pendulum(common) => policies(&common, None, |_| Pendulum, None),
        }
    }
}

impl DigitsCondition {
    /// With its name.
    fn difference(self) -> (Difference, &'static str) {
        match self {
            Self::Digits => (Difference::Digits, "digits"),
            Self::Noise => (Difference::Noise, "noise"),
        }
    }
}

/// Starts that policies are measured on.
const TRIALS: usize = 100;

/// A zoo of classifiers to be.
struct Classifiers {
    about: About,
    classifier: Classifier,
    splits: Splits,
    /// Another task, to carry over to what was learned.
    others: Option<Splits>,
}

impl Classifiers {
    fn make_alike(&self, common: &Common, recipe: Recipe) -> Result<()> {
        self.make(common, alike(&self.splits, recipe), None)
    }

    fn make<'a>(
        &'a self,
        common: &Common,
        lesson: impl Fn(u64) -> Lesson<'a> + Sync,
        condition: Option<Condition>,
    ) -> Result<()> {
        let Self {
            about,
            classifier,
            splits,
            others,
        } = self;
        let folder = common.folder(about);
        let key = key((0..common.count as u64).map(&lesson));
        let made = task::make(&folder, about, &key, |origin, keep| {
            let mut made = classification::zoo(classifier, splits, lesson, origin, keep)?;
            made.condition = condition;
            if let Some(others) = others {
                let csv = |data: &Dataset| data.to_csv().into_bytes();
                made.files.extend([
                    (file::TRANSFER_TRAINING, csv(&others.training)),
                    (file::TRANSFER_TEST, csv(&others.test)),
                ]);
            }
            Ok(made)
        })?;
        let accuracies = classification::accuracies(classifier, &made, &splits.test);
        say(common, &folder, &made, "accuracy", "rows", &accuracies);
        Ok(())
    }
}

/// What tells these lessons from others.
fn key<'a>(lessons: impl Iterator<Item = Lesson<'a>>) -> String {
    let mut digest = Sha256::new();
    let mut last: Option<&Dataset> = None;
    for Lesson { data, recipe } in lessons {
        digest.update(format!("{recipe:?}"));
        if last.is_none_or(|last| !std::ptr::eq(last, data)) {
            digest.update(bytemuck::cast_slice(&data.x));
            digest.update(format!("{:?}", data.classes));
        }
        last = Some(data);
    }
    hex(&digest.finalize())
}

fn policies<P: Plant + Default>(
    common: &Common,
    difference: Option<&str>,
    plant: impl Fn(u64) -> P + Sync,
    condition: Option<Condition>,
) -> Result<()> {
    let about = common.about(P::NAME, None, difference);
    let folder = common.folder(&about);
    let key = format!("{:?} {:?}", P::STRATEGY, condition);
    let made = task::make(&folder, &about, &key, |origin, keep| {
        Ok(Made {
            condition,
            ..evolution::zoo(plant, origin, keep)?
        })
    })?;
    let starts = P::held_out_starts(TRIALS, common.seed);
    let returns: Vec<f64> = made
        .networks()
        .map(|network| P::default().mean_return(network, &starts))
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
