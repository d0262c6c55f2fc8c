//! A server under load.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use http::{Method, StatusCode};
use kube::client::ConfigExt;
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use rustix::process::{Pid, Signal, kill_process};
use secrecy::ExposeSecret;
use serde_json::json;
use tokio_rustls::TlsConnector;

use crate::connection::{Connection, Content};

/// A server and how to reach it.
#[derive(Clone)]
pub struct Target {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The bearer token, where the kubeconfig has one.
    pub token: Option<Arc<str>>,
    /// TLS with the kubeconfig's certificates.
    pub tls: TlsConnector,
    /// The path of the namespace that is made for the run.
    pub namespace: Arc<str>,
    pid: Option<i32>,
    config: kube::Config,
}

impl Target {
    /// Reads the kubeconfig.
    ///
    /// # Errors
    /// It cannot be used.
    pub async fn connect(kubeconfig: &Path, pid: Option<i32>) -> Result<Self> {
        let file = Kubeconfig::read_from(kubeconfig)?;
        let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        let namespace = format!("/api/v1/namespaces/load-{}", jiff::Timestamp::now().as_second()).into();
        Self::of(config, namespace, pid)
    }

    fn of(config: kube::Config, namespace: Arc<str>, pid: Option<i32>) -> Result<Self> {
        let mut tls = config.rustls_client_config()?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let url = &config.cluster_url;
        Ok(Self {
            host: url.host().context("a server without a host")?.to_owned(),
            port: url.port_u16().unwrap_or(443),
            token: config.auth_info.token.as_ref().map(|token| token.expose_secret().into()),
            tls: TlsConnector::from(Arc::new(tls)),
            namespace,
            pid,
            config,
        })
    }

    /// The same server as somebody sees it who has nothing but a token.
    ///
    /// # Errors
    /// The certificates cannot be used.
    pub fn with_token(&self, token: &str) -> Result<Self> {
        let mut config = self.config.clone();
        config.auth_info = AuthInfo { token: Some(token.to_owned().into()), ..AuthInfo::default() };
        Self::of(config, Arc::clone(&self.namespace), self.pid)
    }

    /// Makes the namespace and the service account that pods need.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn prepare(&self) -> Result<()> {
        let mut connection = Connection::open(self).await?;
        let name = self.namespace.rsplit('/').next();
        let namespace = json!({"metadata": {"name": name}}).to_string();
        let account = json!({"metadata": {"name": "default"}}).to_string();
        let made =
            [("/api/v1/namespaces", namespace), (&format!("{}/serviceaccounts", self.namespace), account)];
        for (path, body) in made {
            let content = Content { body: &body, ..Content::default() };
            let (status, _) = connection.count(Method::POST, path, content).await?;
            ensure!(status.is_success() || status == StatusCode::CONFLICT, "{path}: {status}");
        }
        Ok(())
    }

    /// Allows a group to do something with pods. Neither a default role nor a controller is needed for that.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn grant(&self, group: &str, verbs: &[&str]) -> Result<()> {
        const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
        let rule = json!({"apiGroups": [""], "resources": ["pods"], "verbs": verbs});
        let role = json!({"metadata": {"name": group}, "rules": [rule]});
        let subject = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group});
        let role_ref = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": group});
        let binding = json!({"metadata": {"name": group}, "roleRef": role_ref, "subjects": [subject]});
        let mut connection = Connection::open(self).await?;
        for (resource, object) in [("clusterroles", role), ("clusterrolebindings", binding)] {
            let (path, body) = (format!("{RBAC}/{resource}"), object.to_string());
            let content = Content { body: &body, ..Content::default() };
            let (status, _) = connection.count(Method::POST, &path, content).await?;
            ensure!(status.is_success() || status == StatusCode::CONFLICT, "{path}: {status}");
        }
        Ok(())
    }

    /// Removes what the run made.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn clean(&self) -> Result<()> {
        let mut connection = Connection::open(self).await?;
        let at_once = Content { body: r#"{"gracePeriodSeconds":0}"#, ..Content::default() };
        connection.count(Method::DELETE, &format!("{}/pods", self.namespace), at_once).await?;
        connection.count(Method::DELETE, &self.namespace, Content::default()).await?;
        Ok(())
    }

    /// Resident memory of the server now, and the most it ever was, in megabytes.
    #[must_use]
    pub fn memory(&self) -> Option<(f64, f64)> {
        e2e::measure::memory(self.pid?)
    }

    /// Stops the server until the result is dropped: another one is measured meanwhile, and has the machine to itself.
    #[must_use]
    pub fn paused(&self) -> Option<Paused> {
        let process = Pid::from_raw(self.pid?)?;
        kill_process(process, Signal::STOP).ok()?;
        Some(Paused { process })
    }
}

/// A server that does not run now.
pub struct Paused {
    process: Pid,
}

impl Drop for Paused {
    fn drop(&mut self) {
        // One that is gone need not go on.
        let _ = kill_process(self.process, Signal::CONT);
    }
}
