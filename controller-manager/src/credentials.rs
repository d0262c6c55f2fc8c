//! Each controller as a service account of its own, with no more rights than its role gives it.
//!
//! A token is asked for with the first request and again before it expires; the account is created if it is not
//! there. As upstream's controller client builder.

use crate::clock::Clock;
use crate::common::errors;
use client::kube::api::PostParams;
use client::kube::client::Body;
use client::{Api, Client, kube};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::sync::Arc;
use tokio::sync::Mutex;

const NAMESPACE: &str = "kube-system";
const LIFETIME: i64 = 3600;
/// A token is replaced when this part of its life is left.
const MARGIN: SignedDuration = SignedDuration::from_mins(12);

struct Token {
    header: http::HeaderValue,
    expires: Timestamp,
}

struct Account {
    name: &'static str,
    own: Client,
    token: Mutex<Option<Token>>,
}

/// A client that acts as `account`. `anonymous` carries its requests, `own` asks for its tokens.
pub fn client(anonymous: Client, own: Client, account: &'static str, clock: Clock) -> Client {
    let account = Arc::new(Account { name: account, own, token: Mutex::default() });
    let namespace = anonymous.default_namespace().to_owned();
    let service = tower::service_fn(move |mut request: http::Request<Body>| {
        let (account, anonymous) = (account.clone(), anonymous.clone());
        async move {
            let header = account.header(clock.now()).await?;
            request.headers_mut().insert(http::header::AUTHORIZATION, header);
            anonymous.send(request).await
        }
    });
    Client::new(service, namespace)
}

impl Account {
    async fn header(&self, now: Timestamp) -> Result<http::HeaderValue, kube::Error> {
        let mut token = self.token.lock().await;
        let fresh = |token: &&Token| now.checked_add(MARGIN).is_ok_and(|soon| soon < token.expires);
        if let Some(token) = token.as_ref().filter(fresh) {
            return Ok(token.header.clone());
        }
        let new = self.request().await?;
        let header = new.header.clone();
        *token = Some(new);
        Ok(header)
    }

    async fn request(&self) -> Result<Token, kube::Error> {
        let api: Api<ServiceAccount> = Api::namespaced(self.own.clone(), NAMESPACE);
        let request = TokenRequest {
            spec: Some(TokenRequestSpec { expiration_seconds: Some(LIFETIME), ..Default::default() }),
            ..Default::default()
        };
        let asked: Result<TokenRequest, _> =
            api.create_subresource("token", self.name, &PostParams::default(), &request).await;
        let answer = match asked {
            Err(error) if errors::is_not_found(&error) => {
                self.create(&api).await?;
                api.create_subresource("token", self.name, &PostParams::default(), &request).await?
            }
            other => other?,
        };
        let status = answer.status.unwrap_or_default();
        let mut header = http::HeaderValue::try_from(format!("Bearer {}", status.token.unwrap_or_default()))
            .map_err(|error| kube::Error::Service(Box::new(error)))?;
        header.set_sensitive(true);
        Ok(Token {
            header,
            expires: status.expiration_timestamp.map_or(Timestamp::UNIX_EPOCH, |time| time.0),
        })
    }

    async fn create(&self, api: &Api<ServiceAccount>) -> Result<(), kube::Error> {
        let metadata = ObjectMeta {
            name: Some(self.name.to_owned()),
            namespace: Some(NAMESPACE.to_owned()),
            ..Default::default()
        };
        let account = ServiceAccount { metadata, ..Default::default() };
        match api.create(&PostParams::default(), &account).await {
            Err(error) if !errors::is_already_exists(&error) => Err(error),
            _ => Ok(()),
        }
    }
}
