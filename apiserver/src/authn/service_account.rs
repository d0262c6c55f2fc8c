//! Service account tokens: signature, issuer, audience and time, and whether what they are bound to still exists
//! (upstream `pkg/serviceaccount`).

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;

use client::informer::{Informer, Selection};
use client::{Client, ObjectKey, SharedInformerFactory};
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{DecodingKey, Validation};
use k8s_openapi::api::core::v1::{Node, Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::keys::VerifyingKey;
use super::oidc::signature::unverified_issuer;
use super::{TokenAuthenticator, TokenError, TokenUser, User};
use crate::authz::node::slim::SlimPod;

/// The issuer of tokens kept in secrets.
pub const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";

/// How far clocks may differ.
const LEEWAY: SignedDuration = SignedDuration::from_secs(60);

/// What a token says; the fields of both kinds of tokens.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Claims {
    /// Who it is meant for.
    #[serde(
        default,
        rename = "aud",
        deserialize_with = "one_or_many",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub audience: Vec<String>,
    /// When it ends.
    #[serde(default, rename = "exp", deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub expiry: Option<i64>,
    /// When it was made.
    #[serde(default, rename = "iat", deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub issued_at: Option<i64>,
    /// Who made it.
    #[serde(default, rename = "iss")]
    pub issuer: String,
    /// Its own id.
    #[serde(default, rename = "jti", skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// What it is bound to.
    #[serde(default, rename = "kubernetes.io", skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<Bound>,
    /// When it begins.
    #[serde(default, rename = "nbf", deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub not_before: Option<i64>,
    /// The user it names.
    #[serde(default, rename = "sub")]
    pub subject: String,
    /// Namespace of a legacy token.
    #[serde(
        default,
        rename = "kubernetes.io/serviceaccount/namespace",
        skip_serializing_if = "String::is_empty"
    )]
    pub legacy_namespace: String,
    /// Secret that holds a legacy token.
    #[serde(
        default,
        rename = "kubernetes.io/serviceaccount/secret.name",
        skip_serializing_if = "String::is_empty"
    )]
    pub legacy_secret: String,
    /// Service account of a legacy token.
    #[serde(
        default,
        rename = "kubernetes.io/serviceaccount/service-account.name",
        skip_serializing_if = "String::is_empty"
    )]
    pub legacy_name: String,
    /// UID of the service account of a legacy token.
    #[serde(
        default,
        rename = "kubernetes.io/serviceaccount/service-account.uid",
        skip_serializing_if = "String::is_empty"
    )]
    pub legacy_uid: String,
}

/// The `kubernetes.io` claim.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bound {
    /// Namespace of the service account.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The node it is bound to, or on which its pod runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Reference>,
    /// The pod it is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Reference>,
    /// The secret it is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Reference>,
    /// The service account.
    #[serde(default)]
    pub serviceaccount: Reference,
    /// From when on its use is suspicious.
    #[serde(default, deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

/// An object a token is bound to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    /// Its name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its UID.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// `aud` is one string or several.
fn one_or_many<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audience {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Audience::deserialize(deserializer)? {
        Audience::One(one) => vec![one],
        Audience::Many(many) => many,
    })
}

/// Numeric dates may carry fractions; only whole seconds count.
fn number<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    #[expect(clippy::cast_possible_truncation, reason = "seconds since 1970 fit")]
    Ok(Option::<f64>::deserialize(deserializer)?.map(|seconds| seconds as i64))
}

/// Compares without telling by its duration where the difference is.
pub(super) fn same_bytes(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

/// Finds the objects tokens are bound to.
#[async_trait::async_trait]
pub trait Lookup: Send + Sync + 'static {
    /// Metadata of a service account.
    async fn service_account(&self, namespace: &str, name: &str) -> Option<ObjectMeta>;
    /// Metadata of a pod.
    async fn pod(&self, namespace: &str, name: &str) -> Option<ObjectMeta>;
    /// Metadata of a node.
    async fn node(&self, name: &str) -> Option<ObjectMeta>;
    /// A secret.
    async fn secret(&self, namespace: &str, name: &str) -> Option<Arc<Secret>>;
    /// Notes that the token in a secret has been used.
    async fn used(&self, secret: &Secret);
}

/// Looks into informers first and asks the API for what they do not have (yet).
pub struct Cached {
    client: Client,
    accounts: Informer<ServiceAccount>,
    pods: Informer<SlimPod>,
    nodes: Informer<Node>,
    tokens: Informer<Secret>,
}

impl Cached {
    /// Watches service accounts, pods, nodes and token secrets.
    #[must_use]
    pub fn new(client: Client, informers: &SharedInformerFactory) -> Self {
        let tokens = Selection {
            fields: Some("type=kubernetes.io/service-account-token".to_owned()),
            ..Selection::default()
        };
        Self {
            client,
            accounts: informers.informer(),
            pods: informers.informer(),
            nodes: informers.informer(),
            tokens: informers.informer_selected(tokens),
        }
    }
}

async fn live<K>(api: Api<K>, name: &str) -> Option<K>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    match api.get_opt(name).await {
        Ok(found) => found,
        Err(error) => {
            tracing::debug!(%error, name, "could not look up what a token is bound to");
            None
        }
    }
}

#[async_trait::async_trait]
impl Lookup for Cached {
    async fn service_account(&self, namespace: &str, name: &str) -> Option<ObjectMeta> {
        if let Some(found) = self.accounts.store().get(&ObjectKey::new(namespace, name)) {
            return Some(found.metadata.clone());
        }
        live::<ServiceAccount>(Api::namespaced(self.client.clone(), namespace), name)
            .await
            .map(|found| found.metadata)
    }

    async fn pod(&self, namespace: &str, name: &str) -> Option<ObjectMeta> {
        if let Some(found) = self.pods.store().get(&ObjectKey::new(namespace, name)) {
            return Some(found.metadata.clone());
        }
        live::<SlimPod>(Api::namespaced(self.client.clone(), namespace), name)
            .await
            .map(|found| found.metadata)
    }

    async fn node(&self, name: &str) -> Option<ObjectMeta> {
        if let Some(found) = self.nodes.store().get(&ObjectKey::new("", name)) {
            return Some(found.metadata.clone());
        }
        live::<Node>(Api::all(self.client.clone()), name).await.map(|found| found.metadata)
    }

    async fn secret(&self, namespace: &str, name: &str) -> Option<Arc<Secret>> {
        if let Some(found) = self.tokens.store().get(&ObjectKey::new(namespace, name)) {
            return Some(found);
        }
        live::<Secret>(Api::namespaced(self.client.clone(), namespace), name).await.map(Arc::new)
    }

    async fn used(&self, secret: &Secret) {
        let Some(patch) = last_used(secret, Timestamp::now()) else { return };
        let api = Api::<Secret>::namespaced(self.client.clone(), &secret.namespace().unwrap_or_default());
        let patched = api.patch(&secret.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await;
        if let Err(error) = patched {
            tracing::warn!(%error, secret = secret.name_any(), "could not note that a token has been used");
        }
    }
}

const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";

/// The patch that says on which day the token in a secret was last used, if it does not say so yet. Another server's
/// clock may be a day ahead.
fn last_used(secret: &Secret, now: Timestamp) -> Option<Value> {
    let day = |time: Timestamp| time.strftime("%Y-%m-%d").to_string();
    let (today, tomorrow) = (day(now), day(now + SignedDuration::from_hours(24)));
    let noted = secret.labels().get(LAST_USED);
    if noted.is_some_and(|noted| *noted == today || *noted == tomorrow) {
        return None;
    }
    let labels = json!({LAST_USED: today});
    Some(json!({"metadata": {"uid": secret.metadata.uid, "labels": labels}}))
}

/// Verifies service account tokens.
pub struct ServiceAccountTokens {
    issuers: HashSet<String>,
    keys: HashMap<String, VerifyingKey>,
    /// Audiences of the server itself, which tokens without audiences are good for.
    audiences: Vec<String>,
    lookup: Arc<dyn Lookup>,
}

impl ServiceAccountTokens {
    /// Verifies tokens of `issuers` signed by one of `keys`.
    #[must_use]
    pub fn new(
        issuers: &[String],
        keys: Vec<VerifyingKey>,
        audiences: Vec<String>,
        lookup: Arc<dyn Lookup>,
    ) -> Self {
        let issuers = issuers.iter().cloned().chain([LEGACY_ISSUER.to_owned()]).collect();
        let keys = keys.into_iter().map(|key| (key.id.clone(), key)).collect();
        Self { issuers, keys, audiences, lookup }
    }

    /// The claims of a token whose signature is right; `None` if it is not a token of these issuers.
    fn verify(&self, token: &str) -> Result<Option<Claims>, TokenError> {
        let Some(issuer) = unverified_issuer(token) else { return Ok(None) };
        if !self.issuers.contains(&issuer) {
            return Ok(None);
        }
        let Ok(header) = jsonwebtoken::decode_header(token) else { return Ok(None) };
        let keys: Vec<&VerifyingKey> = match header.kid.as_deref() {
            Some(id) if !id.is_empty() => self.keys.get(id).into_iter().collect(),
            _ => self.keys.values().collect(),
        };
        if keys.is_empty() {
            return Err(TokenError("invalid signature, no keys found".to_owned()));
        }
        for key in keys {
            if let Some(claims) = verify_with(token, key.algorithm, &key.decoding) {
                return Ok(Some(claims));
            }
        }
        Err(TokenError("go-jose/go-jose: error in cryptographic primitive".to_owned()))
    }

    async fn validate(&self, token: &str, claims: &Claims, now: Timestamp) -> Result<User, TokenError> {
        if claims.issuer == LEGACY_ISSUER && claims.kubernetes.is_none() {
            return self.validate_legacy(token, claims).await;
        }
        check_times(claims, now)?;
        let bound = claims.kubernetes.clone().unwrap_or_default();
        let deleted = |meta: &ObjectMeta| is_deleted(meta, now);
        let (namespace, account) = (bound.namespace.as_str(), &bound.serviceaccount);
        let Some(meta) = self.lookup.service_account(namespace, &account.name).await else {
            return fail(format!("serviceaccounts {:?} not found", account.name));
        };
        let uid = meta.uid.clone().unwrap_or_default();
        if uid != account.uid {
            return fail(format!("service account UID ({uid}) does not match claim ({})", account.uid));
        }
        if deleted(&meta) {
            return fail(format!("service account {namespace}/{} has been deleted", account.name));
        }
        if let Some(reference) = &bound.secret {
            let meta =
                self.lookup.secret(namespace, &reference.name).await.map(|secret| secret.metadata.clone());
            check_bound(meta, reference, "secret", now)?;
        }
        if let Some(reference) = &bound.pod {
            check_bound(self.lookup.pod(namespace, &reference.name).await, reference, "pod", now)?;
        } else if let Some(reference) = &bound.node {
            check_bound(self.lookup.node(&reference.name).await, reference, "node", now)?;
        }
        Ok(user_of(&bound, &claims.id))
    }

    async fn validate_legacy(&self, token: &str, claims: &Claims) -> Result<User, TokenError> {
        for (value, name) in [
            (&claims.subject, "sub"),
            (&claims.legacy_namespace, "namespace"),
            (&claims.legacy_secret, "secretName"),
            (&claims.legacy_name, "serviceAccountName"),
            (&claims.legacy_uid, "serviceAccountUID"),
        ] {
            if value.is_empty() {
                return fail(format!("{name} claim is missing"));
            }
        }
        let (namespace, name) = (claims.legacy_namespace.as_str(), claims.legacy_name.as_str());
        if super::split_service_account(&claims.subject) != Some((namespace, name)) {
            return fail("sub claim is invalid");
        }
        let secret = self.lookup.secret(namespace, &claims.legacy_secret).await;
        let Some(secret) = secret.filter(|secret| secret.metadata.deletion_timestamp.is_none()) else {
            return fail("Token has been invalidated");
        };
        let stored = secret.data.as_ref().and_then(|data| data.get("token")).map(|bytes| bytes.0.as_slice());
        if !same_bytes(stored.unwrap_or_default(), token.as_bytes()) {
            return fail("Token does not match server's copy");
        }
        let Some(meta) = self.lookup.service_account(namespace, name).await else {
            return fail(format!("serviceaccounts {name:?} not found"));
        };
        if meta.deletion_timestamp.is_some() {
            return fail(format!("ServiceAccount {namespace}/{name} has been deleted"));
        }
        let uid = meta.uid.unwrap_or_default();
        if uid != claims.legacy_uid {
            return fail(format!("ServiceAccount UID ({uid}) does not match claim ({})", claims.legacy_uid));
        }
        if secret.labels().contains_key("kubernetes.io/legacy-token-invalid-since") {
            return fail(format!(
                "the token in secret {namespace}/{0} for service account {namespace}/{name} has been marked invalid. Use \
                 tokens from the TokenRequest API or manually created secret-based tokens, or remove the \
                 'kubernetes.io/legacy-token-invalid-since' label from the secret to temporarily allow use of this token",
                claims.legacy_secret
            ));
        }
        self.lookup.used(&secret).await;
        let account = Reference { name: name.to_owned(), uid };
        Ok(user_of(
            &Bound { namespace: namespace.to_owned(), serviceaccount: account, ..Bound::default() },
            "",
        ))
    }
}

fn fail<T>(why: impl Into<String>) -> Result<T, TokenError> {
    Err(TokenError(why.into()))
}

fn is_deleted(meta: &ObjectMeta, now: Timestamp) -> bool {
    meta.deletion_timestamp.as_ref().is_some_and(|at| at.0 < now - LEEWAY)
}

fn check_bound(
    found: Option<ObjectMeta>,
    reference: &Reference,
    kind: &str,
    now: Timestamp,
) -> Result<(), TokenError> {
    let Some(meta) = found else { return fail("service account token has been invalidated") };
    let uid = meta.uid.clone().unwrap_or_default();
    if uid != reference.uid {
        return fail(format!(
            "{kind} UID ({uid}) does not match service account {kind} ref claim ({})",
            reference.uid
        ));
    }
    if is_deleted(&meta, now) {
        return fail("service account token has been invalidated");
    }
    Ok(())
}

fn check_times(claims: &Claims, now: Timestamp) -> Result<(), TokenError> {
    let at = |seconds: i64| Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX);
    if claims.not_before.is_some_and(|seconds| now + LEEWAY < at(seconds)) {
        return fail("service account token is not valid yet");
    }
    if claims.expiry.is_some_and(|seconds| now - LEEWAY > at(seconds)) {
        return fail("service account token has expired");
    }
    if claims.issued_at.is_some_and(|seconds| now + LEEWAY < at(seconds)) {
        return fail("service account token is issued in the future");
    }
    Ok(())
}

/// The user a token stands for.
fn user_of(bound: &Bound, id: &str) -> User {
    let mut extra = std::collections::BTreeMap::new();
    let mut add = |key: &str, value: &str| {
        if !value.is_empty() {
            extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
        }
    };
    if !id.is_empty() {
        add("credential-id", &format!("JTI={id}"));
    }
    if let Some(pod) = &bound.pod {
        add("pod-name", &pod.name);
        add("pod-uid", &pod.uid);
    }
    if let Some(node) = &bound.node {
        add("node-name", &node.name);
        add("node-uid", &node.uid);
    }
    User {
        name: format!("{}{}:{}", super::SERVICE_ACCOUNT_PREFIX, bound.namespace, bound.serviceaccount.name),
        uid: bound.serviceaccount.uid.clone(),
        groups: super::service_account_groups(&bound.namespace),
        extra,
    }
}

fn verify_with(token: &str, algorithm: jsonwebtoken::Algorithm, key: &DecodingKey) -> Option<Claims> {
    let mut validation = Validation::new(algorithm);
    // Time and audience are checked later, with upstream's messages.
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    jsonwebtoken::decode::<Claims>(token, key, &validation).ok().map(|data| data.claims)
}

#[async_trait::async_trait]
impl TokenAuthenticator for ServiceAccountTokens {
    async fn authenticate_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<TokenUser>, TokenError> {
        let Some(claims) = self.verify(token)? else { return Ok(None) };
        let own = if claims.audience.is_empty() { &self.audiences } else { &claims.audience };
        let wanted = if audiences.is_empty() { &self.audiences } else { audiences };
        let common: Vec<String> = own.iter().filter(|audience| wanted.contains(audience)).cloned().collect();
        if common.is_empty() && !self.audiences.is_empty() {
            return fail(format!(
                "token audiences {} is invalid for the target audiences {}",
                crate::authz::go_list(own),
                crate::authz::go_list(wanted)
            ));
        }
        let user = self.validate(token, &claims, Timestamp::now()).await?;
        Ok(Some(TokenUser { user, audiences: common }))
    }
}

#[cfg(test)]
mod tests;
