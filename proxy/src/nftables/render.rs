//! From service ports to the table.

use std::collections::BTreeMap;
use std::net::IpAddr;

use sha2::{Digest, Sha256};

use super::{Collection, Table};
use crate::local::NodePorts;
use crate::model::{Endpoint, Family, PortName, ServicePort, Usable};
use crate::rules::Settings;

/// The kernel's hooks: chain, kind and place. The numbers are those of `filter`, `dstnat` and `srcnat`; load balancers'
/// sources are looked at before destinations are rewritten.
const HOOKS: [(&str, &str); 8] = [
    ("filter-prerouting-pre-dnat", "type filter hook prerouting priority -110 ;"),
    ("filter-output-pre-dnat", "type filter hook output priority -110 ;"),
    ("filter-input", "type filter hook input priority 0 ;"),
    ("filter-forward", "type filter hook forward priority 0 ;"),
    ("filter-output", "type filter hook output priority 0 ;"),
    ("nat-prerouting", "type nat hook prerouting priority -100 ;"),
    ("nat-output", "type nat hook output priority -100 ;"),
    ("nat-postrouting", "type nat hook postrouting priority 100 ;"),
];
/// From which of them each of our chains is reached, and for which packets.
const JUMPS: [(&str, &str, &str); 11] = [
    ("filter-input", "ct state new ", "nodeport-endpoints-check"),
    ("filter-input", "ct state new ", "service-endpoints-check"),
    ("filter-forward", "ct state new ", "service-endpoints-check"),
    ("filter-output", "ct state new ", "service-endpoints-check"),
    ("filter-prerouting-pre-dnat", "ct state new ", "firewall-check"),
    ("filter-output-pre-dnat", "ct state new ", "firewall-check"),
    ("nat-output", "", "services"),
    ("nat-prerouting", "", "services"),
    ("nat-postrouting", "", "masquerading"),
    ("filter-forward", "ct state new ", "cluster-ips-check"),
    ("filter-output", "ct state new ", "cluster-ips-check"),
];
/// Names may not be longer than 255 characters, with the longest prefix.
const LONGEST: usize = 240;

/// The table this node should have.
#[must_use]
pub fn render(settings: &Settings, ports: &BTreeMap<PortName, ServicePort>) -> Table {
    let mut table = Table::default();
    write_fixed(settings, &mut table);
    for port in ports.values() {
        PortTable { settings, port, usable: port.usable(&settings.place), table: &mut table }.write();
    }
    table
}

/// `ip` or `ip6`.
fn word(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

fn write_fixed(settings: &Settings, table: &mut Table) {
    let ip = word(settings.family);
    let (address, no_localhost) = match settings.family {
        Family::V4 => ("ipv4_addr", "ip daddr != 127.0.0.0/8"),
        Family::V6 => ("ipv6_addr", "ip6 daddr != ::1"),
    };
    let destination = format!("{address} . inet_proto . inet_service : verdict");
    for (name, kind, declared) in [
        ("cluster-ips", "set", address.to_owned()),
        ("hairpin-connections", "set", format!("{address} . {address} . inet_proto . inet_service")),
        ("service-ips", "map", destination.clone()),
        ("service-nodeports", "map", "inet_proto . inet_service : verdict".to_owned()),
        ("no-endpoint-services", "map", destination.clone()),
        ("no-endpoint-nodeports", "map", "inet_proto . inet_service : verdict".to_owned()),
        ("firewall-ips", "map", destination),
    ] {
        let declaration = format!("type {declared} ;");
        table
            .collections
            .insert(name.to_owned(), Collection { kind, declaration, elements: BTreeMap::new() });
    }
    for (chain, hook) in HOOKS {
        table.hooks.insert(chain, hook);
        table.chains.insert(chain.to_owned(), vec![]);
    }
    for (from, which, to) in JUMPS {
        table.chains.entry(to.to_owned()).or_default();
        table.rule(from, format!("{which}jump {to}"));
    }
    let (checked, led) = write_node_port_addresses(settings, address, no_localhost, table);
    let (to, mark) = (format!("{ip} daddr . meta l4proto . th dport"), format!("{:#x}", settings.mark));
    table.rule(
        "masquerading",
        format!("mark and {mark} != 0 mark set mark xor {mark} masquerade fully-random"),
    );
    table.rule(
        "masquerading",
        format!("ct status dnat {ip} saddr . {to} @hairpin-connections masquerade fully-random"),
    );
    table.rule("cluster-ips-check", format!("{ip} daddr @cluster-ips reject"));
    table.rule("reject-chain", "reject".to_owned());
    table.rule("service-endpoints-check", format!("{to} vmap @no-endpoint-services"));
    table.rule(
        "nodeport-endpoints-check",
        format!("{checked} meta l4proto . th dport vmap @no-endpoint-nodeports"),
    );
    table.rule("firewall-check", format!("{to} vmap @firewall-ips"));
    let masquerade = masquerade(settings);
    if settings.masquerade_all {
        table.rule("services", format!("{ip} daddr @cluster-ips {masquerade}"));
    } else if let Some(from_elsewhere) = settings.local.nftables(false) {
        table.rule("services", format!("{ip} daddr @cluster-ips {from_elsewhere} {masquerade}"));
    }
    table.rule("services", format!("{to} vmap @service-ips"));
    table.rule("services", format!("{led} meta l4proto . th dport vmap @service-nodeports"));
}

/// What matches packets to addresses that node ports are on: where it is known that they are for this node, and elsewhere.
fn write_node_port_addresses(
    settings: &Settings,
    address: &str,
    no_localhost: &str,
    table: &mut Table,
) -> (String, String) {
    let NodePorts::At(addresses) = &settings.node_ports else {
        return (no_localhost.to_owned(), format!("fib daddr type local {no_localhost}"));
    };
    let own = addresses.iter().filter(|ip| !ip.is_loopback()).map(|ip| (ip.to_string(), String::new()));
    let set = Collection { kind: "set", declaration: format!("type {address} ;"), elements: own.collect() };
    table.collections.insert("nodeport-ips".to_owned(), set);
    let to = format!("{} daddr @nodeport-ips", word(settings.family));
    (to.clone(), to)
}

fn masquerade(settings: &Settings) -> String {
    format!("mark set mark or {:#x}", settings.mark)
}

impl Table {
    fn rule(&mut self, chain: &str, rule: String) {
        self.chains.entry(chain.to_owned()).or_default().push(rule);
    }

    fn element(&mut self, collection: &str, key: String, value: String) {
        if let Some(collection) = self.collections.get_mut(collection) {
            collection.elements.insert(key, value);
        }
    }
}

/// Writes what one service port needs.
struct PortTable<'a> {
    settings: &'a Settings,
    port: &'a ServicePort,
    usable: Usable<'a>,
    table: &'a mut Table,
}

impl PortTable<'_> {
    fn write(mut self) {
        let (cluster, local) = (self.usable.cluster.clone(), self.usable.local.clone());
        if !cluster.is_empty() && self.port.uses_cluster_endpoints() {
            self.write_balancing(&self.chain("service-"), &cluster);
        }
        if !local.is_empty() && self.port.uses_local_endpoints() {
            self.write_balancing(&self.chain("local-"), &local);
        }
        self.write_internal();
        if self.port.externally_accessible() {
            self.write_external();
        }
        for endpoint in self.usable.all.clone() {
            self.write_endpoint(endpoint);
        }
    }

    /// `namespace/name/protocol/port`
    fn base(&self) -> String {
        let (service, port) = self.port.name.0.split_once(':').unwrap_or((&self.port.name.0, ""));
        format!("{service}/{}/{port}", self.port.protocol.as_str())
    }

    fn chain(&self, prefix: &str) -> String {
        format!("{prefix}{}", hashed(&self.base()))
    }

    fn endpoint_name(&self, prefix: &str, endpoint: &Endpoint) -> String {
        let ip = endpoint.ip.to_string().replace(':', ".");
        format!("{prefix}{}", hashed(&format!("{}__{ip}/{}", self.base(), endpoint.port)))
    }

    fn key(&self, ip: IpAddr) -> String {
        format!("{ip} . {} . {}", self.port.protocol.as_str(), self.port.port)
    }

    /// What becomes of traffic that finds no endpoint under its policy.
    fn refusal(&self) -> String {
        if self.usable.any { "drop" } else { "goto reject-chain" }.to_owned()
    }

    fn write_internal(&mut self) {
        let key = self.key(self.port.cluster_ip);
        self.table.element("cluster-ips", self.port.cluster_ip.to_string(), String::new());
        if self.usable.any && (!self.port.internal_local || !self.usable.local.is_empty()) {
            let chain = self.chain(if self.port.internal_local { "local-" } else { "service-" });
            self.table.element("service-ips", key, format!("goto {chain}"));
        } else {
            self.table.element("no-endpoint-services", key, self.refusal());
        }
    }

    fn write_external(&mut self) {
        let has_endpoints = self.usable.any && (!self.port.external_local || !self.usable.local.is_empty());
        let chain = self.chain("external-");
        for ip in self.port.external_ips.iter().chain(&self.port.load_balancer_ips) {
            if self.usable.any {
                self.table.element("service-ips", self.key(*ip), format!("goto {chain}"));
            }
            if !has_endpoints {
                self.table.element("no-endpoint-services", self.key(*ip), self.refusal());
            }
        }
        if let Some(node_port) = self.port.node_port {
            let key = format!("{} . {node_port}", self.port.protocol.as_str());
            if self.usable.any {
                self.table.element("service-nodeports", key.clone(), format!("goto {chain}"));
            }
            if !has_endpoints {
                self.table.element("no-endpoint-nodeports", key, self.refusal());
            }
        }
        self.write_firewall();
        if self.usable.any {
            self.write_external_chain(&chain, has_endpoints);
        }
    }

    fn write_firewall(&mut self) {
        if self.port.load_balancer_ips.is_empty() || self.port.source_ranges.is_empty() {
            return;
        }
        let chain = self.chain("firewall-");
        for ip in &self.port.load_balancer_ips {
            self.table.element("firewall-ips", self.key(*ip), format!("goto {chain}"));
        }
        let own = self.port.own_sources(&self.settings.place);
        let own = own.iter().map(ToString::to_string);
        let sources: Vec<_> = self.port.source_ranges.iter().cloned().chain(own).collect();
        let ip = word(self.settings.family);
        self.table.rule(&chain, format!("{ip} saddr != {{ {} }} drop", sources.join(", ")));
    }

    fn write_external_chain(&mut self, chain: &str, has_endpoints: bool) {
        let (cluster, masquerade) = (self.chain("service-"), masquerade(self.settings));
        self.table.chains.entry(chain.to_owned()).or_default();
        if !self.port.external_local {
            self.table.rule(chain, masquerade);
            if has_endpoints {
                self.table.rule(chain, format!("goto {cluster}"));
            }
            return;
        }
        // Traffic that begins on this node is subject to no external policy.
        if self.table.chains.contains_key(&cluster) {
            if let Some(from_pods) = self.settings.local.nftables(true) {
                self.table.rule(chain, format!("{from_pods} goto {cluster}"));
            }
            self.table.rule(chain, format!("fib saddr type local {masquerade}"));
            self.table.rule(chain, format!("fib saddr type local goto {cluster}"));
        }
        if has_endpoints {
            let local = self.chain("local-");
            self.table.rule(chain, format!("goto {local}"));
        }
    }

    /// A client with affinity goes where it went; others are spread evenly.
    fn write_balancing(&mut self, chain: &str, endpoints: &[&Endpoint]) {
        let (ip, count) = (word(self.settings.family), endpoints.len());
        let numbered = |what: &dyn Fn(&Endpoint) -> String| {
            let all: Vec<_> =
                endpoints.iter().enumerate().map(|(i, e)| format!("{i} : {}", what(e))).collect();
            all.join(" , ")
        };
        let mut rules = vec![];
        if self.port.affinity_seconds.is_none() {
            let protocol = self.port.protocol.as_str();
            let places = numbered(&|e| format!("{} . {}", e.ip, e.port));
            rules.push(format!(
                "meta l4proto {protocol} dnat {ip} addr . port to numgen random mod {count} map {{ {places} }}"
            ));
        } else {
            for endpoint in endpoints {
                let (set, target) =
                    (self.endpoint_name("affinity-", endpoint), self.endpoint_name("endpoint-", endpoint));
                rules.push(format!("{ip} saddr @{set} goto {target}"));
            }
            let chains = numbered(&|e| format!("goto {}", self.endpoint_name("endpoint-", e)));
            rules.push(format!("numgen random mod {count} vmap {{ {chains} }}"));
        }
        self.table.chains.insert(chain.to_owned(), rules);
    }

    fn write_endpoint(&mut self, endpoint: &Endpoint) {
        let protocol = self.port.protocol.as_str();
        if endpoint.local {
            // A client that is its own endpoint must not see its own address as the source.
            let key = format!("{} . {} . {protocol} . {}", endpoint.ip, endpoint.ip, endpoint.port);
            self.table.element("hairpin-connections", key, String::new());
        }
        let Some(seconds) = self.port.affinity_seconds else { return };
        let (ip, address) = match self.settings.family {
            Family::V4 => ("ip", "ipv4_addr"),
            Family::V6 => ("ip6", "ipv6_addr"),
        };
        let set = self.endpoint_name("affinity-", endpoint);
        let chain = self.endpoint_name("endpoint-", endpoint);
        self.table.rule(&chain, format!("update @{set} {{ {ip} saddr }}"));
        self.table.rule(&chain, format!("meta l4proto {protocol} dnat to {endpoint}"));
        let declaration = format!("type {address} ; flags dynamic,timeout ; timeout {seconds}s ;");
        self.table
            .collections
            .insert(set, Collection { kind: "set", declaration, elements: BTreeMap::new() });
    }
}

/// Eight letters of a hash, and the name itself as far as there is room.
pub(super) fn hashed(name: &str) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let digest = Sha256::digest(name);
    let bits = digest.iter().take(5).fold(0_u64, |bits, byte| (bits << 8) | u64::from(*byte));
    let letters =
        (0..8).rev().map(|i| char::from(ALPHABET[usize::try_from((bits >> (5 * i)) & 31).unwrap_or(0)]));
    let mut hashed: String = letters.collect();
    hashed.push('-');
    hashed.push_str(name);
    if hashed.len() > LONGEST {
        hashed.truncate(LONGEST - 3);
        hashed.push_str("...");
    }
    hashed
}
