//! The components of a cluster and the flags each is started with: the same whether they run in this process or
//! each in its own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use anyhow::Result;
use clap::Parser;
use tokio_util::sync::CancellationToken;

use crate::join;
use crate::layout::Layout;
use crate::settings::Settings;

/// A component by its upstream name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum)]
#[value(rename_all = "kebab-case")]
pub enum Component {
    /// REST front of the store.
    KubeApiserver,
    /// Controllers.
    KubeControllerManager,
    /// Scheduler.
    KubeScheduler,
    /// Node agent.
    Kubelet,
    /// Service rules.
    KubeProxy,
    /// Pod network.
    PodNetwork,
}

impl Component {
    /// All of them, in the order they are started.
    pub const ALL: [Self; 6] = [
        Self::KubeApiserver,
        Self::KubeControllerManager,
        Self::KubeScheduler,
        Self::PodNetwork,
        Self::KubeProxy,
        Self::Kubelet,
    ];

    /// Name of its binary.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::KubeApiserver => "kube-apiserver",
            Self::KubeControllerManager => "kube-controller-manager",
            Self::KubeScheduler => "kube-scheduler",
            Self::Kubelet => "kubelet",
            Self::KubeProxy => "kube-proxy",
            Self::PodNetwork => "pod-network",
        }
    }

    /// Its flags in the cluster of `layout`.
    ///
    /// # Errors
    /// An address cannot be told from the settings.
    pub fn flags(self, layout: &Layout, settings: &Settings) -> Result<Vec<String>> {
        let mut flags = match self {
            Self::KubeApiserver => apiserver(layout, settings)?,
            Self::KubeControllerManager => controller_manager(layout, settings),
            Self::KubeScheduler => vec![
                flag("kubeconfig", layout.kubeconfig("scheduler").display()),
                flag("leader-elect", has_peers(settings)),
            ],
            Self::Kubelet => kubelet(layout, settings)?,
            Self::KubeProxy => vec![
                flag("kubeconfig", layout.kubeconfig(identity(settings, "proxy")).display()),
                flag("hostname-override", &settings.node_name),
                flag("cluster-cidr", &settings.cluster_cidr),
            ],
            Self::PodNetwork => vec![
                flag("kubeconfig", layout.kubeconfig(identity(settings, "network")).display()),
                flag("node-name", &settings.node_name),
                flag("cluster-cidr", &settings.cluster_cidr),
                flag("cni-conf-dir", layout.cni_config().display()),
                flag("ipam-dir", layout.run.join("ipam").display()),
                flag("bridge", &settings.bridge),
                flag("backend", &settings.pod_network_backend),
            ],
        };
        flags.push(flag("v", settings.verbosity));
        Ok(flags)
    }

    /// Runs the component in this process until `token` is cancelled.
    ///
    /// # Errors
    /// It cannot start, or fails for good.
    pub async fn run(self, layout: &Layout, settings: &Settings, token: CancellationToken) -> Result<()> {
        self.run_with(layout, settings, &[], token).await
    }

    /// Runs it with these flags after its own.
    ///
    /// # Errors
    /// It cannot start, or fails for good.
    pub async fn run_with(
        self,
        layout: &Layout,
        settings: &Settings,
        more: &[&str],
        token: CancellationToken,
    ) -> Result<()> {
        let mut flags = self.flags(layout, settings)?;
        flags.extend(more.iter().map(|flag| (*flag).to_owned()));
        let arguments = || std::iter::once(self.name().to_owned()).chain(flags.clone());
        match self {
            Self::KubeApiserver => {
                let config = apiserver::Flags::try_parse_from(arguments())?.into_config()?;
                apiserver::run(config, token).await
            }
            Self::KubeControllerManager => {
                let flags = controller_manager::Flags::try_parse_from(arguments())?;
                let options = flags.client.options(self.name());
                let mut config = flags.into_config()?;
                let client = client::connect(&options).await?;
                config.anonymous = Some(client::connect_anonymous(&options).await?);
                controller_manager::run(config, client, token).await
            }
            Self::KubeScheduler => {
                let flags = scheduler::Flags::try_parse_from(arguments())?;
                let client = client::connect(&flags.client.options(self.name())).await?;
                scheduler::run(flags.into_config()?, client, token).await
            }
            Self::Kubelet => {
                let flags = kubelet::Flags::try_parse_from(arguments())?;
                kubelet::credentials::run(flags, token).await
            }
            Self::KubeProxy => {
                let flags = proxy::Flags::try_parse_from(arguments())?;
                let client = client::connect(&flags.client.options(self.name())).await?;
                proxy::run(flags.into_config()?, client, token).await
            }
            Self::PodNetwork => {
                let flags = network::Flags::try_parse_from(arguments())?;
                let client = client::connect(&flags.client.options(self.name())).await?;
                network::run(flags.into_config()?, client, token).await
            }
        }
    }
}

/// Whom a component of a node is: on a node that joined, the node itself.
fn identity<'a>(settings: &Settings, own: &'a str) -> &'a str {
    if settings.joined { "kubelet" } else { own }
}

/// All addresses of this machine, those of IPv6 too where others come by such.
fn everywhere(address: IpAddr) -> IpAddr {
    if address.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
}

fn comma_separated(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn flag(name: &str, value: impl std::fmt::Display) -> String {
    format!("--{name}={value}")
}

fn pki(layout: &Layout, name: &str, file: &str) -> String {
    flag(name, layout.pki(file).display())
}

fn apiserver(layout: &Layout, settings: &Settings) -> Result<Vec<String>> {
    let mut flags = vec![
        flag("secure-port", settings.secure_port),
        flag("bind-address", everywhere(settings.address()?)),
        flag("advertise-address", settings.address()?),
        flag("service-cluster-ip-range", &settings.service_cluster_ip_range),
        flag("authorization-mode", "Node,RBAC"),
        flag("enable-bootstrap-token-auth", "true"),
        flag("service-account-issuer", format!("https://kubernetes.default.svc.{}", settings.cluster_domain)),
        flag("allow-privileged", "true"),
        flag("kubelet-preferred-address-types", "InternalIP,Hostname"),
        pki(layout, "client-ca-file", "ca.crt"),
        pki(layout, "tls-cert-file", "apiserver.crt"),
        pki(layout, "tls-private-key-file", "apiserver.key"),
        pki(layout, "service-account-key-file", "sa.pub"),
        pki(layout, "service-account-signing-key-file", "sa.key"),
        pki(layout, "kubelet-client-certificate", "apiserver-kubelet-client.crt"),
        pki(layout, "kubelet-client-key", "apiserver-kubelet-client.key"),
        pki(layout, "kubelet-certificate-authority", "ca.crt"),
        pki(layout, "requestheader-client-ca-file", "front-proxy-ca.crt"),
        flag("requestheader-allowed-names", "front-proxy-client"),
        pki(layout, "proxy-client-cert-file", "front-proxy-client.crt"),
        pki(layout, "proxy-client-key-file", "front-proxy-client.key"),
    ];
    if settings.etcd_servers.is_empty() {
        flags.push(flag("data-dir", layout.state().display()));
    } else {
        flags.push(flag("etcd-servers", &settings.etcd_servers));
    }
    Ok(flags)
}

fn controller_manager(layout: &Layout, settings: &Settings) -> Vec<String> {
    vec![
        flag("kubeconfig", layout.kubeconfig("controller-manager").display()),
        flag("cluster-cidr", &settings.cluster_cidr),
        flag("allocate-node-cidrs", "true"),
        flag("service-cluster-ip-range", &settings.service_cluster_ip_range),
        pki(layout, "root-ca-file", "ca.crt"),
        pki(layout, "service-account-private-key-file", "sa.key"),
        pki(layout, "cluster-signing-cert-file", "ca.crt"),
        pki(layout, "cluster-signing-key-file", "ca.key"),
        flag("use-service-account-credentials", "true"),
        flag("controllers", "*,bootstrapsigner,tokencleaner"),
        flag("leader-elect", has_peers(settings)),
    ]
}

/// Whether there may be other control planes: they would share an etcd. The embedded store is nobody else's, and a
/// lease would only be something to lose when the machine is slow.
fn has_peers(settings: &Settings) -> bool {
    !settings.etcd_servers.is_empty()
}

fn kubelet(layout: &Layout, settings: &Settings) -> Result<Vec<String>> {
    let mut flags = vec![
        flag("kubeconfig", layout.kubeconfig("kubelet").display()),
        flag("root-dir", layout.kubelet().display()),
        flag("cert-dir", layout.kubelet().join("pki").display()),
        flag("pod-manifest-path", layout.data.join("manifests").display()),
        flag("pod-logs-dir", layout.data.join("log/pods").display()),
        flag("hostname-override", &settings.node_name),
        flag("node-ip", comma_separated(&settings.addresses()?)),
        flag("container-runtime-endpoint", format!("unix://{}", layout.containerd_socket().display())),
        flag("cluster-dns", settings.cluster_dns()?),
        flag("cluster-domain", &settings.cluster_domain),
        flag("cgroup-driver", "cgroupfs"),
        flag("max-pods", settings.max_pods),
        // Images are imported, not pulled: what is collected would not come back. Disks that are shared with other
        // things are often fuller than a node's own would be.
        flag("image-gc-high-threshold", 100),
        flag(
            "eviction-hard",
            "memory.available<100Mi,nodefs.available<1Gi,imagefs.available<1Gi,nodefs.inodesFree<1%",
        ),
        pki(layout, "client-ca-file", "ca.crt"),
        flag("authentication-token-webhook", "true"),
        flag("authorization-mode", "Webhook"),
        flag("anonymous-auth", "false"),
        flag("resolv-conf", resolv_conf().display()),
    ];
    if settings.joined {
        flags.push(flag("bootstrap-kubeconfig", layout.kubeconfig(join::BOOTSTRAP).display()));
        flags.push(flag("rotate-certificates", true));
        flags.push(flag("rotate-server-certificates", true));
    } else {
        flags.push(pki(layout, "tls-cert-file", "kubelet-server.crt"));
        flags.push(pki(layout, "tls-private-key-file", "kubelet-server.key"));
        flags.push(flag("node-labels", "node-role.kubernetes.io/control-plane="));
    }
    if !settings.cgroup_root.is_empty() {
        flags.push(flag("cgroup-root", &settings.cgroup_root));
    }
    Ok(flags)
}

/// The file with the real name servers: with systemd-resolved the usual one names a resolver on loopback, which
/// pods cannot reach.
fn resolv_conf() -> &'static Path {
    let real = Path::new("/run/systemd/resolve/resolv.conf");
    if real.exists() { real } else { Path::new("/etc/resolv.conf") }
}
