//! Cases of the environment, by table.

use super::*;
use k8s_openapi::api::core::v1::{PodSpec, ServicePort, ServiceSpec};

struct Fixed;

#[async_trait::async_trait]
impl Source for Fixed {
    async fn config_map(&self, _: &str, name: &str) -> Result<BTreeMap<String, String>, objects::Error> {
        match name {
            "cm" => Ok([("K", "cm-k"), ("DUP", "from-cm")].map(|(k, v)| (k.to_owned(), v.to_owned())).into()),
            _ => Err(objects::Error::not_found("configmap", name)),
        }
    }

    async fn secret(&self, _: &str, name: &str) -> Result<BTreeMap<String, Vec<u8>>, objects::Error> {
        match name {
            "sec" => Ok([("S".to_owned(), b"secret".to_vec())].into()),
            _ => Err(objects::Error::not_found("secret", name)),
        }
    }
}

fn service(namespace: &str, name: &str, ip: &str, ports: &[(&str, i32, &str)]) -> Arc<Service> {
    let mut service = Service::default();
    service.metadata.name = Some(name.to_owned());
    service.metadata.namespace = Some(namespace.to_owned());
    let port = |(name, port, protocol): &(&str, i32, &str)| ServicePort {
        name: (!name.is_empty()).then(|| (*name).to_owned()),
        port: *port,
        protocol: Some((*protocol).to_owned()),
        ..ServicePort::default()
    };
    service.spec = Some(ServiceSpec {
        cluster_ip: Some(ip.to_owned()),
        ports: Some(ports.iter().map(port).collect()),
        ..ServiceSpec::default()
    });
    Arc::new(service)
}

fn services() -> Vec<Arc<Service>> {
    vec![
        service("default", "kubernetes", "10.0.0.1", &[("https", 443, "TCP")]),
        service("ns", "str-rev", "10.0.0.7", &[("", 8010, "TCP"), ("dns", 53, "UDP")]),
        service("ns", "headless", "None", &[("", 80, "TCP")]),
        service("other", "away", "10.0.0.9", &[("", 80, "TCP")]),
    ]
}

async fn env_of(container: serde_json::Value, links: bool) -> Result<String, String> {
    env_with(container, links, None).await
}

/// With a volume `files` at this path.
async fn env_with(
    container: serde_json::Value,
    links: bool,
    files: Option<PathBuf>,
) -> Result<String, String> {
    let container: Container = serde_json::from_value(container).unwrap();
    let mut pod = Pod {
        spec: Some(PodSpec {
            enable_service_links: Some(links),
            node_name: Some("n1".to_owned()),
            ..PodSpec::default()
        }),
        ..Pod::default()
    };
    pod.metadata.name = Some("p".to_owned());
    pod.metadata.namespace = Some("ns".to_owned());
    let services = services();
    let input = Input {
        pod: &pod,
        container: &container,
        pod_ips: &["10.1.0.2".to_owned(), "fd00::2".to_owned()],
        host_ips: &["192.0.2.1".to_owned()],
        node: None,
        services: &services,
        services_synced: true,
        objects: &Fixed,
        volume: &|name| files.clone().filter(|_| name == "files"),
    };
    let env = build(input).await.map_err(|error| error.to_string())?;
    let own =
        env.into_iter().filter(|(name, _)| !name.starts_with("KUBERNETES_") && !name.starts_with("STR_REV_"));
    Ok(own.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" "))
}

#[tokio::test]
async fn variables_come_from_files() {
    let dir = std::env::temp_dir().join(format!("env-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("config.env"), "A='one'\nB='two'\n").unwrap();
    std::fs::write(dir.join("broken.env"), "nonsense\n").unwrap();
    let file = dir.join("config.env").display().to_string();
    let cases = [
        ("files", "config.env", "B", false, Ok("X=two".to_owned())),
        ("files", "config.env", "C", true, Ok(String::new())),
        (
            "files",
            "config.env",
            "C",
            false,
            Err(format!("environment variable key \"C\" not found in file {file:?}")),
        ),
        ("files", "broken.env", "A", false, Err("couldn't parse env file".to_owned())),
        ("files", "missing.env", "A", false, Err("couldn't parse env file".to_owned())),
        (
            "none",
            "config.env",
            "A",
            false,
            Err("cannot find the volume \"none\" referenced by FileKeyRef".to_owned()),
        ),
    ];
    for (volume, path, key, optional, expected) in cases {
        let reference =
            serde_json::json!({"volumeName": volume, "path": path, "key": key, "optional": optional});
        let container =
            serde_json::json!({"name": "c", "env": [{"name": "X", "valueFrom": {"fileKeyRef": reference}}]});
        assert_eq!(env_with(container, true, Some(dir.clone())).await, expected, "{path} {key}");
    }
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn services_give_both_kinds_of_variables() {
    let all = service_variables(&services(), "ns", true);
    let want = [
        ("KUBERNETES_SERVICE_HOST", "10.0.0.1"),
        ("KUBERNETES_SERVICE_PORT", "443"),
        ("KUBERNETES_SERVICE_PORT_HTTPS", "443"),
        ("STR_REV_PORT", "tcp://10.0.0.7:8010"),
        ("STR_REV_PORT_53_UDP", "udp://10.0.0.7:53"),
        ("STR_REV_PORT_53_UDP_PROTO", "udp"),
        ("STR_REV_PORT_8010_TCP", "tcp://10.0.0.7:8010"),
        ("STR_REV_PORT_8010_TCP_ADDR", "10.0.0.7"),
        ("STR_REV_PORT_8010_TCP_PORT", "8010"),
        ("STR_REV_PORT_8010_TCP_PROTO", "tcp"),
        ("STR_REV_SERVICE_HOST", "10.0.0.7"),
        ("STR_REV_SERVICE_PORT", "8010"),
        ("STR_REV_SERVICE_PORT_DNS", "53"),
    ];
    for (name, value) in want {
        assert_eq!(all.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(all.keys().all(|name| !name.starts_with("HEADLESS") && !name.starts_with("AWAY")));
    let masters = service_variables(&services(), "ns", false);
    assert!(masters.keys().all(|name| name.starts_with("KUBERNETES_")) && masters.len() == 8);
}

#[tokio::test]
async fn variables_resolve_in_order() {
    let ok = |text: &str| Ok::<String, String>(text.to_owned());
    let cases = [
        (
            serde_json::json!({"name": "c", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)$(STR_REV_SERVICE_HOST)$(Z)"}]}),
            ok("A=1 B=110.0.0.7$(Z)"),
        ),
        (
            serde_json::json!({"name": "c", "envFrom": [{"prefix": "P_", "configMapRef": {"name": "cm"}}, {"secretRef": {"name": "sec"}}], "env": [{"name": "P_DUP", "value": "own"}, {"name": "X", "value": "$(P_K)/$(S)"}]}),
            ok("P_DUP=own P_K=cm-k S=secret X=cm-k/secret"),
        ),
        (
            serde_json::json!({"name": "c", "envFrom": [{"configMapRef": {"name": "none", "optional": true}}], "env": [{"name": "E"}]}),
            ok("E="),
        ),
        (
            serde_json::json!({"name": "c", "envFrom": [{"configMapRef": {"name": "none"}}]}),
            Err("configmap \"none\" not found".to_owned()),
        ),
        (
            serde_json::json!({"name": "c", "env": [{"name": "K", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "nope"}}}]}),
            Err("couldn't find key nope in ConfigMap ns/cm".to_owned()),
        ),
        (
            serde_json::json!({"name": "c", "env": [{"name": "K", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "nope"}}}]}),
            Err("couldn't find key nope in Secret ns/sec".to_owned()),
        ),
        (
            serde_json::json!({"name": "c", "env": [{"name": "K", "valueFrom": {"secretKeyRef": {"name": "no", "key": "x"}}}]}),
            Err("secret \"no\" not found".to_owned()),
        ),
        (
            serde_json::json!({"name": "c", "env": [{"name": "K", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "nope", "optional": true}}}]}),
            ok(""),
        ),
        (
            serde_json::json!({"name": "c", "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIPs"}}}, {"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}, {"name": "H", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}]}),
            ok("H=192.0.2.1 IP=10.1.0.2,fd00::2 N=n1"),
        ),
        (
            serde_json::json!({"name": "c", "resources": {"limits": {"cpu": "250m"}}, "env": [{"name": "C", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}}, {"name": "M", "valueFrom": {"resourceFieldRef": {"resource": "requests.memory"}}}]}),
            ok("C=250 M=0"),
        ),
    ];
    for (container, want) in cases {
        assert_eq!(env_of(container.clone(), true).await, want, "{container}");
    }
}

#[tokio::test]
async fn without_links_services_are_no_variables() {
    let container =
        serde_json::json!({"name": "c", "env": [{"name": "B", "value": "$(STR_REV_SERVICE_HOST)"}]});
    assert_eq!(env_of(container, false).await.unwrap(), "B=$(STR_REV_SERVICE_HOST)");
}
