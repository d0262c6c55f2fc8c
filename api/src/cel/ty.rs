//! Types of expressions.

use std::fmt;
use std::sync::Arc;

/// The type of an expression.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// Known only when evaluated.
    Dyn,
    /// Known only when evaluated; a message of any type.
    Any,
    /// Follows from an error already reported.
    Error,
    /// `null`.
    Null,
    /// A truth value.
    Bool,
    /// A signed 64-bit integer.
    Int,
    /// An unsigned 64-bit integer.
    Uint,
    /// A 64-bit floating-point number.
    Double,
    /// Text.
    String,
    /// Bytes.
    Bytes,
    /// A span of time.
    Duration,
    /// A point in time.
    Timestamp,
    /// A list of elements of one type.
    List(Arc<Type>),
    /// A map from keys of one type to values of another.
    Map(Arc<(Type, Type)>),
    /// An object of a declared type.
    Struct(Arc<str>),
    /// A value of a library's own type.
    Opaque(Arc<str>, Arc<[Type]>),
    /// A type as a value; of which type, if known.
    Type(Option<Arc<Type>>),
    /// Stands for any one type.
    Param(Arc<str>),
}

/// Name of the type of optional values.
pub const OPTIONAL: &str = "optional_type";

impl Type {
    /// A list of `item`.
    #[must_use]
    pub fn list(item: Type) -> Self {
        Self::List(Arc::new(item))
    }

    /// A map from `key` to `value`.
    #[must_use]
    pub fn map(key: Type, value: Type) -> Self {
        Self::Map(Arc::new((key, value)))
    }

    /// An optional `value`.
    #[must_use]
    pub fn optional(value: Type) -> Self {
        Self::Opaque(OPTIONAL.into(), [value].into())
    }

    /// The object type called `name`.
    #[must_use]
    pub fn object(name: &str) -> Self {
        Self::Struct(name.into())
    }

    /// The library type called `name`.
    #[must_use]
    pub fn opaque(name: &str) -> Self {
        Self::Opaque(name.into(), [].into())
    }

    /// A type as a value.
    #[must_use]
    pub fn type_of(of: Type) -> Self {
        Self::Type(Some(Arc::new(of)))
    }

    /// Its name as values at run time have it, without parameters.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Dyn => "dyn",
            Self::Any => "google.protobuf.Any",
            Self::Error => "error",
            Self::Null => "null_type",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Double => "double",
            Self::String => "string",
            Self::Bytes => "bytes",
            Self::Duration => "google.protobuf.Duration",
            Self::Timestamp => "google.protobuf.Timestamp",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Type(_) => "type",
            Self::Struct(name) | Self::Opaque(name, _) | Self::Param(name) => name,
        }
    }

    /// Whether nothing is known of it before evaluation.
    #[must_use]
    pub fn is_dyn(&self) -> bool {
        matches!(self, Self::Dyn | Self::Any)
    }

    pub(crate) fn is_dyn_or_error(&self) -> bool {
        matches!(self, Self::Dyn | Self::Any | Self::Error)
    }

    /// The type within an optional.
    #[must_use]
    pub fn unwrap_optional(&self) -> Option<&Type> {
        match self {
            Self::Opaque(name, params) if &**name == OPTIONAL => params.first(),
            _ => None,
        }
    }

    pub(crate) fn params(&self) -> Vec<&Type> {
        match self {
            Self::List(item) => vec![item],
            Self::Map(entry) => vec![&entry.0, &entry.1],
            Self::Opaque(_, params) => params.iter().collect(),
            Self::Type(Some(of)) => vec![of],
            _ => Vec::new(),
        }
    }
}

/// As messages about types name them.
impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Any => "any",
            Self::Error => "!error!",
            Self::Null => "null",
            Self::Duration => "duration",
            Self::Timestamp => "timestamp",
            other => other.name(),
        };
        f.write_str(name)?;
        let params = self.params();
        for (at, param) in params.iter().enumerate() {
            write!(f, "{}{param}", if at == 0 { "(" } else { ", " })?;
        }
        if params.is_empty() { Ok(()) } else { f.write_str(")") }
    }
}
