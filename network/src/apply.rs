//! Making the plan so: CNI configuration, routes, packet rules. May be repeated safely.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use futures::TryStreamExt;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteProtocol};
use rtnetlink::{Handle, RouteMessageBuilder};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tracing::warn;

use crate::flags::Config;
use crate::plan::{Plan, Range};

/// Marks the routes made here, so that no others are removed.
const ROUTE_PROTOCOL: RouteProtocol = RouteProtocol::Other(88);

/// Lets the kernel forward packets, and lets packet rules see what crosses a bridge. What cannot be set is
/// reported and left: some sandboxes do not let it be written but have it right.
pub async fn prepare_kernel() {
    if !Path::new("/proc/sys/net/bridge").exists() {
        // An error shows below, when the setting cannot be made.
        let _ = Command::new("modprobe").arg("br_netfilter").stderr(Stdio::null()).status().await;
    }
    for setting in ["net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables"] {
        let path = format!("/proc/sys/{setting}");
        if std::fs::read_to_string(&path).is_ok_and(|now| now.trim() == "1") {
            continue;
        }
        if let Err(error) = std::fs::write(&path, "1") {
            warn!(setting, %error, "kernel setting could not be made");
        }
    }
}

/// Applies plans.
pub struct Applier {
    conf_file: PathBuf,
    cluster_cidr: Range,
    routes: Handle,
    rules_written: bool,
}

impl Applier {
    /// Opens the way to the kernel's routes.
    ///
    /// # Errors
    /// There is no netlink socket to be had.
    pub fn new(config: &Config) -> Result<Self> {
        let (connection, routes, _) = rtnetlink::new_connection().context("open a netlink socket")?;
        // Ends by itself when the handle is dropped.
        tokio::spawn(connection);
        let conf_file = config.cni_conf_dir.join("10-coxswain.conflist");
        Ok(Self { conf_file, cluster_cidr: config.cluster_cidr, routes, rules_written: false })
    }

    /// Makes the plan so.
    ///
    /// # Errors
    /// The disk, the kernel or iptables refuses.
    pub async fn apply(&mut self, plan: &Plan) -> Result<()> {
        if !self.rules_written {
            restore(&rules(self.cluster_cidr, &saved().await?)).await?;
            self.rules_written = true;
        }
        self.apply_routes(plan).await?;
        if let Some(cni) = &plan.cni {
            write_if_changed(&self.conf_file, &serde_json::to_string_pretty(cni)?)?;
        }
        Ok(())
    }

    async fn apply_routes(&self, plan: &Plan) -> Result<()> {
        let existing = own_routes(&self.routes).await?;
        let wanted: BTreeSet<_> = plan.routes.iter().map(|(range, via)| (*range, *via)).collect();
        for (range, via) in existing.difference(&wanted) {
            self.routes
                .route()
                .del(route(*range, *via))
                .execute()
                .await
                .with_context(|| format!("remove route {range}"))?;
        }
        for (range, via) in wanted.difference(&existing) {
            let add = self.routes.route().add(route(*range, *via)).replace();
            add.execute().await.with_context(|| format!("add route {range} via {via}"))?;
        }
        Ok(())
    }
}

fn route(range: Range, via: Ipv4Addr) -> rtnetlink::packet_route::route::RouteMessage {
    RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(range.base, range.prefix)
        .gateway(via)
        .protocol(ROUTE_PROTOCOL)
        .build()
}

async fn own_routes(handle: &Handle) -> Result<BTreeSet<(Range, Ipv4Addr)>> {
    let mut found = BTreeSet::new();
    let mut routes = handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build()).execute();
    while let Some(route) = routes.try_next().await.context("list routes")? {
        if route.header.protocol != ROUTE_PROTOCOL {
            continue;
        }
        let (mut base, mut via) = (None, None);
        for attribute in &route.attributes {
            match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(ip)) => base = Some(*ip),
                RouteAttribute::Gateway(RouteAddress::Inet(ip)) => via = Some(*ip),
                _ => {}
            }
        }
        if let (Some(base), Some(via)) = (base, via) {
            found.insert((Range { base, prefix: route.header.destination_prefix_length }, via));
        }
    }
    Ok(found)
}

/// Writes by renaming, so that the container runtime never reads half a file.
fn write_if_changed(path: &Path, text: &str) -> Result<()> {
    if std::fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let partial = path.with_extension("partial");
    std::fs::write(&partial, text).with_context(|| format!("write {}", partial.display()))?;
    std::fs::rename(&partial, path).with_context(|| format!("write {}", path.display()))
}

const MASQUERADE: &str = "COXSWAIN-MASQ";
const FORWARD: &str = "COXSWAIN-FORWARD";
const JUMPS: [(&str, &str, &str); 2] = [("nat", "POSTROUTING", MASQUERADE), ("filter", "FORWARD", FORWARD)];

/// Pods go out behind the node's address, and are forwarded even where forwarding is denied by default.
fn rules(cluster: Range, saved: &str) -> String {
    let jump = |table: &str, chain: &str, target: &str| {
        let rule = format!("-A {chain} -j {target}");
        let there = saved.lines().skip_while(|l| *l != format!("*{table}")).take_while(|l| *l != "COMMIT");
        if there.into_iter().any(|l| l == rule) { String::new() } else { format!("{rule}\n") }
    };
    format!(
        "*nat\n:{MASQUERADE} - [0:0]\n\
         -A {MASQUERADE} -s {cluster} ! -d {cluster} -m addrtype ! --dst-type MULTICAST -j MASQUERADE --random-fully\n\
         {}COMMIT\n\
         *filter\n:{FORWARD} - [0:0]\n-A {FORWARD} -s {cluster} -j ACCEPT\n-A {FORWARD} -d {cluster} -j ACCEPT\n\
         {}COMMIT\n",
        jump("nat", "POSTROUTING", MASQUERADE),
        jump("filter", "FORWARD", FORWARD),
    )
}

async fn saved() -> Result<String> {
    let output =
        Command::new("iptables-save").output().await.context("run iptables-save (is iptables installed?)")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

async fn restore(text: &str) -> Result<()> {
    let mut command = Command::new("iptables-restore");
    command
        .args(["-w", "5", "--noflush"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().context("run iptables-restore")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(text.as_bytes()).await?;
    }
    let output = child.wait_with_output().await?;
    ensure!(
        output.status.success(),
        "iptables-restore failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// Removes the packet rules and routes made here.
///
/// # Errors
/// The kernel or iptables refuses.
pub async fn cleanup() -> Result<()> {
    let saved = saved().await?;
    for (table, chain, target) in JUMPS {
        if saved.lines().any(|line| line.starts_with(&format!(":{target} "))) {
            let jump = format!("-A {chain} -j {target}");
            let delete = if saved.lines().any(|l| l == jump) {
                format!("-D {chain} -j {target}\n")
            } else {
                String::new()
            };
            restore(&format!("*{table}\n:{target} - [0:0]\n{delete}-X {target}\nCOMMIT\n")).await?;
        }
    }
    let (connection, handle, _) = rtnetlink::new_connection().context("open a netlink socket")?;
    let connection = tokio::spawn(connection);
    for (range, via) in own_routes(&handle).await? {
        handle
            .route()
            .del(route(range, via))
            .execute()
            .await
            .with_context(|| format!("remove route {range}"))?;
    }
    connection.abort();
    Ok(())
}
