//! Expressions of admission: conditions of webhooks and policies, validations, mutations, and the variables they are
//! composed of (upstream `apiserver/pkg/admission/plugin/cel`).
//!
//! A [`Compiler`] compiles the expressions of one configuration once; an [`Evaluation`] evaluates them for one request
//! within a budget, and each variable at most once.

mod compile;
mod evaluate;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use super::declared::Declared;
use super::env::Environment;
use super::ty::Type;

pub use compile::{Compiled, Compiler, Failure, Returns, type_text};
pub use evaluate::{Evaluation, Input, OutOfBudget};

/// What one expression may cost when it is evaluated.
pub const CALL_LIMIT: u64 = 1_000_000;
/// What all expressions of one kind may cost for one binding of a policy.
pub const BUDGET: u64 = 10_000_000;
/// What all conditions of one webhook, or one binding of a policy, may cost.
pub const CONDITIONS_BUDGET: u64 = 2_500_000;
/// The longest message that an expression may give, in bytes.
pub const MAX_MESSAGE: usize = 5 * 1024;

/// Name of the variable (and, qualified, of the type) that holds a policy's variables.
const VARIABLES: &str = "variables";
const VARIABLES_TYPE: &str = "kubernetes.variables";
const OBJECT: &str = "object";
const OLD_OBJECT: &str = "oldObject";
const PARAMS: &str = "params";
const REQUEST: &str = "request";
const NAMESPACE: &str = "namespaceObject";
const AUTHORIZER: &str = "authorizer";
const REQUEST_RESOURCE: &str = "authorizer.requestResource";

/// Which variables an expression has besides those that all have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scope {
    /// `params`
    pub params: bool,
    /// `authorizer` and `authorizer.requestResource`
    pub authorizer: bool,
    /// Whether it can construct objects and patches.
    pub patches: bool,
}

/// Types of the data that expressions look at, where they are known.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Of `object` and `oldObject`.
    pub object: Option<Arc<Declared>>,
    /// Of `params`.
    pub params: Option<Arc<Declared>>,
}

/// What expressions of admission know, but for the variables of a policy.
fn environment(scope: Scope, known: &Known) -> Environment {
    static BASE: OnceLock<Environment> = OnceLock::new();
    let base = BASE.get_or_init(|| {
        Environment::kubernetes()
            .with_declared(NAMESPACE, &Arc::new(namespace_type()))
            .with_declared(REQUEST, &Arc::new(request_type()))
    });
    let with = |env: Environment, name: &str, declared: Option<&Arc<Declared>>| match declared {
        Some(declared) => env.with_declared(name, declared),
        None => env.with_variable(name, Type::Dyn),
    };
    let mut env = with(base.clone(), OBJECT, known.object.as_ref());
    env = with(env, OLD_OBJECT, known.object.as_ref());
    if scope.params {
        env = with(env, PARAMS, known.params.as_ref());
    }
    if scope.authorizer {
        env = env
            .with_variable(AUTHORIZER, Type::object("kubernetes.authorization.Authorizer"))
            .with_variable(REQUEST_RESOURCE, Type::object("kubernetes.authorization.ResourceCheck"));
    }
    if scope.patches { env.with_patches() } else { env }
}

fn text() -> Declared {
    Declared::scalar("string", Type::String, 2, super::MAX_REQUEST_BYTES)
}

fn texts() -> Declared {
    Declared::list(text(), super::MAX_REQUEST_BYTES)
}

fn time() -> Declared {
    Declared::scalar("timestamp", Type::Timestamp, 2, 32)
}

fn number() -> Declared {
    Declared::scalar("int", Type::Int, 1, 0)
}

fn object<const N: usize>(name: &str, fields: [(&str, Declared); N]) -> Declared {
    let fields = fields.into_iter().map(|(name, declared)| (name.to_owned(), Arc::new(declared)));
    Declared::object(name, fields.collect::<BTreeMap<_, _>>())
}

/// The type of `request` (upstream `BuildRequestType`).
fn request_type() -> Declared {
    let kind =
        || object("kubernetes.GroupVersionKind", [("group", text()), ("version", text()), ("kind", text())]);
    let resource = || {
        let fields = [("group", text()), ("version", text()), ("resource", text())];
        object("kubernetes.GroupVersionResource", fields)
    };
    let user = object(
        "kubernetes.UserInfo",
        [
            ("username", text()),
            ("uid", text()),
            ("groups", texts()),
            ("extra", Declared::map(texts(), super::MAX_REQUEST_BYTES)),
        ],
    );
    object(
        "kubernetes.AdmissionRequest",
        [
            ("kind", kind()),
            ("resource", resource()),
            ("subResource", text()),
            ("requestKind", kind()),
            ("requestResource", resource()),
            ("requestSubResource", text()),
            ("name", text()),
            ("namespace", text()),
            ("operation", text()),
            ("userInfo", user),
            ("dryRun", Declared::scalar("bool", Type::Bool, 4, 0)),
            ("options", Declared::scalar("dyn", Type::Dyn, 1, super::MAX_REQUEST_BYTES)),
        ],
    )
}

/// The type of `namespaceObject`: some of a Namespace only (upstream `BuildNamespaceType`).
fn namespace_type() -> Declared {
    let labels = || Declared::map(text(), super::MAX_REQUEST_BYTES);
    let condition = object(
        "kubernetes.NamespaceCondition",
        [
            ("status", text()),
            ("type", text()),
            ("lastTransitionTime", time()),
            ("message", text()),
            ("reason", text()),
        ],
    );
    let conditions = Declared::list(condition, super::MAX_REQUEST_BYTES);
    let status = object("kubernetes.NamespaceStatus", [("conditions", conditions), ("phase", text())]);
    let metadata = object(
        "kubernetes.NamespaceMetadata",
        [
            ("name", text()),
            ("generateName", text()),
            ("namespace", text()),
            ("labels", labels()),
            ("annotations", labels()),
            ("UID", text()),
            ("creationTimestamp", time()),
            ("deletionGracePeriodSeconds", number()),
            ("deletionTimestamp", time()),
            ("generation", number()),
            ("resourceVersion", text()),
            ("finalizers", texts()),
        ],
    );
    let spec = object("kubernetes.NamespaceSpec", [("finalizers", texts())]);
    object("kubernetes.Namespace", [("metadata", metadata), ("spec", spec), ("status", status)])
}
