//! What a Service is given when it is written: IP families, cluster IPs, node ports (upstream
//! `registry/core/service/storage/alloc.go`).
//!
//! [`ServiceAllocators::create`] and [`ServiceAllocators::update`] run before the strategy prepares and validates the
//! object. They fill it in and return a [`Reservation`], which is committed after the write or reverted if there was
//! none.

use std::net::IpAddr;
use std::sync::Arc;

use api::field;
use api::names::GroupVersionKind;
use api::status::ApiError;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use serde_json::{Value, json};

use super::node_port::{self, NodePorts};
use super::service_ip::{self, ServiceIps, family};

/// Gives Services what they need.
pub struct ServiceAllocators {
    ips: Arc<ServiceIps>,
    ports: Arc<NodePorts>,
}

/// What was taken for a write, and what it will make superfluous.
#[must_use = "commit after the write, revert if there was none"]
pub struct Reservation {
    ips: Arc<ServiceIps>,
    ports: Arc<NodePorts>,
    dry_run: bool,
    taken_ips: Vec<IpAddr>,
    taken_ports: Vec<i32>,
    superfluous_ips: Vec<IpAddr>,
    superfluous_ports: Vec<i32>,
}

impl Reservation {
    /// The object was written: gives back what it no longer has.
    pub async fn commit(self) {
        self.give_back(&self.superfluous_ips, &self.superfluous_ports).await;
    }

    /// The object was not written: gives back what was taken for it.
    pub async fn revert(self) {
        self.give_back(&self.taken_ips, &self.taken_ports).await;
    }

    async fn give_back(&self, ips: &[IpAddr], ports: &[i32]) {
        if self.dry_run {
            return;
        }
        self.ips.release(ips).await;
        if let Err(error) = self.ports.release(ports).await {
            tracing::warn!(%error, ?ports, "could not release node ports");
        }
    }

    async fn port(&mut self, port: i32) -> Result<(), node_port::Error> {
        if self.dry_run {
            if self.taken_ports.contains(&port) || self.ports.has(port).await? {
                return Err(node_port::Error::Allocated);
            }
        } else {
            self.ports.allocate(port).await?;
        }
        self.taken_ports.push(port);
        Ok(())
    }

    async fn next_port(&mut self) -> Result<i32, node_port::Error> {
        let port = if self.dry_run {
            // A guess that nothing is based on.
            self.taken_ports.iter().max().map_or(1, |last| last + 1)
        } else {
            self.ports.allocate_next().await?
        };
        self.taken_ports.push(port);
        Ok(port)
    }
}

const IP_TYPES: [&str; 3] = ["ClusterIP", "NodePort", "LoadBalancer"];

fn kind() -> GroupVersionKind {
    GroupVersionKind::new("", "v1", "Service")
}

fn type_of(spec: &ServiceSpec) -> &str {
    spec.type_.as_deref().unwrap_or("ClusterIP")
}

fn cluster_ip(spec: &ServiceSpec) -> &str {
    spec.cluster_ip.as_deref().unwrap_or_default()
}

fn cluster_ips(spec: &ServiceSpec) -> &[String] {
    spec.cluster_ips.as_deref().unwrap_or_default()
}

fn families(spec: &ServiceSpec) -> &[String] {
    spec.ip_families.as_deref().unwrap_or_default()
}

fn ports(spec: &ServiceSpec) -> &[ServicePort] {
    spec.ports.as_deref().unwrap_or_default()
}

fn policy(spec: &ServiceSpec) -> &str {
    spec.ip_family_policy.as_deref().unwrap_or_default()
}

fn is_headless(spec: &ServiceSpec) -> bool {
    cluster_ips(spec).first().is_some_and(|ip| ip == "None")
}

fn takes_node_ports(spec: &ServiceSpec) -> bool {
    match type_of(spec) {
        "NodePort" => true,
        "LoadBalancer" => spec.allocate_load_balancer_node_ports != Some(false),
        _ => false,
    }
}

fn takes_health_check_port(spec: &ServiceSpec) -> bool {
    type_of(spec) == "LoadBalancer" && spec.external_traffic_policy.as_deref() == Some("Local")
}

fn node_ports(spec: &ServiceSpec) -> Vec<i32> {
    ports(spec).iter().filter_map(|port| port.node_port).filter(|port| *port != 0).collect()
}

fn address(text: &str) -> Option<IpAddr> {
    text.parse().ok()
}

fn spec_of(object: &Value) -> Result<ServiceSpec, ApiError> {
    let service: Service = api::json::read(object)
        .map_err(|error| ApiError::bad_request(format!("Service cannot be decoded: {error}")))?;
    Ok(service.spec.unwrap_or_default())
}

/// Writes the fields that are decided here back into the object.
fn write_back(object: &mut Value, spec: &ServiceSpec) {
    let Some(target) = object["spec"].as_object_mut() else { return };
    let mut set = |name: &str, value: Option<Value>| match value {
        Some(value) => drop(target.insert(name.to_owned(), value)),
        None => drop(target.remove(name)),
    };
    let list =
        |list: &Option<Vec<String>>| list.as_ref().filter(|list| !list.is_empty()).map(|list| json!(list));
    set("clusterIP", spec.cluster_ip.as_ref().filter(|ip| !ip.is_empty()).map(|ip| json!(ip)));
    set("clusterIPs", list(&spec.cluster_ips));
    set("ipFamilies", list(&spec.ip_families));
    set("ipFamilyPolicy", spec.ip_family_policy.as_ref().map(|policy| json!(policy)));
    set("healthCheckNodePort", spec.health_check_node_port.filter(|port| *port != 0).map(|port| json!(port)));
    if let Some(targets) = target.get_mut("ports").and_then(Value::as_array_mut) {
        for (target, port) in targets.iter_mut().zip(ports(spec)) {
            let Some(target) = target.as_object_mut() else { continue };
            match port.node_port.filter(|port| *port != 0) {
                Some(port) => drop(target.insert("nodePort".to_owned(), json!(port))),
                None => drop(target.remove("nodePort")),
            }
        }
    }
}

fn invalid(name: &str, errors: &[field::Error]) -> ApiError {
    ApiError::invalid(&kind(), name, errors)
}

fn spec_path(child: &str) -> field::Path {
    field::Path::new("spec").child(child)
}

impl ServiceAllocators {
    /// Gives out from these two.
    #[must_use]
    pub fn new(ips: Arc<ServiceIps>, ports: Arc<NodePorts>) -> Self {
        Self { ips, ports }
    }

    fn reservation(&self, dry_run: bool) -> Reservation {
        Reservation {
            ips: self.ips.clone(),
            ports: self.ports.clone(),
            dry_run,
            taken_ips: Vec::new(),
            taken_ports: Vec::new(),
            superfluous_ips: Vec::new(),
            superfluous_ports: Vec::new(),
        }
    }

    /// Fills in a new Service.
    pub async fn create(&self, object: &mut Value, dry_run: bool) -> Result<Reservation, ApiError> {
        let mut spec = spec_of(object)?;
        if !cluster_ip(&spec).is_empty() && cluster_ips(&spec).is_empty() {
            spec.cluster_ips = Some(vec![cluster_ip(&spec).to_owned()]);
        }
        let (namespace, name) = names(object);
        init_families(&mut spec, None, &name, &self.ips.families())?;
        let mut reservation = self.reservation(dry_run);
        let done = async {
            if gets_ips(&spec) {
                self.all_ips(&mut spec, &namespace, &name, &mut reservation).await?;
            }
            if matches!(type_of(&spec), "NodePort" | "LoadBalancer") {
                init_node_ports(&mut spec, &name, &mut reservation).await?;
            }
            if takes_health_check_port(&spec) {
                health_check_port(&mut spec, &mut reservation).await?;
            }
            Ok(())
        };
        finish(done.await, reservation, object, &spec).await
    }

    /// Fills in a changed Service.
    pub async fn update(
        &self,
        object: &mut Value,
        old: &Value,
        dry_run: bool,
    ) -> Result<Reservation, ApiError> {
        let (mut spec, old) = (spec_of(object)?, spec_of(old)?);
        carry_over(&mut spec, &old);
        normalize_cluster_ips(&mut spec, &old);
        let (namespace, name) = names(object);
        init_families(&mut spec, Some(&old), &name, &self.ips.families())?;
        let mut reservation = self.reservation(dry_run);
        let done = async {
            self.update_ips(&mut spec, &old, &namespace, &name, &mut reservation).await?;
            update_node_ports(&mut spec, &old, &name, &mut reservation).await?;
            match (takes_health_check_port(&old), takes_health_check_port(&spec)) {
                (false, true) => health_check_port(&mut spec, &mut reservation).await?,
                (true, false) => reservation.superfluous_ports.extend(old.health_check_node_port),
                _ => {}
            }
            Ok(())
        };
        finish(done.await, reservation, object, &spec).await
    }

    /// Gives back everything a deleted Service had.
    pub async fn release(&self, object: &Value) {
        let Ok(spec) = spec_of(object) else { return };
        let mut reservation = self.reservation(false);
        if gets_ips(&spec) {
            reservation.superfluous_ips = cluster_ips(&spec).iter().filter_map(|ip| address(ip)).collect();
        }
        reservation.superfluous_ports = node_ports(&spec);
        if takes_health_check_port(&spec) {
            reservation.superfluous_ports.extend(spec.health_check_node_port);
        }
        reservation.commit().await;
    }

    /// Gives an address to each family that has none.
    async fn all_ips(
        &self,
        spec: &mut ServiceSpec,
        namespace: &str,
        name: &str,
        reservation: &mut Reservation,
    ) -> Result<(), ApiError> {
        for index in 0..families(spec).len() {
            let given = self.one_ip(spec, index, namespace, name, reservation).await?;
            let list = spec.cluster_ips.get_or_insert_default();
            if list.len() <= index {
                list.push(given.clone());
            } else {
                list[index].clone_from(&given);
            }
            if index == 0 {
                spec.cluster_ip = Some(given);
            }
        }
        Ok(())
    }

    async fn one_ip(
        &self,
        spec: &ServiceSpec,
        index: usize,
        namespace: &str,
        name: &str,
        reservation: &mut Reservation,
    ) -> Result<String, ApiError> {
        let path = spec_path("clusterIPs");
        let wanted = cluster_ips(spec).get(index).filter(|ip| !ip.is_empty());
        let shown = || json!(cluster_ips(spec));
        if let Some(wanted) = wanted {
            let Some(address) = address(wanted) else {
                return Err(ApiError::internal(format!("failed to parse service IP {wanted:?}")));
            };
            let taken = self.ips.allocate(namespace, name, address, reservation.dry_run).await;
            taken.map_err(|error| {
                let why = format!("failed to allocate IP {wanted}: {error}");
                invalid(name, &[field::Error::invalid(&path, shown(), why)])
            })?;
            reservation.taken_ips.push(address);
            return Ok(wanted.clone());
        }
        let family = &families(spec)[index];
        match self.ips.allocate_next(namespace, name, family, reservation.dry_run).await {
            Ok(address) => {
                reservation.taken_ips.push(address);
                Ok(address.to_string())
            }
            Err(error @ service_ip::Error::Full) => Err(ApiError::internal(format!(
                "failed to allocate a serviceIP for Service {name:?}: {error}"
            ))),
            Err(error) => {
                let why = format!("failed to allocate IP: {error}");
                Err(invalid(name, &[field::Error::invalid(&path, shown(), why)]))
            }
        }
    }

    async fn update_ips(
        &self,
        spec: &mut ServiceSpec,
        old: &ServiceSpec,
        namespace: &str,
        name: &str,
        reservation: &mut Reservation,
    ) -> Result<(), ApiError> {
        if unchanged_dual_stack(spec, old) {
            return Ok(());
        }
        let (was, is) = (type_of(old) == "ExternalName", type_of(spec) == "ExternalName");
        if was && !is {
            if is_headless(spec) {
                return Ok(());
            }
            return self.all_ips(spec, namespace, name, reservation).await;
        }
        if is_headless(old) {
            return Ok(());
        }
        if !was && is {
            reservation.superfluous_ips = cluster_ips(old).iter().filter_map(|ip| address(ip)).collect();
            return Ok(());
        }
        match (families(old).len(), families(spec).len()) {
            (1, 2) => {
                let given = self.one_ip(spec, 1, namespace, name, reservation).await?;
                let list = spec.cluster_ips.get_or_insert_default();
                list.truncate(1);
                list.push(given);
            }
            (2, 1) => reservation.superfluous_ips.extend(cluster_ips(old).get(1).and_then(|ip| address(ip))),
            _ => {}
        }
        Ok(())
    }
}

/// Writes back what was decided, or undoes what was taken.
async fn finish(
    done: Result<(), ApiError>,
    reservation: Reservation,
    object: &mut Value,
    spec: &ServiceSpec,
) -> Result<Reservation, ApiError> {
    match done {
        Ok(()) => {
            write_back(object, spec);
            Ok(reservation)
        }
        Err(error) => {
            reservation.revert().await;
            Err(error)
        }
    }
}

fn names(object: &Value) -> (String, String) {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}

fn gets_ips(spec: &ServiceSpec) -> bool {
    type_of(spec) != "ExternalName" && !is_headless(spec)
}

/// Values a client may leave out of an update because they were given before.
fn carry_over(spec: &mut ServiceSpec, old: &ServiceSpec) {
    if type_of(old) != "ExternalName" && type_of(spec) != "ExternalName" {
        if cluster_ip(spec).is_empty() {
            spec.cluster_ip.clone_from(&old.cluster_ip);
        }
        if cluster_ips(spec).is_empty() {
            spec.cluster_ips.clone_from(&old.cluster_ips);
        }
    }
    if takes_node_ports(old) && takes_node_ports(spec) {
        let new = node_ports(spec);
        let kept: Vec<i32> = node_ports(old).into_iter().filter(|port| new.contains(port)).collect();
        for port in spec.ports.iter_mut().flatten().filter(|port| port.node_port.unwrap_or_default() == 0) {
            let before =
                ports(old).iter().rev().find(|old| old.name == port.name).and_then(|old| old.node_port);
            if before.is_some_and(|before| !kept.contains(&before)) {
                port.node_port = before;
            }
        }
    }
    if takes_health_check_port(old)
        && takes_health_check_port(spec)
        && spec.health_check_node_port.unwrap_or_default() == 0
    {
        spec.health_check_node_port = old.health_check_node_port;
    }
}

/// Old clients know `clusterIP` only: what they do to it is done to `clusterIPs`.
fn normalize_cluster_ips(spec: &mut ServiceSpec, old: &ServiceSpec) {
    if !cluster_ips(old).is_empty() && cluster_ips(spec).is_empty() && cluster_ip(old) == cluster_ip(spec) {
        spec.cluster_ips.clone_from(&old.cluster_ips);
    }
    if cluster_ip(old) != cluster_ip(spec) && cluster_ips(old) == cluster_ips(spec) {
        let cleared = !cluster_ip(old).is_empty() && cluster_ip(spec).is_empty();
        spec.cluster_ips = (!cleared).then(|| vec![cluster_ip(spec).to_owned()]);
    }
}

/// A Service that prefers two families is not changed just because the cluster got or lost one.
fn unchanged_dual_stack(spec: &ServiceSpec, old: &ServiceSpec) -> bool {
    type_of(spec) == type_of(old)
        && IP_TYPES.contains(&type_of(spec))
        && spec.ip_family_policy.is_some()
        && policy(spec) == "PreferDualStack"
        && matches!(old.ip_family_policy.as_deref(), None | Some("PreferDualStack"))
        && cluster_ips(spec) == cluster_ips(old)
        && families(spec) == families(old)
}

/// Decides on families and policy.
fn init_families(
    spec: &mut ServiceSpec,
    old: Option<&ServiceSpec>,
    name: &str,
    configured: &[&str],
) -> Result<(), ApiError> {
    if type_of(spec) == "ExternalName" || old.is_some_and(|old| unchanged_dual_stack(spec, old)) {
        return Ok(());
    }
    let plain_headless =
        cluster_ip(spec) == "None" && spec.selector.as_ref().is_none_or(std::collections::BTreeMap::is_empty);
    if spec.ip_family_policy.is_none() {
        let before = old.and_then(|old| old.ip_family_policy.clone());
        let default = if plain_headless { "RequireDualStack" } else { "SingleStack" };
        spec.ip_family_policy = Some(before.unwrap_or_else(|| default.to_owned()));
    }
    fail(name, validate_cluster_ips(spec))?;
    fail(name, check_policy(spec, old))?;
    fail(name, infer_families(spec, configured))?;
    let default_family = || configured.first().copied().unwrap_or("IPv4").to_owned();
    let other = |family: &str| if family == "IPv4" { "IPv6" } else { "IPv4" }.to_owned();
    let single = policy(spec) == "SingleStack";
    if plain_headless {
        let list = spec.ip_families.get_or_insert_default();
        if list.is_empty() {
            list.push(default_family());
        }
        if list.len() < 2 && !single {
            list.push(other(&list[0].clone()));
        }
        return Ok(());
    }
    let mut errors = Vec::new();
    if policy(spec) == "RequireDualStack" && configured.len() < 2 {
        let why = "this cluster is not configured for dual-stack services";
        errors.push(field::Error::invalid(&spec_path("ipFamilyPolicy"), policy(spec), why));
    }
    for (index, family) in families(spec).iter().enumerate() {
        if !configured.contains(&family.as_str()) {
            let path = spec_path("ipFamilies").index(index);
            errors.push(field::Error::invalid(&path, family.as_str(), "not configured on this cluster"));
        }
    }
    fail(name, errors)?;
    let list = spec.ip_families.get_or_insert_default();
    if list.is_empty() {
        list.push(default_family());
    }
    if !single && list.len() == 1 && configured.len() == 2 {
        list.push(other(&list[0].clone()));
    }
    Ok(())
}

fn fail(name: &str, errors: field::ErrorList) -> Result<(), ApiError> {
    if errors.is_empty() { Ok(()) } else { Err(invalid(name, &errors)) }
}

/// What must hold before anything is inferred (upstream `ValidateServiceClusterIPsRelatedFields`).
fn validate_cluster_ips(spec: &ServiceSpec) -> field::ErrorList {
    let mut errors = Vec::new();
    let path = spec_path("clusterIPs");
    let list = cluster_ips(spec);
    let shown = || json!(list);
    match (cluster_ip(spec), list.first()) {
        ("", Some(_)) => {
            errors.push(field::Error::invalid(
                &path,
                shown(),
                "must be empty when `clusterIP` is not specified",
            ));
        }
        ("", None) => {}
        (_, None) => errors.push(field::Error::required(&path, "")),
        (ip, Some(first)) if ip != first => {
            errors.push(field::Error::invalid(&path, shown(), "first value must match `clusterIP`"));
        }
        _ => {}
    }
    let mut seen: Vec<&str> = Vec::new();
    for (index, family) in families(spec).iter().enumerate() {
        let at = spec_path("ipFamilies").index(index);
        if !matches!(family.as_str(), "IPv4" | "IPv6") {
            errors.push(field::Error::not_supported(&at, family.as_str(), &["IPv4", "IPv6"]));
        }
        if seen.contains(&family.as_str()) {
            errors.push(field::Error::duplicate(&at, family.as_str()));
        }
        seen.push(family);
    }
    if !matches!(policy(spec), "" | "SingleStack" | "PreferDualStack" | "RequireDualStack") {
        let supported = ["PreferDualStack", "RequireDualStack", "SingleStack"];
        errors.push(field::Error::not_supported(&spec_path("ipFamilyPolicy"), policy(spec), &supported));
    }
    let mut bad = false;
    for (index, ip) in list.iter().enumerate() {
        if index == 0 && ip == "None" {
            if list.len() > 1 {
                bad = true;
                errors.push(field::Error::invalid(&path, shown(), "'None' must be the first and only value"));
            }
            continue;
        }
        if address(ip).is_none() {
            bad = true;
            let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            errors.push(field::Error::invalid(&path.index(index), ip.as_str(), why));
        }
    }
    if list.len() > 2 {
        errors.push(field::Error::invalid(&path, shown(), "may only hold up to 2 values"));
    }
    if bad {
        return errors;
    }
    let addresses: Vec<IpAddr> = list.iter().filter_map(|ip| address(ip)).collect();
    if list.len() > 1 && addresses.iter().all(|ip| ip.is_ipv4() == addresses[0].is_ipv4()) {
        errors.push(field::Error::invalid(
            &path,
            shown(),
            "may specify no more than one IP for each IP family",
        ));
    }
    for (index, (ip, expected)) in addresses.iter().zip(families(spec)).enumerate() {
        if !is_headless(spec) && family(*ip) != expected && matches!(expected.as_str(), "IPv4" | "IPv6") {
            let why = format!("expected an {expected} value as indicated by `ipFamilies[{index}]`");
            errors.push(field::Error::invalid(&path.index(index), list[index].as_str(), why));
        }
    }
    errors
}

/// Whether the policy fits the number of addresses and families; drops what going back to one family makes
/// superfluous.
fn check_policy(spec: &mut ServiceSpec, old: Option<&ServiceSpec>) -> field::ErrorList {
    let mut errors = Vec::new();
    let path = spec_path("ipFamilyPolicy");
    let single = policy(spec) == "SingleStack";
    if let Some(old) = old {
        let same_ips = cluster_ips(old) == cluster_ips(spec);
        let same_families = families(old) == families(spec);
        if single {
            if same_ips && let Some(list) = &mut spec.cluster_ips {
                list.truncate(1);
            }
            if same_families && let Some(list) = &mut spec.ip_families {
                list.truncate(1);
            }
        } else {
            let fewer = |new: &[String], old: &[String]| !new.is_empty() && new.len() < old.len();
            if fewer(cluster_ips(spec), cluster_ips(old)) {
                let why = "must be 'SingleStack' to release the secondary cluster IP";
                errors.push(field::Error::invalid(&path, policy(spec), why));
            }
            if fewer(families(spec), families(old)) {
                let why = "must be 'SingleStack' to release the secondary IP family";
                errors.push(field::Error::invalid(&path, policy(spec), why));
            }
        }
    }
    if single {
        for (count, what) in [(cluster_ips(spec).len(), "cluster IPs"), (families(spec).len(), "IP families")]
        {
            if count == 2 {
                let why = format!(
                    "must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified"
                );
                errors.push(field::Error::invalid(&path, policy(spec), why));
            }
        }
    }
    errors
}

/// Adds the families of the addresses given.
fn infer_families(spec: &mut ServiceSpec, configured: &[&str]) -> field::ErrorList {
    let mut errors = Vec::new();
    let given: Vec<String> = cluster_ips(spec).to_vec();
    for (index, ip) in given.iter().enumerate() {
        if ip == "None" {
            break;
        }
        let Some(address) = address(ip) else { continue };
        if index >= families(spec).len() {
            let family = family(address);
            if configured.contains(&family) {
                spec.ip_families.get_or_insert_default().push(family.to_owned());
            } else {
                let why = format!("{family} is not configured on this cluster");
                errors.push(field::Error::invalid(&spec_path("clusterIPs").index(index), json!(given), why));
            }
        }
    }
    errors
}

fn node_port_error(name: &str, index: usize, port: i32, error: &node_port::Error) -> ApiError {
    let path = spec_path("ports").index(index).child("nodePort");
    invalid(name, &[field::Error::invalid(&path, port, error.to_string())])
}

/// Node ports of a new Service: ports with the same number (TCP and UDP) share one.
async fn init_node_ports(
    spec: &mut ServiceSpec,
    name: &str,
    reservation: &mut Reservation,
) -> Result<(), ApiError> {
    let automatic = takes_node_ports(spec);
    let mut given: Vec<(i32, i32)> = Vec::new();
    for index in 0..ports(spec).len() {
        let (number, asked) = (ports(spec)[index].port, ports(spec)[index].node_port.unwrap_or_default());
        if asked == 0 && !automatic {
            continue;
        }
        let shared = given.iter().find(|(port, _)| *port == number).map(|(_, node_port)| *node_port);
        let node_port = match shared {
            None => {
                let same =
                    |port: &&ServicePort| port.port == number && port.node_port.unwrap_or_default() != 0;
                let requested = ports(spec).iter().find(same).and_then(|port| port.node_port);
                let node_port = match requested {
                    Some(port) => {
                        let taken = reservation.port(port).await;
                        taken.map_err(|error| node_port_error(name, index, port, &error))?;
                        port
                    }
                    None => next_port(reservation).await?,
                };
                given.push((number, node_port));
                node_port
            }
            Some(shared) if asked == 0 || asked == shared => shared,
            Some(_) => {
                let taken = reservation.port(asked).await;
                taken.map_err(|error| node_port_error(name, index, asked, &error))?;
                asked
            }
        };
        if let Some(port) = spec.ports.as_mut().and_then(|ports| ports.get_mut(index)) {
            port.node_port = Some(node_port);
        }
    }
    Ok(())
}

async fn next_port(reservation: &mut Reservation) -> Result<i32, ApiError> {
    let port = reservation.next_port().await;
    port.map_err(|error| ApiError::internal(format!("failed to allocate a nodePort: {error}")))
}

async fn health_check_port(spec: &mut ServiceSpec, reservation: &mut Reservation) -> Result<(), ApiError> {
    let asked = spec.health_check_node_port.unwrap_or_default();
    if asked == 0 {
        let port = reservation.next_port().await.map_err(|error| {
            ApiError::internal(format!("failed to allocate a HealthCheck NodePort 0: {error}"))
        })?;
        spec.health_check_node_port = Some(port);
        return Ok(());
    }
    reservation.port(asked).await.map_err(|error| {
        ApiError::internal(format!("failed to allocate requested HealthCheck NodePort {asked}: {error}"))
    })
}

async fn update_node_ports(
    spec: &mut ServiceSpec,
    old: &ServiceSpec,
    name: &str,
    reservation: &mut Reservation,
) -> Result<(), ApiError> {
    let before = node_ports(old);
    if !matches!(type_of(spec), "NodePort" | "LoadBalancer") {
        if matches!(type_of(old), "NodePort" | "LoadBalancer") {
            reservation.superfluous_ports.extend(before);
        }
        return Ok(());
    }
    let automatic = takes_node_ports(spec);
    let mut seen: Vec<(Option<String>, i32)> = Vec::new();
    for index in 0..ports(spec).len() {
        let asked = ports(spec)[index].node_port.unwrap_or_default();
        if asked == 0 && !automatic {
            continue;
        }
        let mut node_port = asked;
        if asked == 0 {
            node_port = next_port(reservation).await?;
        } else if !before.contains(&asked) && !reservation.taken_ports.contains(&asked) {
            let taken = reservation.port(asked).await;
            taken.map_err(|error| node_port_error(name, index, asked, &error))?;
        }
        let protocol = ports(spec)[index].protocol.clone();
        let key = (protocol.clone(), node_port);
        if seen.contains(&key) {
            let protocol = protocol.unwrap_or_default();
            return Err(ApiError::internal(format!("duplicate nodePort: {{{protocol} {node_port}}}")));
        }
        seen.push(key);
        if let Some(port) = spec.ports.as_mut().and_then(|ports| ports.get_mut(index)) {
            port.node_port = Some(node_port);
        }
    }
    let after = node_ports(spec);
    reservation.superfluous_ports.extend(before.into_iter().filter(|port| !after.contains(port)));
    Ok(())
}

#[cfg(test)]
mod tests;
