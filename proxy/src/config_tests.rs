//! Files and what follows from them.

use super::*;

/// As kubeadm writes it.
const KUBEADM: &str = "
apiVersion: kubeproxy.config.k8s.io/v1alpha1
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: \"\"
  burst: 0
  contentType: \"\"
  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
  qps: 0
clusterCIDR: 10.244.0.0/16
configSyncPeriod: 0s
conntrack: {maxPerCore: null, min: null, tcpBeLiberal: false, tcpCloseWaitTimeout: null, tcpEstablishedTimeout: null, udpStreamTimeout: 0s, udpTimeout: 0s}
detectLocal: {bridgeInterface: \"\", interfaceNamePrefix: \"\"}
detectLocalMode: \"\"
enableProfiling: false
healthzBindAddress: \"\"
hostnameOverride: \"\"
iptables: {localhostNodePorts: null, masqueradeAll: false, masqueradeBit: null, minSyncPeriod: 0s, syncPeriod: 0s}
ipvs: {excludeCIDRs: null, minSyncPeriod: 0s, scheduler: \"\", strictARP: false, syncPeriod: 0s, tcpFinTimeout: 0s, tcpTimeout: 0s, udpTimeout: 0s}
kind: KubeProxyConfiguration
logging: {flushFrequency: 0, options: {json: {infoBufferSize: \"0\"}, text: {infoBufferSize: \"0\"}}, verbosity: 0}
metricsBindAddress: \"\"
mode: \"\"
nftables: {masqueradeAll: false, masqueradeBit: null, minSyncPeriod: 0s, syncPeriod: 0s}
nodePortAddresses: null
oomScoreAdj: null
portRange: \"\"
showHiddenMetricsForVersion: \"\"
winkernel: {enableDSR: false, forwardHealthCheckVip: false, networkName: \"\", rootHnsEndpointName: \"\", sourceVip: \"\"}
";

fn file(more: &str) -> Result<Config, String> {
    let text = format!("apiVersion: {API_VERSION}\nkind: {KIND}\n{more}\n");
    KubeProxyConfiguration::parse(&text)?.resolve("n1".to_owned())
}

#[test]
fn what_kubeadm_writes_means_the_defaults() {
    let read = KubeProxyConfiguration::parse(KUBEADM).expect("a configuration");
    assert_eq!(read.kubeconfig(), Some("/var/lib/kube-proxy/kubeconfig.conf"));
    let config = read.into_config("Node-7").expect("good");
    assert_eq!((config.mode, config.node_name.as_str()), (Mode::Iptables, "node-7"));
    assert_eq!(config.local, LocalMode::ClusterCidr(vec!["10.244.0.0/16".into()]));
    assert_eq!(config.node_port_addresses, NodePortAddresses::Everywhere);
    assert_eq!((config.masquerade_mark, config.localhost_node_ports), (0x4000, true));
    assert_eq!((config.sync_period, config.min_sync_period), (SYNC_PERIOD, MIN_SYNC_PERIOD));
    let shown = |address: Option<SocketAddr>| address.map(|address| address.to_string());
    assert_eq!(shown(config.health).as_deref(), Some("0.0.0.0:10256"));
    assert_eq!(shown(config.metrics).as_deref(), Some("127.0.0.1:10249"));
    assert_eq!((config.conntrack, config.oom_score_adj), (Conntrack::default(), -999));
}

#[test]
fn what_is_said_counts() {
    let config = file(
        "mode: nftables\nhostnameOverride: other\nclusterCIDR: 'fd00:1::/56,10.1.0.0/16'\nbindAddress: '::'\n\
         nftables: {masqueradeBit: 0, masqueradeAll: true, syncPeriod: 1m, minSyncPeriod: 2s}\n\
         iptables: {masqueradeBit: 3}\nmetricsBindAddress: 127.0.0.1:0\n\
         conntrack: {maxPerCore: 0, tcpEstablishedTimeout: 0s, udpTimeout: 30s, tcpBeLiberal: true}\noomScoreAdj: 5",
    )
    .expect("good");
    assert_eq!((config.mode, config.masquerade_mark, config.masquerade_all), (Mode::Nftables, 1, true));
    assert_eq!(config.local, LocalMode::ClusterCidr(vec!["fd00:1::/56".into(), "10.1.0.0/16".into()]));
    assert_eq!(config.node_port_addresses, NodePortAddresses::Primary, "the default of this mode");
    assert_eq!((config.sync_period.as_secs(), config.min_sync_period.as_secs()), (60, 2));
    assert_eq!(config.health.map(|address| address.to_string()).as_deref(), Some("[::]:10256"));
    assert_eq!((config.metrics, config.oom_score_adj), (None, 5));
    let conntrack = config.conntrack;
    assert_eq!((conntrack.max_per_core, conntrack.tcp_established.as_secs()), (0, 0));
    assert_eq!((conntrack.udp.as_secs(), conntrack.tcp_close_wait.as_secs()), (30, 3600));
}

#[test]
fn pods_and_node_ports_are_told_as_configured() {
    for (text, local) in [
        ("detectLocalMode: NodeCIDR", LocalMode::NodeCidr),
        (
            "detectLocalMode: BridgeInterface\ndetectLocal: {bridgeInterface: br0}",
            LocalMode::Bridge("br0".into()),
        ),
        (
            "detectLocalMode: InterfaceNamePrefix\ndetectLocal: {interfaceNamePrefix: veth}",
            LocalMode::Prefix("veth".into()),
        ),
        ("clusterCIDR: ''", LocalMode::ClusterCidr(vec![])),
    ] {
        assert_eq!(file(text).expect("good").local, local, "{text}");
    }
    for (text, ports, loopback) in [
        ("nodePortAddresses: [primary]", NodePortAddresses::Primary, false),
        ("nodePortAddresses: [192.0.2.0/24]", NodePortAddresses::Ranges(vec!["192.0.2.0/24".into()]), false),
        ("nodePortAddresses: []", NodePortAddresses::Everywhere, true),
    ] {
        let config = file(text).expect("good");
        assert_eq!((config.node_port_addresses, config.localhost_node_ports), (ports, loopback), "{text}");
    }
}

#[test]
fn nonsense_is_refused() {
    for text in [
        "mode: ipvs",
        "mode: userspace",
        "iptables: {masqueradeBit: 32}",
        "iptables: {syncPeriod: 1s, minSyncPeriod: 2s}",
        "iptables: {syncPeriod: soon}",
        "clusterCIDR: 10.0.0.0",
        "clusterCIDR: '10.0.0.0/8,11.0.0.0/8'",
        "clusterCIDR: 10.0.0.0/33",
        "nodePortAddresses: [primary, 10.0.0.0/8]",
        "nodePortAddresses: [here]",
        "detectLocalMode: Guess",
        "detectLocalMode: BridgeInterface",
        "healthzBindAddress: everywhere",
        "bindAddress: here",
        "oomScoreAdj: 2000",
        "conntrack: {min: -1}",
    ] {
        assert!(file(text).is_err(), "{text}");
    }
    assert!(KubeProxyConfiguration::parse("apiVersion: v1\nkind: ConfigMap").is_err());
    assert!(KubeProxyConfiguration::parse("kind: [").is_err());
}
