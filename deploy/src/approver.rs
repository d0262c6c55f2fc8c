//! Approves what kubelets of nodes that joined ask for: certificates to serve with.
//!
//! Upstream leaves this to people, as the API knows nothing of machines. Here a request is approved if the node asks
//! for itself, under its own name, and for addresses that its Node has and no other Node has; all else is left for a
//! person to decide.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Result;
use client::controller::{Action, run_workers};
use client::kube::api::PostParams;
use client::{Api, Client, ObjectKey, SharedInformerFactory, Tasks, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

const SIGNER: &str = "kubernetes.io/kubelet-serving";
/// A node that has just joined may ask before it has said what its addresses are.
const RETRY: Duration = Duration::from_secs(2);
const GIVE_UP: Duration = Duration::from_secs(120);

/// Runs until `token` is cancelled.
///
/// # Errors
/// A task ended that should not have.
pub async fn run(client: Client, token: CancellationToken) -> Result<()> {
    let tasks = Tasks::child_of(&token);
    let factory = SharedInformerFactory::new(client.clone(), &tasks);
    let (requests, nodes) = (factory.informer::<CertificateSigningRequest>(), factory.informer::<Node>());
    let queue = WorkQueue::new("serving_certificates");
    let keys = queue.clone();
    requests.subscribe(move |event| keys.add(ObjectKey::of(&**event.object())));
    tasks.spawn_critical("serving-certificates", |token| async move {
        if !factory.wait_for_sync(&token).await {
            return Ok(());
        }
        let reconcile = move |key: ObjectKey| {
            let (client, requests, nodes) = (client.clone(), requests.clone(), nodes.clone());
            async move {
                let Some(request) = requests.store().get(&key) else { return Ok(Action::Done) };
                if is_settled(&request) {
                    return Ok(Action::Done);
                }
                match check(&request, &nodes.store().list()) {
                    Ok(()) => approve(&client, &request).await.map(|()| Action::Done),
                    Err(why) if is_young(&request) => {
                        debug!(request = %key, why, "not approved yet");
                        Ok(Action::RequeueAfter(RETRY))
                    }
                    Err(why) => {
                        info!(request = %key, why, "left for a person to decide");
                        Ok(Action::Done)
                    }
                }
            }
        };
        run_workers("serving-certificates", queue, 1, token, reconcile).await;
        Ok(())
    });
    Ok(tasks.wait().await?)
}

/// Whether somebody has decided, or it is for another signer.
fn is_settled(request: &CertificateSigningRequest) -> bool {
    let conditions = request.status.iter().flat_map(|status| status.conditions.iter().flatten());
    request.spec.signer_name != SIGNER
        || conditions.into_iter().any(|c| matches!(c.type_.as_str(), "Approved" | "Denied"))
}

fn is_young(request: &CertificateSigningRequest) -> bool {
    let Some(made) = &request.metadata.creation_timestamp else { return false };
    Timestamp::now().duration_since(made.0).unsigned_abs() < GIVE_UP
}

/// Names and addresses that a request asks for, and for whom.
#[derive(Debug, Default, PartialEq)]
struct Asked {
    common_name: String,
    names: Vec<String>,
    addresses: Vec<IpAddr>,
}

fn read(pem: &[u8]) -> Option<Asked> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem).ok()?;
    let (_, csr) = X509CertificationRequest::from_der(&pem.contents).ok()?;
    let info = &csr.certification_request_info;
    let common_name = info.subject.iter_common_name().last()?.as_str().ok()?.to_owned();
    let mut asked = Asked { common_name, ..Asked::default() };
    for attribute in info.iter_attributes() {
        let ParsedCriAttribute::ExtensionRequest(requested) = attribute.parsed_attribute() else { continue };
        for extension in &requested.extensions {
            let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else {
                continue;
            };
            for name in &names.general_names {
                match name {
                    GeneralName::DNSName(name) => asked.names.push((*name).to_owned()),
                    GeneralName::IPAddress(bytes) => asked.addresses.push(address(bytes)?),
                    _ => return None,
                }
            }
        }
    }
    Some(asked)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(<[u8; 4]>::try_from(bytes).ok()?.into()),
        16 => Some(<[u8; 16]>::try_from(bytes).ok()?.into()),
        _ => None,
    }
}

fn addresses(node: &Node) -> impl Iterator<Item = &str> {
    let all = node.status.as_ref().and_then(|status| status.addresses.as_ref());
    all.into_iter().flatten().map(|address| address.address.as_str())
}

/// Says why not. (The form of such requests is the signer's to check.)
fn check(request: &CertificateSigningRequest, nodes: &[std::sync::Arc<Node>]) -> Result<(), &'static str> {
    let user = request.spec.username.as_deref().unwrap_or_default();
    let name = user.strip_prefix("system:node:").ok_or("no node asks")?;
    if !request.spec.groups.iter().flatten().any(|group| group == "system:nodes") {
        return Err("no node asks");
    }
    let asked = read(&request.spec.request.0).ok_or("the request cannot be read")?;
    if asked.common_name != user {
        return Err("the node asks for another");
    }
    let is_own = |node: &Node| node.metadata.name.as_deref() == Some(name);
    let own = nodes.iter().find(|node| is_own(node)).ok_or("there is no such node")?;
    if asked.names.iter().any(|dns| dns != name) {
        return Err("the node asks for a name that is not its own");
    }
    for address in &asked.addresses {
        let address = address.to_string();
        if !addresses(own).any(|known| known == address) {
            return Err("the node has not such an address");
        }
        if nodes.iter().any(|node| !is_own(node) && addresses(node).any(|known| known == address)) {
            return Err("the address is another node's too");
        }
    }
    Ok(())
}

async fn approve(client: &Client, request: &CertificateSigningRequest) -> Result<()> {
    let now = Some(Time(Timestamp::now()));
    let mut changed = request.clone();
    changed.status.get_or_insert_default().conditions.get_or_insert_default().push(
        CertificateSigningRequestCondition {
            type_: "Approved".to_owned(),
            status: "True".to_owned(),
            reason: Some("AutoApproved".to_owned()),
            message: Some(
                "Auto approving serving certificate of a node for its own name and addresses.".to_owned(),
            ),
            last_update_time: now.clone(),
            last_transition_time: now,
        },
    );
    let name = request.metadata.name.as_deref().unwrap_or_default();
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    api.replace_subresource("approval", name, &PostParams::default(), &changed).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use k8s_openapi::ByteString;
    use rcgen::{CertificateParams, DnType, KeyPair};
    use serde_json::json;

    fn request(user: &str, common_name: &str, names: &[&str]) -> CertificateSigningRequest {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name.push(DnType::CommonName, common_name);
        let key = KeyPair::generate().expect("a key");
        let pem = params.serialize_request(&key).expect("a request").pem().expect("PEM");
        let mut request = CertificateSigningRequest::default();
        request.spec.username = Some(user.to_owned());
        request.spec.groups = Some(vec!["system:nodes".to_owned(), "system:authenticated".to_owned()]);
        request.spec.request = ByteString(pem.into_bytes());
        request
    }

    fn node(name: &str, address: &str) -> Arc<Node> {
        let object = json!({"metadata": {"name": name}, "status": {"addresses": [
            {"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}]}});
        Arc::new(serde_json::from_value(object).expect("a node"))
    }

    #[test]
    fn nodes_get_certificates_for_themselves_alone() {
        let nodes = [
            node("n1", "192.0.2.1"),
            node("n2", "192.0.2.2"),
            node("twin-a", "192.0.2.9"),
            node("twin-b", "192.0.2.9"),
        ];
        for (user, common_name, names, good) in [
            ("system:node:n1", "system:node:n1", vec!["n1", "192.0.2.1"], true),
            ("system:node:n1", "system:node:n2", vec!["n2", "192.0.2.2"], false),
            ("system:node:n1", "system:node:n1", vec!["n1", "192.0.2.2"], false),
            ("system:node:n1", "system:node:n1", vec!["kubernetes", "192.0.2.1"], false),
            ("system:node:n3", "system:node:n3", vec!["n3"], false),
            ("system:node:twin-a", "system:node:twin-a", vec!["twin-a", "192.0.2.9"], false),
            ("system:bootstrap:abcdef", "system:node:n1", vec!["n1"], false),
        ] {
            let outcome = check(&request(user, common_name, &names), &nodes);
            assert_eq!(outcome.is_ok(), good, "{user} {common_name} {names:?}: {outcome:?}");
        }
        let mut outsider = request("system:node:n1", "system:node:n1", &["n1"]);
        outsider.spec.groups = None;
        assert!(check(&outsider, &nodes).is_err());
    }
}
