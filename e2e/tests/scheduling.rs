//! What the scheduler writes, and whom it asks, against a real API server: extenders, volumes, devices.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use client::{Api, Client, Tasks};
use e2e::control_plane::{ControlPlane, simulate};
use e2e::wait;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Binding, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceClaimTemplate, ResourceSlice};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::TcpListener;

const NODES: u32 = 3;
/// Pods that ask for some of this are the extender's business.
const THING: &str = "example.com/thing";

fn object<T: DeserializeOwned>(value: Value) -> Result<T> {
    Ok(serde_json::from_value(value)?)
}

async fn create_pod(client: &Client, name: &str, spec: Value) -> Result<()> {
    let mut pod =
        json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "web:1"}]}});
    if let (Some(own), Some(more)) = (pod["spec"].as_object_mut(), spec.as_object()) {
        own.extend(more.clone());
    }
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    pods.create(&PostParams::default(), &object(pod)?).await?;
    Ok(())
}

/// The node of a pod, once it has one.
async fn placed(client: &Client, name: &str) -> Result<String> {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    wait::until(&format!("{name} has a node"), || async {
        Ok(pods.get(name).await?.spec.and_then(|spec| spec.node_name))
    })
    .await
}

/// Why a pod has no node.
async fn refused(client: &Client, name: &str) -> Result<String> {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    wait::until(&format!("{name} is refused"), || async {
        let conditions =
            pods.get(name).await?.status.and_then(|status| status.conditions).unwrap_or_default();
        let said = conditions.into_iter().find(|held| held.type_ == "PodScheduled" && held.status == "False");
        Ok(said.and_then(|held| held.message))
    })
    .await
}

async fn nodes_are_ready(client: &Client) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    wait::until("all nodes take pods", || async {
        let list = nodes.list(&ListParams::default()).await?.items;
        let takes = |node: &Node| {
            let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
            deploy::up::is_ready(node) && taints.is_none_or(Vec::is_empty)
        };
        Ok((list.len() == NODES as usize && list.iter().all(takes)).then_some(()))
    })
    .await
}

/// An extender behind HTTP. It wants its pods on the second or third node, prefers the third, binds them itself, and
/// makes room on the second only.
struct Extender {
    address: SocketAddr,
    /// The calls there were: verb and pod.
    asked: Arc<Mutex<Vec<String>>>,
    /// For whom it binds, once there is somebody.
    client: Arc<Mutex<Option<Client>>>,
    tasks: Tasks,
}

impl Extender {
    async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (asked, client, tasks) = (Arc::default(), Arc::<Mutex<Option<Client>>>::default(), Tasks::new());
        let this = Self { address: listener.local_addr()?, asked, client, tasks };
        let (asked, client) = (this.asked.clone(), this.client.clone());
        this.tasks.spawn("extender", |token| async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let stream = tokio::select! {
                    () = token.cancelled() => return,
                    stream = listener.accept() => stream,
                };
                let Ok((stream, _)) = stream else { return };
                let (asked, client) = (asked.clone(), client.clone());
                let service = service_fn(move |request| answer(asked.clone(), client.clone(), request));
                let serve = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                connections.spawn(serve);
            }
        });
        Ok(this)
    }

    /// How the scheduler is told of it.
    fn configuration(&self) -> Value {
        json!({
            "apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration",
            "leaderElection": {"leaderElect": false},
            "extenders": [{
                "urlPrefix": format!("http://{}/extender", self.address), "filterVerb": "filter",
                "prioritizeVerb": "prioritize", "bindVerb": "bind", "preemptVerb": "preempt", "weight": 5,
                "nodeCacheCapable": true,
                "managedResources": [{"name": THING, "ignoredByScheduler": true}],
            }],
        })
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("nobody panicked").clone()
    }
}

async fn answer(
    asked: Arc<Mutex<Vec<String>>>,
    client: Arc<Mutex<Option<Client>>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>> {
    let verb = request.uri().path().trim_start_matches("/extender/").to_owned();
    let body: Value = serde_json::from_slice(&request.into_body().collect().await?.to_bytes())?;
    let pod = body["Pod"]["metadata"]["name"].as_str().or(body["PodName"].as_str()).unwrap_or_default();
    asked.lock().expect("nobody panicked").push(format!("{verb} {pod}"));
    let names = body["NodeNames"].as_array().cloned().unwrap_or_default();
    let says = match verb.as_str() {
        "filter" => {
            let (failed, left): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| *name == "simulated-0");
            let failed = failed.iter().filter_map(|name| Some((name.as_str()?, json!("not this one"))));
            json!({"NodeNames": left, "FailedNodes": failed.collect::<std::collections::BTreeMap<_, _>>()})
        }
        "prioritize" => {
            let score =
                |name: &Value| json!({"Host": name, "Score": if *name == "simulated-2" { 10 } else { 0 }});
            names.iter().map(score).collect()
        }
        "preempt" => {
            let only = body["NodeNameToMetaVictims"]["simulated-1"].clone();
            json!({"NodeNameToMetaVictims": {"simulated-1": only}})
        }
        "bind" => {
            let client = client.lock().expect("nobody panicked").clone().context("nobody to bind for")?;
            let pods: Api<Pod> = Api::default_namespaced(client);
            let binding: Binding = object(json!({
                "metadata": {"name": pod, "uid": body["PodUID"]}, "target": {"kind": "Node", "name": body["Node"]},
            }))?;
            let bound: kube::Result<Value> =
                pods.create_subresource("binding", pod, &PostParams::default(), &binding).await;
            json!({"Error": bound.err().map(|error| error.to_string()).unwrap_or_default()})
        }
        other => json!({"Error": format!("no verb {other}")}),
    };
    Ok(Response::new(Full::new(Bytes::from(says.to_string()))))
}

fn wants_thing(more: Value) -> Value {
    let resources = json!({"requests": {THING: "1", "cpu": "1"}, "limits": {THING: "1", "cpu": "1"}});
    let mut spec = json!({"containers": [{"name": "c", "image": "web:1", "resources": resources}]});
    if let (Some(spec), Some(more)) = (spec.as_object_mut(), more.as_object()) {
        spec.extend(more.clone());
    }
    spec
}

#[tokio::test(flavor = "multi_thread")]
async fn extenders_have_their_say() {
    let extender = Extender::start().await.expect("an extender");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("scheduler.json");
    std::fs::write(&file, extender.configuration().to_string()).expect("written");
    let plane = ControlPlane::start_with(&[&format!("--config={}", file.display())]).await.expect("a plane");
    *extender.client.lock().expect("nobody panicked") = Some(plane.client.clone());
    let simulation = simulate(&plane.client, NODES, false);
    let outcome = with_extender(&plane.client, &extender).await;
    simulation.shut_down().await.expect("it ends");
    plane.stop().await.expect("it stops");
    extender.tasks.shut_down().await.expect("it ends");
    outcome.expect("extenders have their say");
}

async fn with_extender(client: &Client, extender: &Extender) -> Result<()> {
    nodes_are_ready(client).await?;
    create_pod(client, "plain", json!({})).await?;
    placed(client, "plain").await?;
    ensure!(extender.asked().is_empty(), "it is not asked about others: {:?}", extender.asked());
    create_pod(client, "one", wants_thing(json!({}))).await?;
    ensure!(placed(client, "one").await? == "simulated-2", "the node that the extender prefers");
    ensure!(extender.asked() == ["filter one", "prioritize one", "bind one"], "{:?}", extender.asked());
    let elsewhere = json!({"nodeSelector": {"kubernetes.io/hostname": "simulated-0"}});
    create_pod(client, "never", wants_thing(elsewhere)).await?;
    let said = refused(client, "never").await?;
    ensure!(said.contains("1 not this one"), "{said}");

    // All is full of lesser pods: room is made where the extender allows it.
    let cpu = json!({"requests": {"cpu": "6"}});
    for node in 0..NODES {
        let spec = json!({
            "nodeSelector": {"kubernetes.io/hostname": format!("simulated-{node}")},
            "containers": [{"name": "c", "image": "web:1", "resources": cpu}],
        });
        create_pod(client, &format!("filler-{node}"), spec).await?;
        placed(client, &format!("filler-{node}")).await?;
    }
    let mut important = wants_thing(json!({"priorityClassName": "system-cluster-critical"}));
    important["containers"][0]["resources"] =
        json!({"requests": {THING: "1", "cpu": "4"}, "limits": {THING: "1", "cpu": "4"}});
    create_pod(client, "important", important).await?;
    ensure!(placed(client, "important").await? == "simulated-1", "where the extender lets victims go");
    ensure!(extender.asked().contains(&"preempt important".to_owned()), "{:?}", extender.asked());
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    wait::until("the victim is gone", || async {
        Ok(pods.get_opt("filler-1").await?.is_none().then_some(()))
    })
    .await?;
    ensure!(pods.get_opt("filler-2").await?.is_some(), "the others stay");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_and_devices_are_claimed_for_pods() {
    let plane = ControlPlane::start().await.expect("a plane");
    let simulation = simulate(&plane.client, NODES, false);
    let outcome = async {
        nodes_are_ready(&plane.client).await?;
        volumes_that_are_there(&plane.client).await?;
        volumes_that_are_made(&plane.client).await?;
        devices(&plane.client).await
    };
    let outcome = outcome.await;
    simulation.shut_down().await.expect("it ends");
    plane.stop().await.expect("it stops");
    outcome.expect("volumes and devices are claimed");
}

async fn create_class(client: &Client, name: &str, provisioner: &str) -> Result<()> {
    let classes: Api<StorageClass> = Api::all(client.clone());
    let class = json!({"metadata": {"name": name}, "provisioner": provisioner,
                       "volumeBindingMode": "WaitForFirstConsumer"});
    classes.create(&PostParams::default(), &object(class)?).await?;
    Ok(())
}

async fn create_claim(client: &Client, name: &str, class: &str) -> Result<()> {
    let claims: Api<PersistentVolumeClaim> = Api::default_namespaced(client.clone());
    let claim = json!({"metadata": {"name": name}, "spec": {
        "storageClassName": class, "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}});
    claims.create(&PostParams::default(), &object(claim)?).await?;
    Ok(())
}

fn uses(claim: &str) -> Value {
    json!({"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]})
}

fn only_on(node: &str) -> Value {
    let here = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [node]});
    json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}})
}

/// A volume on one node decides where the pod goes, and is given to its claim before the pod is bound.
async fn volumes_that_are_there(client: &Client) -> Result<()> {
    create_class(client, "local", "kubernetes.io/no-provisioner").await?;
    create_claim(client, "kept", "local").await?;
    create_pod(client, "reader", uses("kept")).await?;
    let said = refused(client, "reader").await?;
    ensure!(said.contains("3 node(s) didn't find available persistent volumes to bind"), "{said}");
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    for node in ["simulated-1", "simulated-2"] {
        let size = if node == "simulated-1" { "2Gi" } else { "100Mi" };
        let volume = json!({"metadata": {"name": format!("on-{node}")}, "spec": {
            "storageClassName": "local", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": size},
            "local": {"path": "/data"}, "persistentVolumeReclaimPolicy": "Retain", "nodeAffinity": only_on(node)}});
        volumes.create(&PostParams::default(), &object(volume)?).await?;
    }
    ensure!(placed(client, "reader").await? == "simulated-1", "the node with a volume that is large enough");
    let claims: Api<PersistentVolumeClaim> = Api::default_namespaced(client.clone());
    let claim = claims.get("kept").await?;
    let phase = claim.status.and_then(|status| status.phase);
    ensure!(phase.as_deref() == Some("Bound"), "it is bound before the pod is: {phase:?}");
    ensure!(claim.spec.and_then(|spec| spec.volume_name).as_deref() == Some("on-simulated-1"));
    let given = volumes.get("on-simulated-1").await?.spec.and_then(|spec| spec.claim_ref);
    ensure!(given.and_then(|to| to.name).as_deref() == Some("kept"));
    Ok(())
}

/// Who makes volumes is told for which node, and the pod waits for it.
async fn volumes_that_are_made(client: &Client) -> Result<()> {
    const SELECTED: &str = "volume.kubernetes.io/selected-node";
    create_class(client, "made", "maker.example.com").await?;
    create_claim(client, "fresh", "made").await?;
    create_pod(client, "writer", uses("fresh")).await?;
    let claims: Api<PersistentVolumeClaim> = Api::default_namespaced(client.clone());
    let (node, uid) = wait::until("a node is chosen for the volume", || async {
        let claim = claims.get("fresh").await?;
        let chosen = claim.metadata.annotations.and_then(|mut all| all.remove(SELECTED));
        Ok(chosen.zip(claim.metadata.uid))
    })
    .await?;
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let waits = pods.get("writer").await?.spec.and_then(|spec| spec.node_name).is_none();
    ensure!(waits, "the pod is not bound before its volume is there");
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let volume = json!({"metadata": {"name": "made-1"}, "spec": {
        "storageClassName": "made", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
        "csi": {"driver": "maker.example.com", "volumeHandle": "1"}, "persistentVolumeReclaimPolicy": "Delete",
        "claimRef": {"kind": "PersistentVolumeClaim", "namespace": "default", "name": "fresh", "uid": uid},
        "nodeAffinity": only_on(&node)}});
    volumes.create(&PostParams::default(), &object(volume)?).await?;
    ensure!(placed(client, "writer").await? == node, "the node that was chosen");
    Ok(())
}

/// Devices are given to one claim each; what a pod had is another's when it is gone.
async fn devices(client: &Client) -> Result<()> {
    let classes: Api<DeviceClass> = Api::all(client.clone());
    let mine = "device.driver == 'driver.example.com'";
    let class = json!({"metadata": {"name": "gpu"}, "spec": {"selectors": [{"cel": {"expression": mine}}]}});
    classes.create(&PostParams::default(), &object(class)?).await?;
    let slices: Api<ResourceSlice> = Api::all(client.clone());
    let slice = json!({"metadata": {"name": "slice"}, "spec": {
        "driver": "driver.example.com", "nodeName": "simulated-2",
        "pool": {"name": "pool", "generation": 1, "resourceSliceCount": 1},
        "devices": [{"name": "gpu-0"}]}});
    slices.create(&PostParams::default(), &object(slice)?).await?;
    let templates: Api<ResourceClaimTemplate> = Api::default_namespaced(client.clone());
    let requests = json!([{"name": "one", "exactly": {"deviceClassName": "gpu"}}]);
    let template =
        json!({"metadata": {"name": "gpu"}, "spec": {"spec": {"devices": {"requests": requests}}}});
    templates.create(&PostParams::default(), &object(template)?).await?;
    let wants = json!({"resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "gpu"}]});
    create_pod(client, "learner", wants.clone()).await?;
    ensure!(placed(client, "learner").await? == "simulated-2", "the node with the device");
    let claims: Api<ResourceClaim> = Api::default_namespaced(client.clone());
    let of = |name: &'static str| {
        let claims = claims.clone();
        async move {
            let all = claims.list(&ListParams::default()).await?.items;
            let own = all.into_iter().find(|claim| {
                claim.metadata.owner_references.as_ref().is_some_and(|owners| owners[0].name == name)
            });
            anyhow::Ok(own)
        }
    };
    let claim = of("learner").await?.context("a claim")?;
    let status = claim.status.context("a status")?;
    let given = status.allocation.and_then(|given| given.devices).and_then(|given| given.results);
    let given: Vec<_> = given.unwrap_or_default().into_iter().map(|result| result.device).collect();
    ensure!(given == ["gpu-0"], "{given:?}");
    let users: Vec<_> = status.reserved_for.unwrap_or_default().into_iter().map(|user| user.name).collect();
    ensure!(users == ["learner"], "{users:?}");
    let held = claim.metadata.finalizers.unwrap_or_default();
    ensure!(held == ["resource.kubernetes.io/delete-protection"], "{held:?}");

    create_pod(client, "second", wants).await?;
    let said = refused(client, "second").await?;
    ensure!(said.contains("cannot allocate all claims"), "{said}");
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    pods.delete("learner", &DeleteParams::default()).await?;
    ensure!(placed(client, "second").await? == "simulated-2", "the device is free again");
    wait::until("the claim of the first is gone", || async {
        Ok(of("learner").await?.is_none().then_some(()))
    })
    .await?;
    Ok(())
}
