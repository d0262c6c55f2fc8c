//! PodSecurity: what pods of a namespace may do, by the namespace's labels (upstream `pod-security-admission`).

mod checks;
mod policy;
mod settings;

use std::collections::HashMap;
use std::fmt::Display;

use api::status::ApiError;
use client::informer::Informer;
use client::{Client, ObjectKey};
use k8s_openapi::api::core::v1::{Namespace, Pod, PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::ListParams;
use serde_json::Value;

use self::checks::Violation;
use self::policy::{Level, LevelVersion, PREFIX, Policy};
pub(super) use self::settings::Settings;
use super::{Annotations, Attributes, Deps, Operation, Plugin, Verdict, decode, items, text};

/// Pods of a namespace looked at when its level is raised, at most.
const MAX_PODS: usize = 3000;

/// Subresources of pods that do not change what the pod may do.
const IGNORED: [&str; 8] = ["exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"];

/// The plugin.
pub struct PodSecurity {
    client: Client,
    namespaces: Informer<Namespace>,
    settings: Settings,
}

impl PodSecurity {
    /// Watches namespaces.
    pub fn new(deps: &Deps<'_>) -> Self {
        let settings = deps.configured.pod_security.clone();
        Self { client: deps.client.clone(), namespaces: deps.informers.informer(), settings }
    }

    /// Asks the API for a namespace that the cache does not know.
    async fn namespace(&self, name: &str) -> Result<Namespace, ApiError> {
        let found = Api::<Namespace>::all(self.client.clone()).get(name).await;
        found.map_err(|_| ApiError::internal(format!("failed to lookup namespace {name:?}")))
    }

    /// What the pods of a namespace would be refused for if its level were `enforce`.
    async fn existing(&self, namespace: &str, enforce: LevelVersion) -> Vec<String> {
        let pods = Api::<Pod>::namespaced(self.client.clone(), namespace).list(&ListParams::default()).await;
        match pods {
            Ok(mut pods) => {
                pods.items.retain(|pod| pod.spec.as_ref().is_none_or(|spec| !self.is_exempt_class(spec)));
                warn_of_existing(namespace, enforce, &pods.items)
            }
            Err(_) => vec!["failed to list pods while checking new PodSecurity enforce level".to_owned()],
        }
    }

    async fn check_namespace(
        &self,
        attributes: &Attributes<'_>,
        object: &Value,
        old: Option<&Value>,
        warnings: &mut Vec<String>,
    ) -> Result<(), ApiError> {
        let labels = |object: &Value| -> Option<std::collections::BTreeMap<String, String>> {
            serde_json::from_value(object["metadata"]["labels"].clone()).ok()
        };
        let defaults = self.settings.defaults;
        let given = labels(object);
        let (new, errors) = policy::read(given.as_ref(), defaults);
        let name = text(&object["metadata"], "name");
        let exempt = self.settings.namespaces.contains(name);
        let exempt_warning = || policy::exempt_warning(name, &new, given.as_ref(), &defaults);
        let invalid = |errors: &[api::field::Error]| Err(ApiError::invalid(attributes.kind, name, errors));
        let Some(old) = old else {
            if !errors.is_empty() {
                return invalid(&errors);
            }
            warnings.extend(exempt.then(exempt_warning).flatten());
            return Ok(());
        };
        let (before, old_errors) = policy::read(labels(old).as_ref(), defaults);
        if !errors.is_empty() && errors != old_errors {
            return invalid(&errors);
        }
        let relaxed =
            new.enforce.version == before.enforce.version && new.enforce.level <= before.enforce.level;
        if new.enforce == before.enforce || new.enforce.level == Level::Privileged || relaxed {
            return Ok(());
        }
        if exempt {
            warnings.extend(exempt_warning());
        } else {
            warnings.extend(self.existing(name, new.enforce).await);
        }
        Ok(())
    }

    /// Why a write is nobody's business, if it is.
    fn exemption(&self, attributes: &Attributes<'_>) -> Option<&'static str> {
        if self.settings.namespaces.contains(attributes.namespace) {
            return Some("namespace");
        }
        self.settings.users.contains(&*attributes.user.name).then_some("user")
    }

    fn is_exempt_class(&self, spec: &PodSpec) -> bool {
        spec.runtime_class_name.as_ref().is_some_and(|class| self.settings.runtime_classes.contains(class))
    }

    /// As [`judge`], by a policy that was read with these errors; pods of some runtime classes are not judged.
    fn judged(
        &self,
        annotations: &Annotations,
        (policy, errors): (&Policy, &[api::field::Error]),
        (meta, spec): (Option<&ObjectMeta>, &PodSpec),
        enforce: bool,
    ) -> Result<Option<String>, String> {
        if self.is_exempt_class(spec) {
            note(annotations, "exempt", "runtimeClass");
            return Ok(None);
        }
        note_errors(annotations, errors);
        let pod = checks::Pod::new(meta.and_then(|meta| meta.annotations.as_ref()), spec);
        judge(policy, pod, enforce, annotations)
    }

    /// Judges what pods are made of by the labels of their namespace.
    fn check(
        &self,
        attributes: &Attributes<'_>,
        (object, old): (&Value, Option<&Value>),
        warnings: &mut Vec<String>,
        namespace: &Namespace,
    ) -> Result<(), ApiError> {
        let Some(path) = template_path(attributes) else {
            return self.check_pod(attributes, (object, old), warnings, namespace);
        };
        match object.pointer(path).filter(|template| !template.is_null()) {
            Some(template) => self.check_template(attributes, template, warnings, namespace),
            None => Ok(()),
        }
    }

    fn check_pod(
        &self,
        attributes: &Attributes<'_>,
        (object, old): (&Value, Option<&Value>),
        warnings: &mut Vec<String>,
        namespace: &Namespace,
    ) -> Result<(), ApiError> {
        let (policy, errors) = policy::read(namespace.metadata.labels.as_ref(), self.settings.defaults);
        if errors.is_empty() && policy.is_privileged() {
            note(attributes.annotations, "enforce-policy", LevelVersion::default());
            return Ok(());
        }
        let old = old.filter(|_| attributes.operation == Operation::Update);
        if old.is_some_and(|old| !is_significant(object, old)) {
            return Ok(());
        }
        let pod: Pod = decode(object)?;
        let spec = pod.spec.unwrap_or_default();
        let whole = (Some(&pod.metadata), &spec);
        let judged = self.judged(attributes.annotations, (&policy, &errors), whole, true);
        warnings.extend(judged.map_err(|why| attributes.forbidden(object, &why))?);
        Ok(())
    }

    /// Pods are yet to be made of a template: nothing is refused.
    fn check_template(
        &self,
        attributes: &Attributes<'_>,
        template: &Value,
        warnings: &mut Vec<String>,
        namespace: &Namespace,
    ) -> Result<(), ApiError> {
        let (policy, errors) = policy::read(namespace.metadata.labels.as_ref(), self.settings.defaults);
        if errors.is_empty()
            && policy.warn.level == Level::Privileged
            && policy.audit.level == Level::Privileged
        {
            return Ok(());
        }
        let template: PodTemplateSpec = decode(template)?;
        let spec = template.spec.unwrap_or_default();
        let whole = (template.metadata.as_ref(), &spec);
        if let Ok(Some(warning)) = self.judged(attributes.annotations, (&policy, &errors), whole, false) {
            warnings.push(warning);
        }
        Ok(())
    }
}

/// Warnings about pods that are there already: equal ones are told once.
fn warn_of_existing(namespace: &str, enforce: LevelVersion, pods: &[Pod]) -> Vec<String> {
    let controller = |pod: &Pod| {
        let owners = pod.metadata.owner_references.iter().flatten();
        owners.into_iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.clone())
    };
    // One pod of each controller first: they are alike.
    let mut seen = Vec::new();
    let (mut first, mut alike) = (Vec::new(), Vec::new());
    for pod in pods {
        match controller(pod) {
            Some(uid) if seen.contains(&uid) => alike.push(pod),
            Some(uid) => {
                seen.push(uid);
                first.push(pod);
            }
            None => first.push(pod),
        }
    }
    first.extend(alike);
    let mut found: HashMap<String, (String, usize)> = HashMap::new();
    for pod in first.iter().take(MAX_PODS) {
        let Some(spec) = &pod.spec else { continue };
        let violations =
            checks::evaluate(enforce, &checks::Pod::new(pod.metadata.annotations.as_ref(), spec));
        if violations.is_empty() {
            continue;
        }
        let name = pod.metadata.name.clone().unwrap_or_default();
        let entry = found.entry(checks::reasons(&violations)).or_insert_with(|| (name.clone(), 0));
        entry.0 = entry.0.clone().min(name);
        entry.1 += 1;
    }
    let mut warnings = Vec::new();
    if first.len() > MAX_PODS {
        let total = first.len();
        warnings.push(format!(
            "new PodSecurity enforce level only checked against the first {MAX_PODS} of {total} existing pods"
        ));
    }
    if !found.is_empty() {
        warnings.push(format!(
            "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{enforce}\""
        ));
    }
    let mut lines: Vec<String> = found
        .into_iter()
        .map(|(why, (name, count))| match count {
            1 => format!("{name}: {why}"),
            2 => format!("{name} (and 1 other pod): {why}"),
            more => format!("{name} (and {} other pods): {why}", more - 1),
        })
        .collect();
    lines.sort();
    warnings.extend(lines);
    warnings
}

/// Resources that hold a pod template, and where.
const TEMPLATES: [(&str, &str, &str); 8] = [
    ("", "replicationcontrollers", "/spec/template"),
    ("", "podtemplates", "/template"),
    ("apps", "replicasets", "/spec/template"),
    ("apps", "deployments", "/spec/template"),
    ("apps", "daemonsets", "/spec/template"),
    ("apps", "statefulsets", "/spec/template"),
    ("batch", "jobs", "/spec/template"),
    ("batch", "cronjobs", "/spec/jobTemplate/spec/template"),
];

fn template_path(attributes: &Attributes<'_>) -> Option<&'static str> {
    let found = TEMPLATES.iter().find(|(group, resource, _)| attributes.is(group, resource));
    found.map(|(_, _, path)| *path)
}

/// Whether an update of a pod changes an image or the set of containers.
fn is_significant(pod: &Value, old: &Value) -> bool {
    let images = |pod: &Value, list: &str| {
        items(&pod["spec"], list).iter().map(|c| text(c, "image").to_owned()).collect::<Vec<_>>()
    };
    if ["containers", "initContainers"].iter().any(|list| images(pod, list) != images(old, list)) {
        return true;
    }
    let before = items(&old["spec"], "ephemeralContainers");
    items(&pod["spec"], "ephemeralContainers").iter().any(|container| {
        let same = |other: &&Value| text(other, "name") == text(container, "name");
        before.iter().find(same).is_none_or(|other| text(other, "image") != text(container, "image"))
    })
}

/// Evaluates each demand once.
struct Evaluation<'a> {
    pod: checks::Pod<'a>,
    done: Vec<(LevelVersion, Vec<Violation>)>,
}

impl Evaluation<'_> {
    fn of(&mut self, demand: LevelVersion) -> &[Violation] {
        let known = self.done.iter().position(|(done, _)| *done == demand);
        let index = known.unwrap_or_else(|| {
            self.done.push((demand, checks::evaluate(demand, &self.pod)));
            self.done.len() - 1
        });
        &self.done[index].1
    }
}

/// Says something in the audit log.
fn note(annotations: &Annotations, key: &str, value: impl Display) {
    if annotations.are_heard() && !annotations.add(format!("{PREFIX}{key}"), value.to_string()) {
        tracing::warn!(key, "an audit annotation has been made already");
    }
}

fn note_errors(annotations: &Annotations, errors: &[api::field::Error]) {
    if !errors.is_empty() {
        let errors = crate::authn::setup::joined(errors);
        note(annotations, "error", format!("Failed to parse policy: {errors}"));
    }
}

/// The refusal, or the warning. What is audited is noted in any case.
fn judge(
    policy: &Policy,
    pod: checks::Pod<'_>,
    enforce: bool,
    annotations: &Annotations,
) -> Result<Option<String>, String> {
    let mut evaluation = Evaluation { pod, done: Vec::new() };
    let mut refusal = None;
    if enforce {
        note(annotations, "enforce-policy", policy.enforce);
        let violations = evaluation.of(policy.enforce);
        if !violations.is_empty() {
            let details = checks::details(violations);
            refusal = Some(format!("violates PodSecurity \"{}\": {details}", policy.enforce));
        }
    }
    let audited = evaluation.of(policy.audit);
    if !audited.is_empty() {
        let (demand, details) = (policy.audit, checks::details(audited));
        note(annotations, "audit-violations", format!("would violate PodSecurity \"{demand}\": {details}"));
    }
    if let Some(refusal) = refusal {
        return Err(refusal);
    }
    let warned = evaluation.of(policy.warn);
    let warning = || format!("would violate PodSecurity \"{}\": {}", policy.warn, checks::details(warned));
    Ok((!warned.is_empty()).then(warning))
}

impl Plugin for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        matches!(attributes.operation, Operation::Create | Operation::Update)
            && (attributes.is("", "namespaces")
                || (attributes.is_any("", "pods") && !IGNORED.contains(&attributes.subresource))
                || template_path(attributes).is_some())
    }

    fn validate<'a>(
        &'a self,
        attributes: &'a Attributes<'_>,
        object: &'a Value,
        old: Option<&'a Value>,
        warnings: &'a mut Vec<String>,
    ) -> Verdict<'a> {
        if attributes.is("", "namespaces") {
            let old = old.filter(|_| attributes.operation == Operation::Update);
            return Verdict::later(self.check_namespace(attributes, object, old, warnings));
        }
        if let Some(why) = self.exemption(attributes) {
            note(attributes.annotations, "exempt", why);
            return Verdict::PASS;
        }
        match self.namespaces.store().get(&ObjectKey::new("", attributes.namespace)) {
            Some(namespace) => Verdict::Now(self.check(attributes, (object, old), warnings, &namespace)),
            None => Verdict::later(async move {
                let namespace = self.namespace(attributes.namespace).await?;
                self.check(attributes, (object, old), warnings, &namespace)
            }),
        }
    }
}

#[cfg(test)]
mod tests;
