//! LimitRanger: defaults and bounds for what containers, pods and claims ask for (upstream
//! `plugin/pkg/admission/limitranger`).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::pod::{self, Resources};
use api::quantity::Quantity;
use api::status::ApiError;
use client::Client;
use client::informer::Informer;
use k8s_openapi::api::core::v1::{
    Container, LimitRange, LimitRangeItem, PersistentVolumeClaim, Pod, PodSpec,
};
use kube::Api;
use kube::api::ListParams;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{Attributes, Deps, Operation, Plugin, Verdict, decode, member, text};

const ANNOTATION: &str = "kubernetes.io/limit-ranger";
/// A namespace found without limits by asking the API is believed to have none for so long.
const BELIEVED: Duration = Duration::from_secs(30);
const REMEMBERED: usize = 10_000;

/// The plugin.
pub struct LimitRanger {
    client: Client,
    limits: Informer<LimitRange>,
    without: Mutex<HashMap<String, Instant>>,
}

impl LimitRanger {
    /// Watches limit ranges.
    pub fn new(deps: &Deps<'_>) -> Self {
        let limits = deps.informers.informer::<LimitRange>();
        Self { client: deps.client.clone(), limits, without: Mutex::default() }
    }

    /// The limit ranges of a namespace. The cache may be behind: where it knows none the API is asked, now and then.
    fn known(&self, namespace: &str) -> Option<Vec<Arc<LimitRange>>> {
        let known = self.limits.store().list_namespace(namespace);
        let none = || self.without.lock().get(namespace).is_some_and(|until| *until > Instant::now());
        (!known.is_empty() || none()).then_some(known)
    }

    /// Judges by the limit ranges of a namespace.
    fn with_ranges<'a>(
        &'a self,
        namespace: &'a str,
        judge: impl FnOnce(&[Arc<LimitRange>]) -> Result<(), ApiError> + Send + 'a,
    ) -> Verdict<'a> {
        match self.known(namespace) {
            Some(ranges) => Verdict::Now(judge(&ranges)),
            None => Verdict::later(async move { judge(&self.listed(namespace).await?) }),
        }
    }

    async fn listed(&self, namespace: &str) -> Result<Vec<Arc<LimitRange>>, ApiError> {
        let list =
            Api::<LimitRange>::namespaced(self.client.clone(), namespace).list(&ListParams::default()).await;
        let list = list.map_err(crate::authz::from_client)?.items;
        if list.is_empty() {
            let mut without = self.without.lock();
            if without.len() >= REMEMBERED {
                without.clear();
            }
            without.insert(namespace.to_owned(), Instant::now() + BELIEVED);
        }
        Ok(list.into_iter().map(Arc::new).collect())
    }
}

fn items(range: &LimitRange) -> &[LimitRangeItem] {
    range.spec.as_ref().map(|spec| spec.limits.as_slice()).unwrap_or_default()
}

/// The default requests and limits of containers.
fn defaults(range: &LimitRange) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
    let (mut requests, mut limits) = (BTreeMap::new(), BTreeMap::new());
    for item in items(range).iter().filter(|item| item.type_ == "Container") {
        let texts = |list: &Option<
            BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>,
        >| {
            list.iter().flatten().map(|(name, amount)| (name.clone(), amount.0.clone())).collect::<Vec<_>>()
        };
        requests.extend(texts(&item.default_request));
        limits.extend(texts(&item.default));
    }
    (requests, limits)
}

/// Gives containers the defaults they lack, and notes in an annotation what was set.
fn set_defaults(range: &LimitRange, object: &mut Value) {
    let (requests, limits) = defaults(range);
    if requests.is_empty() && limits.is_empty() {
        return;
    }
    let mut notes = Vec::new();
    for (list, title) in [("containers", "container"), ("initContainers", "init container")] {
        let containers = object["spec"].get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let name = text(container, "name").to_owned();
            let mut fill = |field: &str, what: &str, defaults: &BTreeMap<String, String>| {
                let missing: Vec<_> = defaults
                    .iter()
                    .filter(|(resource, _)| container["resources"][field].get(resource.as_str()).is_none())
                    .collect();
                if missing.is_empty() {
                    return;
                }
                let target = member(member(container, "resources"), field);
                for (resource, amount) in &missing {
                    target[resource.as_str()] = json!(amount);
                }
                let names: Vec<&str> = missing.iter().map(|(resource, _)| resource.as_str()).collect();
                notes.push(format!("{} {what} for {title} {name}", names.join(", ")));
            };
            fill("requests", "request", &requests);
            fill("limits", "limit", &limits);
        }
    }
    if !notes.is_empty() {
        let note = format!("LimitRanger plugin set: {}", notes.join("; "));
        member(member(object, "metadata"), "annotations")[ANNOTATION] = json!(note);
    }
}

/// What is asked for, and where the bounds are from.
struct Asked<'a> {
    kind: &'a str,
    requests: &'a Resources,
    limits: &'a Resources,
}

impl Asked<'_> {
    fn min(&self, name: &str, bound: &Quantity) -> Option<String> {
        let start = format!("minimum {name} usage per {} is {bound}", self.kind);
        let Some(request) = self.requests.get(name) else {
            return Some(format!("{start}.  No request is specified"));
        };
        if request < bound {
            return Some(format!("{start}, but request is {request}"));
        }
        let limit = self.limits.get(name).filter(|limit| *limit < bound);
        limit.map(|limit| format!("{start}, but limit is {limit}"))
    }

    fn max(&self, name: &str, bound: &Quantity) -> Option<String> {
        let start = format!("maximum {name} usage per {} is {bound}", self.kind);
        let Some(limit) = self.limits.get(name) else {
            return Some(format!("{start}.  No limit is specified"));
        };
        if limit > bound {
            return Some(format!("{start}, but limit is {limit}"));
        }
        let request = self.requests.get(name).filter(|request| *request > bound);
        request.map(|request| format!("{start}, but request is {request}"))
    }

    fn max_request(&self, name: &str, bound: &Quantity) -> Option<String> {
        let start = format!("maximum {name} usage per {} is {bound}", self.kind);
        match self.requests.get(name) {
            None => Some(format!("{start}.  No request is specified")),
            Some(request) if request > bound => Some(format!("{start}, but request is {request}")),
            Some(_) => None,
        }
    }

    fn ratio(&self, name: &str, bound: &Quantity) -> Option<String> {
        let start = format!("{name} max limit to request ratio per {} is {bound}", self.kind);
        let amount =
            |list: &Resources| list.get(name).filter(|amount| !amount.is_zero()).map(Quantity::as_f64);
        let Some(request) = amount(self.requests) else {
            return Some(format!("{start}, but no request is specified or request is 0"));
        };
        let Some(limit) = amount(self.limits) else {
            return Some(format!("{start}, but no limit is specified or limit is 0"));
        };
        let ratio = limit / request;
        (ratio > bound.as_f64()).then(|| format!("{start}, but provided ratio is {ratio:.6}"))
    }

    fn check(&self, item: &LimitRangeItem, errors: &mut Vec<String>) {
        errors.extend(pod::read(item.min.as_ref()).iter().filter_map(|(name, bound)| self.min(name, bound)));
        errors.extend(pod::read(item.max.as_ref()).iter().filter_map(|(name, bound)| self.max(name, bound)));
        let ratios = pod::read(item.max_limit_request_ratio.as_ref());
        errors.extend(ratios.iter().filter_map(|(name, bound)| self.ratio(name, bound)));
    }
}

fn check_pod(range: &LimitRange, pod: &Pod) -> Vec<String> {
    let mut errors = Vec::new();
    let Some(spec) = &pod.spec else { return errors };
    for item in items(range) {
        match item.type_.as_str() {
            "Container" => {
                for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
                    let (requests, limits) = resources(container);
                    let asked = Asked { kind: "Container", requests: &requests, limits: &limits };
                    asked.check(item, &mut errors);
                }
            }
            "Pod" => {
                let (requests, limits) = pod_resources(spec);
                Asked { kind: "Pod", requests: &requests, limits: &limits }.check(item, &mut errors);
            }
            _ => {}
        }
    }
    errors
}

fn resources(container: &Container) -> (Resources, Resources) {
    let resources = container.resources.as_ref();
    (
        pod::read(resources.and_then(|resources| resources.requests.as_ref())),
        pod::read(resources.and_then(|resources| resources.limits.as_ref())),
    )
}

/// Sums over containers by the init and sidecar rules; pod-level amounts replace them.
fn pod_resources(spec: &PodSpec) -> (Resources, Resources) {
    let mut requests = pod::aggregate_container_requests(spec);
    let mut limits = pod::aggregate_container_limits(spec);
    if let Some(level) = &spec.resources {
        requests.extend(pod::read(level.requests.as_ref()));
        limits.extend(pod::read(level.limits.as_ref()));
    }
    (requests, limits)
}

fn check_claim(range: &LimitRange, claim: &PersistentVolumeClaim) -> Vec<String> {
    let mut errors = Vec::new();
    let asked = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let requests = pod::read(asked.and_then(|resources| resources.requests.as_ref()));
    let none = Resources::new();
    let kind = "PersistentVolumeClaim";
    let asked = Asked { kind, requests: &requests, limits: &none };
    for item in items(range).iter().filter(|item| item.type_ == kind) {
        errors.extend(pod::read(item.min.as_ref()).iter().filter_map(|(name, bound)| asked.min(name, bound)));
        errors.extend(
            pod::read(item.max.as_ref()).iter().filter_map(|(name, bound)| asked.max_request(name, bound)),
        );
    }
    errors
}

/// Several errors as one, each once (upstream `utilerrors.NewAggregate`).
pub(super) fn aggregate(errors: Vec<String>) -> Option<String> {
    let mut unique: Vec<String> = Vec::new();
    for error in errors {
        if !unique.contains(&error) {
            unique.push(error);
        }
    }
    match unique.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        many => Some(format!("[{}]", many.join(", "))),
    }
}

impl Plugin for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        match attributes.operation {
            Operation::Create => attributes.is("", "pods") || attributes.is("", "persistentvolumeclaims"),
            Operation::Update => {
                attributes.is("", "persistentvolumeclaims")
                    || (attributes.is_any("", "pods") && attributes.subresource == "resize")
            }
            _ => false,
        }
    }

    fn admit<'a>(
        &'a self,
        attributes: &'a Attributes<'_>,
        object: &'a mut Value,
        old: Option<&'a Value>,
        _: &'a mut Vec<String>,
    ) -> Verdict<'a> {
        if is_leaving(old) || !attributes.is_any("", "pods") {
            return Verdict::PASS;
        }
        self.with_ranges(attributes.namespace, |ranges| {
            ranges.iter().for_each(|range| set_defaults(range, object));
            Ok(())
        })
    }

    fn validate<'a>(
        &'a self,
        attributes: &'a Attributes<'_>,
        object: &'a Value,
        old: Option<&'a Value>,
        _: &'a mut Vec<String>,
    ) -> Verdict<'a> {
        if is_leaving(old) {
            return Verdict::PASS;
        }
        self.with_ranges(attributes.namespace, |ranges| {
            ranges.iter().try_for_each(|range| check(range, attributes, object))
        })
    }
}

fn is_leaving(old: Option<&Value>) -> bool {
    old.is_some_and(|old| old["metadata"].get("deletionTimestamp").is_some())
}

fn check(range: &LimitRange, attributes: &Attributes<'_>, object: &Value) -> Result<(), ApiError> {
    let errors = if attributes.is_any("", "pods") {
        check_pod(range, &decode(object)?)
    } else {
        check_claim(range, &decode(object)?)
    };
    match aggregate(errors) {
        Some(why) => Err(attributes.forbidden(object, &why)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(value: Value) -> LimitRange {
        serde_json::from_value(json!({"metadata": {}, "spec": {"limits": [value]}})).expect("range")
    }

    fn pod(resources: &[Value]) -> Pod {
        let containers: Vec<_> = resources.iter().map(|r| json!({"name": "c", "resources": r})).collect();
        serde_json::from_value(json!({"metadata": {}, "spec": {"containers": containers}})).expect("pod")
    }

    #[test]
    fn defaults_are_set_and_noted() {
        let range = range(
            json!({"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "100m", "memory": "1Gi"}}),
        );
        let mut object = json!({"metadata": {}, "spec": {"containers": [
            {"name": "a"}, {"name": "b", "resources": {"limits": {"cpu": "2"}, "requests": {"cpu": "1"}}}]}});
        set_defaults(&range, &mut object);
        let containers = &object["spec"]["containers"];
        assert_eq!(
            containers[0]["resources"],
            json!({"limits": {"cpu": "1"}, "requests": {"cpu": "100m", "memory": "1Gi"}})
        );
        assert_eq!(
            containers[1]["resources"],
            json!({"limits": {"cpu": "2"}, "requests": {"cpu": "1", "memory": "1Gi"}})
        );
        assert_eq!(
            object["metadata"]["annotations"][ANNOTATION],
            "LimitRanger plugin set: cpu, memory request for container a; cpu limit for container a; memory request for \
             container b"
        );
    }

    #[test]
    fn bounds_are_kept() {
        let container = |value: Value| {
            let mut value = value;
            value["type"] = json!("Container");
            range(value)
        };
        for (range, resources, expected) in [
            (container(json!({"max": {"cpu": "1"}})), json!({"limits": {"cpu": "1"}}), None),
            (
                container(json!({"max": {"cpu": "1"}})),
                json!({"limits": {"cpu": "2"}}),
                Some("maximum cpu usage per Container is 1, but limit is 2"),
            ),
            (
                container(json!({"max": {"cpu": "1"}})),
                json!({}),
                Some("maximum cpu usage per Container is 1.  No limit is specified"),
            ),
            (
                container(json!({"min": {"cpu": "100m", "memory": "32Mi"}})),
                json!({"requests": {"cpu": "10m", "memory": "1Mi"}}),
                Some(
                    "[minimum cpu usage per Container is 100m, but request is 10m, minimum memory usage per Container is \
                     32Mi, but request is 1Mi]",
                ),
            ),
            (
                container(json!({"maxLimitRequestRatio": {"cpu": "4"}})),
                json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "1"}}),
                Some("cpu max limit to request ratio per Container is 4, but provided ratio is 10.000000"),
            ),
        ] {
            assert_eq!(aggregate(check_pod(&range, &pod(&[resources]))).as_deref(), expected);
        }
    }

    #[test]
    fn pods_are_summed() {
        let range = range(json!({"type": "Pod", "max": {"cpu": "1"}}));
        let half = json!({"limits": {"cpu": "600m"}});
        let errors = check_pod(&range, &pod(&[half.clone(), half]));
        assert_eq!(errors, ["maximum cpu usage per Pod is 1, but limit is 1200m"]);
    }

    #[test]
    fn claims_are_bound() {
        let range = range(
            json!({"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "5Gi"}}),
        );
        for (size, expected) in [
            ("2Gi", None),
            ("500Mi", Some("minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 500Mi")),
            ("10Gi", Some("maximum storage usage per PersistentVolumeClaim is 5Gi, but request is 10Gi")),
        ] {
            let claim = json!({"metadata": {}, "spec": {"resources": {"requests": {"storage": size}}}});
            let claim = serde_json::from_value(claim).expect("claim");
            assert_eq!(aggregate(check_claim(&range, &claim)).as_deref(), expected);
        }
    }
}
