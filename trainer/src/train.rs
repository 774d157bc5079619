//! The whole way from a zoo to a measured artifact.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use dwf::{
    Model, SampleOptions, Sampler,
    layout::{DType, Layout, TensorKind},
    metadata::{self, hex},
    runtime::Runtime,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    align::{Reference, align, check_canonical},
    canonical::Canonical,
    checkpoint,
    condition::{CONDITIONS, Conditions},
    coordinates::{self, Coordinates, Decoded, Transformed},
    error::{Result, Status, invalid, io},
    export::{self, About, WHOLE},
    files::{self, Staging},
    flow::{self, Flow, FlowOptions, Keep, State, Task, Training},
    gauge,
    groups::Groups,
    interrupt,
    isometry::Isometry,
    judge::Judge,
    latent::{self, Basis, BasisChoice, Fit},
    memory,
    mixer::Mixer,
    mixing::{self, Mixing, Mixture},
    network::Network,
    obedience::Obedience,
    path::{Coupling, Latents, PathOptions, Target, TimeDistribution},
    pca::{Split, Wanted},
    progress::{self, Progress},
    random::Random,
    reflow,
    report::{
        self,
        comparison::{Comparison, Subject},
        key,
        metric::{self, Metric, Purpose},
    },
    rows::{Chosen, Rows, chunk_count},
    solver::{self, Choice},
    velocity::{Device, Shape, Variant, Velocity},
    work::{Part, Work},
    zoo::{Fingerprint, MIN_NETWORKS, Source, Stamp, Zoo},
};

/// Fewer networks than this are trained on with a warning.
const FEW_NETWORKS: usize = 30;
/// Networks that are generated for the report, and their seed.
const REPORT_NETWORKS: usize = 100;
const REPORT_SEED: u64 = 1;
/// The artifact that latents are sampled from, before there are figures, and its only tensor.
const DRAFT: &str = "draft.onnx";
const LATENT: &str = "latent";
/// What the zoo was aligned to, in the artifact's provenance. Artifacts without it are older: their
/// zoos were matched to the first network, and not brought to their canonical form.
const REFERENCE: &str = "alignment.reference";
const MEAN: &str = "mean of canonical networks";
const TURNED: &str = "mean of canonical networks, turned";
const AS_THEY_ARE: &str = "mean";
const NONE: &str = "none";
/// Random streams of the seed, beside those of the flow.
const HOLD_OUT_STREAM: u64 = 3;
/// What another version has kept is not gone on from.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Of states and of the rules by which checks are kept; counts up when either changes.
const STATE_FORMAT: u32 = 3;
/// The state of a training in its part of the work folder, and how often it is written.
const STATE: &str = "state";
const STATE_INTERVAL: Duration = Duration::from_secs(30);

/// How to train.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainOptions {
    /// How weights become latents.
    pub basis: BasisChoice,
    /// The velocity network's hidden layers.
    pub variant: Variant,
    /// Width of the velocity network; `None`: [`flow::default_width`].
    pub width: Option<usize>,
    /// How the flow is trained; its seed is that of everything random.
    pub flow: FlowOptions,
    /// How networks are mixed before they are learned; `None`: as [`Mixer::choose`] says, and of
    /// these what [`Mixer::select`] does.
    pub mixing: Option<Mixing>,
    /// Rounds of straightening.
    pub reflow: usize,
    /// Largest relative error of the default solver.
    pub solver_error: f64,
    /// Whether the networks' units are in one order already.
    pub aligned: bool,
    /// What the networks compute, as an ONNX file; `None`: see [`Source::open`].
    pub network: Option<PathBuf>,
    /// Conditions of the networks; `None`: [`CONDITIONS`] in the zoo's folder, if there is one.
    pub conditions: Option<PathBuf>,
    /// Data to measure accuracies on; `None`: see [`Metric::find`].
    pub data: Option<PathBuf>,
    /// Where to write the aligned zoo: float32, [networks, weights] row-major, no header.
    pub aligned_zoo: Option<PathBuf>,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self {
            basis: BasisChoice::Diagonal,
            variant: Variant::Reference,
            width: None,
            flow: FlowOptions {
                seed: 0,
                round: 0,
                steps: flow::DEFAULT_STEPS,
                path: PathOptions {
                    batch: 64,
                    time: TimeDistribution::Uniform,
                    coupling: Coupling::Independent,
                    source: metadata::Source::STANDARD,
                    mixing: Mixing::PAIRS,
                    condition_dropout: 0.1,
                },
                step: crate::adamw::Step {
                    rate: 3e-3,
                    weight_decay: 0.01,
                    // It spans about the last thousand steps.
                    average: 0.999,
                    clip: 1.0,
                },
                keep: Keep::Quality,
                device: Device::Cpu,
            },
            mixing: None,
            reflow: 0,
            solver_error: solver::DEFAULT_ERROR,
            aligned: false,
            network: None,
            conditions: None,
            data: None,
            aligned_zoo: None,
        }
    }
}

/// Trains on the zoo in folder `zoo`, writes the artifact `output` (`NAME.onnx`, with
/// `NAME.safetensors` beside it), and returns its quality figures. What an interrupted training
/// has done lies in `NAME.work`, and the same call goes on from there.
///
/// Errors: INVALID_ARGUMENT and RUNTIME_MISSING before any work; IO; DIVERGED; CANCELLED when
/// [interrupted](interrupt).
pub fn train(zoo: &Path, output: &Path, options: &TrainOptions) -> Result<BTreeMap<String, f64>> {
    export::sidecar_path(output)?;
    options.flow.device.check()?;
    flow::check(&options.flow)?;
    Runtime::load(None)?;
    let source = Source::open(zoo, options.network.as_deref(), MIN_NETWORKS)?;
    check_outputs(zoo, output, options.aligned_zoo.as_deref())?;
    let work = Work::open(output)?;
    let mut inputs = match Inputs::read(zoo, source, options, &work) {
        Ok(inputs) => inputs,
        Err(e) => {
            work.finish()?;
            return Err(e);
        }
    };
    if inputs.zoo.count() < FEW_NETWORKS {
        progress::warn(&format!(
            "the zoo has {} networks, and {MIN_NETWORKS} is the bare minimum; with fewer than \
             {FEW_NETWORKS} the generated ones may be poor",
            inputs.zoo.count()
        ));
    }
    let result = learn(&mut inputs, output, options, &work);
    match &result {
        // What has been done will be of use when the same is tried again.
        Err(e) if matches!(e.status(), Status::Cancelled | Status::Io) => {}
        _ => work.finish()?,
    }
    result
}

/// Everything that is read.
struct Inputs {
    /// The zoo folder's own name.
    name: String,
    zoo: Zoo,
    /// See [`gauge::is_known`].
    known: bool,
    /// What it was aligned to.
    reference: &'static str,
    /// What tells the zoo's files from others.
    fingerprint: Fingerprint,
    /// The same of the data to select and to choose by.
    data: Vec<Stamp>,
    conditions: Option<Conditions>,
    /// To select mixtures by; `None` where [`Inputs::selection`] needs none.
    training: Option<Metric>,
    /// To choose by.
    validation: Option<Metric>,
    /// To report on.
    held_out: Option<Metric>,
}

impl Inputs {
    fn read(folder: &Path, source: Source, options: &TrainOptions, work: &Work) -> Result<Self> {
        let name = folder_name(folder)?;
        let fingerprint = source.fingerprint();
        let data = metric::FILES.map(|file| Stamp::of(folder, file));
        let zoo = source.read(Some(work.folder()))?;
        let mut inputs = Self {
            name,
            known: gauge::is_known(&zoo.network, folder)?,
            reference: NONE,
            fingerprint,
            data: data.into(),
            conditions: read_conditions(folder, &zoo, options)?,
            held_out: Metric::find(folder, &zoo.network, Purpose::Test, options.data.as_deref())?,
            validation: Metric::find(folder, &zoo.network, Purpose::Validation, None)?,
            training: None,
            zoo,
        };
        if inputs.selection(options).is_some() {
            let found = Metric::find(folder, &inputs.zoo.network, Purpose::Selection, None);
            inputs.training = found.unwrap_or_else(|e| {
                progress::warn(&format!(
                    "{e}; mixtures are selected on validation data instead"
                ));
                None
            });
        }
        check(&inputs, options)?;
        check_memory(&inputs, options)?;
        Ok(inputs)
    }

    /// What mixtures are selected by: training rows, or validation data where there are none. `None`
    /// where it is said what is mixed, where nothing can be measured, and for networks that differ
    /// by a condition: what works best would be the condition's.
    fn selection(&self, options: &TrainOptions) -> Option<&Metric> {
        if options.mixing.is_some() || self.conditions.is_some() {
            return None;
        }
        let validation = self.validation.as_ref()?;
        Some(self.training.as_ref().unwrap_or(validation))
    }

    /// What everything that is done with latents depends on: networks, how they became latents, and
    /// the data that judge them.
    fn origin(&self, latents: &Encoded, options: &TrainOptions) -> Value {
        json!([
            VERSION,
            STATE_FORMAT,
            self.fingerprint,
            self.known,
            self.reference,
            self.data,
            options.basis,
            options.flow.seed,
            latents.digest(),
        ])
    }

    /// Length of a condition; 0 without.
    fn condition_size(&self) -> usize {
        self.conditions.as_ref().map_or(0, Conditions::size)
    }
}

/// From what was read to the artifact.
fn learn(
    inputs: &mut Inputs,
    output: &Path,
    options: &TrainOptions,
    work: &Work,
) -> Result<BTreeMap<String, f64>> {
    if !options.aligned {
        let _resumable = interrupt::resumable();
        let part = work.part("align", &(VERSION, &inputs.fingerprint, inputs.known))?;
        inputs.reference = align_zoo(&mut inputs.zoo, inputs.known, true, Some(&part))?;
    }
    let parts = Parts::split(inputs.zoo.count(), options.flow.seed);
    let latents = encode(inputs, &parts, options, work.folder())?;
    let isometry = Isometry::new(&latents.coordinates)?;
    let judge = Judge::new(
        &latents.training,
        &latents.coordinates,
        &isometry,
        inputs.validation.as_ref(),
        inputs.selection(options),
    )?;
    let mut options = options.clone();
    let origin = inputs.origin(&latents, &options);
    let (mixing, selection) = match options.mixing {
        Some(mixing) => (mixing, None),
        None => {
            let _resumable = interrupt::resumable();
            let mixer = Mixer {
                latents: &latents.training,
                judge: &judge,
                seed: options.flow.seed,
                part: &work.part("mixing", &origin)?,
            };
            let mixing = mixer.choose()?;
            (mixing, mixer.select(mixing)?)
        }
    };
    options.flow.path.mixing = mixing;
    let trainer = Trainer {
        latents: &latents,
        isometry: &isometry,
        selection: selection.as_deref(),
        judge: &judge,
        options: &options,
        work,
        origin: &origin,
        output,
        about: About {
            layout: latents.coordinates.layout.clone(),
            source: options.flow.path.source,
            condition: inputs.conditions.as_ref().map(Conditions::describe),
            solver: solver::unmeasured(),
            provenance: provenance(inputs, &parts, &options, &latents, selection.as_deref()),
            quality: BTreeMap::new(),
        },
    };
    let trained = trainer.run()?;
    let about = trainer.report(inputs, &parts, &trained)?;
    if let Some(path) = &options.aligned_zoo {
        write_aligned(&inputs.zoo, path)?;
    }
    export::write(
        output,
        &trained.velocity,
        &latents.coordinates.basis,
        &about,
    )?;
    Ok(about.quality)
}

fn write_aligned(zoo: &Zoo, path: &Path) -> Result<()> {
    let staging = Staging::beside(path)?;
    let mut file = staging.create(path.file_name().unwrap_or_default())?;
    for network in zoo.networks() {
        file.write_all(&checkpoint::encode(&network, DType::F32))
            .map_err(io("write", path))?;
    }
    staging.publish(&[path])
}

/// Which of the zoo's networks are trained on.
pub(crate) struct Parts {
    pub(crate) training: Vec<usize>,
    pub(crate) held_out: Vec<usize>,
}

impl Parts {
    /// The training networks.
    pub(crate) fn training<'a>(&'a self, zoo: &'a Zoo) -> Chosen<'a> {
        choose(zoo, &self.training)
    }

    /// The held-out networks.
    pub(crate) fn held_out<'a>(&'a self, zoo: &'a Zoo) -> Chosen<'a> {
        choose(zoo, &self.held_out)
    }

    /// Holds out a random tenth.
    pub(crate) fn split(count: usize, seed: u64) -> Self {
        let mut order: Vec<usize> = (0..count).collect();
        Random::new(seed, HOLD_OUT_STREAM).shuffle(&mut order);
        let mut training = order.split_off(held_out_count(count));
        order.sort_unstable();
        training.sort_unstable();
        Self {
            training,
            held_out: order,
        }
    }
}

fn choose<'a>(zoo: &'a Zoo, indices: &'a [usize]) -> Chosen<'a> {
    let rows = &zoo.weights;
    Chosen { rows, indices }
}

fn held_out_count(networks: usize) -> usize {
    (networks / 10).max(1)
}

/// The zoo as the flow sees it.
struct Encoded {
    coordinates: Coordinates,
    training: Latents,
    held_out: Latents,
    figures: Vec<(&'static str, f64)>,
}

impl Encoded {
    /// What tells these latents from others.
    fn digest(&self) -> String {
        let mut digest = Sha256::new();
        for latents in [&self.training, &self.held_out] {
            let rows = latents.conditions.as_ref().map(|known| &known.rows[..]);
            digest.update(bytemuck::cast_slice(&latents.values));
            digest.update(bytemuck::cast_slice(rows.unwrap_or_default()));
        }
        hex(&digest.finalize())
    }
}

fn encode(
    inputs: &Inputs,
    parts: &Parts,
    options: &TrainOptions,
    folder: &Path,
) -> Result<Encoded> {
    let layout = coordinates::layout(&inputs.zoo.network);
    let rows = Transformed {
        rows: &inputs.zoo.weights,
        layout: &layout,
    };
    let split = Split {
        training: &parts.training,
        held_out: &parts.held_out,
    };
    let passes = match options.basis {
        BasisChoice::Diagonal => 1,
        BasisChoice::Linear { .. } => 2,
    };
    let chunks = chunk_count(rows.count(), rows.size());
    let progress = Progress::new("basis", passes * chunks);
    let fit = latent::fit(&rows, split, options.basis, folder, &|| {
        progress.step(String::new)
    })?;
    progress.finish();
    let Fit {
        basis,
        training,
        held_out,
        linear,
    } = fit;
    let latents = |values, networks: &[usize]| Latents {
        size: basis.latent(),
        values,
        conditions: inputs.conditions.as_ref().map(|known| known.take(networks)),
    };
    let figures = linear.map_or(Vec::new(), |linear| {
        vec![
            (key::EXPLAINED_VARIANCE, linear.explained),
            (key::BASIS_ROUNDING, linear.rounding),
        ]
    });
    Ok(Encoded {
        training: latents(training, &parts.training),
        held_out: latents(held_out, &parts.held_out),
        coordinates: Coordinates { basis, layout },
        figures,
    })
}

/// What is needed from latents to a velocity network that is fit to be written.
struct Trainer<'a> {
    latents: &'a Encoded,
    isometry: &'a Isometry<'a>,
    /// The mixtures to learn, if not any.
    selection: Option<&'a [Mixture]>,
    judge: &'a Judge<'a>,
    options: &'a TrainOptions,
    work: &'a Work,
    /// See [`Inputs::origin`].
    origin: &'a Value,
    output: &'a Path,
    about: About,
}

/// A velocity network as it is written, and what is known of it.
struct Trained {
    velocity: Velocity,
    /// Its solver.
    choice: Choice,
    figures: Vec<(&'static str, f64)>,
}

impl Trainer<'_> {
    fn run(&self) -> Result<Trained> {
        let Encoded {
            training, figures, ..
        } = self.latents;
        let shape = shape(training, self.options);
        let mut options = self.options.flow;
        let untrained = Velocity::untrained(shape, options.seed);
        let target = match self.selection {
            Some(selection) => Target::Selection(training, selection),
            None => Target::Zoo(training),
        };
        let Flow {
            mut velocity,
            step,
            held_out,
        } = self.train("flow", target, &untrained, &options)?;
        let mut choice = self.choose(&velocity)?;
        let mut figures = figures.clone();
        figures.push((key::KEPT_STEP, step as f64));
        figures.extend(held_out.iter().flat_map(report::held_out));
        if self.options.reflow > 0 {
            figures.push((key::EVALUATIONS_BEFORE, choice.evaluations as f64));
        }
        for round in 1..=self.options.reflow {
            options.round = round;
            velocity = self.straighten(&velocity, &choice, &options)?;
            choice = self.choose(&velocity)?;
        }
        figures.extend([
            (key::EVALUATIONS, choice.evaluations as f64),
            (key::SOLVER_STD_RATIO, choice.std_ratio),
        ]);
        if let Some(known) = &training.conditions {
            velocity = velocity.unscaled(&known.schema);
        }
        Ok(Trained {
            velocity,
            choice,
            figures,
        })
    }

    /// One training, resumed if it was begun.
    fn train(
        &self,
        stage: &'static str,
        target: Target<'_>,
        start: &Velocity,
        options: &FlowOptions,
    ) -> Result<Flow> {
        let _resumable = interrupt::resumable();
        let part = self.part(stage, start, options)?;
        let state = part.read(STATE)?;
        let state = state.map(|bytes| State::from_bytes(&bytes)).transpose()?;
        let done = state.as_ref().map_or(0, State::step);
        let progress = Progress::resumed(stage, options.steps, done);
        let mut saved = Instant::now();
        let zoo = &self.latents.training;
        let mut judge =
            |velocity: &Velocity| self.judge.measure(&flow::sample(velocity, zoo, options)?);
        let mut tell = |training: &mut Training, at: flow::Progress| {
            progress.step(|| describe(&at));
            if let (true, Some(check)) = (at.checked, at.check) {
                progress::event("check", json!({ "stage": stage, "check": check }));
            }
            let stop = interrupt::requested();
            if stop || at.step == options.steps || saved.elapsed() > STATE_INTERVAL {
                part.write(STATE, &training.state()?.to_bytes())?;
                saved = Instant::now();
            }
            match stop {
                true => Err(interrupt::error("the training's state")),
                false => Ok(()),
            }
        };
        let task = Task {
            target,
            held_out: &self.latents.held_out,
            start,
        };
        let flow = flow::train(&task, options, state, &mut judge, &mut tell)?;
        progress.finish();
        Ok(flow)
    }

    /// The part of the work folder for a training from `start` on these latents.
    fn part(&self, stage: &str, start: &Velocity, options: &FlowOptions) -> Result<Part> {
        let selection = self.selection.map(mixing::digest);
        let weights = hex(&Sha256::digest(bytemuck::cast_slice(&start.weights)));
        let key = (self.origin, start.shape, options, selection, weights);
        self.work.part(stage, &key)
    }

    fn straighten(
        &self,
        velocity: &Velocity,
        choice: &Choice,
        options: &FlowOptions,
    ) -> Result<Velocity> {
        let _resumable = interrupt::resumable();
        let zoo = &self.latents.training;
        let progress = Progress::new("pairs", reflow::batches(zoo.size));
        let mut done = || {
            progress.step(String::new);
            match interrupt::requested() {
                true => Err(interrupt::error("the training's state")),
                false => Ok(()),
            }
        };
        let solver = choice.solver.solver();
        let pairs = reflow::pairs(velocity, zoo, &solver, options, &mut done)?;
        progress.finish();
        let options = FlowOptions {
            keep: Keep::Last,
            ..*options
        };
        let stage = ["reflow", "reflow II", "reflow III"][options.round.clamp(1, 3) - 1];
        Ok(self
            .train(stage, Target::Pairs(&pairs), velocity, &options)?
            .velocity)
    }

    /// Samples the velocity as the artifact's users will, and chooses its solver.
    fn choose(&self, velocity: &Velocity) -> Result<Choice> {
        let known = self.latents.training.conditions.as_ref();
        let velocity = match known {
            Some(known) => velocity.clone().unscaled(&known.schema),
            None => velocity.clone(),
        };
        solver::choose(
            &mut self.sampler(&velocity)?,
            &self.latents.coordinates,
            self.isometry,
            self.asked().as_deref(),
            self.options.solver_error,
        )
    }

    /// Samples the latents of a velocity network as it is written, in half precision and by libdwf:
    /// an artifact without the basis, which may be larger than everything else.
    fn sampler(&self, velocity: &Velocity) -> Result<Sampler> {
        let weights = velocity.shape.latent;
        let tensor = (
            LATENT.to_owned(),
            vec![weights],
            DType::F32,
            TensorKind::Parameter,
        );
        let about = About {
            layout: Layout::pack([tensor])?,
            ..self.about.clone()
        };
        let staging = Staging::beside(self.output)?;
        export::stage(
            &staging,
            DRAFT,
            velocity,
            &Basis::Identity { weights },
            &about,
        )?;
        let model = Model::open(staging.path(DRAFT), &WHOLE)?;
        Sampler::new(&model, &Default::default())
    }

    /// The training networks' conditions, as callers give them.
    fn asked(&self) -> Option<Vec<f32>> {
        let known = self.latents.training.conditions.as_ref()?;
        let rows = known.rows.chunks_exact(known.size());
        Some(rows.flat_map(|row| known.unscaled(row)).collect())
    }

    /// The artifact's description with everything that was measured.
    fn report(&self, inputs: &Inputs, parts: &Parts, trained: &Trained) -> Result<About> {
        let zoo = &inputs.zoo;
        let training = &self.latents.training;
        let mut about = self.about.clone();
        about.solver = trained.choice.solver;
        let mut sampler = self.sampler(&trained.velocity)?;
        let mut latents = vec![0f32; REPORT_NETWORKS * training.size];
        let turns: Option<Vec<usize>> = training
            .conditions
            .as_ref()
            .map(|_| (0..REPORT_NETWORKS).map(|i| i % training.count()).collect());
        let asked = training.conditions.as_ref().zip(turns.as_ref());
        let asked = asked.map(|(known, turns)| known.take(turns));
        let condition: Option<Vec<f32>> = asked.as_ref().map(|asked| {
            let rows = asked.rows.chunks_exact(asked.size());
            rows.flat_map(|row| asked.unscaled(row)).collect()
        });
        let options = SampleOptions {
            seed: REPORT_SEED,
            count: REPORT_NETWORKS,
            condition: condition.as_deref(),
            solver: Some(trained.choice.solver.solver()),
            ..Default::default()
        };
        sampler.sample(options, &mut latents[..])?;
        let generated = Decoded::new(&self.latents.coordinates, &latents);
        let own = parts.training(zoo);
        let metric = inputs.held_out.as_ref();
        let comparison = Comparison::new(&Subject {
            training: &own,
            held_out: &parts.held_out(zoo),
            generated: &generated,
            metric,
            thorough: false,
        })?;
        about.quality = report::figures(&comparison, metric);
        let figures = trained.figures.iter();
        about
            .quality
            .extend(figures.map(|(key, value)| ((*key).to_owned(), *value)));
        if let (Some(known), Some(asked)) = (&training.conditions, &asked) {
            let found = Obedience::measure(&own, known, &generated, asked)?;
            about.quality.extend(found.figures());
        }
        Ok(about)
    }
}

fn shape(latents: &Latents, options: &TrainOptions) -> Shape {
    Shape {
        variant: options.variant,
        latent: latents.size,
        width: options
            .width
            .unwrap_or_else(|| flow::default_width(latents.size)),
        condition: latents.condition_size(),
    }
}

/// A training's step for people.
fn describe(at: &flow::Progress) -> String {
    let mut text = format!("loss {:.3}", at.loss);
    if let Some(check) = &at.check {
        if let Some(loss) = check.held_out_loss {
            text += &format!(", held out {loss:.3}");
        }
        text += &format!(", spread {:.2}", check.quality.std_ratio);
        if let Some(shortfall) = check.quality.shortfall {
            text += &format!(", validation -{:.1} %", 100.0 * shortfall);
        }
    }
    text
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

fn read_conditions(folder: &Path, zoo: &Zoo, options: &TrainOptions) -> Result<Option<Conditions>> {
    let default = folder.join(CONDITIONS);
    let path = match &options.conditions {
        Some(path) => path,
        None if default.exists() => &default,
        None => return Ok(None),
    };
    Conditions::read(path, &zoo.files).map(Some)
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
fn check(inputs: &Inputs, options: &TrainOptions) -> Result<()> {
    let zoo = &inputs.zoo;
    if let Some(width) = options.width
        && !is_width(width)
    {
        return Err(invalid(format!(
            "width {width}: give an even number from 2 to 65536"
        )));
    }
    if inputs.conditions.is_some() && options.flow.path.coupling == Coupling::Ot {
        return Err(invalid(
            "--coupling ot does not go with conditions: the noise would depend on the condition, \
             and generation could not know how",
        ));
    }
    let training = zoo.count() - held_out_count(zoo.count());
    let most = most_components(zoo);
    if let BasisChoice::Linear {
        wanted: Wanted::Count(latent),
        ..
    } = options.basis
        && !(1..=most).contains(&latent)
    {
        return Err(invalid(format!(
            "--latent {latent}: {training} training networks of {} weights have at most {most} \
             principal components; give 1 to {most}",
            zoo.layout().len()
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
    (training - 1).min(zoo.layout().len())
}

/// Whether training fits into memory: else the system ends the process, and perhaps others.
fn check_memory(inputs: &Inputs, options: &TrainOptions) -> Result<()> {
    let zoo = &inputs.zoo;
    let held_out = held_out_count(zoo.count());
    let latent = match options.basis {
        BasisChoice::Diagonal => zoo.layout().len(),
        BasisChoice::Linear {
            wanted: Wanted::Count(latent),
            ..
        } => latent,
        BasisChoice::Linear { .. } => most_components(zoo),
    };
    let width = options.width.unwrap_or_else(|| flow::default_width(latent));
    let shape = Shape {
        variant: options.variant,
        latent,
        width,
        condition: inputs.condition_size(),
    };
    let needed = flow::memory(&shape, options.flow.path.batch, held_out);
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

/// Networks of one scale and sign, which they can be brought to where what is between their layers
/// is `known`, mix best when they are matched to their mean. Says what they were matched to; with
/// `turn` by rotations, too, where there are any.
fn align_zoo(zoo: &mut Zoo, known: bool, turn: bool, part: Option<&Part>) -> Result<&'static str> {
    let network = zoo.network.clone();
    let groups = Groups::find(&network)?;
    groups.warnings().iter().for_each(|w| progress::warn(w));
    let canonical = match known {
        true => find_canonical(zoo, &network, &groups, turn)?,
        false => None,
    };
    align(zoo, &groups, canonical.as_ref(), Reference::Mean, part)?;
    Ok(match canonical {
        Some(canonical) if canonical.rotations().is_some() => TURNED,
        Some(_) => MEAN,
        None => AS_THEY_ARE,
    })
}

/// The canonical form, if every network has one.
fn find_canonical<'a>(
    zoo: &mut Zoo,
    network: &'a Network,
    groups: &'a Groups,
    turn: bool,
) -> Result<Option<Canonical<'a>>> {
    let canonical = Canonical::find(network, groups, turn)?;
    match check_canonical(zoo, &canonical) {
        Ok(()) => Ok(Some(canonical)),
        Err(e) if e.status() == Status::Internal => {
            progress::warn(&format!("{e}, as all networks are now"));
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

/// Aligns a zoo as the one was that an artifact of this provenance was trained on.
pub(crate) fn align_again(
    zoo: &mut Zoo,
    folder: &Path,
    provenance: &BTreeMap<String, String>,
) -> Result<()> {
    match provenance.get(REFERENCE).map(String::as_str) {
        Some(NONE) => Ok(()),
        Some(reference @ (MEAN | TURNED)) => {
            let known = gauge::is_known(&zoo.network, folder)?;
            align_zoo(zoo, known, reference == TURNED, None).map(drop)
        }
        Some(AS_THEY_ARE) => align_zoo(zoo, false, false, None).map(drop),
        _ => {
            let groups = Groups::find(&zoo.network)?;
            align(zoo, &groups, None, Reference::First, None).map(drop)
        }
    }
}

fn provenance(
    inputs: &Inputs,
    parts: &Parts,
    options: &TrainOptions,
    latents: &Encoded,
    selection: Option<&[Mixture]>,
) -> BTreeMap<String, String> {
    let flow = &options.flow;
    let shape = shape(&latents.training, options);
    let json = |value: Value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    let alignment = match inputs.reference {
        NONE => "as the zoo came",
        _ => "weight matching (arXiv 2209.04836, 2505.22697), verified",
    };
    [
        ("tool", format!("dwf-trainer {VERSION}")),
        ("zoo", inputs.name.clone()),
        ("networks", inputs.zoo.count().to_string()),
        ("networks.held_out", parts.held_out.len().to_string()),
        ("alignment", alignment.into()),
        (REFERENCE, inputs.reference.into()),
        ("seed", flow.seed.to_string()),
        ("steps", flow.steps.to_string()),
        ("velocity", json(json!(shape.variant))),
        ("width", shape.width.to_string()),
        ("batch", flow.path.batch.to_string()),
        (mixing::key::MIXING, flow.path.mixing.to_string()),
        (
            mixing::key::SELECTED,
            selection.map_or(mixing::key::ANY.into(), |mixtures| {
                mixtures.len().to_string()
            }),
        ),
        ("time", json(json!(flow.path.time))),
        ("coupling", json(json!(flow.path.coupling))),
        ("rate", flow.step.rate.to_string()),
        ("keep", json(json!(flow.keep))),
        ("reflow", options.reflow.to_string()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}
