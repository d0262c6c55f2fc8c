//! Addresses of both families: pods and nodes have one of each, services one or both.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use e2e::kubectl::Kubectl;
use e2e::wait;

use super::policies::hears;
use super::streams::{apply_each, pipe};
use super::{Env, ready_pods, sample};

/// A service of both families, and one of IPv6 alone.
const SERVICES: &str = r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"both"},"spec":{"type":"NodePort",
    "ipFamilyPolicy":"RequireDualStack","selector":{"app":"hello"},"ports":[{"port":80,"targetPort":8080}]}}
---
{"apiVersion":"v1","kind":"Service","metadata":{"name":"six"},"spec":{"ipFamilies":["IPv6"],"selector":{"app":"hello"},
    "ports":[{"port":80,"targetPort":8080}]}}
---
{"apiVersion":"v1","kind":"Service","metadata":{"name":"heads"},"spec":{"clusterIP":"None",
    "ipFamilyPolicy":"PreferDualStack","selector":{"app":"hello"},"ports":[{"port":8080}]}}"#;

/// What the cluster gives of each kind: pods, nodes, services and slices have both families, IPv4 first.
pub async fn services_of_both_families_are_reached_over_either(env: Arc<Env>) -> Result<()> {
    let kubectl = env.namespace("families").await?;
    kubectl.run(&format!("apply -f {}", sample("deploy.yaml"))).await?;
    apply_each(&kubectl, SERVICES).await?;
    let pods = ready_pods(&kubectl, "app=hello", 2).await?;
    for pod in &pods {
        let of_pod = async |field: &str| {
            addresses(&kubectl, &format!("pod {pod}"), &format!("status.{field}[*].ip")).await
        };
        first_v4_then_v6(&of_pod("podIPs").await?)?;
        let hosts = of_pod("hostIPs").await?;
        ensure!(hosts == env.addresses, "the pod is on {hosts:?}");
        let hosts = kubectl.run(&format!("exec {pod} -- cat /etc/hosts")).await?;
        for address in of_pod("podIPs").await? {
            ensure!(hosts.contains(&format!("{address}\t{pod}")), "{hosts}");
        }
    }
    let both = addresses(&kubectl, "service both", "spec.clusterIPs[*]").await?;
    first_v4_then_v6(&both)?;
    let port = kubectl.run("get service both -o jsonpath={.spec.ports[0].nodePort}").await?;
    let slices = kubectl
        .run("get endpointslices -l kubernetes.io/service-name=both -o jsonpath={.items[*].addressType}");
    let mut slices: Vec<_> = slices.await?.split_whitespace().map(str::to_owned).collect();
    slices.sort();
    ensure!(slices == ["IPv4", "IPv6"], "slices of {slices:?}");
    let (asks, other) =
        (&pods[0], addresses(&kubectl, &format!("pod {}", pods[1]), "status.podIPs[*].ip").await?);
    for (address, port) in both.iter().map(|ip| (ip, "80")).chain(other.iter().map(|ip| (ip, "8080"))) {
        hears(&kubectl, asks, &at(*address, port), true).await?;
    }
    for address in &env.addresses {
        hears(&kubectl, asks, &at(*address, &port), true).await.context("by a node port")?;
    }
    names_have_their_families(&kubectl, asks).await?;
    hears(&kubectl, asks, "six", true).await.context("by the name of a service of IPv6 alone")?;
    policies_hold_in_both(&kubectl, asks, &other).await?;
    env.done(&kubectl).await
}

/// Which records each name has.
async fn names_have_their_families(kubectl: &Kubectl, pod: &str) -> Result<()> {
    for (name, v4, v6) in [("both", 1, 1), ("six", 0, 1), ("hello", 1, 0), ("heads", 2, 2)] {
        let domain = format!("{name}.{}.svc.cluster.local", kubectl.namespace());
        wait::until(&format!("records of {name}"), || async {
            // It fails if it finds nothing of one family, which is what is asked here.
            let output = kubectl.output(&format!("exec {pod} -- nslookup {domain}")).await?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let (_, answers) = text.split_once(&domain).unwrap_or_default();
            let found: Vec<IpAddr> =
                answers.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            let count = |is_v6: bool| found.iter().filter(|ip| ip.is_ipv6() == is_v6).count();
            ensure!((count(false), count(true)) == (v4, v6), "{name} is {found:?}: {text}");
            Ok(Some(()))
        })
        .await?;
    }
    Ok(())
}

/// A pod that nobody may ask is not heard over either family, and its node still finds it well.
async fn policies_hold_in_both(kubectl: &Kubectl, asks: &str, other: &[IpAddr]) -> Result<()> {
    let deny = r#"{"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy","metadata":{"name":"deny"},
        "spec":{"podSelector":{},"policyTypes":["Ingress"]}}"#;
    pipe(kubectl, "apply -f -", deny).await?;
    for address in other {
        hears(kubectl, asks, &at(*address, "8080"), false).await.context("with a policy")?;
    }
    ready_pods(kubectl, "app=hello", 2).await?;
    kubectl.run("delete networkpolicy deny").await?;
    for address in other {
        hears(kubectl, asks, &at(*address, "8080"), true).await.context("without the policy")?;
    }
    Ok(())
}

/// Addresses that an object has in a field.
pub async fn addresses(kubectl: &Kubectl, object: &str, field: &str) -> Result<Vec<IpAddr>> {
    let text = kubectl.run(&format!("get {object} -o jsonpath={{.{field}}}")).await?;
    text.split_whitespace().map(|ip| ip.parse().with_context(|| format!("{ip:?} of {object}"))).collect()
}

fn first_v4_then_v6(addresses: &[IpAddr]) -> Result<()> {
    let families: Vec<_> = addresses.iter().map(IpAddr::is_ipv6).collect();
    ensure!(families == [false, true], "{addresses:?}");
    Ok(())
}

/// As a URL has it.
pub fn at(address: IpAddr, port: &str) -> String {
    if address.is_ipv6() { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}
