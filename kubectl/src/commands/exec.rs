//! `kubectl exec` and `kubectl attach`, over WebSocket.

use std::os::fd::AsFd;

use client::Api;
use client::k8s_openapi::api::core::v1::Pod;
use futures::SinkExt;
use kube::api::{AttachParams, AttachedProcess, TerminalSize};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};

use super::logs::{default_container, pod_of};
use super::{connect, text};
use crate::failure::{Failure, Result};
use crate::server::Connection;

/// Flags that both have.
#[derive(Clone, Debug, clap::Args)]
struct Common {
    /// Container name; the first if omitted.
    #[arg(long, short = 'c')]
    container: Option<String>,
    /// Pass stdin to the container.
    #[arg(long, short = 'i')]
    stdin: bool,
    /// Stdin is a TTY.
    #[arg(long, short = 't')]
    tty: bool,
    /// Only print output from the remote session.
    #[arg(long, short = 'q')]
    quiet: bool,
}

/// Flags of `exec`.
#[derive(Debug, clap::Args)]
pub struct ExecArgs {
    /// Pod, or type/name whose pod is meant.
    pod: String,
    #[command(flatten)]
    common: Common,
    /// The command and its arguments, after --.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Flags of `attach`.
#[derive(Debug, clap::Args)]
pub struct AttachArgs {
    /// Pod, or type/name whose pod is meant.
    pod: String,
    #[command(flatten)]
    common: Common,
}

/// Runs `exec`.
pub async fn exec(connection: &Connection, args: ExecArgs) -> Result {
    if args.command.is_empty() {
        return Err(Failure::local("you must specify at least one command for the container"));
    }
    let (pods, name, params) = prepare(connection, &args.pod, &args.common).await?;
    let terminal = Terminal::raw_if(params.tty)?;
    let process = pods.exec(&name, args.command, &params).await.map_err(Failure::from)?;
    converse(process, &params, terminal).await
}

/// Runs `attach`.
pub async fn attach(connection: &Connection, args: AttachArgs) -> Result {
    let (pods, name, params) = prepare(connection, &args.pod, &args.common).await?;
    if !args.common.quiet && params.tty {
        eprintln!("If you don't see a command prompt, try pressing enter.");
    }
    let terminal = Terminal::raw_if(params.tty)?;
    let process = pods.attach(&name, &params).await.map_err(Failure::from)?;
    converse(process, &params, terminal).await
}

async fn prepare(
    connection: &Connection,
    word: &str,
    common: &Common,
) -> Result<(Api<Pod>, String, AttachParams)> {
    let (server, resources) = connect(connection).await?;
    let pod = pod_of(&server, &resources, word).await?;
    let name = text(&pod, "/metadata/name").to_owned();
    let phase = text(&pod, "/status/phase");
    if phase == "Succeeded" || phase == "Failed" {
        return Err(Failure::local(format!(
            "cannot exec into a container in a completed pod; current phase is {phase}"
        )));
    }
    let container = common.container.clone().unwrap_or_else(|| default_container(&pod));
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stdin());
    let tty = common.tty && common.stdin && is_terminal;
    if common.tty && !is_terminal {
        eprintln!("Unable to use a TTY - input is not a terminal or the right kind of file");
    }
    let params =
        AttachParams::default().container(container).stdin(common.stdin).stdout(true).tty(tty).stderr(!tty);
    Ok((Api::namespaced(server.client.clone(), &server.namespace), name, params))
}

/// The terminal in raw mode; as it was when this is dropped.
struct Terminal {
    before: Option<Termios>,
}

impl Terminal {
    fn raw_if(wanted: bool) -> Result<Self> {
        if !wanted {
            return Ok(Self { before: None });
        }
        let stdin = std::io::stdin();
        let before = tcgetattr(stdin.as_fd()).map_err(|e| Failure::local(e.to_string()))?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin.as_fd(), OptionalActions::Now, &raw).map_err(|e| Failure::local(e.to_string()))?;
        Ok(Self { before: Some(before) })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // Nothing can be done about a terminal that is gone.
            let _ = tcsetattr(std::io::stdin().as_fd(), OptionalActions::Now, before);
        }
    }
}

async fn converse(mut process: AttachedProcess, params: &AttachParams, terminal: Terminal) -> Result {
    let status = process.take_status();
    if params.tty {
        follow_window(&mut process);
    }
    if let Some(mut input) = process.stdin() {
        // Ends with the process: a read of the terminal cannot be taken back.
        tokio::spawn(async move {
            let mut stdin = tokio::io::stdin();
            let mut buffer = vec![0; 8192];
            while let Ok(size @ 1..) = stdin.read(&mut buffer).await {
                if input.write_all(&buffer[..size]).await.is_err() {
                    return;
                }
            }
            // The other side must see the end of the input.
            let _ = input.shutdown().await;
        });
    }
    let (stdout, stderr) = (process.stdout(), process.stderr());
    tokio::join!(copy(stdout, tokio::io::stdout()), copy(stderr, tokio::io::stderr()));
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    drop(terminal);
    let Some(status) = status else { return Ok(()) };
    if status.status.as_deref() == Some("Success") {
        return Ok(());
    }
    let causes = status.details.and_then(|d| d.causes).unwrap_or_default();
    let code = causes
        .iter()
        .find(|c| c.reason.as_deref() == Some("ExitCode"))
        .and_then(|c| c.message.as_deref()?.parse().ok());
    match code {
        Some(code) => Err(Failure::Exit(code)),
        None => Err(Failure::local(status.message.unwrap_or_else(|| "the command failed".to_owned()))),
    }
}

async fn copy(from: Option<impl tokio::io::AsyncRead + Unpin>, mut to: impl tokio::io::AsyncWrite + Unpin) {
    let Some(mut from) = from else { return };
    let mut buffer = vec![0; 8192];
    while let Ok(size @ 1..) = from.read(&mut buffer).await {
        if to.write_all(&buffer[..size]).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
}

/// Tells the other side the size of the window, now and whenever it changes.
fn follow_window(process: &mut AttachedProcess) {
    let Some(mut sizes) = process.terminal_size() else { return };
    let size = || {
        let size = tcgetwinsize(std::io::stdout().as_fd()).ok()?;
        Some(TerminalSize { height: size.ws_row, width: size.ws_col })
    };
    tokio::spawn(async move {
        let Ok(mut changed) = signal(SignalKind::window_change()) else { return };
        loop {
            if let Some(size) = size()
                && sizes.send(size).await.is_err()
            {
                return;
            }
            if changed.recv().await.is_none() {
                return;
            }
        }
    });
}
