//! What kubelets may do (upstream `plugin/pkg/auth/authorizer/node`): read what their pods refer to, and write about
//! themselves. What they may write in detail is for the NodeRestriction admission plugin.

mod graph;
pub mod slim;

use std::sync::Arc;

use client::{Event, SharedInformerFactory};
use k8s_openapi::api::core::v1::PersistentVolume;
use k8s_openapi::api::rbac::v1::PolicyRule;
use k8s_openapi::api::resource::v1::ResourceSlice;
use k8s_openapi::api::storage::v1::VolumeAttachment;

pub use graph::Graph;
use slim::{Kind, SlimPod};

use super::{Authorizer, Decision, UserRules, go_quote, rules};
use crate::authn::User;
use crate::request::RequestInfo;

/// The authorizer.
pub struct NodeAuthorizer {
    graph: Arc<Graph>,
    rules: Vec<PolicyRule>,
}

impl NodeAuthorizer {
    /// Keeps its graph current from informers.
    #[must_use]
    pub fn new(informers: &SharedInformerFactory) -> Self {
        let graph = Arc::new(Graph::default());
        let this = graph.clone();
        informers.informer::<SlimPod>().subscribe(move |event| match event {
            // Most pods are new before they have a node, and few changes concern what a pod refers to.
            Event::Added(pod) if pod.node.is_empty() => {}
            Event::Updated { old, new } if (&old.node, &old.references) == (&new.node, &new.references) => {}
            Event::Deleted(pod) => this.remove_pod(pod),
            other => this.put_pod(other.object()),
        });
        let this = graph.clone();
        informers.informer::<PersistentVolume>().subscribe(move |event| match event {
            Event::Deleted(volume) => this.remove_volume(volume),
            other => this.put_volume(other.object()),
        });
        let this = graph.clone();
        informers.informer::<VolumeAttachment>().subscribe(move |event| match event {
            Event::Deleted(attachment) => this.remove_attachment(attachment),
            other => this.put_attachment(other.object()),
        });
        let this = graph.clone();
        informers.informer::<ResourceSlice>().subscribe(move |event| {
            let slice = event.object();
            let gone = matches!(event, Event::Deleted(_));
            let node = slice.spec.node_name.as_deref().filter(|_| !gone);
            this.put_slice(slice.metadata.name.as_deref().unwrap_or_default(), node);
        });
        Self::with_graph(graph)
    }

    /// Decides from a graph that somebody else keeps.
    #[must_use]
    pub fn with_graph(graph: Arc<Graph>) -> Self {
        Self { graph, rules: crate::bootstrap::policy::node_rules() }
    }

    fn decide(&self, node: &str, request: &RequestInfo) -> Decision {
        if request.is_resource {
            let relate = |kind| self.related(node, kind, request);
            match (request.group.as_str(), request.resource.as_str()) {
                ("", "secrets") => return read_namespaced(request).unwrap_or_else(|| relate(Kind::Secret)),
                ("", "configmaps") => {
                    return read_namespaced(request).unwrap_or_else(|| relate(Kind::ConfigMap));
                }
                ("", "persistentvolumeclaims") if request.subresource == "status" => {
                    return match request.verb.as_str() {
                        "update" | "patch" => relate(Kind::Claim),
                        _ => Decision::no_opinion("can only get/update/patch this type"),
                    };
                }
                ("", "persistentvolumeclaims") => {
                    return get_only(request).unwrap_or_else(|| relate(Kind::Claim));
                }
                ("", "persistentvolumes") => {
                    let found = || self.graph.volume_related(node, &request.name);
                    return get_only(request).unwrap_or_else(|| relation(node, request, found));
                }
                ("resource.k8s.io", "resourceclaims") => {
                    return get_only(request).unwrap_or_else(|| relate(Kind::ResourceClaim));
                }
                ("storage.k8s.io", "volumeattachments") => {
                    let found = || self.graph.attachment_related(node, &request.name);
                    return get_only(request).unwrap_or_else(|| relation(node, request, found));
                }
                ("", "serviceaccounts") => return self.service_account(node, request),
                ("coordination.k8s.io", "leases") => return lease(node, request),
                ("storage.k8s.io", "csinodes") => return csi_node(node, request),
                ("resource.k8s.io", "resourceslices") => return self.resource_slice(node, request),
                ("", "nodes") => return own_node(node, request),
                ("", "pods") => return self.pod(node, request),
                ("certificates.k8s.io", "podcertificaterequests") => return Decision::no_opinion(""),
                _ => {}
            }
        }
        if self.rules.iter().any(|rule| rules::allows(rule, request)) {
            Decision::allow()
        } else {
            Decision::no_opinion("")
        }
    }

    fn related(&self, node: &str, kind: Kind, request: &RequestInfo) -> Decision {
        relation(node, request, || self.graph.related(node, kind, &request.namespace, &request.name))
    }

    fn service_account(&self, node: &str, request: &RequestInfo) -> Decision {
        if request.verb == "get" && request.subresource.is_empty() {
            return read_namespaced(request)
                .unwrap_or_else(|| self.related(node, Kind::ServiceAccount, request));
        }
        if request.verb != "create" || request.name.is_empty() {
            return Decision::no_opinion("can only create tokens for individual service accounts");
        }
        if request.subresource != "token" {
            return Decision::no_opinion("can only create token subresource of serviceaccount");
        }
        self.related(node, Kind::ServiceAccount, request)
    }

    fn resource_slice(&self, node: &str, request: &RequestInfo) -> Decision {
        if !request.subresource.is_empty() {
            return Decision::no_opinion("cannot authorize ResourceSlice subresources");
        }
        match request.verb.as_str() {
            "create" => Decision::allow(),
            "get" | "update" | "patch" | "delete" => {
                relation(node, request, || self.graph.slice_related(node, &request.name))
            }
            "watch" | "list" | "deletecollection" if selects(request, "spec.nodeName", node) => {
                Decision::allow()
            }
            "watch" | "list" | "deletecollection" => Decision::no_opinion(
                "can only list/watch/deletecollection resourceslices with nodeName field selector",
            ),
            _ => Decision::no_opinion(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, \
                 delete, deletecollection",
            ),
        }
    }

    fn pod(&self, node: &str, request: &RequestInfo) -> Decision {
        match (request.subresource.as_str(), request.verb.as_str()) {
            ("", "get") => self.related(node, Kind::Pod, request),
            ("", "list" | "watch") => {
                if selects(request, "spec.nodeName", node) {
                    return Decision::allow();
                }
                if !request.name.is_empty() {
                    return self.related(node, Kind::Pod, request);
                }
                Decision::no_opinion("can only list/watch pods with spec.nodeName field selector")
            }
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => {
                Decision::allow()
            }
            _ => Decision::no_opinion(""),
        }
    }
}

fn relation(node: &str, request: &RequestInfo, related: impl FnOnce() -> bool) -> Decision {
    if request.name.is_empty() {
        return Decision::no_opinion("No Object name found");
    }
    if related() {
        Decision::allow()
    } else {
        Decision::no_opinion(format!("no relationship found between node '{node}' and this object"))
    }
}

/// Why such an object cannot be read that way; `None`: go on.
fn read_namespaced(request: &RequestInfo) -> Option<Decision> {
    if !matches!(request.verb.as_str(), "get" | "list" | "watch") {
        return Some(Decision::no_opinion("can only read resources of this type"));
    }
    if !request.subresource.is_empty() {
        return Some(Decision::no_opinion("cannot read subresource"));
    }
    request.namespace.is_empty().then(|| Decision::no_opinion("can only read namespaced object of this type"))
}

fn get_only(request: &RequestInfo) -> Option<Decision> {
    if request.verb != "get" {
        return Some(Decision::no_opinion("can only get individual resources of this type"));
    }
    (!request.subresource.is_empty()).then(|| Decision::no_opinion("cannot get subresource"))
}

fn lease(node: &str, request: &RequestInfo) -> Decision {
    if !matches!(request.verb.as_str(), "get" | "create" | "update" | "patch" | "delete") {
        return Decision::no_opinion("can only get, create, update, patch, or delete a node lease");
    }
    if request.namespace != "kube-node-lease" {
        return Decision::no_opinion(format!(
            "can only access leases in the {} system namespace",
            go_quote("kube-node-lease")
        ));
    }
    if request.verb != "create" && request.name != node {
        return Decision::no_opinion("can only access node lease with the same name as the requesting node");
    }
    Decision::allow()
}

fn csi_node(node: &str, request: &RequestInfo) -> Decision {
    if !matches!(request.verb.as_str(), "get" | "create" | "update" | "patch" | "delete") {
        return Decision::no_opinion("can only get, create, update, patch, or delete a CSINode");
    }
    if !request.subresource.is_empty() {
        return Decision::no_opinion("cannot authorize CSINode subresources");
    }
    if request.verb != "create" && request.name != node {
        return Decision::no_opinion("can only access CSINode with the same name as the requesting node");
    }
    Decision::allow()
}

fn own_node(node: &str, request: &RequestInfo) -> Decision {
    match (request.subresource.as_str(), request.verb.as_str()) {
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Decision::allow(),
        ("", "get" | "list" | "watch") => match request.name.as_str() {
            name if name == node => Decision::allow(),
            "" => {
                Decision::no_opinion(format!("node '{node}' cannot read all nodes, only its own Node object"))
            }
            other => {
                Decision::no_opinion(format!("node '{node}' cannot read '{other}', only its own Node object"))
            }
        },
        _ => Decision::no_opinion(""),
    }
}

/// Whether the field selector demands this value.
fn selects(request: &RequestInfo, field: &str, value: &str) -> bool {
    request.field_selector.split(',').any(|term| {
        let rest = term.strip_prefix(field).and_then(|rest| rest.strip_prefix('='));
        rest.is_some_and(|rest| rest.strip_prefix('=').unwrap_or(rest) == value)
    })
}

impl Authorizer for NodeAuthorizer {
    fn authorize(&self, user: &User, request: &RequestInfo) -> Decision {
        match user.node_name() {
            None => Decision::no_opinion(""),
            Some("") => Decision::no_opinion(format!("unknown node for user {}", go_quote(&user.name))),
            Some(node) => self.decide(node, request),
        }
    }

    fn rules(&self, user: &User, _namespace: &str) -> UserRules {
        let mut rules = UserRules::default();
        if user.node_name().is_some() {
            rules.incomplete = true;
            rules.errors.push("node authorizer does not support user rule resolution".to_owned());
        }
        rules
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::authn::NODES;

    fn authorizer() -> NodeAuthorizer {
        let graph = Graph::default();
        let pod = json!({
            "metadata": {"name": "p", "namespace": "ns"},
            "spec": {"nodeName": "n1", "serviceAccountName": "sa", "volumes": [
                {"name": "a", "secret": {"secretName": "s"}}, {"name": "b", "configMap": {"name": "cm"}},
                {"name": "c", "persistentVolumeClaim": {"claimName": "pvc"}}]}});
        graph.put_pod(&serde_json::from_value(pod).expect("pod"));
        let volume = json!({
            "metadata": {"name": "pv"},
            "spec": {"claimRef": {"namespace": "ns", "name": "pvc"},
                "csi": {"driver": "d", "volumeHandle": "h", "nodeStageSecretRef": {"namespace": "ns", "name": "stage"}}}});
        graph.put_volume(&serde_json::from_value(volume).expect("volume"));
        let attachment = json!({
            "metadata": {"name": "va"}, "spec": {"nodeName": "n1", "attacher": "d", "source": {}}});
        graph.put_attachment(&serde_json::from_value(attachment).expect("attachment"));
        NodeAuthorizer::with_graph(Arc::new(graph))
    }

    /// `verb group resource[/sub] [ns/]name`
    fn ask(authorizer: &NodeAuthorizer, node: &str, text: &str) -> Decision {
        let mut words = text.split(' ').chain(std::iter::repeat(""));
        let mut word = || words.next().unwrap_or_default();
        let (verb, group, resource, name) = (word(), word(), word(), word());
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let (namespace, name) = name.split_once('/').unwrap_or(("", name));
        let request = RequestInfo {
            is_resource: true,
            verb: verb.into(),
            group: group.trim_matches('-').into(),
            resource: resource.into(),
            subresource: subresource.into(),
            namespace: namespace.into(),
            name: name.into(),
            field_selector: word().into(),
            ..RequestInfo::default()
        };
        let user =
            User { name: format!("system:node:{node}"), groups: vec![NODES.into()], ..User::default() };
        authorizer.authorize(&user, &request)
    }

    #[test]
    fn nodes_read_what_their_pods_refer_to() {
        let authorizer = authorizer();
        for text in [
            "get - secrets ns/s",
            "watch - secrets ns/s",
            "get - secrets ns/stage",
            "get - configmaps ns/cm",
            "get - persistentvolumeclaims ns/pvc",
            "patch - persistentvolumeclaims/status ns/pvc",
            "get - persistentvolumes pv",
            "get storage.k8s.io volumeattachments va",
            "create - serviceaccounts/token ns/sa",
            "get - pods ns/p",
        ] {
            assert_eq!(ask(&authorizer, "n1", text), Decision::allow(), "{text}");
            let other = ask(&authorizer, "n2", text);
            assert_eq!(other.reason(), "no relationship found between node 'n2' and this object", "{text}");
        }
    }

    #[test]
    fn nodes_write_about_themselves() {
        let authorizer = authorizer();
        for (text, expected) in [
            ("get - nodes n1", Ok(())),
            ("get - nodes n2", Err("node 'n1' cannot read 'n2', only its own Node object")),
            ("list - nodes", Err("node 'n1' cannot read all nodes, only its own Node object")),
            ("update - nodes/status n1", Ok(())),
            ("get coordination.k8s.io leases kube-node-lease/n1", Ok(())),
            (
                "get coordination.k8s.io leases kube-node-lease/n2",
                Err("can only access node lease with the same name as the requesting node"),
            ),
            (
                "get coordination.k8s.io leases ns/n1",
                Err("can only access leases in the \"kube-node-lease\" system namespace"),
            ),
            ("get storage.k8s.io csinodes n1", Ok(())),
            (
                "get storage.k8s.io csinodes n2",
                Err("can only access CSINode with the same name as the requesting node"),
            ),
            ("list - secrets ns/", Err("No Object name found")),
            ("delete - secrets ns/s", Err("can only read resources of this type")),
            ("list - pods ", Err("can only list/watch pods with spec.nodeName field selector")),
            ("list - pods  spec.nodeName=n1", Ok(())),
            (
                "list - pods  spec.nodeName=n2",
                Err("can only list/watch pods with spec.nodeName field selector"),
            ),
            ("list - services", Ok(())),
            ("create certificates.k8s.io certificatesigningrequests", Ok(())),
            ("list apps deployments", Err("")),
        ] {
            let decision = ask(&authorizer, "n1", text);
            let found = if decision.allowed() { Ok(()) } else { Err(decision.reason()) };
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn a_deleted_pod_takes_its_relations_along() {
        let authorizer = authorizer();
        let pod: SlimPod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns"}, "spec": {"nodeName": "n1"}}))
        .expect("pod");
        authorizer.graph.remove_pod(&pod);
        assert!(!ask(&authorizer, "n1", "get - secrets ns/s").allowed());
        assert!(!ask(&authorizer, "n1", "get - persistentvolumes pv").allowed());
    }
}
