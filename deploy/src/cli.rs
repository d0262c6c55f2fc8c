//! The command line of `coxswain`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use tokio_util::sync::CancellationToken;

use crate::images::{self, Workshop};

/// Kubernetes, whole or in parts, from one binary.
#[derive(Debug, Parser)]
#[command(name = "coxswain", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build container images from their descriptions, without a registry and without Docker.
    Images(ImagesArgs),
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

async fn run(command: Command, _token: CancellationToken) -> Result<()> {
    match command {
        Command::Images(args) => build_images(&args),
    }
}

/// Shows one step of a longer piece of work.
fn progress(step: &str) {
    eprintln!("  {step}");
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
