//! Bootstrap tokens: `ID.SECRET` kept in a Secret of kube-system (upstream `token/bootstrap`). Nodes join with them.

use client::informer::{Informer, Selection};
use client::{ObjectKey, SharedInformerFactory};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;

use super::{TokenAuthenticator, TokenError, TokenUser, User};

/// Looks bootstrap tokens up in the secrets of kube-system.
pub struct BootstrapTokens {
    secrets: Informer<Secret>,
}

impl BootstrapTokens {
    /// Watches the bootstrap token secrets.
    #[must_use]
    pub fn new(informers: &SharedInformerFactory) -> Self {
        let selection = Selection {
            namespace: Some("kube-system".to_owned()),
            fields: Some("type=bootstrap.kubernetes.io/token".to_owned()),
            ..Selection::default()
        };
        Self { secrets: informers.informer_selected::<Secret>(selection) }
    }
}

/// Splits `ID.SECRET`: six and sixteen lower-case letters or digits.
fn parse(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |text: &str, size| {
        text.len() == size && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    (plain(id, 6) && plain(secret, 16)).then_some((id, secret))
}

/// The user a token stands for, if the secret says that it is good at `now`.
fn user(secret: &Secret, id: &str, token_secret: &str, now: Timestamp) -> Option<User> {
    let data = |key: &str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key));
        bytes.and_then(|bytes| std::str::from_utf8(&bytes.0).ok()).unwrap_or_default()
    };
    let good = secret.metadata.deletion_timestamp.is_none()
        && secret.type_.as_deref() == Some("bootstrap.kubernetes.io/token")
        && super::service_account::same_bytes(data("token-secret").as_bytes(), token_secret.as_bytes())
        && data("token-id") == id
        && !expired(data("expiration"), now)
        && data("usage-bootstrap-authentication") == "true";
    if !good {
        return None;
    }
    Some(User {
        name: format!("system:bootstrap:{id}"),
        groups: groups(data("auth-extra-groups"))?,
        ..User::default()
    })
}

/// An expiration that cannot be read counts as expired.
fn expired(expiration: &str, now: Timestamp) -> bool {
    !expiration.is_empty() && expiration.parse::<Timestamp>().map_or(true, |at| at <= now)
}

/// `system:bootstrappers` and the extra groups; `None` if one of them is not allowed.
fn groups(extra: &str) -> Option<Vec<String>> {
    let mut groups = vec!["system:bootstrappers".to_owned()];
    for group in extra.split(',').filter(|group| !group.is_empty()) {
        let rest = group.strip_prefix("system:bootstrappers:")?;
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let fine = rest.len() <= 256
            && rest.chars().all(|c| inner(c) || matches!(c, ':' | '-'))
            && rest.ends_with(inner);
        if !fine {
            return None;
        }
        groups.push(group.to_owned());
    }
    groups.sort();
    groups.dedup();
    Some(groups)
}

#[async_trait::async_trait]
impl TokenAuthenticator for BootstrapTokens {
    async fn authenticate_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<TokenUser>, TokenError> {
        let Some((id, token_secret)) = parse(token) else { return Ok(None) };
        let key = ObjectKey::new("kube-system", format!("bootstrap-token-{id}"));
        let Some(secret) = self.secrets.store().get(&key) else { return Ok(None) };
        let user = user(&secret, id, token_secret, Timestamp::now());
        Ok(user.map(|user| TokenUser { user, audiences: audiences.to_vec() }))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    fn secret(fields: &[(&str, &str)]) -> Secret {
        let base = [
            ("token-id", "abcdef"),
            ("token-secret", "0123456789abcdef"),
            ("usage-bootstrap-authentication", "true"),
        ];
        let data = base
            .iter()
            .chain(fields)
            .map(|(k, v)| ((*k).to_owned(), ByteString(v.as_bytes().to_vec())))
            .collect();
        Secret { data: Some(data), type_: Some("bootstrap.kubernetes.io/token".into()), ..Secret::default() }
    }

    #[test]
    fn a_secret_decides_whether_its_token_is_good() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("time");
        let check = |fields: &[(&str, &str)]| user(&secret(fields), "abcdef", "0123456789abcdef", now);
        let found =
            check(&[("auth-extra-groups", "system:bootstrappers:kubeadm:default-node-token")]).expect("good");
        assert_eq!(found.name, "system:bootstrap:abcdef");
        assert_eq!(found.groups, ["system:bootstrappers", "system:bootstrappers:kubeadm:default-node-token"]);
        assert!(check(&[("expiration", "2025-01-01T00:00:00Z")]).is_none(), "expired");
        assert!(check(&[("expiration", "soon")]).is_none(), "unreadable expiration");
        assert!(check(&[("expiration", "2027-01-01T00:00:00Z")]).is_some());
        assert!(check(&[("usage-bootstrap-authentication", "false")]).is_none());
        assert!(check(&[("token-secret", "fedcba9876543210")]).is_none());
        assert!(check(&[("auth-extra-groups", "system:masters")]).is_none(), "foreign group");
    }

    #[test]
    fn other_tokens_are_not_ours() {
        assert_eq!(parse("abcdef.0123456789abcdef"), Some(("abcdef", "0123456789abcdef")));
        for token in ["", "abcdef", "abcdef.0123", "ABCDEF.0123456789abcdef", "a.b.c"] {
            assert_eq!(parse(token), None, "{token}");
        }
    }
}
