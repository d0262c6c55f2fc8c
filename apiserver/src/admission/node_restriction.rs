//! NodeRestriction: kubelets write about themselves and their pods only (upstream
//! `plugin/pkg/admission/noderestriction`).

use api::names::GroupResource;
use api::status::ApiError;
use client::informer::Informer;
use client::{Client, ObjectKey};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::CSIDriver;
use kube::Api;
use serde_json::Value;

use super::{Attributes, Deps, Operation, Plugin, Verdict, items, text};
use crate::authz::node::slim::SlimPod;
use crate::authz::{Authorizer, go_quote};
use crate::request::RequestInfo;

/// The plugin.
pub struct NodeRestriction {
    client: Client,
    pods: Informer<SlimPod>,
    nodes: Informer<Node>,
    authorizer: std::sync::Arc<dyn Authorizer>,
}

/// Why a node may not; with a status of its own if that is not 403.
enum Refusal {
    Forbidden(String),
    Other(ApiError),
}

type Checked = Result<(), Refusal>;

fn refuse(why: impl Into<String>) -> Checked {
    Err(Refusal::Forbidden(why.into()))
}

impl NodeRestriction {
    /// Watches pods and nodes.
    pub fn new(deps: &Deps<'_>) -> Self {
        let (pods, nodes) = (deps.informers.informer(), deps.informers.informer());
        Self { client: deps.client.clone(), pods, nodes, authorizer: deps.authorizer.clone() }
    }

    async fn check(
        &self,
        node: &str,
        attributes: &Attributes<'_>,
        object: &Value,
        old: Option<&Value>,
    ) -> Checked {
        let quoted = go_quote(node);
        let resource = (attributes.resource.group.as_ref(), attributes.resource.resource.as_ref());
        match (resource, attributes.subresource) {
            (("", "pods"), "") => self.pod(node, attributes, object).await,
            (("", "pods"), "status") => pod_status(node, attributes, object, old),
            (("", "pods"), "eviction") => {
                let name = if attributes.name.is_empty() {
                    text(&object["metadata"], "name")
                } else {
                    attributes.name
                };
                let on = self.node_of_pod(attributes.namespace, name).await?;
                if on == node {
                    return Ok(());
                }
                refuse(format!("node {node} can only evict pods with spec.nodeName set to itself"))
            }
            (("", "pods"), other) => {
                let other = go_quote(other);
                refuse(format!(
                    "unexpected pod subresource {other}, only 'status' and 'eviction' are allowed"
                ))
            }
            (("", "nodes"), _) => own_node(node, attributes, object, old),
            (("", "persistentvolumeclaims"), "status") => claim_status(node, object, old),
            (("", "persistentvolumeclaims"), _) => refuse("may only update PVC status"),
            (("", "serviceaccounts"), "token") if attributes.operation == Operation::Create => {
                self.token(node, attributes, object).await
            }
            (("coordination.k8s.io", "leases"), _) => {
                if attributes.namespace != "kube-node-lease" {
                    return refuse("can only access leases in the \"kube-node-lease\" system namespace");
                }
                same_name(
                    node,
                    attributes,
                    object,
                    "can only access node lease with the same name as the requesting node",
                )
            }
            (("storage.k8s.io", "csinodes"), _) => same_name(
                node,
                attributes,
                object,
                "can only access CSINode with the same name as the requesting node",
            ),
            (("resource.k8s.io", "resourceslices"), _) => {
                let slice = if attributes.operation == Operation::Create { Some(object) } else { old };
                let own = slice.is_none_or(|slice| text(&slice["spec"], "nodeName") == node);
                if own {
                    Ok(())
                } else {
                    refuse(format!(
                        "can only access ResourceSlice with the same node name as the requesting node {quoted}"
                    ))
                }
            }
            (("certificates.k8s.io", "certificatesigningrequests"), "")
                if attributes.operation == Operation::Create =>
            {
                certificate_request(node, object)
            }
            _ => Ok(()),
        }
    }

    /// The node a pod runs on.
    async fn node_of_pod(&self, namespace: &str, name: &str) -> Result<String, Refusal> {
        if let Some(pod) = self.pods.store().get(&ObjectKey::new(namespace, name)) {
            return Ok(pod.node.to_string());
        }
        let found = Api::<SlimPod>::namespaced(self.client.clone(), namespace).get_opt(name).await;
        match found {
            Ok(Some(pod)) => Ok(pod.node.to_string()),
            Ok(None) => Err(Refusal::Other(ApiError::not_found(&GroupResource::new("", "pods"), name))),
            Err(error) => Err(Refusal::Other(crate::authz::from_client(error))),
        }
    }

    async fn pod(&self, node: &str, attributes: &Attributes<'_>, object: &Value) -> Checked {
        let quoted = go_quote(node);
        match attributes.operation {
            Operation::Create => {
                mirror_pod(node, object)?;
                let uid = text(&object["metadata"]["ownerReferences"][0], "uid");
                let Some(known) = self.nodes.store().get(&ObjectKey::new("", node)) else {
                    return Err(Refusal::Other(ApiError::not_found(&GroupResource::new("", "nodes"), node)));
                };
                let own = known.metadata.uid.as_deref().unwrap_or_default();
                if own == uid {
                    return Ok(());
                }
                refuse(format!("node {node} UID mismatch: expected {uid} got {own}"))
            }
            Operation::Delete => {
                if self.node_of_pod(attributes.namespace, attributes.name).await? == node {
                    return Ok(());
                }
                refuse(format!("node {quoted} can only delete pods with spec.nodeName set to itself"))
            }
            other => {
                let operation = go_quote(operation_name(other));
                refuse(format!(
                    "unexpected operation {operation}, node {quoted} can only create and delete mirror pods"
                ))
            }
        }
    }

    /// Tokens are asked for by nodes only for pods that run there, and for audiences the pod names.
    async fn token(&self, node: &str, attributes: &Attributes<'_>, request: &Value) -> Checked {
        let reference = &request["spec"]["boundObjectRef"];
        let name = text(reference, "name");
        if text(reference, "apiVersion") != "v1" || text(reference, "kind") != "Pod" || name.is_empty() {
            return refuse("node requested token not bound to a pod");
        }
        let uid = text(reference, "uid");
        if uid.is_empty() {
            return refuse("node requested token with a pod binding without a uid");
        }
        let pod = Api::<Pod>::namespaced(self.client.clone(), attributes.namespace).get(name).await;
        let pod = pod.map_err(|error| Refusal::Other(crate::authz::from_client(error)))?;
        if pod.metadata.uid.as_deref() != Some(uid) {
            return refuse(format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have \
                 been deleted and then recreated"
            ));
        }
        if pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) != Some(node) {
            return refuse("node requested token bound to a pod scheduled on a different node");
        }
        self.audience(attributes, request, &pod).await
    }

    async fn audience(&self, attributes: &Attributes<'_>, request: &Value, pod: &Pod) -> Checked {
        let audience = match items(&request["spec"], "audiences") {
            [] => "",
            [one] => one.as_str().unwrap_or_default(),
            _ => return refuse("node may only request 0 or 1 audiences"),
        };
        if self.pod_names_audience(pod, audience).await {
            return Ok(());
        }
        let asked = RequestInfo {
            is_resource: true,
            verb: "request-serviceaccounts-token-audience".to_owned(),
            version: "v1".to_owned(),
            resource: audience.to_owned(),
            namespace: attributes.namespace.to_owned(),
            name: attributes.name.to_owned(),
            ..RequestInfo::default()
        };
        if self.authorizer.decide(attributes.user, &asked).get().await.allowed() {
            return Ok(());
        }
        refuse(format!(
            "audience {} not found in pod spec volume, {} is not authorized to request tokens for this audience",
            go_quote(audience),
            attributes.user.name
        ))
    }

    async fn pod_names_audience(&self, pod: &Pod, audience: &str) -> bool {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
            let sources = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
            let mut tokens = sources.filter_map(|source| source.service_account_token.as_ref());
            if tokens.any(|token| token.audience.as_deref().unwrap_or_default() == audience) {
                return true;
            }
            let claim = match (&volume.persistent_volume_claim, &volume.ephemeral) {
                (Some(claim), _) => Some(claim.claim_name.clone()),
                (None, Some(_)) => {
                    Some(format!("{}-{}", pod.metadata.name.as_deref().unwrap_or_default(), volume.name))
                }
                _ => None,
            };
            let driver = match (&volume.csi, claim) {
                (Some(csi), _) => Some(csi.driver.clone()),
                (None, Some(claim)) => self.driver_of_claim(namespace, &claim).await,
                _ => None,
            };
            if let Some(driver) = driver
                && self.driver_names_audience(&driver, audience).await
            {
                return true;
            }
        }
        false
    }

    async fn driver_of_claim(&self, namespace: &str, claim: &str) -> Option<String> {
        let claims = Api::<PersistentVolumeClaim>::namespaced(self.client.clone(), namespace);
        let volume = claims.get(claim).await.ok()?.spec?.volume_name?;
        let volume = Api::<PersistentVolume>::all(self.client.clone()).get(&volume).await.ok()?;
        volume.spec?.csi.map(|csi| csi.driver)
    }

    async fn driver_names_audience(&self, driver: &str, audience: &str) -> bool {
        let Ok(driver) = Api::<CSIDriver>::all(self.client.clone()).get(driver).await else { return false };
        driver.spec.token_requests.iter().flatten().any(|request| request.audience == audience)
    }
}

fn operation_name(operation: Operation) -> &'static str {
    match operation {
        Operation::Create => "CREATE",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
        Operation::Connect => "CONNECT",
    }
}

/// Nodes make mirror pods of their own, which refer to nothing.
fn mirror_pod(node: &str, pod: &Value) -> Checked {
    const MIRROR: &str = "kubernetes.io/config.mirror";
    let quoted = go_quote(node);
    let meta = &pod["metadata"];
    if meta["annotations"].get(MIRROR).is_none() {
        return refuse(format!(
            "pod does not have \"{MIRROR}\" annotation, node {quoted} can only create mirror pods"
        ));
    }
    if text(&pod["spec"], "nodeName") != node {
        return refuse(format!("node {quoted} can only create pods with spec.nodeName set to itself"));
    }
    let owner = match items(meta, "ownerReferences") {
        [owner] => owner,
        [] => {
            return refuse(format!(
                "node {quoted} can only create pods with an owner reference set to itself"
            ));
        }
        _ => {
            return refuse(format!(
                "node {quoted} can only create pods with a single owner reference set to itself"
            ));
        }
    };
    if text(owner, "apiVersion") != "v1" || text(owner, "kind") != "Node" || text(owner, "name") != node {
        return refuse(format!("node {quoted} can only create pods with an owner reference set to itself"));
    }
    if owner["controller"] != true {
        return refuse(format!(
            "node {quoted} can only create pods with a controller owner reference set to itself"
        ));
    }
    if owner["blockOwnerDeletion"] == true {
        return refuse(format!("node {quoted} must not set blockOwnerDeletion on an owner reference"));
    }
    let slim: Result<SlimPod, _> =
        serde_json::from_value(serde_json::json!({"metadata": {}, "spec": pod["spec"]}));
    let references = slim.map(|slim| slim.references).unwrap_or_default();
    if let Some((kind, _)) = references.first() {
        use crate::authz::node::slim::Kind;
        let resource = match kind {
            Kind::Pod => "pods",
            Kind::Secret => "secrets",
            Kind::ConfigMap => "configmaps",
            Kind::Claim => "persistentvolumeclaims",
            Kind::ServiceAccount => "serviceaccounts",
            Kind::ResourceClaim => "resourceclaims",
        };
        return refuse(format!("node {quoted} can not create pods that reference {resource}"));
    }
    Ok(())
}

fn pod_status(node: &str, attributes: &Attributes<'_>, pod: &Value, old: Option<&Value>) -> Checked {
    let quoted = go_quote(node);
    let Some(old) = old.filter(|_| attributes.operation == Operation::Update) else {
        return refuse(format!("unexpected operation {}", go_quote(operation_name(attributes.operation))));
    };
    if text(&old["spec"], "nodeName") != node {
        return refuse(format!(
            "node {quoted} can only update pod status for pods with spec.nodeName set to itself"
        ));
    }
    if !same(&old["metadata"]["labels"], &pod["metadata"]["labels"]) {
        return refuse(format!("node {quoted} cannot update labels through pod status"));
    }
    if !same(&old["status"]["resourceClaimStatuses"], &pod["status"]["resourceClaimStatuses"]) {
        return refuse(format!("node {quoted} cannot update resource claim statues"));
    }
    if !same(&old["status"]["extendedResourceClaimStatus"], &pod["status"]["extendedResourceClaimStatus"]) {
        return refuse(format!("node {quoted} cannot update extended resource claim status"));
    }
    Ok(())
}

/// Equal, an absent list or map being an empty one.
fn same(a: &Value, b: &Value) -> bool {
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    a == b || (empty(a) && empty(b))
}

fn same_name(node: &str, attributes: &Attributes<'_>, object: &Value, why: &str) -> Checked {
    let create = attributes.operation == Operation::Create;
    let name = if create { text(&object["metadata"], "name") } else { attributes.name };
    if name == node { Ok(()) } else { refuse(why) }
}

fn own_node(node: &str, attributes: &Attributes<'_>, object: &Value, old: Option<&Value>) -> Checked {
    let quoted = go_quote(node);
    let name = match attributes.name {
        "" => text(&object["metadata"], "name"),
        name => name,
    };
    if name != node {
        return refuse(format!("node {quoted} is not allowed to modify node {}", go_quote(name)));
    }
    match attributes.operation {
        Operation::Create => {
            if object["spec"].get("configSource").is_some_and(|source| !source.is_null()) {
                return refuse(format!(
                    "node {quoted} is not allowed to create pods with a non-nil configSource"
                ));
            }
            let forbidden = forbidden_labels(&object["metadata"]["labels"], &Value::Null);
            if forbidden.is_empty() {
                return Ok(());
            }
            refuse(format!(
                "node {quoted} is not allowed to set the following labels: {}",
                forbidden.join(", ")
            ))
        }
        Operation::Update => {
            let Some(old) = old else { return Ok(()) };
            let source = &object["spec"]["configSource"];
            if !source.is_null() && *source != old["spec"]["configSource"] {
                return refuse(format!(
                    "node {quoted} is not allowed to update configSource to a new non-nil configSource"
                ));
            }
            if !same(&object["spec"]["taints"], &old["spec"]["taints"]) {
                return refuse(format!("node {quoted} is not allowed to modify taints"));
            }
            if !same(&object["metadata"]["ownerReferences"], &old["metadata"]["ownerReferences"]) {
                return refuse(format!("node {quoted} is not allowed to modify ownerReferences"));
            }
            let forbidden = forbidden_labels(&object["metadata"]["labels"], &old["metadata"]["labels"]);
            if forbidden.is_empty() {
                return Ok(());
            }
            refuse(format!("is not allowed to modify labels: {}", forbidden.join(", ")))
        }
        _ => Ok(()),
    }
}

const KUBELET_LABELS: [&str; 11] = [
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];

/// Changed labels that kubelets may not change, sorted.
fn forbidden_labels(new: &Value, old: &Value) -> Vec<String> {
    let keys = |value: &Value| {
        value.as_object().map(|map| map.keys().cloned().collect::<Vec<_>>()).unwrap_or_default()
    };
    let mut changed: Vec<String> =
        keys(new).into_iter().chain(keys(old)).filter(|key| new[key] != old[key]).collect();
    changed.sort();
    changed.dedup();
    changed.retain(|key| is_forbidden_label(key));
    changed
}

fn is_forbidden_label(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    let within = |parent: &str| {
        domain == parent || domain.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.'))
    };
    let kubelets =
        KUBELET_LABELS.contains(&key) || within("kubelet.kubernetes.io") || within("node.kubernetes.io");
    within("node-restriction.kubernetes.io") || ((within("kubernetes.io") || within("k8s.io")) && !kubelets)
}

fn claim_status(node: &str, object: &Value, old: Option<&Value>) -> Checked {
    let strip = |claim: &Value| {
        let mut claim = claim.clone();
        for (part, fields) in [
            ("metadata", &["resourceVersion", "managedFields"][..]),
            ("status", &["capacity", "conditions", "allocatedResourceStatuses", "allocatedResources"][..]),
        ] {
            if let Some(map) = claim[part].as_object_mut() {
                map.retain(|key, _| !fields.contains(&key.as_str()));
            }
        }
        claim
    };
    if old.is_some_and(|old| strip(old) == strip(object)) {
        return Ok(());
    }
    let quoted = go_quote(node);
    refuse(format!(
        "node {quoted} is not allowed to update fields other than status.quantity and status.conditions"
    ))
}

/// A node's request for a client or serving certificate must be for its own name.
fn certificate_request(node: &str, request: &Value) -> Checked {
    use base64::Engine as _;
    use rustls::pki_types::pem::PemObject;
    use x509_parser::prelude::FromDer;
    let signer = text(&request["spec"], "signerName");
    if !matches!(signer, "kubernetes.io/kubelet-serving" | "kubernetes.io/kube-apiserver-client-kubelet") {
        return Ok(());
    }
    let name = || {
        let pem = base64::engine::general_purpose::STANDARD.decode(text(&request["spec"], "request")).ok()?;
        let der = rustls::pki_types::CertificateSigningRequestDer::from_pem_slice(&pem).ok()?;
        let (_, parsed) =
            x509_parser::certification_request::X509CertificationRequest::from_der(&der).ok()?;
        let subject = &parsed.certification_request_info.subject;
        let names: Vec<&str> = subject.iter_common_name().filter_map(|name| name.as_str().ok()).collect();
        names.last().map(|name| (*name).to_owned())
    };
    let Some(name) = name() else { return refuse("unable to parse csr") };
    let own = format!("system:node:{node}");
    if name == own {
        return Ok(());
    }
    refuse(format!("can only create a node CSR with CN={own}, found CN={name}"))
}

impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation != Operation::Connect && attributes.user.node_name().is_some()
    }

    fn admit<'a>(
        &'a self,
        attributes: &'a Attributes<'_>,
        object: &'a mut Value,
        old: Option<&'a Value>,
        _: &'a mut Vec<String>,
    ) -> Verdict<'a> {
        Verdict::later(async move {
            let Some(node) = attributes.user.node_name() else { return Ok(()) };
            if node.is_empty() {
                let why = format!("could not determine node from user {}", go_quote(&attributes.user.name));
                return Err(attributes.forbidden(object, &why));
            }
            match self.check(node, attributes, object, old).await {
                Ok(()) => Ok(()),
                Err(Refusal::Forbidden(why)) => Err(attributes.forbidden(object, &why)),
                Err(Refusal::Other(error)) => Err(error),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::admission::testing::Write;

    fn why(checked: Checked) -> Option<String> {
        match checked {
            Ok(()) => None,
            Err(Refusal::Forbidden(why)) => Some(why),
            Err(Refusal::Other(error)) => Some(error.to_string()),
        }
    }

    #[test]
    fn nodes_label_themselves_only_as_kubelets_do() {
        let write = Write::new("", "Node", "nodes");
        for (labels, expected) in [
            (json!({"a": "b", "kubernetes.io/hostname": "n1", "x.node.kubernetes.io/y": ""}), None),
            (
                json!({"node-restriction.kubernetes.io/x": "", "kubernetes.io/role": "y"}),
                Some(
                    "node \"n1\" is not allowed to set the following labels: kubernetes.io/role, \
                     node-restriction.kubernetes.io/x",
                ),
            ),
        ] {
            let node = json!({"metadata": {"name": "n1", "labels": labels}});
            let attributes = write.attributes(Operation::Create, "", "n1");
            assert_eq!(why(own_node("n1", &attributes, &node, None)).as_deref(), expected);
        }
    }

    #[test]
    fn nodes_leave_taints_and_others_alone() {
        let write = Write::new("", "Node", "nodes");
        let attributes = write.attributes(Operation::Update, "", "n1");
        let old =
            json!({"metadata": {"name": "n1"}, "spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}});
        let new = json!({"metadata": {"name": "n1"}, "spec": {}});
        assert_eq!(why(own_node("n1", &attributes, &old, Some(&old))), None);
        assert_eq!(
            why(own_node("n1", &attributes, &new, Some(&old))).as_deref(),
            Some("node \"n1\" is not allowed to modify taints")
        );
        assert_eq!(
            why(own_node("n2", &attributes, &old, Some(&old))).as_deref(),
            Some("node \"n2\" is not allowed to modify node \"n1\"")
        );
    }

    #[test]
    fn mirror_pods_are_the_nodes_own() {
        let owner =
            json!([{"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "u", "controller": true}]);
        let good = json!({
            "metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}, "ownerReferences": owner},
            "spec": {"nodeName": "n1", "containers": []}});
        assert_eq!(why(mirror_pod("n1", &good)), None);
        let mut plain = good.clone();
        plain["metadata"]["annotations"] = json!({});
        assert!(why(mirror_pod("n1", &plain)).is_some());
        assert!(why(mirror_pod("n2", &good)).is_some());
        let mut secret = good;
        secret["spec"]["volumes"] = json!([{"name": "v", "secret": {"secretName": "s"}}]);
        assert_eq!(
            why(mirror_pod("n1", &secret)).as_deref(),
            Some("node \"n1\" can not create pods that reference secrets")
        );
    }

    #[test]
    fn pod_status_is_written_by_the_pods_node() {
        let write = Write::new("", "Pod", "pods");
        let attributes = write.attributes(Operation::Update, "status", "p");
        let old = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"nodeName": "n1"}});
        assert_eq!(why(pod_status("n1", &attributes, &old, Some(&old))), None);
        assert!(why(pod_status("n2", &attributes, &old, Some(&old))).is_some());
        let relabelled = json!({"metadata": {"labels": {}}, "spec": {"nodeName": "n1"}});
        assert_eq!(
            why(pod_status("n1", &attributes, &relabelled, Some(&old))).as_deref(),
            Some("node \"n1\" cannot update labels through pod status")
        );
    }
}
