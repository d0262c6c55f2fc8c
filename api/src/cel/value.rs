//! Values of expressions.
//!
//! Data given to an expression stays where it is: values borrow JSON for as long as `'a`, and lists and maps wrap
//! their elements only when asked for them. Typed JSON carries its [`Shape`], which decides how text is read (times,
//! bytes) and how lists with keys compare and add up.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde_json::Value as Json;

use super::eval::{Evaluated, Fault};
use super::library::extension::Extension;
use super::shape::{ListShape, Shape};
use super::ty::{OPTIONAL, Type};

pub(crate) mod json;
mod number;
pub(crate) mod ops;
mod show;
mod time;

pub(crate) use number::{double_to_int, double_to_uint, format_double};
pub use time::Timestamp;

/// A value.
#[derive(Clone)]
pub enum Value<'a> {
    /// `null`.
    Null,
    /// A truth value.
    Bool(bool),
    /// A signed integer.
    Int(i64),
    /// An unsigned integer.
    Uint(u64),
    /// A floating-point number.
    Double(f64),
    /// Text.
    String(Text<'a>),
    /// Bytes.
    Bytes(Arc<[u8]>),
    /// A span of time, in nanoseconds.
    Duration(i64),
    /// A point in time.
    Timestamp(Timestamp),
    /// A list.
    List(List<'a>),
    /// A map, or an object read from JSON.
    Map(Map<'a>),
    /// A type.
    Type(Arc<Type>),
    /// A value that may be missing.
    Optional(Option<Arc<Value<'a>>>),
    /// An object constructed by the expression.
    Object(Arc<Object<'a>>),
    /// A value of a library's own type.
    Extension(Arc<Extension>),
    /// An object of the type with this name, whose fields are found out when asked for ([`Activation::field`]), such
    /// as the variables of a policy.
    ///
    /// [`Activation::field`]: super::eval::Activation::field
    Fields(&'a str),
    /// JSON of which nothing is known, kept by `x-kubernetes-preserve-unknown-fields`.
    Preserved(&'a Json),
}

/// Text, borrowed or shared.
#[derive(Clone)]
pub enum Text<'a> {
    /// Borrowed from the data.
    Borrowed(&'a str),
    /// Made during evaluation, or part of the expression.
    Shared(Arc<str>),
}

impl std::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Shared(text) => text,
        }
    }
}

/// A list.
#[derive(Clone)]
pub enum List<'a> {
    /// From the data.
    Json(&'a [Json], Option<&'a ListShape>),
    /// Made during evaluation; a sum of lists with keys keeps their shape.
    Values(Arc<Vec<Value<'a>>>, Option<&'a ListShape>),
    /// One behind the other, not copied.
    Joined(Arc<(List<'a>, List<'a>)>, usize),
}

/// A map.
#[derive(Clone)]
pub enum Map<'a> {
    /// From the data.
    Json(&'a serde_json::Map<String, Json>, Option<&'a Shape>),
    /// Made during evaluation.
    Values(Arc<Entries<'a>>),
}

/// Entries of a map in the order they were added.
#[derive(Clone, Default)]
pub struct Entries<'a> {
    entries: Vec<(Value<'a>, Value<'a>)>,
    index: HashMap<Key, usize>,
}

/// A key of a map: numbers are one key whatever their type.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    Bool(bool),
    Number(i128),
    /// A number that is not whole, by its bits.
    Double(u64),
    Text(Arc<str>),
}

/// An object constructed by the expression.
pub struct Object<'a> {
    /// Name of its type.
    pub type_name: Arc<str>,
    /// Fields that were set, in the order they were set.
    pub fields: Vec<(String, Value<'a>)>,
}

impl<'a> Value<'a> {
    /// Text that is made anew.
    #[must_use]
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Self::String(Text::Shared(text.into()))
    }

    /// A list of values.
    #[must_use]
    pub fn list(values: Vec<Value<'a>>) -> Self {
        Self::List(List::Values(Arc::new(values), None))
    }

    /// JSON without a schema: numbers are integers if written as such.
    #[must_use]
    pub fn from_json(json: &'a Json) -> Self {
        json::dynamic(json)
    }

    /// JSON of this shape.
    ///
    /// # Errors
    /// When the JSON is not of this shape.
    pub fn from_shaped(json: &'a Json, shape: &'a Shape) -> Evaluated<'a> {
        json::shaped(json, shape)
    }

    /// It as JSON, if JSON can express it.
    ///
    /// # Errors
    /// When JSON cannot.
    pub fn to_json(&self) -> Result<Json, Fault> {
        json::to_json(self)
    }

    /// An optional value that is there.
    #[must_use]
    pub fn some(value: Value<'a>) -> Self {
        Self::Optional(Some(Arc::new(value)))
    }

    pub(crate) fn extension(extension: impl Into<Extension>) -> Self {
        Self::Extension(Arc::new(extension.into()))
    }

    /// Its type; types of elements are not looked at.
    #[must_use]
    pub fn type_of(&self) -> Type {
        match self {
            Self::Null => Type::Null,
            Self::Bool(_) => Type::Bool,
            Self::Int(_) => Type::Int,
            Self::Uint(_) => Type::Uint,
            Self::Double(_) => Type::Double,
            Self::String(_) => Type::String,
            Self::Bytes(_) => Type::Bytes,
            Self::Duration(_) => Type::Duration,
            Self::Timestamp(_) => Type::Timestamp,
            Self::List(_) => Type::list(Type::Dyn),
            Self::Map(_) => Type::map(Type::Dyn, Type::Dyn),
            Self::Type(_) => Type::Type(None),
            Self::Optional(_) => Type::optional(Type::Dyn),
            Self::Object(object) => Type::Struct(object.type_name.clone()),
            Self::Extension(extension) => extension.ty(),
            Self::Fields(type_name) => Type::object(type_name),
            Self::Preserved(_) => Type::object("unknown"),
        }
    }

    /// Whether it can be an argument of type `ty`, types of elements aside.
    pub(crate) fn is_of(&self, ty: &Type) -> bool {
        match (self, ty) {
            (_, Type::Dyn | Type::Any | Type::Param(_) | Type::Error) => true,
            (Self::Null, Type::Null)
            | (Self::Bool(_), Type::Bool)
            | (Self::Int(_), Type::Int)
            | (Self::Uint(_), Type::Uint)
            | (Self::Double(_), Type::Double)
            | (Self::String(_), Type::String)
            | (Self::Bytes(_), Type::Bytes)
            | (Self::Duration(_), Type::Duration)
            | (Self::Timestamp(_), Type::Timestamp)
            | (Self::List(_), Type::List(_))
            | (Self::Map(_), Type::Map(_))
            | (Self::Type(_), Type::Type(_)) => true,
            (Self::Optional(_), Type::Opaque(name, _)) => &**name == OPTIONAL,
            (Self::Extension(extension), Type::Struct(name) | Type::Opaque(name, _)) => {
                extension.ty().name() == &**name
            }
            (Self::Object(object), Type::Struct(name)) => object.type_name == *name,
            _ => false,
        }
    }

    /// Number of characters, bytes, elements or entries.
    pub(crate) fn size(&self) -> Option<i64> {
        Some(match self {
            Self::String(text) => text.chars().count() as i64,
            Self::Bytes(bytes) => bytes.len() as i64,
            Self::List(list) => list.len() as i64,
            Self::Map(map) => map.len() as i64,
            Self::Extension(extension) => return extension.size(),
            _ => return None,
        })
    }

    /// Whether it is what `optional.ofNonZeroValue` takes for nothing.
    pub(crate) fn is_zero(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Bool(value) => !value,
            Self::Int(value) => *value == 0,
            Self::Uint(value) => *value == 0,
            Self::Double(value) => *value == 0.0,
            Self::String(text) => text.is_empty(),
            Self::Bytes(bytes) => bytes.is_empty(),
            Self::Duration(nanos) => *nanos == 0,
            Self::Timestamp(moment) => moment.is_zero(),
            Self::List(List::Values(values, None)) => values.is_empty(),
            Self::List(List::Json(items, None)) => items.is_empty(),
            Self::Map(Map::Values(entries)) => entries.len() == 0,
            Self::Map(Map::Json(map, None)) => map.is_empty(),
            Self::Object(object) => object.fields.is_empty(),
            _ => false,
        }
    }

    /// The text, if that is what it is.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The truth value, if that is what it is.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// It as a key of a map, if it can be one.
    pub(crate) fn key(&self) -> Option<Key> {
        Some(match self {
            Self::Bool(value) => Key::Bool(*value),
            Self::Int(value) => Key::Number(i128::from(*value)),
            Self::Uint(value) => Key::Number(i128::from(*value)),
            Self::Double(value) if value.fract() == 0.0 && value.abs() < 1e19 => Key::Number(*value as i128),
            Self::Double(value) => Key::Double(value.to_bits()),
            Self::String(Text::Shared(text)) => Key::Text(text.clone()),
            Self::String(Text::Borrowed(text)) => Key::Text((*text).into()),
            _ => return None,
        })
    }
}

impl<'a> List<'a> {
    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Json(items, _) => items.len(),
            Self::Values(values, _) => values.len(),
            Self::Joined(_, length) => *length,
        }
    }

    /// Whether there are no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn shape(&self) -> Option<&'a ListShape> {
        match self {
            Self::Json(_, shape) | Self::Values(_, shape) => *shape,
            Self::Joined(..) => None,
        }
    }

    /// The element at `at`, which must be there.
    ///
    /// # Errors
    /// When the element is not of the shape it should be, or not there.
    pub fn get(&self, at: usize) -> Evaluated<'a> {
        match self {
            Self::Json(items, shape) => match (items.get(at), shape) {
                (Some(item), Some(shape)) => json::shaped(item, &shape.item),
                (Some(item), None) => Ok(json::dynamic(item)),
                (None, _) => Err(Fault::new(format!("index out of bounds: {at}"))),
            },
            Self::Values(values, _) => {
                values.get(at).cloned().ok_or_else(|| Fault::new(format!("index out of bounds: {at}")))
            }
            Self::Joined(parts, _) => match at.checked_sub(parts.0.len()) {
                Some(behind) => parts.1.get(behind),
                None => parts.0.get(at),
            },
        }
    }

    /// All elements.
    pub fn iter(&self) -> impl Iterator<Item = Evaluated<'a>> + '_ {
        (0..self.len()).map(|at| self.get(at))
    }
}

impl<'a> Entries<'a> {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Value<'a>> {
        self.index.get(key).map(|at| &self.entries[*at].1)
    }

    /// Sets the value of a key.
    pub(crate) fn set(&mut self, key: Value<'a>, value: Value<'a>) -> Result<(), Fault> {
        let Some(index) = key.key() else {
            return Err(Fault::new(format!("unsupported key type: {}", key.type_of().name())));
        };
        match self.index.get(&index) {
            Some(at) => self.entries[*at].1 = value,
            None => {
                self.index.insert(index, self.entries.len());
                self.entries.push((key, value));
            }
        }
        Ok(())
    }

    /// All entries.
    pub fn iter(&self) -> impl Iterator<Item = &(Value<'a>, Value<'a>)> {
        self.entries.iter()
    }
}

impl<'a> Map<'a> {
    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Json(map, _) => map.len(),
            Self::Values(entries) => entries.len(),
        }
    }

    /// Whether there are no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value at `key`.
    ///
    /// # Errors
    /// When the key cannot be one of this map, or the value is not of the shape it should be.
    pub fn find(&self, key: &Value<'_>) -> Result<Option<Value<'a>>, Fault> {
        match self {
            Self::Json(map, shape) => match (key, shape) {
                (Value::String(key), Some(shape)) => json::find(map, shape, key),
                (Value::String(key), None) => Ok(map.get(&**key).map(json::dynamic)),
                (_, Some(_)) => Err(Fault::no_such_overload()),
                (_, None) => Ok(None),
            },
            Self::Values(entries) => Ok(key.key().and_then(|key| entries.get(&key)).cloned()),
        }
    }

    /// All keys.
    #[must_use]
    pub fn keys(&self) -> Vec<Value<'a>> {
        match self {
            Self::Json(map, None) => map.keys().map(|key| Value::String(Text::Borrowed(key))).collect(),
            Self::Json(map, Some(shape)) => json::keys(map, shape),
            Self::Values(entries) => entries.iter().map(|(key, _)| key.clone()).collect(),
        }
    }
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show::debug(self, f)
    }
}

/// As messages show it.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show::display(self, f)
    }
}
