//! `dwf train`

use std::path::PathBuf;

use clap::ValueEnum;
use dwf::metadata::{Distribution, Source};
use dwf_trainer::{
    adamw::Step,
    components::Precision,
    error::Result,
    flow::{self, FlowOptions, Keep},
    latent::BasisChoice,
    mixing::Mixing,
    path::{Coupling, PathOptions, TimeDistribution},
    pca::Wanted,
    progress, report, solver,
    train::{self, TrainOptions},
    velocity::{Device, Variant},
};
use serde_json::json;

use super::{at_least, usage};

/// Learn a zoo's distribution and write it as an artifact: NAME.onnx and NAME.safetensors
///
/// A zoo is a folder with one checkpoint a network (*.safetensors, *.pt or *.pth), at least 8, all
/// with the same tensors. What they compute is told by --network; without it they are plain MLPs
/// with ReLU (NAME.weight [out, in] and NAME.bias [out], as in PyTorch).
/// Beside the networks may lie validation.csv (rows to choose by), held-out.csv (rows to report
/// on, never chosen by) and conditions.csv (what each network shall be asked for by).
///
/// Ctrl-C stops a training so that the same command goes on where it was; what it has done so
/// far lies in NAME.work until then.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The zoo's folder
    zoo: PathBuf,
    /// The artifact to write, NAME.onnx
    #[arg(short, long, value_name = "NAME.onnx")]
    output: PathBuf,
    /// Rows to report accuracies on: a CSV file with a header, features first, the class
    /// (from 0) last. Default: held-out.csv in the zoo's folder, if there is one
    #[arg(long, value_name = "CSV")]
    data: Option<PathBuf>,
    /// What the networks compute, as an ONNX file whose initialisers are the checkpoints' tensors.
    /// Default: network.onnx in the zoo's folder, or without one a plain MLP
    #[arg(long, value_name = "NETWORK.onnx")]
    network: Option<PathBuf>,
    /// What is known of every network and shall be asked of generated ones: a CSV file with the
    /// header 'file,class' and a class a network, or 'file,NAME,NAME..' and numbers. Default:
    /// conditions.csv in the zoo's folder, if there is one
    #[arg(long, value_name = "CSV")]
    conditions: Option<PathBuf>,
    /// The networks' units are in one order already: `dwf align` wrote them, or all were fine-tuned
    /// from one network. They are learned as they are; networks trained from different starts would
    /// not mix
    #[arg(long)]
    aligned: bool,
    /// Seed of everything random; the same seed gives the same artifact on the same machine,
    /// interrupted or not
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Also write the aligned zoo to this file: float32, networks x weights, no header
    #[arg(long, value_name = "FILE")]
    aligned_zoo: Option<PathBuf>,
    #[command(flatten, next_help_heading = "Latent")]
    latent: Latent,
    #[command(flatten, next_help_heading = "Velocity network")]
    velocity: Velocity,
    #[command(flatten, next_help_heading = "Training")]
    training: Training,
    #[command(flatten, next_help_heading = "Solver")]
    solver: Solver,
}

#[derive(clap::Args)]
struct Latent {
    /// How weights become latents
    #[arg(long, value_enum, default_value_t = BasisName::Diagonal)]
    basis: BasisName,
    /// Number of principal components of --basis linear. Default: all that the training
    /// networks have, one less than there are
    #[arg(long, value_name = "K", value_parser = at_least(1), conflicts_with = "variance")]
    latent: Option<usize>,
    /// As many principal components of --basis linear as hold this fraction of the zoo's
    /// variance, 0.99 say
    #[arg(long, value_name = "FRACTION", value_parser = fraction)]
    variance: Option<f64>,
    /// How components are stored. What half precision adds to the weights is measured and
    /// written among the figures; a thousandth of their spread is usual
    #[arg(long, value_enum, default_value_t = PrecisionName::F16)]
    precision: PrecisionName,
}

#[derive(clap::Args)]
struct Velocity {
    /// Its hidden layers
    #[arg(long, value_enum, default_value_t = VariantName::Reference)]
    velocity: VariantName,
    /// Its width h, even. Default: twice the latent size, rounded up to a multiple of 64, from
    /// 128 to 1024, so that a latent passes through twice over
    #[arg(long, value_name = "H", value_parser = even)]
    width: Option<usize>,
}

#[derive(clap::Args)]
struct Training {
    /// Optimiser steps; the default takes half a minute for small networks
    #[arg(long, default_value_t = flow::DEFAULT_STEPS, value_parser = at_least(1))]
    steps: usize,
    /// Points on paths a step; more make a step dearer and its direction surer
    #[arg(long, default_value_t = 64, value_parser = at_least(2))]
    batch: usize,
    /// Peak learning rate of AdamW, reached after 100 steps and brought to zero as a cosine
    #[arg(long, default_value_t = 3e-3)]
    rate: f32,
    /// Weight decay of AdamW; PyTorch's default
    #[arg(long, default_value_t = 0.01)]
    weight_decay: f32,
    /// Weight on its past of the weights' moving average, which is what is kept; 0.999 spans
    /// about a thousand steps, 0 averages nothing
    #[arg(long, default_value_t = 0.999)]
    average: f32,
    /// Largest norm of the gradient over all weights; longer ones are shortened to it
    #[arg(long, default_value_t = 1.0)]
    clip: f32,
    /// How far two networks are mixed before they are learned: MIN..MAX in degrees, at 45 half way,
    /// 0..0 not at all. Default: of 14 ways to mix 2 to 10 networks the one whose mixtures are novel
    /// and good most often on validation data, among those that score as well as the zoo to 0.1 %,
    /// or come nearest to that, and of every three such mixtures, but for a zoo with conditions, the
    /// one that does best on train.csv, or else on validation data; 20..45, all of them, without
    /// data. Under 20 degrees samples become near copies
    #[arg(long, value_name = "MIN..MAX", value_parser = degrees)]
    mix: Option<[f32; 2]>,
    /// Distribution of the times that are learned
    #[arg(long, value_enum, default_value_t = TimeName::Uniform)]
    time: TimeName,
    /// Which noise goes to which network of a batch
    #[arg(long, value_enum, default_value_t = CouplingName::Independent)]
    coupling: CouplingName,
    /// Kind of the noise that trajectories start from; uniform noise has no tails
    #[arg(long, value_enum, default_value_t = SourceName::Normal)]
    source: SourceName,
    /// Its standard deviation. 1 is that of the whitened latents; the paper's 0.01 learns the zoo by
    /// heart
    #[arg(long, default_value_t = 1.0)]
    source_std: f64,
    /// How often a condition is left out, so that the flow learns to do without and can be
    /// guided
    #[arg(long, default_value_t = 0.1)]
    condition_dropout: f32,
    /// Which moment of the training is kept, of 40 that are looked at
    #[arg(long, value_enum, default_value_t = KeepName::Quality)]
    keep: KeepName,
    /// Where it runs
    #[arg(long, value_enum, default_value_t = DeviceName::Cpu)]
    device: DeviceName,
}

#[derive(clap::Args)]
struct Solver {
    /// Largest relative error of the weights that the artifact's own solver makes; the cheapest
    /// that keeps to it, and to the spread within 2 %, is chosen
    #[arg(long, default_value_t = solver::DEFAULT_ERROR, value_parser = positive)]
    solver_error: f64,
    /// Rounds of straightening: the flow is trained again on the ends of its own trajectories,
    /// as long each time, so that fewer evaluations follow it
    #[arg(long, value_name = "K", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=3))]
    reflow: u8,
}

#[derive(Clone, Copy, ValueEnum)]
enum BasisName {
    /// Every weight whitened for itself: nothing is lost
    Diagonal,
    /// Principal components, whitened: smaller, for networks of many weights. With all
    /// components, samples stay within the affine span of the zoo
    Linear,
}

#[derive(Clone, Copy, ValueEnum)]
enum PrecisionName {
    /// Half precision
    F16,
    /// Single precision: twice the size
    F32,
}

#[derive(Clone, Copy, ValueEnum)]
enum VariantName {
    /// The paper's: h, h/2, h
    Reference,
    /// The paper's for transformers: h, h, h/2, h
    Deep,
    /// Three residual blocks of width h, scaled and shifted by time and condition
    Residual,
}

#[derive(Clone, Copy, ValueEnum)]
enum TimeName {
    /// All times alike
    Uniform,
    /// More in the middle
    LogitNormal,
    /// Beta(2, 5): more near the noise
    Beta,
}

#[derive(Clone, Copy, ValueEnum)]
enum SourceName {
    /// Gaussian
    Normal,
    /// Between plus and minus its standard deviation times the root of 3
    Uniform,
}

#[derive(Clone, Copy, ValueEnum)]
enum CouplingName {
    /// Any to any
    Independent,
    /// The nearest pairing of the batch (minibatch optimal transport): straighter paths. Not
    /// with conditions
    Ot,
}

#[derive(Clone, Copy, ValueEnum)]
enum KeepName {
    /// The one whose samples are best on validation.csv, of those with six tenths of the zoo's
    /// spread and hardly any near copies; the last without that file
    Quality,
    /// The one with the lowest flow loss on held-out networks, stopping when it rises. On small
    /// zoos that is long before samples are good
    HeldOutLoss,
    /// The last
    Last,
}

#[derive(Clone, Copy, ValueEnum)]
enum DeviceName {
    /// The processor
    Cpu,
    /// The first NVIDIA GPU, which CUDA_VISIBLE_DEVICES can choose; for builds with --features cuda
    Cuda,
}

impl Args {
    pub(crate) fn run(self) -> Result<()> {
        let options = self.options();
        let quality = train::train(&self.zoo, &self.output, &options)?;
        if progress::is_json() {
            let artifact = self.output.display().to_string();
            progress::event("done", json!({ "artifact": artifact, "quality": quality }));
            return Ok(());
        }
        print!("{}", report::table(&quality));
        println!("wrote {} and its .safetensors", self.output.display());
        Ok(())
    }

    fn options(&self) -> TrainOptions {
        let Training {
            steps,
            batch,
            rate,
            weight_decay,
            average,
            clip,
            mix,
            time,
            coupling,
            source,
            source_std,
            condition_dropout,
            keep,
            device,
        } = self.training;
        TrainOptions {
            basis: self.latent.choice(),
            variant: match self.velocity.velocity {
                VariantName::Reference => Variant::Reference,
                VariantName::Deep => Variant::Deep,
                VariantName::Residual => Variant::Residual,
            },
            width: self.velocity.width,
            flow: FlowOptions {
                seed: self.seed,
                round: 0,
                steps,
                path: PathOptions {
                    batch,
                    time: match time {
                        TimeName::Uniform => TimeDistribution::Uniform,
                        TimeName::LogitNormal => TimeDistribution::LogitNormal,
                        TimeName::Beta => TimeDistribution::Beta,
                    },
                    coupling: match coupling {
                        CouplingName::Independent => Coupling::Independent,
                        CouplingName::Ot => Coupling::Ot,
                    },
                    source: Source {
                        distribution: match source {
                            SourceName::Normal => Distribution::Normal,
                            SourceName::Uniform => Distribution::Uniform,
                        },
                        std: source_std,
                    },
                    mixing: Mixing::PAIRS,
                    condition_dropout,
                },
                step: Step {
                    rate,
                    weight_decay,
                    average,
                    clip,
                },
                keep: match keep {
                    KeepName::Quality => Keep::Quality,
                    KeepName::HeldOutLoss => Keep::HeldOutLoss,
                    KeepName::Last => Keep::Last,
                },
                device: match device {
                    DeviceName::Cpu => Device::Cpu,
                    DeviceName::Cuda => Device::Cuda,
                },
            },
            mixing: mix.map(|angles| Mixing {
                angles,
                ..Mixing::PAIRS
            }),
            reflow: self.solver.reflow.into(),
            solver_error: self.solver.solver_error,
            aligned: self.aligned,
            conditions: self.conditions.clone(),
            network: self.network.clone(),
            data: self.data.clone(),
            aligned_zoo: self.aligned_zoo.clone(),
        }
    }
}

impl Latent {
    fn choice(&self) -> BasisChoice {
        let precision = match self.precision {
            PrecisionName::F16 => Precision::Half,
            PrecisionName::F32 => Precision::Single,
        };
        let wanted = match (self.latent, self.variance) {
            (Some(count), _) => Wanted::Count(count),
            (None, Some(fraction)) => Wanted::Variance(fraction),
            (None, None) => Wanted::All,
        };
        match (self.basis, wanted) {
            (BasisName::Linear, wanted) => BasisChoice::Linear { wanted, precision },
            (BasisName::Diagonal, Wanted::All) => BasisChoice::Diagonal,
            (BasisName::Diagonal, _) => usage(
                "--latent and --variance go with --basis linear: a diagonal basis keeps every \
                 weight",
            ),
        }
    }
}

fn even(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(width) if train::is_width(width) => Ok(width),
        _ => Err("give an even number from 2 to 65536".into()),
    }
}

fn fraction(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(fraction) if fraction > 0.0 && fraction <= 1.0 => Ok(fraction),
        _ => Err("give a number above 0 and up to 1".into()),
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err("give a number above 0".into()),
    }
}

fn degrees(text: &str) -> Result<[f32; 2], String> {
    let ends = text.split_once("..").map(|(a, b)| (a.parse(), b.parse()));
    match ends {
        Some((Ok(least), Ok(most))) if 0.0 <= least && least <= most && most <= 45.0 => {
            Ok([least, most])
        }
        _ => Err("give two angles in degrees, 20..45 say, the first not above the second".into()),
    }
}
