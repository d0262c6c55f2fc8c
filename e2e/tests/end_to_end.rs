//! Two clusters, one on the embedded store and one on etcd, and what users do with them.
//!
//! Each scenario works in a namespace of its own and runs against both clusters: with our kubectl on the embedded
//! store and with Debian's on etcd, the samples with both on both. With `COXSWAIN_E2E=embedded` or
//! `COXSWAIN_E2E=etcd` only one of the clusters is started.

mod scenarios;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use e2e::cluster::{Cluster, Form, binaries};
use e2e::kubectl::{Kubectl, debian};
use e2e::network::has_ipv6;
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::runtime::Runtime;
use tokio::sync::RwLock;

use scenarios::{Env, SCENARIOS, Scenario};

fn main() -> ExitCode {
    client::connect::install_crypto_provider();
    let arguments = Arguments::from_args();
    if arguments.list {
        return libtest_mimic::run(&arguments, trials_of(&[])).exit_code();
    }
    let runtime = Runtime::new().expect("a runtime");
    let only = std::env::var("COXSWAIN_E2E").unwrap_or_default();
    let mut outcomes = vec![];
    let own = binaries().expect("a folder").join("kubectl");
    let cache = e2e::cluster::repository().join("target/debian-kubectl");
    let clients = [("ours", own), ("debian", debian(&cache).expect("Debian's kubectl"))];
    // One with both address families, where the machine has them, and one with IPv4 alone.
    let forms = [(Form::OneProcess, "embedded", 1, has_ipv6()), (Form::Separate, "etcd", 2, false)];
    for (form, name, number, both) in
        forms.into_iter().filter(|(_, name, ..)| only.is_empty() || only == *name)
    {
        eprintln!("starting the cluster on {name}");
        let cluster = match runtime.block_on(Cluster::start(form, number, both)) {
            Ok(cluster) => cluster,
            Err(error) => {
                eprintln!("the cluster on {name} did not start: {error:#}");
                return ExitCode::FAILURE;
            }
        };
        eprintln!("the API server on {name} was ready after {:?}", cluster.ready_after);
        let envs = environments(cluster, &clients, form, &runtime);
        // Two at a time: these machines are small.
        let arguments = Arguments { test_threads: arguments.test_threads.or(Some(2)), ..arguments.clone() };
        let conclusion = libtest_mimic::run(&arguments, trials_of(&envs));
        let cluster = envs.first().map(|env| env.cluster.clone()).expect("a client");
        drop(envs);
        let cluster = Arc::into_inner(cluster).expect("all trials have ended").into_inner();
        if conclusion.has_failed() {
            eprintln!("{}", cluster.log_tails());
        }
        if let Err(error) = runtime.block_on(cluster.stop()) {
            eprintln!("the cluster on {name} could not be removed: {error:#}");
            return ExitCode::FAILURE;
        }
        outcomes.push(conclusion);
    }
    if outcomes.iter().any(libtest_mimic::Conclusion::has_failed) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// One for each client; the first is the one that shows what is shown once.
fn environments(
    cluster: Cluster,
    clients: &[(&'static str, PathBuf); 2],
    form: Form,
    runtime: &Runtime,
) -> Vec<Arc<Env>> {
    let kubeconfig = cluster.layout.kubeconfig("admin");
    let (address, addresses, enter) = (cluster.address(), cluster.settings.node_ip.clone(), cluster.enter());
    let cluster = Arc::new(RwLock::new(cluster));
    let env = |(name, program): &(&'static str, PathBuf)| {
        Arc::new(Env {
            client: name,
            kubectl: Kubectl::new(program, &kubeconfig),
            address,
            addresses: addresses.clone(),
            enter: enter.clone(),
            cluster: cluster.clone(),
            runtime: runtime.handle().clone(),
        })
    };
    let mut envs: Vec<_> = clients.iter().map(env).collect();
    if form == Form::Separate {
        envs.reverse();
    }
    envs
}

/// The trials of one cluster; of none, just their names.
fn trials_of(envs: &[Arc<Env>]) -> Vec<Trial> {
    if envs.is_empty() {
        let never = || Err(Failed::from("only listed"));
        return SCENARIOS.iter().map(|scenario| Trial::test(scenario.name, never)).collect();
    }
    let of = |scenario: &'static Scenario| {
        let clients = if scenario.by_every_client { envs.len() } else { 1 };
        envs.iter().take(clients).map(move |env| trial(scenario, env.clone()))
    };
    let form = envs[0].runtime.block_on(envs[0].cluster.read()).form;
    let both_families = envs[0].addresses.len() > 1;
    let possible = |scenario: &&Scenario| {
        let can = match form {
            Form::OneProcess => !scenario.separate,
            Form::Separate => !scenario.joins,
        };
        can && (both_families || !scenario.both_families)
    };
    SCENARIOS.iter().filter(possible).flat_map(of).collect()
}

fn trial(scenario: &'static Scenario, env: Arc<Env>) -> Trial {
    Trial::test(format!("{}::{}", env.client, scenario.name), move || {
        let run = async {
            if scenario.hurts {
                return (scenario.run)(env.clone()).await;
            }
            let _shared = env.cluster.read().await;
            (scenario.run)(env.clone()).await
        };
        env.runtime.block_on(run).map_err(|error| Failed::from(format!("{error:#}")))
    })
}
