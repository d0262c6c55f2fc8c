//! The command line.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::commands;
use crate::failure::{Failure, Result};
use crate::server::Connection;

/// kubectl controls the Kubernetes cluster manager.
#[derive(Debug, Parser)]
#[command(name = "kubectl", disable_version_flag = true, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Display one or many resources.
    Get(commands::get::Args),
    /// Create a resource from a file or from stdin.
    Create(commands::create::Args),
    /// Apply a configuration to a resource by file name or stdin.
    Apply(commands::apply::Args),
    /// Replace a resource by file name or stdin.
    Replace(commands::replace::Args),
    /// Delete resources by file names, stdin, resources and names, or by resources and label selector.
    Delete(commands::delete::Args),
    /// Show details of a specific resource or group of resources.
    Describe(commands::describe::Args),
    /// Print the logs for a container in a pod.
    Logs(commands::logs::Args),
    /// Execute a command in a container.
    Exec(commands::exec::ExecArgs),
    /// Attach to a running container.
    Attach(commands::exec::AttachArgs),
    /// Set a new size for a deployment, replica set, or replication controller.
    Scale(commands::scale::Args),
    /// Manage the rollout of a resource.
    Rollout(commands::rollout::Args),
    /// Take a replication controller, service, deployment or pod and expose it as a new Kubernetes service.
    Expose(commands::expose::Args),
    /// Run a particular image on the cluster.
    Run(commands::run::Args),
    /// Forward one or more local ports to a pod.
    #[command(name = "port-forward")]
    PortForward(commands::port_forward::Args),
    /// Update fields of a resource.
    Patch(commands::patch::Args),
    /// Update the labels on a resource.
    Label(commands::metadata::LabelArgs),
    /// Update the annotations on a resource.
    Annotate(commands::metadata::AnnotateArgs),
    /// Set specific features on objects.
    Set(commands::set::Args),
    /// Wait for a specific condition on one or many resources.
    Wait(commands::wait::Args),
    /// Mark node as unschedulable.
    Cordon(commands::cordon::Args),
    /// Mark node as schedulable.
    Uncordon(commands::cordon::Args),
    /// Drain node in preparation for maintenance.
    Drain(commands::drain::Args),
    /// Print the client and server version information.
    Version(commands::version::Args),
    /// Print the supported API resources on the server.
    #[command(name = "api-resources")]
    ApiResources(commands::discovery::ResourcesArgs),
    /// Print the supported API versions on the server, in the form of "group/version".
    #[command(name = "api-versions")]
    ApiVersions,
    /// Display cluster information.
    #[command(name = "cluster-info")]
    ClusterInfo,
    /// Modify kubeconfig files.
    Config(commands::config::Args),
    /// Inspect authorization.
    Auth(commands::auth::Args),
}

/// Runs the command line; exits 0, 1 for a failure, 2 for a wrong command line, or what a command in a container
/// returned.
#[must_use]
pub fn main() -> ExitCode {
    client::connect::install_crypto_provider();
    // A reader that goes away (`kubectl get ... | head`) is no error.
    reset_pipe_signal();
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    let outcome = runtime.block_on(run(cli));
    // Reads of standard input that nobody waits for any more must not hold us up.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&failure),
    }
}

fn fail(failure: &Failure) -> ExitCode {
    eprintln!("{failure}");
    ExitCode::from(failure.exit_code())
}

/// Rust programs ignore SIGPIPE and panic on the write instead; command-line tools should just end.
fn reset_pipe_signal() {
    std::panic::set_hook(Box::new(|panic| {
        let text = panic.to_string();
        if text.contains("Broken pipe") {
            std::process::exit(141);
        }
        eprintln!("{text}");
    }));
}

async fn run(cli: Cli) -> Result {
    let connection = &cli.connection;
    match cli.command {
        Command::Get(args) => commands::get::run(connection, args).await,
        Command::Create(args) => commands::create::run(connection, args).await,
        Command::Apply(args) => commands::apply::run(connection, args).await,
        Command::Replace(args) => commands::replace::run(connection, args).await,
        Command::Delete(args) => commands::delete::run(connection, args).await,
        Command::Describe(args) => commands::describe::run(connection, args).await,
        Command::Logs(args) => commands::logs::run(connection, args).await,
        Command::Exec(args) => commands::exec::exec(connection, args).await,
        Command::Attach(args) => commands::exec::attach(connection, args).await,
        Command::Scale(args) => commands::scale::run(connection, args).await,
        Command::Rollout(args) => commands::rollout::run(connection, args).await,
        Command::Expose(args) => commands::expose::run(connection, args).await,
        Command::Run(args) => commands::run::run(connection, args).await,
        Command::PortForward(args) => commands::port_forward::run(connection, args).await,
        Command::Patch(args) => commands::patch::run(connection, args).await,
        Command::Label(args) => commands::metadata::label(connection, args).await,
        Command::Annotate(args) => commands::metadata::annotate(connection, args).await,
        Command::Set(args) => commands::set::run(connection, args).await,
        Command::Wait(args) => commands::wait::run(connection, args).await,
        Command::Cordon(args) => commands::cordon::run(connection, args, true).await,
        Command::Uncordon(args) => commands::cordon::run(connection, args, false).await,
        Command::Drain(args) => commands::drain::run(connection, args).await,
        Command::Version(args) => commands::version::run(connection, args).await,
        Command::ApiResources(args) => commands::discovery::resources(connection, args).await,
        Command::ApiVersions => commands::discovery::versions(connection).await,
        Command::ClusterInfo => commands::discovery::cluster_info(connection).await,
        Command::Config(args) => commands::config::run(connection, args),
        Command::Auth(args) => commands::auth::run(connection, args).await,
    }
}
