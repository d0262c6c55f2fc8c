//! The pod network at work: one task follows the Nodes, another the policies.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use client::k8s_openapi::api::core::v1::{Namespace, Node};
use client::k8s_openapi::api::networking::v1::NetworkPolicy;
use client::kube::api::{Patch, PatchParams};
use client::{Api, Client, Event, Informer, SharedInformerFactory, Tasks};
use serde_json::json;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::address::{Families, Family, Range};
use crate::apply::{self, Applier};
use crate::changes::Changes;
use crate::flags::Config;
use crate::iptables;
use crate::overlay::Device;
use crate::plan::{self, Endpoint, Facts, Underlay, Ways, annotations};
use crate::pod::Pod;
use crate::policy::{self, World};

const RETRY: Duration = Duration::from_secs(2);
/// Least time between two changes of the rules: what comes meanwhile is gathered.
const GATHER: Duration = Duration::from_millis(50);
/// How often it is looked whether somebody has removed the rules or the routes.
const CHECK: Duration = Duration::from_secs(30);

/// Runs until `token` is cancelled. What was configured stays, so that pods keep their network.
///
/// # Errors
/// The kernel's routes cannot be reached.
pub async fn run(config: Config, client: Client, token: CancellationToken) -> Result<()> {
    let tasks = Tasks::child_of(&token);
    let factory = SharedInformerFactory::new(client.clone(), &tasks);
    let nodes = Nodes::new(&factory, client, &config)?;
    let rules = Rules::new(&factory, &config);
    apply::prepare_kernel(&config).await;
    let factory = Arc::new(factory);
    let synced = factory.clone();
    tasks.spawn("network", |token| async move {
        if synced.wait_for_sync(&token).await {
            nodes.run(token).await;
        }
    });
    tasks.spawn("rules", |token| async move {
        if factory.wait_for_sync(&token).await {
            rules.run(token).await;
        }
    });
    token.cancelled().await;
    Ok(tasks.shut_down().await?)
}

/// Follows the Nodes with routes, tunnel and CNI configuration.
struct Nodes {
    config: Config,
    client: Client,
    nodes: Informer<Node>,
    changed: Arc<Notify>,
    applier: Applier,
    kernel: Changes,
    /// How many routes and tunnels it was told of last.
    told: Option<(usize, usize)>,
}

impl Nodes {
    fn new(factory: &SharedInformerFactory, client: Client, config: &Config) -> Result<Self> {
        let nodes = factory.informer::<Node>();
        let changed = Arc::new(Notify::new());
        let wake = changed.clone();
        nodes.subscribe(move |event| {
            let matters = match event {
                Event::Updated { old, new } => Facts::of(old) != Facts::of(new),
                _ => true,
            };
            if matters {
                wake.notify_one();
            }
        });
        let (applier, kernel) = (Applier::new(config)?, Changes::listen()?);
        Ok(Self { config: config.clone(), client, nodes, changed, applier, kernel, told: None })
    }

    async fn run(mut self, token: CancellationToken) {
        self.changed.notify_one();
        loop {
            let own = self.own_addresses(&self.facts());
            tokio::select! {
                biased;
                () = token.cancelled() => return,
                () = self.changed.notified() => {}
                () = self.kernel.next(&own) => {}
                () = tokio::time::sleep(CHECK) => {}
            }
            if let Err(error) = self.sync().await {
                warn!(error = %format!("{error:#}"), "pod network could not be configured, will retry");
                tokio::select! { () = token.cancelled() => return, () = tokio::time::sleep(RETRY) => {} }
                self.changed.notify_one();
            }
        }
    }

    fn facts(&self) -> Vec<Facts> {
        self.nodes.store().list().iter().map(|node| Facts::of(node)).collect()
    }

    fn own_addresses(&self, facts: &[Facts]) -> Families<Option<IpAddr>> {
        let own = facts.iter().find(|node| node.name == self.config.node_name);
        Families::from_fn(|family| own.and_then(|node| node.sides.of(family).address))
    }

    async fn sync(&mut self) -> Result<()> {
        let facts = self.facts();
        let own = facts.iter().find(|node| node.name == self.config.node_name);
        let addresses = self.own_addresses(&facts);
        let underlays = self.applier.underlays(addresses).await?;
        let plan = plan::plan(&self.config, &underlays, &facts);
        let devices = self.applier.apply(&plan, &underlays).await?;
        if let Some(own) = own {
            self.announce(own, &ends(&devices, &underlays)).await?;
        }
        if plan.cni.is_some() {
            let count = |of: fn(&Ways) -> usize| of(&plan.ways.v4) + of(&plan.ways.v6);
            let (routes, tunnels) = (count(|w| w.routes.len()), count(|w| w.tunnels.len()));
            if self.told.replace((routes, tunnels)) != Some((routes, tunnels)) {
                info!(routes, tunnels, "pod network is in step");
            }
        }
        Ok(())
    }

    /// Tells the other nodes where this one's ends of the tunnels are.
    async fn announce(&self, own: &Facts, ends: &Families<Option<Endpoint>>) -> Result<()> {
        let mut notes = json!({annotations::MANAGED: "true", annotations::TYPE: "vxlan"});
        let mut changed = false;
        for family in Family::BOTH {
            let Some(end) = ends.of(family).filter(|end| own.sides.of(family).endpoint != Some(*end)) else {
                continue;
            };
            let data = json!({"VNI": plan::VNI, "VtepMAC": plan::mac_text(end.mac)});
            notes[annotations::data(family)] = json!(data.to_string());
            notes[annotations::address(family)] = json!(end.address.to_string());
            changed = true;
        }
        if !changed {
            return Ok(());
        }
        let patch = json!({"metadata": {"annotations": notes}});
        let nodes: Api<Node> = Api::all(self.client.clone());
        let patched = nodes.patch(&own.name, &PatchParams::default(), &Patch::Merge(&patch)).await;
        patched.map(drop).context("tell the other nodes of the tunnel")
    }
}

/// This node's ends of the tunnels it has.
fn ends(
    devices: &Families<Option<Device>>,
    underlays: &Families<Option<Underlay>>,
) -> Families<Option<Endpoint>> {
    Families::from_fn(|family| {
        let (device, underlay) = ((*devices.of(family))?, (*underlays.of(family))?);
        Some(Endpoint { address: underlay.address, mac: device.mac })
    })
}

/// Follows policies, and whom they are about, with packet rules.
struct Rules {
    config: Config,
    /// None if policies are not to be enforced.
    sources: Option<(Informer<Pod>, Informer<Namespace>, Informer<NetworkPolicy>)>,
    changed: Arc<Notify>,
}

impl Rules {
    fn new(factory: &SharedInformerFactory, config: &Config) -> Self {
        let changed = Arc::new(Notify::new());
        let sources = config.policies.then(|| {
            let (pods, namespaces) = (factory.informer::<Pod>(), factory.informer::<Namespace>());
            let policies = factory.informer::<NetworkPolicy>();
            wake_if(&pods, &changed, |old, new| !old.is_same(new));
            wake_if(&namespaces, &changed, |old, new| old.metadata.labels != new.metadata.labels);
            wake_if(&policies, &changed, |old, new| old.spec != new.spec);
            (pods, namespaces, policies)
        });
        Self { config: config.clone(), sources, changed }
    }

    fn world(&self) -> World {
        let world = self.sources.as_ref().map(|(pods, namespaces, policies)| World {
            pods: pods.store().list(),
            namespaces: namespaces.store().list(),
            policies: policies.store().list(),
        });
        world.unwrap_or_default()
    }

    async fn run(self, token: CancellationToken) {
        let mut written: Vec<_> = self.config.cluster_cidrs.iter().copied().map(Written::new).collect();
        let mut check = tokio::time::interval(CHECK);
        check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        check.tick().await;
        self.changed.notify_one();
        loop {
            tokio::select! {
                biased;
                () = token.cancelled() => return,
                () = self.changed.notified() => {}
                _ = check.tick() => if !is_missing(&mut written).await { continue },
            }
            let (mut pause, world) = (GATHER, self.world());
            for family in &mut written {
                if let Err(error) = family.write(&self.config.node_name, &world).await {
                    warn!(error = %format!("{error:#}"), "packet rules could not be written, will retry");
                    pause = RETRY;
                    self.changed.notify_one();
                }
            }
            tokio::select! { () = token.cancelled() => return, () = tokio::time::sleep(pause) => {} }
        }
    }
}

/// The rules of one family.
struct Written {
    cluster: Range,
    applier: iptables::Applier,
}

impl Written {
    fn new(cluster: Range) -> Self {
        Self { cluster, applier: iptables::Applier::new(cluster.family()) }
    }

    async fn write(&mut self, node: &str, world: &World) -> Result<()> {
        let policies = policy::render(node, world, self.cluster.family());
        self.applier.apply(&iptables::tables(self.cluster, policies)).await
    }
}

/// Whether somebody has removed rules, so that they must be written again.
async fn is_missing(written: &mut [Written]) -> bool {
    let mut missing = false;
    for family in written {
        match family.applier.is_missing().await {
            Ok(true) => {
                warn!("packet rules were removed by somebody, writing them again");
                missing = true;
            }
            Ok(false) => {}
            Err(error) => warn!(error = %format!("{error:#}"), "packet rules could not be checked"),
        }
    }
    missing
}

fn wake_if<K: client::Object>(informer: &Informer<K>, changed: &Arc<Notify>, matters: fn(&K, &K) -> bool) {
    let wake = changed.clone();
    informer.subscribe(move |event| {
        let matters = match event {
            Event::Updated { old, new } => matters(old, new),
            _ => true,
        };
        if matters {
            wake.notify_one();
        }
    });
}
