//! Alignment: the units of every network put in the order of one reference's.
//!
//! Permuting the units of a hidden layer does not change what a network computes, but scatters
//! equal networks over weight space. [`crate::groups`] finds what may be permuted, and
//! [`crate::matching`] the permutation of each network; here they are applied to a zoo, verified,
//! and kept against interruption. What else changes nothing is [`crate::canonical`]'s: scales and
//! signs, and rotations, which [`crate::procrustes`] matches.

use dwf::layout::{DType, Layout, TensorKind};
use half::f16;
use rayon::prelude::*;

use crate::{
    canonical::Canonical,
    error::{Error, Result, Status},
    groups::{Groups, Permutation},
    interrupt,
    matching::Matcher,
    procrustes::Procrustes,
    progress::Progress,
    rows::Rows,
    verify::{TOLERANCE, Verifier},
    work::Part,
    zoo::Zoo,
};

/// Rounds of matching to the mean, which settles in a few.
const MEAN_ROUNDS: usize = 6;
/// The mean has settled when a round brings the networks nearer by less than this part.
const SETTLED: f64 = 1e-3;

/// What the networks are matched to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub enum Reference {
    /// The first network of the zoo.
    #[default]
    First,
    /// The network nearest to all others, after they were matched to the first.
    Medoid,
    /// The mean of all networks, which is taken again after each round of matching, as in
    /// "MergeMany" of Git Re-Basin.
    Mean,
}

/// What alignment did.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// How many networks there are.
    pub networks: usize,
    /// Mean squared distance of the networks' parameters to the mean network's before.
    pub before: f64,
    /// The same afterwards.
    pub after: f64,
    /// Rounds in which all networks were matched.
    pub rounds: usize,
}

impl Report {
    /// The part of the squared distance that was only a matter of order.
    pub fn reduction(&self) -> f64 {
        if self.before > 0.0 {
            1.0 - self.after / self.before
        } else {
            0.0
        }
    }

    /// For people.
    pub fn table(&self) -> String {
        format!(
            "{} networks, verified in ONNX Runtime, in {} round{} of matching\n\
             squared distance to their mean: {:.4} before, {:.4} after, {:.1} % {}\n",
            self.networks,
            self.rounds,
            if self.rounds == 1 { "" } else { "s" },
            self.before,
            self.after,
            100.0 * self.reduction().abs(),
            if self.reduction() < 0.0 {
                "more"
            } else {
                "less"
            }
        )
    }
}

/// Aligns a zoo in place, and with `canonical` brings every network to its canonical form first.
/// Every network computes what it did before, which is verified on random input. The order of
/// finished networks is kept in `part`, if there is one, and taken from there; rotations are not.
///
/// Errors: RUNTIME_MISSING; INVALID_ARGUMENT naming the network that computes nothing finite;
/// INTERNAL naming network and layer if verification fails; IO; CANCELLED when
/// [interrupted](interrupt), if there is a part to go on from.
pub fn align(
    zoo: &mut Zoo,
    groups: &Groups,
    canonical: Option<&Canonical<'_>>,
    reference: Reference,
    part: Option<&Part>,
) -> Result<Report> {
    let before = spread(zoo);
    let network = zoo.network.clone();
    let verifier = Verifier::new(&network, &zoo.weights.row(0), 0)?;
    let mut rounds = Rounds {
        layout: network.layout(),
        groups,
        canonical,
        verifier,
        part,
        count: 0,
    };
    rounds.canonicalise(zoo)?;
    let first = zoo.weights.row(0);
    rounds.run(zoo, &first, Some(0))?;
    let mut after = spread(zoo);
    match reference {
        Reference::First => (),
        Reference::Medoid => {
            let medoid = medoid(zoo);
            if medoid != 0 {
                let reference = zoo.weights.row(medoid);
                rounds.run(zoo, &reference, Some(medoid))?;
                after = spread(zoo);
            }
        }
        Reference::Mean => {
            while rounds.count < MEAN_ROUNDS {
                let last = after;
                let mean = mean(zoo);
                rounds.run(zoo, &mean, None)?;
                after = spread(zoo);
                if after > last * (1.0 - SETTLED) {
                    break;
                }
            }
        }
    }
    let rounds = rounds.count;
    Ok(Report {
        networks: zoo.count(),
        before,
        after,
        rounds,
    })
}

/// Rounds of matching all networks to a reference.
struct Rounds<'a> {
    layout: &'a Layout,
    groups: &'a Groups,
    canonical: Option<&'a Canonical<'a>>,
    verifier: Verifier<'a>,
    part: Option<&'a Part>,
    count: usize,
}

impl Rounds<'_> {
    fn canonicalise(&self, zoo: &mut Zoo) -> Result<()> {
        let Some(canonical) = self.canonical else {
            return Ok(());
        };
        let progress = Progress::new("canonicalise", zoo.count());
        let files = &zoo.files;
        zoo.weights.change(|i, before| {
            self.go_on()?;
            let form = settled(self.layout, canonical, &self.verifier, before);
            progress.step(String::new);
            form.map(Some).map_err(|e| e.at(name(files, i)))
        })?;
        progress.finish();
        Ok(())
    }

    /// Stops if somebody asks, and the work can be gone on with or begun again.
    fn go_on(&self) -> Result<()> {
        let turned = self.canonical.and_then(Canonical::rotations).is_some();
        match self.part.is_some() && interrupt::requested() {
            true if turned => Err(interrupt::lost("to align")),
            true => Err(interrupt::error("every network aligned so far")),
            false => Ok(()),
        }
    }

    fn run(&mut self, zoo: &mut Zoo, reference: &[f32], skip: Option<usize>) -> Result<()> {
        let progress = Progress::new("align", zoo.count() - usize::from(skip.is_some()));
        let to = To::new(self, reference);
        let files = &zoo.files;
        let round = &*self;
        zoo.weights.change(|i, row| {
            if Some(i) == skip {
                return Ok(None);
            }
            round.go_on()?;
            let aligned = round.network(&to, i, row);
            let aligned = aligned.map_err(|e| e.at(name(files, i)))?;
            progress.step(String::new);
            Ok(Some(aligned))
        })?;
        progress.finish();
        self.count += 1;
        Ok(())
    }

    fn network(&self, to: &To<'_>, i: usize, row: &[f32]) -> Result<Vec<f32>> {
        let mut aligned = match &to.form {
            Form::Order(matcher) => self.permuted(matcher, i, row)?,
            Form::Rotation(procrustes) => procrustes.bring(row),
        };
        if let Some(canonical) = self.canonical {
            canonical.gauges().face(&mut aligned, to.reference);
        }
        self.verifier.check(row, &aligned)?;
        Ok(aligned)
    }

    fn permuted(&self, matcher: &Matcher<'_>, i: usize, row: &[f32]) -> Result<Vec<f32>> {
        let file = format!("{}-{i}", self.count);
        let known = match self.part {
            Some(part) => part
                .read(&file)?
                .and_then(|b| Permutation::from_bytes(&b, self.groups)),
            None => None,
        };
        let found = known.is_none();
        let permutation = known.unwrap_or_else(|| matcher.match_network(row));
        let mut permuted = vec![0.0; row.len()];
        self.groups
            .permute(self.layout, row, &permutation, &mut permuted);
        if let Some(part) = self.part.filter(|_| found) {
            part.write(&file, &permutation.to_bytes())?;
        }
        Ok(permuted)
    }
}

/// The network that all are brought to.
struct To<'a> {
    reference: &'a [f32],
    form: Form<'a>,
}

/// What may be changed to get there, beside signs.
enum Form<'a> {
    /// The order of units alone.
    Order(Matcher<'a>),
    /// Rotations as well.
    Rotation(Procrustes<'a>),
}

impl<'a> To<'a> {
    fn new(rounds: &Rounds<'a>, reference: &'a [f32]) -> Self {
        let form = match rounds.canonical.and_then(Canonical::rotations) {
            Some(rotations) => Form::Rotation(Procrustes::new(rotations, reference)),
            None => Form::Order(Matcher::new(rounds.layout, rounds.groups, reference)),
        };
        Self { reference, form }
    }
}

/// The canonical form of a network, which computes the same before it is rounded to how it is
/// stored.
fn settled(
    layout: &Layout,
    canonical: &Canonical<'_>,
    verifier: &Verifier<'_>,
    before: &[f32],
) -> Result<Vec<f32>> {
    let mut row = before.to_vec();
    canonical.canonicalise(&mut row);
    let halves = layout.tensors().iter().filter(|t| t.dtype == DType::F16);
    let mut halves = halves.flat_map(|spec| &row[spec.range()]);
    if halves.any(|w| w.abs() > f32::from(f16::MAX)) {
        return Err(refused("does not fit into half precision".into()));
    }
    let difference = verifier.difference(before, &row)?;
    match difference < TOLERANCE {
        true => Ok(row),
        false => Err(refused(format!(
            "computes something else: outputs differ by {difference:.1e} of their size"
        ))),
    }
}

fn refused(why: String) -> Error {
    let what = format!(
        "its canonical form {why}. Please report this with the ONNX file; without that form it can \
         be aligned"
    );
    Error::new(Status::Internal, what)
}

/// Whether every network of a zoo has a canonical form that computes the same.
///
/// Errors: as [`align`]; INTERNAL naming the first found that has none.
pub fn check_canonical(zoo: &mut Zoo, canonical: &Canonical<'_>) -> Result<()> {
    let network = zoo.network.clone();
    let verifier = Verifier::new(&network, &zoo.weights.row(0), 0)?;
    let progress = Progress::new("canonical", zoo.count());
    let files = &zoo.files;
    zoo.weights.change(|i, before| {
        if interrupt::requested() {
            return Err(interrupt::lost("to align"));
        }
        let found = settled(network.layout(), canonical, &verifier, before);
        progress.step(String::new);
        found.map(|_| None).map_err(|e| e.at(name(files, i)))
    })?;
    progress.finish();
    Ok(())
}

/// A network for people.
fn name(files: &[String], i: usize) -> String {
    let file = files.get(i);
    file.map_or(format!("network {i}"), |file| format!("'{file}'"))
}

/// The mean of all networks.
fn mean(zoo: &Zoo) -> Vec<f32> {
    let mut sum = vec![0f64; zoo.weights.size()];
    for network in zoo.networks() {
        sum.par_iter_mut()
            .zip(&network)
            .for_each(|(sum, w)| *sum += f64::from(*w));
    }
    let count = zoo.count() as f64;
    sum.into_iter().map(|sum| (sum / count) as f32).collect()
}

/// Mean squared distance of the networks' parameters to their mean.
fn spread(zoo: &Zoo) -> f64 {
    distances(zoo).iter().sum::<f64>() / zoo.count() as f64
}

/// Every network's squared distance to the mean of all.
fn distances(zoo: &Zoo) -> Vec<f64> {
    let mean = mean(zoo);
    let rows = (0..zoo.count()).into_par_iter();
    rows.map(|i| distance(zoo.layout(), &zoo.weights.row(i), &mean))
        .collect()
}

/// The squared distance of two networks' parameters.
pub fn distance(layout: &Layout, a: &[f32], b: &[f32]) -> f64 {
    let parameters = layout
        .tensors()
        .iter()
        .filter(|t| t.kind == TensorKind::Parameter);
    let tensor = |range: std::ops::Range<usize>| -> f64 {
        let pairs = a[range.clone()].iter().zip(&b[range]);
        pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum()
    };
    parameters.map(|spec| tensor(spec.range())).sum()
}

/// The network with the least squared distance to all others.
fn medoid(zoo: &Zoo) -> usize {
    // Of vectors, that is the one nearest to their mean.
    let distances = distances(zoo);
    let nearest = (0..distances.len()).min_by(|a, b| distances[*a].total_cmp(&distances[*b]));
    nearest.expect("a zoo has networks")
}
