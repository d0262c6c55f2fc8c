//! Whether the servers of APIServices can be reached (upstream `controllers/status/{local,remote}`).

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use client::controller::{Action, run_workers};
use client::{Api, ObjectKey};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{
    APIService, APIServiceCondition, APIServiceStatus,
};
use kube::ResourceExt;
use kube::api::PostParams;
use tokio_util::sync::CancellationToken;

use super::backend::AVAILABLE;
use super::{Aggregator, Backend};
use crate::authn::{MASTERS, User};
use crate::streaming::authority;

/// How often a server that answers is looked at again ...
const INTERVAL: Duration = Duration::from_secs(30);
/// ... and one that does not.
const SOON: Duration = Duration::from_secs(1);
/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many tries there are: one that succeeds is enough.
const ATTEMPTS: usize = 5;
/// APIServices that are looked at at once.
const WORKERS: usize = 5;
/// Who the server is in `managedFields`.
const MANAGER: &str = "kube-apiserver";

/// What was found out about an APIService.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    available: bool,
    reason: &'static str,
    message: String,
}

impl Finding {
    fn unavailable(reason: &'static str, message: String) -> Self {
        Self { available: false, reason, message }
    }

    fn passed() -> Self {
        Self { available: true, reason: "Passed", message: "all checks passed".to_owned() }
    }

    fn local() -> Self {
        let message = "Local APIServices are always available".to_owned();
        Self { available: true, reason: "Local", message }
    }
}

/// Who the server says it is when it looks at others.
pub(super) fn aggregator() -> User {
    User { name: "system:kube-aggregator".to_owned(), groups: vec![MASTERS.to_owned()], ..User::default() }
}

impl Aggregator {
    /// Looks after APIServices until `token` is cancelled.
    pub(super) async fn look_after(self, token: CancellationToken) {
        let resolver = &self.inner.resolver;
        tokio::select! {
            biased;
            () = token.cancelled() => return,
            _ = async { tokio::join!(
                self.inner.services.synced(), resolver.services().synced(), resolver.slices().synced()) } => {}
        }
        let queue = self.inner.queue.clone();
        run_workers("api-services", queue, WORKERS, token, move |key| {
            let this = self.clone();
            async move { this.reconcile(&key).await }
        })
        .await;
    }

    async fn reconcile(&self, key: &ObjectKey) -> anyhow::Result<Action> {
        let inner = &self.inner;
        let Some(service) = inner.services.store().get(key) else { return Ok(Action::Done) };
        let backend = inner.backends.read().get(&key.name).cloned();
        let Some(backend) = backend else {
            self.write(&service, &Finding::local()).await?;
            return Ok(Action::Done);
        };
        let server = &backend.service;
        let behind = inner.resolver.services().store();
        let behind = behind.get(&ObjectKey::new(server.namespace.as_str(), server.name.as_str()));
        let slices = inner.resolver.slices_of(&server.namespace, &server.name);
        let slices: Vec<&EndpointSlice> = slices.iter().map(AsRef::as_ref).collect();
        let finding = match check(&backend, behind.as_deref(), &slices) {
            Some(finding) => finding,
            None => match self.ask(&backend).await {
                Ok(()) => Finding::passed(),
                Err(why) => Finding::unavailable("FailedDiscoveryCheck", why),
            },
        };
        self.write(&service, &finding).await?;
        self.discover(&backend, finding.available).await;
        Ok(Action::RequeueAfter(match (finding.available, finding.reason) {
            (false, "FailedDiscoveryCheck") => SOON,
            _ => INTERVAL,
        }))
    }

    /// Asks a server for what it must have; several times, as there may be several behind a Service.
    async fn ask(&self, backend: &Arc<Backend>) -> Result<(), String> {
        let first = self.ask_once(backend).await;
        if first.is_ok() {
            return first;
        }
        let mut more: FuturesUnordered<_> = (1..ATTEMPTS).map(|_| self.ask_once(backend)).collect();
        let mut last = first;
        while let Some(outcome) = more.next().await {
            last = outcome;
            if last.is_ok() {
                break;
            }
        }
        last
    }

    async fn ask_once(&self, backend: &Backend) -> Result<(), String> {
        let (host, port) =
            self.inner.resolver.resolve(&backend.service).await.map_err(|why| why.to_string())?;
        let path = format!("/apis/{}/{}", backend.group, backend.version);
        let url = format!("https://{}{path}", authority(&host, port));
        let failed = |why: String| format!("failing or missing response from {url}: {why}");
        let asked = tokio::time::timeout(PATIENCE, backend.get(&path, "*/*", &aggregator())).await;
        match asked {
            Ok(Ok(answer)) if (200..300).contains(&answer.status) => Ok(()),
            Ok(Ok(answer)) => Err(failed(format!("bad status from {url}: {}", answer.status))),
            Ok(Err(why)) => Err(failed(format!("Get {url:?}: {why}"))),
            Err(_) => Err(failed(format!(
                "Get {url:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
            ))),
        }
    }

    async fn write(&self, service: &APIService, finding: &Finding) -> anyhow::Result<()> {
        let Some(status) = changed(service.status.as_ref(), finding, Timestamp::now()) else { return Ok(()) };
        let name = service.name_any();
        tracing::info!(
            api_service = name,
            available = finding.available,
            reason = finding.reason,
            message = finding.message,
            "the availability of an APIService changed"
        );
        let written = APIService { status: Some(status), ..service.clone() };
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let api: Api<APIService> = Api::all(self.inner.client.clone());
        match api.replace_status(&name, &params, &written).await {
            Ok(_) => Ok(()),
            Err(error) if client::is_not_found(&error) => Ok(()),
            Err(error) => Err(error).context("write the status of an APIService"),
        }
    }
}

/// What can be told without asking the server; `None`: it must be asked.
fn check(backend: &Backend, service: Option<&Service>, slices: &[&EndpointSlice]) -> Option<Finding> {
    let (name, namespace, port) = (&backend.service.name, &backend.service.namespace, backend.service.port);
    let Some(service) = service else {
        let message = format!("service/{name} in {namespace:?} is not present");
        return Some(Finding::unavailable("ServiceNotFound", message));
    };
    let spec = service.spec.as_ref();
    if spec.and_then(|spec| spec.type_.as_deref()).unwrap_or("ClusterIP") != "ClusterIP" {
        return None;
    }
    let mut ports = spec.and_then(|spec| spec.ports.as_ref()).into_iter().flatten();
    let Some(found) = ports.find(|known| known.port == i32::from(port)) else {
        let message = format!("service/{name} in {namespace:?} is not listening on port {port}");
        return Some(Finding::unavailable("ServicePortError", message));
    };
    if slices.is_empty() {
        let message = format!("cannot find endpointslices for service/{name} in {namespace:?}");
        return Some(Finding::unavailable("EndpointsNotFound", message));
    }
    let port_name = found.name.as_deref().unwrap_or_default();
    if slices.iter().any(|slice| is_active(slice, port_name)) {
        return None;
    }
    let message = format!(
        "endpointslices for service/{name} in {namespace:?} have no addresses with port name {port_name:?}"
    );
    Some(Finding::unavailable("MissingEndpoints", message))
}

fn is_active(slice: &EndpointSlice, port_name: &str) -> bool {
    let ready = slice.endpoints.iter().flatten().any(|endpoint| {
        endpoint.conditions.as_ref().is_none_or(|conditions| conditions.ready != Some(false))
    });
    let mut ports = slice.ports.iter().flatten();
    ready && ports.any(|port| port.name.as_deref().unwrap_or_default() == port_name && port.port.is_some())
}

/// The status with what was found out; `None` if it says so already.
fn changed(before: Option<&APIServiceStatus>, finding: &Finding, now: Timestamp) -> Option<APIServiceStatus> {
    let mut status = before.cloned().unwrap_or_default();
    let conditions = status.conditions.get_or_insert_with(Vec::new);
    let wanted = if finding.available { "True" } else { "False" };
    let fresh = APIServiceCondition {
        type_: AVAILABLE.to_owned(),
        status: wanted.to_owned(),
        reason: Some(finding.reason.to_owned()),
        message: Some(finding.message.clone()),
        last_transition_time: Some(Time(now)),
    };
    match conditions.iter_mut().find(|condition| condition.type_ == AVAILABLE) {
        Some(known) if known.status == wanted => {
            let kept =
                APIServiceCondition { last_transition_time: known.last_transition_time.clone(), ..fresh };
            if *known == kept {
                return None;
            }
            *known = kept;
        }
        Some(known) => *known = fresh,
        None => conditions.push(fresh),
    }
    Some(status)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::remote::{ServicePort, Trust};

    fn backend() -> Backend {
        Backend::for_tests(
            ServicePort { namespace: "ns".into(), name: "api".into(), port: 443 },
            Trust::Anybody,
        )
    }

    // After upstream's TestSync.
    #[test]
    fn what_is_missing_is_told() {
        let service =
            |spec: Value| -> Service { serde_json::from_value(json!({"spec": spec})).expect("service") };
        let slice = |ready: bool, port: &str| -> EndpointSlice {
            let slice = json!({"addressType": "IPv4", "ports": [{"name": port, "port": 6443}],
                               "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": ready}}]});
            serde_json::from_value(slice).expect("slice")
        };
        let ports = json!([{"port": 443, "name": "https"}]);
        let plain = service(json!({"type": "ClusterIP", "ports": ports}));
        let (good, unready, other) = (slice(true, "https"), slice(false, "https"), slice(true, "http"));
        for (service, slices, expected) in [
            (None, vec![], Some(("ServiceNotFound", "service/api in \"ns\" is not present"))),
            (
                Some(service(json!({"ports": [{"port": 80}]}))),
                vec![&good],
                Some(("ServicePortError", "service/api in \"ns\" is not listening on port 443")),
            ),
            (
                Some(plain.clone()),
                vec![],
                Some(("EndpointsNotFound", "cannot find endpointslices for service/api in \"ns\"")),
            ),
            (
                Some(plain.clone()),
                vec![&unready, &other],
                Some((
                    "MissingEndpoints",
                    "endpointslices for service/api in \"ns\" have no addresses with port name \"https\"",
                )),
            ),
            (Some(plain), vec![&unready, &good], None),
            (Some(service(json!({"type": "ExternalName"}))), vec![], None),
        ] {
            let found = check(&backend(), service.as_ref(), &slices);
            let found = found.as_ref().map(|finding| (finding.reason, finding.message.as_str()));
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_condition_moves_only_with_its_status() {
        let at = |second: i64| Timestamp::from_second(second).expect("a time");
        let lost = Finding::unavailable("ServiceNotFound", "gone".into());
        let first = changed(None, &lost, at(1)).expect("new");
        assert_eq!(changed(Some(&first), &lost, at(2)), None);
        let other = Finding::unavailable("MissingEndpoints", "none".into());
        let second = changed(Some(&first), &other, at(2)).expect("another reason");
        let condition = |status: &APIServiceStatus| status.conditions.clone().expect("conditions")[0].clone();
        assert_eq!(condition(&second).last_transition_time, Some(Time(at(1))));
        let third = changed(Some(&second), &Finding::passed(), at(3)).expect("available");
        assert_eq!(condition(&third).last_transition_time, Some(Time(at(3))));
        assert_eq!(condition(&third).message.as_deref(), Some("all checks passed"));
    }
}
