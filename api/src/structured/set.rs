//! Sets of field paths, their algebra, and their wire form `fieldsV1` (upstream `fieldpath/set.go`, `serialize.go`).

use serde_json::{Map, Value};

use super::element::{Element, Malformed, Path};
use super::shape::Shape;

/// A set of paths, as a tree. The empty path is never in it: nobody owns a whole object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// Sorted by element. Every node is a member or has members below.
    nodes: Vec<Node>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    element: Element,
    member: bool,
    below: Set,
}

impl Node {
    fn new(element: Element) -> Self {
        Self { element, member: false, below: Set::default() }
    }

    fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }
}

impl Set {
    /// Whether there is no path in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The number of paths.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.iter().map(|node| usize::from(node.member) + node.below.len()).sum()
    }

    fn find(&self, element: &Element) -> Result<usize, usize> {
        // Paths mostly come in order.
        match self.nodes.last() {
            Some(last) if last.element < *element => Err(self.nodes.len()),
            _ => self.nodes.binary_search_by(|node| node.element.cmp(element)),
        }
    }

    fn node(&self, element: &Element) -> Option<&Node> {
        self.find(element).ok().map(|at| &self.nodes[at])
    }

    fn entry(&mut self, element: Element) -> &mut Node {
        let at = match self.find(&element) {
            Ok(at) => at,
            Err(at) => {
                self.nodes.insert(at, Node::new(element));
                at
            }
        };
        &mut self.nodes[at]
    }

    /// Adds a path.
    pub fn insert(&mut self, path: &[Element]) {
        match path {
            [] => {}
            [last] => self.entry(last.clone()).member = true,
            [first, rest @ ..] => self.entry(first.clone()).below.insert(rest),
        }
    }

    /// Adds what stands below one step, and the step itself if `member`.
    pub(super) fn graft(&mut self, element: Element, member: bool, below: Self) {
        if !member && below.is_empty() {
            return;
        }
        let node = self.entry(element);
        node.member |= member;
        node.below = std::mem::take(&mut node.below).union(below);
    }

    /// Whether a path is in it.
    #[must_use]
    pub fn contains(&self, path: &[Element]) -> bool {
        match path {
            [] => false,
            [last] => self.has(last),
            [first, rest @ ..] => self.node(first).is_some_and(|node| node.below.contains(rest)),
        }
    }

    /// Whether the path of this one step is in it.
    #[must_use]
    pub fn has(&self, element: &Element) -> bool {
        self.node(element).is_some_and(|node| node.member)
    }

    /// What stands below one step; `None` if there is nothing.
    #[must_use]
    pub fn below(&self, element: &Element) -> Option<&Self> {
        self.node(element).map(|node| &node.below).filter(|below| !below.is_empty())
    }

    /// The first steps of all paths, whether each is a path of its own, and what stands below.
    pub(super) fn steps(&self) -> impl Iterator<Item = (&Element, bool, &Self)> {
        self.nodes.iter().map(|node| (&node.element, node.member, &node.below))
    }

    /// A set of these paths of plain fields.
    #[must_use]
    pub fn of_fields(paths: &[&[&str]]) -> Self {
        let mut set = Self::default();
        paths.iter().for_each(|path| set.insert(&Path::of_fields(path).0));
        set
    }

    /// All paths: at every level first those that end there.
    #[must_use]
    pub fn paths(&self) -> Vec<Path> {
        let mut out = Vec::with_capacity(self.len());
        self.collect(&mut Vec::new(), &mut out);
        out
    }

    fn collect(&self, prefix: &mut Vec<Element>, out: &mut Vec<Path>) {
        for node in self.nodes.iter().filter(|node| node.member) {
            prefix.push(node.element.clone());
            out.push(Path(prefix.clone()));
            prefix.pop();
        }
        for node in &self.nodes {
            prefix.push(node.element.clone());
            node.below.collect(prefix, out);
            prefix.pop();
        }
    }

    /// Paths of both.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        if self.is_empty() || other.is_empty() {
            return if self.is_empty() { other } else { self };
        }
        let mut nodes = Vec::with_capacity(self.nodes.len().max(other.nodes.len()));
        let mut right = other.nodes.into_iter().peekable();
        for mut node in self.nodes {
            while let Some(before) = right.next_if(|other| other.element < node.element) {
                nodes.push(before);
            }
            if let Some(same) = right.next_if(|other| other.element == node.element) {
                node.member |= same.member;
                node.below = node.below.union(same.below);
            }
            nodes.push(node);
        }
        nodes.extend(right);
        Self { nodes }
    }

    /// Takes from every node what `less` says of it and of the same one in `other`.
    fn lessened(self, other: &Self, less: impl Fn(&mut Node, &Node)) -> Self {
        if other.is_empty() {
            return self;
        }
        let mut right = other.nodes.iter().peekable();
        let nodes = self.nodes.into_iter().filter_map(|mut node| {
            while right.next_if(|other| other.element < node.element).is_some() {}
            if let Some(same) = right.next_if(|other| other.element == node.element) {
                less(&mut node, same);
            }
            (!node.is_empty()).then_some(node)
        });
        Self { nodes: nodes.collect() }
    }

    /// Paths that are not in `other`.
    #[must_use]
    pub fn difference(self, other: &Self) -> Self {
        self.lessened(other, |node, same| {
            node.member &= !same.member;
            node.below = std::mem::take(&mut node.below).difference(&same.below);
        })
    }

    /// Paths that are neither in `other` nor below one of its paths.
    #[must_use]
    pub fn recursive_difference(self, other: &Self) -> Self {
        self.lessened(other, |node, same| {
            let below = std::mem::take(&mut node.below);
            if same.member {
                node.member = false;
            } else {
                node.below = below.recursive_difference(&same.below);
            }
        })
    }

    /// Paths in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut right = other.nodes.iter().peekable();
        let nodes = self.nodes.iter().filter_map(|node| {
            while right.next_if(|other| other.element < node.element).is_some() {}
            let same = right.next_if(|other| other.element == node.element)?;
            let both = Node {
                element: node.element.clone(),
                member: node.member && same.member,
                below: node.below.intersection(&same.below),
            };
            (!both.is_empty()).then_some(both)
        });
        Self { nodes: nodes.collect() }
    }

    /// The same, and every field that `shape` knows by name on the way to a path.
    #[must_use]
    pub fn with_named_fields(&self, shape: Option<Shape<'_>>) -> Self {
        let nodes = self.nodes.iter().map(|node| {
            let child = shape.and_then(|shape| shape.step(&node.element));
            let named =
                matches!((&node.element, shape), (Element::Field(name), Some(shape)) if shape.names(name));
            Node {
                element: node.element.clone(),
                member: node.member || (named && !node.below.is_empty()),
                below: node.below.with_named_fields(child),
            }
        });
        Self { nodes: nodes.collect() }
    }

    /// As `fieldsV1`.
    #[must_use]
    pub fn encode(&self) -> Value {
        let mut map = Map::new();
        for node in &self.nodes {
            let Value::Object(mut inner) = node.below.encode() else { continue };
            if node.member && !inner.is_empty() {
                inner.insert(".".to_owned(), Value::Object(Map::new()));
            }
            map.insert(node.element.encode(), Value::Object(inner));
        }
        Value::Object(map)
    }

    /// From `fieldsV1`.
    ///
    /// # Errors
    /// When it is no object of objects all the way down, or a key is malformed. Keys of unknown kinds are left out.
    pub fn decode(value: &Value) -> Result<Self, Malformed> {
        Self::read(value).map(|(set, _)| set)
    }

    /// The set below a step, and whether the step itself is a path.
    fn read(value: &Value) -> Result<(Self, bool), Malformed> {
        let mut set = Self::default();
        let mut member = false;
        let entries = match value {
            Value::Null => return Ok((set, true)),
            Value::Object(map) => map,
            _ => return Err(Malformed),
        };
        for (text, inner) in entries {
            if text == "." {
                member = true;
            } else if let Some(element) = Element::decode(text)? {
                let (below, is_member) = Self::read(inner)?;
                set.graft(element, is_member, below);
            }
        }
        let member = member || set.is_empty();
        Ok((set, member))
    }
}

/// What part of a set counts (upstream `fieldpath.Filter`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// All but these paths and what stands below them.
    Exclude(Set),
    /// Only what one of these patterns is the beginning of.
    Include(Vec<Pattern>),
}

/// The beginning of paths; `None` is any step.
pub type Pattern = Vec<Option<Element>>;

impl Filter {
    /// The part of `set` that counts.
    #[must_use]
    pub fn apply(&self, set: Set) -> Set {
        match self {
            Self::Exclude(excluded) => set.recursive_difference(excluded),
            Self::Include(patterns) => {
                let patterns: Vec<&[Option<Element>]> = patterns.iter().map(Vec::as_slice).collect();
                set.matching(&patterns)
            }
        }
    }
}

impl Set {
    /// The part of a set at which one of the patterns points; steps on the way count as well.
    fn matching(&self, patterns: &[&[Option<Element>]]) -> Self {
        if patterns.iter().any(|pattern| pattern.is_empty()) {
            return self.clone();
        }
        let nodes = self.nodes.iter().filter_map(|node| {
            let rests: Vec<&[Option<Element>]> = patterns
                .iter()
                .filter_map(|pattern| pattern.split_first())
                .filter(|(first, _)| first.as_ref().is_none_or(|first| *first == node.element))
                .map(|(_, rest)| rest)
                .collect();
            let node = Node {
                element: node.element.clone(),
                member: node.member && !rests.is_empty(),
                below: if rests.is_empty() { Self::default() } else { node.below.matching(&rests) },
            };
            (!node.is_empty()).then_some(node)
        });
        Self { nodes: nodes.collect() }
    }
}
