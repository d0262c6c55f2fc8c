//! The steps of a case: what each did, and what that cost.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use client::{Api, Client, SharedInformerFactory, Tasks};
use e2e::measure::{Requests, memory};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Namespace, Node, ServiceAccount};
use kube::api::{DeleteParams, ListParams, PostParams};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::Settings;
use crate::counted::Counted;
use crate::tally::Tally;

/// The label of everything that a run makes, by which it is found again.
const LABEL: &str = "cluster-load";

/// A run.
#[derive(Clone)]
pub struct Bench {
    /// What it was told.
    pub settings: Settings,
    /// A client with all rights.
    pub client: Client,
    /// Unlike any other run's.
    pub id: String,
    processes: Arc<[(i32, String)]>,
}

/// What a step did.
pub struct Done {
    /// How many objects it was about.
    pub objects: usize,
    /// How long each of them took, where that is known.
    pub took: Vec<Duration>,
}

impl Bench {
    /// Waits for the nodes.
    ///
    /// # Errors
    /// They do not become ready.
    pub async fn new(client: Client, settings: Settings) -> Result<Self> {
        let name = |pid: &i32| {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            (*pid, name.trim().to_owned())
        };
        let processes = settings.pid.iter().map(name).collect();
        let id = jiff::Timestamp::now().as_second().to_string();
        let bench = Self { settings, client, id, processes };
        let tasks = Tasks::new();
        let informers = SharedInformerFactory::new(bench.client.clone(), &tasks);
        let nodes = Tally::begin(&informers, None, takes_pods).await;
        nodes.wait_for("nodes that take pods", bench.settings.nodes as usize).await?;
        tasks.shut_down().await?;
        Ok(bench)
    }

    /// Informers for one case. They stop with the tasks.
    #[must_use]
    pub fn informers(&self) -> (SharedInformerFactory, Tasks) {
        let tasks = Tasks::new();
        (SharedInformerFactory::new(self.client.clone(), &tasks), tasks)
    }

    /// Does a step and prints its line.
    ///
    /// # Errors
    /// What the step's own are.
    pub async fn step(&self, name: &str, work: impl Future<Output = Result<Done>>) -> Result<()> {
        let before = self.counted().await?;
        let began = Instant::now();
        let done = work.await.with_context(|| name.to_owned())?;
        let elapsed = began.elapsed();
        let after = self.counted().await?;
        let asked = after.zip(before).map(|(after, before)| after.since(&before));
        println!("{}", line(name, &done, elapsed, asked.as_ref(), &self.memory()));
        if self.settings.requests {
            for (what, count) in asked.iter().flat_map(|asked| asked.most(12)) {
                println!("    {:>9.2} {what}", count / done.objects.max(1) as f64);
            }
        }
        Ok(())
    }

    async fn counted(&self) -> Result<Option<Counted>> {
        let request = http::Request::get("/metrics").body(vec![])?;
        Ok(self.client.request_text(request).await.ok().and_then(|text| Counted::read(&text)))
    }

    fn memory(&self) -> Vec<Option<f64>> {
        self.processes.iter().map(|(pid, _)| memory(*pid).map(|(now, _)| now)).collect()
    }

    /// Prints the line above all others.
    pub fn print_heading(&self) {
        let names: String = self.processes.iter().map(|(_, name)| format!(" {name:>15}")).collect();
        println!(
            "{:<34}{:>8} {:>8} {:>8} {:>9} {:>9} {:>9}{names}",
            "", "objects", "seconds", "per s", "p50 s", "p99 s", "requests"
        );
    }

    /// Makes a namespace in which pods can be made.
    ///
    /// # Errors
    /// The server refuses, or no service account is made there.
    pub async fn namespace(&self, case: &str) -> Result<String> {
        let name = format!("{LABEL}-{case}-{}", self.id);
        self.create_namespace(&name).await?;
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &name);
        e2e::wait::until("the namespace has its service account", || async {
            Ok(accounts.get_opt("default").await?)
        })
        .await?;
        Ok(name)
    }

    /// Makes a namespace of this run.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn create_namespace(&self, name: &str) -> Result<()> {
        let namespace = json!({"metadata": {"name": name, "labels": {LABEL: self.id}}});
        create(&Api::<Namespace>::all(self.client.clone()), namespace).await
    }

    /// Does something for each number, as many at once as there are clients; returns when each was begun, by name.
    ///
    /// # Errors
    /// The first one's.
    pub async fn each<F, Fut>(&self, count: usize, work: F) -> Result<HashMap<String, Instant>>
    where
        F: Fn(usize) -> Fut,
        Fut: Future<Output = Result<String>>,
    {
        let timed = |number| {
            let (begun, work) = (Instant::now(), work(number));
            async move { anyhow::Ok((work.await?, begun)) }
        };
        // The time is taken when its turn comes: the stream makes a future only when there is room for it.
        stream::iter(0..count).map(timed).buffer_unordered(self.settings.clients.max(1)).try_collect().await
    }

    /// Deletes what is left of the run.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn clean(&self) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let own = ListParams::default().labels(&format!("{LABEL}={}", self.id));
        for namespace in namespaces.list_metadata(&own).await?.items {
            let name = namespace.metadata.name.unwrap_or_default();
            if namespace.metadata.deletion_timestamp.is_none() {
                namespaces.delete(&name, &DeleteParams::default()).await?;
            }
        }
        // Simulated nodes see to the end of their pods.
        e2e::wait::until("the namespaces are gone", || async {
            Ok(namespaces.list_metadata(&own).await?.items.is_empty().then_some(()))
        })
        .await
    }
}

/// Makes an object.
///
/// # Errors
/// The server refuses.
pub async fn create<K>(api: &Api<K>, object: Value) -> Result<()>
where
    K: Clone + std::fmt::Debug + DeserializeOwned + Serialize,
{
    api.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
    Ok(())
}

fn takes_pods(node: &Node) -> bool {
    let spec = node.spec.as_ref();
    let is_open = spec.is_none_or(|spec| {
        spec.unschedulable != Some(true)
            && spec.taints.iter().flatten().all(|taint| taint.effect != "NoSchedule")
    });
    is_open && deploy::up::is_ready(node)
}

fn line(
    name: &str,
    done: &Done,
    elapsed: Duration,
    asked: Option<&Counted>,
    memory: &[Option<f64>],
) -> String {
    let seconds = elapsed.as_secs_f64().max(1e-9);
    let took = Requests { latencies: done.took.clone(), ..Requests::default() };
    let quantile = |share: f64| match took.quantile(share) {
        known if known.is_finite() => format!("{:.2}", known / 1000.0),
        _ => "-".to_owned(),
    };
    let each =
        asked.map_or("-".to_owned(), |asked| format!("{:.2}", asked.total() / done.objects.max(1) as f64));
    let memory = memory.iter().map(|megabytes| {
        let text = megabytes.map_or("-".to_owned(), |megabytes| format!("{megabytes:.0} MB"));
        format!(" {text:>15}")
    });
    let memory: String = memory.collect();
    format!(
        "{name:<34}{:>8} {seconds:>8.2} {:>8.0} {:>9} {:>9} {each:>9}{memory}",
        done.objects,
        done.objects as f64 / seconds,
        quantile(0.5),
        quantile(0.99),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_is_known() {
        let took: Vec<_> = (1..=4).map(Duration::from_secs).collect();
        let text = "apiserver_request_total{resource=\"pods\",subresource=\"\",verb=\"POST\"} 6\n";
        let (asked, second) = (Counted::read(text), Duration::from_secs(2));
        let words = |line: String| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
        let full = line("pods", &Done { objects: 4, took }, second, asked.as_ref(), &[Some(12.4), None]);
        assert_eq!(words(full), "pods 4 2.00 2 2.00 4.00 1.50 12 MB -");
        let bare = line("pods", &Done { objects: 1, took: vec![] }, second, None, &[]);
        assert_eq!(words(bare), "pods 1 2.00 0 - - -");
    }
}
