//! Conversion of custom objects by the webhook of their definition (upstream `conversion.webhookConverter`).

use std::sync::Arc;

use api::crd::conversion::{kind_of, review};
use api::crd::{Definition, Version};
use bytes::Bytes;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    WebhookClientConfig, WebhookConversion,
};
use serde_json::Value;

use crate::webhook::{ClientConfig, Clients};

/// How many objects are sent at once.
const BATCH: usize = 200;

/// Converts the objects of one definition.
pub struct Converter {
    definition: Arc<Definition>,
    webhook: WebhookConversion,
    clients: Clients,
}

impl Converter {
    /// The converter of a definition; `None` if its versions differ in nothing but their name.
    #[must_use]
    pub fn of(definition: &Arc<Definition>, clients: &Clients) -> Option<Self> {
        let webhook = definition.webhook.clone()?;
        Some(Self { definition: Arc::clone(definition), webhook, clients: clients.clone() })
    }

    /// Objects in another version, in their order. Those that are of it already are left as they are.
    ///
    /// # Errors
    /// Why that is impossible, in upstream's words.
    pub async fn convert(&self, mut objects: Vec<Value>, to: &Version) -> Result<Vec<Value>, String> {
        let desired = to.api_version();
        let mut foreign = Vec::new();
        for (index, object) in objects.iter().enumerate() {
            let version = object.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
            if version == desired {
                continue;
            }
            if self.definition.version_of(object).is_none() {
                return Err(format!("request to convert CR from an invalid group/version: {version}"));
            }
            foreign.push(index);
        }
        for batch in foreign.chunks(BATCH) {
            let asked: Vec<Value> = batch.iter().map(|index| objects[*index].take()).collect();
            for (index, converted) in batch.iter().zip(self.ask(&asked, &desired).await?) {
                objects[*index] = to.adopt(converted)?;
            }
        }
        Ok(objects)
    }

    async fn ask(&self, objects: &[Value], desired: &str) -> Result<Vec<Value>, String> {
        let uid = uuid::Uuid::new_v4().to_string();
        let question = review(&self.webhook.conversion_review_versions, objects, desired, &uid)?;
        let config = client_config(self.webhook.client_config.clone().unwrap_or_default())?;
        let client = self.clients.client(&config).map_err(|error| error.to_string())?;
        let body = Bytes::from(question.body.to_string());
        let answer = client.post(body, None).await.map_err(|error| {
            let of = objects.first().map(kind_of).unwrap_or_else(|| kind_of(&Value::Null));
            format!("conversion webhook for {of} failed: {error}")
        })?;
        question.accept(&answer, objects, desired)
    }
}

fn client_config(config: WebhookClientConfig) -> Result<ClientConfig, String> {
    let ca_bundle = config.ca_bundle.map(|bytes| bytes.0).unwrap_or_default();
    // As upstream: blanks are no bundle.
    let ca_bundle = if ca_bundle.trim_ascii().is_empty() { Vec::new() } else { ca_bundle };
    let service = config.service.map(|service| (service.namespace, service.name, service.path, service.port));
    ClientConfig::new(service, config.url, ca_bundle)
}
