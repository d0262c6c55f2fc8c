//! Which pod and container a request is about.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use proto::cri;

use super::Server;
use crate::containers::labels;
use crate::types;

/// A pod, and a container of it, as a path names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Namespace.
    pub namespace: String,
    /// Pod.
    pub pod: String,
    /// UID, when it is given.
    pub uid: Option<String>,
    /// Container; empty for the pod as a whole.
    pub container: String,
}

impl Target {
    /// From `NAMESPACE/POD[/UID]/CONTAINER`.
    #[must_use]
    pub fn of_container(parts: &[&str]) -> Option<Self> {
        match parts {
            [namespace, pod, container] => Some(Self::new(namespace, pod, None, container)),
            [namespace, pod, uid, container] => Some(Self::new(namespace, pod, Some(uid), container)),
            _ => None,
        }
    }

    /// From `NAMESPACE/POD[/UID]`.
    #[must_use]
    pub fn of_pod(parts: &[&str]) -> Option<Self> {
        match parts {
            [namespace, pod] => Some(Self::new(namespace, pod, None, "")),
            [namespace, pod, uid] => Some(Self::new(namespace, pod, Some(uid), "")),
            _ => None,
        }
    }

    fn new(namespace: &str, pod: &str, uid: Option<&str>, container: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            uid: uid.map(str::to_owned),
            container: container.to_owned(),
        }
    }

    /// The pod, if this node has it.
    #[must_use]
    pub fn find(&self, server: &Server) -> Option<Arc<Pod>> {
        let pod = match &self.uid {
            Some(uid) => server.deps.pods.by_uid(uid),
            None => server.deps.pods.by_name(&self.namespace, &self.pod),
        };
        pod.filter(|pod| types::name(pod) == self.pod && types::namespace(pod) == self.namespace)
    }
}

fn selector(uid: &str, container: Option<&str>) -> std::collections::HashMap<String, String> {
    let mut labels = std::collections::HashMap::from([(labels::POD_UID.to_owned(), uid.to_owned())]);
    labels.extend(container.map(|name| (labels::CONTAINER_NAME.to_owned(), name.to_owned())));
    labels
}

/// The running container of a pod; the newest, should there be more than one.
pub async fn running_container(server: &Server, pod: &Pod, container: &str) -> Result<String, String> {
    let running = cri::ContainerStateValue { state: cri::ContainerState::ContainerRunning as i32 };
    let filter = cri::ContainerFilter {
        state: Some(running),
        label_selector: selector(types::uid(pod), Some(container)).into_iter().collect(),
        ..cri::ContainerFilter::default()
    };
    let found =
        server.deps.runtime.list_containers(Some(filter)).await.map_err(|error| client::chain(&error))?;
    let newest = found
        .into_iter()
        .max_by_key(|container| (container.metadata.as_ref().map(|m| m.attempt), container.created_at));
    newest.map(|container| container.id).ok_or_else(|| format!("container not found (\"{container}\")"))
}

/// The ready sandbox of a pod.
pub async fn ready_sandbox(server: &Server, pod: &Pod) -> Result<String, String> {
    let ready = cri::PodSandboxStateValue { state: cri::PodSandboxState::SandboxReady as i32 };
    let filter = cri::PodSandboxFilter {
        state: Some(ready),
        label_selector: selector(types::uid(pod), None).into_iter().collect(),
        ..cri::PodSandboxFilter::default()
    };
    let found =
        server.deps.runtime.list_pod_sandboxes(Some(filter)).await.map_err(|error| client::chain(&error))?;
    let newest = found
        .into_iter()
        .max_by_key(|sandbox| (sandbox.metadata.as_ref().map(|m| m.attempt), sandbox.created_at));
    newest
        .map(|sandbox| sandbox.id)
        .ok_or_else(|| format!("failed to find sandbox for pod {:?}", types::name(pod)))
}

/// The container whose log is meant, by the pod's status: as upstream's validateContainerLogStatus.
pub fn logged_container(
    pod: &str,
    status: &PodStatus,
    container: &str,
    previous: bool,
) -> Result<String, String> {
    let lists =
        [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    let mut all = lists.into_iter().flat_map(|list| list.iter().flatten());
    let Some(found) = all.find(|status| status.name == container) else {
        return Err(format!("container {container:?} in pod {pod:?} is not available"));
    };
    choose(pod, found, previous).map(|id| id.split_once("://").map_or(id.clone(), |(_, id)| id.to_owned()))
}

fn choose(pod: &str, status: &ContainerStatus, previous: bool) -> Result<String, String> {
    let name = &status.name;
    let before = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    let before = before.and_then(|ended| ended.container_id.clone()).filter(|id| !id.is_empty());
    if previous {
        return before
            .ok_or_else(|| format!("previous terminated container {name:?} in pod {pod:?} not found"));
    }
    let state = status.state.clone().unwrap_or_default();
    if state.running.is_some() {
        return status
            .container_id
            .clone()
            .ok_or_else(|| format!("container {name:?} in pod {pod:?} is not available"));
    }
    if let Some(ended) = state.terminated {
        let own = ended.container_id.filter(|id| !id.is_empty());
        return own.or(before).ok_or_else(|| format!("container {name:?} in pod {pod:?} is terminated"));
    }
    if let Some(before) = before {
        return Ok(before);
    }
    Err(match state.waiting.map(|waiting| waiting.reason.unwrap_or_default()) {
        Some(reason) => {
            let why = match reason.as_str() {
                "ErrImagePull" => "image can't be pulled",
                "ImagePullBackOff" => "trying and failing to pull image",
                other => other,
            };
            format!("container {name:?} in pod {pod:?} is waiting to start: {why}")
        }
        None => format!("container {name:?} in pod {pod:?} is waiting to start - no logs yet"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_targets() {
        let target = Target::of_container(&["ns", "p", "c"]).unwrap();
        assert_eq!((target.uid, target.container.as_str()), (None, "c"));
        let target = Target::of_container(&["ns", "p", "u", "c"]).unwrap();
        assert_eq!((target.uid.as_deref(), target.container.as_str()), (Some("u"), "c"));
        assert_eq!(Target::of_pod(&["ns", "p"]).unwrap().uid, None);
        assert!(Target::of_container(&["ns", "p"]).is_none() && Target::of_pod(&["ns"]).is_none());
    }

    #[test]
    fn logs_are_those_of_the_container_that_ran_last() {
        let ended = |id: &str| serde_json::json!({"terminated": {"exitCode": 1, "containerID": id}});
        for (state, last, previous, want) in [
            (serde_json::json!({"running": {}}), serde_json::json!({}), false, Ok("now")),
            (
                serde_json::json!({"running": {}}),
                serde_json::json!({}),
                true,
                Err("previous terminated container \"c\" in pod \"p\" not found"),
            ),
            (serde_json::json!({"running": {}}), ended("containerd://old"), true, Ok("old")),
            (ended("containerd://done"), serde_json::json!({}), false, Ok("done")),
            (
                serde_json::json!({"waiting": {"reason": "CrashLoopBackOff"}}),
                ended("containerd://old"),
                false,
                Ok("old"),
            ),
            (
                serde_json::json!({"waiting": {"reason": "ContainerCreating"}}),
                serde_json::json!({}),
                false,
                Err("container \"c\" in pod \"p\" is waiting to start: ContainerCreating"),
            ),
            (
                serde_json::json!({"waiting": {"reason": "ImagePullBackOff"}}),
                serde_json::json!({}),
                false,
                Err("container \"c\" in pod \"p\" is waiting to start: trying and failing to pull image"),
            ),
        ] {
            let status: PodStatus = serde_json::from_value(serde_json::json!({"containerStatuses": [
                {"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "containerID": "containerd://now", "state": state, "lastState": last}
            ]}))
            .unwrap();
            assert_eq!(
                logged_container("p", &status, "c", previous),
                want.map(str::to_owned).map_err(str::to_owned)
            );
        }
        let none = logged_container("p", &PodStatus::default(), "c", false);
        assert_eq!(none.unwrap_err(), "container \"c\" in pod \"p\" is not available");
    }
}
