//! `pods/proxy`, `services/proxy`, `nodes/proxy`: any HTTP request, passed on.

use api::status::ApiError;
use http::header::{HOST, HeaderName, HeaderValue, LOCATION};
use http::{Method, Request, Response, StatusCode};
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use kube::Api;
use rand::Rng as _;

use super::dial::Connection;
use super::kubelet::authority;
use super::links::Links;
use super::{Streaming, relay};
use crate::authz::{from_client, go_quote};
use crate::body::{self, Body};
use crate::remote::describe;
use crate::request::RequestInfo;

/// `name`, `name:port` or `scheme:name:port` (upstream `SplitSchemeNamePort`).
#[derive(Debug, PartialEq, Eq)]
struct Target<'a> {
    https: bool,
    name: &'a str,
    port: &'a str,
}

impl<'a> Target<'a> {
    fn parse(id: &'a str) -> Option<Self> {
        let parts: Vec<&str> = id.split(':').collect();
        let (scheme, name, port) = match parts.as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme, name, port] => (*scheme, *name, *port),
            _ => return None,
        };
        let known = matches!(scheme, "" | "http" | "https");
        (known && !name.is_empty()).then_some(Self { https: scheme == "https", name, port })
    }
}

/// Whether requests may be sent there: not to this machine or to many at once.
fn is_global_unicast(ip: &str) -> bool {
    let Ok(ip) = ip.parse::<std::net::IpAddr>() else { return false };
    let link_local = match ip {
        std::net::IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        std::net::IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || link_local)
}

/// The path behind `.../proxy`, as it was sent: empty or beginning with a slash.
fn rest_of(raw: &str, info: &RequestInfo) -> String {
    // "", api, v1, [namespaces, NAMESPACE,] RESOURCE, NAME, proxy
    let before = if info.namespace.is_empty() || info.resource == "namespaces" { 6 } else { 8 };
    let rest: Vec<&str> = raw.split('/').skip(before).collect();
    if raw.split('/').count() <= before { String::new() } else { format!("/{}", rest.join("/")) }
}

impl Streaming {
    pub(super) async fn pod_proxy(
        &self,
        info: &RequestInfo,
        request: Request<Body>,
    ) -> Result<Response<Body>, ApiError> {
        let Some(target) = Target::parse(&info.name) else {
            return Err(ApiError::bad_request(format!("invalid pod request {}", go_quote(&info.name))));
        };
        let pod = self.pod(info, target.name).await?;
        let ip = pod.status.as_ref().and_then(|status| status.pod_ip.clone()).unwrap_or_default();
        if !is_global_unicast(&ip) {
            return Err(ApiError::bad_request("address not allowed"));
        }
        let default = if target.https { 443 } else { 80 };
        let port = match target.port {
            "" => first_port(&pod).unwrap_or(default),
            text => text.parse().map_err(|_| unreachable_service(&format!("unknown port {text}")))?,
        };
        self.forward(&ip, port, target.https, info, request).await
    }

    pub(super) async fn service_proxy(
        &self,
        info: &RequestInfo,
        request: Request<Body>,
    ) -> Result<Response<Body>, ApiError> {
        let Some(target) = Target::parse(&info.name) else {
            return Err(ApiError::bad_request(format!("invalid service request {}", go_quote(&info.name))));
        };
        let port_name = self.service_port(info, &target).await?;
        let endpoints = Api::<Endpoints>::namespaced(self.client.clone(), &info.namespace);
        let endpoints = endpoints.get(target.name).await.map_err(from_client)?;
        if endpoints.subsets.as_ref().is_none_or(Vec::is_empty) {
            let why = format!("no endpoints available for service {}", go_quote(target.name));
            return Err(ApiError::unavailable(why));
        }
        let candidates = backends(&endpoints, &port_name, &info.namespace);
        let start = if candidates.is_empty() { 0 } else { rand::rng().random_range(0..candidates.len()) };
        for index in 0..candidates.len() {
            let backend = &candidates[(start + index) % candidates.len()];
            let pods = Api::<Pod>::namespaced(self.client.clone(), &info.namespace);
            let Ok(pod) = pods.get(&backend.pod).await else { continue };
            let ips = pod.status.as_ref().and_then(|status| status.pod_ips.as_deref()).unwrap_or_default();
            if ips.iter().any(|ip| ip.ip == backend.ip) {
                return self.forward(&backend.ip, backend.port, target.https, info, request).await;
            }
        }
        let why = format!("no endpoints available for service {}", go_quote(&info.name));
        Err(ApiError::unavailable(why))
    }

    /// The name of the port: a number is looked up among the service's ports.
    async fn service_port(&self, info: &RequestInfo, target: &Target<'_>) -> Result<String, ApiError> {
        let Ok(number) = target.port.parse::<i32>() else { return Ok(target.port.to_owned()) };
        let services = Api::<Service>::namespaced(self.client.clone(), &info.namespace);
        let service = services.get(target.name).await.map_err(from_client)?;
        let ports = service.spec.and_then(|spec| spec.ports).unwrap_or_default();
        let found = ports.into_iter().find(|port| port.port == number);
        found.map(|port| port.name.unwrap_or_default()).ok_or_else(|| {
            let name = go_quote(target.name);
            ApiError::unavailable(format!("no service port {number} found for service {name}"))
        })
    }

    pub(super) async fn node_proxy(
        &self,
        info: &RequestInfo,
        request: Request<Body>,
    ) -> Result<Response<Body>, ApiError> {
        let Some(target) = Target::parse(&info.name) else {
            return Err(ApiError::bad_request(format!("invalid node request {}", go_quote(&info.name))));
        };
        let location = self.kubelets.locate(target.name, "nodes").await?;
        if let Some(host) = location.hosts.iter().find(|host| host.parse::<std::net::IpAddr>().is_ok())
            && !is_global_unicast(host)
        {
            return Err(ApiError::bad_request("address not allowed"));
        }
        if target.port.is_empty() || target.port == location.port.to_string() {
            if let Some(redirect) = redirect_to_root(info, &request) {
                return Ok(redirect);
            }
            let connection = self.kubelets.connect(&location, true).await;
            let connection = connection.map_err(|error| unreachable_service(&describe(&error)))?;
            return send(connection, &location.authority(), info, request).await;
        }
        let port =
            target.port.parse().map_err(|_| unreachable_service(&format!("unknown port {}", target.port)))?;
        let host = location.hosts.first().cloned().unwrap_or_default();
        self.forward(&host, port, target.https, info, request).await
    }

    async fn forward(
        &self,
        host: &str,
        port: u16,
        https: bool,
        info: &RequestInfo,
        request: Request<Body>,
    ) -> Result<Response<Body>, ApiError> {
        if let Some(redirect) = redirect_to_root(info, &request) {
            return Ok(redirect);
        }
        let connection = self.open.connect(host, port, https).await;
        let connection = connection.map_err(|error| unreachable_service(&describe(&error)))?;
        send(connection, &authority(host, port), info, request).await
    }
}

fn unreachable_service(why: &dyn std::fmt::Display) -> ApiError {
    ApiError::unavailable(format!("error trying to reach service: {why}"))
}

fn first_port(pod: &Pod) -> Option<u16> {
    let spec = pod.spec.as_ref()?;
    let port = spec.containers.iter().find_map(|container| container.ports.as_ref()?.first())?;
    u16::try_from(port.container_port).ok()
}

/// An endpoint that is a pod of the service's namespace.
#[derive(Debug, PartialEq, Eq)]
struct Backend {
    ip: String,
    port: u16,
    pod: String,
}

fn backends(endpoints: &Endpoints, port_name: &str, namespace: &str) -> Vec<Backend> {
    let mut found = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        let mut ports = subset.ports.iter().flatten();
        let port = ports.find(|port| port.name.as_deref().unwrap_or_default() == port_name);
        let Some(port) = port.and_then(|port| u16::try_from(port.port).ok()) else { continue };
        for address in subset.addresses.iter().flatten() {
            let target = address.target_ref.as_ref();
            let pod = target.filter(|target| target.namespace.as_deref() == Some(namespace));
            if let Some(pod) = pod.and_then(|target| target.name.clone()) {
                found.push(Backend { ip: address.ip.clone(), port, pod });
            }
        }
    }
    found
}

/// `.../proxy` is a directory: whoever looks at it is sent to `.../proxy/`.
fn redirect_to_root(info: &RequestInfo, request: &Request<Body>) -> Option<Response<Body>> {
    let looks = matches!(*request.method(), Method::GET | Method::HEAD);
    if !looks || relay::wants_upgrade(request.headers()) || !rest_of(request.uri().path(), info).is_empty() {
        return None;
    }
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let location = HeaderValue::from_str(&format!("{}/{query}", request.uri().path())).ok()?;
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    response.headers_mut().insert(LOCATION, location);
    Some(response)
}

/// Sends the request and makes links of the backend lead back through the proxy.
async fn send(
    connection: Box<dyn Connection>,
    host: &str,
    info: &RequestInfo,
    mut request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let raw = request.uri().path().to_owned();
    let rest = rest_of(&raw, info);
    let prefix = raw.strip_suffix(&rest).unwrap_or(&raw).to_owned();
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let path = if rest.is_empty() { "/" } else { &rest };
    let asked =
        request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default().to_owned();
    *request.uri_mut() = format!("{path}{query}").parse().map_err(ApiError::internal)?;
    if let Ok(uri) = HeaderValue::from_str(&format!("{prefix}{path}")) {
        request.headers_mut().insert(HeaderName::from_static("x-forwarded-uri"), uri);
    }
    let response = relay::relay(connection, host, request).await;
    let response = response.map_err(|error| unreachable_service(&error))?;
    Links { prefix, backend: host.to_owned(), asked }.rewrite(response)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn targets_name_scheme_and_port() {
        for (id, expected) in [
            ("web", Some((false, "web", ""))),
            ("web:80", Some((false, "web", "80"))),
            ("https:web:443", Some((true, "web", "443"))),
            ("https:web:", Some((true, "web", ""))),
            ("ftp:web:1", None),
            (":80", None),
            ("a:b:c:d", None),
        ] {
            let found = Target::parse(id).map(|target| (target.https, target.name, target.port));
            assert_eq!(found, expected, "{id}");
        }
    }

    #[test]
    fn the_rest_of_the_path_is_kept_as_sent() {
        let pod = RequestInfo { namespace: "ns".into(), resource: "pods".into(), ..RequestInfo::default() };
        let node = RequestInfo { resource: "nodes".into(), ..RequestInfo::default() };
        for (info, path, expected) in [
            (&pod, "/api/v1/namespaces/ns/pods/p/proxy", ""),
            (&pod, "/api/v1/namespaces/ns/pods/p/proxy/", "/"),
            (&pod, "/api/v1/namespaces/ns/pods/p/proxy/a%2Fb/c/", "/a%2Fb/c/"),
            (&node, "/api/v1/nodes/n/proxy/metrics", "/metrics"),
        ] {
            assert_eq!(rest_of(path, info), expected, "{path}");
        }
    }

    #[test]
    fn only_ordinary_addresses_are_reached() {
        for (ip, expected) in [
            ("10.1.1.1", true),
            ("127.0.0.1", false),
            ("169.254.1.1", false),
            ("::1", false),
            ("", false),
            ("fd00::1", true),
        ] {
            assert_eq!(is_global_unicast(ip), expected, "{ip}");
        }
    }

    #[test]
    fn services_lead_to_pods_of_their_namespace() {
        let address = |ip: &str, namespace: &str| json!({"ip": ip, "targetRef": {"kind": "Pod", "name": format!("pod-{ip}"), "namespace": namespace}});
        let endpoints = json!({"subsets": [{
            "addresses": [address("10.0.0.1", "ns"), address("10.0.0.2", "other"), {"ip": "10.0.0.3"}],
            "ports": [{"name": "http", "port": 8080}, {"name": "other", "port": 1}]}]});
        let endpoints = serde_json::from_value(endpoints).expect("endpoints");
        let expected = Backend { ip: "10.0.0.1".into(), port: 8080, pod: "pod-10.0.0.1".into() };
        assert_eq!(backends(&endpoints, "http", "ns"), [expected]);
        assert!(backends(&endpoints, "", "ns").is_empty());
    }
}
