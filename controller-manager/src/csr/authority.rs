//! The certificate authority: signs a request exactly as it was asked for, name by name.
//!
//! Certificates are written here and not by `rcgen`, which keeps only one of several organizations of a subject;
//! organizations are groups, so that would change what the certificate allows.

use super::der;
use super::request::Request;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use rcgen::{KeyPair, PublicKeyData, SigningKey};
use std::fmt::Write as _;
use std::time::Duration;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Why nothing can be signed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The authority's certificate is unusable.
    #[error("certificate of the authority: {0}")]
    Certificate(String),
    /// The authority's key is unusable.
    #[error("key of the authority: {0}")]
    Key(#[source] rcgen::Error),
    /// No way to sign with this kind of key.
    #[error("key of the authority is of an unknown kind")]
    Algorithm,
    /// Usages that no certificate can express.
    #[error("unrecognized usage values: {0:?}")]
    Usages(Vec<String>),
    /// The authority's certificate is not valid any more.
    #[error("the signer has expired: NotAfter={0}")]
    Expired(Timestamp),
}

/// A key with its certificate.
pub struct Authority {
    key: KeyPair,
    algorithm: Vec<u8>,
    subject: Vec<u8>,
    key_id: Option<Vec<u8>>,
    not_after: Timestamp,
}

/// Validity begins a little before now, for clocks that go slow.
const BACKDATE: SignedDuration = SignedDuration::from_mins(5);
const SHORT: Duration = Duration::from_secs(8 * 3600);

impl Authority {
    /// Reads certificate and key in PEM.
    pub fn new(certificate: &str, key: &str) -> Result<Self, Error> {
        let bad = |error: String| Error::Certificate(error);
        let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.as_bytes())
            .map_err(|error| bad(error.to_string()))?;
        let (_, parsed) = X509Certificate::from_der(&pem.contents).map_err(|error| bad(error.to_string()))?;
        let key = KeyPair::from_pem(key).map_err(Error::Key)?;
        let key_id = parsed.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        });
        let not_after = parsed.validity().not_after.timestamp();
        Ok(Self {
            algorithm: algorithm(&key)?,
            key,
            subject: parsed.subject().as_raw().to_vec(),
            key_id,
            not_after: Timestamp::from_second(not_after).map_err(|error| bad(error.to_string()))?,
        })
    }

    /// Signs; returns the certificate in PEM.
    pub fn sign(
        &self,
        request: &Request,
        usages: &[String],
        validity: Duration,
        now: Timestamp,
    ) -> Result<String, Error> {
        let (key_usage, purposes) = self::usages(usages)?;
        let (from, to) = self.validity(validity, now)?;
        let mut extensions = Vec::new();
        if !key_usage.is_empty() {
            extensions.push(extension(&[2, 5, 29, 15], true, &der::named_bits(&key_usage)));
        }
        if !purposes.is_empty() {
            extensions.push(extension(&[2, 5, 29, 37], false, &der::sequence(&purposes)));
        }
        extensions.push(extension(&[2, 5, 29, 19], true, &der::sequence(&[])));
        if let Some(id) = &self.key_id {
            let identifier = der::sequence(&[der::value(0x80, id)]);
            extensions.push(extension(&[2, 5, 29, 35], false, &identifier));
        }
        if let Some(names) = &request.names {
            extensions.push(extension(&[2, 5, 29, 17], false, names));
        }
        let body = der::sequence(&[
            der::value(0xa0, &der::unsigned(&[2])),
            der::unsigned(&serial()),
            self.algorithm.clone(),
            self.subject.clone(),
            der::sequence(&[der::time(from), der::time(to)]),
            request.subject.clone(),
            request.public_key.clone(),
            der::value(0xa3, &der::sequence(&extensions)),
        ]);
        let signature = self.key.sign(&body).map_err(Error::Key)?;
        let certificate = der::sequence(&[body, self.algorithm.clone(), der::bits(&signature)]);
        Ok(pem(&certificate))
    }

    fn validity(&self, validity: Duration, now: Timestamp) -> Result<(Timestamp, Timestamp), Error> {
        let expired = || Error::Expired(self.not_after);
        let from = now.checked_sub(BACKDATE).map_err(|_| expired())?;
        let length = SignedDuration::try_from(validity).map_err(|_| expired())?;
        let length = if validity < SHORT { length } else { length - BACKDATE };
        let to = now.checked_add(length).map_err(|_| expired())?.min(self.not_after);
        if now >= self.not_after { Err(expired()) } else { Ok((from, to)) }
    }
}

/// 16 random bytes.
fn serial() -> [u8; 16] {
    let mut bytes: [u8; 16] = rand::random();
    bytes[0] &= 0x7f;
    bytes
}

fn algorithm(key: &KeyPair) -> Result<Vec<u8>, Error> {
    let plain = |arcs: &[u32]| der::sequence(&[der::oid(arcs)]);
    let algorithm = key.algorithm();
    Ok(if algorithm == &rcgen::PKCS_ECDSA_P256_SHA256 {
        plain(&[1, 2, 840, 10045, 4, 3, 2])
    } else if algorithm == &rcgen::PKCS_ECDSA_P384_SHA384 {
        plain(&[1, 2, 840, 10045, 4, 3, 3])
    } else if algorithm == &rcgen::PKCS_ED25519 {
        plain(&[1, 3, 101, 112])
    } else if algorithm == &rcgen::PKCS_RSA_SHA256 {
        der::sequence(&[der::oid(&[1, 2, 840, 113_549, 1, 1, 11]), der::value(5, &[])])
    } else {
        return Err(Error::Algorithm);
    })
}

fn extension(oid: &[u32], critical: bool, content: &[u8]) -> Vec<u8> {
    let critical = if critical { der::value(0x01, &[0xff]) } else { Vec::new() };
    der::sequence(&[der::oid(oid), critical, der::octets(content)])
}

/// The bits of the key usage, and the purposes in the order of their numbers.
fn usages(usages: &[String]) -> Result<(Vec<u8>, Vec<Vec<u8>>), Error> {
    const BITS: [(&str, u8); 10] = [
        ("signing", 0),
        ("digital signature", 0),
        ("content commitment", 1),
        ("key encipherment", 2),
        ("data encipherment", 3),
        ("key agreement", 4),
        ("cert sign", 5),
        ("crl sign", 6),
        ("encipher only", 7),
        ("decipher only", 8),
    ];
    const PKIX: [u32; 8] = [1, 3, 6, 1, 5, 5, 7, 3];
    const PURPOSES: [(&str, u32); 10] = [
        ("server auth", 1),
        ("client auth", 2),
        ("code signing", 3),
        ("email protection", 4),
        ("s/mime", 4),
        ("ipsec end system", 5),
        ("ipsec tunnel", 6),
        ("ipsec user", 7),
        ("timestamping", 8),
        ("ocsp signing", 9),
    ];
    let (mut bits, mut numbers, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
    let mut any = false;
    for usage in usages {
        if let Some((_, bit)) = BITS.iter().find(|(name, _)| name == usage) {
            bits.push(*bit);
        } else if let Some((_, number)) = PURPOSES.iter().find(|(name, _)| name == usage) {
            numbers.push(*number);
        } else if usage == "any" {
            any = true;
        } else {
            unknown.push(usage.clone());
        }
    }
    if !unknown.is_empty() {
        return Err(Error::Usages(unknown));
    }
    numbers.sort_unstable();
    numbers.dedup();
    let mut purposes: Vec<_> = any.then(|| der::oid(&[2, 5, 29, 37, 0])).into_iter().collect();
    purposes.extend(numbers.into_iter().map(|number| der::oid(&[&PKIX[..], &[number]].concat())));
    Ok((bits, purposes))
}

fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut out = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        let _ = writeln!(out, "{}", String::from_utf8_lossy(line));
    }
    out.push_str("-----END CERTIFICATE-----\n");
    out
}

/// The encoded public key of a key.
pub fn public_key(key: &KeyPair) -> Vec<u8> {
    key.subject_public_key_info()
}

#[cfg(test)]
mod tests {
    use super::super::request;
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa};

    fn authority() -> (Authority, String) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("self-signed").pem();
        (Authority::new(&certificate, &key.serialize_pem()).expect("valid"), certificate)
    }

    #[test]
    fn certificate_says_what_was_asked_and_verifies() {
        let (authority, certificate) = authority();
        let request =
            request::parse(request::tests::pem("system:node:n1", "system:nodes", &["n1"]).as_bytes());
        let request = request.expect("valid");
        let usages = ["digital signature", "server auth"].map(str::to_owned);
        let now = Timestamp::now();
        let signed = authority.sign(&request, &usages, Duration::from_secs(86_400), now).expect("signed");
        let (_, pem) = x509_parser::pem::parse_x509_pem(signed.as_bytes()).expect("pem");
        let (_, cert) = X509Certificate::from_der(&pem.contents).expect("certificate");
        let (_, ca_pem) = x509_parser::pem::parse_x509_pem(certificate.as_bytes()).expect("pem");
        let (_, ca) = X509Certificate::from_der(&ca_pem.contents).expect("certificate");
        cert.verify_signature(Some(ca.public_key())).expect("signed by the authority");
        assert_eq!(cert.subject().as_raw(), request.subject);
        assert_eq!(cert.issuer().as_raw(), ca.subject().as_raw());
        assert!(!cert.is_ca());
        let usage = cert.extended_key_usage().expect("readable").expect("there");
        assert!(usage.value.server_auth && !usage.value.client_auth);
        assert_eq!(
            cert.subject_alternative_name().expect("readable").expect("there").value.general_names.len(),
            1
        );
        assert_eq!(cert.validity().not_after.timestamp() - now.as_second(), 86_400 - 300);
    }

    #[test]
    fn unknown_usages_are_refused() {
        assert!(matches!(usages(&["magic".to_owned()]), Err(Error::Usages(_))));
    }
}
