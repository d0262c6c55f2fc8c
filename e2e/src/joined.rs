//! A second machine, which joins a cluster with a token.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use client::{Api, Client};
use deploy::join::{self, JoinArgs};
use deploy::layout::Layout;
use deploy::settings::Settings;
use deploy::token::{self, CreateArgs};
use deploy::{cleanup, discovery, up};
use k8s_openapi::api::core::v1::Node;

use crate::cluster::{Cluster, binaries};
use crate::network::Namespace;
use crate::process::Process;
use crate::wait;

/// A node that joined. What it runs ends when this is dropped; [`Joined::leave`] removes what it made.
pub struct Joined {
    /// Its files.
    pub layout: Layout,
    /// What it was told.
    pub settings: Settings,
    server: Process,
    namespace: Namespace,
}

impl Joined {
    /// Makes a machine, lets it join `cluster`, and waits until its node is ready.
    ///
    /// # Errors
    /// It cannot join, or does not become ready; the error holds the end of its log.
    pub async fn start(cluster: &Cluster, number: u8) -> Result<Self> {
        let layout = cluster.layout_of(number);
        let namespace = cluster.machine(number)?;
        std::fs::create_dir_all(&layout.data)?;
        std::os::unix::fs::symlink(cluster.layout.images(), layout.images())?;
        let args = arguments(cluster, &namespace, number).await?;
        let settings = join::prepare(&layout, &args, &|step| eprintln!("{step}")).await?;
        let mut words = namespace.enter();
        words.extend([binaries()?.join("coxswain").display().to_string(), "server".into()]);
        words.push(format!("--data-dir={}", layout.data.display()));
        words.push(format!("--run-dir={}", layout.run.display()));
        words.extend(up::server_flags(&settings));
        let logs = layout.data.join("log");
        std::fs::create_dir_all(&logs)?;
        let server = Process::start("joined", words, &logs)?;
        let joined = Self { layout, settings, server, namespace };
        let ready = joined.ready(&cluster.client).await;
        ready.with_context(|| joined.server.log_tail())?;
        Ok(joined)
    }

    /// Waits until its node is ready.
    ///
    /// # Errors
    /// It does not become ready.
    pub async fn ready(&self, client: &Client) -> Result<()> {
        let nodes: Api<Node> = Api::all(client.clone());
        wait::until("the node that joined is ready", || async {
            Ok(nodes.get_opt(&self.settings.node_name).await?.filter(up::is_ready).map(drop))
        })
        .await
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> std::net::Ipv4Addr {
        self.namespace.address
    }

    /// The words that go before a command to run it in the node's network.
    #[must_use]
    pub fn enter(&self) -> Vec<String> {
        self.namespace.enter()
    }

    /// Kills what runs the node without warning and starts it again.
    ///
    /// # Errors
    /// It did not run, or does not start.
    pub fn kill_and_restart(&mut self) -> Result<()> {
        ensure!(self.server.is_running(), "the node's server does not run");
        self.server.kill()?;
        self.server.start_again()
    }

    /// Stops what runs the node and starts it with these words after its own.
    ///
    /// # Errors
    /// It does not start.
    pub fn restart_with(&mut self, more: &[&str]) -> Result<()> {
        self.server.restart_with(more)
    }

    /// Stops the node and removes what it made.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub async fn leave(mut self) -> Result<()> {
        self.server.stop();
        cleanup::node(&self.layout).await
    }
}

/// With a token made for it, and the hash of the cluster's CA.
async fn arguments(cluster: &Cluster, machine: &Namespace, number: u8) -> Result<JoinArgs> {
    let create = CreateArgs {
        token: None,
        ttl: Duration::from_secs(600),
        usages: token::USAGES.map(str::to_owned).into(),
        groups: vec![token::GROUP.to_owned()],
        description: String::new(),
        print_join_command: false,
    };
    let token = token::create(&cluster.client, &create).await?;
    let authority = std::fs::read_to_string(cluster.layout.pki("ca.crt"))?;
    Ok(JoinArgs {
        server: format!("{}:{}", cluster.address(), cluster.settings.secure_port),
        token,
        discovery_token_ca_cert_hash: vec![discovery::key_hash_of_pem(&authority)?],
        discovery_token_unsafe_skip_ca_verification: false,
        node_name: format!("{}-{number}", cluster.settings.node_name),
        node_ip: machine.addresses(cluster.has_both_families()),
        bridge: cluster.settings.bridge.clone(),
        cgroup_root: format!("{}-{number}", cluster.settings.cgroup_root),
        max_pods: cluster.settings.max_pods,
        verbosity: cluster.settings.verbosity,
    })
}
