//! The Go types that a pod template is made of, as far as a dump shows them.
//!
//! The facts are tables beside this file, read at first use. A line at the margin opens a type by the name that Go's
//! reflection gives it; the indented ones are its fields as Go declares them: name, name in JSON (`-` for a struct that
//! is embedded, whose fields stand in the outer JSON object), type. `name = type` is a name for a plain type.

use std::collections::HashMap;
use std::sync::LazyLock;

const TABLES: [&str; 3] = [include_str!("meta.txt"), include_str!("volumes.txt"), include_str!("pod.txt")];

/// All types. A pod template is the one at `root`.
pub struct Table {
    types: Vec<Type>,
    /// The type of pod templates.
    pub root: TypeId,
}

/// A struct, by its place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeId(usize);

/// The fields of a struct, in Go's order.
type Type = Vec<Field>;

/// A field of a struct.
#[derive(Debug)]
pub struct Field {
    /// What a dump writes before the value: `Name:(type)`.
    pub lead: String,
    /// Its name in JSON; `None` if the struct is embedded.
    pub json: Option<&'static str>,
    /// How its value is written.
    pub shape: Shape,
}

/// How a value is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A text.
    Text,
    /// A whole number.
    Number,
    /// True or false.
    Flag,
    /// A value that may be missing.
    Pointer(Box<Shape>),
    /// A list.
    Slice(Box<Shape>),
    /// A map from texts.
    Map(Box<Shape>),
    /// The fields of a struct.
    Struct(TypeId),
    /// An amount with its unit.
    Quantity,
    /// A moment.
    Time,
    /// A number or a text.
    IntOrString,
    /// JSON that says who owns what.
    Fields,
}

impl Table {
    /// The table, read once.
    pub fn of_pod_templates() -> &'static Self {
        static TABLE: LazyLock<Table> = LazyLock::new(|| Table::read(&TABLES));
        &TABLE
    }

    /// The fields of a struct.
    pub fn fields(&self, id: TypeId) -> &[Field] {
        &self.types[id.0]
    }

    fn read(texts: &[&'static str]) -> Self {
        let lines = || texts.iter().flat_map(|text| text.lines()).filter(|line| !line.starts_with('#'));
        let mut names = Names::default();
        for line in lines().filter(|line| !line.starts_with(' ')) {
            match line.split_once(" = ") {
                Some((name, plain)) => drop(names.plain.insert(name, plain)),
                None => drop(names.structs.insert(line, TypeId(names.structs.len()))),
            }
        }
        let mut types: Vec<Type> = Vec::new();
        for line in lines().filter(|line| !line.contains(" = ")) {
            match (line.strip_prefix("  "), types.last_mut()) {
                (Some(field), Some(fields)) => fields.push(names.field(field)),
                _ => types.push(Vec::new()),
            }
        }
        Self { root: names.structs["v1.PodTemplateSpec"], types }
    }
}

/// What the names in the tables stand for.
#[derive(Default)]
struct Names {
    plain: HashMap<&'static str, &'static str>,
    structs: HashMap<&'static str, TypeId>,
}

impl Names {
    fn field(&self, line: &'static str) -> Field {
        let mut words = line.split(' ');
        let mut word = || words.next().expect("a field has a name, a name in JSON and a type");
        let (name, json, kind) = (word(), word(), word());
        let json = (json != "-").then_some(json);
        Field { lead: format!("{name}:({kind})"), json, shape: self.shape(kind) }
    }

    fn shape(&self, kind: &str) -> Shape {
        let boxed = |kind| Box::new(self.shape(kind));
        if let Some(to) = kind.strip_prefix('*') {
            return Shape::Pointer(boxed(to));
        }
        if let Some(item) = kind.strip_prefix("[]") {
            return Shape::Slice(boxed(item));
        }
        if let Some((_, value)) = kind.strip_prefix("map[").and_then(|rest| rest.split_once(']')) {
            return Shape::Map(boxed(value));
        }
        match kind {
            "string" => Shape::Text,
            "bool" => Shape::Flag,
            "int32" | "int64" => Shape::Number,
            "resource.Quantity" => Shape::Quantity,
            "v1.Time" => Shape::Time,
            "intstr.IntOrString" => Shape::IntOrString,
            "v1.FieldsV1" => Shape::Fields,
            _ => match (self.plain.get(kind), self.structs.get(kind)) {
                (Some(plain), _) => self.shape(plain),
                (None, Some(id)) => Shape::Struct(*id),
                (None, None) => panic!("the tables do not say what {kind} is"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::schema::{GoKind, Node, NodeRef, TypeRef};
    use std::collections::BTreeSet;

    /// What the schema of the API says of a field.
    fn expected(node: NodeRef<'_>, go: GoKind) -> &'static str {
        match (node.node(), go) {
            (_, GoKind::Pointer) => "pointer",
            (Node::List { .. }, _) => "slice",
            (Node::Map { .. }, _) => "map",
            _ => "value",
        }
    }

    fn found(shape: &Shape) -> &'static str {
        match shape {
            Shape::Pointer(_) => "pointer",
            Shape::Slice(_) => "slice",
            Shape::Map(_) => "map",
            _ => "value",
        }
    }

    /// The struct that a value is or has.
    fn inner(shape: &Shape) -> Option<TypeId> {
        match shape {
            Shape::Struct(id) => Some(*id),
            Shape::Pointer(inner) | Shape::Slice(inner) | Shape::Map(inner) => self::inner(inner),
            _ => None,
        }
    }

    /// The fields that stand in one JSON object, those of embedded structs among them.
    fn flat(table: &'static Table, id: TypeId) -> Vec<(&'static str, &'static Shape)> {
        let own = |field: &'static Field| match (field.json, &field.shape) {
            (Some(json), shape) => vec![(json, shape)],
            (None, Shape::Struct(id)) => flat(table, *id),
            (None, _) => panic!("only structs are embedded: {}", field.lead),
        };
        table.fields(id).iter().flat_map(own).collect()
    }

    /// Compares a struct and all it has with the schema, and counts what it has seen.
    fn compare(table: &'static Table, id: TypeId, ty: TypeRef<'static>, seen: &mut BTreeSet<&'static str>) {
        if !seen.insert(ty.name()) {
            return;
        }
        let mut fields = flat(table, id);
        fields.sort_unstable_by_key(|(name, _)| *name);
        let wanted: Vec<_> = ty
            .fields()
            .iter()
            .map(|field| (field.name.as_ref(), expected(ty.node(field), field.go)))
            .collect();
        let have: Vec<_> = fields.iter().map(|(name, shape)| (*name, found(shape))).collect();
        assert_eq!(have, wanted, "{}", ty.name());
        for (name, shape) in fields {
            if let Some(id) = inner(shape) {
                let node = ty.child(name).expect("the names are the same");
                let element = node.item().or_else(|| node.value()).unwrap_or(node);
                compare(table, id, element.object().expect("a struct is an object"), seen);
            }
        }
    }

    #[test]
    fn tables_have_the_fields_of_the_api() {
        let table = Table::of_pod_templates();
        let root = api::schema::type_named("io.k8s.api.core.v1.PodTemplateSpec").expect("it is built in");
        let mut seen = BTreeSet::new();
        compare(table, table.root, root, &mut seen);
        assert!(seen.len() > 100, "{seen:?}");
    }
}
