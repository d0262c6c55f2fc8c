//! What an API server does under load: any one that a kubeconfig leads to, so that the same run can be pointed at
//! another implementation. Nothing is asserted; errors are counted and shown.
//!
//! ```text
//! load --kubeconfig ours.conf --pid 4711 --against theirs.conf --against-pid 4712
//! ```
//!
//! With `--against` each case runs against both servers, one right after the other, and the last column is how many
//! times better the first one is. While one is measured the other is stopped, if its process is known: what a server
//! does by itself must not be part of another's figures. `load costs` starts servers of its own and compares them. A
//! namespace is made on the servers for the run and removed at the end.

mod cases;
mod connection;
mod costs;
mod figures;
mod flood;
mod target;
mod watchers;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use figures::Figure;
use target::Target;

/// Drives Kubernetes API servers and prints what they do.
#[derive(Parser, Debug, Clone)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Settings {
    #[command(subcommand)]
    other: Option<Other>,
    /// Kubeconfig of the server to measure.
    #[arg(long, required = true)]
    kubeconfig: Option<PathBuf>,
    /// Process of that server, for its memory, and to stop it while the other one is measured.
    #[arg(long)]
    pid: Option<i32>,
    /// Kubeconfig of a server to compare with.
    #[arg(long)]
    against: Option<PathBuf>,
    /// Process of the server to compare with.
    #[arg(long)]
    against_pid: Option<i32>,
    /// How many pods are stored.
    #[arg(long, default_value_t = 5000)]
    pods: usize,
    /// How many clients write and read single objects, each on a connection of its own.
    #[arg(long, default_value_t = 32)]
    clients: usize,
    /// How many clients watch.
    #[arg(long, default_value_t = 500)]
    watchers: usize,
    /// How many changes a second the watchers see.
    #[arg(long, default_value_t = 50)]
    events: u32,
    /// How many connections one user floods the server with.
    #[arg(long, default_value_t = 600)]
    flooders: usize,
    /// How many seconds each case goes on that has no other end.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Only cases whose name contains this; the pods are created all the same.
    #[arg(long, default_value = "")]
    only: String,
}

#[derive(Subcommand, Debug, Clone)]
enum Other {
    /// What authentication, authorization, admission and flow control add to a create of ours
    Costs(costs::CostsArgs),
}

#[tokio::main]
async fn main() -> Result<()> {
    client::connect::install_crypto_provider();
    let settings = Settings::parse();
    if let Some(Other::Costs(args)) = &settings.other {
        return costs::run(args).await;
    }
    let kubeconfig = settings.kubeconfig.as_deref().context("--kubeconfig is missing")?;
    let mut targets = vec![Target::connect(kubeconfig, settings.pid).await?];
    if let Some(other) = &settings.against {
        targets.push(Target::connect(other, settings.against_pid).await?);
    }
    for target in &targets {
        target.prepare().await?;
    }
    let outcome = run(&settings, &targets).await;
    for target in &targets {
        target.clean().await?;
    }
    outcome
}

async fn run(settings: &Settings, targets: &[Target]) -> Result<()> {
    println!("{}", figures::heading(targets.len()));
    for case in cases::CASES {
        if !case.always && !case.name.contains(&settings.only) {
            continue;
        }
        let mut results: Vec<Figure> = vec![];
        for (at, target) in targets.iter().enumerate() {
            let others = targets.iter().enumerate().filter(|(other, _)| *other != at);
            let _paused: Vec<_> = others.filter_map(|(_, other)| other.paused()).collect();
            results.push((case.run)(target.clone(), settings.clone()).await?);
        }
        println!("{}", figures::line(case.name, &results));
    }
    Ok(())
}
