//! The cases. Each has a namespace of its own, or many.

use std::future::Future;
use std::pin::Pin;

use anyhow::{Context, Result};
use client::Api;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::steps::{Bench, Done, create};
use crate::tally::Tally;

type Run = fn(Bench) -> Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// One case.
pub struct Case {
    /// What it is called on the command line.
    pub name: &'static str,
    /// Does it.
    pub run: Run,
}

/// All cases, in the order in which they run.
pub const CASES: [Case; 4] = [
    Case { name: "pods", run: |bench| Box::pin(pods(bench)) },
    Case { name: "deployment", run: |bench| Box::pin(deployment(bench)) },
    Case { name: "jobs", run: |bench| Box::pin(jobs(bench)) },
    Case { name: "namespaces", run: |bench| Box::pin(namespaces(bench)) },
];

/// Their names.
pub fn names() -> [&'static str; CASES.len()] {
    CASES.map(|case| case.name)
}

fn pod_spec(policy: &str) -> Value {
    json!({"restartPolicy": policy,
           "containers": [{"name": "app", "image": "registry.example/app:1.2.3", "args": ["--port=8080"],
                           "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}}}]})
}

fn has_condition<'a>(all: impl IntoIterator<Item = (&'a String, &'a String)>, kind: &str) -> bool {
    all.into_iter().any(|(type_, status)| type_ == kind && status == "True")
}

fn is_bound(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some())
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    has_condition(conditions.map(|c| (&c.type_, &c.status)), "Ready")
}

fn is_complete(job: &Job) -> bool {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    has_condition(conditions.map(|c| (&c.type_, &c.status)), "Complete")
}

/// Pods are made one by one; how long until they have a node, until they run, until they are gone again.
async fn pods(bench: Bench) -> Result<()> {
    let (namespace, count) = (bench.namespace("pods").await?, bench.settings.pods);
    let (informers, tasks) = bench.informers();
    let bound = Tally::begin(&informers, Some(&namespace), is_bound).await;
    let ready = Tally::begin(&informers, Some(&namespace), is_ready).await;
    let left = Tally::begin(&informers, Some(&namespace), |_: &Pod| true).await;
    let pods: Api<Pod> = Api::namespaced(bench.client.clone(), &namespace);
    let make = async {
        let one = |number: usize| {
            let (name, pods) = (format!("pod-{number}"), pods.clone());
            let labels = json!({"app": format!("app-{}", number % 20)});
            let pod = json!({"metadata": {"name": name, "labels": labels}, "spec": pod_spec("Always")});
            async move { create(&pods, pod).await.map(|()| name) }
        };
        let begun = bench.each(count, one).await?;
        bound.wait_for("pods with a node", count).await?;
        anyhow::Ok(begun)
    };
    let mut begun = None;
    bench
        .step("pods: make, until they have a node", async {
            let begun = begun.insert(make.await?);
            Ok(Done { objects: count, took: bound.since(begun) })
        })
        .await?;
    bench
        .step("pods: and then until all are ready", async {
            ready.wait_for("pods that are ready", count).await?;
            Ok(Done {
                objects: count,
                took: begun.as_ref().map(|begun| ready.since(begun)).unwrap_or_default(),
            })
        })
        .await?;
    bench
        .step("pods: delete all, until they are gone", async {
            pods.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
            left.wait_for_none("pods").await?;
            Ok(Done { objects: count, took: vec![] })
        })
        .await?;
    Ok(tasks.shut_down().await?)
}

/// One Deployment is made, gets another template, and is deleted.
async fn deployment(bench: Bench) -> Result<()> {
    let (namespace, count) = (bench.namespace("deployment").await?, bench.settings.replicas);
    let (informers, tasks) = bench.informers();
    let wanted = i32::try_from(count).context("that many replicas")?;
    let is_done = move |deployment: &Deployment| {
        let (meta, status) = (&deployment.metadata, deployment.status.clone().unwrap_or_default());
        status.observed_generation == meta.generation
            && status.updated_replicas == Some(wanted)
            && status.available_replicas == Some(wanted)
            && status.replicas == Some(wanted)
    };
    let done = Tally::begin(&informers, Some(&namespace), is_done).await;
    let left = Tally::begin(&informers, Some(&namespace), |_: &Pod| true).await;
    let deployments: Api<Deployment> = Api::namespaced(bench.client.clone(), &namespace);
    let labels = json!({"app": "web"});
    let template = json!({"metadata": {"labels": labels}, "spec": pod_spec("Always")});
    let web = json!({"metadata": {"name": "web"}, "spec": {"replicas": count,
                     "selector": {"matchLabels": labels}, "template": template}});
    let finished = || async {
        done.wait_for("Deployment that is as it should be", 1).await?;
        Ok(Done { objects: count, took: vec![] })
    };
    bench
        .step("deployment: make, until available", async {
            create(&deployments, web).await?;
            finished().await
        })
        .await?;
    bench
        .step("deployment: new template, rolled out", async {
            let container = json!([{"name": "app", "image": "registry.example/app:1.2.4"}]);
            let change = json!({"spec": {"template": {"spec": {"containers": container}}}});
            deployments.patch("web", &PatchParams::default(), &Patch::Strategic(change)).await?;
            done.wait_for_none("Deployment that has not seen it").await?;
            finished().await
        })
        .await?;
    bench
        .step("deployment: delete, until pods are gone", async {
            deployments.delete("web", &DeleteParams::background()).await?;
            left.wait_for_none("pods").await?;
            Ok(Done { objects: count, took: vec![] })
        })
        .await?;
    Ok(tasks.shut_down().await?)
}

/// Jobs are made one by one, and run at once.
async fn jobs(bench: Bench) -> Result<()> {
    let (namespace, count) = (bench.namespace("jobs").await?, bench.settings.jobs);
    let (informers, tasks) = bench.informers();
    let complete = Tally::begin(&informers, Some(&namespace), is_complete).await;
    let (left, pods_left) = (
        Tally::begin(&informers, Some(&namespace), |_: &Job| true).await,
        Tally::begin(&informers, Some(&namespace), |_: &Pod| true).await,
    );
    let jobs: Api<Job> = Api::namespaced(bench.client.clone(), &namespace);
    bench
        .step("jobs: make, until complete", async {
            let one = |number: usize| {
                let (name, jobs) = (format!("job-{number}"), jobs.clone());
                let job =
                    json!({"metadata": {"name": name}, "spec": {"template": {"spec": pod_spec("Never")}}});
                async move { create(&jobs, job).await.map(|()| name) }
            };
            let begun = bench.each(count, one).await?;
            complete.wait_for("Jobs that are complete", count).await?;
            Ok(Done { objects: count, took: complete.since(&begun) })
        })
        .await?;
    bench
        .step("jobs: delete all, until pods are gone", async {
            jobs.delete_collection(&DeleteParams::background(), &ListParams::default()).await?;
            left.wait_for_none("Jobs").await?;
            pods_left.wait_for_none("pods").await?;
            Ok(Done { objects: count, took: vec![] })
        })
        .await?;
    Ok(tasks.shut_down().await?)
}

/// Namespaces with a Deployment of one replica and a ConfigMap each are made, then all deleted at once.
async fn namespaces(bench: Bench) -> Result<()> {
    let count = bench.settings.namespaces;
    let (informers, tasks) = bench.informers();
    let suffix = format!("-of-{}", bench.id);
    let name = |number: usize| format!("cluster-load-{number}{suffix}");
    let (own, its) = (suffix.clone(), suffix.clone());
    let left =
        Tally::begin(&informers, None, move |namespace: &Namespace| namespace.name_any().ends_with(&own))
            .await;
    let of = move |deployment: &Deployment| {
        let ready = deployment.status.as_ref().and_then(|status| status.available_replicas);
        deployment.namespace().is_some_and(|namespace| namespace.ends_with(&its)) && ready == Some(1)
    };
    let available = Tally::begin(&informers, None, of).await;
    bench
        .step("namespaces: fill, until available", async {
            bench.each(count, |number| fill(&bench, name(number))).await?;
            available.wait_for("Deployments that are available", count).await?;
            Ok(Done { objects: count, took: vec![] })
        })
        .await?;
    bench
        .step("namespaces: delete, until gone", async {
            let namespaces: Api<Namespace> = Api::all(bench.client.clone());
            let delete = |number: usize| {
                let (name, namespaces) = (name(number), namespaces.clone());
                async move {
                    namespaces.delete(&name, &DeleteParams::default()).await?;
                    Ok(name)
                }
            };
            bench.each(count, delete).await?;
            left.wait_for_none("namespaces").await?;
            Ok(Done { objects: count, took: vec![] })
        })
        .await?;
    Ok(tasks.shut_down().await?)
}

async fn fill(bench: &Bench, name: String) -> Result<String> {
    bench.create_namespace(&name).await?;
    let map = json!({"metadata": {"name": "config"}, "data": {"key": "value"}});
    create(&Api::<ConfigMap>::namespaced(bench.client.clone(), &name), map).await?;
    let labels = json!({"app": "web"});
    let template = json!({"metadata": {"labels": labels}, "spec": pod_spec("Always")});
    let web = json!({"metadata": {"name": "web"}, "spec": {"replicas": 1,
                     "selector": {"matchLabels": labels}, "template": template}});
    create(&Api::<Deployment>::namespaced(bench.client.clone(), &name), web).await?;
    Ok(name)
}
