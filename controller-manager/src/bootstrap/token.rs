//! A bootstrap token, as its Secret has it.

use crate::common::meta;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey};
use k8s_openapi::api::core::v1::Secret;

/// The type of such Secrets.
pub const TYPE: &str = "bootstrap.kubernetes.io/token";

/// A token that is valid.
#[derive(Clone, Debug)]
pub struct Token {
    /// The public part.
    pub id: String,
    /// The other part.
    pub secret: String,
    /// Whether it may sign.
    pub signs: bool,
}

fn text(secret: &Secret, key: &str) -> Option<String> {
    let value = secret.data.as_ref()?.get(key)?;
    String::from_utf8(value.0.clone()).ok().filter(|text| !text.is_empty())
}

/// When the token expires; at once when that cannot be read.
pub fn expires(secret: &Secret) -> Option<Timestamp> {
    text(secret, "expiration").map(|text| text.parse().unwrap_or(Timestamp::UNIX_EPOCH))
}

impl Token {
    /// Reads a token; `None` when it is not one, or expired.
    pub fn read(secret: &Secret, now: Timestamp) -> Option<Self> {
        let id = meta::name(&secret.metadata).strip_prefix("bootstrap-token-")?.to_owned();
        if text(secret, "token-id")? != id || expires(secret).is_some_and(|at| at <= now) {
            return None;
        }
        Some(Self {
            id,
            secret: text(secret, "token-secret")?,
            signs: text(secret, "usage-bootstrap-signing").as_deref() == Some("true"),
        })
    }

    /// A detached signature of the content: header, nothing, signature.
    pub fn sign(&self, content: &str) -> Option<String> {
        let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"HS256","kid":"{}"}}"#, self.id));
        let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode(content));
        let key = EncodingKey::from_secret(self.secret.as_bytes());
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).ok()?;
        Some(format!("{header}..{signature}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    fn secret(name: &str, pairs: &[(&str, &str)]) -> Secret {
        let mut secret = Secret::default();
        secret.metadata.name = Some(name.into());
        let value = |(key, value): &(&str, &str)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec()));
        secret.data = Some(pairs.iter().map(value).collect());
        secret
    }

    #[test]
    fn only_valid_tokens_are_read() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let base = [("token-id", "abcdef"), ("token-secret", "s"), ("usage-bootstrap-signing", "true")];
        let with = |more: (&'static str, &'static str)| [&base[..], &[more]].concat();
        for (name, pairs, expected) in [
            ("bootstrap-token-abcdef", base.to_vec(), true),
            ("bootstrap-token-other0", base.to_vec(), false),
            ("abcdef", base.to_vec(), false),
            ("bootstrap-token-abcdef", with(("expiration", "2026-01-02T00:00:00Z")), true),
            ("bootstrap-token-abcdef", with(("expiration", "2025-12-31T00:00:00Z")), false),
            ("bootstrap-token-abcdef", with(("expiration", "soon")), false),
        ] {
            assert_eq!(Token::read(&secret(name, &pairs), now).is_some(), expected, "{name} {pairs:?}");
        }
    }

    #[test]
    fn signature_is_detached() {
        let token = Token { id: "abcdef".into(), secret: "0123456789abcdef".into(), signs: true };
        let signature = token.sign("content").expect("signed");
        let parts: Vec<_> = signature.split('.').collect();
        assert_eq!((parts.len(), parts[1]), (3, ""));
        let header = URL_SAFE_NO_PAD.decode(parts[0]).expect("base64");
        assert_eq!(header, br#"{"alg":"HS256","kid":"abcdef"}"#);
        assert_ne!(token.sign("other").as_deref(), Some(signature.as_str()));
    }
}
