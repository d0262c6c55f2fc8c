//! What a simulation is told.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use client::component::BadConfiguration;
use k8s_openapi::api::core::v1::Taint;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kubelet::duration::GoDuration;
use kubelet::quantity;

use crate::node::{MOST_NODES, Names, Shape};
use crate::pod::Durations;

/// The flags of a simulation.
#[derive(Clone, Debug, clap::Args)]
pub struct Flags {
    /// How many nodes there are.
    #[arg(long)]
    pub count: u32,
    /// Nodes are named by this and a number. Simulations that run at the same time need different ones.
    #[arg(long, default_value = "simulated")]
    pub name_prefix: String,
    /// CPUs of each node.
    #[arg(long, default_value_t = 32)]
    pub cpu: u32,
    /// Memory of each node.
    #[arg(long, default_value = "256Gi")]
    pub memory: String,
    /// Disk of each node.
    #[arg(long, default_value = "1Ti")]
    pub ephemeral_storage: String,
    /// How many pods each node takes.
    #[arg(long, default_value_t = 110)]
    pub max_pods: u16,
    /// Another resource of each node, for example example.com/gpu=8; may be given more than once.
    #[arg(long = "resource", value_name = "NAME=AMOUNT")]
    pub resources: Vec<String>,
    /// Labels of each node, beside the usual ones: key=value, separated by ','.
    #[arg(long, value_delimiter = ',', value_name = "KEY=VALUE")]
    pub node_labels: Vec<String>,
    /// Over how many zones the nodes are spread, named zone-0 and so on; 0 for none.
    #[arg(long, default_value_t = 3)]
    pub zones: u32,
    /// Taints of each node: key=value:effect, separated by ','.
    #[arg(long, value_delimiter = ',', value_name = "TAINT")]
    pub register_with_taints: Vec<String>,
    /// How long a pod takes from being bound to running and ready. If it takes any time, its containers are reported
    /// as being created meanwhile.
    #[arg(long, default_value = "0s")]
    pub start_duration: GoDuration,
    /// How long containers run that are not to run forever (restartPolicy Never and OnFailure). The annotation
    /// coxswain.io/run-duration of a pod says it for that pod, whatever its policy; coxswain.io/exit-code says what its
    /// containers exit with, else 0.
    #[arg(long, default_value = "1s")]
    pub run_duration: GoDuration,
    /// How long a pod that is deleted takes to stop, at most its grace period.
    #[arg(long, default_value = "0s")]
    pub stop_duration: GoDuration,
    /// How many requests are under way at most for each of: nodes, leases, pods.
    #[arg(long, default_value_t = 16)]
    pub concurrency: usize,
    /// Leave the nodes in the API at the end.
    #[arg(long)]
    pub keep: bool,
}

/// A simulation, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// What the nodes are called.
    pub names: Names,
    /// What they are.
    pub shape: Shape,
    /// How long steps of a pod's life take.
    pub durations: Durations,
    /// Requests under way at most, for each of nodes, leases and pods.
    pub concurrency: usize,
    /// Whether the nodes stay in the API at the end.
    pub keep: bool,
}

impl Flags {
    /// Checks everything.
    ///
    /// # Errors
    /// A [`BadConfiguration`] that says which flag is wrong.
    pub fn into_config(self) -> Result<Config> {
        self.checked().map_err(|error| BadConfiguration(format!("{error:#}")).into())
    }

    fn checked(self) -> Result<Config> {
        ensure!((1..=MOST_NODES).contains(&self.count), "--count: from 1 to {MOST_NODES} nodes");
        ensure!(self.concurrency > 0, "--concurrency: at least 1");
        ensure!(is_name(&self.name_prefix), "--name-prefix: {:?} begins no name of a node", self.name_prefix);
        let amounts = self.resources.iter().map(|text| {
            let (name, amount) = pair(text).with_context(|| format!("--resource: {text:?}"))?;
            Ok((name, Quantity(amount_of("--resource", &amount)?.0)))
        });
        let labels = self
            .node_labels
            .iter()
            .map(|text| pair(text).with_context(|| format!("--node-labels: {text:?} is not key=value")));
        let taints = self.register_with_taints.iter().map(|text| kubelet::flags::taint(text));
        Ok(Config {
            shape: Shape {
                cpu: self.cpu,
                memory: quantity::value(&amount_of("--memory", &self.memory)?),
                ephemeral_storage: quantity::value(&amount_of(
                    "--ephemeral-storage",
                    &self.ephemeral_storage,
                )?),
                max_pods: self.max_pods,
                resources: amounts.collect::<Result<_>>()?,
                labels: labels.collect::<Result<BTreeMap<_, _>>>()?,
                zones: self.zones,
                taints: taints.collect::<Result<Vec<Taint>>>().context("--register-with-taints")?,
            },
            names: Names { prefix: self.name_prefix, count: self.count },
            durations: Durations {
                start: self.start_duration.0,
                run: self.run_duration.0,
                stop: self.stop_duration.0,
            },
            concurrency: self.concurrency,
            keep: self.keep,
        })
    }
}

fn pair(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once('=')?;
    (!name.is_empty()).then(|| (name.to_owned(), value.to_owned()))
}

fn amount_of(flag: &str, text: &str) -> Result<Quantity> {
    quantity::parse(text).with_context(|| format!("{flag}: {text:?} is no amount"))?;
    Ok(Quantity(text.to_owned()))
}

/// Whether a name of a node, which is also the value of a label, may begin with this.
fn is_name(text: &str) -> bool {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    text.len() <= 50
        && text.starts_with(|c| good(c) && c != '-')
        && !text.ends_with('-')
        && text.chars().all(good)
}

impl Default for Durations {
    fn default() -> Self {
        Self { start: Duration::ZERO, run: Duration::from_secs(1), stop: Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: Flags,
    }

    fn config(words: &str) -> Result<Config> {
        let line = Line::try_parse_from(std::iter::once("x").chain(words.split_whitespace()))?;
        line.flags.into_config()
    }

    #[test]
    fn flags_say_what_nodes_are() {
        let config = config(
            "--count=3 --cpu 8 --memory 16Gi --resource example.com/gpu=4 --node-labels a=b,c= \
             --register-with-taints=k=v:NoSchedule,x:NoExecute --run-duration 1m --stop-duration 300ms --keep",
        )
        .expect("good flags");
        assert_eq!((config.shape.cpu, config.shape.memory), (8, 16 << 30));
        assert_eq!(config.shape.resources["example.com/gpu"].0, "4");
        assert_eq!(config.shape.labels["c"], "");
        assert_eq!(config.shape.taints.len(), 2);
        assert_eq!((config.durations.run, config.durations.start), (Duration::from_secs(60), Duration::ZERO));
        assert!(config.keep);
    }

    #[test]
    fn what_makes_no_nodes_is_refused_and_named() {
        for (words, named) in [
            ("--count=0", "--count"),
            ("--count=100000", "--count"),
            ("--count=1 --memory=much", "--memory"),
            ("--count=1 --resource=gpu", "--resource"),
            ("--count=1 --node-labels=a", "--node-labels"),
            ("--count=1 --register-with-taints=a=b:Never", "--register-with-taints"),
            ("--count=1 --name-prefix=Upper", "--name-prefix"),
            ("--count=1 --name-prefix=-x", "--name-prefix"),
            ("--count=1 --run-duration=1", "--run-duration"),
            ("--count=1 --concurrency=0", "--concurrency"),
        ] {
            let error = config(words).expect_err(words);
            assert!(format!("{error:#}").contains(named), "{words}: {error:#}");
        }
    }
}
