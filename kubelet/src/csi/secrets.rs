//! What drivers are handed that is nobody else's business: secrets, and tokens of the pod's account.

use std::collections::{BTreeMap, HashMap};

use client::{Api, Client};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, Secret, ServiceAccount};
use k8s_openapi::api::storage::v1::CSIDriver;

use super::text;
use super::wanted::SecretName;
use crate::types;
use crate::volumes::Reason;

/// What a secret holds.
pub(super) async fn credentials(
    client: &Client,
    reference: Option<SecretName>,
) -> Result<HashMap<String, String>, Reason> {
    let Some((namespace, name)) = reference else { return Ok(HashMap::new()) };
    let api: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    let secret = api.get(&name).await.map_err(|error| {
        Reason::Text(format!("fetching secret {namespace}/{name} failed: {}", client::chain(&error)))
    })?;
    let data = secret.data.unwrap_or_default().into_iter();
    Ok(data.map(|(key, value)| (key, String::from_utf8_lossy(&value.0).into_owned())).collect())
}

/// Tokens that the driver wants of the pod's account, and whether they are handed over as secrets.
pub(super) async fn tokens(
    client: &Client,
    object: Option<&CSIDriver>,
    pod: &Pod,
) -> Result<(HashMap<String, String>, bool), Reason> {
    let wanted = object.and_then(|o| o.spec.token_requests.clone()).unwrap_or_default();
    if wanted.is_empty() {
        return Ok((HashMap::new(), false));
    }
    let account =
        types::spec(pod).service_account_name.as_deref().filter(|n| !n.is_empty()).unwrap_or("default");
    let api: Api<ServiceAccount> = Api::namespaced(client.clone(), types::namespace(pod));
    let mut issued = BTreeMap::new();
    for one in wanted {
        let audiences = Some(one.audience.clone()).filter(|a| !a.is_empty()).into_iter().collect();
        let bound = BoundObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
        };
        let spec = TokenRequestSpec {
            audiences: Some(audiences),
            expiration_seconds: one.expiration_seconds,
            bound_object_ref: Some(bound),
        };
        let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        let answer = api.create_token_request(account, &Default::default(), &request).await;
        let answer =
            answer.map_err(|e| text("failed to get service account token attributes", client::chain(&e)))?;
        issued.insert(one.audience, answer.status.unwrap_or_default());
    }
    let all = serde_json::to_string(&issued).map_err(|e| text("tokens", e))?;
    let in_secrets = object.and_then(|o| o.spec.service_account_token_in_secrets) == Some(true);
    Ok((HashMap::from([("csi.storage.k8s.io/serviceAccount.tokens".to_owned(), all)]), in_secrets))
}
