//! Tokens of ServiceAccounts that are kept in Secrets: filled in when asked for, removed with their account.
//! As upstream's serviceaccount/tokens_controller.go.

use crate::common::errors::IgnoreGone;
use crate::common::meta;
use crate::context::Context;
use anyhow::Context as _;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use client::controller::Action;
use client::kube::api::{DeleteParams, PostParams, Preconditions};
use client::{Api, Client, Informer, ObjectKey, Selection, WorkQueue};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;

const TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

/// Signs tokens.
struct Signer {
    key: EncodingKey,
    header: Header,
}

impl Signer {
    fn new(pem: &str) -> anyhow::Result<Self> {
        let pair = rcgen::KeyPair::from_pem(pem).context("read the key")?;
        let digest = Sha256::digest(crate::csr::public_key(&pair));
        let (key, algorithm) = if pair.algorithm() == &rcgen::PKCS_RSA_SHA256 {
            (EncodingKey::from_rsa_pem(pem.as_bytes())?, Algorithm::RS256)
        } else {
            // The encoder wants PKCS#8, which is what the key is written in here.
            (EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes())?, Algorithm::ES256)
        };
        let mut header = Header::new(algorithm);
        header.typ = None;
        header.kid = Some(URL_SAFE_NO_PAD.encode(digest));
        Ok(Self { key, header })
    }

    fn token(&self, account: &ServiceAccount, secret: &Secret) -> anyhow::Result<String> {
        jsonwebtoken::encode(&self.header, &claims(account, secret), &self.key).context("sign a token")
    }
}

fn claims(account: &ServiceAccount, secret: &Secret) -> Value {
    let (namespace, name) = (meta::namespace(&account.metadata), meta::name(&account.metadata));
    json!({
        "iss": "kubernetes/serviceaccount",
        "sub": format!("system:serviceaccount:{namespace}:{name}"),
        "kubernetes.io/serviceaccount/namespace": namespace,
        "kubernetes.io/serviceaccount/secret.name": meta::name(&secret.metadata),
        "kubernetes.io/serviceaccount/service-account.name": name,
        "kubernetes.io/serviceaccount/service-account.uid": meta::uid(&account.metadata),
    })
}

struct Controller {
    client: Client,
    accounts: Informer<ServiceAccount>,
    secrets: Informer<Secret>,
    signer: Signer,
    root_ca: Option<String>,
}

/// Starts the controller, if there is a key to sign with.
pub fn start(cx: &Context) {
    let Some(path) = &cx.config.flags.service_account_private_key_file else {
        tracing::info!("no --service-account-private-key-file, so no tokens are put into Secrets");
        return;
    };
    let signer = std::fs::read_to_string(path).map_err(anyhow::Error::from).and_then(|pem| Signer::new(&pem));
    let signer = match signer {
        Ok(signer) => signer,
        Err(error) => {
            tracing::error!(path = %path.display(), error = format!("{error:#}"), "cannot sign tokens");
            return;
        }
    };
    let accounts = cx.informer::<ServiceAccount>();
    let only = Selection { fields: Some(format!("type={TYPE}")), ..Default::default() };
    let secrets = cx.informers.informer_selected::<Secret>(only);
    let queue = WorkQueue::new("serviceaccount_tokens_service");
    let keys = queue.clone();
    secrets.subscribe(move |event| keys.add(meta::key(&event.object().metadata)));
    let (all, keys) = (secrets.clone(), queue.clone());
    accounts.subscribe(move |event| {
        let account = event.object();
        for secret in all.store().list_namespace(meta::namespace(&account.metadata)) {
            if meta::annotation(&secret.metadata, ACCOUNT) == account.metadata.name.as_deref() {
                keys.add(meta::key(&secret.metadata));
            }
        }
    });
    let controller = Arc::new(Controller {
        client: cx.client.clone(),
        signer,
        root_ca: cx.config.root_ca.clone(),
        accounts: accounts.clone(),
        secrets: secrets.clone(),
    });
    let synced = async move {
        accounts.synced().await;
        secrets.synced().await;
    };
    let workers = cx.config.concurrent.service_account_tokens;
    cx.work("serviceaccount-token-controller", queue, workers, synced, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(key).await }
    });
}

fn has(secret: &Secret, key: &str) -> bool {
    secret.data.as_ref().and_then(|data| data.get(key)).is_some_and(|value| !value.0.is_empty())
}

/// Whether something is missing in the Secret.
fn is_incomplete(secret: &Secret, root_ca: Option<&str>) -> bool {
    let ca = secret.data.as_ref().and_then(|data| data.get("ca.crt")).map(|value| value.0.as_slice());
    root_ca.is_some_and(|root_ca| ca != Some(root_ca.as_bytes()))
        || !has(secret, "namespace")
        || !has(secret, "token")
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> anyhow::Result<Action> {
        let Some(secret) = self.secrets.store().get(&key) else { return Ok(Action::Done) };
        let Some(name) = meta::annotation(&secret.metadata, ACCOUNT) else { return Ok(Action::Done) };
        let uid = meta::annotation(&secret.metadata, ACCOUNT_UID).filter(|uid| !uid.is_empty());
        let is_meant = |account: &ServiceAccount| uid.is_none_or(|uid| uid == meta::uid(&account.metadata));
        let cached = self.accounts.store().get(&ObjectKey::new(key.namespace.as_str(), name));
        let account = match cached.filter(|account| is_meant(account)) {
            Some(account) => Some(ServiceAccount::clone(&account)),
            None => {
                // It may be newer than the cache: deleting a token because of that would be wrong.
                let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &key.namespace);
                api.get_opt(name).await?.filter(|account| is_meant(account))
            }
        };
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &key.namespace);
        let Some(account) = account else {
            let exactly = Preconditions { uid: secret.metadata.uid.clone(), resource_version: None };
            let params = DeleteParams { preconditions: Some(exactly), ..Default::default() };
            api.delete(&key.name, &params).await.ignore_gone()?;
            return Ok(Action::Done);
        };
        if is_incomplete(&secret, self.root_ca.as_deref()) {
            let filled = self.fill(&account, &secret)?;
            api.replace(&key.name, &PostParams::default(), &filled).await.ignore_not_found()?;
        }
        Ok(Action::Done)
    }

    fn fill(&self, account: &ServiceAccount, secret: &Secret) -> anyhow::Result<Secret> {
        let mut secret = secret.clone();
        let token = if has(&secret, "token") { None } else { Some(self.signer.token(account, &secret)?) };
        let data = secret.data.get_or_insert_default();
        if let Some(root_ca) = &self.root_ca {
            data.insert("ca.crt".to_owned(), ByteString(root_ca.clone().into_bytes()));
        }
        let namespace = meta::namespace(&account.metadata).as_bytes().to_vec();
        data.entry("namespace".to_owned()).or_insert(ByteString(namespace));
        if let Some(token) = token {
            data.insert("token".to_owned(), ByteString(token.into_bytes()));
        }
        let annotations = secret.metadata.annotations.get_or_insert_default();
        annotations.insert(ACCOUNT.to_owned(), meta::name(&account.metadata).to_owned());
        annotations.insert(ACCOUNT_UID.to_owned(), meta::uid(&account.metadata).to_owned());
        Ok(secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    #[test]
    fn token_names_account_and_secret() {
        let signer =
            Signer::new(&rcgen::KeyPair::generate().expect("a key").serialize_pem()).expect("usable");
        let metadata = |name: &str| ObjectMeta {
            name: Some(name.into()),
            namespace: Some("ns".into()),
            uid: Some("u".into()),
            ..Default::default()
        };
        let account = ServiceAccount { metadata: metadata("robot"), ..Default::default() };
        let secret = Secret { metadata: metadata("robot-token"), ..Default::default() };
        let token = signer.token(&account, &secret).expect("signed");
        let parts: Vec<_> = token.split('.').collect();
        let decode = |part: &str| -> Value {
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64")).expect("json")
        };
        assert_eq!(decode(parts[0])["alg"], "ES256");
        assert_eq!(decode(parts[1])["sub"], "system:serviceaccount:ns:robot");
        assert_eq!(decode(parts[1])["kubernetes.io/serviceaccount/secret.name"], "robot-token");
    }

    #[test]
    fn incomplete_secrets_are_noticed() {
        let mut secret = Secret::default();
        assert!(is_incomplete(&secret, None));
        let value = |text: &str| ByteString(text.as_bytes().to_vec());
        secret.data = Some([("token".to_owned(), value("t")), ("namespace".to_owned(), value("n"))].into());
        assert!(!is_incomplete(&secret, None));
        assert!(is_incomplete(&secret, Some("pem")));
    }
}
