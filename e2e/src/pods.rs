//! Pods as kubectl shows them.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Pod, PodStatus};

use crate::cluster::condition;
use crate::kubectl::Kubectl;
use crate::wait;

/// What `get pods -o json` prints: a list of no kind in particular.
#[derive(serde::Deserialize)]
struct Pods {
    items: Vec<Pod>,
}

/// The pods of a selector.
///
/// # Errors
/// They cannot be had.
pub async fn pods(kubectl: &Kubectl, selector: &str) -> Result<Vec<Pod>> {
    let list: Pods = serde_json::from_str(&kubectl.run(&format!("get pods -l {selector} -o json")).await?)?;
    Ok(list.items)
}

/// What the API shows of a pod.
///
/// # Errors
/// It cannot be had.
pub async fn pod_status(kubectl: &Kubectl, name: &str) -> Result<PodStatus> {
    let pod: Pod = serde_json::from_str(&kubectl.run(&format!("get pod {name} -o json")).await?)?;
    Ok(pod.status.unwrap_or_default())
}

/// Waits until a selector matches exactly `count` pods and all are ready; returns their names.
///
/// # Errors
/// It does not come to that in time.
pub async fn ready_pods(kubectl: &Kubectl, selector: &str, count: usize) -> Result<Vec<String>> {
    wait::until(&format!("{count} ready pods of {selector}"), || async {
        let all = pods(kubectl, selector).await?;
        let live: Vec<_> = all.iter().filter(|p| p.metadata.deletion_timestamp.is_none()).collect();
        let ready = live.iter().filter(|p| condition(p, "Ready")).count();
        let states: Vec<_> = live.iter().map(|p| describe(p)).collect();
        ensure!(live.len() == count && ready == count, "{} pods: {}", live.len(), states.join("; "));
        Ok(Some(live.iter().filter_map(|p| p.metadata.name.clone()).collect()))
    })
    .await
    .with_context(|| format!("in {}", kubectl.namespace()))
}

fn describe(pod: &Pod) -> String {
    let status = pod.status.clone().unwrap_or_default();
    let waiting = status.container_statuses.into_iter().flatten().filter_map(|c| c.state?.waiting);
    let reasons: Vec<_> = waiting.map(|w| format!("{:?}: {:?}", w.reason, w.message)).collect();
    format!("{:?} {:?} {}", pod.metadata.name, status.phase, reasons.join(" "))
}
