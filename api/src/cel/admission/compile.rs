//! Compiles expressions of admission (upstream `plugin/cel/compile.go` and `composition.go`).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::{Known, Scope, VARIABLES, VARIABLES_TYPE, environment};
use crate::cel::declared::Declared;
use crate::cel::env::{Environment, Program};
use crate::cel::ty::Type;
use crate::cel::{Issues, MAX_REQUEST_BYTES};

/// What an expression must evaluate to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Returns {
    /// A truth value.
    Bool,
    /// Text.
    Text,
    /// Text, or null for none.
    TextOrNull,
    /// Anything.
    Any,
    /// An object to apply.
    Object,
    /// A list of JSON patches.
    Patches,
}

impl Returns {
    fn types(self) -> Vec<Type> {
        match self {
            Self::Bool => vec![Type::Bool],
            Self::Text => vec![Type::String],
            Self::TextOrNull => vec![Type::String, Type::Null],
            Self::Any => vec![Type::Any, Type::Dyn],
            Self::Object => vec![Type::object("Object")],
            Self::Patches => vec![Type::list(Type::object("JSONPatch"))],
        }
    }
}

/// Why an expression cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// It is not one: what the compiler says.
    #[error("compilation failed: {0}")]
    Issues(Issues),
    /// It evaluates to something else.
    #[error("{0}")]
    Type(String),
    /// Something constant in it cannot be computed.
    #[error("program instantiation failed: {0}")]
    Program(String),
}

/// An expression after compilation.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// Its text.
    pub expression: Arc<str>,
    /// What evaluates it, or why nothing does.
    pub program: Result<Program, Failure>,
    /// Its type, if it has one.
    pub ty: Option<Type>,
}

/// Compiles the expressions of one configuration.
pub struct Compiler {
    known: Known,
    /// The types of the variables so far; `None`: expressions have no variables.
    types: Option<BTreeMap<String, Arc<Declared>>>,
    variables: Vec<(String, Compiled)>,
    environments: HashMap<Scope, Environment>,
}

impl Compiler {
    /// For expressions without variables of their own.
    #[must_use]
    pub fn plain() -> Self {
        Self { known: Known::default(), types: None, variables: Vec::new(), environments: HashMap::new() }
    }

    /// For the expressions of a policy.
    #[must_use]
    pub fn composed() -> Self {
        Self { types: Some(BTreeMap::new()), ..Self::plain() }
    }

    /// For the expressions of a policy about data of known types.
    #[must_use]
    pub fn typed(known: Known) -> Self {
        Self { known, ..Self::composed() }
    }

    /// Compiles one expression.
    pub fn compile(&mut self, expression: &str, returns: Returns, scope: Scope) -> Compiled {
        let env = match self.environments.get(&scope) {
            Some(env) => env,
            None => {
                let env = self.environment(scope);
                self.environments.entry(scope).or_insert(env)
            }
        };
        let (program, ty) = compile(env, expression, returns);
        Compiled { expression: expression.into(), program, ty }
    }

    /// Compiles the next variable, which the expressions after it can use.
    pub fn variable(&mut self, name: &str, expression: &str, scope: Scope) -> &Compiled {
        let compiled = self.compile(expression, Returns::Any, scope);
        if let Some(types) = &mut self.types {
            types.insert(name.to_owned(), Arc::new(declared(compiled.ty.as_ref())));
        }
        self.environments.clear();
        let at = match self.variables.iter().position(|(known, _)| known == name) {
            Some(at) => {
                self.variables[at].1 = compiled;
                at
            }
            None => {
                self.variables.push((name.to_owned(), compiled));
                self.variables.len() - 1
            }
        };
        &self.variables[at].1
    }

    /// The variables by name, for evaluation.
    #[must_use]
    pub fn into_variables(self) -> Vec<(String, Compiled)> {
        self.variables
    }

    fn environment(&self, scope: Scope) -> Environment {
        let env = environment(scope, &self.known);
        match &self.types {
            Some(types) => {
                env.with_declared(VARIABLES, &Arc::new(Declared::object(VARIABLES_TYPE, types.clone())))
            }
            None => env,
        }
    }
}

fn compile(
    env: &Environment,
    expression: &str,
    returns: Returns,
) -> (Result<Program, Failure>, Option<Type>) {
    let checked = match env.compile(expression) {
        Ok(checked) => checked,
        Err(issues) => return (Err(Failure::Issues(issues)), None),
    };
    let (found, wanted) = (checked.output_type(), returns.types());
    if returns != Returns::Any && !wanted.contains(&found) {
        let (found, wanted): (_, Vec<_>) = (type_text(&found), wanted.iter().map(type_text).collect());
        return (
            Err(Failure::Type(match wanted.as_slice() {
                [only] => format!("must evaluate to {only} but got {found}"),
                many => format!("must evaluate to one of [{}] but got {found}", many.join(" ")),
            })),
            None,
        );
    }
    match env.program(&checked) {
        Ok(program) => (Ok(program), Some(found)),
        Err(why) => (Err(Failure::Program(why.to_string())), None),
    }
}

/// A type as messages about return types name it: by its declared name, with parameters.
#[must_use]
pub fn type_text(ty: &Type) -> String {
    let params: Vec<String> = ty.params().into_iter().map(type_text).collect();
    match params.is_empty() {
        true => ty.name().to_owned(),
        false => format!("{}({})", ty.name(), params.join(", ")),
    }
}

/// The type of a variable: of objects nothing is known any more (upstream `convertCelTypeToDeclType`).
fn declared(ty: Option<&Type>) -> Declared {
    let most = MAX_REQUEST_BYTES;
    match ty {
        Some(Type::List(item)) => Declared::list(declared(Some(item)), most),
        Some(Type::Map(entry)) => {
            let value = declared(Some(&entry.1));
            let key = declared(Some(&entry.0));
            let ty = Type::map(key.ty, value.ty.clone());
            Declared { ty, ..Declared::map(value, most) }
        }
        Some(
            plain @ (Type::Any
            | Type::Bool
            | Type::Bytes
            | Type::Double
            | Type::Duration
            | Type::Int
            | Type::Null
            | Type::String
            | Type::Timestamp
            | Type::Uint),
        ) => Declared::scalar(plain.name(), plain.clone(), 1, most),
        _ => Declared::scalar("dyn", Type::Dyn, 1, most),
    }
}
