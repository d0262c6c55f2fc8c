//! The keys that sign and verify service account tokens (upstream `pkg/serviceaccount/jwt.go`).
//!
//! A key's id is the unpadded URL-safe base64 of the SHA-256 of its public key (PKIX DER), as upstream's.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::{PemObject, SectionKind};
use sha2::{Digest, Sha256};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not PEM, or nothing usable in it.
    #[error("data does not contain any valid RSA or ECDSA public keys")]
    NoKey,
    /// A key of a kind that cannot sign or verify tokens.
    #[error("unsupported key: {0}")]
    Unsupported(String),
}

/// A key that verifies tokens.
#[derive(Clone)]
pub struct VerifyingKey {
    /// Key id, the `kid` of tokens it signed.
    pub id: String,
    /// The signature algorithm of the key.
    pub algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
    /// The key as a member of a JSON Web Key Set.
    pub jwk: serde_json::Value,
}

/// A key that signs tokens.
#[derive(Clone)]
pub struct SigningKey {
    pub(super) encoding: EncodingKey,
    /// The public half.
    pub public: VerifyingKey,
}

impl VerifyingKey {
    /// All public keys of a PEM file: public keys, certificates, or the public halves of private keys.
    pub fn all_from_pem(pem: &[u8]) -> Result<Vec<Self>, Error> {
        let mut keys = Vec::new();
        for (kind, der) in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem).flatten() {
            match kind {
                SectionKind::PublicKey => keys.push(Self::from_spki(&der)?),
                SectionKind::Certificate => {
                    let (_, certificate) =
                        x509_parser::parse_x509_certificate(&der).map_err(|_| Error::NoKey)?;
                    keys.push(Self::from_spki(certificate.public_key().raw)?);
                }
                SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey => {
                    keys.push(Self::from_spki(&public_half(&private_key(kind, der)?)?)?);
                }
                _ => {}
            }
        }
        if keys.is_empty() { Err(Error::NoKey) } else { Ok(keys) }
    }

    /// A key from its PKIX form (DER SubjectPublicKeyInfo).
    pub fn from_spki(spki: &[u8]) -> Result<Self, Error> {
        let (_, info) = SubjectPublicKeyInfo::from_der(spki).map_err(|_| Error::NoKey)?;
        let id = URL_SAFE_NO_PAD.encode(Sha256::digest(spki));
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match info.parsed().map_err(|e| Error::Unsupported(e.to_string()))? {
            PublicKey::RSA(rsa) => {
                let trim = |bytes: &[u8]| encode(&bytes[bytes.iter().take_while(|b| **b == 0).count()..]);
                let (n, e) = (trim(rsa.modulus), trim(rsa.exponent));
                let decoding = DecodingKey::from_rsa_components(&n, &e)
                    .map_err(|e| Error::Unsupported(e.to_string()))?;
                let jwk = serde_json::json!({
                    "use": "sig", "kty": "RSA", "kid": id, "alg": "RS256", "n": n, "e": e,
                });
                Ok(Self { id, algorithm: Algorithm::RS256, decoding, jwk })
            }
            PublicKey::EC(point) => {
                let data = point.data();
                let size = data.len().saturating_sub(1) / 2;
                let (curve, name, algorithm) = match size {
                    32 => ("P-256", "ES256", Algorithm::ES256),
                    48 => ("P-384", "ES384", Algorithm::ES384),
                    _ => return Err(Error::Unsupported("elliptic curve".to_owned())),
                };
                let (x, y) = (encode(&data[1..=size]), encode(&data[1 + size..]));
                let decoding =
                    DecodingKey::from_ec_components(&x, &y).map_err(|e| Error::Unsupported(e.to_string()))?;
                let jwk = serde_json::json!({
                    "use": "sig", "kty": "EC", "kid": id, "crv": curve, "alg": name, "x": x, "y": y,
                });
                Ok(Self { id, algorithm, decoding, jwk })
            }
            _ => Err(Error::Unsupported("neither RSA nor ECDSA".to_owned())),
        }
    }
}

impl SigningKey {
    /// The first private key of a PEM file.
    pub fn from_pem(pem: &[u8]) -> Result<Self, Error> {
        for (kind, der) in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem).flatten() {
            let encoding = match kind {
                SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey => {
                    private_key(kind, der)?
                }
                _ => continue,
            };
            let public = VerifyingKey::from_spki(&public_half(&encoding)?)?;
            let unsupported = |e: jsonwebtoken::errors::Error| Error::Unsupported(e.to_string());
            let encoding = match public.algorithm {
                Algorithm::RS256 => EncodingKey::from_rsa_pem(pem).map_err(unsupported)?,
                _ => EncodingKey::from_ec_der(&pkcs8(&encoding, public.algorithm)?),
            };
            return Ok(Self { encoding, public });
        }
        Err(Error::NoKey)
    }
}

fn private_key(kind: SectionKind, der: Vec<u8>) -> Result<PrivateKeyDer<'static>, Error> {
    match kind {
        SectionKind::PrivateKey => Ok(PrivateKeyDer::Pkcs8(der.into())),
        SectionKind::RsaPrivateKey => Ok(PrivateKeyDer::Pkcs1(der.into())),
        SectionKind::EcPrivateKey => Ok(PrivateKeyDer::Sec1(der.into())),
        _ => Err(Error::NoKey),
    }
}

/// PKIX form of the public key that belongs to a private key.
fn public_half(key: &PrivateKeyDer<'static>) -> Result<Vec<u8>, Error> {
    let unsupported = |e: rustls::Error| Error::Unsupported(e.to_string());
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(key).map_err(unsupported)?;
    let spki = key.public_key().ok_or(Error::NoKey)?;
    Ok(spki.as_ref().to_vec())
}

/// An elliptic curve key in PKCS#8, which is what the signer takes; SEC1 (what openssl's `ecparam` writes) is wrapped.
fn pkcs8(key: &PrivateKeyDer<'static>, algorithm: Algorithm) -> Result<Vec<u8>, Error> {
    let sec1 = match key {
        PrivateKeyDer::Pkcs8(der) => return Ok(der.secret_pkcs8_der().to_vec()),
        PrivateKeyDer::Sec1(der) => der.secret_sec1_der(),
        _ => return Err(Error::NoKey),
    };
    // AlgorithmIdentifier { id-ecPublicKey, curve }
    const P256: &[u8] = &[
        0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
        0x3d, 0x03, 0x01, 0x07,
    ];
    const P384: &[u8] = &[
        0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00,
        0x22,
    ];
    let curve = if algorithm == Algorithm::ES256 { P256 } else { P384 };
    let octets = der_value(0x04, sec1);
    let body = [&[0x02, 0x01, 0x00][..], curve, &octets].concat();
    Ok(der_value(0x30, &body))
}

fn der_value(tag: u8, body: &[u8]) -> Vec<u8> {
    let size = body.len();
    let mut out = vec![tag];
    match u8::try_from(size) {
        Ok(short @ 0..=127) => out.push(short),
        Ok(byte) => out.extend([0x81, byte]),
        Err(_) => out.extend([0x82, (size >> 8) as u8, size as u8]),
    }
    out.extend_from_slice(body);
    out
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A fresh elliptic curve key as PEM.
    pub(crate) fn ec_pem() -> String {
        rcgen::KeyPair::generate().expect("key").serialize_pem()
    }

    #[test]
    fn a_private_key_verifies_what_it_signs() {
        let pem = ec_pem();
        let signing = SigningKey::from_pem(pem.as_bytes()).expect("signing key");
        let verifying = VerifyingKey::all_from_pem(pem.as_bytes()).expect("public half");
        assert_eq!(verifying[0].id, signing.public.id);
        assert_eq!(verifying[0].jwk["kty"], "EC");
        assert_eq!(verifying[0].jwk["crv"], "P-256");
    }

    #[test]
    fn public_keys_are_read_and_rubbish_is_not() {
        let pair = rcgen::KeyPair::generate().expect("key");
        let keys = VerifyingKey::all_from_pem(pair.public_key_pem().as_bytes()).expect("public key");
        assert_eq!(keys.len(), 1);
        assert!(VerifyingKey::all_from_pem(b"nothing").is_err());
        assert!(SigningKey::from_pem(pair.public_key_pem().as_bytes()).is_err());
    }
}
