//! What expressions know: functions, variables and types.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use super::checker::{self, Checked};
use super::declared::{Declared, Registry};
use super::eval::{Activation, Fault, Limits, Outcome, Run};
use super::function::{Function, Overload};
use super::library as lib;
use super::macros::Macros;
use super::parser;
use super::plan::{self, Plan};
use super::source::Issues;
use super::stack::with_room;
use super::ty::{OPTIONAL, Type};
use super::validate;

/// The minor version of Kubernetes this is.
pub const CURRENT: u32 = 36;

/// Text this short cannot nest deeply.
const SHALLOW_TEXT: usize = 64;

type Functions = HashMap<&'static str, Vec<Overload>>;

/// What expressions know. Cheap to clone.
#[derive(Clone)]
pub struct Environment {
    functions: Arc<Functions>,
    /// Types that can be named.
    types: Arc<HashMap<&'static str, Type>>,
    variables: HashMap<String, Type>,
    registry: Registry,
    macros: Macros,
    /// Whether patches can be constructed.
    patches: bool,
    /// Whether literals are looked at more closely.
    validates: bool,
    /// Whether constant parts are computed beforehand.
    pub(crate) folds: bool,
}

/// A library with functions, and the minor version that it came with.
const LIBRARIES: [(u32, &[Function]); 17] = [
    (0, lib::standard::FUNCTIONS),
    (0, lib::url::FUNCTIONS),
    (0, lib::regex::FUNCTIONS),
    (0, lib::lists::FUNCTIONS),
    (0, lib::strings::FUNCTIONS),
    (27, lib::authorizer::FUNCTIONS),
    (28, lib::optional::FUNCTIONS),
    (28, lib::quantity::FUNCTIONS),
    (29, lib::strings::FUNCTIONS_2),
    (29, lib::sets::FUNCTIONS),
    (30, lib::net::IP),
    (30, lib::net::CIDR),
    (31, lib::format::FUNCTIONS),
    (31, lib::authorizer::SELECTORS),
    (32, lib::comprehensions::FUNCTIONS),
    (33, lib::semver::FUNCTIONS),
    (34, lib::lists::EXTENSION),
];

fn add(functions: &mut Functions, library: &[Function]) {
    for function in library {
        let overloads = functions.entry(function.name).or_default();
        overloads.extend(function.overloads.iter().map(|signature| Overload::new(function, signature)));
    }
}

fn basic_types() -> HashMap<&'static str, Type> {
    HashMap::from([
        ("bool", Type::Bool),
        ("bytes", Type::Bytes),
        ("double", Type::Double),
        ("google.protobuf.Duration", Type::Duration),
        ("google.protobuf.Timestamp", Type::Timestamp),
        ("int", Type::Int),
        ("list", Type::list(Type::Dyn)),
        ("map", Type::map(Type::Dyn, Type::Dyn)),
        ("null_type", Type::Null),
        ("string", Type::String),
        ("type", Type::Type(None)),
        ("uint", Type::Uint),
    ])
}

impl Environment {
    /// What Kubernetes' expressions know as of this version.
    #[must_use]
    pub fn kubernetes() -> Self {
        static CURRENT_BASE: OnceLock<Environment> = OnceLock::new();
        CURRENT_BASE.get_or_init(|| Self::kubernetes_at(CURRENT)).clone()
    }

    /// What Kubernetes' expressions know as of version 1.`minor`.
    #[must_use]
    pub fn kubernetes_at(minor: u32) -> Self {
        let mut functions = Functions::new();
        for (_, library) in LIBRARIES.iter().filter(|(since, _)| *since <= minor) {
            add(&mut functions, library);
        }
        // `join` is older than the version of the library that it is listed with.
        if minor < 29 {
            let join: Vec<Function> = lib::strings::FUNCTIONS_2
                .iter()
                .filter(|function| function.name == "join")
                .copied()
                .collect();
            add(&mut functions, &join);
        }
        let mut types = basic_types();
        if minor >= 28 {
            types.insert(OPTIONAL, Type::optional(Type::Dyn));
        }
        if minor >= 30 {
            types.extend([("net.IP", Type::opaque("net.IP")), ("net.CIDR", Type::opaque("net.CIDR"))]);
        }
        let macros = Macros {
            optionals: minor >= 28,
            two_variables: minor >= 32,
            bindings: false,
            sort_by: minor >= 34,
        };
        Self {
            functions: Arc::new(functions),
            types: Arc::new(types),
            variables: HashMap::new(),
            registry: Registry::default(),
            macros,
            patches: false,
            validates: minor >= 29,
            folds: true,
        }
    }

    /// The same with `cel.bind`.
    #[must_use]
    pub fn with_bindings(mut self) -> Self {
        self.macros.bindings = true;
        self
    }

    /// The same with what mutating policies write patches with: the types `JSONPatch`, `Object` and `Object.field…`,
    /// which expressions may construct, and the functions that go with them.
    #[must_use]
    pub fn with_patches(mut self) -> Self {
        self.patches = true;
        add(Arc::make_mut(&mut self.functions), lib::json_patch::FUNCTIONS);
        self
    }

    /// The same with one more variable.
    #[must_use]
    pub fn with_variable(mut self, name: &str, ty: Type) -> Self {
        self.variables.insert(name.to_owned(), ty);
        self
    }

    /// The same with one more variable of a declared type, whose objects have been named.
    #[must_use]
    pub fn with_declared(self, name: &str, declared: &Arc<Declared>) -> Self {
        let ty = declared.ty.clone();
        self.with_type(declared).with_variable(name, ty)
    }

    /// The same with a declared type and all types below it.
    #[must_use]
    pub fn with_type(mut self, declared: &Arc<Declared>) -> Self {
        self.registry.add(declared.clone());
        self
    }

    /// The same, in which fields named like reserved words are selected without escape.
    #[must_use]
    pub fn with_keyword_fields(mut self) -> Self {
        self.registry.keywords = true;
        self
    }

    /// Parses and checks an expression.
    ///
    /// # Errors
    /// With all that is wrong with it.
    pub fn compile(&self, expression: &str) -> Result<Checked, Issues> {
        let deep = expression.len() > SHALLOW_TEXT;
        with_room(deep, || {
            let (ast, source) = parser::parse(expression, self.macros)?;
            let checked = checker::check(ast, &source, self)?;
            if self.validates {
                validate::validate(&checked, self, &source)?;
            }
            Ok(checked)
        })
    }

    /// Prepares a checked expression for evaluation.
    ///
    /// # Errors
    /// When something constant in it cannot be computed.
    pub fn program(&self, checked: &Checked) -> Result<Program, Fault> {
        let plan = with_room(checked.deep, || plan::plan(checked, self))?;
        Ok(Program { plan: Arc::new(plan), deep: checked.deep })
    }

    pub(crate) fn overloads(&self, function: &str) -> Option<&[Overload]> {
        self.functions.get(function).map(Vec::as_slice)
    }

    pub(crate) fn variable_type(&self, name: &str) -> Option<Type> {
        self.variables.get(name).cloned()
    }

    pub(crate) fn named_type(&self, name: &str) -> Option<Type> {
        if let Some(ty) = self.types.get(name) {
            return Some(ty.clone());
        }
        if self.can_construct(name) {
            return Some(Type::object(name));
        }
        self.registry.get(name).map(|declared| declared.ty.clone())
    }

    pub(crate) fn has_struct(&self, name: &str) -> bool {
        self.can_construct(name) || self.registry.get(name).is_some()
    }

    pub(crate) fn field_type(&self, name: &str, field: &str) -> Option<Type> {
        if self.can_construct(name) {
            return lib::json_patch::field_type(name, field);
        }
        let declared = self.registry.get(name)?;
        declared.field(field, self.registry.keywords).map(|field| field.ty.clone())
    }

    pub(crate) fn can_construct(&self, name: &str) -> bool {
        self.patches && lib::json_patch::is_constructible(name)
    }
}

/// An expression ready for evaluation. Cheap to clone.
#[derive(Clone)]
pub struct Program {
    plan: Arc<Plan>,
    deep: bool,
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Program").finish_non_exhaustive()
    }
}

impl Program {
    /// Evaluates the expression.
    #[must_use]
    pub fn evaluate<'a>(&self, activation: &dyn Activation<'a>, limits: Limits<'_>) -> Outcome<'a> {
        with_room(self.deep, || Run::new(&self.plan, activation, limits).finish())
    }
}
