//! Looks at one pod at the runtime: its sandboxes, its containers, what they left as termination messages.

use std::collections::HashMap;
use std::path::Path;

use futures::future::try_join_all;
use proto::cri;

use super::{Error, Runtime, convert};
use crate::containers::labels::{self, ContainerInfo};
use crate::types::PodStatus;

/// Longest termination message, in bytes.
const MAX_MESSAGE: u64 = 4096;
const MAX_LOG_LINES: u64 = 80;
const MAX_LOG_BYTES: usize = 2048;

/// How much of a pod has to be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// All of it, or the look fails.
    Whole,
    /// Whatever there is.
    Whatever,
}

impl Runtime {
    /// Everything the runtime shows of the pod with this UID now.
    ///
    /// `Look::Whatever` is for pods that are to go: a sandbox the runtime cannot describe any more is then taken for
    /// what the list says of it. Where a pod is to run, guessing could cost it its containers.
    pub async fn inspect_pod(&self, runtime_name: &str, uid: &str, look: Look) -> Result<PodStatus, Error> {
        let selector = HashMap::from([(labels::POD_UID.to_owned(), uid.to_owned())]);
        let sandbox_filter = cri::PodSandboxFilter { label_selector: selector.clone(), ..Default::default() };
        let container_filter = cri::ContainerFilter { label_selector: selector, ..Default::default() };
        let (sandboxes, containers) = tokio::try_join!(
            self.list_pod_sandboxes(Some(sandbox_filter)),
            self.list_containers(Some(container_filter))
        )?;
        let owners: HashMap<String, String> =
            containers.iter().map(|c| (c.id.clone(), c.pod_sandbox_id.clone())).collect();
        let (sandboxes, containers) = tokio::try_join!(
            try_join_all(sandboxes.into_iter().map(|s| self.sandbox_if_there(s, look))),
            try_join_all(containers.iter().map(|c| self.container_if_there(&c.id)))
        )?;
        let mut status = convert::pod_status(
            runtime_name,
            uid,
            sandboxes.into_iter().flatten().collect(),
            containers.into_iter().flatten().collect(),
        );
        for container in &mut status.containers {
            container.sandbox_id = owners.get(&container.id.id).cloned().unwrap_or_default();
        }
        Ok(status)
    }

    /// `None` when it was removed between the list and the look.
    async fn sandbox_if_there(
        &self,
        listed: cri::PodSandbox,
        look: Look,
    ) -> Result<Option<cri::PodSandboxStatus>, Error> {
        match self.pod_sandbox_status(&listed.id).await {
            Ok(answer) => Ok(answer.status),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) if look == Look::Whatever && !error.is_unavailable() => {
                tracing::warn!(sandbox = listed.id, %error, "the runtime cannot describe a sandbox");
                Ok(Some(cri::PodSandboxStatus {
                    id: listed.id,
                    metadata: listed.metadata,
                    state: listed.state,
                    created_at: listed.created_at,
                    labels: listed.labels,
                    ..Default::default()
                }))
            }
            Err(error) => Err(error),
        }
    }

    async fn container_if_there(&self, id: &str) -> Result<Option<cri::ContainerStatus>, Error> {
        match self.container_status(id).await {
            Ok(mut status) => {
                add_termination_message(&mut status).await;
                Ok(Some(status))
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Adds what an ended container wrote as its last words, or its last log lines where it asked for that.
async fn add_termination_message(status: &mut cri::ContainerStatus) {
    if status.state != cri::ContainerState::ContainerExited as i32 {
        return;
    }
    let info = ContainerInfo::read(&status.labels, &status.annotations);
    let from_log = info.message_policy == "FallbackToLogsOnError" && status.exit_code != 0;
    let host_path =
        status.mounts.iter().find(|m| m.container_path == info.message_path).map(|m| m.host_path.clone());
    let mut message = match host_path {
        Some(path) if !info.message_path.is_empty() => read_tail(Path::new(&path), MAX_MESSAGE).await,
        _ => String::new(),
    };
    if message.is_empty() && from_log {
        message = crate::logs::tail(Path::new(&status.log_path), MAX_LOG_LINES, MAX_LOG_BYTES)
            .await
            .unwrap_or_default();
    }
    if message.is_empty() {
        return;
    }
    if !status.message.is_empty() {
        status.message.push_str(": ");
    }
    status.message.push_str(&message);
}

/// The last `limit` bytes of a file; a text about the failure when it cannot be read, nothing when it is not there.
async fn read_tail(path: &Path, limit: u64) -> String {
    use tokio::io::{AsyncReadExt, AsyncSeekExt};
    let read = async {
        let mut file = tokio::fs::File::open(path).await?;
        let length = file.metadata().await?.len();
        file.seek(std::io::SeekFrom::Start(length.saturating_sub(limit))).await?;
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes).await?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&bytes).into_owned())
    };
    match read.await {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => format!("Error on reading termination log {}: {error}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(path: &Path, policy: &str) -> cri::ContainerStatus {
        cri::ContainerStatus {
            state: cri::ContainerState::ContainerExited as i32,
            exit_code: 1,
            annotations: HashMap::from([
                (
                    "io.kubernetes.container.terminationMessagePath".to_owned(),
                    "/dev/termination-log".to_owned(),
                ),
                ("io.kubernetes.container.terminationMessagePolicy".to_owned(), policy.to_owned()),
            ]),
            mounts: vec![cri::Mount {
                container_path: "/dev/termination-log".to_owned(),
                host_path: path.display().to_string(),
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    #[tokio::test]
    async fn last_words_are_the_end_of_the_file() {
        let file = std::env::temp_dir().join(format!("termination-{}", uuid::Uuid::new_v4()));
        tokio::fs::write(&file, format!("{}end", "x".repeat(5000))).await.expect("write");
        let mut status = ended(&file, "File");
        add_termination_message(&mut status).await;
        assert_eq!(status.message.len(), 4096);
        assert!(status.message.ends_with("xend"));
        tokio::fs::remove_file(&file).await.expect("remove");
        let mut status = ended(&file, "File");
        add_termination_message(&mut status).await;
        assert_eq!(status.message, "");
    }
}
