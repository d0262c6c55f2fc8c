//! The command line of `coxswain`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use tokio_util::sync::CancellationToken;

use crate::components::Component;
use crate::images::{self, Workshop};
use crate::layout::Layout;
use crate::settings::Settings;
use crate::{prepare, server, up};

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
    /// Stop the cluster and remove everything it made.
    Down(DownArgs),
    /// Make keys, kubeconfigs and configuration, and show with which flags each component is started.
    Prepare(UpArgs),
    /// Build container images from their descriptions, without a registry and without Docker.
    Images(ImagesArgs),
}

/// Where the cluster keeps its files.
#[derive(Clone, Debug, Args)]
struct Folders {
    /// Folder for what survives a reboot.
    #[arg(long, default_value = "/var/lib/coxswain")]
    data_dir: PathBuf,
    /// Folder for sockets and process ids.
    #[arg(long, default_value = "/run/coxswain")]
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
    /// Folder with the descriptions of images to build and import; none if empty.
    #[arg(long, default_value = "")]
    images: PathBuf,
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
        Command::Down(args) => up::down(&args.folders.layout(), args.keep_data, &progress).await,
        Command::Prepare(args) => show_flags(&args),
        Command::Images(args) => build_images(&args),
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
    if !args.images.as_os_str().is_empty() {
        let workshop = Workshop { cache: layout.data.join("cache"), binaries: own_folder() };
        images::build_all(&args.images, &layout.images(), &workshop, &progress)?;
    }
    up::up(&layout, &args.settings, &progress).await?;
    println!("The cluster is ready. Next:");
    println!("  kubectl get nodes");
    println!("  kubectl apply -f deploy/samples/deploy.yaml");
    println!("  kubectl get pods -o wide");
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

/// The folder this executable is in, where the other binaries are too.
fn own_folder() -> PathBuf {
    std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned)).unwrap_or_default()
}
