//! Command-line clients under test: ours, and Debian's (unpacked from its package, not installed).

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use anyhow::{Context, Result, ensure};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// A kubectl and the cluster and namespace it talks to.
#[derive(Clone, Debug)]
pub struct Kubectl {
    /// The program.
    pub program: PathBuf,
    kubeconfig: PathBuf,
    namespace: String,
}

impl Kubectl {
    /// `program` for the cluster of `kubeconfig`, in the namespace `default`.
    #[must_use]
    pub fn new(program: &Path, kubeconfig: &Path) -> Self {
        Self {
            program: program.to_owned(),
            kubeconfig: kubeconfig.to_owned(),
            namespace: "default".to_owned(),
        }
    }

    /// The same in another namespace.
    #[must_use]
    pub fn in_namespace(&self, namespace: &str) -> Self {
        Self { namespace: namespace.to_owned(), ..self.clone() }
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// A command with these words, separated by spaces.
    #[must_use]
    pub fn command(&self, words: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--kubeconfig").arg(&self.kubeconfig).arg("--namespace").arg(&self.namespace);
        command.args(words.split_whitespace()).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Runs it, whatever comes of it.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn output(&self, words: &str) -> Result<Output> {
        self.command(words).output().await.with_context(|| format!("run {}", self.program.display()))
    }

    /// Runs it and returns what it prints.
    ///
    /// # Errors
    /// It fails; the error says how.
    pub async fn run(&self, words: &str) -> Result<String> {
        let output = self.output(words).await?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl {words}: {}", error.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Runs kubectl with an input.
///
/// # Errors
/// It fails; the error says how.
pub async fn pipe(kubectl: &Kubectl, words: &str, input: &str) -> Result<()> {
    let mut child =
        kubectl.command(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("no stdin")?.write_all(input.as_bytes()).await?;
    let output = child.wait_with_output().await?;
    ensure!(output.status.success(), "kubectl {words}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// Applies objects in JSON, one after the other: not every kubectl takes more than one.
///
/// # Errors
/// One cannot be applied.
pub async fn apply_each(kubectl: &Kubectl, objects: &str) -> Result<()> {
    for object in objects.split("\n---\n") {
        pipe(kubectl, "apply -f -", object).await?;
    }
    Ok(())
}

/// Unpacks Debian's kubectl into `folder` and returns it.
///
/// # Errors
/// The package cannot be had.
pub fn debian(folder: &Path) -> Result<PathBuf> {
    let program = folder.join("debian/usr/bin/kubectl");
    if program.exists() {
        return Ok(program);
    }
    std::fs::create_dir_all(folder)?;
    let run = |command: &mut std::process::Command| -> Result<()> {
        let output = command.current_dir(folder).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(())
    };
    let download = ["-q", "-o", "APT::Sandbox::User=root", "download", "kubernetes-client"];
    run(std::process::Command::new("apt-get").args(download)).context("download kubernetes-client")?;
    let entries = std::fs::read_dir(folder)?.filter_map(|e| e.ok().map(|e| e.path()));
    let deb =
        entries.into_iter().find(|p| p.extension().is_some_and(|e| e == "deb")).context("no package")?;
    run(std::process::Command::new("dpkg-deb").arg("-x").arg(deb).arg("debian"))
        .context("unpack kubernetes-client")?;
    Ok(program)
}
