//! `kubectl replace`

use super::{connect, object_path, report};
use crate::failure::{Failure, Result};
use crate::manifest::Files;
use crate::print::Output;
use crate::server::Connection;

/// Flags of `replace`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    files: Files,
    /// Output format.
    #[arg(long, short = 'o')]
    output: Option<String>,
}

/// Runs it.
pub async fn run(connection: &Connection, args: Args) -> Result {
    if args.files.filenames.is_empty() {
        return Err(Failure::local("must specify one of -f and -k"));
    }
    let objects = args.files.read()?;
    let output = Output::parse(args.output.as_deref(), false)?;
    let (server, resources) = connect(connection).await?;
    let mut failures = vec![];
    for object in objects {
        let outcome = async {
            let resource = resources.of(&object)?;
            let path = object_path(&server, resource, &object)?;
            let replaced = server.put(&path, &object).await?;
            let name = format!("{}/{}", resource.prefix(), super::text(&replaced, "/metadata/name"));
            report(&output, &name, "replaced", &replaced)
        };
        if let Err(failure) = outcome.await {
            failures.push(failure);
        }
    }
    super::all_or_failure(failures)
}
