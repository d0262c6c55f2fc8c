//! Flows outlive the rules that made them, and the lack of rules.
//!
//! A UDP flow to a service whose endpoint is gone must be ended, or its client goes on sending into the void; TCP
//! notices by itself. A TCP flow that began before there were rules for its service is never rewritten, however often
//! its first packet is sent again: it must be ended too, so that the next packet begins a new flow, or its client hangs
//! for two minutes. Pods that start as fast as their service's rules are written run into this.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use tokio::process::Command;
use tracing::{debug, warn};

use crate::model::{Family, PortName, Protocol, ServicePort};

/// One flow of the connection table: where it was sent, and who answers.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Flow {
    source: IpAddr,
    source_port: u16,
    destination: SocketAddr,
    answered_by: SocketAddr,
}

/// Ends the UDP flows to services that no endpoint of theirs answers any more.
pub async fn clean(family: Family, ports: &BTreeMap<PortName, ServicePort>) {
    let udp: Vec<_> =
        ports.values().filter(|p| p.protocol == Protocol::Udp && !p.endpoints.is_empty()).collect();
    if udp.is_empty() {
        return;
    }
    let stale = match list(family, &["-p", "udp"]).await {
        Ok(flows) => stale(&flows, &udp),
        Err(error) => return warn!(%error, "connection table cannot be read; old UDP flows may linger"),
    };
    for flow in stale {
        if let Err(error) = delete(family, "udp", &flow).await {
            debug!(%error, ?flow, "flow could not be ended");
        }
    }
}

/// Ends the TCP flows to these addresses that have not been rewritten: their rules are there only now.
pub async fn end_unrewritten(family: Family, addresses: &BTreeSet<SocketAddr>) {
    if addresses.is_empty() {
        return;
    }
    let flows = match list(family, &["-p", "tcp", "--state", "SYN_SENT"]).await {
        Ok(flows) => flows,
        Err(error) => return warn!(%error, "connection table cannot be read; early connections may hang"),
    };
    for flow in unrewritten(&flows, addresses) {
        if let Err(error) = delete(family, "tcp", flow).await {
            debug!(%error, ?flow, "flow could not be ended");
        }
    }
}

/// The flows to these addresses that the addresses themselves are to answer.
fn unrewritten<'f>(flows: &'f [Flow], addresses: &BTreeSet<SocketAddr>) -> Vec<&'f Flow> {
    flows
        .iter()
        .filter(|flow| flow.answered_by == flow.destination && addresses.contains(&flow.destination))
        .collect()
}

/// The program's word for the family: without it, only flows of IPv4 are shown.
fn word(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

async fn list(family: Family, which: &[&str]) -> Result<Vec<Flow>> {
    let output = Command::new("conntrack").args(["-L", "-f", word(family)]).args(which).output().await?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).lines().filter_map(parse).collect())
}

/// A line has two sets of `src= dst= sport= dport=`: the flow as sent, and as answered.
fn parse(line: &str) -> Option<Flow> {
    let values = |name: &str| -> Vec<&str> {
        line.split_whitespace().filter_map(|w| w.strip_prefix(name)?.strip_prefix('=')).collect()
    };
    let (src, dst, sport, dport) = (values("src"), values("dst"), values("sport"), values("dport"));
    Some(Flow {
        source: src.first()?.parse().ok()?,
        source_port: sport.first()?.parse().ok()?,
        destination: SocketAddr::new(dst.first()?.parse().ok()?, dport.first()?.parse().ok()?),
        answered_by: SocketAddr::new(src.get(1)?.parse().ok()?, sport.get(1)?.parse().ok()?),
    })
}

fn stale(flows: &[Flow], udp: &[&ServicePort]) -> Vec<Flow> {
    let mut by_address: BTreeMap<SocketAddr, BTreeSet<SocketAddr>> = BTreeMap::new();
    let mut by_node_port: BTreeMap<u16, BTreeSet<SocketAddr>> = BTreeMap::new();
    for port in udp {
        let serving: BTreeSet<_> =
            port.endpoints.iter().filter(|e| e.serving).map(|e| SocketAddr::new(e.ip, e.port)).collect();
        if serving.is_empty() {
            continue;
        }
        for address in port.addresses() {
            by_address.insert(address, serving.clone());
        }
        if let Some(node_port) = port.node_port {
            by_node_port.insert(node_port, serving.clone());
        }
    }
    let wrong = |flow: &&Flow| {
        let serving =
            by_address.get(&flow.destination).or_else(|| by_node_port.get(&flow.destination.port()));
        serving.is_some_and(|serving| !serving.contains(&flow.answered_by))
    };
    flows.iter().filter(wrong).cloned().collect()
}

async fn delete(family: Family, protocol: &str, flow: &Flow) -> Result<()> {
    let mut command = Command::new("conntrack");
    command.args(["-D", "-f", word(family), "-p", protocol, "--orig-src", &flow.source.to_string()]);
    command.args(["--orig-dst", &flow.destination.ip().to_string()]);
    command.args(["--sport", &flow.source_port.to_string(), "--dport", &flow.destination.port().to_string()]);
    let output = command.output().await?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_older_than_its_rules_is_found() {
        let lines = [
            "tcp      6 100 SYN_SENT src=10.244.9.2 dst=10.96.9.9 sport=33554 dport=80 [UNREPLIED] src=10.96.9.9 dst=10.213.9.2 sport=80 dport=33554 mark=0 use=1",
            "tcp      6 100 SYN_SENT src=10.244.9.3 dst=10.96.9.9 sport=40000 dport=80 [UNREPLIED] src=10.244.9.7 dst=10.244.9.3 sport=8080 dport=40000 mark=0 use=1",
            "tcp      6 100 SYN_SENT src=10.244.9.2 dst=192.0.2.1 sport=33555 dport=80 [UNREPLIED] src=192.0.2.1 dst=10.213.9.2 sport=80 dport=33555 mark=0 use=1",
        ];
        let flows: Vec<Flow> = lines.iter().filter_map(|line| parse(line)).collect();
        assert_eq!(flows.len(), 3);
        let service: SocketAddr = "10.96.9.9:80".parse().expect("an address");
        // Not the one on its way to an endpoint, and not one to somewhere else.
        assert_eq!(unrewritten(&flows, &BTreeSet::from([service])), [&flows[0]]);
        assert!(unrewritten(&flows, &BTreeSet::new()).is_empty());
    }

    #[test]
    fn flow_is_read_from_a_line() {
        let line = "udp      17 29 src=10.0.0.7 dst=10.96.0.10 sport=4000 dport=53 [UNREPLIED] src=10.244.0.5 \
                    dst=10.0.0.7 sport=53 dport=4000 mark=0 use=1";
        let flow = parse(line).expect("a flow");
        assert_eq!(
            (flow.source_port, flow.destination),
            (4000, "10.96.0.10:53".parse().expect("an address"))
        );
        assert_eq!(flow.answered_by, "10.244.0.5:53".parse().expect("an address"));
        let line = "udp      17 28 src=fd00:244::9 dst=fd00:96::a sport=4000 dport=53 [UNREPLIED] src=fd00:244::5 \
                    dst=fd00:244::9 sport=53 dport=4000 mark=0 use=1";
        let flow = parse(line).expect("a flow");
        assert_eq!(flow.destination, "[fd00:96::a]:53".parse().expect("an address"));
        assert_eq!(flow.answered_by, "[fd00:244::5]:53".parse().expect("an address"));
    }
}
