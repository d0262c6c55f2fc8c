//! Network policies, by what pods hear of one another.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use e2e::kubectl::Kubectl;
use e2e::wait;

use super::streams::{apply_each, pipe};
use super::{Env, ready_pods};

/// A pod that serves on two ports, one of them with a name, and can ask others.
fn talker(name: &str) -> String {
    format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}","labels":{{"app":"{name}","group":"talkers"}}}},
        "spec":{{"terminationGracePeriodSeconds":1,"containers":[{{"name":"c","image":"docker.io/library/busybox:1.36",
        "imagePullPolicy":"Never","ports":[{{"name":"http","containerPort":8080}}],
        "command":["sh","-c","echo {name} > /var/www/index.html; httpd -h /var/www -p 8081; exec httpd -f -h /var/www -p 8080"],
        "readinessProbe":{{"tcpSocket":{{"port":8080}},"periodSeconds":1}}}}]}}}}
---
{{"apiVersion":"v1","kind":"Service","metadata":{{"name":"{name}"}},"spec":{{"selector":{{"app":"{name}"}},
        "ports":[{{"name":"http","port":80,"targetPort":"http"}},{{"name":"other","port":81,"targetPort":8081}}]}}}}"#
    )
}

pub async fn policies_decide_who_hears_whom(env: Arc<Env>) -> Result<()> {
    let kubectl = env.namespace("policies").await?;
    let stranger = env.namespace("strangers").await?;
    for name in ["server", "friend", "other"] {
        apply_each(&kubectl, &talker(name)).await?;
    }
    apply_each(&stranger, &talker("server")).await?;
    ready_pods(&kubectl, "group=talkers", 3).await?;
    ready_pods(&stranger, "group=talkers", 1).await?;
    let away = format!("server.{}", stranger.namespace());
    let here = format!("server.{}", kubectl.namespace());
    for (from, name, to) in [(&kubectl, "friend", "server:81"), (&stranger, "server", here.as_str())] {
        hears(from, name, to, true).await?;
    }
    ingress(&kubectl, &stranger, &here).await?;
    egress(&kubectl, &away).await?;
    env.done(&stranger).await?;
    env.done(&kubectl).await
}

async fn ingress(kubectl: &Kubectl, stranger: &Kubectl, here: &str) -> Result<()> {
    let policy = r#"{"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy","metadata":{"name":"friends"},"spec":{
        "podSelector":{"matchLabels":{"app":"server"}},"policyTypes":["Ingress"],"ingress":[{
        "from":[{"podSelector":{"matchLabels":{"app":"friend"}}}],"ports":[{"port":"http"}]}]}}"#;
    pipe(kubectl, "apply -f -", policy).await?;
    for (from, name, to, expected) in [
        (kubectl, "other", "server", false),
        (kubectl, "friend", "server", true),
        (kubectl, "friend", "server:81", false),
        (stranger, "server", here, false),
        (kubectl, "server", "server:8080", true),
        (kubectl, "server", "friend:81", true),
    ] {
        hears(from, name, to, expected).await.context("with a policy for what comes in")?;
    }
    // The node looks after its pods all the same.
    ready_pods(kubectl, "app=server", 1).await?;
    kubectl.run("label pod other app=friend --overwrite").await?;
    hears(kubectl, "other", "server", true).await.context("a pod that became a friend")?;
    kubectl.run("label pod other app=other --overwrite").await?;
    kubectl.run("delete networkpolicy friends").await?;
    hears(kubectl, "other", "server", true).await.context("without the policy")?;
    hears(stranger, "server", here, true).await.context("without the policy")
}

async fn egress(kubectl: &Kubectl, away: &str) -> Result<()> {
    let policy = r#"{"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy","metadata":{"name":"at-home"},"spec":{
        "podSelector":{"matchLabels":{"app":"friend"}},"policyTypes":["Egress"],"egress":[
        {"ports":[{"port":53,"protocol":"UDP"}]},
        {"to":[{"podSelector":{}}],"ports":[{"port":8080,"endPort":8090}]}]}}"#;
    hears(kubectl, "friend", away, true).await?;
    pipe(kubectl, "apply -f -", policy).await?;
    for (name, to, expected) in [
        ("friend", away, false),
        ("friend", "server", true),
        ("friend", "server:81", true),
        ("other", away, true),
        ("server", "friend", true),
    ] {
        hears(kubectl, name, to, expected).await.context("with a policy for what goes out")?;
    }
    kubectl.run("delete networkpolicy at-home").await?;
    hears(kubectl, "friend", away, true).await.context("without the policy")
}

/// Waits until a pod is answered at a service, or is not.
pub async fn hears(kubectl: &Kubectl, pod: &str, to: &str, expected: bool) -> Result<()> {
    let what = if expected { "hears" } else { "does not hear" };
    wait::until(&format!("{pod} {what} {to}"), || async {
        let words = format!("exec {pod} -- timeout 2 wget -q -O - http://{to}");
        let output = kubectl.output(&words).await?;
        let error = String::from_utf8_lossy(&output.stderr);
        // What kubectl itself cannot do says nothing of the pods.
        ensure!(output.status.success() || error.contains("command terminated"), "{error}");
        Ok((output.status.success() == expected).then_some(()))
    })
    .await
}
