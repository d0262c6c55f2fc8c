//! What goes through a connection for as long as it lives: logs, exec, and terminals.

use std::process::{Output, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use e2e::kubectl::Kubectl;
pub use e2e::kubectl::{apply_each, pipe};
use e2e::wait;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Child;

use super::{Env, ready_pods};

/// A pod that prints a line now and then.
async fn talker(kubectl: &Kubectl) -> Result<()> {
    let manifest = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"talker","labels":{"app":"talker"}},"spec":{
        "terminationGracePeriodSeconds":1,"containers":[{"name":"talker","image":"docker.io/library/busybox:1.36",
        "imagePullPolicy":"Never","command":["sh","-c","n=0; while true; do n=$((n+1)); echo line-$n; sleep 0.2; done"]}]}}"#;
    pipe(kubectl, "apply -f -", manifest).await?;
    ready_pods(kubectl, "app=talker", 1).await?;
    Ok(())
}

pub async fn logs_follow_and_exec_returns_its_exit_code(env: Arc<Env>) -> Result<()> {
    let kubectl = env.namespace("streams").await?;
    talker(&kubectl).await?;
    let mut follow = kubectl.command("logs -f talker").stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(follow.stdout.take().context("no stdout")?).lines();
    let seen = async {
        while let Some(line) = lines.next_line().await? {
            if line == "line-12" {
                return Ok(());
            }
        }
        anyhow::bail!("the log ended")
    };
    tokio::time::timeout(wait::PATIENCE, seen).await.context("the log stands still")??;
    follow.kill().await?;

    let mut exec =
        kubectl.command("exec -i talker -- cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut stdin = exec.stdin.take().context("no stdin")?;
    stdin.write_all(b"over and back\n").await?;
    drop(stdin);
    let output =
        tokio::time::timeout(wait::PATIENCE, exec.wait_with_output()).await.context("cat does not end")??;
    ensure!(output.stdout == b"over and back\n", "{:?}", String::from_utf8_lossy(&output.stdout));
    let output =
        kubectl.command("exec talker -- sh").args(["-c", "echo out; echo err >&2; exit 7"]).output().await?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.code() == Some(7) && text == "out\n", "{:?} {text:?}", output.status);
    env.done(&kubectl).await
}

pub async fn exec_gives_a_terminal(env: Arc<Env>) -> Result<()> {
    let kubectl = env.namespace("terminal").await?;
    talker(&kubectl).await?;
    let config = kubectl.command("exec -it talker -- sh");
    let mut terminal = in_terminal(config.as_std())?;
    let mut input = terminal.stdin.take().context("no stdin")?;
    // Typed at once: the terminal keeps it until the shell reads, and echoes it.
    input.write_all(b"test -t 0 && test -t 1 && echo a-$((40 + 2))-terminal\nexit 9\n").await?;
    let output = ended(terminal).await?;
    drop(input);
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(text.contains("a-42-terminal\r\n"), "no terminal in the pod: {text:?}");
    ensure!(output.status.code() == Some(9), "{:?}: {text:?}", output.status);
    env.done(&kubectl).await
}

/// Runs a command at a terminal of its own, whose keys are the child's stdin and whose screen its stdout.
fn in_terminal(command: &std::process::Command) -> Result<Child> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| format!("'{}'", word.to_string_lossy())).collect();
    let mut script = tokio::process::Command::new("script");
    script.args(["--quiet", "--return", "--command", &words.join(" "), "/dev/null"]);
    script.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    script.spawn().context("start script")
}

async fn ended(child: Child) -> Result<Output> {
    Ok(tokio::time::timeout(wait::PATIENCE, child.wait_with_output()).await.context("it does not end")??)
}
