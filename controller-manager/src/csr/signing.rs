//! Signs approved requests for the signers of Kubernetes itself.

use super::files::Files;
use super::{holds, is_issued, request};
use crate::clock::Clock;
use crate::context::{Context, enqueue_all};
use crate::options::{CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY_UNKNOWN};
use client::controller::Action;
use client::kube::api::PostParams;
use client::{Api, Client, Informer, ObjectKey, WorkQueue};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const SHORTEST: Duration = Duration::from_secs(600);

/// Its name.
pub const NAME: &str = "certificatesigningrequest-signing-controller";

struct Controller {
    client: Client,
    clock: Clock,
    requests: Informer<CertificateSigningRequest>,
    signers: BTreeMap<&'static str, Files>,
    longest: Duration,
}

/// Starts the controller, if there is an authority to sign with.
pub fn start(cx: &Context) {
    if cx.config.signers.is_empty() {
        tracing::info!("no certificate and key to sign with are named, so nothing is signed");
        return;
    }
    let mut signers = BTreeMap::new();
    for (signer, pair) in &cx.config.signers {
        match Files::new(pair) {
            Ok(files) => drop(signers.insert(*signer, files)),
            // They could be read a moment ago.
            Err(error) => tracing::error!(signer, error, "cannot sign certificates"),
        }
    }
    let requests = cx.informer::<CertificateSigningRequest>();
    let queue = WorkQueue::new("certificate");
    enqueue_all(&requests, &queue);
    let controller = Arc::new(Controller {
        client: cx.client.clone(),
        clock: cx.config.clock,
        signers,
        longest: cx.config.flags.signing.cluster_signing_duration,
        requests: requests.clone(),
    });
    let synced = async move { requests.synced().await };
    cx.work(NAME, queue, 5, synced, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(key).await }
    });
}

/// Whether the signer answers for such a request: `None` when it is not one of ours.
fn check(signer: &str, request: &request::Request, usages: &[String]) -> Option<Result<(), String>> {
    Some(match signer {
        KUBELET_SERVING => request::check_kubelet_serving(request, usages),
        KUBELET_CLIENT => request::check_kubelet_client(request, usages),
        CLIENT => request::check_client(usages),
        LEGACY_UNKNOWN => Ok(()),
        _ => return None,
    })
}

fn validity(asked: Option<i32>, longest: Duration) -> Duration {
    match asked.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs) {
        None => longest,
        Some(asked) => asked.max(SHORTEST).min(longest),
    }
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> anyhow::Result<Action> {
        let Some(csr) = self.requests.store().get(&key) else { return Ok(Action::Done) };
        if is_issued(&csr) || holds(&csr, "Approved").is_none() {
            return Ok(Action::Done);
        }
        if holds(&csr, "Denied").or(holds(&csr, "Failed")).is_some() {
            return Ok(Action::Done);
        }
        let Some(authority) = self.signers.get(csr.spec.signer_name.as_str()) else {
            return Ok(Action::Done);
        };
        let usages = csr.spec.usages.clone().unwrap_or_default();
        let request = request::parse(&csr.spec.request.0)?;
        let Some(checked) = check(&csr.spec.signer_name, &request, &usages) else { return Ok(Action::Done) };
        let now = self.clock.now();
        let mut changed = CertificateSigningRequest::clone(&csr);
        let status = changed.status.get_or_insert_default();
        match checked {
            Ok(()) => {
                let validity = validity(csr.spec.expiration_seconds, self.longest);
                let certificate = authority.current().sign(&request, &usages, validity, now)?;
                status.certificate = Some(ByteString(certificate.into_bytes()));
            }
            Err(message) => {
                status.conditions.get_or_insert_default().push(CertificateSigningRequestCondition {
                    type_: "Failed".to_owned(),
                    status: "True".to_owned(),
                    reason: Some("SignerValidationFailure".to_owned()),
                    message: Some(message),
                    last_update_time: Some(Time(now)),
                    last_transition_time: Some(Time(now)),
                })
            }
        }
        let api: Api<CertificateSigningRequest> = Api::all(self.client.clone());
        api.replace_status(&key.name, &PostParams::default(), &changed).await?;
        Ok(Action::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validity_stays_within_bounds() {
        let day = Duration::from_secs(86_400);
        for (asked, expected) in
            [(None, 86_400), (Some(60), 600), (Some(3600), 3600), (Some(999_999), 86_400)]
        {
            assert_eq!(validity(asked, day).as_secs(), expected);
        }
    }

    #[test]
    fn foreign_signers_are_left_alone() {
        let request = request::Request::default();
        assert!(check("example.com/mine", &request, &[]).is_none());
        assert_eq!(check("kubernetes.io/legacy-unknown", &request, &[]), Some(Ok(())));
    }
}
