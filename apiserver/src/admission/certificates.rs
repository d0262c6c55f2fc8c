//! CertificateApproval, CertificateSigning, CertificateSubjectRestriction: who may approve and sign requests for which
//! signer (upstream `plugin/pkg/admission/certificates`).

use std::sync::Arc;

use base64::Engine as _;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use x509_parser::prelude::FromDer;

use super::{Attributes, Deps, Operation, Plugin, Verdict, text};
use crate::authn::{MASTERS, User};
use crate::authz::Authorizer;
use crate::request::RequestInfo;

const GROUP: &str = "certificates.k8s.io";
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

/// Whether the user may do `verb` for a signer, or for all signers of its domain.
async fn authorized(authorizer: &dyn Authorizer, user: &User, verb: &str, signer: &str) -> bool {
    let ask = async |name: &str| {
        let request = RequestInfo {
            is_resource: true,
            verb: verb.to_owned(),
            group: GROUP.to_owned(),
            version: "*".to_owned(),
            resource: "signers".to_owned(),
            name: name.to_owned(),
            ..RequestInfo::default()
        };
        authorizer.decide(user, &request).get().await.allowed()
    };
    let domain = signer.split('/').next().unwrap_or_default();
    ask(signer).await || ask(&format!("{domain}/*")).await
}

/// Approving needs the right to approve for the signer.
pub struct Approval {
    authorizer: Arc<dyn Authorizer>,
}

impl Approval {
    /// Asks the server's authorizer.
    pub fn new(deps: &Deps<'_>) -> Self {
        Self { authorizer: deps.authorizer.clone() }
    }
}

impl Plugin for Approval {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Update
            && attributes.subresource == "approval"
            && attributes.is_any(GROUP, "certificatesigningrequests")
    }

    fn validate<'a>(
        &'a self,
        attributes: &'a Attributes<'_>,
        object: &'a Value,
        old: Option<&'a Value>,
        _: &'a mut Vec<String>,
    ) -> Verdict<'a> {
        Verdict::later(async move {
            // The old object decides: nobody gets around this by changing the signer's name.
            let signer = old.map(|old| text(&old["spec"], "signerName")).unwrap_or_default();
            if authorized(&*self.authorizer, attributes.user, "approve", signer).await {
                return Ok(());
            }
            let why = format!("user not permitted to approve requests with signerName {signer:?}");
            Err(attributes.forbidden(object, &why))
        })
    }
}

/// Signing needs the right to sign for the signer.
pub struct Signing {
    authorizer: Arc<dyn Authorizer>,
}

impl Signing {
    /// Asks the server's authorizer.
    pub fn new(deps: &Deps<'_>) -> Self {
        Self { authorizer: deps.authorizer.clone() }
    }
}

impl Plugin for Signing {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Update
            && attributes.subresource == "status"
            && attributes.is_any(GROUP, "certificatesigningrequests")
    }

    fn validate<'a>(
        &'a self,
        attributes: &'a Attributes<'_>,
        object: &'a Value,
        old: Option<&'a Value>,
        _: &'a mut Vec<String>,
    ) -> Verdict<'a> {
        Verdict::later(async move {
            let Some(old) = old else { return Ok(()) };
            let same = |field: &str| object["status"][field] == old["status"][field];
            if same("certificate") && same("conditions") {
                return Ok(());
            }
            let signer = text(&old["spec"], "signerName");
            if authorized(&*self.authorizer, attributes.user, "sign", signer).await {
                return Ok(());
            }
            let why = format!("user not permitted to sign requests with signerName {signer:?}");
            Err(attributes.forbidden(object, &why))
        })
    }
}

/// Nobody becomes a member of `system:masters` by way of a request.
pub struct SubjectRestriction;

/// The organizations a request asks for.
fn organizations(request: &str) -> Result<Vec<String>, String> {
    let pem = base64::engine::general_purpose::STANDARD.decode(request).map_err(|error| error.to_string())?;
    let not_pem = || "PEM block type must be CERTIFICATE REQUEST".to_owned();
    let der = rustls::pki_types::CertificateSigningRequestDer::from_pem_slice(&pem).map_err(|_| not_pem())?;
    let (_, request) = x509_parser::certification_request::X509CertificationRequest::from_der(&der)
        .map_err(|error| error.to_string())?;
    let subject = &request.certification_request_info.subject;
    Ok(subject
        .iter_organization()
        .filter_map(|attribute| attribute.as_str().ok())
        .map(str::to_owned)
        .collect())
}

impl Plugin for SubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Create && attributes.is(GROUP, "certificatesigningrequests")
    }

    fn validate<'a>(
        &'a self,
        attributes: &'a Attributes<'_>,
        object: &'a Value,
        _: Option<&'a Value>,
        _: &'a mut Vec<String>,
    ) -> Verdict<'a> {
        Verdict::now(|| {
            if text(&object["spec"], "signerName") != CLIENT_SIGNER {
                return Ok(());
            }
            match organizations(text(&object["spec"], "request")) {
                Err(error) => Err(attributes.forbidden(object, &format!("failed to parse CSR: {error}"))),
                Ok(groups) if groups.iter().any(|group| group == MASTERS) => {
                    let why =
                        format!("use of {CLIENT_SIGNER} signer with system:masters group is not allowed");
                    Err(attributes.forbidden(object, &why))
                }
                Ok(_) => Ok(()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
    use serde_json::json;

    use super::*;
    use crate::admission::testing::Write;
    use crate::authz::{Decision, Superusers};

    fn request(organization: &str) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, organization);
        let key = KeyPair::generate().expect("key");
        let pem = params.serialize_request(&key).expect("request").pem().expect("pem");
        base64::engine::general_purpose::STANDARD.encode(pem)
    }

    #[tokio::test]
    async fn masters_are_not_made_by_request() {
        let write = Write::new(GROUP, "CertificateSigningRequest", "certificatesigningrequests");
        let attributes = write.attributes(Operation::Create, "", "c");
        for (signer, organization, expected) in [
            (CLIENT_SIGNER, "dev", None),
            ("example.com/x", "system:masters", None),
            (
                CLIENT_SIGNER,
                "system:masters",
                Some(
                    "certificatesigningrequests.certificates.k8s.io \"c\" is forbidden: use of \
                     kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed",
                ),
            ),
        ] {
            let object = json!({"spec": {"signerName": signer, "request": request(organization)}});
            let result = SubjectRestriction.validate(&attributes, &object, None, &mut Vec::new()).get().await;
            assert_eq!(result.err().as_ref().map(api::status::ApiError::message), expected);
        }
    }

    /// Allows what has this name.
    struct Named(&'static str);

    impl Authorizer for Named {
        fn authorize(&self, _: &User, request: &RequestInfo) -> Decision {
            if request.name == self.0 { Decision::allow() } else { Decision::no_opinion("") }
        }
    }

    #[tokio::test]
    async fn approving_needs_the_signer_or_its_domain() {
        let write = Write::new(GROUP, "CertificateSigningRequest", "certificatesigningrequests");
        let attributes = write.attributes(Operation::Update, "approval", "c");
        let object = json!({"spec": {"signerName": "example.com/s"}});
        let check = async |authorizer: Arc<dyn Authorizer>| {
            Approval { authorizer }.validate(&attributes, &object, Some(&object), &mut Vec::new()).get().await
        };
        assert!(check(Arc::new(Named("example.com/s"))).await.is_ok());
        assert!(check(Arc::new(Named("example.com/*"))).await.is_ok());
        let error = check(Arc::new(Superusers)).await.expect_err("refused");
        assert_eq!(
            error.message(),
            "certificatesigningrequests.certificates.k8s.io \"c\" is forbidden: user not permitted to approve requests with \
             signerName \"example.com/s\""
        );
    }
}
