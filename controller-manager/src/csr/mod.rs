//! CertificateSigningRequests: nodes ask for their certificates, and get them if they may.
//!
//! `approving` asks whether the requester may have a node's certificate, `signing` signs what was approved for the
//! signers of Kubernetes itself, `cleaning` removes old requests. As upstream's pkg/controller/certificates.

mod approving;
mod authority;
mod cleaning;
mod der;
mod files;
mod request;
mod signing;

pub use approving::start as start_approving;
pub use authority::public_key;
pub use cleaning::start as start_cleaning;
pub use signing::{NAME as SIGNING, start as start_signing};

use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};

/// Whether the files are an authority to sign with.
///
/// # Errors
/// They are not; why.
pub fn check(pair: &crate::options::Pair) -> Result<(), String> {
    files::Files::new(pair).map(drop)
}

/// The condition of a type, if it holds.
fn holds<'a>(
    csr: &'a CertificateSigningRequest,
    kind: &str,
) -> Option<&'a CertificateSigningRequestCondition> {
    let conditions = csr.status.as_ref()?.conditions.as_deref()?;
    conditions.iter().find(|condition| condition.type_ == kind && condition.status != "False")
}

/// Whether a certificate was issued.
fn is_issued(csr: &CertificateSigningRequest) -> bool {
    csr.status
        .as_ref()
        .and_then(|status| status.certificate.as_ref())
        .is_some_and(|bytes| !bytes.0.is_empty())
}
