//! `--authorization-mode=ABAC`: a file of policies, one JSON object a line, read once at the start (upstream
//! `pkg/auth/authorizer/abac` and `pkg/apis/abac`).
//!
//! Two forms of lines are understood: `abac.authorization.kubernetes.io/v1beta1`, and the older one without kind and
//! version, in which what is left out means everything.

use std::path::{Path, PathBuf};

use api::codec::json::{self, kind_of};
use api::codec::kind::TypeMeta;
use api::codec::yaml;
use k8s_openapi::api::authorization::v1::{NonResourceRule, ResourceRule};
use serde_json::Value;

use super::{Authorizer, Decision, UserRules};
use crate::authn::{AUTHENTICATED, User};
use crate::config_file;
use crate::request::RequestInfo;

const V0: &str = "abac.authorization.kubernetes.io/v0";
const V1BETA1: &str = "abac.authorization.kubernetes.io/v1beta1";
/// The longest line: what Go's `bufio.Scanner` takes.
const LONGEST_LINE: usize = 64 * 1024;

/// Why there are no policies.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened.
    #[error("open {path}: {why}")]
    Open {
        /// Which.
        path: PathBuf,
        /// What the system says, in Go's words.
        why: String,
    },
    /// A line is no policy.
    #[error("error reading policy file {path}, line {line}: {text}: {why}")]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What it says.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// A line is too long to be one.
    #[error("error reading policy file {path}: bufio.Scanner: token too long")]
    TooLong {
        /// Which file.
        path: PathBuf,
    },
}

/// Who may do what: the first policy that matches permits, and none refuses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policies(Vec<Policy>);

/// One policy. What is empty matches only what is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Policy {
    user: String,
    group: String,
    readonly: bool,
    api_group: String,
    resource: String,
    namespace: String,
    non_resource_path: String,
}

impl Policies {
    /// Reads the file.
    ///
    /// # Errors
    /// When it is not there, or some line is no policy.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let failed = |error| Error::Open { path: path.to_owned(), why: config_file::go_error(&error) };
        Self::parse(path, &std::fs::read(path).map_err(failed)?)
    }

    fn parse(path: &Path, text: &[u8]) -> Result<Self, Error> {
        let (mut policies, mut unversioned) = (Vec::new(), false);
        for (i, line) in text.split(|byte| *byte == b'\n').enumerate() {
            if line.len() >= LONGEST_LINE {
                return Err(Error::TooLong { path: path.to_owned() });
            }
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let trimmed = line.trim_ascii();
            if trimmed.is_empty() || trimmed.starts_with(b"#") {
                continue;
            }
            let (policy, is_versioned) = Policy::read(line).map_err(|why| Error::Line {
                path: path.to_owned(),
                line: i + 1,
                text: String::from_utf8_lossy(line).into_owned(),
                why,
            })?;
            unversioned |= !is_versioned;
            policies.push(policy);
        }
        if unversioned {
            tracing::warn!(file = %path.display(), "the policy file has rules without a version");
        }
        Ok(Self(policies))
    }
}

impl Policy {
    /// Reads a line. Also given: whether it is of the form that has a version.
    fn read(line: &[u8]) -> Result<(Self, bool), String> {
        // As upstream's decoder: what does not look like JSON is tried as YAML.
        let value = if line.trim_ascii_start().starts_with(b"{") {
            json::decode(line).map_err(|why| format!("couldn't get version/kind; json parse error: {why}"))?
        } else {
            yaml::decode(line).map_err(|error| error.to_string())?
        };
        let TypeMeta { api_version, kind } = TypeMeta::of_value(&value)?;
        if api_version.matches('/').count() > 1 {
            return Err(format!("unexpected GroupVersion string: {api_version}"));
        }
        if kind == "Policy" && api_version == V1BETA1 {
            return Self::of_v1beta1(&value).map(|policy| (policy, true));
        }
        if kind == "Policy" && api_version == V0 {
            return Self::of_v0(&value).map(|policy| (policy, true));
        }
        // Anything else is read as the older form; what a line says of itself must not contradict that.
        let kind = if kind.is_empty() { "Policy" } else { kind.as_str() };
        let version = if api_version.is_empty() { V0 } else { api_version.as_str() };
        match (kind, version) {
            ("Policy", V0) => Self::of_v0(&value).map(|policy| (policy, false)),
            ("Policy", V1BETA1) => {
                Err("converting (*v1beta1.Policy) to (*v0.Policy): unknown conversion".to_owned())
            }
            _ => Err(format!(
                "no kind {kind:?} is registered for version {version:?} in scheme \"pkg/apis/abac/register.go:33\""
            )),
        }
    }

    fn of_v1beta1(value: &Value) -> Result<Self, String> {
        let spec = match value.get("spec") {
            None | Some(Value::Null) => &Value::Null,
            Some(spec @ Value::Object(_)) => spec,
            Some(other) => {
                let found = kind_of(other);
                return Err(format!(
                    "json: cannot unmarshal {found} into Go struct field Policy.spec of type v1beta1.PolicySpec"
                ));
            }
        };
        let text = |field: &str| text(spec, field, "PolicySpec.spec");
        let policy = Self {
            user: text("user")?,
            group: text("group")?,
            readonly: switch(spec, "readonly", "PolicySpec.spec")?,
            api_group: text("apiGroup")?,
            resource: text("resource")?,
            namespace: text("namespace")?,
            non_resource_path: text("nonResourcePath")?,
        };
        Ok(policy.of_everybody())
    }

    fn of_v0(value: &Value) -> Result<Self, String> {
        let text = |field: &str| text(value, field, "Policy");
        let readonly = switch(value, "readonly", "Policy")?;
        let (user, mut group) = (text("user")?, text("group")?);
        let (mut namespace, mut resource) = (text("namespace")?, text("resource")?);
        if user.is_empty() && group.is_empty() {
            AUTHENTICATED.clone_into(&mut group);
        }
        let mut non_resource_path = String::new();
        if namespace.is_empty() && resource.is_empty() {
            "*".clone_into(&mut non_resource_path);
        }
        for field in [&mut namespace, &mut resource] {
            if field.is_empty() {
                "*".clone_into(field);
            }
        }
        let api_group = "*".to_owned();
        Ok(Self { user, group, readonly, api_group, resource, namespace, non_resource_path }.of_everybody())
    }

    /// In both forms `*` stands for everybody who is known.
    fn of_everybody(mut self) -> Self {
        if self.user == "*" || self.group == "*" {
            AUTHENTICATED.clone_into(&mut self.group);
            self.user.clear();
        }
        self
    }

    /// User and group must both match where both are given, and one must be.
    fn is_about(&self, user: &User) -> bool {
        (!self.user.is_empty() || !self.group.is_empty())
            && (self.user.is_empty() || self.user == user.name)
            && (self.group.is_empty() || user.in_group(&self.group))
    }

    fn matches(&self, user: &User, request: &RequestInfo) -> bool {
        let reads = matches!(request.verb.as_str(), "get" | "list" | "watch");
        self.is_about(user)
            && (reads || !self.readonly)
            && if request.is_resource { self.has_resource(request) } else { self.has_path(&request.path) }
    }

    /// A subresource is not told from its resource.
    fn has_resource(&self, request: &RequestInfo) -> bool {
        let fits = |own: &str, asked: &str| own == "*" || own == asked;
        fits(&self.namespace, &request.namespace)
            && fits(&self.resource, &request.resource)
            && fits(&self.api_group, &request.group)
    }

    fn has_path(&self, path: &str) -> bool {
        let own = self.non_resource_path.as_str();
        own == path || (own.ends_with('*') && path.starts_with(own.trim_end_matches('*')))
    }

    fn verbs(&self) -> Vec<String> {
        let verbs: &[&str] = if self.readonly { &["get", "list", "watch"] } else { &["*"] };
        verbs.iter().map(|verb| (*verb).to_owned()).collect()
    }
}

fn text(object: &Value, field: &str, at: &str) -> Result<String, String> {
    match object.get(field) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(mismatch(other, field, at, "string")),
    }
}

fn switch(object: &Value, field: &str, at: &str) -> Result<bool, String> {
    match object.get(field) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(on)) => Ok(*on),
        Some(other) => Err(mismatch(other, field, at, "bool")),
    }
}

fn mismatch(found: &Value, field: &str, at: &str, wanted: &str) -> String {
    format!("json: cannot unmarshal {} into Go struct field {at}.{field} of type {wanted}", kind_of(found))
}

impl Authorizer for Policies {
    fn authorize(&self, user: &User, request: &RequestInfo) -> Decision {
        if self.0.iter().any(|policy| policy.matches(user, request)) {
            Decision::allow()
        } else {
            Decision::no_opinion("No policy matched.")
        }
    }

    fn rules(&self, user: &User, namespace: &str) -> UserRules {
        let mut rules = UserRules::default();
        for policy in self.0.iter().filter(|policy| policy.is_about(user)) {
            if policy.namespace != "*" && policy.namespace != namespace {
                continue;
            }
            let only = |text: &String| Some(vec![text.clone()]);
            if !policy.resource.is_empty() {
                rules.resource.push(ResourceRule {
                    verbs: policy.verbs(),
                    api_groups: only(&policy.api_group),
                    resources: only(&policy.resource),
                    resource_names: None,
                });
            }
            if !policy.non_resource_path.is_empty() {
                let non_resource_urls = only(&policy.non_resource_path);
                rules.non_resource.push(NonResourceRule { verbs: policy.verbs(), non_resource_urls });
            }
        }
        rules
    }
}

#[cfg(test)]
mod tests;
