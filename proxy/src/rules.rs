//! From service ports to packet rules, with upstream's chain names and layout: tools and people look for them.
//!
//! `KUBE-SERVICES` leads by destination to `KUBE-SVC-*` (any endpoint) or `KUBE-SVL-*` (endpoints here), external
//! ways lead through `KUBE-EXT-*`, node ports through `KUBE-NODEPORTS`; each endpoint has a `KUBE-SEP-*` that
//! rewrites the destination. Pure: the same model gives the same text.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::local::{Local, NodePorts};
use crate::model::{Endpoint, Family, Place, PortName, ServicePort, Usable};

/// The chains of one table: name to rules, each rule without its `-A CHAIN`.
pub type Table = BTreeMap<String, Vec<String>>;

/// All chains that kube-proxy owns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// The `filter` table.
    pub filter: Table,
    /// The `nat` table.
    pub nat: Table,
}

/// What does not come from Services.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which address family the rules are for.
    pub family: Family,
    /// Where this node is.
    pub place: Place,
    /// How traffic of pods is told from other.
    pub local: Local,
    /// Which addresses node ports are on.
    pub node_ports: NodePorts,
    /// Masquerade all traffic to service addresses.
    pub masquerade_all: bool,
    /// The mark of packets to be masqueraded.
    pub mark: u32,
    /// Whether node ports answer on loopback addresses.
    pub localhost_node_ports: bool,
    /// Whether packets outside of a connection's window are let pass.
    pub liberal: bool,
}

const SERVICES: &str = "KUBE-SERVICES";
const EXTERNAL_SERVICES: &str = "KUBE-EXTERNAL-SERVICES";
const NODE_PORTS: &str = "KUBE-NODEPORTS";
const FORWARD: &str = "KUBE-FORWARD";
const PROXY_FIREWALL: &str = "KUBE-PROXY-FIREWALL";
const POSTROUTING: &str = "KUBE-POSTROUTING";
const MARK_MASQ: &str = "KUBE-MARK-MASQ";
const KUBELET_FIREWALL: &str = "KUBE-FIREWALL";

/// The prefixes of chains that belong to one service port or endpoint.
pub const SERVICE_CHAIN_PREFIXES: [&str; 5] =
    ["KUBE-SVC-", "KUBE-SVL-", "KUBE-EXT-", "KUBE-FW-", "KUBE-SEP-"];

/// A rule in a built-in chain that leads into one of ours: table, chain, rule.
#[must_use]
pub fn jumps() -> Vec<(&'static str, &'static str, String)> {
    let comment = |text: &str| format!("-m comment --comment \"{text}\"");
    let new = "-m conntrack --ctstate NEW";
    let external =
        format!("{new} {} -j {EXTERNAL_SERVICES}", comment("kubernetes externally-visible service portals"));
    let portals = format!("{new} {} -j {SERVICES}", comment("kubernetes service portals"));
    let firewall = format!("{new} {} -j {PROXY_FIREWALL}", comment("kubernetes load balancer firewall"));
    let nat_portals = format!("{} -j {SERVICES}", comment("kubernetes service portals"));
    vec![
        ("filter", "INPUT", external.clone()),
        ("filter", "FORWARD", external),
        ("filter", "INPUT", format!("{} -j {NODE_PORTS}", comment("kubernetes health check service ports"))),
        ("filter", "FORWARD", portals.clone()),
        ("filter", "OUTPUT", portals),
        ("filter", "FORWARD", format!("{} -j {FORWARD}", comment("kubernetes forwarding rules"))),
        ("filter", "INPUT", firewall.clone()),
        ("filter", "OUTPUT", firewall.clone()),
        ("filter", "FORWARD", firewall),
        ("filter", "INPUT", format!("-j {KUBELET_FIREWALL}")),
        ("filter", "OUTPUT", format!("-j {KUBELET_FIREWALL}")),
        ("nat", "OUTPUT", nat_portals.clone()),
        ("nat", "PREROUTING", nat_portals),
        ("nat", "POSTROUTING", format!("{} -j {POSTROUTING}", comment("kubernetes postrouting rules"))),
    ]
}

/// The rules this node should have.
#[must_use]
pub fn render(settings: &Settings, ports: &BTreeMap<PortName, ServicePort>) -> Rules {
    let mut rules = Rules::default();
    for chain in [SERVICES, EXTERNAL_SERVICES, FORWARD, NODE_PORTS, PROXY_FIREWALL, KUBELET_FIREWALL] {
        rules.filter.insert(chain.to_owned(), vec![]);
    }
    for chain in [SERVICES, NODE_PORTS, POSTROUTING, MARK_MASQ] {
        rules.nat.insert(chain.to_owned(), vec![]);
    }
    render_fixed(settings, &mut rules);
    for port in ports.values() {
        let writer = PortRules { settings, port, usable: port.usable(&settings.place), rules: &mut rules };
        writer.write();
    }
    render_node_ports(settings, &mut rules);
    rules
}

/// Where traffic to node ports comes in.
fn render_node_ports(settings: &Settings, rules: &mut Rules) {
    let comment = "-m comment --comment \"kubernetes service nodeports; NOTE: this must be the last rule in this chain\"";
    let NodePorts::At(addresses) = &settings.node_ports else {
        let localhost = match (settings.family, settings.localhost_node_ports) {
            (Family::V6, _) => " ! -d ::1/128",
            (Family::V4, false) => " ! -d 127.0.0.0/8",
            (Family::V4, true) => "",
        };
        let rule = format!("{comment} -m addrtype --dst-type LOCAL{localhost} -j {NODE_PORTS}");
        return rules.nat_rule(SERVICES, rule);
    };
    let may_loop = settings.family == Family::V4 && settings.localhost_node_ports;
    for address in addresses.iter().filter(|ip| may_loop || !ip.is_loopback()) {
        rules.nat_rule(SERVICES, format!("{comment} -d {address} -j {NODE_PORTS}"));
    }
}

fn render_fixed(settings: &Settings, rules: &mut Rules) {
    let mark = format!("{:#010x}", settings.mark);
    rules.nat_rule(POSTROUTING, format!("-m mark ! --mark {mark}/{mark} -j RETURN"));
    rules.nat_rule(POSTROUTING, format!("-j MARK --xor-mark {mark}"));
    let comment = "-m comment --comment \"kubernetes service traffic requiring SNAT\"";
    rules.nat_rule(POSTROUTING, format!("{comment} -j MASQUERADE --random-fully"));
    rules.nat_rule(MARK_MASQ, format!("-j MARK --or-mark {mark}"));
    if settings.family == Family::V4 && settings.localhost_node_ports {
        // route_localnet would otherwise let others reach what listens on loopback here.
        rules.filter_rule(
            KUBELET_FIREWALL,
            "-m comment --comment \"block incoming localnet connections\" -d 127.0.0.0/8 ! -s 127.0.0.0/8 \
             -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP"
                .to_owned(),
        );
    }
    if !settings.liberal {
        rules.filter_rule(FORWARD, "-m conntrack --ctstate INVALID -j DROP".to_owned());
    }
    rules.filter_rule(
        FORWARD,
        format!(
            "-m comment --comment \"kubernetes forwarding rules\" -m mark --mark {mark}/{mark} -j ACCEPT"
        ),
    );
    rules.filter_rule(
        FORWARD,
        "-m comment --comment \"kubernetes forwarding conntrack rule\" -m conntrack --ctstate RELATED,ESTABLISHED \
         -j ACCEPT"
            .to_owned(),
    );
}

impl Rules {
    fn nat_rule(&mut self, chain: &str, rule: String) {
        self.nat.entry(chain.to_owned()).or_default().push(rule);
    }

    fn filter_rule(&mut self, chain: &str, rule: String) {
        self.filter.entry(chain.to_owned()).or_default().push(rule);
    }
}

/// Writes the rules of one service port.
struct PortRules<'a> {
    settings: &'a Settings,
    port: &'a ServicePort,
    usable: Usable<'a>,
    rules: &'a mut Rules,
}

impl PortRules<'_> {
    fn write(mut self) {
        self.write_internal();
        self.write_external();
        if let Some(check) = self.port.health_check_port {
            let comment = self.comment("health check node port");
            self.rules.filter_rule(NODE_PORTS, format!("{comment} -m tcp -p tcp --dport {check} -j ACCEPT"));
        }
        if !self.usable.cluster.is_empty() && self.port.uses_cluster_endpoints() {
            let chain = self.chain("KUBE-SVC-");
            self.write_balancing(&chain, &self.usable.cluster.clone());
        }
        if !self.usable.local.is_empty() && self.port.uses_local_endpoints() {
            let chain = self.chain("KUBE-SVL-");
            self.write_balancing(&chain, &self.usable.local.clone());
        }
        for endpoint in self.usable.all.clone() {
            self.write_endpoint(endpoint);
        }
    }

    fn comment(&self, what: &str) -> String {
        format!("-m comment --comment \"{} {what}\"", self.port.name)
    }

    fn chain(&self, prefix: &str) -> String {
        chain_name(prefix, &[&self.port.name.0, self.port.protocol.as_str()])
    }

    fn endpoint_chain(&self, endpoint: &Endpoint) -> String {
        let parts = [self.port.name.0.as_str(), self.port.protocol.as_str(), &endpoint.to_string()];
        chain_name("KUBE-SEP-", &parts)
    }

    /// `-m tcp -p tcp -d ADDRESS --dport PORT`
    fn to(&self, address: &std::net::IpAddr) -> String {
        let protocol = self.port.protocol.as_str();
        format!("-m {protocol} -p {protocol} -d {address} --dport {}", self.port.port)
    }

    fn to_node_port(&self, node_port: u16) -> String {
        let protocol = self.port.protocol.as_str();
        format!("-m {protocol} -p {protocol} --dport {node_port}")
    }

    /// What becomes of traffic that finds no endpoint under its policy.
    fn refusal(&self) -> (String, &'static str) {
        if self.usable.any {
            (self.comment("has no local endpoints"), "DROP")
        } else {
            (self.comment("has no endpoints"), "REJECT")
        }
    }

    fn write_internal(&mut self) {
        let has_endpoints = self.usable.any && (!self.port.internal_local || !self.usable.local.is_empty());
        let to = self.to(&self.port.cluster_ip);
        if !has_endpoints {
            let (comment, target) = self.refusal();
            self.rules.filter_rule(SERVICES, format!("{comment} {to} -j {target}"));
            return;
        }
        let chain = self.chain(if self.port.internal_local { "KUBE-SVL-" } else { "KUBE-SVC-" });
        let comment = self.comment("cluster IP");
        self.rules.nat_rule(SERVICES, format!("{comment} {to} -j {chain}"));
        let from = match self.settings.local.iptables(false) {
            _ if self.settings.masquerade_all => String::new(),
            Some(from_elsewhere) => format!(" {from_elsewhere}"),
            None => return,
        };
        self.rules.nat_rule(&chain, format!("{comment} {to}{from} -j {MARK_MASQ}"));
    }

    fn write_external(&mut self) {
        if !self.port.externally_accessible() {
            return;
        }
        let has_endpoints = self.usable.any && (!self.port.external_local || !self.usable.local.is_empty());
        let chain = self.chain("KUBE-EXT-");
        for ip in self.port.external_ips.clone() {
            let to = self.to(&ip);
            self.write_way(SERVICES, "external IP", &to, &chain, &to, has_endpoints);
        }
        let guarded = self.usable.any && !self.port.source_ranges.is_empty();
        let balancer_chain = if guarded { self.chain("KUBE-FW-") } else { chain.clone() };
        for ip in self.port.load_balancer_ips.clone() {
            let to = self.to(&ip);
            self.write_way(SERVICES, "loadbalancer IP", &to, &balancer_chain, &to, has_endpoints);
            if guarded {
                let comment = self.comment(&format!("traffic not accepted by {balancer_chain}"));
                self.rules.filter_rule(PROXY_FIREWALL, format!("{comment} {to} -j DROP"));
            }
        }
        if guarded && !self.port.load_balancer_ips.is_empty() {
            self.write_source_ranges(&balancer_chain, &chain);
        }
        if let Some(node_port) = self.port.node_port {
            let to = self.to_node_port(node_port);
            let refused = format!("-m addrtype --dst-type LOCAL {to}");
            self.write_way(NODE_PORTS, "", &to, &chain, &refused, has_endpoints);
        }
        if self.usable.any {
            self.write_external_chain(&chain, has_endpoints);
        }
    }

    /// One way in: into the chain if there is any endpoint, and refused if none may be used.
    fn write_way(
        &mut self,
        from: &str,
        what: &str,
        to: &str,
        chain: &str,
        refused: &str,
        has_endpoints: bool,
    ) {
        if self.usable.any {
            let comment = if what.is_empty() {
                format!("-m comment --comment \"{}\"", self.port.name)
            } else {
                self.comment(what)
            };
            self.rules.nat_rule(from, format!("{comment} {to} -j {chain}"));
        }
        if !has_endpoints {
            let (comment, target) = self.refusal();
            self.rules.filter_rule(EXTERNAL_SERVICES, format!("{comment} {refused} -j {target}"));
        }
    }

    fn write_external_chain(&mut self, chain: &str, has_endpoints: bool) {
        let name = self.port.name.clone();
        let comment =
            |what: &str| format!("-m comment --comment \"{what} for {name} external destinations\"");
        let cluster = self.chain("KUBE-SVC-");
        self.rules.nat.entry(chain.to_owned()).or_default();
        if !self.port.external_local {
            self.rules.nat_rule(chain, format!("{} -j {MARK_MASQ}", comment("masquerade traffic")));
            if has_endpoints {
                self.rules.nat_rule(chain, format!("-j {cluster}"));
            }
            return;
        }
        // Traffic that begins on this node is subject to no external policy.
        if let Some(from_pods) = self.settings.local.iptables(true) {
            self.rules.nat_rule(chain, format!("{} {from_pods} -j {cluster}", comment("pod traffic")));
        }
        let here = "-m addrtype --src-type LOCAL";
        self.rules.nat_rule(chain, format!("{} {here} -j {MARK_MASQ}", comment("masquerade LOCAL traffic")));
        self.rules.nat_rule(chain, format!("{} {here} -j {cluster}", comment("route LOCAL traffic")));
        if has_endpoints {
            let local = self.chain("KUBE-SVL-");
            self.rules.nat_rule(chain, format!("-j {local}"));
        }
    }

    fn write_source_ranges(&mut self, firewall: &str, chain: &str) {
        let comment = self.comment("loadbalancer IP");
        let own = self.port.own_sources(&self.settings.place);
        for source in self.port.source_ranges.iter().cloned().chain(own.iter().map(ToString::to_string)) {
            self.rules.nat_rule(firewall, format!("{comment} -s {source} -j {chain}"));
        }
        let rest = format!(
            "-m comment --comment \"other traffic to {} will be dropped by {PROXY_FIREWALL}\"",
            self.port.name
        );
        self.rules.nat_rule(firewall, rest);
    }

    /// A client with affinity goes where it went; others are spread evenly.
    fn write_balancing(&mut self, chain: &str, endpoints: &[&Endpoint]) {
        let comment = |e: &Endpoint| format!("-m comment --comment \"{} -> {e}\"", self.port.name);
        let mut lines = vec![];
        if let Some(seconds) = self.port.affinity_seconds {
            for endpoint in endpoints {
                let target = self.endpoint_chain(endpoint);
                lines.push(format!(
                    "{} -m recent --name {target} --rcheck --seconds {seconds} --reap -j {target}",
                    comment(endpoint)
                ));
            }
        }
        for (i, endpoint) in endpoints.iter().enumerate() {
            let target = self.endpoint_chain(endpoint);
            let left = endpoints.len() - i;
            let share = if left > 1 {
                format!(" -m statistic --mode random --probability {:.10}", 1.0 / left as f64)
            } else {
                String::new()
            };
            lines.push(format!("{}{share} -j {target}", comment(endpoint)));
        }
        self.rules.nat.entry(chain.to_owned()).or_default().extend(lines);
    }

    fn write_endpoint(&mut self, endpoint: &Endpoint) {
        let chain = self.endpoint_chain(endpoint);
        let comment = format!("-m comment --comment \"{}\"", self.port.name);
        // A client that is its own endpoint must not see its own address as the source.
        let hairpin = format!("{comment} -s {} -j {MARK_MASQ}", endpoint.ip);
        let remember = match self.port.affinity_seconds {
            Some(_) => format!(" -m recent --name {chain} --set"),
            None => String::new(),
        };
        let protocol = self.port.protocol.as_str();
        let rewrite =
            format!("{comment}{remember} -m {protocol} -p {protocol} -j DNAT --to-destination {endpoint}");
        self.rules.nat.insert(chain, vec![hairpin, rewrite]);
    }
}

/// Prefix and 16 characters of a hash, as upstream names chains: 28 characters are all that iptables allows.
fn chain_name(prefix: &str, parts: &[&str]) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let digest = Sha256::digest(parts.concat());
    let mut name = String::from(prefix);
    // 16 characters of base32 are 80 bits: the first 10 bytes.
    let bits = digest.iter().take(10).fold(0_u128, |bits, byte| (bits << 8) | u128::from(*byte));
    for i in (0..16).rev() {
        name.push(char::from(ALPHABET[usize::try_from((bits >> (5 * i)) & 31).unwrap_or(0)]));
    }
    name
}

#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;
