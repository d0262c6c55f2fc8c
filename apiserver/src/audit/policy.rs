//! Which requests are written down, and how much of them (upstream `audit.k8s.io/v1` Policy and `audit/policy`).

use api::codec::yaml;
use api::field::{Error, ErrorList, Path};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::authn::User;
use crate::config_file::without_nulls;
use crate::request::RequestInfo;

/// How much of a request is written down; each level includes the ones before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Level {
    /// Nothing.
    #[default]
    None,
    /// Who asked for what, and when.
    Metadata,
    /// The body of the request too.
    Request,
    /// The body of the answer too.
    RequestResponse,
}

impl From<Level> for &'static str {
    fn from(level: Level) -> Self {
        LEVELS[level as usize]
    }
}

/// The moments at which an event is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// The request has come in.
    RequestReceived,
    /// The headers of a long-running answer have been sent.
    ResponseStarted,
    /// The answer is complete.
    ResponseComplete,
    /// The handler broke.
    Panic,
}

const STAGES: [&str; 4] = ["RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"];
const LEVELS: [&str; 4] = ["None", "Metadata", "Request", "RequestResponse"];

/// The rules, in order: the first one that matches a request decides.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Policy {
    rules: Vec<Rule>,
    omit_stages: Vec<String>,
    omit_managed_fields: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rule {
    level: String,
    users: Vec<String>,
    user_groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<GroupResources>,
    namespaces: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    omit_stages: Vec<String>,
    omit_managed_fields: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct GroupResources {
    group: String,
    resources: Vec<String>,
    resource_names: Vec<String>,
}

/// What the policy says of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// How much is written down.
    pub level: Level,
    /// Whether managers of fields are left out of bodies.
    pub omit_managed_fields: bool,
    omitted: Vec<String>,
}

impl Verdict {
    /// Whether an event is written at this stage.
    #[must_use]
    pub fn wants(&self, stage: Stage) -> bool {
        self.level > Level::None && !self.omitted.contains(&format!("{stage:?}"))
    }
}

/// Why a policy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// It is no YAML or JSON, or has unknown fields or wrong types.
    #[error("failed decoding: {0}")]
    Unreadable(String),
    /// It is another kind of object.
    #[error("unknown group version field {version} in policy, expected audit.k8s.io/v1, kind Policy")]
    Kind {
        /// Its `apiVersion`.
        version: String,
    },
    /// It has no rules.
    #[error("loaded illegal policy with 0 rules")]
    Empty,
    /// Its values make no sense.
    #[error("invalid policy: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Invalid(ErrorList),
}

impl Policy {
    /// Reads a policy from YAML or JSON.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn parse(text: &[u8]) -> Result<Self, PolicyError> {
        let value = yaml::decode(text).map_err(|error| PolicyError::Unreadable(error.to_string()))?;
        let version = value["apiVersion"].as_str().unwrap_or_default();
        if version != "audit.k8s.io/v1" || value["kind"] != "Policy" {
            return Err(PolicyError::Kind { version: version.to_owned() });
        }
        let policy: Self = serde_json::from_value(without_nulls(value))
            .map_err(|error| PolicyError::Unreadable(error.to_string()))?;
        if policy.rules.is_empty() {
            return Err(PolicyError::Empty);
        }
        let errors = policy.validate();
        if errors.is_empty() { Ok(policy) } else { Err(PolicyError::Invalid(errors)) }
    }

    /// What is to be written down of a request.
    #[must_use]
    pub fn evaluate(&self, user: &User, request: &RequestInfo) -> Verdict {
        let rule = self.rules.iter().find(|rule| rule.matches(user, request));
        let mut omitted = self.omit_stages.clone();
        omitted.extend(rule.iter().flat_map(|rule| rule.omit_stages.iter().cloned()));
        let own = rule.and_then(|rule| rule.omit_managed_fields);
        Verdict {
            level: rule.map(Rule::level).unwrap_or_default(),
            omit_managed_fields: own.unwrap_or(self.omit_managed_fields),
            omitted,
        }
    }

    fn validate(&self) -> ErrorList {
        let mut errors = stages(&self.omit_stages, &Path::new("omitStages"));
        for (i, rule) in self.rules.iter().enumerate() {
            rule.validate(&Path::new("rules").index(i), &mut errors);
        }
        errors
    }
}

fn stages(given: &[String], path: &Path) -> ErrorList {
    let unknown = given.iter().enumerate().filter(|(_, stage)| !STAGES.contains(&stage.as_str()));
    let why = format!("allowed stages are {}", STAGES.join(","));
    unknown.map(|(i, stage)| Error::invalid(&path.index(i), stage.clone(), why.clone())).collect()
}

impl Rule {
    fn level(&self) -> Level {
        serde_json::from_value(json!(self.level)).unwrap_or_default()
    }

    fn validate(&self, path: &Path, errors: &mut ErrorList) {
        match self.level.as_str() {
            "" => errors.push(Error::required(&path.child("level"), "")),
            level if !LEVELS.contains(&level) => {
                errors.push(Error::not_supported(&path.child("level"), level, &LEVELS));
            }
            _ => {}
        }
        let urls = path.child("nonResourceURLs");
        for (i, url) in self.non_resource_urls.iter().enumerate().filter(|(_, url)| *url != "*") {
            if !url.starts_with('/') {
                let why = "non-resource URL rules must begin with a '/' character";
                errors.push(Error::invalid(&urls.index(i), url.clone(), why));
            }
            if url.find('*').is_some_and(|at| at + 1 < url.len()) {
                let why = "non-resource URL wildcards '*' must be the final character of the rule";
                errors.push(Error::invalid(&urls.index(i), url.clone(), why));
            }
        }
        for resources in &self.resources {
            resources.validate(&path.child("resources"), errors);
        }
        errors.extend(stages(&self.omit_stages, &path.child("omitStages")));
        let regular = !self.resources.is_empty() || !self.namespaces.is_empty();
        if regular && !self.non_resource_urls.is_empty() {
            let why = "rules cannot apply to both regular resources and non-resource URLs";
            errors.push(Error::invalid(&urls, json!(self.non_resource_urls), why));
        }
    }

    fn matches(&self, user: &User, request: &RequestInfo) -> bool {
        let open_or = |list: &[String], value: &str| list.is_empty() || list.iter().any(|v| v == value);
        let in_groups =
            self.user_groups.is_empty() || user.groups.iter().any(|group| self.user_groups.contains(group));
        if !open_or(&self.users, &user.name) || !in_groups || !open_or(&self.verbs, &request.verb) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return request.is_resource
                && open_or(&self.namespaces, &request.namespace)
                && (self.resources.is_empty() || self.resources.iter().any(|r| r.matches(request)));
        }
        if self.non_resource_urls.is_empty() {
            return true;
        }
        !request.is_resource && self.non_resource_urls.iter().any(|url| covers(url, &request.path))
    }
}

/// Whether a pattern (`*`, a path, or the beginning of paths and `*`) covers a path.
fn covers(pattern: &str, path: &str) -> bool {
    pattern == path || pattern.ends_with('*') && path.starts_with(pattern.trim_end_matches('*'))
}

impl GroupResources {
    fn validate(&self, path: &Path, errors: &mut ErrorList) {
        if !self.group.is_empty() && self.group != "*" {
            let wrong = api::format::dns1123_subdomain(&self.group);
            if !wrong.is_empty() {
                errors.push(Error::invalid(&path.child("group"), self.group.clone(), wrong.join(",")));
            }
        }
        if !self.resource_names.is_empty() && self.resources.is_empty() {
            let why = "using resourceNames requires at least one resource";
            errors.push(Error::invalid(&path.child("resourceNames"), json!(self.resource_names), why));
        }
    }

    fn matches(&self, request: &RequestInfo) -> bool {
        if self.group != request.group && self.group != "*" {
            return false;
        }
        let named = self.resource_names.is_empty() || self.resource_names.contains(&request.name);
        self.resources.is_empty() || named && self.resources.iter().any(|pattern| is_meant(pattern, request))
    }
}

/// Whether `*`, `pods`, `pods/log`, `pods/*` or `*/scale` means what a request is for.
fn is_meant(pattern: &str, request: &RequestInfo) -> bool {
    let (resource, subresource) = (request.resource.as_str(), request.subresource.as_str());
    match pattern.split_once('/') {
        None => pattern == "*" || subresource.is_empty() && pattern == resource,
        Some(("*", part)) => !subresource.is_empty() && part == subresource,
        Some((of, "*")) => of == resource,
        Some((of, part)) => of == resource && part == subresource,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(verb: &str, path: &str) -> RequestInfo {
        let method = match verb {
            "create" => http::Method::POST,
            "delete" => http::Method::DELETE,
            _ => http::Method::GET,
        };
        RequestInfo::parse(&method, path, &crate::query::Query::parse("")).expect("a path")
    }

    fn rule(text: &str) -> Policy {
        let text = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- {text}\n");
        Policy::parse(text.as_bytes()).expect("a policy")
    }

    // The matrix of upstream's TestChecker, as rules and what each of these requests is to them.
    #[test]
    fn the_first_rule_that_matches_decides() {
        let humans = User { name: "tim".into(), groups: vec!["humans".into()], ..User::default() };
        let requests = [
            request("get", "/api/v1/namespaces/default/pods/busybox"),
            request("get", "/apis/rbac.authorization.k8s.io/v1/clusterroles/edit"),
            request("get", "/logs/kubelet.log"),
            request("get", "/api/v1/namespaces/default/pods/busybox/log"),
        ];
        // For each rule: which of the requests it matches.
        for (text, matched) in [
            ("level: Metadata", [true; 4]),
            ("{level: Metadata, verbs: [create]}", [false; 4]),
            ("{level: Metadata, users: [tim]}", [true; 4]),
            ("{level: Metadata, users: [sally]}", [false; 4]),
            ("{level: Metadata, userGroups: [humans]}", [true; 4]),
            ("{level: Metadata, userGroups: [robots]}", [false; 4]),
            ("{level: Metadata, resources: [{resources: [pods]}]}", [true, false, false, false]),
            ("{level: Metadata, resources: [{resources: [pods/log]}]}", [false, false, false, true]),
            ("{level: Metadata, resources: [{resources: ['pods/*']}]}", [true, false, false, true]),
            ("{level: Metadata, resources: [{resources: ['*/log']}]}", [false, false, false, true]),
            ("{level: Metadata, resources: [{resources: ['*']}]}", [true, false, false, true]),
            ("{level: Metadata, resources: [{group: ''}]}", [true, false, false, true]),
            ("{level: Metadata, resources: [{group: '*'}]}", [true, true, false, true]),
            (
                "{level: Metadata, resources: [{resources: [pods], resourceNames: [busybox]}]}",
                [true, false, false, false],
            ),
            ("{level: Metadata, resources: [{resources: [pods], resourceNames: [other]}]}", [false; 4]),
            ("{level: Metadata, namespaces: [default]}", [true, false, false, true]),
            ("{level: Metadata, namespaces: ['']}", [false, true, false, false]),
            ("{level: Metadata, nonResourceURLs: ['/logs*']}", [false, false, true, false]),
            ("{level: Metadata, nonResourceURLs: ['/logs']}", [false; 4]),
            ("{level: Metadata, nonResourceURLs: ['*']}", [false, false, true, false]),
        ] {
            let policy = rule(text);
            let found = requests.each_ref().map(|r| policy.evaluate(&humans, r).level == Level::Metadata);
            assert_eq!(found, matched, "{text}");
        }
    }

    #[test]
    fn stages_and_managers_are_left_out_as_policy_and_rule_say() {
        let text = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nomitManagedFields: true\n\
                    rules:\n- {level: Request, verbs: [get], omitStages: [Panic], omitManagedFields: false}\n\
                    - {level: None, verbs: [watch]}\n- {level: RequestResponse}\n";
        let policy = Policy::parse(text.as_bytes()).expect("a policy");
        let user = User::default();
        let verdict = policy.evaluate(&user, &request("get", "/api/v1/nodes/n"));
        assert_eq!((verdict.level, verdict.omit_managed_fields), (Level::Request, false));
        let wanted = [Stage::RequestReceived, Stage::ResponseStarted, Stage::ResponseComplete, Stage::Panic]
            .map(|stage| verdict.wants(stage));
        assert_eq!(wanted, [false, true, true, false]);
        let verdict = policy.evaluate(&user, &request("create", "/api/v1/nodes"));
        assert_eq!((verdict.level, verdict.omit_managed_fields), (Level::RequestResponse, true));
        assert!(verdict.wants(Stage::Panic));
    }

    #[test]
    fn a_policy_that_makes_no_sense_is_refused() {
        for (rules, why) in [
            ("[]", "loaded illegal policy with 0 rules"),
            ("[{}]", "rules[0].level: Required value"),
            ("[{level: Loud}]", "rules[0].level: Unsupported value: \"Loud\""),
            ("[{level: None, nonResourceURLs: [logs]}]", "must begin with a '/' character"),
            ("[{level: None, nonResourceURLs: ['/a*b']}]", "must be the final character"),
            ("[{level: None, nonResourceURLs: ['/a'], namespaces: [x]}]", "rules cannot apply to both"),
            (
                "[{level: None, resources: [{group: rbac.authorization.k8s.io/v1}]}]",
                "resources.group: Invalid value",
            ),
            ("[{level: None, resources: [{resourceNames: [a]}]}]", "requires at least one resource"),
            ("[{level: None, omitStages: [Later]}]", "allowed stages are RequestReceived,"),
            ("[{level: 1}]", "failed decoding"),
        ] {
            let text = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: {rules}\n");
            let error = Policy::parse(text.as_bytes()).expect_err(rules).to_string();
            assert!(error.contains(why), "{rules}: {error}");
        }
        let error = Policy::parse(b"apiVersion: audit.k8s.io/v1beta1\nkind: Policy\n").expect_err("old");
        assert!(error.to_string().starts_with("unknown group version field audit.k8s.io/v1beta1"));
    }
}
