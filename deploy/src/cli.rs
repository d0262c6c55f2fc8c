//! The command line of `coxswain`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use client::ClientFlags;
use tokio_util::sync::CancellationToken;

use crate::components::Component;
use crate::images::{self, Workshop};
use crate::join::{self, JoinArgs};
use crate::layout::Layout;
use crate::settings::Settings;
use crate::{prepare, server, token, up};

/// Kubernetes, whole or in parts, from one binary.
#[derive(Debug, Parser)]
#[command(name = "coxswain", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run components in this process until it is told to stop.
    Server(ServerArgs),
    /// Start a cluster in the background and wait until it is ready.
    Up(UpArgs),
    /// Make this machine a node of another machine's cluster, and wait until it is ready.
    Join(Join),
    /// Stop the cluster, or this machine's node of it, and remove everything it made on this machine.
    #[command(visible_alias = "leave")]
    Down(DownArgs),
    /// Make, list and delete the tokens with which machines join.
    Token(TokenArgs),
    /// Make keys, kubeconfigs and configuration, and show with which flags each component is started.
    Prepare(UpArgs),
    /// Build container images from their descriptions, without a registry and without Docker.
    Images(ImagesArgs),
    /// Add nodes to a cluster that only exist in its API, until told to stop: to see what it does when it is large.
    ///
    /// The nodes are ready and take pods; pods run and become ready at once, those of Jobs succeed after a while, and
    /// those that are deleted go. Nothing is started anywhere, and there is nothing behind a pod's address. Any
    /// cluster will do that a kubeconfig leads to; without one it is the cluster of this machine.
    SimulateNodes(SimulateNodesArgs),
}

/// Where the cluster keeps its files.
#[derive(Clone, Debug, Args)]
struct Folders {
    /// Folder for what survives a reboot.
    #[arg(long, global = true, default_value = "/var/lib/coxswain")]
    data_dir: PathBuf,
    /// Folder for sockets and process ids.
    #[arg(long, global = true, default_value = "/run/coxswain")]
    run_dir: PathBuf,
}

impl Folders {
    fn layout(&self) -> Layout {
        Layout::new(&self.data_dir, &self.run_dir)
    }
}

/// What `coxswain server` is told.
#[derive(Debug, Args)]
struct ServerArgs {
    #[command(flatten)]
    folders: Folders,
    #[command(flatten)]
    settings: Settings,
    /// Only these components; all if not given.
    #[arg(long, value_delimiter = ',')]
    components: Vec<Component>,
}

/// What `coxswain up` is told.
#[derive(Debug, Args)]
struct UpArgs {
    #[command(flatten)]
    folders: Folders,
    #[command(flatten)]
    settings: Settings,
    /// Folder with the descriptions of images to build and import.
    #[arg(long)]
    images: Option<PathBuf>,
}

/// What `coxswain join` is told.
#[derive(Debug, Args)]
struct Join {
    #[command(flatten)]
    folders: Folders,
    #[command(flatten)]
    join: JoinArgs,
    /// Folder with the descriptions of images to build and import.
    #[arg(long)]
    images: Option<PathBuf>,
}

/// What `coxswain token` is told.
#[derive(Debug, Args)]
struct TokenArgs {
    #[command(flatten)]
    folders: Folders,
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token and print it.
    Create(token::CreateArgs),
    /// Show all tokens.
    List,
    /// Delete tokens.
    Delete {
        /// The tokens, whole or up to the point.
        #[arg(required = true)]
        tokens: Vec<String>,
    },
}

/// What `coxswain down` is told.
#[derive(Debug, Args)]
struct DownArgs {
    #[command(flatten)]
    folders: Folders,
    /// Keep keys, state and images, so that the next `up` goes on where this cluster stopped.
    #[arg(long)]
    keep_data: bool,
}

/// What `coxswain images` is told.
#[derive(Debug, Args)]
struct ImagesArgs {
    /// Folder with one subfolder for each image, with its image.yaml.
    #[arg(long, default_value = "deploy/images")]
    from: PathBuf,
    /// Folder for the OCI archives.
    #[arg(long)]
    to: PathBuf,
    /// Folder for downloaded packages and compiled programs.
    #[arg(long)]
    cache: PathBuf,
}

/// What `coxswain simulate-nodes` is told.
#[derive(Debug, Args)]
struct SimulateNodesArgs {
    #[command(flatten)]
    folders: Folders,
    #[command(flatten)]
    client: ClientFlags,
    #[command(flatten)]
    simulation: simulation::Flags,
    /// Log verbosity.
    #[arg(short = 'v', long = "v", default_value_t = 0)]
    verbosity: u8,
}

/// Runs the command line.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    client::component::main("coxswain", |token| run(cli.command, token))
}

async fn run(command: Command, token: CancellationToken) -> Result<()> {
    match command {
        Command::Server(args) => serve(args, token).await,
        Command::Up(args) => start(args).await,
        Command::Join(args) => join_cluster(args).await,
        Command::Token(args) => tokens(args).await,
        Command::Down(args) => up::down(&args.folders.layout(), args.keep_data, &progress).await,
        Command::Prepare(args) => show_flags(&args),
        Command::Images(args) => build_images(&args),
        Command::SimulateNodes(args) => simulate_nodes(args, token).await,
    }
}

/// Shows one step of a longer piece of work.
fn progress(step: &str) {
    eprintln!("  {step}");
}

async fn serve(args: ServerArgs, token: CancellationToken) -> Result<()> {
    client::observability::init(args.settings.verbosity);
    let layout = args.folders.layout();
    std::fs::create_dir_all(&layout.run)?;
    std::fs::write(layout.pid("coxswain"), std::process::id().to_string())?;
    let components = if args.components.is_empty() { Component::ALL.to_vec() } else { args.components };
    server::run(layout, args.settings, components, token).await
}

async fn start(args: UpArgs) -> Result<()> {
    let layout = args.folders.layout();
    prepare_images(&layout, args.images.as_deref())?;
    up::up(&layout, &args.settings, &progress).await?;
    println!("The cluster is ready. Next:");
    println!("  kubectl get nodes");
    println!("  kubectl apply -f deploy/samples/deploy.yaml");
    println!("  kubectl get pods -o wide");
    println!("  coxswain token create --print-join-command   # and run what it prints on another machine");
    Ok(())
}

fn prepare_images(layout: &Layout, described: Option<&Path>) -> Result<()> {
    if let Some(described) = described {
        let workshop = Workshop { cache: layout.data.join("cache"), binaries: own_folder() };
        images::build_all(described, &layout.images(), &workshop, &progress)?;
    }
    Ok(())
}

async fn join_cluster(args: Join) -> Result<()> {
    let layout = args.folders.layout();
    prepare_images(&layout, args.images.as_deref())?;
    join::join(&layout, &args.join, &progress).await?;
    println!("This machine is the node {} of the cluster at {}.", args.join.node_name, args.join.server);
    Ok(())
}

async fn tokens(args: TokenArgs) -> Result<()> {
    let layout = args.folders.layout();
    let client = server::admin(&layout).await?;
    match args.command {
        TokenCommand::Create(create) => {
            let token = token::create(&client, &create).await?;
            if create.print_join_command {
                println!("{}", join::command(&layout, &Settings::read(&layout)?, &token)?);
            } else {
                println!("{token}");
            }
        }
        TokenCommand::List => print!("{}", token::list(&client).await?),
        TokenCommand::Delete { tokens } => token::delete(&client, &tokens).await?,
    }
    Ok(())
}

fn show_flags(args: &UpArgs) -> Result<()> {
    let layout = args.folders.layout();
    prepare::prepare(&layout, &args.settings)?;
    for component in Component::ALL {
        println!("{} {}", component.name(), component.flags(&layout, &args.settings)?.join(" "));
    }
    Ok(())
}

fn build_images(args: &ImagesArgs) -> Result<()> {
    let workshop = Workshop { cache: args.cache.clone(), binaries: own_folder() };
    for archive in images::build_all(&args.from, &args.to, &workshop, &progress)? {
        println!("{}", archive.display());
    }
    Ok(())
}

async fn simulate_nodes(args: SimulateNodesArgs, token: CancellationToken) -> Result<()> {
    client::observability::init(args.verbosity);
    let config = args.simulation.into_config()?;
    let client = if args.client.kubeconfig.is_none() && args.client.master.is_none() {
        server::admin(&args.folders.layout()).await?
    } else {
        client::connect(&args.client.options("coxswain")).await?
    };
    simulation::run(config, client, token).await
}

/// The folder this executable is in, where the other binaries are too.
fn own_folder() -> PathBuf {
    std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned)).unwrap_or_default()
}
