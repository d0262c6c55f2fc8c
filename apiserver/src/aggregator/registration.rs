//! The APIServices of custom resources: they come and go with their definitions (upstream `crdregistration` and
//! `autoregister`).

use anyhow::Context as _;
use client::controller::{Action, run_workers};
use client::{Api, ObjectKey};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{APIService, APIServiceSpec};
use kube::ResourceExt;
use kube::api::{DeleteParams, PostParams, Preconditions};
use tokio_util::sync::CancellationToken;

use super::Aggregator;

/// Says that an APIService is looked after.
const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
/// Where groups of custom resources stand among groups.
const GROUP_PRIORITY: i32 = 1000;
/// Where their versions stand among those of their group: their names decide.
const VERSION_PRIORITY: i32 = 100;
/// Who the server is in `managedFields`.
const MANAGER: &str = "kube-apiserver";

/// What is to be done about an APIService.
#[derive(Debug, PartialEq)]
enum Plan {
    Nothing,
    Create(Box<APIService>),
    Replace(Box<APIService>),
    Delete,
}

impl Aggregator {
    /// Registers custom resources until `token` is cancelled.
    pub(super) async fn register(self, token: CancellationToken) {
        tokio::select! {
            biased;
            () = token.cancelled() => return,
            _ = async { tokio::join!(self.inner.services.synced(), self.inner.definitions.synced()) } => {}
        }
        let queue = self.inner.registrations.clone();
        run_workers("api-service-registration", queue, 1, token, move |key| {
            let this = self.clone();
            async move { this.reconcile_registration(&key).await }
        })
        .await;
    }

    async fn reconcile_registration(&self, key: &ObjectKey) -> anyhow::Result<Action> {
        let present = self.inner.services.store().get(key);
        let wanted = self.wanted(&key.name);
        let api: Api<APIService> = Api::all(self.inner.client.clone());
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let written = match plan(present.as_deref(), wanted) {
            Plan::Nothing => return Ok(Action::Done),
            Plan::Create(service) => api.create(&params, &service).await.map(drop),
            Plan::Replace(service) => api.replace(&key.name, &params, &service).await.map(drop),
            Plan::Delete => {
                let uid = present.as_ref().and_then(|service| service.uid());
                let preconditions = Some(Preconditions { uid, resource_version: None });
                let params = DeleteParams { preconditions, ..DeleteParams::default() };
                api.delete(&key.name, &params).await.map(drop)
            }
        };
        match written {
            // Told of what others did, it is looked at again.
            Err(error) if client::is_not_found(&error) || client::is_already_exists(&error) => {
                Ok(Action::Done)
            }
            other => other.map(|()| Action::Done).context("write the APIService of a custom resource"),
        }
    }

    /// What a definition that serves the version wants; `None` if there is none.
    fn wanted(&self, name: &str) -> Option<APIServiceSpec> {
        let (version, group) = name.split_once('.')?;
        let serves = self.inner.definitions.store().list().iter().any(|definition| {
            definition.spec.group == group
                && definition.spec.versions.iter().any(|known| known.name == version && known.served)
        });
        serves.then(|| APIServiceSpec {
            group: Some(group.to_owned()),
            version: Some(version.to_owned()),
            group_priority_minimum: GROUP_PRIORITY,
            version_priority: VERSION_PRIORITY,
            ..APIServiceSpec::default()
        })
    }
}

/// Decides. What somebody else has made is left alone.
fn plan(present: Option<&APIService>, wanted: Option<APIServiceSpec>) -> Plan {
    let managed =
        present.is_some_and(|service| service.labels().get(MANAGED).is_some_and(|how| how == "true"));
    match (present, wanted) {
        (None, Some(spec)) => {
            let (version, group) = (spec.version.clone(), spec.group.clone());
            let name = format!("{}.{}", version.unwrap_or_default(), group.unwrap_or_default());
            let labels = Some([(MANAGED.to_owned(), "true".to_owned())].into());
            let metadata = ObjectMeta { name: Some(name), labels, ..ObjectMeta::default() };
            Plan::Create(Box::new(APIService { metadata, spec: Some(spec), status: None }))
        }
        (Some(present), Some(spec)) if managed && present.spec.as_ref() != Some(&spec) => {
            Plan::Replace(Box::new(APIService { spec: Some(spec), ..present.clone() }))
        }
        (Some(_), None) if managed => Plan::Delete,
        _ => Plan::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_managed_is_changed() {
        let spec = || APIServiceSpec {
            group: Some("g.io".into()),
            version: Some("v1".into()),
            group_priority_minimum: GROUP_PRIORITY,
            version_priority: VERSION_PRIORITY,
            ..APIServiceSpec::default()
        };
        let Plan::Create(made) = plan(None, Some(spec())) else { panic!("nothing is made") };
        assert_eq!(made.name_any(), "v1.g.io");
        assert_eq!(plan(Some(&made), Some(spec())), Plan::Nothing);
        assert_eq!(plan(Some(&made), None), Plan::Delete);
        let mut changed = (*made).clone();
        changed.spec.as_mut().expect("a spec").version_priority = 1;
        assert_eq!(plan(Some(&changed), Some(spec())), Plan::Replace(made.clone()));
        for how in [None, Some("onstart")] {
            changed.metadata.labels = how.map(|how| [(MANAGED.to_owned(), how.to_owned())].into());
            assert_eq!(plan(Some(&changed), Some(spec())), Plan::Nothing);
            assert_eq!(plan(Some(&changed), None), Plan::Nothing);
        }
    }
}
