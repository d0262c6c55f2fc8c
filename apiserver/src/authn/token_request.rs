//! Issuing tokens for service accounts: the `token` subresource (upstream
//! `registry/core/serviceaccount/storage/token.go`).

use std::collections::HashSet;

use api::field;
use api::names::{GroupResource, GroupVersionKind};
use api::status::ApiError;
use client::Client;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec, TokenRequestStatus};
use k8s_openapi::api::core::v1::{Node, Pod, Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Api;

use super::keys::SigningKey;
use super::service_account::{Bound, Claims, Reference};

/// The lifetime kubelets ask for; such tokens are made to live longer and watched after that time.
const WARN_ONLY_SECONDS: i64 = 3607;
/// How long a token lives that was asked for [`WARN_ONLY_SECONDS`].
const EXTENDED_SECONDS: i64 = 365 * 24 * 3600;
/// The shortest lifetime.
const SHORTEST: i64 = 600;

/// Makes tokens.
pub struct Issuer {
    key: SigningKey,
    issuer: String,
    audiences: Vec<String>,
    longest: Option<i64>,
    extend: bool,
    client: Client,
}

/// What a token is bound to besides its service account.
#[derive(Clone, Debug, Default)]
struct Binding {
    pod: Option<Reference>,
    node: Option<Reference>,
    secret: Option<Reference>,
}

impl Issuer {
    /// Signs with `key` as `issuer`. `audiences`: of this server, the default. `longest`: no token lives longer.
    #[must_use]
    pub fn new(
        key: SigningKey,
        issuer: String,
        audiences: Vec<String>,
        longest: Option<std::time::Duration>,
        extend: bool,
        client: Client,
    ) -> Self {
        let longest =
            longest.and_then(|time| i64::try_from(time.as_secs()).ok()).filter(|seconds| *seconds > 0);
        Self { key, issuer, audiences, longest, extend, client }
    }

    /// Serves `POST .../serviceaccounts/NAME/token`. `dry_run` is answered with a token, as upstream does.
    pub async fn create(
        &self,
        namespace: &str,
        name: &str,
        mut request: TokenRequest,
        warnings: &mut Vec<String>,
    ) -> Result<TokenRequest, ApiError> {
        check_names(&request.metadata, namespace, name)?;
        let account = get::<ServiceAccount>(Api::namespaced(self.client.clone(), namespace), name).await?;
        let now = Timestamp::now();
        Self::complete(&mut request, &account.metadata, now)?;
        let mut spec = request.spec.take().unwrap_or_default();
        let asked = spec.audiences.take().filter(|list| !list.is_empty());
        let audiences = asked.unwrap_or_else(|| self.audiences.clone());
        spec.audiences = Some(audiences.clone());
        let mut expiration = spec.expiration_seconds.unwrap_or(3600);
        spec.expiration_seconds = Some(expiration);
        validate(expiration)?;
        let binding = self.binding(namespace, name, &spec).await?;
        if let Some(longest) = self.longest.filter(|longest| expiration > *longest) {
            warnings
                .push(format!("requested expiration of {expiration} seconds shortened to {longest} seconds"));
            expiration = longest;
            spec.expiration_seconds = Some(longest);
        }
        let (lifetime, warn_after) = self.lifetime(expiration, &binding, &audiences);
        let times = Times { now: now.as_second(), lifetime, warn_after };
        let claims = claims(&self.issuer, &account.metadata, binding, &audiences, times);
        let token = sign(&self.key, &claims)
            .map_err(|error| ApiError::internal(format!("failed to generate token: {error}")))?;
        let end = now + SignedDuration::from_secs(expiration);
        request.spec = Some(spec);
        request.status =
            Some(TokenRequestStatus { token: Some(token), expiration_timestamp: Some(Time(end)) });
        Ok(request)
    }

    /// Fills in what the request leaves open.
    fn complete(request: &mut TokenRequest, account: &ObjectMeta, now: Timestamp) -> Result<(), ApiError> {
        let uid = account.uid.clone().unwrap_or_default();
        if let Some(asked) =
            request.metadata.uid.as_deref().filter(|asked| !asked.is_empty() && **asked != *uid)
        {
            let why = format!(
                "the UID in the token request ({asked}) does not match the UID of the service account ({uid})"
            );
            let resource = GroupResource::new("authentication.k8s.io", "TokenRequest");
            return Err(ApiError::conflict(&resource, account.name.as_deref().unwrap_or_default(), &why));
        }
        let meta = &mut request.metadata;
        meta.name.clone_from(&account.name);
        meta.namespace.clone_from(&account.namespace);
        meta.uid = Some(uid);
        meta.creation_timestamp = Some(Time(now));
        request.status = None;
        Ok(())
    }

    /// Looks up what the token is to be bound to.
    async fn binding(
        &self,
        namespace: &str,
        name: &str,
        spec: &TokenRequestSpec,
    ) -> Result<Binding, ApiError> {
        let Some(reference) = &spec.bound_object_ref else { return Ok(Binding::default()) };
        let kind = reference.kind.as_deref().unwrap_or_default();
        let api_version = reference.api_version.as_deref().unwrap_or_default();
        let target = reference.name.as_deref().unwrap_or_default();
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let mut binding = Binding::default();
        let found = match (group, kind) {
            ("", "Pod") => {
                let pod = get::<Pod>(Api::namespaced(self.client.clone(), namespace), target).await?;
                let spec = pod.spec.unwrap_or_default();
                if spec.service_account_name.as_deref() != Some(name) {
                    return Err(ApiError::bad_request(format!(
                        "cannot bind token for serviceaccount {name:?} to pod running with different serviceaccount name."
                    )));
                }
                if let Some(node) = spec.node_name.filter(|node| !node.is_empty()) {
                    binding.node = Some(self.node_of_pod(&node).await?);
                }
                binding.pod.insert(reference_to(&pod.metadata))
            }
            ("", "Node") => {
                let node = get::<Node>(Api::all(self.client.clone()), target).await?;
                binding.node.insert(reference_to(&node.metadata))
            }
            ("", "Secret") => {
                let secret = get::<Secret>(Api::namespaced(self.client.clone(), namespace), target).await?;
                binding.secret.insert(reference_to(&secret.metadata))
            }
            _ => {
                let gvk = format!("{group}/{version}, Kind={kind}");
                return Err(ApiError::bad_request(format!("cannot bind token to object of type {gvk}")));
            }
        };
        if let Some(asked) = reference.uid.as_deref().filter(|asked| !asked.is_empty() && *asked != found.uid)
        {
            let why = format!(
                "the UID in the bound object reference ({asked}) does not match the UID in record. The object might \
                 have been deleted and then recreated"
            );
            return Err(ApiError::conflict(&GroupResource::new("", kind.to_owned()), target, &why));
        }
        Ok(binding)
    }

    /// Name and, if the node is known, UID of the node a pod runs on.
    async fn node_of_pod(&self, name: &str) -> Result<Reference, ApiError> {
        match get::<Node>(Api::all(self.client.clone()), name).await {
            Ok(node) => Ok(reference_to(&node.metadata)),
            Err(error) if error.code() == 404 => Ok(Reference { name: name.to_owned(), uid: String::new() }),
            Err(error) => Err(ApiError::internal(error)),
        }
    }

    /// How long the token lives, and from when on its use is suspicious.
    fn lifetime(&self, asked: i64, binding: &Binding, audiences: &[String]) -> (i64, Option<i64>) {
        let own: HashSet<&String> = self.audiences.iter().collect();
        let for_us = audiences.iter().all(|audience| own.contains(audience));
        if self.extend && binding.pod.is_some() && asked == WARN_ONLY_SECONDS && for_us {
            return (
                self.longest.map_or(EXTENDED_SECONDS, |longest| longest.min(EXTENDED_SECONDS)),
                Some(asked),
            );
        }
        (asked, None)
    }
}

fn token_request() -> GroupVersionKind {
    GroupVersionKind::new("authentication.k8s.io", "v1", "TokenRequest")
}

/// Name and namespace in the body must be those of the URL, if they are given.
fn check_names(meta: &ObjectMeta, namespace: &str, name: &str) -> Result<(), ApiError> {
    for (field, given, expected) in
        [("name", meta.name.as_deref(), name), ("namespace", meta.namespace.as_deref(), namespace)]
    {
        if let Some(given) = given.filter(|given| !given.is_empty() && *given != expected) {
            let path = field::Path::new("metadata").child(field);
            let why = format!("must match the service account {field} if specified");
            return Err(ApiError::invalid(
                &token_request(),
                name,
                &[field::Error::invalid(&path, given, why)],
            ));
        }
    }
    Ok(())
}

fn validate(expiration: i64) -> Result<(), ApiError> {
    let path = field::Path::new("spec").child("expirationSeconds");
    let why = if expiration < SHORTEST {
        "may not specify a duration less than 10 minutes"
    } else if expiration > 1 << 32 {
        "may not specify a duration larger than 2^32 seconds"
    } else {
        return Ok(());
    };
    Err(ApiError::invalid(&token_request(), "", &[field::Error::invalid(&path, expiration, why)]))
}

async fn get<K>(api: Api<K>, name: &str) -> Result<K, ApiError>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    api.get(name).await.map_err(crate::authz::from_client)
}

fn reference_to(meta: &ObjectMeta) -> Reference {
    Reference { name: meta.name.clone().unwrap_or_default(), uid: meta.uid.clone().unwrap_or_default() }
}

struct Times {
    now: i64,
    lifetime: i64,
    warn_after: Option<i64>,
}

/// What the token will say.
fn claims(
    issuer: &str,
    account: &ObjectMeta,
    binding: Binding,
    audiences: &[String],
    times: Times,
) -> Claims {
    let namespace = account.namespace.clone().unwrap_or_default();
    let serviceaccount = reference_to(account);
    Claims {
        audience: audiences.to_vec(),
        expiry: Some(times.now + times.lifetime),
        issued_at: Some(times.now),
        not_before: Some(times.now),
        issuer: issuer.to_owned(),
        id: uuid::Uuid::new_v4().to_string(),
        subject: format!("{}{namespace}:{}", super::SERVICE_ACCOUNT_PREFIX, serviceaccount.name),
        kubernetes: Some(Bound {
            namespace,
            node: binding.node,
            pod: binding.pod,
            secret: binding.secret,
            serviceaccount,
            warnafter: times.warn_after.map(|after| times.now + after),
        }),
        ..Claims::default()
    }
}

/// Signs claims.
pub fn sign(key: &SigningKey, claims: &Claims) -> Result<String, jsonwebtoken::errors::Error> {
    let mut header = jsonwebtoken::Header::new(key.public.algorithm);
    header.typ = None;
    header.kid = Some(key.public.id.clone());
    jsonwebtoken::encode(&header, claims, &key.encoding)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_the_body_must_fit_the_url() {
        let meta = |name: &str| ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        assert!(check_names(&meta("web"), "ns", "web").is_ok());
        let error = check_names(&meta("other"), "ns", "web").expect_err("another name");
        assert_eq!(
            error.message(),
            "TokenRequest.authentication.k8s.io \"web\" is invalid: metadata.name: Invalid value: \"other\": must match \
             the service account name if specified"
        );
    }

    #[test]
    fn lifetimes_have_bounds() {
        assert!(validate(600).is_ok());
        assert_eq!(validate(599).expect_err("short").code(), 422);
        assert_eq!(validate((1 << 32) + 1).expect_err("long").code(), 422);
    }

    #[test]
    fn claims_are_written_as_upstream_writes_them() {
        let account = ObjectMeta {
            name: Some("web".into()),
            namespace: Some("ns".into()),
            uid: Some("u1".into()),
            ..ObjectMeta::default()
        };
        let binding =
            Binding { pod: Some(Reference { name: "p".into(), uid: "p1".into() }), ..Binding::default() };
        let times = Times { now: 1000, lifetime: 50, warn_after: Some(7) };
        let mut claims = claims("https://i", &account, binding, &["a".to_owned()], times);
        claims.id = "j".to_owned();
        assert_eq!(
            serde_json::to_string(&claims).expect("json"),
            concat!(
                r#"{"aud":["a"],"exp":1050,"iat":1000,"iss":"https://i","jti":"j","kubernetes.io":{"namespace":"ns","#,
                r#""pod":{"name":"p","uid":"p1"},"serviceaccount":{"name":"web","uid":"u1"},"warnafter":1007},"#,
                r#""nbf":1000,"sub":"system:serviceaccount:ns:web"}"#
            )
        );
    }
}
