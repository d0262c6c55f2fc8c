//! Approves requests of nodes for their own client certificates, if they may ask for them.

use super::{holds, is_issued, request};
use crate::context::{Context, enqueue_all};
use client::controller::Action;
use client::kube::api::PostParams;
use client::{Api, Client, ObjectKey, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Subresource that has to be allowed, and what is said then.
const SELF: (&str, &str) =
    ("selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview.");
const ANY: (&str, &str) =
    ("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview.");

/// Starts the controller.
pub fn start(cx: &Context) {
    let requests = cx.informer::<CertificateSigningRequest>();
    let queue = WorkQueue::new("certificate");
    enqueue_all(&requests, &queue);
    let (client, clock, synced) = (cx.client.clone(), cx.config.clock, requests.clone());
    let synced = async move { synced.synced().await };
    cx.work("certificatesigningrequest-approving-controller", queue, 5, synced, move |key| {
        let (client, requests) = (client.clone(), requests.clone());
        async move {
            match requests.store().get(&key) {
                Some(csr) => approve(&client, &key, &csr, clock.now()).await,
                None => Ok(Action::Done),
            }
        }
    });
}

/// The permissions that would do, in the order they are tried.
fn recognize(
    csr: &CertificateSigningRequest,
    request: &request::Request,
) -> Vec<(&'static str, &'static str)> {
    let usages = csr.spec.usages.clone().unwrap_or_default();
    if csr.spec.signer_name != "kubernetes.io/kube-apiserver-client-kubelet"
        || request::check_kubelet_client(request, &usages).is_err()
    {
        return Vec::new();
    }
    let own = csr.spec.username.as_deref() == Some(request.common_name.as_str());
    own.then_some(SELF).into_iter().chain([ANY]).collect()
}

async fn approve(
    client: &Client,
    key: &ObjectKey,
    csr: &CertificateSigningRequest,
    now: Timestamp,
) -> anyhow::Result<Action> {
    if is_issued(csr) || holds(csr, "Approved").or(holds(csr, "Denied")).is_some() {
        return Ok(Action::Done);
    }
    let request = request::parse(&csr.spec.request.0)?;
    let candidates = recognize(csr, &request);
    for (subresource, message) in &candidates {
        if !is_allowed(client, csr, subresource).await? {
            continue;
        }
        let mut changed = csr.clone();
        let conditions = changed.status.get_or_insert_default().conditions.get_or_insert_default();
        conditions.push(CertificateSigningRequestCondition {
            type_: "Approved".to_owned(),
            status: "True".to_owned(),
            reason: Some("AutoApproved".to_owned()),
            message: Some((*message).to_owned()),
            last_update_time: Some(Time(now)),
            last_transition_time: Some(Time(now)),
        });
        let api: Api<CertificateSigningRequest> = Api::all(client.clone());
        api.replace_subresource("approval", &key.name, &PostParams::default(), &changed).await?;
        return Ok(Action::Done);
    }
    if !candidates.is_empty() {
        // The permission may come later; nothing tells.
        anyhow::bail!("recognized csr {:?} but subject access review was not approved", key.name);
    }
    Ok(Action::Done)
}

async fn is_allowed(
    client: &Client,
    csr: &CertificateSigningRequest,
    subresource: &str,
) -> anyhow::Result<bool> {
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: csr.spec.username.clone(),
            uid: csr.spec.uid.clone(),
            groups: csr.spec.groups.clone(),
            extra: csr.spec.extra.clone(),
            resource_attributes: Some(ResourceAttributes {
                group: Some("certificates.k8s.io".to_owned()),
                resource: Some("certificatesigningrequests".to_owned()),
                verb: Some("create".to_owned()),
                subresource: Some(subresource.to_owned()),
                version: Some("*".to_owned()),
                ..Default::default()
            }),
            ..Default::default()
        },
        ..Default::default()
    };
    let api: Api<SubjectAccessReview> = Api::all(client.clone());
    let answer = api.create(&PostParams::default(), &review).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_certificate_is_recognized_before_any() {
        let pem = request::tests::pem("system:node:n1", "system:nodes", &[]);
        let request = request::parse(pem.as_bytes()).expect("valid");
        let mut csr = CertificateSigningRequest::default();
        csr.spec.signer_name = "kubernetes.io/kube-apiserver-client-kubelet".into();
        csr.spec.usages = Some(vec!["digital signature".into(), "client auth".into()]);
        for (user, expected) in [("system:node:n1", vec![SELF, ANY]), ("system:bootstrap:abcdef", vec![ANY])]
        {
            csr.spec.username = Some(user.into());
            assert_eq!(recognize(&csr, &request), expected, "{user}");
        }
        csr.spec.signer_name = "kubernetes.io/kube-apiserver-client".into();
        assert!(recognize(&csr, &request).is_empty());
    }
}
