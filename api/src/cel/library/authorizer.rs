//! Asking whether someone may do something: `authorizer.group('apps').resource('deployments').check('create')`.
//!
//! Who answers is up to the caller, who implements [`Authorizer`] and binds a [`Check`] of it to a variable.

use std::sync::Arc;

use crate::cel::eval::{Context, Evaluated, Fault};
use crate::cel::function::{Function, function, member};
use crate::cel::value::Value;
use crate::format;

use super::extension::Extension;

const AUTHORIZER: &str = "kubernetes.authorization.Authorizer";
const PATH_CHECK: &str = "kubernetes.authorization.PathCheck";
const GROUP_CHECK: &str = "kubernetes.authorization.GroupCheck";
const RESOURCE_CHECK: &str = "kubernetes.authorization.ResourceCheck";

/// Answers questions about authorization.
pub trait Authorizer: Send + Sync {
    /// Whether this is allowed.
    fn authorize(&self, question: &Question) -> Authorized;
}

/// A question about authorization.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// The service account that is asked about, by namespace and name; whoever makes the request if none.
    pub service_account: Option<(String, String)>,
    /// What is to be done.
    pub verb: String,
    /// With what.
    pub target: Target,
}

/// What something is done with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A path that is no resource.
    Path(String),
    /// A resource.
    Resource(Resource),
}

impl Default for Target {
    fn default() -> Self {
        Self::Resource(Resource::default())
    }
}

/// A resource that is asked about; of any version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resource {
    /// API group.
    pub group: String,
    /// Resource, plural.
    pub resource: String,
    /// Subresource, or empty.
    pub subresource: String,
    /// Namespace, or empty.
    pub namespace: String,
    /// Name, or empty.
    pub name: String,
    /// Field selector as written, or empty.
    pub field_selector: String,
    /// Label selector as written, or empty.
    pub label_selector: String,
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authorized {
    /// Whether it is allowed.
    pub allowed: bool,
    /// Why.
    pub reason: String,
    /// What went wrong, if something did.
    pub error: Option<String>,
}

/// A question as far as it has been asked.
#[derive(Clone)]
pub struct Check {
    authorizer: Arc<dyn Authorizer>,
    service_account: Option<(String, String)>,
    stage: Stage,
}

#[derive(Clone)]
enum Stage {
    Begun,
    Path(String),
    Group(String),
    Resource(Resource),
}

impl Check {
    /// The beginning of any question.
    #[must_use]
    pub fn new(authorizer: Arc<dyn Authorizer>) -> Self {
        Self { authorizer, service_account: None, stage: Stage::Begun }
    }

    /// A question about a resource, only the verb missing.
    #[must_use]
    pub fn of_resource(authorizer: Arc<dyn Authorizer>, resource: Resource) -> Self {
        Self { authorizer, service_account: None, stage: Stage::Resource(resource) }
    }

    /// It as a value of a variable.
    #[must_use]
    pub fn value<'a>(self) -> Value<'a> {
        Value::extension(self)
    }

    pub(crate) fn type_name(&self) -> &'static str {
        match self.stage {
            Stage::Begun => AUTHORIZER,
            Stage::Path(_) => PATH_CHECK,
            Stage::Group(_) => GROUP_CHECK,
            Stage::Resource(_) => RESOURCE_CHECK,
        }
    }

    fn at(&self, stage: Stage) -> Self {
        Self { stage, ..self.clone() }
    }

    fn ask(&self, verb: &str) -> Result<Authorized, Fault> {
        let target = match &self.stage {
            Stage::Path(path) => Target::Path(path.clone()),
            Stage::Resource(resource) => Target::Resource(resource.clone()),
            Stage::Begun | Stage::Group(_) => return Err(Fault::no_such_overload()),
        };
        let service_account = self.service_account.clone();
        Ok(self.authorizer.authorize(&Question { service_account, verb: verb.to_owned(), target }))
    }
}

/// The functions of this library.
pub(crate) const FUNCTIONS: &[Function] = &[
    function(
        "path",
        &[member(
            "authorizer_path",
            "kubernetes.authorization.Authorizer, string -> kubernetes.authorization.PathCheck",
        )],
        |_, args| match check(args)? {
            (check @ Check { stage: Stage::Begun, .. }, path) => {
                required("path", path)?;
                Ok(check.at(Stage::Path(path.to_owned())).value())
            }
            _ => Err(Fault::no_such_overload()),
        },
    ),
    function(
        "group",
        &[member(
            "authorizer_group",
            "kubernetes.authorization.Authorizer, string -> kubernetes.authorization.GroupCheck",
        )],
        |_, args| match check(args)? {
            (check @ Check { stage: Stage::Begun, .. }, group) => {
                Ok(check.at(Stage::Group(group.to_owned())).value())
            }
            _ => Err(Fault::no_such_overload()),
        },
    ),
    function(
        "serviceAccount",
        &[member(
            "authorizer_serviceaccount",
            "kubernetes.authorization.Authorizer, string, string -> kubernetes.authorization.Authorizer",
        )],
        service_account,
    ),
    function(
        "resource",
        &[member(
            "groupcheck_resource",
            "kubernetes.authorization.GroupCheck, string -> kubernetes.authorization.ResourceCheck",
        )],
        |_, args| match check(args)? {
            (check @ Check { stage: Stage::Group(group), .. }, resource) => {
                required("resource", resource)?;
                let (group, resource) = (group.clone(), resource.to_owned());
                Ok(check.at(Stage::Resource(Resource { group, resource, ..Resource::default() })).value())
            }
            _ => Err(Fault::no_such_overload()),
        },
    ),
    function(
        "subresource",
        &[member(
            "resourcecheck_subresource",
            "kubernetes.authorization.ResourceCheck, string -> kubernetes.authorization.ResourceCheck",
        )],
        |_, args| refine(args, |resource, text| resource.subresource = text),
    ),
    function(
        "namespace",
        &[member(
            "resourcecheck_namespace",
            "kubernetes.authorization.ResourceCheck, string -> kubernetes.authorization.ResourceCheck",
        )],
        |_, args| refine(args, |resource, text| resource.namespace = text),
    ),
    function(
        "name",
        &[member(
            "resourcecheck_name",
            "kubernetes.authorization.ResourceCheck, string -> kubernetes.authorization.ResourceCheck",
        )],
        |_, args| refine(args, |resource, text| resource.name = text),
    ),
    function(
        "check",
        &[
            member(
                "pathcheck_check",
                "kubernetes.authorization.PathCheck, string -> kubernetes.authorization.Decision",
            ),
            member(
                "resourcecheck_check",
                "kubernetes.authorization.ResourceCheck, string -> kubernetes.authorization.Decision",
            ),
        ],
        |_, args| {
            let (check, verb) = check(args)?;
            check.ask(verb).map(|answer| Value::extension(Extension::Decision(answer)))
        },
    ),
    function(
        "errored",
        &[member("decision_errored", "kubernetes.authorization.Decision -> bool")],
        |_, args| decision(args).map(|decision| Value::Bool(decision.error.is_some())),
    ),
    function(
        "error",
        &[member("decision_error", "kubernetes.authorization.Decision -> string")],
        |_, args| decision(args).map(|decision| Value::text(decision.error.as_deref().unwrap_or_default())),
    ),
    function(
        "allowed",
        &[member("decision_allowed", "kubernetes.authorization.Decision -> bool")],
        |_, args| decision(args).map(|decision| Value::Bool(decision.allowed)),
    ),
    function(
        "reason",
        &[member("decision_reason", "kubernetes.authorization.Decision -> string")],
        |_, args| decision(args).map(|decision| Value::text(decision.reason.as_str())),
    ),
];

/// Questions about some objects of a resource only.
pub(crate) const SELECTORS: &[Function] = &[
    function(
        "fieldSelector",
        &[member(
            "authorizer_fieldselector",
            "kubernetes.authorization.ResourceCheck, string -> kubernetes.authorization.ResourceCheck",
        )],
        |_, args| refine(args, |resource, text| resource.field_selector = text),
    ),
    function(
        "labelSelector",
        &[member(
            "authorizer_labelselector",
            "kubernetes.authorization.ResourceCheck, string -> kubernetes.authorization.ResourceCheck",
        )],
        |_, args| refine(args, |resource, text| resource.label_selector = text),
    ),
];

/// The question and the text that goes on with it.
fn check<'v>(args: &'v [Value<'_>]) -> Result<(&'v Check, &'v str), Fault> {
    match args {
        [Value::Extension(extension), Value::String(text)] => match &**extension {
            Extension::Check(check) => Ok((check, text)),
            _ => Err(Fault::no_such_overload()),
        },
        _ => Err(Fault::no_such_overload()),
    }
}

fn decision<'v>(args: &'v [Value<'_>]) -> Result<&'v Authorized, Fault> {
    match &args[0] {
        Value::Extension(extension) => match &**extension {
            Extension::Decision(decision) => Ok(decision),
            _ => Err(Fault::no_such_overload()),
        },
        _ => Err(Fault::no_such_overload()),
    }
}

fn required(what: &str, text: &str) -> Result<(), Fault> {
    match text.trim().is_empty() {
        true => Err(Fault::new(format!("{what} must not be empty"))),
        false => Ok(()),
    }
}

fn refine<'a>(args: &[Value<'a>], set: fn(&mut Resource, String)) -> Evaluated<'a> {
    let (check, text) = check(args)?;
    let Stage::Resource(resource) = &check.stage else { return Err(Fault::no_such_overload()) };
    let mut resource = resource.clone();
    set(&mut resource, text.to_owned());
    Ok(check.at(Stage::Resource(resource)).value())
}

fn service_account<'a>(_: &Context<'_>, args: &[Value<'a>]) -> Evaluated<'a> {
    let [_, Value::String(namespace), Value::String(name)] = args else {
        return Err(Fault::no_such_overload());
    };
    let (begun, _) = check(&args[..2])?;
    if !format::name_is_subdomain(name, false).is_empty() {
        return Err(Fault::new("Invalid service account name"));
    }
    if !format::name_is_label(namespace, false).is_empty() {
        return Err(Fault::new("Invalid service account namespace"));
    }
    let service_account = Some((namespace.to_string(), name.to_string()));
    Ok(Check { service_account, ..begun.at(Stage::Begun) }.value())
}
