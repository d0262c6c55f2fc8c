//! Values of types that libraries add.

use std::fmt;
use std::net::IpAddr;

use crate::cel::eval::Fault;
use crate::cel::ty::Type;
use crate::quantity::Quantity;

use super::authorizer::{Authorized, Check};
use super::format::Format;
use super::net::Network;
use super::semver::Version;
use super::url::Url;

/// A value of a library's own type.
pub enum Extension {
    /// An amount.
    Quantity(Quantity),
    /// An IP address.
    Ip(IpAddr),
    /// A range of IP addresses.
    Cidr(Network),
    /// A URL.
    Url(Url),
    /// A version.
    Semver(Version),
    /// A named format of text.
    Format(&'static Format),
    /// A question about authorization, as far as it has been asked.
    Check(Check),
    /// The answer to one.
    Decision(Authorized),
}

impl Extension {
    /// Its type.
    #[must_use]
    pub fn ty(&self) -> Type {
        match self {
            Self::Quantity(_) => Type::object("kubernetes.Quantity"),
            Self::Ip(_) => Type::opaque("net.IP"),
            Self::Cidr(_) => Type::opaque("net.CIDR"),
            Self::Url(_) => Type::object("kubernetes.URL"),
            Self::Semver(_) => Type::object("kubernetes.Semver"),
            Self::Format(_) => Type::object("kubernetes.NamedFormat"),
            Self::Check(check) => Type::object(check.type_name()),
            Self::Decision(_) => Type::object("kubernetes.authorization.Decision"),
        }
    }

    /// Its size, for those that cost by size.
    pub(crate) fn size(&self) -> Option<i64> {
        match self {
            Self::Ip(IpAddr::V4(_)) => Some(4),
            Self::Ip(IpAddr::V6(_)) => Some(16),
            Self::Cidr(network) => Some(i64::from(network.length.div_ceil(8))),
            _ => None,
        }
    }

    pub(crate) fn equals(&self, other: &Self) -> Result<bool, Fault> {
        Ok(match (self, other) {
            (Self::Quantity(a), Self::Quantity(b)) => a == b,
            (Self::Ip(a), Self::Ip(b)) => a == b,
            (Self::Cidr(a), Self::Cidr(b)) => a == b,
            (Self::Url(a), Self::Url(b)) => a.to_string() == b.to_string(),
            (Self::Semver(a), Self::Semver(b)) => a.cmp(b).is_eq(),
            (Self::Format(a), Self::Format(b)) => a.name == b.name,
            _ => return Err(Fault::no_such_overload()),
        })
    }
}

impl fmt::Display for Extension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quantity(quantity) => write!(f, "{quantity}"),
            Self::Ip(ip) => write!(f, "{ip}"),
            Self::Cidr(network) => write!(f, "{network}"),
            Self::Url(url) => write!(f, "{url}"),
            Self::Semver(version) => write!(f, "{version}"),
            Self::Format(format) => f.write_str(format.name),
            other => f.write_str(other.ty().name()),
        }
    }
}

impl From<Quantity> for Extension {
    fn from(quantity: Quantity) -> Self {
        Self::Quantity(quantity)
    }
}

impl From<Version> for Extension {
    fn from(version: Version) -> Self {
        Self::Semver(version)
    }
}

impl From<Check> for Extension {
    fn from(check: Check) -> Self {
        Self::Check(check)
    }
}
