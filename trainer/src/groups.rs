//! Permutation groups: which units of a network can change places, and what moves with them.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, HashMap},
    fmt::Write,
};

use dwf::layout::{Layout, TensorSpec};

use crate::{
    axes::Axes,
    error::Result,
    graph::{Trace, trace},
    network::Network,
    random::Random,
    trial::Trial,
};

/// Permutations that families are tried with; of few units, one may be a symmetry by chance.
const TRIES: usize = 4;

/// The symmetry of a network: its units in families, and where they lie in its tensors.
#[derive(Clone, Debug)]
pub struct Groups {
    families: Vec<Family>,
    tensors: Vec<TensorUnits>,
    /// Family and place in it of every unit that can move.
    places: Vec<Option<(u32, u32)>>,
    warnings: Vec<String>,
}

/// Units that can take each other's place: freely, or with what they lie in. Attention heads are
/// a family; the neurons of all heads that meet in queries and keys are one, of which each owns
/// its share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Family {
    /// The units, in the order in which they lie in the first tensor; those of one owner together.
    pub units: Vec<u32>,
    /// The family of their owners, which own equally many each, in its order.
    pub owner: Option<usize>,
}

/// Where units lie in a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorUnits {
    /// For every dimension the unit at each place, or `None` where nothing moves.
    pub dims: Vec<Option<Vec<u32>>>,
    /// Groups of a grouped convolution's kernel: then the units of dimension 1 are those of all
    /// groups behind each other, and each group of rows has its own.
    pub groups: usize,
}

/// For every unit the one whose weights come to its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permutation(pub Vec<u32>);

impl Permutation {
    /// As little-endian numbers.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|unit| unit.to_le_bytes()).collect()
    }

    /// The same back, if it is one of these groups'.
    pub fn from_bytes(bytes: &[u8], groups: &Groups) -> Option<Self> {
        let (units, rest) = bytes.as_chunks::<4>();
        let units: Vec<u32> = units.iter().map(|unit| u32::from_le_bytes(*unit)).collect();
        let mut seen = vec![false; groups.units()];
        let family = |unit: u32| groups.place(unit).map(|(family, _)| family);
        let fits = units.iter().enumerate().all(|(place, unit)| {
            let free = seen
                .get_mut(*unit as usize)
                .is_some_and(|s| !std::mem::replace(s, true));
            free && family(place as u32) == family(*unit)
        });
        (rest.is_empty() && fits && units.len() == groups.units()).then_some(Self(units))
    }
}

impl Groups {
    /// Traces the network, and tries what was found.
    ///
    /// Errors: those of running it.
    pub fn find(network: &Network) -> Result<Self> {
        let mut groups = Self::of(trace(network)?);
        groups.forget_failing(network)?;
        Ok(groups)
    }

    fn of(trace: Trace) -> Self {
        let Trace {
            units,
            tensors,
            unknown,
        } = trace;
        let not_understood =
            |node| format!("node {node} is not understood: what it touches stays where it is");
        let (units, number) = units.finish();
        let tensors: Vec<TensorUnits> = tensors
            .iter()
            .map(|axes| tensor_units(axes, &number))
            .collect();
        // Units in the order of the tensors, and after them those that only own others.
        let mut order: Vec<u32> = Vec::new();
        let mut seen = vec![false; units.len()];
        let in_tensors = tensors
            .iter()
            .flat_map(|t| t.dims.iter().flatten().flatten());
        for unit in in_tensors.copied().collect::<Vec<_>>() {
            let chain = std::iter::successors(Some(unit), |u| units[*u as usize].owner);
            for unit in chain {
                if !std::mem::replace(&mut seen[unit as usize], true) {
                    order.push(unit);
                }
            }
        }
        let mut by_colour: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
        for unit in &order {
            by_colour
                .entry(units[*unit as usize].colour)
                .or_default()
                .push(*unit);
        }
        // What is like nothing else cannot move.
        by_colour.retain(|_, members| members.len() > 1);
        let place: HashMap<u32, usize> = order.iter().enumerate().map(|(i, u)| (*u, i)).collect();
        let owner = |unit: u32| units[unit as usize].owner;
        let mut members: Vec<Vec<u32>> = by_colour.into_values().collect();
        for members in &mut members {
            members.sort_by_key(|unit| (owner(*unit).map(|o| place[&o]), place[unit]));
        }
        members.sort_by_key(|members| members.iter().map(|unit| place[unit]).min());
        let colour = |unit: u32| units[unit as usize].colour;
        let of_colour: HashMap<u64, usize> = members
            .iter()
            .enumerate()
            .map(|(family, members)| (colour(members[0]), family))
            .collect();
        let mut places = vec![None; units.len()];
        for (family, members) in members.iter().enumerate() {
            for (i, unit) in members.iter().enumerate() {
                places[*unit as usize] = Some((family as u32, i as u32));
            }
        }
        let family = |units: Vec<u32>| Family {
            owner: owner(units[0]).and_then(|owner| of_colour.get(&colour(owner)).copied()),
            units,
        };
        let mut groups = Self {
            families: members.into_iter().map(family).collect(),
            tensors,
            places,
            warnings: unknown.into_iter().map(not_understood).collect(),
        };
        groups.forget_fixed();
        groups
    }

    /// Forgets the families whose units cannot be permuted after all: what tracing infers should
    /// hold for any weights, so it is [tried](Trial) on random ones.
    fn forget_failing(&mut self, network: &Network) -> Result<()> {
        if self.families.is_empty() {
            return Ok(());
        }
        let mut trial = Trial::new(network)?;
        if !trial.is_finite() {
            // Nothing is learned of a network that computes no numbers.
            return Ok(());
        }
        let mut random = Random::new(0, 2);
        let mut holds = |families: &[usize]| -> Result<bool> {
            let mut permuted = trial.weights().to_vec();
            for _ in 0..TRIES {
                let permutation = self.shuffled(families, &mut random);
                self.permute(
                    network.layout(),
                    trial.weights(),
                    &permutation,
                    &mut permuted,
                );
                if !trial.holds(&permuted)? {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        let outermost = self.outermost();
        if holds(&outermost)? {
            return Ok(());
        }
        let mut failing = Vec::new();
        for family in outermost {
            if !holds(&[family])? {
                failing.push(family);
            }
        }
        for family in &failing {
            let warning = format!(
                "the {} units of {} stay where they are: in another order a network of random \
                 weights computes something else. Please report this with the ONNX file",
                self.families[*family].units.len(),
                shortened(&self.sites(network.layout(), *family)),
            );
            self.warnings.push(warning);
        }
        self.forget(&failing);
        self.forget_fixed();
        Ok(())
    }

    /// These groups less some families and everything inside them.
    pub fn without(&self, families: &[usize]) -> Self {
        let mut rest = self.clone();
        rest.forget(families);
        rest.forget_fixed();
        rest
    }

    /// Forgets these families and everything inside them.
    fn forget(&mut self, families: &[usize]) {
        let chain =
            |family: usize| std::iter::successors(Some(family), |f| self.families[*f].owner);
        let kept: Vec<usize> = (0..self.families.len())
            .filter(|family| !chain(*family).any(|f| families.contains(&f)))
            .collect();
        let number = |family: usize| kept.iter().position(|f| *f == family);
        let families = kept.iter().map(|family| Family {
            units: self.families[*family].units.clone(),
            owner: self.families[*family].owner.and_then(number),
        });
        let families = families.collect();
        for place in &mut self.places {
            *place = place.and_then(|(f, i)| Some((number(f as usize)? as u32, i)));
        }
        self.families = families;
    }

    /// Forgets units along dimensions where none can move.
    fn forget_fixed(&mut self) {
        let places = &self.places;
        for dim in self.tensors.iter_mut().flat_map(|tensor| &mut tensor.dims) {
            let moves = |units: &Vec<u32>| units.iter().any(|u| places[*u as usize].is_some());
            if !dim.as_ref().is_some_and(moves) {
                *dim = None;
            }
        }
    }

    /// The families.
    pub fn families(&self) -> &[Family] {
        &self.families
    }

    /// The tensors' units, in the layout's order.
    pub fn tensors(&self) -> &[TensorUnits] {
        &self.tensors
    }

    /// Number of units, those that never move included.
    pub fn units(&self) -> usize {
        self.places.len()
    }

    /// The family of a unit and its place there, unless it never moves.
    pub fn place(&self, unit: u32) -> Option<(usize, usize)> {
        let place = self.places[unit as usize];
        place.map(|(family, place)| (family as usize, place as usize))
    }

    /// The family of every unit in a tensor that can move.
    pub fn families_in(&self, tensor: usize) -> impl Iterator<Item = usize> + '_ {
        let units = self.tensors[tensor].dims.iter().flatten().flatten();
        units.filter_map(|unit| Some(self.place(*unit)?.0))
    }

    /// Units of a family that one owner has; all, if they have none.
    pub fn share(&self, family: usize) -> usize {
        let Family { units, owner } = &self.families[family];
        units.len() / owner.map_or(1, |owner| self.families[owner].units.len())
    }

    /// What stays where it is although it might move, in sentences: operators that are not
    /// understood, and families that failed their trial.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The families that no other owns.
    pub fn outermost(&self) -> Vec<usize> {
        (0..self.families.len())
            .filter(|family| self.families[*family].owner.is_none())
            .collect()
    }

    /// The permutation that moves nothing.
    pub fn identity(&self) -> Permutation {
        Permutation((0..self.units() as u32).collect())
    }

    /// A random permutation of these outermost families and of all that is inside them; in each
    /// something moves.
    pub fn shuffled(&self, families: &[usize], random: &mut Random) -> Permutation {
        let mut permutation = self.identity();
        for family in families {
            self.shuffle(*family, &[0], random, &mut permutation);
        }
        permutation
    }

    /// Shuffles the units of a family whose owners come from these places.
    fn shuffle(
        &self,
        family: usize,
        owners: &[usize],
        random: &mut Random,
        permutation: &mut Permutation,
    ) {
        let share = self.share(family);
        let mut sources = Vec::new();
        for owner in owners {
            let mut own: Vec<usize> = (owner * share..(owner + 1) * share).collect();
            while own.is_sorted() && share > 1 {
                random.shuffle(&mut own);
            }
            sources.extend(own);
        }
        let units = &self.families[family].units;
        for (unit, source) in units.iter().zip(&sources) {
            permutation.0[*unit as usize] = units[*source];
        }
        for inner in self.inside(family) {
            self.shuffle(inner, &sources, random, permutation);
        }
    }

    /// The weights `from` with their units moved, written over `to`.
    pub fn permute(
        &self,
        layout: &Layout,
        from: &[f32],
        permutation: &Permutation,
        to: &mut [f32],
    ) {
        for (spec, units) in layout.tensors().iter().zip(&self.tensors) {
            permute_tensor(
                spec,
                units,
                permutation,
                &from[spec.range()],
                &mut to[spec.range()],
            );
        }
    }

    /// A table for people: every family that moves, and the tensors that it moves in.
    pub fn table(&self, layout: &Layout) -> String {
        let mut text = String::new();
        let mut number = 0;
        for family in self.outermost() {
            number += 1;
            self.describe(layout, family, &number.to_string(), 0, &mut text);
        }
        let fixed: Vec<&TensorSpec> = layout
            .tensors()
            .iter()
            .zip(&self.tensors)
            .filter(|(_, units)| units.dims.iter().all(Option::is_none))
            .map(|(spec, _)| spec)
            .collect();
        if number == 0 {
            text.push_str("nothing can be permuted\n");
        }
        if !fixed.is_empty() {
            let names: Vec<&str> = fixed.iter().map(|spec| spec.name.as_str()).collect();
            writeln!(text, "fixed  {}", shortened(&names)).expect("strings grow");
        }
        for warning in &self.warnings {
            writeln!(text, "{warning}").expect("strings grow");
        }
        text
    }

    /// Families that a family owns.
    pub fn inside(&self, family: usize) -> impl Iterator<Item = usize> + '_ {
        (0..self.families.len()).filter(move |f| self.families[*f].owner == Some(family))
    }

    /// The tensors' dimensions that a family's units lie along, for people.
    fn sites(&self, layout: &Layout, family: usize) -> Vec<String> {
        let mut sites = Vec::new();
        for (spec, units) in layout.tensors().iter().zip(&self.tensors) {
            for (dim, along) in units.dims.iter().enumerate() {
                let along = along.iter().flatten();
                let count = along
                    .filter(|u| self.place(**u).is_some_and(|p| p.0 == family))
                    .count();
                if count > 0 {
                    let times = match count / self.families[family].units.len() {
                        times if times > 1 => format!(" x{times}"),
                        _ => String::new(),
                    };
                    sites.push(format!("{}[{dim}]{times}", spec.name));
                }
            }
        }
        sites
    }

    fn describe(
        &self,
        layout: &Layout,
        family: usize,
        number: &str,
        depth: usize,
        text: &mut String,
    ) {
        let sites = self.sites(layout, family);
        let share = self.share(family);
        let each = if depth > 0 { "each " } else { "" };
        let indent = "  ".repeat(depth);
        let place = match sites.is_empty() {
            true => "owners of what follows".to_owned(),
            false => shortened(&sites),
        };
        let moves = if share == 1 && depth > 0 {
            "1 that stays with its owner".into()
        } else {
            format!("{share}")
        };
        writeln!(text, "{indent}{number:<6} {each}{moves:<6} {place}").expect("strings grow");
        for (i, inner) in self
            .inside(family)
            .collect::<Vec<_>>()
            .into_iter()
            .enumerate()
        {
            let number = format!("{number}.{}", i + 1);
            self.describe(layout, inner, &number, depth + 1, text);
        }
    }
}

/// The names, and how many more.
fn shortened<S: Borrow<str>>(names: &[S]) -> String {
    const SHOWN: usize = 6;
    let shown = names[..names.len().min(SHOWN)].join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn tensor_units(axes: &Axes, number: &[u32]) -> TensorUnits {
    let mut dims = vec![None; axes.rank()];
    let mut groups = 1;
    for joint in &axes.joints {
        let units: Vec<u32> = joint.nodes.iter().map(|n| number[*n as usize]).collect();
        let dim = joint.dims[joint.dims.len() - 1];
        if joint.dims.len() > 1 {
            groups = units.len() / axes.shape[dim];
        }
        dims[dim] = Some(units);
    }
    TensorUnits { dims, groups }
}

/// The place from which each place of an axis takes: a unit's places correspond in their order.
pub fn sources(units: &[u32], permutation: &Permutation) -> Vec<u32> {
    let mut places: HashMap<u32, Vec<u32>> = HashMap::new();
    for (place, unit) in units.iter().enumerate() {
        places.entry(*unit).or_default().push(place as u32);
    }
    let mut used: HashMap<u32, usize> = HashMap::new();
    units
        .iter()
        .map(|unit| {
            let nth = used.entry(*unit).or_default();
            *nth += 1;
            places[&permutation.0[*unit as usize]][*nth - 1]
        })
        .collect()
}

fn permute_tensor(
    spec: &TensorSpec,
    units: &TensorUnits,
    permutation: &Permutation,
    from: &[f32],
    to: &mut [f32],
) {
    let moved = |units: &Vec<u32>| units.iter().any(|u| permutation.0[*u as usize] != *u);
    let mut current: Option<Vec<f32>> = None;
    for (dim, along) in units.dims.iter().enumerate() {
        let Some(along) = along.as_ref().filter(|along| moved(along)) else {
            continue;
        };
        let sources = sources(along, permutation);
        let values = current.as_deref().unwrap_or(from);
        let mut result = vec![0.0; values.len()];
        if dim == 1 && units.groups > 1 {
            take_within_groups(&spec.shape, units.groups, &sources, values, &mut result);
        } else {
            take(&spec.shape, dim, &sources, values, &mut result);
        }
        current = Some(result);
    }
    to.copy_from_slice(current.as_deref().unwrap_or(from));
}

/// Gathers along a dimension.
pub(crate) fn take(shape: &[usize], dim: usize, sources: &[u32], from: &[f32], to: &mut [f32]) {
    let inner: usize = shape[dim + 1..].iter().product();
    let block = shape[dim] * inner;
    for (to, from) in to.chunks_exact_mut(block).zip(from.chunks_exact(block)) {
        for (to, source) in to.chunks_exact_mut(inner).zip(sources) {
            to.copy_from_slice(&from[*source as usize * inner..][..inner]);
        }
    }
}

/// Gathers along dimension 1 of a grouped kernel whose rows are already in their new groups.
pub(crate) fn take_within_groups(
    shape: &[usize],
    groups: usize,
    sources: &[u32],
    from: &[f32],
    to: &mut [f32],
) {
    let (per_group, within) = (shape[0] / groups, shape[1]);
    let inner: usize = shape[2..].iter().product();
    for (row, to) in to.chunks_exact_mut(within * inner).enumerate() {
        let from = &from[row * within * inner..][..within * inner];
        let group = row / per_group;
        for (to, source) in to.chunks_exact_mut(inner).zip(&sources[group * within..]) {
            // Rows have moved with their group, so that the source is at its place in it.
            let place = *source as usize % within;
            to.copy_from_slice(&from[place * inner..][..inner]);
        }
    }
}
