//! Units: what a permutation moves as one, found by union of the elements that must move together.
//!
//! Every element of every axis of every tensor is a node. Nodes that meet, as a hidden unit's row
//! in one matrix and its column in the next do, are united; a union is a unit. A unit may own
//! others, as an attention head owns the neurons inside it: where it goes, they go, and they can
//! change places only with others of the same owner. Marks tell apart what must not be exchanged.

use std::collections::{BTreeMap, HashMap};

/// A node's number.
pub type Node = u32;

/// The unions.
#[derive(Default)]
pub struct Units {
    parent: Vec<Node>,
    /// The owner of a root, as any of its nodes.
    owner: Vec<Option<Node>>,
    marks: Vec<(Node, u64)>,
    ownerships: Vec<Ownership>,
}

/// Owners of one tensor's axis, each with the units inside it, which correspond by their places.
struct Ownership {
    owners: Vec<Node>,
    owned: Vec<Vec<Node>>,
}

/// A unit after everything has been united.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Equal for units that can take each other's place, wherever they are: all that is said of
    /// them is the same.
    pub colour: u64,
    /// The unit that owns it.
    pub owner: Option<u32>,
}

impl Units {
    /// New nodes, each a unit of its own.
    pub fn add(&mut self, count: usize) -> Vec<Node> {
        let start = self.parent.len() as Node;
        let nodes: Vec<Node> = (start..start + count as Node).collect();
        self.parent.extend(&nodes);
        self.owner.resize(self.parent.len(), None);
        nodes
    }

    /// The root of a node's union.
    pub fn find(&self, node: Node) -> Node {
        let mut root = node;
        while self.parent[root as usize] != root {
            root = self.parent[root as usize];
        }
        root
    }

    fn find_compressing(&mut self, node: Node) -> Node {
        let root = self.find(node);
        let mut node = node;
        while node != root {
            node = std::mem::replace(&mut self.parent[node as usize], root);
        }
        root
    }

    /// Makes two nodes one unit; then their owners are one, too.
    pub fn unite(&mut self, a: Node, b: Node) {
        let mut pending = vec![(a, b)];
        while let Some((a, b)) = pending.pop() {
            let (a, b) = (self.find_compressing(a), self.find_compressing(b));
            if a == b {
                continue;
            }
            // The older root stays, so that numbers grow along the computation.
            let (root, other) = (a.min(b), a.max(b));
            self.parent[other as usize] = root;
            match (self.owner[root as usize], self.owner[other as usize]) {
                (Some(a), Some(b)) => pending.push((a, b)),
                (None, owner) => self.owner[root as usize] = owner,
                (Some(_), None) => (),
            }
        }
    }

    /// Says that units are owned: `owned[i]` by `owners[i]`, corresponding by their places.
    pub fn own(&mut self, owners: &[Node], owned: Vec<Vec<Node>>) {
        for (owner, units) in owners.iter().zip(&owned) {
            for unit in units {
                let unit = self.find_compressing(*unit);
                match self.owner[unit as usize] {
                    Some(other) => self.unite(other, *owner),
                    None => self.owner[unit as usize] = Some(*owner),
                }
            }
        }
        let owners = owners.to_vec();
        self.ownerships.push(Ownership { owners, owned });
    }

    /// Owners of these groups of units: theirs if they have some, else new ones.
    pub fn owners(&mut self, owned: Vec<Vec<Node>>) -> Vec<Node> {
        let mut owners = Vec::with_capacity(owned.len());
        for units in &owned {
            let known = units
                .iter()
                .find_map(|u| self.owner[self.find(*u) as usize]);
            owners.push(known.unwrap_or_else(|| self.add(1)[0]));
        }
        self.own(&owners, owned);
        owners
    }

    /// Marks a node's unit: units can take each other's place only if their marks are the same,
    /// as often as they were given.
    pub fn mark(&mut self, node: Node, mark: u64) {
        self.marks.push((node, mark));
    }

    /// The units, and every node's number among them.
    pub fn finish(mut self) -> (Vec<Unit>, Vec<u32>) {
        self.make_owners_agree();
        let roots: Vec<Node> = (0..self.parent.len() as Node)
            .map(|n| self.find(n))
            .collect();
        let mut number = HashMap::new();
        for root in &roots {
            let next = number.len() as u32;
            number.entry(*root).or_insert(next);
        }
        let mut owners = vec![None; number.len()];
        for (root, unit) in &number {
            owners[*unit as usize] = self.owner[*root as usize].map(|o| number[&roots[o as usize]]);
        }
        let mut marks: Vec<Vec<u64>> = vec![Vec::new(); number.len()];
        for (node, mark) in &self.marks {
            marks[number[&roots[*node as usize]] as usize].push(*mark);
        }
        cut_circles(&mut owners, &mut marks);
        let colours = colours(&owners, marks);
        let units = owners.into_iter().zip(colours);
        let units = units.map(|(owner, colour)| Unit { colour, owner });
        (units.collect(), roots.iter().map(|r| number[r]).collect())
    }

    /// Where owners have become one, the units that correspond inside them become one as well:
    /// else they could be exchanged with each other, which the separate owners forbade.
    fn make_owners_agree(&mut self) {
        let ownerships = std::mem::take(&mut self.ownerships);
        loop {
            let mut changed = false;
            for Ownership { owners, owned } in &ownerships {
                let mut first: HashMap<Node, &Vec<Node>> = HashMap::new();
                for (owner, units) in owners.iter().zip(owned) {
                    let others = *first.entry(self.find(*owner)).or_insert(units);
                    for (a, b) in units.iter().zip(others) {
                        if self.find(*a) != self.find(*b) {
                            self.unite(*a, *b);
                            changed = true;
                        }
                    }
                }
            }
            if !changed {
                return;
            }
        }
    }
}

/// Units that own themselves, if only through others, can go nowhere: each gets a mark of its own.
fn cut_circles(owners: &mut [Option<u32>], marks: &mut [Vec<u64>]) {
    for unit in 0..owners.len() {
        let (mut at, mut steps) = (owners[unit], 0);
        while let Some(owner) = at
            && owner as usize != unit
            && steps < owners.len()
        {
            at = owners[owner as usize];
            steps += 1;
        }
        if at.is_some() {
            owners[unit] = None;
            marks[unit].push(hash(&[unit as u64, u64::MAX]));
        }
    }
}

/// Colours by the marks of a unit, of the units inside it, and of the units that it is inside.
fn colours(owners: &[Option<u32>], mut marks: Vec<Vec<u64>>) -> Vec<u64> {
    let mut inside: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (unit, owner) in owners.iter().enumerate() {
        if let Some(owner) = owner {
            inside.entry(*owner).or_default().push(unit as u32);
        }
    }
    let depth = |unit: u32| -> usize {
        std::iter::successors(owners[unit as usize], |owner| owners[*owner as usize]).count()
    };
    let mut order: Vec<u32> = (0..owners.len() as u32).collect();
    order.sort_by_key(|unit| depth(*unit));
    let mut own = vec![0; owners.len()];
    for unit in order.iter().rev() {
        let mut parts = std::mem::take(&mut marks[*unit as usize]);
        let owned = inside.get(unit).into_iter().flatten();
        // Told apart from marks, which are arbitrary, by another way of hashing.
        parts.extend(owned.map(|owned| hash(&[own[*owned as usize], 1])));
        parts.sort_unstable();
        own[*unit as usize] = hash(&parts);
    }
    let mut colours = own;
    for unit in order {
        if let Some(owner) = owners[unit as usize] {
            colours[unit as usize] = hash(&[colours[unit as usize], colours[owner as usize], 2]);
        }
    }
    colours
}

/// A mixture of numbers (the finaliser of splitmix64, chained).
pub fn hash(values: &[u64]) -> u64 {
    values.iter().fold(0x9e37_79b9_7f4a_7c15, |state, value| {
        let mut mixed = state.rotate_left(23) ^ value.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn united_nodes_are_one_unit() {
        let mut units = Units::default();
        let (a, b) = (units.add(3), units.add(3));
        for (a, b) in a.iter().zip(&b) {
            units.unite(*a, *b);
        }
        units.mark(b[2], 7);
        let (units, number) = units.finish();
        assert_eq!(units.len(), 3);
        assert_eq!(number, [0, 1, 2, 0, 1, 2]);
        assert_eq!(units[0], units[1]);
        assert_ne!(units[0].colour, units[2].colour);
    }

    #[test]
    fn owners_are_told_apart_by_what_they_own() {
        let mut units = Units::default();
        let nodes = units.add(7);
        let heads = units.owners(vec![
            nodes[..2].into(),
            nodes[2..4].into(),
            nodes[4..].into(),
        ]);
        let (units, number) = units.finish();
        let unit = |node: Node| &units[number[node as usize] as usize];
        assert_eq!(unit(heads[0]).colour, unit(heads[1]).colour);
        assert_ne!(unit(heads[0]).colour, unit(heads[2]).colour);
        assert_eq!(unit(nodes[0]).colour, unit(nodes[3]).colour);
        assert_eq!(unit(nodes[3]).owner, Some(number[heads[1] as usize]));
    }

    #[test]
    fn owners_that_become_one_keep_what_is_inside_apart() {
        let mut units = Units::default();
        let nodes = units.add(4);
        let heads = units.owners(vec![nodes[..2].into(), nodes[2..].into()]);
        units.unite(heads[0], heads[1]);
        let (_, number) = units.finish();
        assert_eq!((number[0], number[1]), (number[2], number[3]));
        assert_ne!(number[0], number[1]);
    }

    #[test]
    fn who_owns_itself_stays() {
        let mut units = Units::default();
        let nodes = units.add(3);
        units.own(&nodes[..1], vec![nodes[1..].into()]);
        units.unite(nodes[0], nodes[1]);
        let (units, number) = units.finish();
        assert_eq!(units[number[0] as usize].owner, None);
    }
}
