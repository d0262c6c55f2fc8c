//! What of claims for devices does not depend on the claim alone: an administrator's access needs a namespace that is
//! marked for it, and who writes allocations or the state of devices must be allowed to (upstream
//! `pkg/registry/resource/utils.go`).

use std::collections::BTreeSet;
use std::sync::Arc;

use api::field::{self, Error, ErrorList};
use api::status::ApiError;
use client::Client;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use serde_json::Value;

use crate::authn::User;
use crate::authz::{self, Authorizer};
use crate::request::RequestInfo;

const GROUP: &str = "resource.k8s.io";
/// The label of namespaces in which an administrator's access is given.
const ADMIN_LABEL: &str = "resource.kubernetes.io/admin-access";
/// Which node a service account's token is bound to.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

/// Checks writes of `resourceclaims`, their status, and `resourceclaimtemplates`.
pub struct DeviceAccess {
    client: Client,
    authorizer: Arc<dyn Authorizer>,
}

impl DeviceAccess {
    /// `client`: for namespaces.
    #[must_use]
    pub fn new(client: Client, authorizer: Arc<dyn Authorizer>) -> Self {
        Self { client, authorizer }
    }

    /// What is wrong with a claim or template after the strategy has prepared it; `old` is none for a create.
    pub async fn check(
        &self,
        user: &User,
        request: &RequestInfo,
        object: &Value,
        old: Option<&Value>,
    ) -> ErrorList {
        if request.group != GROUP {
            return ErrorList::new();
        }
        match (request.resource.as_str(), request.subresource.as_str(), old) {
            ("resourceclaims", "", None) => self.admin(request, asked_for(&object["spec"])).await,
            ("resourceclaimtemplates", "", None) => {
                self.admin(request, asked_for(&object["spec"]["spec"])).await
            }
            ("resourceclaims", "status", Some(old)) => {
                let (new, old) = (&object["status"], &old["status"]);
                let granted = if given(old).is_some() { None } else { given(new) };
                let mut errors = self.admin(request, granted).await;
                errors.extend(self.binding(user, request, new, old));
                if set(&new["allocation"]).is_some() {
                    errors.extend(self.devices(user, request, new, old));
                }
                errors
            }
            _ => ErrorList::new(),
        }
    }

    /// Whether the namespace of the request is marked for the access asked for at `path`.
    async fn admin(&self, request: &RequestInfo, path: Option<field::Path>) -> ErrorList {
        let Some(path) = path else { return ErrorList::new() };
        match Api::<Namespace>::all(self.client.clone()).get(&request.namespace).await {
            Err(error) => {
                let why = authz::from_client(error);
                let why = format!("could not retrieve namespace to verify admin access: {}", why.message());
                vec![Error::internal(&path, why)]
            }
            Ok(namespace) => {
                let labels = namespace.metadata.labels.unwrap_or_default();
                if labels.get(ADMIN_LABEL).is_some_and(|value| value == "true") {
                    return ErrorList::new();
                }
                let why = format!(
                    "admin access to devices requires the `{ADMIN_LABEL}: true` label on the containing namespace"
                );
                vec![Error::forbidden(&path, why)]
            }
        }
    }

    /// Whether the user may allocate and reserve.
    fn binding(&self, user: &User, request: &RequestInfo, new: &Value, old: &Value) -> Option<Error> {
        let same = |key: &str| set(&new[key]) == set(&old[key]);
        if same("allocation") && same("reservedFor") {
            return None;
        }
        let why = self.refused(user, request, "binding", &request.verb, "", "")?;
        Some(Error::forbidden(
            &field::Path::new("status").child("allocation"),
            format!(
                "changing status.allocation or status.reservedFor requires resource=\"resourceclaims/binding\", \
                 verb=\"{}\" permission: {}",
                request.verb,
                why.message()
            ),
        ))
    }

    /// Whether the user may report for each driver of devices whose state has changed: on the node of the claim if the
    /// user is there, or on any.
    fn devices(&self, user: &User, request: &RequestInfo, new: &Value, old: &Value) -> ErrorList {
        let mut verbs = Vec::new();
        if node_of(&new["allocation"]).is_some_and(|node| is_on(user, node)) {
            verbs.push(format!("associated-node:{}", request.verb));
        }
        verbs.push(format!("arbitrary-node:{}", request.verb));
        let refused = |driver: &String| {
            let ask = |verb: &String| self.refused(user, request, "driver", verb, &request.namespace, driver);
            let refusals: Vec<ApiError> = verbs.iter().map_while(ask).collect();
            if refusals.len() < verbs.len() { None } else { refusals.into_iter().next() }
        };
        let path = field::Path::new("status").child("devices");
        let drivers = changed_drivers(new, old);
        let refusals = drivers.iter().filter_map(refused).map(|why| {
            let verbs = verbs.join(" ");
            let text = "changing status.devices requires resource=\"resourceclaims/driver\", verb=";
            Error::forbidden(&path, format!("{text}\"[{verbs}]\" permission: {}", why.message()))
        });
        refusals.collect()
    }

    /// Why the user may not do something to what no path names but permissions do.
    fn refused(
        &self,
        user: &User,
        request: &RequestInfo,
        subresource: &str,
        verb: &str,
        namespace: &str,
        name: &str,
    ) -> Option<ApiError> {
        let asked = RequestInfo {
            verb: verb.to_owned(),
            subresource: subresource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            ..request.clone()
        };
        authz::check(self.authorizer.as_ref(), user, &asked).err()
    }
}

fn set(value: &Value) -> Option<&Value> {
    Some(value).filter(|value| !value.is_null())
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Where the spec of a claim asks for an administrator's access.
fn asked_for(spec: &Value) -> Option<field::Path> {
    let requests = list(&spec["devices"]["requests"]);
    let index = requests.iter().position(|request| request["exactly"]["adminAccess"] == true)?;
    Some(field::Path::new("spec").child("devices").child("requests").index(index).child("adminAccess"))
}

/// Where the status of a claim gives it.
fn given(status: &Value) -> Option<field::Path> {
    let results = list(&status["allocation"]["devices"]["results"]);
    let index = results.iter().position(|result| result["adminAccess"] == true)?;
    let path = field::Path::new("status").child("allocation").child("devices").child("results");
    Some(path.index(index).child("adminAccess"))
}

/// The drivers of devices that were added, changed or removed.
fn changed_drivers(new: &Value, old: &Value) -> BTreeSet<String> {
    let text = |device: &Value, key: &str| device[key].as_str().unwrap_or_default().to_owned();
    let is = |a: &Value, b: &Value| {
        ["driver", "pool", "device", "shareID"].iter().all(|key| text(a, key) == text(b, key))
    };
    let (new, old) = (list(&new["devices"]), list(&old["devices"]));
    let changed = new.iter().filter(|device| !old.contains(device));
    let removed = old.iter().filter(|device| !new.iter().any(|other| is(device, other)));
    changed.chain(removed).map(|device| text(device, "driver")).collect()
}

/// The one node that an allocation can be used on.
fn node_of(allocation: &Value) -> Option<&str> {
    let [term] = list(&allocation["nodeSelector"]["nodeSelectorTerms"]) else { return None };
    let ([], [field]) = (list(&term["matchExpressions"]), list(&term["matchFields"])) else { return None };
    let [name] = list(&field["values"]) else { return None };
    (field["key"] == "metadata.name" && field["operator"] == "In").then(|| name.as_str()).flatten()
}

/// Whether the user is a service account whose token belongs to a node.
fn is_on(user: &User, node: &str) -> bool {
    let account = user.name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    let nodes = user.extra.get(NODE_NAME).map_or(&[][..], Vec::as_slice);
    account.is_some() && !node.is_empty() && matches!(nodes, [only] if only == node)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn access_is_found_where_it_is_asked_for_and_given() {
        let spec = json!({"devices": {"requests": [
            {"firstAvailable": []}, {"exactly": {"adminAccess": false}}, {"exactly": {"adminAccess": true}}]}});
        let path = asked_for(&spec).expect("it is asked for");
        assert_eq!(path.as_str(), "spec.devices.requests[2].adminAccess");
        assert_eq!(asked_for(&json!({})), None);
        let status = json!({"allocation": {"devices": {"results": [{"adminAccess": true}]}}});
        let path = given(&status).expect("it is given");
        assert_eq!(path.as_str(), "status.allocation.devices.results[0].adminAccess");
    }

    #[test]
    fn drivers_of_changed_devices() {
        let device = |driver: &str, device: &str, ready: bool| json!({"driver": driver, "pool": "p", "device": device, "data": {"ready": ready}});
        let old =
            json!({"devices": [device("a", "1", false), device("b", "1", false), device("c", "1", false)]});
        let new =
            json!({"devices": [device("a", "1", false), device("b", "1", true), device("d", "1", true)]});
        let drivers: Vec<String> = changed_drivers(&new, &old).into_iter().collect();
        assert_eq!(drivers, ["b", "c", "d"]);
    }

    #[test]
    fn accounts_are_on_the_node_of_their_token() {
        let allocation = |values: &[&str]| {
            json!({"nodeSelector": {"nodeSelectorTerms": [
                {"matchFields": [{"key": "metadata.name", "operator": "In", "values": values}]}]}})
        };
        assert_eq!(node_of(&allocation(&["n"])), Some("n"));
        assert_eq!(node_of(&allocation(&["n", "m"])), None);
        assert_eq!(node_of(&Value::Null), None);
        let extra = [(NODE_NAME.to_owned(), vec!["n".to_owned()])].into();
        let account = User { name: "system:serviceaccount:a:b".into(), extra, ..User::default() };
        assert!(is_on(&account, "n") && !is_on(&account, "m"));
        assert!(!is_on(&User { name: "x".into(), ..account }, "n"));
    }
}
