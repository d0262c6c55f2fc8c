//! Two clusters, one on the embedded store and one on etcd, and what users do with them.
//!
//! Each scenario works in a namespace of its own and runs against both clusters. With
//! `COXSWAIN_E2E=embedded` or `COXSWAIN_E2E=etcd` only one of them is started.

mod scenarios;

use std::process::ExitCode;
use std::sync::Arc;

use e2e::cluster::{Cluster, Form, binaries};
use e2e::kubectl::{Kubectl, debian};
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::runtime::Runtime;
use tokio::sync::RwLock;

use scenarios::{Env, SCENARIOS};

fn main() -> ExitCode {
    client::connect::install_crypto_provider();
    let arguments = Arguments::from_args();
    if arguments.list {
        return libtest_mimic::run(&arguments, trials_of(None)).exit_code();
    }
    let runtime = Runtime::new().expect("a runtime");
    let only = std::env::var("COXSWAIN_E2E").unwrap_or_default();
    let mut outcomes = vec![];
    let forms = [(Form::OneProcess, "embedded", 1), (Form::Separate, "etcd", 2)];
    for (form, name, number) in forms.into_iter().filter(|(_, name, _)| only.is_empty() || only == *name) {
        eprintln!("starting the cluster on {name}");
        let cluster = match runtime.block_on(Cluster::start(form, number)) {
            Ok(cluster) => cluster,
            Err(error) => {
                eprintln!("the cluster on {name} did not start: {error:#}");
                return ExitCode::FAILURE;
            }
        };
        eprintln!("the API server on {name} was ready after {:?}", cluster.ready_after);
        let kubeconfig = cluster.layout.kubeconfig("admin");
        let own = binaries().expect("a folder").join("kubectl");
        let cache = e2e::cluster::repository().join("target/debian-kubectl");
        let program = if form == Form::OneProcess { own } else { debian(&cache).expect("Debian's kubectl") };
        let env = Arc::new(Env {
            name,
            kubectl: Kubectl::new(&program, &kubeconfig),
            address: cluster.address(),
            enter: cluster.enter(),
            cluster: RwLock::new(cluster),
            runtime: runtime.handle().clone(),
        });
        // Two at a time: these machines are small.
        let arguments = Arguments { test_threads: arguments.test_threads.or(Some(2)), ..arguments.clone() };
        let conclusion = libtest_mimic::run(&arguments, trials_of(Some(&env)));
        let env = Arc::into_inner(env).expect("all trials have ended");
        let cluster = env.cluster.into_inner();
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

fn trials_of(env: Option<&Arc<Env>>) -> Vec<Trial> {
    let trial = |scenario: &'static scenarios::Scenario| {
        let env = env.cloned();
        let name =
            env.as_ref().map_or(scenario.name.to_owned(), |env| format!("{}::{}", env.name, scenario.name));
        Trial::test(name, move || {
            let env = env.ok_or_else(|| Failed::from("only listed"))?;
            let run = async {
                if scenario.hurts {
                    return (scenario.run)(env.clone()).await;
                }
                let _shared = env.cluster.read().await;
                (scenario.run)(env.clone()).await
            };
            env.runtime.block_on(run).map_err(|error| Failed::from(format!("{error:#}")))
        })
    };
    SCENARIOS.iter().map(trial).collect()
}
