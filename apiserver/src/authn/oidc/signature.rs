//! Signed tokens (JSON Web Signatures) and the keys that verify them.

use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED,
    EcdsaVerificationAlgorithm, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value};

/// The algorithms that issuers may sign with, in the order in which upstream lists them.
pub const ALGORITHMS: [&str; 9] =
    ["ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512"];

/// A token taken apart. Nothing in it has been verified.
#[derive(Debug)]
pub struct Signed<'a> {
    /// The algorithm that it says it is signed with.
    pub algorithm: String,
    /// The key that it says it is signed with; may be empty.
    pub key_id: String,
    message: &'a str,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

/// Text of an object in JSON; absent is empty.
fn text(object: &Map<String, Value>, name: &str) -> Option<String> {
    match object.get(name) {
        None | Some(Value::Null) => Some(String::new()),
        Some(Value::String(text)) => Some(text.clone()),
        Some(_) => None,
    }
}

impl<'a> Signed<'a> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(token: &'a str) -> Result<Self, String> {
        let malformed = |why: &str| format!("oidc: malformed jwt: {why}");
        let mut parts = token.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err("oidc: malformed jwt".to_owned());
        };
        let decode = |part: &str| {
            URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed("illegal base64 data in a part of the token"))
        };
        let wrong = || malformed("the header is not that of a signed token");
        let read: Map<String, Value> = serde_json::from_slice(&decode(header)?).map_err(|_| wrong())?;
        // Extensions that must be understood; none are.
        if read.contains_key("crit") {
            return Err(malformed("the header has extensions that are not known"));
        }
        Ok(Self {
            algorithm: text(&read, "alg").ok_or_else(wrong)?,
            key_id: text(&read, "kid").ok_or_else(wrong)?,
            message: &token[..header.len() + 1 + payload.len()],
            payload: decode(payload)?,
            signature: decode(signature)?,
        })
    }

    /// The claims, if `key` has signed them with the algorithm that the token says.
    #[must_use]
    pub fn verify(&self, key: &Jwk) -> Option<&[u8]> {
        let fits = self.key_id.is_empty() || self.key_id == key.id;
        (fits && key.verifies(&self.algorithm, self.message.as_bytes(), &self.signature))
            .then_some(&self.payload)
    }
}

/// The issuer that a token names; nothing in it has been verified.
#[must_use]
pub fn unverified_issuer(token: &str) -> Option<String> {
    let mut parts = token.split('.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let claims: Map<String, Value> = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    let issuer = text(&claims, "iss")?;
    // As Google's tokens are to be read.
    Some(if issuer == "accounts.google.com" { format!("https://{issuer}") } else { issuer })
}

/// A public key of a set.
#[derive(Clone, Debug)]
pub struct Jwk {
    /// Its name in the set; may be empty.
    id: String,
    key: PublicKey,
}

#[derive(Clone, Debug)]
enum PublicKey {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// The name of its curve, and the point.
    Elliptic(&'static str, Vec<u8>),
}

/// Reads a key set. Keys of kinds that sign no tokens are left out.
///
/// # Errors
/// When it is none.
pub fn key_set(text: &[u8]) -> Result<Vec<Jwk>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Map<String, Value>>,
    }
    let set: Set = serde_json::from_slice(text)?;
    Ok(set.keys.iter().filter_map(Jwk::read).collect())
}

impl Jwk {
    fn read(fields: &Map<String, Value>) -> Option<Self> {
        let text = |name: &str| fields.get(name).and_then(Value::as_str);
        let number = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?.trim_end_matches('=')).ok();
        let key = match text("kty")? {
            "RSA" => {
                let trim =
                    |bytes: Vec<u8>| bytes[bytes.iter().take_while(|byte| **byte == 0).count()..].to_vec();
                PublicKey::Rsa { n: trim(number("n")?), e: trim(number("e")?) }
            }
            "EC" => {
                let (curve, size) = match text("crv")? {
                    "P-256" => ("P-256", 32),
                    "P-384" => ("P-384", 48),
                    "P-521" => ("P-521", 66),
                    _ => return None,
                };
                let mut point = vec![4];
                for name in ["x", "y"] {
                    let coordinate = number(name)?;
                    let missing: usize = size - usize::min(size, coordinate.len());
                    point.extend(std::iter::repeat_n(0, missing));
                    point.extend(coordinate);
                }
                PublicKey::Elliptic(curve, point)
            }
            _ => return None,
        };
        Some(Self { id: text("kid").unwrap_or_default().to_owned(), key })
    }

    fn verifies(&self, algorithm: &str, message: &[u8], signed: &[u8]) -> bool {
        match &self.key {
            PublicKey::Rsa { n, e } => {
                let Some(parameters) = rsa(algorithm) else { return false };
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signed).is_ok()
            }
            PublicKey::Elliptic(curve, point) => {
                let Some(parameters) = elliptic(algorithm, curve) else { return false };
                UnparsedPublicKey::new(parameters, point).verify(message, signed).is_ok()
            }
        }
    }
}

fn rsa(algorithm: &str) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
        "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
        "RS512" => &signature::RSA_PKCS1_2048_8192_SHA512,
        "PS256" => &signature::RSA_PSS_2048_8192_SHA256,
        "PS384" => &signature::RSA_PSS_2048_8192_SHA384,
        "PS512" => &signature::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

/// Each algorithm has a curve of its own.
fn elliptic(algorithm: &str, curve: &str) -> Option<&'static EcdsaVerificationAlgorithm> {
    Some(match (algorithm, curve) {
        ("ES256", "P-256") => &ECDSA_P256_SHA256_FIXED,
        ("ES384", "P-384") => &ECDSA_P384_SHA384_FIXED,
        ("ES512", "P-521") => &ECDSA_P521_SHA512_FIXED,
        _ => return None,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING,
        EcdsaKeyPair, KeyPair, RsaKeyPair,
    };
    use serde_json::json;

    use super::*;

    /// A key that signs tokens.
    pub(crate) enum Signer {
        Rsa(RsaKeyPair),
        Elliptic(&'static str, EcdsaKeyPair),
    }

    impl Signer {
        pub(crate) fn rsa() -> Self {
            Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).expect("a key"))
        }

        pub(crate) fn elliptic(curve: &'static str) -> Self {
            let algorithm = match curve {
                "P-256" => &ECDSA_P256_SHA256_FIXED_SIGNING,
                "P-384" => &ECDSA_P384_SHA384_FIXED_SIGNING,
                _ => &ECDSA_P521_SHA512_FIXED_SIGNING,
            };
            Self::Elliptic(curve, EcdsaKeyPair::generate(algorithm).expect("a key"))
        }

        pub(crate) fn jwk(&self, id: &str) -> Value {
            let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
            match self {
                Self::Rsa(pair) => {
                    let key = pair.public_key();
                    let (n, e) = (key.modulus(), key.exponent());
                    json!({
                        "kty": "RSA", "kid": id, "use": "sig",
                        "n": encode(n.big_endian_without_leading_zero()),
                        "e": encode(e.big_endian_without_leading_zero()),
                    })
                }
                Self::Elliptic(curve, pair) => {
                    let point = &pair.public_key().as_ref()[1..];
                    let (x, y) = point.split_at(point.len() / 2);
                    json!({"kty": "EC", "kid": id, "crv": curve, "x": encode(x), "y": encode(y)})
                }
            }
        }

        pub(crate) fn sign(&self, algorithm: &str, id: &str, claims: &Value) -> String {
            let header = json!({"alg": algorithm, "kid": id}).to_string();
            let message =
                format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims.to_string()));
            let random = SystemRandom::new();
            let signed = match self {
                Self::Rsa(pair) => {
                    let padding: &dyn signature::RsaEncoding = match algorithm {
                        "RS384" => &signature::RSA_PKCS1_SHA384,
                        "RS512" => &signature::RSA_PKCS1_SHA512,
                        "PS256" => &signature::RSA_PSS_SHA256,
                        "PS384" => &signature::RSA_PSS_SHA384,
                        "PS512" => &signature::RSA_PSS_SHA512,
                        _ => &signature::RSA_PKCS1_SHA256,
                    };
                    let mut out = vec![0; pair.public_modulus_len()];
                    pair.sign(padding, &random, message.as_bytes(), &mut out).expect("signed");
                    out
                }
                Self::Elliptic(_, pair) => {
                    pair.sign(&random, message.as_bytes()).expect("signed").as_ref().to_vec()
                }
            };
            format!("{message}.{}", URL_SAFE_NO_PAD.encode(signed))
        }
    }

    fn keys(keys: &[Value]) -> Vec<Jwk> {
        key_set(json!({"keys": keys}).to_string().as_bytes()).expect("a key set")
    }

    #[test]
    fn every_algorithm_is_verified() {
        let rsa = Signer::rsa();
        let (p256, p384, p521) =
            (Signer::elliptic("P-256"), Signer::elliptic("P-384"), Signer::elliptic("P-521"));
        let known = keys(&[
            rsa.jwk("r"),
            p256.jwk("2"),
            p384.jwk("3"),
            p521.jwk("5"),
            json!({"kty": "oct", "k": "c2VjcmV0"}),
        ]);
        assert_eq!(known.len(), 4, "keys that everybody has are no keys");
        for algorithm in ALGORITHMS {
            let signer = match algorithm {
                "ES256" => &p256,
                "ES384" => &p384,
                "ES512" => &p521,
                _ => &rsa,
            };
            let token = signer.sign(algorithm, "", &json!({"iss": "a"}));
            let signed = Signed::parse(&token).expect("a token");
            assert_eq!(signed.algorithm, algorithm);
            let claims = known.iter().find_map(|key| signed.verify(key));
            assert_eq!(claims, Some(&br#"{"iss":"a"}"#[..]), "{algorithm}");
            let mut forged = token.clone();
            forged.replace_range(token.rfind('.').expect("a dot") - 2.., "x");
            assert!(
                Signed::parse(&forged).is_ok_and(|f| known.iter().all(|key| f.verify(key).is_none()))
                    || Signed::parse(&forged).is_err()
            );
        }
    }

    #[test]
    fn tokens_that_are_not_signed_by_the_key_are_refused() {
        let (ours, other) = (Signer::rsa(), Signer::rsa());
        let known = keys(&[ours.jwk("a")]);
        let verified =
            |token: &str| Signed::parse(token).is_ok_and(|s| known.iter().any(|k| s.verify(k).is_some()));
        let claims = json!({"iss": "a"});
        assert!(verified(&ours.sign("RS256", "a", &claims)));
        assert!(!verified(&ours.sign("RS256", "b", &claims)), "another key's name");
        assert!(!verified(&other.sign("RS256", "a", &claims)));
        let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        for algorithm in ["none", "None", "HS256", ""] {
            let token = format!("{}.{}.", encode(json!({"alg": algorithm})), encode(claims.clone()));
            assert!(!verified(&token), "{algorithm}");
        }
        let critical = format!("{}.{}.AA", encode(json!({"alg": "RS256", "crit": ["b64"]})), encode(claims));
        for token in ["", "a", "a.b", "a.b.c.d", "!.e30.AA", &critical] {
            assert!(Signed::parse(token).is_err(), "{token}");
        }
    }

    #[test]
    fn issuers_are_read_before_anything_is_verified() {
        let token = |claims: &str| format!("e30.{}.x", URL_SAFE_NO_PAD.encode(claims));
        for (token, expected) in [
            (token(r#"{"iss":"https://a"}"#), Some("https://a")),
            (token(r#"{"iss":"accounts.google.com"}"#), Some("https://accounts.google.com")),
            (token("{}"), Some("")),
            (token("[]"), None),
            ("a.b".to_owned(), None),
            ("a.b.c.d".to_owned(), None),
        ] {
            assert_eq!(unverified_issuer(&token).as_deref(), expected, "{token}");
        }
    }
}
