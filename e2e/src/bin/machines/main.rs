//! Three virtual machines of Debian's packages, a cluster on them, and what happens to machines: cables that are pulled
//! out, power that fails, reboots, drains. Somebody asks the services all the while, and what they saw is printed.
//!
//! [`image`] makes the disks, [`machine`] is one machine, [`cluster`] is all of them, [`visitor`] asks. The steps are in
//! [`samples`] and [`disturbances`]; each builds on those before it. Where the processor cannot run machines they are
//! emulated, so everything takes minutes, and all waiting is for conditions.

mod cluster;
mod disturbances;
mod image;
mod machine;
mod samples;
mod visitor;

use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::Parser;

use cluster::{Booted, Cluster};

/// Boots three machines, makes them a cluster, and disturbs it.
#[derive(Debug, Parser)]
struct Flags {
    /// Folder for disks and packages.
    #[arg(long, default_value = "target/machines")]
    folder: PathBuf,
    /// The program under test; that beside this one if not given.
    #[arg(long)]
    program: Option<PathBuf>,
    /// Leave the machines running at the end. Their kubeconfig and the key to them are in the folder.
    #[arg(long)]
    keep: bool,
    /// Use the machines and the cluster that an earlier run has kept, and keep them.
    #[arg(long)]
    again: bool,
    /// Only the steps with these words in their names.
    steps: Vec<String>,
}

type Step = for<'a> fn(&'a Cluster) -> Pin<Box<dyn Future<Output = Result<String>> + 'a>>;

macro_rules! steps {
    ($($module:ident::$name:ident),* $(,)?) => {
        [$((stringify!($name), (|cluster| Box::pin($module::$name(cluster))) as Step)),*]
    };
}

const STEPS: [(&str, Step); 11] = steps![
    samples::run,
    samples::answer_everywhere,
    samples::pods_are_one_network,
    samples::queue_moves,
    samples::limits_are_in_the_groups,
    disturbances::cable,
    disturbances::reboot,
    disturbances::drain,
    disturbances::power,
    disturbances::power_of_the_control_plane,
    disturbances::leave,
];

#[tokio::main]
async fn main() -> ExitCode {
    client::connect::install_crypto_provider();
    let flags = Flags::parse();
    // Dropping what runs switches the machines off.
    let outcome = tokio::select! {
        outcome = run(&flags) => outcome,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// True if all went well.
async fn run(flags: &Flags) -> Result<bool> {
    let began = Instant::now();
    let progress = |step: &str| eprintln!("[{:4.0} s] {step}", began.elapsed().as_secs_f64());
    let folder = std::path::absolute(&flags.folder)?;
    let cluster = if flags.again {
        Cluster::existing(&folder).await?
    } else {
        Booted::boot(&folder, flags.program.as_deref(), &progress).await?.bring_up(&progress).await?
    };
    progress(&format!("the cluster of {} machines is up", cluster.machines.len()));
    let wanted = |name: &str| flags.steps.is_empty() || flags.steps.iter().any(|words| name.contains(words));
    let (mut passed, mut failed) = (0, 0);
    for (name, step) in STEPS.into_iter().filter(|(name, _)| wanted(name)) {
        let started = Instant::now();
        match step(&cluster).await {
            Ok(said) => println!("ok   {name} ({:.0} s): {said}", started.elapsed().as_secs_f64()),
            Err(error) => {
                println!("FAILED {name} ({:.0} s): {error:#}", started.elapsed().as_secs_f64());
                println!("{}", cluster.last_words().await);
                failed += 1;
                break;
            }
        }
        passed += 1;
    }
    println!("machines: {passed} passed, {failed} failed");
    if flags.keep || flags.again {
        progress(&format!(
            "the machines go on: ssh -i {0}/key root@…, kubectl --kubeconfig {0}/kubeconfig",
            folder.display()
        ));
        cluster.keep();
    }
    Ok(failed == 0)
}
