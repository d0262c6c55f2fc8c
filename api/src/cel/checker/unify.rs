//! Which types go where, and what type variables stand for.

use std::collections::HashMap;
use std::sync::Arc;

use crate::cel::ty::Type;

/// What type variables stand for, with a way back: bindings of an attempt that fails are undone.
#[derive(Default)]
pub(super) struct Mapping {
    bindings: HashMap<Arc<str>, Type>,
    /// What to restore, oldest first.
    undo: Vec<(Arc<str>, Option<Type>)>,
}

impl Mapping {
    pub(super) fn bind(&mut self, name: Arc<str>, ty: Type) {
        let before = self.bindings.insert(name.clone(), ty);
        self.undo.push((name, before));
    }

    /// Whether values of each of the types in `from` can be where those in `to` are wanted.
    pub(super) fn assignable(&mut self, from: &[&Type], to: &[&Type]) -> bool {
        self.undo.clear();
        if self.all(from, to) {
            return true;
        }
        while let Some((name, before)) = self.undo.pop() {
            match before {
                Some(ty) => self.bindings.insert(name, ty),
                None => self.bindings.remove(&name),
            };
        }
        false
    }

    fn all(&mut self, from: &[&Type], to: &[&Type]) -> bool {
        from.len() == to.len() && from.iter().zip(to).all(|(a, b)| self.one(a, b))
    }

    fn one(&mut self, a: &Type, b: &Type) -> bool {
        if let Type::Param(name) = b {
            let (valid, bound) = self.fits(a, b, name);
            if valid || bound {
                return valid;
            }
        }
        if let Type::Param(name) = a {
            return self.fits(b, a, name).0;
        }
        match (a, b) {
            _ if a.is_dyn_or_error() || b.is_dyn_or_error() => true,
            (Type::Null, other) | (other, Type::Null) => nullable(other),
            (Type::Type(_), Type::Type(_)) => true,
            (Type::List(a), Type::List(b)) => self.one(a, b),
            (Type::Map(a), Type::Map(b)) => self.one(&a.0, &b.0) && self.one(&a.1, &b.1),
            (Type::Opaque(a, from), Type::Opaque(b, to)) => {
                a == b && self.all(&from.iter().collect::<Vec<_>>(), &to.iter().collect::<Vec<_>>())
            }
            _ => a == b,
        }
    }

    /// Whether variable `name`, which is `param`, can stand for `ty`; and whether it stands for something already.
    fn fits(&mut self, ty: &Type, param: &Type, name: &Arc<str>) -> (bool, bool) {
        if ty == param {
            return (true, true);
        }
        if let Some(bound) = self.bindings.get(name).cloned() {
            if *ty == bound {
                return (true, true);
            }
            if !self.one(ty, &bound) {
                return (false, true);
            }
            let general = most_general(ty.clone(), bound);
            if self.is_free_in(param, &general) {
                self.bind(name.clone(), general);
            }
            return (true, true);
        }
        if self.is_free_in(param, ty) {
            self.bind(name.clone(), ty.clone());
            return (true, false);
        }
        (false, false)
    }

    /// Whether a variable does not occur within a type.
    fn is_free_in(&self, param: &Type, within: &Type) -> bool {
        if param == within {
            return false;
        }
        match within {
            Type::Param(name) => match self.bindings.get(name) {
                Some(bound) => self.is_free_in(param, bound),
                None => true,
            },
            other => other.params().into_iter().all(|part| self.is_free_in(param, part)),
        }
    }

    /// The type with variables replaced by what they stand for; `dyn` for those that stand for nothing, if asked.
    pub(super) fn substitute(&self, ty: &Type, free_to_dyn: bool) -> Type {
        match ty {
            Type::Param(name) => match self.bindings.get(name) {
                Some(bound) => self.substitute(bound, free_to_dyn),
                None if free_to_dyn => Type::Dyn,
                None => ty.clone(),
            },
            Type::List(item) => Type::list(self.substitute(item, free_to_dyn)),
            Type::Map(entry) => {
                Type::map(self.substitute(&entry.0, free_to_dyn), self.substitute(&entry.1, free_to_dyn))
            }
            Type::Opaque(name, params) if !params.is_empty() => {
                Type::Opaque(name.clone(), params.iter().map(|ty| self.substitute(ty, free_to_dyn)).collect())
            }
            Type::Type(Some(of)) => Type::type_of(self.substitute(of, free_to_dyn)),
            _ => ty.clone(),
        }
    }
}

fn nullable(ty: &Type) -> bool {
    matches!(
        ty,
        Type::Null | Type::Opaque(..) | Type::Struct(_) | Type::Any | Type::Duration | Type::Timestamp
    )
}

/// The more general of two types that go together.
pub(super) fn most_general(a: Type, b: Type) -> Type {
    if is_as_general(&a, &b) { a } else { b }
}

fn is_as_general(a: &Type, b: &Type) -> bool {
    match (a, b) {
        (Type::Dyn | Type::Any | Type::Param(_), _) => true,
        (_, Type::Dyn | Type::Any | Type::Param(_)) => false,
        (Type::List(a), Type::List(b)) => is_as_general(a, b),
        (Type::Map(a), Type::Map(b)) => is_as_general(&a.0, &b.0) && is_as_general(&a.1, &b.1),
        (Type::Opaque(a, from), Type::Opaque(b, to)) => {
            a == b && from.len() == to.len() && from.iter().zip(to.iter()).all(|(a, b)| is_as_general(a, b))
        }
        (Type::Type(_), Type::Type(_)) => true,
        _ => a == b,
    }
}
