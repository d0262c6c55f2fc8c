//! What users do with a cluster.

mod failure;
mod families;
mod kill_points;
mod nodes;
mod policies;
mod samples;
mod services;
mod streams;
mod workloads;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use anyhow::Result;
use e2e::cluster::Cluster;
use e2e::kubectl::Kubectl;
pub use e2e::pods::{pod_status, ready_pods};
use tokio::sync::RwLock;

/// What a scenario works with.
pub struct Env {
    /// The name of the command-line client under test.
    pub client: &'static str,
    /// The command-line client under test.
    pub kubectl: Kubectl,
    /// The node's address.
    pub address: std::net::IpAddr,
    /// All its addresses: one, or one of each family.
    pub addresses: Vec<std::net::IpAddr>,
    /// What goes before a command to run it in the node's network.
    pub enter: Vec<String>,
    /// The cluster. Scenarios share it; one that hurts it has it to itself.
    pub cluster: Arc<RwLock<Cluster>>,
    /// Where scenarios run.
    pub runtime: tokio::runtime::Handle,
}

type Run = fn(Arc<Env>) -> Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// One scenario. Its name is what it promises.
pub struct Scenario {
    /// The promise.
    pub name: &'static str,
    /// Whether it hurts the cluster, so that nothing else may go on beside it.
    pub hurts: bool,
    /// Whether every client must show it; else each cluster's own client does.
    pub by_every_client: bool,
    /// Whether other machines join: only clusters in one process let them.
    pub joins: bool,
    /// Whether components get other flags: only in processes of their own can they.
    pub separate: bool,
    /// Whether it is about addresses of both families: only some clusters have them.
    pub both_families: bool,
    /// Keeps it, or fails.
    pub run: Run,
}

macro_rules! scenario {
    ($module:ident::$name:ident $(, $flag:ident)*) => {
        Scenario { $($flag: true,)* ..Scenario {
            name: stringify!($name), hurts: false, by_every_client: false, joins: false, separate: false,
            both_families: false, run: |env| Box::pin($module::$name(env))
        } }
    };
}

/// All scenarios.
pub const SCENARIOS: &[Scenario] = &[
    scenario!(samples::deployment_serves_behind_its_service, by_every_client),
    scenario!(services::a_connection_older_than_its_service_gets_through),
    scenario!(services::endpoints_without_a_service_stay),
    scenario!(families::services_of_both_families_are_reached_over_either, both_families),
    scenario!(policies::policies_decide_who_hears_whom),
    scenario!(samples::string_service_of_replication_controllers_answers, by_every_client),
    scenario!(samples::string_service_of_deployments_answers, by_every_client),
    scenario!(samples::consumer_gets_what_the_producer_makes, by_every_client),
    scenario!(workloads::deleted_pod_is_replaced_and_scaling_scales),
    scenario!(workloads::rolling_update_loses_no_request),
    scenario!(workloads::memory_hog_is_killed_and_restarted),
    scenario!(workloads::cpu_over_its_limit_is_throttled),
    scenario!(workloads::pods_that_fill_the_disk_are_evicted),
    scenario!(workloads::a_new_quota_counts_itself),
    scenario!(streams::logs_follow_and_exec_returns_its_exit_code),
    scenario!(streams::exec_gives_a_terminal, by_every_client),
    scenario!(failure::pods_whose_shim_is_killed_come_back),
    scenario!(failure::killed_components_come_back_and_no_pod_notices, hurts),
    scenario!(services::services_work_in_nftables_too, hurts, separate),
    scenario!(kill_points::whoever_is_killed_no_pod_is_lost_and_nothing_is_left, hurts, separate),
    scenario!(nodes::a_machine_joins_and_pods_of_both_nodes_are_one_network, hurts, joins),
];

impl Env {
    /// A namespace of its own for a scenario; removed by [`Env::done`].
    pub async fn namespace(&self, name: &str) -> Result<Kubectl> {
        let name = format!("{name}-{}", self.client);
        self.kubectl.run(&format!("create namespace {name}")).await?;
        Ok(self.kubectl.in_namespace(&name))
    }

    /// A command in the node's network.
    pub fn on_node(&self, words: &str) -> tokio::process::Command {
        let mut all = self.enter.iter().map(String::as_str).chain(words.split_whitespace());
        let mut command = tokio::process::Command::new(all.next().unwrap_or_default());
        command.args(all);
        command
    }

    /// Removes the namespace, without waiting for the end of it.
    pub async fn done(&self, kubectl: &Kubectl) -> Result<()> {
        self.kubectl.run(&format!("delete namespace {} --wait=false", kubectl.namespace())).await.map(drop)
    }
}

/// The path of a sample.
pub fn sample(name: &str) -> String {
    e2e::cluster::repository().join("deploy/samples").join(name).display().to_string()
}
