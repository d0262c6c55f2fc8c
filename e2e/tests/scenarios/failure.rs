//! Processes that die, and pods that do not notice.

use std::sync::Arc;

use anyhow::{Result, ensure};
use e2e::cluster::Form;
use e2e::wait;

use super::{Env, ready_pods, sample};

pub async fn killed_components_come_back_and_no_pod_notices(env: Arc<Env>) -> Result<()> {
    let kubectl = env.namespace("killed").await?;
    kubectl.run(&format!("apply -f {}", sample("deploy.yaml"))).await?;
    let before = ready_pods(&kubectl, "app=hello", 2).await?;
    let restarts = || async {
        kubectl.run("get pods -o jsonpath={.items[*].status.containerStatuses[*].restartCount}").await
    };
    let mut cluster = env.cluster.write().await;
    let victims: &[&str] = match cluster.form {
        Form::OneProcess => &["coxswain"],
        Form::Separate => {
            &["kubelet", "kube-controller-manager", "kube-scheduler", "kube-apiserver", "kube-proxy"]
        }
    };
    for victim in victims {
        cluster.kill_and_restart(victim)?;
        wait::until(&format!("the cluster works after {victim} was killed"), || async {
            let name = format!("after-{victim}");
            let exists = kubectl.run(&format!("get configmap {name}")).await.is_ok();
            if !exists {
                kubectl.run(&format!("create configmap {name} --from-literal=a=b")).await?;
            }
            Ok(Some(()))
        })
        .await?;
    }
    drop(cluster);
    kubectl.run("scale deployment hello --replicas=3").await?;
    let after = ready_pods(&kubectl, "app=hello", 3).await?;
    ensure!(before.iter().all(|pod| after.contains(pod)), "{before:?} became {after:?}");
    let counts = restarts().await?;
    ensure!(counts.split_whitespace().all(|count| count == "0"), "restarts: {counts}");
    env.done(&kubectl).await
}
