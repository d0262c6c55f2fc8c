//! From policies to rules of iptables' `mangle` table, where packets come by before any other rule may accept them.
//!
//! `COXSWAIN-POLICY` leads each isolated pod's packets into a chain of that pod, the sender's before the receiver's.
//! A pod's chain takes a mark off the packet, asks the chain of each policy that is about the pod, and drops the packet
//! if none has put the mark on it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::networking::v1::NetworkPolicy;
use sha2::{Digest, Sha256};

use super::select::{Allowed, Finder, Number, Peer, Port};
use super::{Chains, Direction, World};
use crate::address::Family;

/// Where it begins.
pub const ROOT: &str = "COXSWAIN-POLICY";
/// How the names of all other chains begin.
pub const PREFIX: &str = "CXP-";
/// The mark of packets that some policy lets through.
const MARK: &str = "0x20000/0x20000";
const UNMARK: &str = "-j MARK --set-xmark 0x0/0x20000";

/// How neighbours find each other, and that they are still there: in IPv4 that is no matter of packets.
const NEIGHBOURS: [&str; 2] = ["neighbour-solicitation", "neighbour-advertisement"];

/// The chains for the pods of a node, in one address family.
#[must_use]
pub fn render(node: &str, world: &World, family: Family) -> Chains {
    let finder = Finder::new(world, family);
    let mut writer = Writer { node, finder: &finder, chains: Chains::new(), written: BTreeSet::new() };
    let mut root = vec![];
    for direction in [Direction::Egress, Direction::Ingress] {
        let mut local: Vec<_> = finder.pods().filter(|(pod, _)| &*pod.node == node).collect();
        local.sort_by_key(|(_, address)| *address);
        for (pod, address) in local {
            let policies = finder.policies_of(pod, direction);
            if !policies.is_empty() {
                let chain = writer.write_pod(address, direction, &policies);
                root.push(format!("{} {address} -j {chain}", own_end(direction)));
            }
        }
    }
    if !root.is_empty() {
        root.splice(0..0, always(family));
    }
    writer.chains.insert(ROOT.to_owned(), root);
    writer.chains
}

/// What is let through whatever policies say.
fn always(family: Family) -> Vec<String> {
    let mut rules = vec!["-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN".to_owned()];
    if family == Family::V6 {
        let kinds = NEIGHBOURS.iter();
        rules.extend(kinds.map(|kind| format!("-p icmpv6 -m icmp6 --icmpv6-type {kind} -j RETURN")));
    }
    rules
}

/// The flag for the pod's own address.
fn own_end(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "-d",
        Direction::Egress => "-s",
    }
}

/// The flag for the other end's address.
fn other_end(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "-s",
        Direction::Egress => "-d",
    }
}

fn letter(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "I",
        Direction::Egress => "E",
    }
}

struct Writer<'a> {
    node: &'a str,
    finder: &'a Finder<'a>,
    chains: Chains,
    /// The policy chains that are there already: pods share them.
    written: BTreeSet<String>,
}

impl<'a> Writer<'a> {
    fn write_pod(&mut self, address: IpAddr, direction: Direction, policies: &[&'a NetworkPolicy]) -> String {
        // A pod that reaches itself through a Service talks to nobody else.
        let mut rules = vec![format!("-s {address} -d {address} -j RETURN"), UNMARK.to_owned()];
        for policy in policies {
            let chain = self.write_policy(policy, direction);
            rules.push(format!("{} -j {chain}", comment(policy)));
        }
        rules.push(format!("-m mark ! --mark {MARK} -j DROP"));
        let chain = chain_name(&["pod", letter(direction), &address.to_string()]);
        self.chains.insert(chain.clone(), rules);
        chain
    }

    fn write_policy(&mut self, policy: &'a NetworkPolicy, direction: Direction) -> String {
        let meta = &policy.metadata;
        let (namespace, name) =
            (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
        let key = format!("{} {namespace}/{name}", letter(direction));
        let chain = chain_name(&["policy", &key]);
        if self.written.insert(chain.clone()) {
            let mut rules = vec![];
            for (at, allowed) in self.finder.allowed(policy, direction).iter().enumerate() {
                rules.extend(self.write_rule(&format!("{key} {at}"), policy, direction, allowed));
            }
            self.chains.insert(chain.clone(), rules);
        }
        chain
    }

    fn write_rule(
        &mut self,
        key: &str,
        policy: &NetworkPolicy,
        direction: Direction,
        allowed: &Allowed<'a>,
    ) -> Vec<String> {
        let target = match &allowed.peers {
            None => format!("MARK --set-xmark {MARK}"),
            Some(peers) if peers.is_empty() => return vec![],
            Some(peers) => self.write_peers(key, direction, peers),
        };
        let Some(ports) = &allowed.ports else { return vec![format!("-j {target}")] };
        let mut rules = vec![];
        for port in ports {
            match port.number {
                Number::Named(name) if direction == Direction::Ingress => {
                    let subjects = self.finder.subjects(policy, self.node);
                    let family = self.finder.family();
                    let named = subjects.iter().flat_map(|pod| named(pod, family, port.protocol, name));
                    rules.extend(named.map(|(address, port)| format!("-d {address} {port} -j {target}")));
                }
                Number::Named(name) => rules.extend(self.named_peers(allowed, port.protocol, name)),
                _ => rules.push(format!("{} -j {target}", matching(port))),
            }
        }
        rules
    }

    /// What goes out to a port by its name goes to pods that call a port so.
    fn named_peers(&self, allowed: &Allowed<'a>, protocol: &str, name: &str) -> Vec<String> {
        let pods: Vec<_> = match &allowed.peers {
            None => self.finder.pods().map(|(pod, _)| pod).collect(),
            Some(peers) => peers
                .iter()
                .filter_map(|peer| match peer {
                    Peer::Pod(pod) => Some(*pod),
                    Peer::Block(..) => None,
                })
                .collect(),
        };
        let family = self.finder.family();
        let named = pods.into_iter().flat_map(|pod| named(pod, family, protocol, name));
        named.map(|(address, port)| format!("-d {address} {port} -j MARK --set-xmark {MARK}")).collect()
    }

    fn write_peers(&mut self, key: &str, direction: Direction, peers: &[Peer<'a>]) -> String {
        let end = other_end(direction);
        let mut addresses = BTreeSet::new();
        let mut rules = vec![];
        for (at, peer) in peers.iter().enumerate() {
            match peer {
                Peer::Pod(pod) => addresses.extend(pod.address(self.finder.family())),
                Peer::Block(range, except) if except.is_empty() => {
                    rules.push(format!("{end} {range} -j MARK --set-xmark {MARK}"));
                }
                Peer::Block(range, except) => {
                    let chain = chain_name(&["block", key, &at.to_string()]);
                    let mut block: Vec<_> =
                        except.iter().map(|range| format!("{end} {range} -j RETURN")).collect();
                    block.push(format!("-j MARK --set-xmark {MARK}"));
                    self.chains.insert(chain.clone(), block);
                    rules.push(format!("{end} {range} -j {chain}"));
                }
            }
        }
        rules.extend(addresses.into_iter().map(|ip| format!("{end} {ip} -j MARK --set-xmark {MARK}")));
        let chain = chain_name(&["peers", key]);
        self.chains.insert(chain.clone(), rules);
        chain
    }
}

fn comment(policy: &NetworkPolicy) -> String {
    let meta = &policy.metadata;
    let (namespace, name) =
        (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
    // iptables takes 255 characters at most.
    let text: String = format!("{namespace}/{name}").chars().take(200).collect();
    format!("-m comment --comment \"{text}\"")
}

/// Where a pod has a port of this name.
fn named(pod: &crate::pod::Pod, family: Family, protocol: &str, name: &str) -> Vec<(IpAddr, String)> {
    let ports = pod.ports.iter().filter(|port| &*port.name == name && &*port.protocol == protocol);
    let matching = |number| matching(&Port { protocol, number: Number::Range(number, number) });
    pod.address(family)
        .into_iter()
        .flat_map(|ip| ports.clone().map(move |port| (ip, matching(port.number))))
        .collect()
}

/// How a packet to the port looks.
fn matching(port: &Port<'_>) -> String {
    let protocol = port.protocol.to_lowercase();
    let Number::Range(first, last) = port.number else { return format!("-p {protocol}") };
    let numbers = if first == last { first.to_string() } else { format!("{first}:{last}") };
    // Not every kernel has a match of its own for SCTP.
    let flag = if protocol == "sctp" { "-m multiport --dports" } else { "--dport" };
    format!("-p {protocol} {flag} {numbers}")
}

/// The prefix and 16 letters and digits that follow from the parts.
fn chain_name(parts: &[&str]) -> String {
    let digest = Sha256::digest(parts.join("\n"));
    digest.iter().take(8).fold(PREFIX.to_owned(), |name, byte| format!("{name}{byte:02X}"))
}
