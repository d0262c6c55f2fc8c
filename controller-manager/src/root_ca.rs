//! Every namespace has a ConfigMap with the certificate authority of the API server, which pods mount to know whom
//! they talk to. As upstream's certificates/rootcacertpublisher.

use crate::common::errors;
use crate::common::meta;
use crate::context::Context;
use crate::serviceaccount::is_active;
use client::controller::Action;
use client::kube::api::PostParams;
use client::{Api, Client, Event, Informer, ObjectKey, Selection, WorkQueue, kube};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;
use std::sync::Arc;

const NAME: &str = "kube-root-ca.crt";
const KEY: &str = "ca.crt";
const DESCRIPTION: (&str, &str) = (
    "kubernetes.io/description",
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the \
     internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes \
     clusters.",
);

struct Controller {
    client: Client,
    namespaces: Informer<Namespace>,
    maps: Informer<ConfigMap>,
    data: BTreeMap<String, String>,
}

/// Starts the controller; without a root certificate there is nothing to publish.
pub fn start(cx: &Context) {
    let Some(root_ca) = cx.config.root_ca.clone() else {
        tracing::info!("no --root-ca-file, so no root certificates are published");
        return;
    };
    let namespaces = cx.informer::<Namespace>();
    let only = Selection { fields: Some(format!("metadata.name={NAME}")), ..Default::default() };
    let maps = cx.informers.informer_selected::<ConfigMap>(only);
    let queue = WorkQueue::new("root_ca_cert_publisher");
    let keys = queue.clone();
    namespaces.subscribe(move |event| match event {
        Event::Added(namespace) | Event::Updated { new: namespace, .. } => {
            keys.add(ObjectKey::new("", meta::name(&namespace.metadata)));
        }
        Event::Deleted(_) => {}
    });
    let keys = queue.clone();
    maps.subscribe(move |event| keys.add(ObjectKey::new("", meta::namespace(&event.object().metadata))));
    let controller = Arc::new(Controller {
        client: cx.client.clone(),
        namespaces: namespaces.clone(),
        maps: maps.clone(),
        data: [(KEY.to_owned(), root_ca)].into(),
    });
    let synced = async move {
        namespaces.synced().await;
        maps.synced().await;
    };
    cx.work("root-ca-certificate-publisher-controller", queue, 1, synced, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(key).await }
    });
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> anyhow::Result<Action> {
        if !self.namespaces.store().get(&key).is_some_and(|namespace| is_active(&namespace)) {
            return Ok(Action::Done);
        }
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &key.name);
        let have = self.maps.store().get(&ObjectKey::new(key.name.as_str(), NAME));
        let written: Result<_, kube::Error> = match plan(have.as_deref(), &key.name, &self.data) {
            Plan::Keep => return Ok(Action::Done),
            Plan::Create(map) => api.create(&PostParams::default(), &map).await,
            Plan::Replace(map) => api.replace(NAME, &PostParams::default(), &map).await,
        };
        match written {
            Err(error) if !errors::is_already_exists(&error) && !errors::is_namespace_terminating(&error) => {
                Err(error.into())
            }
            _ => Ok(Action::Done),
        }
    }
}

#[derive(Debug, PartialEq)]
enum Plan {
    Keep,
    Create(ConfigMap),
    Replace(ConfigMap),
}

fn plan(have: Option<&ConfigMap>, namespace: &str, data: &BTreeMap<String, String>) -> Plan {
    let described = |meta: &ObjectMeta| meta::annotation(meta, DESCRIPTION.0) == Some(DESCRIPTION.1);
    match have {
        Some(map) if map.data.as_ref() == Some(data) && described(&map.metadata) => Plan::Keep,
        Some(map) => {
            let mut map = map.clone();
            map.data = Some(data.clone());
            let annotations = map.metadata.annotations.get_or_insert_default();
            annotations.insert(DESCRIPTION.0.to_owned(), DESCRIPTION.1.to_owned());
            Plan::Replace(map)
        }
        None => Plan::Create(ConfigMap {
            metadata: ObjectMeta {
                name: Some(NAME.to_owned()),
                namespace: Some(namespace.to_owned()),
                annotations: Some([(DESCRIPTION.0.to_owned(), DESCRIPTION.1.to_owned())].into()),
                ..Default::default()
            },
            data: Some(data.clone()),
            ..Default::default()
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn map_is_created_kept_and_repaired() {
        let data: BTreeMap<_, _> = [(KEY.to_owned(), "pem".to_owned())].into();
        let Plan::Create(map) = plan(None, "ns", &data) else { panic!("nothing is there") };
        assert_eq!(plan(Some(&map), "ns", &data), Plan::Keep);
        for broken in [
            ConfigMap { data: None, ..map.clone() },
            ConfigMap { metadata: ObjectMeta { annotations: None, ..map.metadata.clone() }, ..map.clone() },
        ] {
            assert_eq!(plan(Some(&broken), "ns", &data), Plan::Replace(map.clone()));
        }
    }
}
