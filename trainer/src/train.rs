//! The whole way from a zoo to a measured artifact.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use dwf::{Model, SampleOptions, Sampler, runtime::Runtime};

use crate::{
    align::align,
    dataset::Dataset,
    error::{Result, invalid, io},
    export::{self, About, WHOLE},
    files::{self, Staging},
    flow::{self, Flow, FlowOptions},
    latent::Basis,
    memory,
    progress::{self, Progress},
    random::Random,
    report::{self, key},
    solver,
    zoo::{MIN_NETWORKS, Zoo},
};

/// The file in a zoo's folder that is measured on unless another is named.
pub const HELD_OUT: &str = "held-out.csv";

/// Fewer networks than this are trained on with a warning.
const FEW_NETWORKS: usize = 30;
/// Networks that are generated for the report, and their seed.
const REPORT_NETWORKS: usize = 100;
const REPORT_SEED: u64 = 1;
/// The artifact that they come from, before it has its solver and figures.
const DRAFT: &str = "draft.onnx";
/// Random streams of the seed, beside those of the flow.
const HOLD_OUT_STREAM: u64 = 3;

/// How to train.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainOptions {
    /// Everything random follows from it.
    pub seed: u64,
    /// Steps of the flow's optimiser.
    pub steps: usize,
    /// How weights become latents.
    pub basis: BasisChoice,
    /// Width of the velocity network; `None`: [`flow::default_width`].
    pub width: Option<usize>,
    /// Data to measure accuracies on; `None`: [`HELD_OUT`] in the zoo's folder, if there is one.
    pub data: Option<PathBuf>,
    /// Where to write the aligned zoo: float32, [networks, weights] row-major, no header.
    pub aligned_zoo: Option<PathBuf>,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self {
            seed: 0,
            steps: flow::DEFAULT_STEPS,
            basis: BasisChoice::Diagonal,
            width: None,
            data: None,
            aligned_zoo: None,
        }
    }
}

/// The basis to fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BasisChoice {
    /// Every weight whitened for itself.
    Diagonal,
    /// This many principal components, or all.
    Linear(Option<usize>),
}

/// Trains on the zoo in folder `zoo`, writes the artifact `output` (`NAME.onnx`, with
/// `NAME.safetensors` beside it), and returns its quality figures.
///
/// Errors: INVALID_ARGUMENT and RUNTIME_MISSING before any work; IO.
pub fn train(zoo: &Path, output: &Path, options: &TrainOptions) -> Result<BTreeMap<String, f64>> {
    export::sidecar_path(output)?;
    Runtime::load(None)?;
    let name = folder_name(zoo)?;
    let mut networks = Zoo::read(zoo)?;
    let data = read_data(zoo, &networks, options)?;
    check(&networks, options)?;
    check_outputs(zoo, output, options.aligned_zoo.as_deref())?;
    check_memory(&networks, options)?;
    if networks.count() < FEW_NETWORKS {
        progress::warn(&format!(
            "the zoo has {} networks, and {MIN_NETWORKS} is the bare minimum; with fewer than \
             {FEW_NETWORKS} the generated ones may be poor",
            networks.count()
        ));
    }

    align_zoo(&mut networks, options.seed);
    let parts = Parts::split(&networks, options.seed);
    let size = networks.layout.len();
    let (basis, explained) = match options.basis {
        BasisChoice::Diagonal => (Basis::diagonal(&parts.training, size), None),
        BasisChoice::Linear(latent) => {
            let (basis, explained) = Basis::linear(&parts.training, size, latent)?;
            (basis, Some(explained))
        }
    };
    let flow = train_flow(&basis, &parts, size, options);
    let mut about = About {
        layout: networks.layout.clone(),
        source_std: flow::SOURCE_STD,
        solver: solver::unmeasured(),
        provenance: provenance(&name, &networks, &parts, &flow, options),
        quality: BTreeMap::new(),
    };
    measure(output, &networks, data.as_ref(), &basis, &flow, &mut about)?;
    about
        .quality
        .extend(explained.map(|e| (key::EXPLAINED_VARIANCE.to_owned(), e)));
    if let Some(path) = &options.aligned_zoo {
        let bytes: Vec<u8> = networks
            .weights
            .iter()
            .flat_map(|w| w.to_le_bytes())
            .collect();
        files::write(path, &bytes)?;
    }
    export::write(output, &flow.velocity, &basis, &about)?;
    Ok(about.quality)
}

/// The zoo's training and held-out networks, [count, weights] row-major.
struct Parts {
    training: Vec<f32>,
    held_out: Vec<f32>,
}

impl Parts {
    /// Holds out a random tenth.
    fn split(zoo: &Zoo, seed: u64) -> Self {
        let mut order: Vec<usize> = (0..zoo.count()).collect();
        Random::new(seed, HOLD_OUT_STREAM).shuffle(&mut order);
        let (held_out, training) = order.split_at_mut(held_out_count(zoo.count()));
        let take = |indices: &mut [usize]| {
            indices.sort_unstable();
            let size = zoo.layout.len();
            indices
                .iter()
                .flat_map(|i| zoo.weights[i * size..][..size].iter().copied())
                .collect()
        };
        Self {
            training: take(training),
            held_out: take(held_out),
        }
    }
}

fn held_out_count(networks: usize) -> usize {
    (networks / 10).max(1)
}

/// The folder's own name, without where it lies.
fn folder_name(zoo: &Path) -> Result<String> {
    let full = fs::canonicalize(zoo).map_err(io("read the zoo", zoo))?;
    Ok(full
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned())
}

fn read_data(folder: &Path, zoo: &Zoo, options: &TrainOptions) -> Result<Option<Dataset>> {
    let default = folder.join(HELD_OUT);
    let path = match &options.data {
        Some(path) => path,
        None if default.exists() => &default,
        None => return Ok(None),
    };
    let data = Dataset::read(path)?;
    data.check(&zoo.mlp)
        .map_err(|e| e.at(format!("'{}'", path.display())))?;
    Ok(Some(data))
}

/// Whether a velocity network can have this width.
pub fn is_width(width: usize) -> bool {
    (2..=1 << 16).contains(&width) && width.is_multiple_of(2)
}

/// Whether the outputs can be written without losing each other, the zoo or foreign files.
fn check_outputs(zoo: &Path, output: &Path, aligned_zoo: Option<&Path>) -> Result<()> {
    let sidecar = export::sidecar_path(output)?;
    for path in [Some(output), aligned_zoo].into_iter().flatten() {
        if files::lies_in(path, zoo) {
            return Err(invalid(format!(
                "'{}' lies in the zoo's folder, among the networks; choose another folder",
                path.display()
            )));
        }
    }
    export::check_output(output)?;
    let Some(path) = aligned_zoo else {
        return Ok(());
    };
    if files::same_place(path, output) || files::same_place(path, &sidecar) {
        return Err(invalid(format!(
            "--aligned-zoo '{}' is also a file of the artifact; choose another name",
            path.display()
        )));
    }
    files::check_file(path)
}

/// Options that the zoo can be trained with.
fn check(zoo: &Zoo, options: &TrainOptions) -> Result<()> {
    if options.steps == 0 {
        return Err(invalid("steps 0: the flow needs at least one step"));
    }
    if let Some(width) = options.width
        && !is_width(width)
    {
        return Err(invalid(format!(
            "width {width}: give an even number from 2 to 65536"
        )));
    }
    let training = zoo.count() - held_out_count(zoo.count());
    let most = most_components(zoo);
    if let BasisChoice::Linear(Some(latent)) = options.basis
        && !(1..=most).contains(&latent)
    {
        return Err(invalid(format!(
            "--latent {latent}: {training} training networks of {} weights have at most {most} \
             principal components; give 1 to {most}",
            zoo.layout.len()
        )));
    }
    let mut networks = zoo.networks();
    let first = networks.next();
    if networks.all(|network| Some(network) == first) {
        return Err(invalid(
            "all networks of the zoo are the same; there is nothing to learn",
        ));
    }
    Ok(())
}

/// Principal components that the training networks can have.
fn most_components(zoo: &Zoo) -> usize {
    let training = zoo.count() - held_out_count(zoo.count());
    (training - 1).min(zoo.layout.len())
}

/// Whether training fits into memory: else the system ends the process, and perhaps others.
fn check_memory(zoo: &Zoo, options: &TrainOptions) -> Result<()> {
    let held_out = held_out_count(zoo.count());
    let latent = match options.basis {
        BasisChoice::Diagonal => zoo.layout.len(),
        BasisChoice::Linear(latent) => latent.unwrap_or(most_components(zoo)),
    };
    let width = options.width.unwrap_or_else(|| flow::default_width(latent));
    let needed = flow::memory(latent, width, held_out);
    match memory::available() {
        Some(available) if needed > available => Err(invalid(format!(
            "--width {width} with {latent} latents needs about {} of memory to train, and {} are \
             available; give a smaller --width, or --basis linear with a smaller --latent",
            gigabytes(needed),
            gigabytes(available)
        ))),
        _ => Ok(()),
    }
}

fn gigabytes(bytes: usize) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

fn align_zoo(zoo: &mut Zoo, seed: u64) {
    let progress = Progress::new("align", zoo.count() - 1);
    align(&mut zoo.weights, zoo.layout.len(), &zoo.mlp, seed, || {
        progress.step(String::new)
    });
    progress.finish();
}

fn train_flow(basis: &Basis, parts: &Parts, size: usize, options: &TrainOptions) -> Flow {
    let encode = |networks: &[f32]| -> Vec<f32> {
        networks
            .chunks_exact(size)
            .flat_map(|network| basis.encode(network))
            .collect()
    };
    let latent = basis.latent();
    let options = FlowOptions {
        seed: options.seed,
        steps: options.steps,
        width: options.width.unwrap_or_else(|| flow::default_width(latent)),
    };
    let progress = Progress::new("flow", options.steps);
    let (training, held_out) = (encode(&parts.training), encode(&parts.held_out));
    let flow = flow::train(&training, &held_out, latent, &options, |at| {
        progress.step(|| format!("loss {:.3}, held out {:.3}", at.loss, at.held_out_loss));
    });
    progress.finish();
    flow
}

fn provenance(
    name: &str,
    zoo: &Zoo,
    parts: &Parts,
    flow: &Flow,
    options: &TrainOptions,
) -> BTreeMap<String, String> {
    let held_out = parts.held_out.len() / zoo.layout.len();
    [
        ("tool", format!("dwf-trainer {}", env!("CARGO_PKG_VERSION"))),
        ("zoo", name.to_owned()),
        ("networks", zoo.count().to_string()),
        ("networks.held_out", held_out.to_string()),
        (
            "alignment",
            "weight matching to the first network (arXiv 2209.04836)".into(),
        ),
        ("seed", options.seed.to_string()),
        ("steps", options.steps.to_string()),
        ("width", flow.velocity.width.to_string()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// Samples the artifact as its users will, chooses its solver, and fills in its figures.
fn measure(
    output: &Path,
    zoo: &Zoo,
    data: Option<&Dataset>,
    basis: &Basis,
    flow: &Flow,
    about: &mut About,
) -> Result<()> {
    let staging = Staging::beside(output)?;
    export::stage(&staging, DRAFT, &flow.velocity, basis, about)?;
    let model = Model::open(staging.path(DRAFT), &WHOLE)?;
    let mut sampler = Sampler::new(&model, &Default::default())?;
    about.solver = solver::choose(&mut sampler)?;
    let size = zoo.layout.len();
    let mut generated = vec![0f32; REPORT_NETWORKS * size];
    let options = SampleOptions {
        seed: REPORT_SEED,
        count: REPORT_NETWORKS,
        solver: Some(about.solver.solver()),
        ..Default::default()
    };
    sampler.sample(options, &mut generated[..])?;
    about.quality = report::measure(&zoo.mlp, &zoo.weights, &generated, size, data);
    about.quality.extend(report::held_out(&flow.held_out));
    Ok(())
}
