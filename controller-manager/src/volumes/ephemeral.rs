//! Makes the claims of pods' ephemeral volumes. As upstream's pkg/controller/volume/ephemeral.

use super::claims::{claim_name, pods_by_claim, pods_of};
use crate::common::meta;
use crate::context::Context;
use client::controller::Action;
use client::kube::api::PostParams;
use client::{Api, Event, EventType, ObjectKey, WorkQueue};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// What to do about one volume of a pod.
#[derive(Debug, PartialEq)]
enum Plan {
    Nothing,
    Create(Box<PersistentVolumeClaim>),
    /// A claim of that name exists and is not the pod's.
    Taken(String),
}

fn plan(pod: &Pod, volume: &Volume, existing: Option<&PersistentVolumeClaim>) -> Plan {
    let (Some(source), Some(name)) = (&volume.ephemeral, claim_name(pod, volume)) else {
        return Plan::Nothing;
    };
    if let Some(claim) = existing {
        if meta::is_controlled_by(&claim.metadata, meta::uid(&pod.metadata)) {
            return Plan::Nothing;
        }
        let (claim, pod) = (meta::key(&claim.metadata), meta::key(&pod.metadata));
        return Plan::Taken(format!("PVC {claim} was not created for pod {pod} (pod is not owner)"));
    }
    let template = source.volume_claim_template.clone().unwrap_or_default();
    let from = template.metadata.unwrap_or_default();
    let metadata = ObjectMeta {
        name: Some(name),
        namespace: pod.metadata.namespace.clone(),
        annotations: from.annotations,
        labels: from.labels,
        owner_references: Some(vec![meta::controller_reference(pod)]),
        ..Default::default()
    };
    Plan::Create(Box::new(PersistentVolumeClaim { metadata, spec: Some(template.spec), status: None }))
}

fn volumes(pod: &Pod) -> &[Volume] {
    pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default()
}

fn concerns(pod: &Pod) -> bool {
    !meta::is_deleting(&pod.metadata) && volumes(pod).iter().any(|volume| volume.ephemeral.is_some())
}

/// Starts the controller.
pub fn start(cx: &Context) {
    let (pods, claims) = (pods_by_claim(cx), cx.informer::<PersistentVolumeClaim>());
    let queue = WorkQueue::new("ephemeral_volume");
    let keys = queue.clone();
    pods.subscribe(move |event| {
        if let Event::Added(pod) = event
            && concerns(pod)
        {
            keys.add(meta::key(&pod.metadata));
        }
    });
    let (keys, users) = (queue.clone(), pods.clone());
    claims.subscribe(move |event| {
        if let Event::Deleted(claim) = event {
            let pods = pods_of(&users, &meta::key(&claim.metadata));
            pods.iter().filter(|pod| concerns(pod)).for_each(|pod| keys.add(meta::key(&pod.metadata)));
        }
    });
    let (client, recorder) = (cx.client.clone(), cx.recorder("ephemeral_volume"));
    let both = (pods.clone(), claims.clone());
    let synced = async move {
        both.0.synced().await;
        both.1.synced().await;
    };
    let workers = cx.config.concurrent.ephemeral_volumes;
    cx.work("ephemeral-volume-controller", queue, workers, synced, move |key| {
        let (client, pods, claims, recorder) =
            (client.clone(), pods.clone(), claims.clone(), recorder.clone());
        async move {
            let Some(pod) = pods.store().get(&key).filter(|pod| concerns(pod)) else {
                return Ok(Action::Done);
            };
            for volume in volumes(&pod) {
                let name = claim_name(&pod, volume).unwrap_or_default();
                let existing = claims.store().get(&ObjectKey::new(key.namespace.as_str(), name.as_str()));
                let outcome = match plan(&pod, volume, existing.as_deref()) {
                    Plan::Nothing => Ok(()),
                    Plan::Taken(why) => Err(anyhow::anyhow!(why)),
                    Plan::Create(claim) => {
                        let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &key.namespace);
                        let created = api.create(&PostParams::default(), &claim).await;
                        created.map(drop).map_err(|error| {
                            let said = crate::common::errors::message(&error);
                            anyhow::Error::new(error).context(format!("create PVC {name}: {said}"))
                        })
                    }
                };
                if let Err(error) = outcome {
                    let message = format!("ephemeral volume {}: {error}", volume.name);
                    recorder.object_event(&*pod, EventType::Warning, "FailedBinding", message);
                    return Err(error);
                }
            }
            Ok(Action::Done)
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod() -> Pod {
        let template = json!({ "metadata": { "labels": { "a": "b" } }, "spec": { "storageClassName": "s" } });
        serde_json::from_value(json!({
            "metadata": { "name": "p", "namespace": "ns", "uid": "u" },
            "spec": { "containers": [], "volumes": [
                { "name": "v", "ephemeral": { "volumeClaimTemplate": template } },
                { "name": "w", "emptyDir": {} },
            ] },
        }))
        .unwrap()
    }

    fn claim(owner: &str) -> PersistentVolumeClaim {
        let owner =
            json!({ "apiVersion": "v1", "kind": "Pod", "name": "p", "uid": owner, "controller": true });
        let metadata = json!({ "name": "p-v", "namespace": "ns", "ownerReferences": [owner] });
        serde_json::from_value(json!({ "metadata": metadata })).unwrap()
    }

    #[test]
    fn claims_are_made_after_the_template_and_belong_to_the_pod() {
        let pod = pod();
        let Plan::Create(made) = plan(&pod, &volumes(&pod)[0], None) else { panic!("it is made") };
        assert_eq!(meta::key(&made.metadata), ObjectKey::new("ns", "p-v"));
        assert!(meta::is_controlled_by(&made.metadata, "u"));
        assert_eq!(meta::label(&made.metadata, "a"), Some("b"));
        assert_eq!(super::super::claims::class_of_claim(&made), "s");
        assert_eq!(plan(&pod, &volumes(&pod)[1], None), Plan::Nothing);
        assert_eq!(plan(&pod, &volumes(&pod)[0], Some(&claim("u"))), Plan::Nothing);
        let taken = "PVC ns/p-v was not created for pod ns/p (pod is not owner)".to_owned();
        assert_eq!(plan(&pod, &volumes(&pod)[0], Some(&claim("x"))), Plan::Taken(taken));
    }
}
