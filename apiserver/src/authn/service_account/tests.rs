//! Claims of tokens against the objects that they are bound to.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;
use crate::authn::keys::SigningKey;
use crate::authn::keys::tests::ec_pem;
use crate::authn::token_request::sign;

/// Objects by `kind/namespace/name`.
#[derive(Default)]
struct Objects {
    meta: BTreeMap<String, ObjectMeta>,
    secrets: BTreeMap<String, Arc<Secret>>,
}

#[async_trait::async_trait]
impl Lookup for Objects {
    async fn service_account(&self, namespace: &str, name: &str) -> Option<ObjectMeta> {
        self.meta.get(&format!("sa/{namespace}/{name}")).cloned()
    }
    async fn pod(&self, namespace: &str, name: &str) -> Option<ObjectMeta> {
        self.meta.get(&format!("pod/{namespace}/{name}")).cloned()
    }
    async fn node(&self, name: &str) -> Option<ObjectMeta> {
        self.meta.get(&format!("node/{name}")).cloned()
    }
    async fn secret(&self, namespace: &str, name: &str) -> Option<Arc<Secret>> {
        self.secrets.get(&format!("{namespace}/{name}")).cloned()
    }
    async fn used(&self, secret: &Secret) {
        assert!(last_used(secret, Timestamp::now()).is_some(), "nobody has noted it yet");
    }
}

#[test]
fn the_day_of_use_is_noted_once() {
    let now: Timestamp = "2026-03-31T23:00:00Z".parse().expect("a time");
    let secret = |day: Option<&str>| Secret {
        metadata: ObjectMeta {
            uid: Some("u".to_owned()),
            labels: day.map(|day| BTreeMap::from([(LAST_USED.to_owned(), day.to_owned())])),
            ..ObjectMeta::default()
        },
        ..Secret::default()
    };
    let noted = json!({"metadata": {"uid": "u", "labels": {LAST_USED: "2026-03-31"}}});
    for (before, patch) in [
        (None, Some(&noted)),
        (Some("2026-03-30"), Some(&noted)),
        (Some("2026-03-31"), None),
        (Some("2026-04-01"), None),
    ] {
        assert_eq!(last_used(&secret(before), now).as_ref(), patch, "{before:?}");
    }
}

fn meta(uid: &str, deleted_ago: Option<i64>) -> ObjectMeta {
    let deletion = deleted_ago.map(|seconds| Time(Timestamp::now() - SignedDuration::from_secs(seconds)));
    ObjectMeta { uid: Some(uid.to_owned()), deletion_timestamp: deletion, ..ObjectMeta::default() }
}

fn seconds(from_now: i64) -> Option<i64> {
    Some(Timestamp::now().as_second() + from_now)
}

fn claims() -> Claims {
    Claims {
        audience: vec!["api".to_owned()],
        expiry: seconds(600),
        issued_at: seconds(0),
        not_before: seconds(0),
        issuer: "https://issuer".to_owned(),
        id: "j1".to_owned(),
        subject: "system:serviceaccount:ns:web".to_owned(),
        kubernetes: Some(Bound {
            namespace: "ns".to_owned(),
            serviceaccount: Reference { name: "web".to_owned(), uid: "u1".to_owned() },
            ..Bound::default()
        }),
        ..Claims::default()
    }
}

struct World {
    key: SigningKey,
    objects: Objects,
}

impl World {
    fn new() -> Self {
        let mut objects = Objects::default();
        objects.meta.insert("sa/ns/web".to_owned(), meta("u1", None));
        objects.meta.insert("pod/ns/p".to_owned(), meta("p1", None));
        objects.meta.insert("node/n".to_owned(), meta("n1", None));
        Self { key: SigningKey::from_pem(ec_pem().as_bytes()).expect("key"), objects }
    }

    async fn check(self, claims: &Claims, audiences: &[&str]) -> Result<Option<TokenUser>, String> {
        let token = sign(&self.key, claims).expect("token");
        let issuers = ["https://issuer".to_owned()];
        let keys = vec![self.key.public.clone()];
        let tokens =
            ServiceAccountTokens::new(&issuers, keys, vec!["api".to_owned()], Arc::new(self.objects));
        let audiences: Vec<String> = audiences.iter().map(|a| (*a).to_owned()).collect();
        tokens.authenticate_token(&token, &audiences).await.map_err(|error| error.0)
    }
}

fn bound(change: impl FnOnce(&mut Bound)) -> Claims {
    let mut claims = claims();
    change(claims.kubernetes.as_mut().expect("bound"));
    claims
}

fn reference(name: &str, uid: &str) -> Option<Reference> {
    Some(Reference { name: name.to_owned(), uid: uid.to_owned() })
}

#[tokio::test]
async fn a_good_token_names_the_service_account() {
    let found = World::new().check(&claims(), &[]).await.expect("good").expect("ours");
    assert_eq!(found.user.name, "system:serviceaccount:ns:web");
    assert_eq!(found.user.uid, "u1");
    assert_eq!(found.user.groups, ["system:serviceaccounts", "system:serviceaccounts:ns"]);
    assert_eq!(found.user.extra["authentication.kubernetes.io/credential-id"], ["JTI=j1"]);
    assert_eq!(found.audiences, ["api"]);
}

#[tokio::test]
async fn a_pod_bound_token_tells_pod_and_node() {
    let claims = bound(|b| (b.pod, b.node) = (reference("p", "p1"), reference("gone", "x")));
    let user = World::new().check(&claims, &[]).await.expect("good").expect("ours").user;
    assert_eq!(user.extra["authentication.kubernetes.io/pod-name"], ["p"]);
    assert_eq!(
        user.extra["authentication.kubernetes.io/node-name"],
        ["gone"],
        "of pods only the claim counts"
    );
}

#[tokio::test]
async fn bad_tokens_are_refused_with_a_reason() {
    let cases: Vec<(Claims, &[&str], &str)> = vec![
        (Claims { expiry: seconds(-100), ..claims() }, &[], "service account token has expired"),
        (Claims { not_before: seconds(100), ..claims() }, &[], "service account token is not valid yet"),
        (
            Claims { issued_at: seconds(100), ..claims() },
            &[],
            "service account token is issued in the future",
        ),
        (claims(), &["vault"], r#"token audiences ["api"] is invalid for the target audiences ["vault"]"#),
        (
            bound(|b| b.serviceaccount.uid = "other".to_owned()),
            &[],
            "service account UID (u1) does not match claim (other)",
        ),
        (bound(|b| b.serviceaccount.name = "x".to_owned()), &[], r#"serviceaccounts "x" not found"#),
        (bound(|b| b.pod = reference("q", "p1")), &[], "service account token has been invalidated"),
        (
            bound(|b| b.pod = reference("p", "p2")),
            &[],
            "pod UID (p1) does not match service account pod ref claim (p2)",
        ),
        (bound(|b| b.node = reference("m", "n1")), &[], "service account token has been invalidated"),
        (
            bound(|b| b.node = reference("n", "n2")),
            &[],
            "node UID (n1) does not match service account node ref claim (n2)",
        ),
        (bound(|b| b.secret = reference("s", "s1")), &[], "service account token has been invalidated"),
    ];
    for (claims, audiences, expected) in cases {
        let error = World::new().check(&claims, audiences).await.expect_err(expected);
        assert_eq!(error, expected);
    }
}

#[tokio::test]
async fn other_issuers_are_not_ours_and_other_keys_do_not_count() {
    let claims = Claims { issuer: "https://else".to_owned(), ..claims() };
    assert_eq!(World::new().check(&claims, &[]).await, Ok(None));
    let stranger = SigningKey::from_pem(ec_pem().as_bytes()).expect("key");
    let token = sign(&stranger, &self::claims()).expect("token");
    let world = World::new();
    let tokens = ServiceAccountTokens::new(
        &["https://issuer".to_owned()],
        vec![world.key.public.clone()],
        vec!["api".to_owned()],
        Arc::new(world.objects),
    );
    assert!(tokens.authenticate_token(&token, &[]).await.is_err());
    assert_eq!(tokens.authenticate_token("not.a.jwt", &[]).await, Ok(None));
}

#[tokio::test]
async fn a_deleted_account_ends_its_tokens_after_the_leeway() {
    for (ago, good) in [(10, true), (100, false)] {
        let mut world = World::new();
        world.objects.meta.insert("sa/ns/web".to_owned(), meta("u1", Some(ago)));
        assert_eq!(world.check(&claims(), &[]).await.is_ok(), good, "deleted {ago} s ago");
    }
}

#[tokio::test]
async fn a_legacy_token_must_be_the_one_in_its_secret() {
    let world = World::new();
    let claims = Claims {
        issuer: LEGACY_ISSUER.to_owned(),
        subject: "system:serviceaccount:ns:web".to_owned(),
        legacy_namespace: "ns".to_owned(),
        legacy_secret: "s".to_owned(),
        legacy_name: "web".to_owned(),
        legacy_uid: "u1".to_owned(),
        ..Claims::default()
    };
    let token = sign(&world.key, &claims).expect("token");
    for (stored, good) in [(token.as_str(), true), ("other", false)] {
        let data = BTreeMap::from([("token".to_owned(), ByteString(stored.as_bytes().to_vec()))]);
        let mut objects = Objects::default();
        objects.meta.insert("sa/ns/web".to_owned(), meta("u1", None));
        objects.secrets.insert("ns/s".to_owned(), Arc::new(Secret { data: Some(data), ..Secret::default() }));
        let keys = vec![world.key.public.clone()];
        let tokens = ServiceAccountTokens::new(&[], keys, vec!["api".to_owned()], Arc::new(objects));
        assert_eq!(tokens.authenticate_token(&token, &[]).await.is_ok(), good);
    }
}
