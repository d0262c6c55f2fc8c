//! What a whole control plane does under load: any one that a kubeconfig leads to. Its nodes are simulated in this
//! process, so what is measured is API server, scheduler and controllers, not machines. Nothing is asserted.
//!
//! ```text
//! cluster-load --kubeconfig ours.conf --pid 4711 --pid 4712
//! ```
//!
//! Each line is one step: how many objects, how long until the last of them had come to what the step waits for, and
//! how long half and all but a hundredth of them took, each from its own request on. Requests are those that the API
//! server counted meanwhile, whoever made them, for each object of the step: watches and the leases of nodes are left
//! out, the status of pods and events are in. Namespaces are made for the run and removed at the end.

mod cases;
mod counted;
mod steps;
mod tally;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;
use client::{Client, ConnectOptions, Tasks};

use cases::CASES;
use steps::Bench;

/// Drives a Kubernetes control plane with simulated nodes and prints what it does.
#[derive(Parser, Debug, Clone)]
struct Settings {
    /// Kubeconfig of the cluster to measure; its user needs all rights.
    #[arg(long)]
    kubeconfig: PathBuf,
    /// A process of that cluster, for its memory; may be given more than once.
    #[arg(long)]
    pid: Vec<i32>,
    /// How many nodes are simulated; with 0 the nodes that there are take the pods.
    #[arg(long, default_value_t = 100)]
    nodes: u32,
    /// How many pods are scheduled.
    #[arg(long, default_value_t = 2000)]
    pods: usize,
    /// How many replicas the Deployment has.
    #[arg(long, default_value_t = 1000)]
    replicas: usize,
    /// How many Jobs run at once, of one pod each, which ends a second after it began.
    #[arg(long, default_value_t = 2000)]
    jobs: usize,
    /// How many namespaces are deleted.
    #[arg(long, default_value_t = 500)]
    namespaces: usize,
    /// How many requests of ours are under way at once.
    #[arg(long, default_value_t = 32)]
    clients: usize,
    /// Only these cases; all if not given.
    #[arg(long, value_delimiter = ',', value_parser = cases::names())]
    only: Vec<String>,
    /// Show below each step which requests were made.
    #[arg(long)]
    requests: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    client::connect::install_crypto_provider();
    let settings = Settings::parse();
    let options = ConnectOptions {
        kubeconfig: Some(settings.kubeconfig.clone()),
        user_agent: "cluster-load".into(),
        master: None,
    };
    let client = client::connect(&options).await?;
    let simulation = simulate(&settings, &options).await?;
    let outcome = run(client, settings).await;
    simulation.shut_down().await?;
    outcome
}

/// Has nodes simulated over connections of their own.
async fn simulate(settings: &Settings, options: &ConnectOptions) -> Result<Tasks> {
    let tasks = Tasks::new();
    if settings.nodes > 0 {
        let flags = ["cluster-load", "--name-prefix=cluster-load", &format!("--count={}", settings.nodes)];
        let config = Simulated::parse_from(flags).flags.into_config()?;
        let client = client::connect(options).await?;
        tasks.spawn_critical("simulation", |token| simulation::run(config, client, token));
    }
    Ok(tasks)
}

/// The command line of a simulation, for its defaults.
#[derive(Parser)]
struct Simulated {
    #[command(flatten)]
    flags: simulation::Flags,
}

async fn run(client: Client, settings: Settings) -> Result<()> {
    let bench = Bench::new(client, settings).await?;
    bench.print_heading();
    let mut outcome = Ok(());
    for case in CASES {
        let wanted = &bench.settings.only;
        if outcome.is_ok() && (wanted.is_empty() || wanted.iter().any(|name| name == case.name)) {
            outcome = (case.run)(bench.clone()).await.context(case.name);
        }
    }
    outcome.and(bench.clean().await)
}
