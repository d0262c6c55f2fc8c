//! Removes requests that have been dealt with, or that nobody deals with.

use super::{holds, is_issued};
use crate::common::errors::IgnoreGone;
use crate::context::{Context, enqueue_all};
use client::controller::Action;
use client::kube::api::DeleteParams;
use client::{Api, WorkQueue};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use std::time::Duration;
use x509_parser::prelude::{FromDer, X509Certificate};

const HOUR: i64 = 3600;

/// Starts the controller.
pub fn start(cx: &Context) {
    let requests = cx.informer::<CertificateSigningRequest>();
    let queue = WorkQueue::new("csrcleaner");
    enqueue_all(&requests, &queue);
    let (client, clock, synced) = (cx.client.clone(), cx.config.clock, requests.clone());
    let synced = async move { synced.synced().await };
    cx.work("certificatesigningrequest-cleaner-controller", queue, 1, synced, move |key| {
        let (client, requests) = (client.clone(), requests.clone());
        async move {
            let Some(csr) = requests.store().get(&key) else { return Ok(Action::Done) };
            let left = due(&csr) - clock.now().as_second();
            if let Some(left) = u64::try_from(left).ok().filter(|left| *left > 0) {
                return Ok(Action::RequeueAfter(Duration::from_secs(left)));
            }
            let api: Api<CertificateSigningRequest> = Api::all(client);
            api.delete(&key.name, &DeleteParams::default()).await.ignore_not_found()?;
            Ok(Action::Done)
        }
    });
}

/// When the request goes, in seconds since the epoch.
fn due(csr: &CertificateSigningRequest) -> i64 {
    let created = csr.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
    let since = |kind: &str| holds(csr, kind)?.last_update_time.as_ref().map(|time| time.0.as_second());
    if let Some(at) = since("Denied").or(since("Failed")) {
        return at + HOUR;
    }
    match since("Approved") {
        Some(at) if is_issued(csr) => (at + HOUR).min(expires(csr).unwrap_or(i64::MAX)),
        Some(at) => at + 24 * HOUR,
        None => created + 24 * HOUR,
    }
}

fn expires(csr: &CertificateSigningRequest) -> Option<i64> {
    let bytes = &csr.status.as_ref()?.certificate.as_ref()?.0;
    let (_, pem) = x509_parser::pem::parse_x509_pem(bytes).ok()?;
    let (_, certificate) = X509Certificate::from_der(&pem.contents).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::pods::tests::at;
    use k8s_openapi::ByteString;
    use k8s_openapi::api::certificates::v1::{
        CertificateSigningRequestCondition, CertificateSigningRequestStatus,
    };
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    #[test]
    fn what_is_decided_goes_sooner() {
        for (kind, issued, expected) in [
            (None, false, 24 * HOUR),
            (Some("Denied"), false, 100 + HOUR),
            (Some("Failed"), false, 100 + HOUR),
            (Some("Approved"), true, 100 + HOUR),
            (Some("Approved"), false, 100 + 24 * HOUR),
        ] {
            let condition = |kind: &str| CertificateSigningRequestCondition {
                type_: kind.into(),
                status: "True".into(),
                last_update_time: Some(Time(at(100))),
                ..Default::default()
            };
            let mut csr = CertificateSigningRequest::default();
            csr.metadata.creation_timestamp = Some(Time(at(0)));
            csr.status = Some(CertificateSigningRequestStatus {
                conditions: kind.map(|kind| vec![condition(kind)]),
                certificate: issued.then(|| ByteString(b"pem".to_vec())),
            });
            assert_eq!(due(&csr), expected, "{kind:?} {issued}");
        }
    }
}
