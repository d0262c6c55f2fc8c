//! `coxswain join`: this machine becomes a node of another machine's cluster.
//!
//! With the token it finds the cluster ([`discovery`]), and asks what it must know of it. Then a server in the
//! background runs what a node needs; its kubelet gets a certificate with the token, and service proxy and pod network
//! act with the same certificate, as the node.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use client::kube::api::ObjectMeta;
use client::{Api, Client};
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::json;

use crate::layout::Layout;
use crate::pki::write_secret;
use crate::settings::{Settings, host_name};
use crate::token::Token;
use crate::{discovery, kubeconfig, up};

/// The kubeconfig that is good until there is a certificate.
pub const BOOTSTRAP: &str = "bootstrap";
const CONFIG: (&str, &str) = ("kube-system", "coxswain-config");
const PATIENCE: Duration = Duration::from_secs(60);

/// What `coxswain join` is told of the cluster and of this machine.
#[derive(Clone, Debug, clap::Args)]
pub struct JoinArgs {
    /// Host and port of the API server.
    pub server: String,
    /// The bootstrap token.
    #[arg(long)]
    pub token: Token,
    /// Hash of the key of the cluster's CA ("sha256:…"); may be given several times.
    #[arg(
        long,
        value_delimiter = ',',
        required_unless_present = "discovery_token_unsafe_skip_ca_verification"
    )]
    pub discovery_token_ca_cert_hash: Vec<String>,
    /// Believe whoever knows the token.
    #[arg(long)]
    pub discovery_token_unsafe_skip_ca_verification: bool,
    /// Name of this machine's Node; the host name if not given.
    #[arg(long, default_value_t = host_name())]
    pub node_name: String,
    /// Address of this machine that pods and other machines use, or one of each family; that of the default route if not
    /// given.
    #[arg(long, value_delimiter = ',')]
    pub node_ip: Vec<std::net::IpAddr>,
    /// Bridge of the pod network.
    #[arg(long, default_value = "coxswain0")]
    pub bridge: String,
    /// Control group that pods are put below; the root if empty.
    #[arg(long, default_value = "")]
    pub cgroup_root: String,
    /// How many pods this machine takes.
    #[arg(long, default_value_t = 110)]
    pub max_pods: u16,
    /// Log verbosity of all components.
    #[arg(short = 'v', long = "v", default_value_t = 0)]
    pub verbosity: u8,
}

/// Joins, and waits until the node is ready. Doing it again changes nothing.
///
/// # Errors
/// The cluster cannot be found or believed, or this machine's node does not become ready.
pub async fn join(layout: &Layout, args: &JoinArgs, progress: &(dyn Fn(&str) + Sync)) -> Result<()> {
    let settings = prepare(layout, args, progress).await?;
    up::up(layout, &settings, progress).await
}

/// Finds the cluster and writes down what a server needs to run a node of it.
///
/// # Errors
/// The cluster cannot be found or believed, or the disk refuses.
pub async fn prepare(layout: &Layout, args: &JoinArgs, progress: &(dyn Fn(&str) + Sync)) -> Result<Settings> {
    let server_here = layout.kubeconfig("admin").exists();
    ensure!(
        !server_here,
        "this machine has a cluster of its own in {}: coxswain down removes it",
        layout.data.display()
    );
    progress(&format!("asking {} for its certificate", args.server));
    let found = discovery::discover(&args.server, &args.token, &args.discovery_token_ca_cert_hash).await?;
    fs::create_dir_all(layout.pki("")).with_context(|| format!("create {}", layout.pki("").display()))?;
    fs::write(layout.pki("ca.crt"), &found.authority)?;
    let user = json!({"token": args.token.to_string()});
    let text = kubeconfig::text(&found.server, &found.authority, "token-bootstrap-client", &user)?;
    let bootstrap = layout.kubeconfig(BOOTSTRAP);
    fs::create_dir_all(bootstrap.parent().unwrap_or(Path::new("/")))?;
    write_secret(&bootstrap, &text)?;
    let client = kubeconfig::connect(layout, BOOTSTRAP).await?;
    let config = tokio::time::timeout(PATIENCE, facts(&client))
        .await
        .context("ask for the cluster's configuration")??;
    settings(args, &config)
}

async fn facts(client: &Client) -> Result<ConfigMap> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), CONFIG.0);
    maps.get(CONFIG.1).await.with_context(|| format!("read the ConfigMap {}", CONFIG.1))
}

fn settings(args: &JoinArgs, config: &ConfigMap) -> Result<Settings> {
    let fact = |key: &str| {
        let value = config.data.as_ref().and_then(|data| data.get(key)).cloned();
        value.with_context(|| format!("the ConfigMap {} does not say {key}", CONFIG.1))
    };
    Ok(Settings {
        node_name: args.node_name.clone(),
        node_ip: args.node_ip.clone(),
        secure_port: 0,
        cluster_cidr: fact("clusterCidr")?,
        service_cluster_ip_range: fact("serviceClusterIpRange")?,
        cluster_domain: fact("clusterDomain")?,
        etcd_servers: String::new(),
        bridge: args.bridge.clone(),
        pod_network_backend: fact("podNetworkBackend")?,
        cgroup_root: args.cgroup_root.clone(),
        max_pods: args.max_pods,
        verbosity: args.verbosity,
        joined: true,
    })
}

/// The command by which machines join the cluster of `layout`.
///
/// # Errors
/// The cluster has no CA.
pub fn command(layout: &Layout, settings: &Settings, token: &Token) -> Result<String> {
    let authority = layout.pki("ca.crt");
    let pem = fs::read_to_string(&authority).with_context(|| format!("read {}", authority.display()))?;
    Ok(format!(
        "coxswain join {}:{} --token {token} --discovery-token-ca-cert-hash {}",
        settings.url_host()?,
        settings.secure_port,
        discovery::key_hash_of_pem(&pem)?
    ))
}

/// The ConfigMap by which machines find the cluster of `layout`.
///
/// # Errors
/// The cluster has no CA, or no address.
pub fn cluster_info(layout: &Layout, settings: &Settings) -> Result<ConfigMap> {
    let authority = fs::read_to_string(layout.pki("ca.crt")).context("read the CA")?;
    let text = discovery::cluster_info(&settings.url()?, &authority);
    Ok(ConfigMap {
        metadata: ObjectMeta {
            namespace: Some(discovery::CLUSTER_INFO.0.to_owned()),
            name: Some(discovery::CLUSTER_INFO.1.to_owned()),
            ..ObjectMeta::default()
        },
        data: Some([("kubeconfig".to_owned(), text)].into()),
        ..ConfigMap::default()
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::components::Component;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        join: JoinArgs,
    }

    const TOKEN: [&str; 3] = ["192.0.2.1:6443", "--token", "abcdef.0123456789abcdef"];

    fn parsed(more: &[&str]) -> Result<JoinArgs, clap::Error> {
        let words = std::iter::once("join").chain(TOKEN).chain(more.iter().copied());
        Command::try_parse_from(words).map(|command| command.join)
    }

    #[test]
    fn nobody_is_believed_without_a_hash_unless_told_so() {
        assert!(parsed(&[]).is_err());
        assert!(parsed(&["--discovery-token-ca-cert-hash", "sha256:00"]).is_ok());
        assert!(parsed(&["--discovery-token-unsafe-skip-ca-verification"]).is_ok());
    }

    #[test]
    fn a_node_is_told_what_its_cluster_is_like_and_shows_its_own_certificate() {
        let args = parsed(&[
            "--discovery-token-unsafe-skip-ca-verification",
            "--node-name=n2",
            "--node-ip=192.0.2.2",
        ]);
        let args = args.expect("good words");
        let data = [
            ("podNetworkBackend", "vxlan"),
            ("clusterCidr", "10.1.0.0/16"),
            ("serviceClusterIpRange", "10.2.0.0/16"),
            ("clusterDomain", "example.org"),
        ];
        let mut config = ConfigMap {
            data: Some(data.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            ..ConfigMap::default()
        };
        let made = settings(&args, &config).expect("all is said");
        let layout = Layout::new(Path::new("/data"), Path::new("/run"));
        let flags = |component: Component| component.flags(&layout, &made).expect("flags").join(" ");
        for (component, expected) in [
            (Component::Kubelet, "--cluster-dns=10.2.0.10 --cluster-domain=example.org"),
            (
                Component::Kubelet,
                "--bootstrap-kubeconfig=/data/kubeconfig/bootstrap.conf --rotate-certificates=true",
            ),
            (Component::KubeProxy, "--kubeconfig=/data/kubeconfig/kubelet.conf --hostname-override=n2"),
            (
                Component::PodNetwork,
                "--kubeconfig=/data/kubeconfig/kubelet.conf --node-name=n2 --cluster-cidr=10.1.0.0/16",
            ),
            (Component::PodNetwork, "--backend=vxlan"),
        ] {
            assert!(flags(component).contains(expected), "{}", flags(component));
        }
        assert!(
            !flags(Component::Kubelet).contains("control-plane")
                && !flags(Component::Kubelet).contains("tls-cert")
        );
        config.data.as_mut().expect("data").remove("clusterDomain");
        assert!(settings(&args, &config).is_err());
    }
}
