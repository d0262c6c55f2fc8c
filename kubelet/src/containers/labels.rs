//! Labels and annotations on sandboxes and containers: all that a restarted kubelet knows of what it finds running.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Container, ContainerPort, LifecycleHandler, Pod};

use super::hash;
use crate::types;

/// Label with the pod's name.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
/// Label with the pod's namespace.
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Label with the pod's UID.
pub const POD_UID: &str = "io.kubernetes.pod.uid";
/// Label with the container's name.
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";

const DELETION_GRACE: &str = "io.kubernetes.pod.deletionGracePeriod";
const TERMINATION_GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";
const HASH: &str = "io.kubernetes.container.hash";
const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
const MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
const MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
const PRE_STOP: &str = "io.kubernetes.container.preStopHandler";
const PORTS: &str = "io.kubernetes.container.ports";

/// Labels of a pod's sandbox: the pod's own and its identity.
#[must_use]
pub fn sandbox_labels(pod: &Pod) -> HashMap<String, String> {
    let mut labels: HashMap<_, _> = pod.metadata.labels.clone().unwrap_or_default().into_iter().collect();
    labels.extend(pod_identity(pod));
    labels
}

/// Annotations of a pod's sandbox: the pod's own.
#[must_use]
pub fn sandbox_annotations(pod: &Pod) -> HashMap<String, String> {
    pod.metadata.annotations.clone().unwrap_or_default().into_iter().collect()
}

/// Labels of a container.
#[must_use]
pub fn container_labels(pod: &Pod, container: &str) -> HashMap<String, String> {
    let mut labels: HashMap<_, _> = pod_identity(pod).into_iter().collect();
    labels.insert(CONTAINER_NAME.to_owned(), container.to_owned());
    labels
}

fn pod_identity(pod: &Pod) -> [(String, String); 3] {
    [
        (POD_NAME.to_owned(), types::name(pod).to_owned()),
        (POD_NAMESPACE.to_owned(), types::namespace(pod).to_owned()),
        (POD_UID.to_owned(), types::uid(pod).to_owned()),
    ]
}

/// Annotations of a container: what is needed to stop it properly when its pod is no longer known.
#[must_use]
pub fn container_annotations(
    pod: &Pod,
    container: &Container,
    restart_count: i32,
) -> HashMap<String, String> {
    let mut all = HashMap::from([
        (HASH.to_owned(), hash::container_hash(container)),
        (RESTART_COUNT.to_owned(), restart_count.to_string()),
        (MESSAGE_PATH.to_owned(), container.termination_message_path.clone().unwrap_or_default()),
        (MESSAGE_POLICY.to_owned(), container.termination_message_policy.clone().unwrap_or_default()),
    ]);
    if let Some(grace) = pod.metadata.deletion_grace_period_seconds {
        all.insert(DELETION_GRACE.to_owned(), grace.to_string());
    }
    if let Some(grace) = types::spec(pod).termination_grace_period_seconds {
        all.insert(TERMINATION_GRACE.to_owned(), grace.to_string());
    }
    let pre_stop = container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref());
    if let Some(text) = pre_stop.and_then(|h| serde_json::to_string(h).ok()) {
        all.insert(PRE_STOP.to_owned(), text);
    }
    if let Some(text) =
        container.ports.as_ref().filter(|p| !p.is_empty()).and_then(|p| serde_json::to_string(p).ok())
    {
        all.insert(PORTS.to_owned(), text);
    }
    all
}

/// What a container's labels and annotations say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerInfo {
    /// Name in the pod's spec.
    pub name: String,
    /// Name of the pod.
    pub pod_name: String,
    /// Namespace of the pod.
    pub pod_namespace: String,
    /// UID of the pod.
    pub pod_uid: String,
    /// Hash of the spec it was made from.
    pub hash: String,
    /// How often it had been created before.
    pub restart_count: Option<i32>,
    /// Grace with which the pod was being deleted.
    pub deletion_grace: Option<i64>,
    /// Grace of the pod's spec.
    pub termination_grace: Option<i64>,
    /// Where it writes its termination message.
    pub message_path: String,
    /// `File` or `FallbackToLogsOnError`.
    pub message_policy: String,
    /// Its preStop hook.
    pub pre_stop: Option<LifecycleHandler>,
    /// Its ports, for hooks that name one.
    pub ports: Vec<ContainerPort>,
}

impl ContainerInfo {
    /// Reads what [`container_labels`] and [`container_annotations`] wrote; what is unreadable is left out.
    #[must_use]
    pub fn read(labels: &HashMap<String, String>, annotations: &HashMap<String, String>) -> Self {
        let text = |from: &HashMap<String, String>, key: &str| from.get(key).cloned().unwrap_or_default();
        let number = |key: &str| annotations.get(key).and_then(|v| v.parse().ok());
        Self {
            name: text(labels, CONTAINER_NAME),
            pod_name: text(labels, POD_NAME),
            pod_namespace: text(labels, POD_NAMESPACE),
            pod_uid: text(labels, POD_UID),
            hash: text(annotations, HASH),
            restart_count: annotations.get(RESTART_COUNT).and_then(|v| v.parse().ok()),
            deletion_grace: number(DELETION_GRACE),
            termination_grace: number(TERMINATION_GRACE),
            message_path: text(annotations, MESSAGE_PATH),
            message_policy: text(annotations, MESSAGE_POLICY),
            pre_stop: annotations.get(PRE_STOP).and_then(|v| serde_json::from_str(v).ok()),
            ports: annotations.get(PORTS).and_then(|v| serde_json::from_str(v).ok()).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let pod: Pod = serde_saphyr::from_str(
            "metadata: {name: p, namespace: ns, uid: u, deletionGracePeriodSeconds: 5, labels: {app: web}}\n\
             spec:\n  terminationGracePeriodSeconds: 30\n  containers:\n  - name: c\n    image: i\n\
             \x20   terminationMessagePath: /dev/termination-log\n    terminationMessagePolicy: File\n\
             \x20   ports: [{name: http, containerPort: 80}]\n    lifecycle: {preStop: {sleep: {seconds: 3}}}\n",
        )
        .expect("valid");
        let container = &types::spec(&pod).containers[0];
        let info = ContainerInfo::read(
            &container_labels(&pod, &container.name),
            &container_annotations(&pod, container, 2),
        );
        assert_eq!(
            (info.pod_name.as_str(), info.pod_namespace.as_str(), info.pod_uid.as_str()),
            ("p", "ns", "u")
        );
        assert_eq!((info.name.as_str(), info.restart_count), ("c", Some(2)));
        assert_eq!((info.deletion_grace, info.termination_grace), (Some(5), Some(30)));
        assert_eq!(info.pre_stop, container.lifecycle.clone().and_then(|l| l.pre_stop));
        assert_eq!(Some(info.ports), container.ports);
        assert_eq!(info.hash, hash::container_hash(container));
        assert_eq!(sandbox_labels(&pod)["app"], "web");
    }
}
