//! What a certificate request says, read and verified.

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

/// Why a request cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not PEM of a request.
    #[error("PEM block type must be CERTIFICATE REQUEST")]
    Pem,
    /// It cannot be decoded.
    #[error("request cannot be decoded: {0}")]
    Der(String),
    /// It is not signed by its own key.
    #[error("signature of the request is wrong")]
    Signature,
}

/// The parts that matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Common name.
    pub common_name: String,
    /// Organizations: groups.
    pub organizations: Vec<String>,
    /// The subject as it is encoded.
    pub subject: Vec<u8>,
    /// The public key as it is encoded.
    pub public_key: Vec<u8>,
    /// The alternative names as they are encoded, if there are any.
    pub names: Option<Vec<u8>>,
    /// How many DNS names, addresses, mail addresses and URIs there are.
    pub counts: Counts,
}

/// How many alternative names there are of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// DNS names.
    pub dns: usize,
    /// IP addresses.
    pub ip: usize,
    /// Mail addresses.
    pub email: usize,
    /// URIs.
    pub uri: usize,
}

const ALTERNATIVE_NAMES: &str = "2.5.29.17";

/// Reads a request in PEM and checks that its sender has the key.
pub fn parse(pem: &[u8]) -> Result<Request, Error> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem).map_err(|_| Error::Pem)?;
    if pem.label != "CERTIFICATE REQUEST" {
        return Err(Error::Pem);
    }
    let (_, csr) =
        X509CertificationRequest::from_der(&pem.contents).map_err(|error| Error::Der(error.to_string()))?;
    csr.verify_signature().map_err(|_| Error::Signature)?;
    let info = &csr.certification_request_info;
    let text =
        |value: &x509_parser::x509::AttributeTypeAndValue<'_>| value.as_str().unwrap_or_default().to_owned();
    let mut request = Request {
        common_name: info.subject.iter_common_name().last().map(text).unwrap_or_default(),
        organizations: info.subject.iter_organization().map(text).collect(),
        subject: info.subject.as_raw().to_vec(),
        public_key: info.subject_pki.raw.to_vec(),
        ..Default::default()
    };
    for attribute in info.iter_attributes() {
        let ParsedCriAttribute::ExtensionRequest(requested) = attribute.parsed_attribute() else { continue };
        for extension in requested.extensions.iter().filter(|ext| ext.oid.to_id_string() == ALTERNATIVE_NAMES)
        {
            request.names = Some(extension.value.to_vec());
            let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else {
                continue;
            };
            for name in &names.general_names {
                match name {
                    GeneralName::DNSName(_) => request.counts.dns += 1,
                    GeneralName::IPAddress(_) => request.counts.ip += 1,
                    GeneralName::RFC822Name(_) => request.counts.email += 1,
                    GeneralName::URI(_) => request.counts.uri += 1,
                    _ => {}
                }
            }
        }
    }
    Ok(request)
}

fn is_node(request: &Request) -> Result<(), &'static str> {
    if request.organizations != ["system:nodes"] {
        return Err("subject organization is not system:nodes");
    }
    Ok(())
}

fn check_usages(usages: &[String], purpose: &str) -> Result<(), String> {
    let mut sorted: Vec<_> = usages.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    sorted.dedup();
    let mut required = vec!["digital signature", "key encipherment", purpose];
    required.sort_unstable();
    let without: Vec<_> = required.iter().copied().filter(|usage| *usage != "key encipherment").collect();
    if sorted == required || sorted == without {
        Ok(())
    } else {
        Err(format!("usages did not match [{}]", required.join(" ")))
    }
}

/// Whether it asks for the client certificate of a kubelet.
pub fn check_kubelet_client(request: &Request, usages: &[String]) -> Result<(), String> {
    is_node(request)?;
    let Counts { dns, ip, email, uri } = request.counts;
    for (count, kind) in [(dns, "DNS"), (email, "Email"), (ip, "IP"), (uri, "URI")] {
        if count > 0 {
            return Err(format!("{kind} subjectAltNames are not allowed"));
        }
    }
    if !request.common_name.starts_with("system:node:") {
        return Err("subject common name does not begin with system:node:".to_owned());
    }
    check_usages(usages, "client auth")
}

/// Whether it asks for the serving certificate of a kubelet.
pub fn check_kubelet_serving(request: &Request, usages: &[String]) -> Result<(), String> {
    is_node(request)?;
    let Counts { dns, ip, email, uri } = request.counts;
    if dns == 0 && ip == 0 {
        return Err("DNS or IP subjectAltName is required".to_owned());
    }
    for (count, kind) in [(email, "Email"), (uri, "URI")] {
        if count > 0 {
            return Err(format!("{kind} subjectAltNames are not allowed"));
        }
    }
    check_usages(usages, "server auth")?;
    if !request.common_name.starts_with("system:node:") {
        return Err("subject common name does not begin with system:node:".to_owned());
    }
    Ok(())
}

/// Whether it asks for a client certificate and nothing else.
pub fn check_client(usages: &[String]) -> Result<(), String> {
    let allowed = ["digital signature", "key encipherment", "client auth"];
    if let Some(usage) = usages.iter().find(|usage| !allowed.contains(&usage.as_str())) {
        return Err(format!("invalid usage for client certificate: {usage}"));
    }
    if !usages.iter().any(|usage| usage == "client auth") {
        return Err("missing required usage for client certificate: client auth".to_owned());
    }
    Ok(())
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair};

    /// A request in PEM.
    pub fn pem(common_name: &str, organization: &str, names: &[&str]) -> String {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names are valid");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.distinguished_name.push(DnType::OrganizationName, organization);
        let key = KeyPair::generate().expect("a key");
        params.serialize_request(&key).and_then(|request| request.pem()).expect("a request")
    }

    fn usages(text: &str) -> Vec<String> {
        text.split(',').map(str::to_owned).collect()
    }

    #[test]
    fn kubelet_requests_are_told_from_others() {
        let client = usages("digital signature,key encipherment,client auth");
        let server = usages("digital signature,server auth");
        for (common_name, organization, names, usages, as_client, as_server) in [
            ("system:node:n1", "system:nodes", &[][..], &client, true, false),
            ("system:node:n1", "system:nodes", &["n1", "10.0.0.1"], &server, false, true),
            ("system:node:n1", "system:masters", &[], &client, false, false),
            ("jane", "system:nodes", &[], &client, false, false),
            ("system:node:n1", "system:nodes", &["n1"], &client, false, false),
        ] {
            let request = parse(pem(common_name, organization, names).as_bytes()).expect("valid");
            assert_eq!(
                check_kubelet_client(&request, usages).is_ok(),
                as_client,
                "{common_name} {organization}"
            );
            assert_eq!(
                check_kubelet_serving(&request, usages).is_ok(),
                as_server,
                "{common_name} {organization}"
            );
        }
    }

    #[test]
    fn damaged_requests_are_refused() {
        assert!(matches!(parse(b"no pem"), Err(Error::Pem)));
        let key = KeyPair::generate().expect("a key").serialize_pem();
        assert!(matches!(parse(key.as_bytes()), Err(Error::Pem)));
    }
}
