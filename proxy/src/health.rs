//! What load balancers ask: whether this node is good for anything, and whether it has endpoints of a service.
//!
//! `/healthz` says whether rules are in step and the node is to stay, `/livez` only the former (upstream's
//! `ProxyHealthServer`). Services with `externalTrafficPolicy: Local` have a port each, where the node says how many of
//! their endpoints it has (upstream's `ServiceHealthServer`).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use client::serving::{listen, serve_with};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::local::NodePorts;
use crate::model::{Family, PortName, ServicePort};

/// A proxy whose rules have been behind for this long is not healthy: twice the time between two full writes.
const LATE: Duration = Duration::from_secs(60);
/// Load balancers are few.
const BACKLOG: u32 = 128;

/// How the proxy is. Cheap to clone.
#[derive(Clone, Default)]
pub struct ProxyHealth {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// When rules were in step last.
    updated: BTreeMap<Family, Timestamp>,
    /// Since when they have been behind.
    behind: BTreeMap<Family, Instant>,
    /// Whether the node is there and is to stay.
    eligible: bool,
}

impl ProxyHealth {
    /// Something has changed that rules must follow.
    pub fn queued(&self, family: Family) {
        self.state.lock().behind.entry(family).or_insert_with(Instant::now);
    }

    /// The rules are in step.
    pub fn updated(&self, family: Family) {
        let mut state = self.state.lock();
        state.behind.remove(&family);
        state.updated.insert(family, Timestamp::now());
    }

    /// Whether the node is there and is to stay.
    pub fn set_eligible(&self, eligible: bool) {
        self.state.lock().eligible = eligible;
    }

    /// Whether the rules are not late.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.state.lock().late().next().is_none()
    }

    /// Whether the service can be asked, and what there is to say of it.
    fn answer(&self, with_node: bool, now: Timestamp) -> (StatusCode, Value) {
        let state = self.state.lock();
        let late: Vec<_> = state.late().collect();
        let healthy = late.is_empty();
        let fine = healthy && (state.eligible || !with_node);
        let status = state.updated.iter().map(|(family, at)| {
            let name = if *family == Family::V4 { "IPv4" } else { "IPv6" };
            (name.to_owned(), json!({"lastUpdated": time(*at), "healthy": !late.contains(family)}))
        });
        let latest = state.updated.values().max().copied().unwrap_or(Timestamp::UNIX_EPOCH);
        let mut body = json!({"lastUpdated": time(if fine { now } else { latest }), "currentTime": time(now),
                              "healthy": healthy, "status": status.collect::<serde_json::Map<_, _>>()});
        if with_node {
            body["nodeEligible"] = json!(state.eligible);
        }
        (if fine { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, body)
    }

    /// Answers on `address` until `token` is cancelled.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn serve(self, address: SocketAddr, token: CancellationToken) -> Result<()> {
        let listener = listen(address).await?;
        let respond = move |request: &Request<Incoming>| {
            let (counter, with_node) = match request.uri().path() {
                "/healthz" => ("kubeproxy_proxy_healthz_total", true),
                "/livez" => ("kubeproxy_proxy_livez_total", false),
                _ => return json_response(StatusCode::NOT_FOUND, "404 page not found\n".to_owned()),
            };
            let (code, body) = self.answer(with_node, Timestamp::now());
            metrics::counter!(counter, "code" => code.as_str().to_owned()).increment(1);
            json_response(code, body.to_string())
        };
        serve_with(listener, respond, token).await
    }
}

impl State {
    fn late(&self) -> impl Iterator<Item = Family> {
        self.behind.iter().filter(|(_, since)| since.elapsed() >= LATE).map(|(family, _)| *family)
    }
}

fn time(at: Timestamp) -> String {
    at.to_string()
}

fn json_response(code: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// What the node says of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Namespace and name of the service.
    pub service: (String, String),
    /// How many ready endpoints it has on this node.
    pub endpoints: usize,
}

/// The health check ports there should be, and what is said on each.
pub fn checks<'a>(ports: impl Iterator<Item = &'a ServicePort>) -> BTreeMap<u16, Check> {
    let mut checks: BTreeMap<u16, (Check, std::collections::BTreeSet<std::net::IpAddr>)> = BTreeMap::new();
    for port in ports {
        let Some(number) = port.health_check_port else { continue };
        let service = service_of(&port.name);
        let (_, local) =
            checks.entry(number).or_insert_with(|| (Check { service, endpoints: 0 }, Default::default()));
        local.extend(port.endpoints.iter().filter(|e| e.local && e.ready).map(|e| e.ip));
    }
    checks
        .into_iter()
        .map(|(number, (check, local))| (number, Check { endpoints: local.len(), ..check }))
        .collect()
}

fn service_of(name: &PortName) -> (String, String) {
    let (namespace, rest) = name.0.split_once('/').unwrap_or(("", &name.0));
    let service = rest.split_once(':').map_or(rest, |(service, _)| service);
    (namespace.to_owned(), service.to_owned())
}

/// The ports of services that are being answered on, by addresses of one family: endpoints of the other do not count.
pub struct ServiceHealth {
    family: Family,
    on: NodePorts,
    proxy: ProxyHealth,
    open: BTreeMap<u16, (Arc<Mutex<Check>>, CancellationToken)>,
    tracker: TaskTracker,
    token: CancellationToken,
}

impl ServiceHealth {
    /// None yet; all end with `token`.
    #[must_use]
    pub fn new(family: Family, proxy: ProxyHealth, token: &CancellationToken) -> Self {
        Self {
            family,
            on: NodePorts::Everywhere,
            proxy,
            open: BTreeMap::new(),
            tracker: TaskTracker::new(),
            token: token.child_token(),
        }
    }

    /// Opens and closes ports on the addresses that node ports are on, and remembers what to say on each.
    pub async fn sync(&mut self, wanted: BTreeMap<u16, Check>, on: &NodePorts) {
        if self.on != *on {
            // The node's addresses are others: all are opened anew.
            std::mem::take(&mut self.open).into_values().for_each(|(_, token)| token.cancel());
            self.on = on.clone();
        }
        self.open.retain(|port, (_, token)| {
            let stays = wanted.contains_key(port);
            if !stays {
                debug!(port, "closing health check");
                token.cancel();
            }
            stays
        });
        for (port, check) in wanted {
            if let Some((said, _)) = self.open.get(&port) {
                *said.lock() = check;
                continue;
            }
            let addresses = match &self.on {
                NodePorts::Everywhere => vec![self.family.any()],
                NodePorts::At(addresses) => addresses.clone(),
            };
            let opened: std::io::Result<Vec<_>> =
                addresses.into_iter().map(|ip| open(SocketAddr::new(ip, port))).collect();
            match opened {
                Ok(listeners) => self.answer(port, listeners, check),
                // Somebody else has it; the next change tries again.
                Err(error) => warn!(%error, port, "health check port of a service cannot be opened"),
            }
        }
    }

    fn answer(&mut self, port: u16, listeners: Vec<TcpListener>, check: Check) {
        let (said, token) = (Arc::new(Mutex::new(check)), self.token.child_token());
        for listener in listeners {
            let (shown, proxy, ended) = (said.clone(), self.proxy.clone(), token.clone());
            let respond = move |_: &Request<Incoming>| say(&shown.lock(), proxy.is_healthy());
            self.tracker.spawn(async move {
                if let Err(error) = serve_with(listener, respond, ended).await {
                    warn!(error = %format!("{error:#}"), port, "health check port of a service closed");
                }
            });
        }
        self.open.insert(port, (said, token));
    }

    /// Closes all ports.
    pub async fn close(self) {
        self.token.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// Listens on an address, or on all of its family, and on none of the other.
fn open(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if address.is_ipv6() {
        rustix::net::sockopt::set_ipv6_v6only(&socket, true)?;
    }
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn say(check: &Check, healthy: bool) -> Response<Full<Bytes>> {
    let code = if check.endpoints > 0 && healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let (namespace, name) = &check.service;
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": {namespace:?},\n\t\t\"name\": {name:?}\n\t}},\n\t\"localEndpoints\": {},\n\t\
         \"serviceProxyHealthy\": {healthy}\n}}",
        check.endpoints
    );
    let mut response = json_response(code, body);
    response.headers_mut().insert("x-load-balancing-endpoint-weight", HeaderValue::from(check.endpoints));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[tokio::test(start_paused = true)]
    async fn rules_that_stay_behind_are_told_and_a_node_that_goes_too() {
        let health = ProxyHealth::default();
        let code = |with_node| health.answer(with_node, Timestamp::UNIX_EPOCH).0.as_u16();
        health.set_eligible(true);
        assert_eq!((code(true), code(false)), (200, 200), "while it starts");
        health.queued(Family::V4);
        tokio::time::advance(LATE / 2).await;
        health.queued(Family::V4);
        assert_eq!(code(true), 200, "not late yet");
        tokio::time::advance(LATE / 2).await;
        assert_eq!((code(true), code(false)), (503, 503), "late");
        health.updated(Family::V4);
        assert_eq!(code(true), 200);
        health.set_eligible(false);
        assert_eq!((code(true), code(false)), (503, 200), "the node is to go");
        let body = health.answer(true, Timestamp::UNIX_EPOCH).1;
        assert_eq!((&body["healthy"], &body["nodeEligible"]), (&json!(true), &json!(false)));
        assert_eq!(body["status"]["IPv4"]["healthy"], true);
    }

    #[tokio::test]
    async fn a_service_is_well_where_it_has_endpoints_and_rules() {
        let check = |endpoints| Check { service: ("ns".into(), "web".into()), endpoints };
        for (endpoints, healthy, code) in [(2, true, 200), (0, true, 503), (2, false, 503)] {
            let response = say(&check(endpoints), healthy);
            assert_eq!(response.status().as_u16(), code, "{endpoints} {healthy}");
            assert_eq!(response.headers()["x-load-balancing-endpoint-weight"], endpoints.to_string());
            let body = response.into_body().collect().await.expect("a body").to_bytes();
            let body: Value = serde_json::from_slice(&body).expect("JSON");
            let expected = json!({"service": {"namespace": "ns", "name": "web"}, "localEndpoints": endpoints,
                                  "serviceProxyHealthy": healthy});
            assert_eq!(body, expected);
        }
    }

    #[tokio::test]
    async fn ports_open_and_close_with_their_services_in_each_family_by_itself() {
        let token = CancellationToken::new();
        let free =
            TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("its address").port();
        let answers = |address: &'static str| async move {
            tokio::net::TcpStream::connect((address, free)).await.is_ok()
        };
        let new = |family| ServiceHealth::new(family, ProxyHealth::default(), &token);
        let (mut v4, mut v6) = (new(Family::V4), new(Family::V6));
        let check = BTreeMap::from([(free, Check { service: ("ns".into(), "web".into()), endpoints: 1 })]);
        v4.sync(check.clone(), &NodePorts::Everywhere).await;
        assert!(answers("127.0.0.1").await && !answers("::1").await);
        v4.sync(BTreeMap::new(), &NodePorts::Everywhere).await;
        v4.close().await;
        v6.sync(check.clone(), &NodePorts::Everywhere).await;
        // A machine without IPv6 opens nothing.
        assert_eq!(answers("::1").await, std::path::Path::new("/proc/net/if_inet6").exists());
        assert!(!answers("127.0.0.1").await);
        v6.close().await;
        assert!(!answers("::1").await);
        // On some addresses alone, which may become others.
        let at = |ip: &str| NodePorts::At(vec![ip.parse().expect("an address")]);
        let mut some = new(Family::V4);
        some.sync(check.clone(), &at("127.0.0.2")).await;
        assert!(answers("127.0.0.2").await && !answers("127.0.0.1").await);
        some.sync(check, &at("127.0.0.1")).await;
        assert!(answers("127.0.0.1").await);
        some.close().await;
    }
}
