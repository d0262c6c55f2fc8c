//! Authentication, authorization, admission and what else stands on informers over the loopback client.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use client::{Client, SharedInformerFactory, Tasks};

use super::{Server, own_directory, tls};
use crate::admission::configuration::Configured;
use crate::admission::{self, Plugin};
use crate::aggregator::Aggregator;
use crate::authn::discovery::Documents;
use crate::authn::impersonation::Impersonation;
use crate::authn::setup::{Authentication, setup};
use crate::authn::token_request::Issuer;
use crate::authn::union::Tokens;
use crate::authn::{self, Authenticator};
use crate::authz::escalation::Escalation;
use crate::authz::{self, Authorizer};
use crate::config::{AuthenticationConfig, Config};
use crate::egress::Egress;
use crate::registry::device_access::DeviceAccess;
use crate::registry::node_port::NodePorts;
use crate::registry::service_allocator::ServiceAllocators;
use crate::registry::service_ip::ServiceIps;
use crate::registry::service_repair::ServiceRepair;
use crate::remote::Resolver;
use crate::streaming::Streaming;
use crate::webhook::Clients;

/// The issuer of service account tokens, unless another is configured.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Who may do what, and what is done about it.
pub struct Security {
    /// Says who asks.
    pub authenticator: Arc<dyn Authenticator>,
    /// Says who a token is, for reviews.
    pub tokens: Tokens,
    /// Audiences of this server.
    pub audiences: Vec<String>,
    /// Makes service account tokens.
    pub issuer: Option<Arc<Issuer>>,
    /// What others need to verify them.
    pub documents: Option<Documents>,
    /// Decides about impersonation.
    pub impersonation: Impersonation,
    /// Says what they may.
    pub authorizer: Arc<dyn Authorizer>,
    /// Keeps users from giving themselves more than they have.
    pub escalation: Escalation,
    /// Says who gets devices, and who says so.
    pub devices: DeviceAccess,
    /// Admission plugins in order.
    pub admission: Vec<Arc<dyn Plugin>>,
    /// Gives Services addresses and ports.
    pub services: ServiceAllocators,
    /// Passes requests on to kubelets, pods and services.
    pub streaming: Streaming,
    /// Passes requests on to other API servers.
    pub aggregator: Aggregator,
}

/// How others are reached.
pub struct Remotes<'a> {
    /// Knows where Services are.
    pub resolver: &'a Resolver,
    /// Reaches webhooks.
    pub webhooks: &'a Clients,
    /// How connections are opened.
    pub egress: &'a Egress,
}

impl Security {
    /// Builds everything; informers begin to fill at once.
    pub fn build(
        server: &Server,
        own: Client,
        informers: &SharedInformerFactory,
        remotes: &Remotes<'_>,
        tasks: &Tasks,
    ) -> anyhow::Result<(Self, ServiceRepair)> {
        let config = &server.config;
        let authentication = with_signing_key(config)?;
        let Authentication { authenticator, tokens, audiences, issuer, documents } = setup(
            &authentication,
            &authn::setup::Deps {
                client: &own,
                informers,
                tasks,
                external: &server.external_address(),
                egress: remotes.egress,
            },
        )?;
        let dialer = remotes.egress.control_plane();
        let (authorizer, rbac) = authz::setup::setup(&config.authorization, informers, tasks, dialer)?;
        let authorizer: Arc<dyn Authorizer> = Arc::new(authorizer);
        let escalation = Escalation::new(rbac, Arc::clone(&authorizer), own.clone());
        let devices = DeviceAccess::new(own.clone(), Arc::clone(&authorizer));
        let deps = admission::Deps {
            client: own.clone(),
            informers,
            authorizer: Arc::clone(&authorizer),
            registry: Arc::clone(&server.registry),
            webhooks: remotes.webhooks.clone(),
            config,
            configured: Configured::load(config.admission_file.as_deref(), |name| {
                admission::is_on(config, name)
            })?,
        };
        let (admission, unknown) = admission::chain(&deps);
        if !unknown.is_empty() {
            anyhow::bail!("unknown admission plugins: {}", unknown.join(", "));
        }
        let ips = Arc::new(ServiceIps::new(own.clone(), informers, config.service_cluster_ip_ranges.clone()));
        let store = Arc::clone(server.cacher.store());
        let ports = Arc::new(NodePorts::new(store, &config.storage_prefix, config.service_node_ports));
        let repair = ServiceRepair::new(informers, Arc::clone(&ips), Arc::clone(&ports));
        let identity = config.proxy_client.clone();
        let (resolver, cluster) = (remotes.resolver.clone(), remotes.egress.cluster());
        let openapi = server.openapi.clone();
        let aggregator =
            Aggregator::new(own.clone(), informers, resolver, cluster.clone(), identity, openapi);
        let streaming =
            Streaming::new(own, informers, &config.kubelet_client, Arc::clone(&authorizer), cluster)
                .context("kubelet client")?;
        let security = Self {
            authenticator,
            tokens,
            audiences,
            issuer,
            documents,
            impersonation: Impersonation::default(),
            authorizer,
            escalation,
            devices,
            admission,
            services: ServiceAllocators::new(ips, ports),
            streaming,
            aggregator,
        };
        Ok((security, repair))
    }
}

/// The configuration with a key and an issuer for service account tokens: made, and kept, if none are configured.
fn with_signing_key(config: &Config) -> anyhow::Result<AuthenticationConfig> {
    let mut authentication = config.authentication.clone();
    if authentication.service_account_issuers.is_empty() {
        authentication.service_account_issuers.push(ISSUER.to_owned());
    }
    if authentication.service_account_signing_key_file.is_none() {
        let path = own_directory(config).join("sa.key");
        if !path.exists() {
            make_key(&path)?;
        }
        authentication.service_account_key_files.push(path.clone());
        authentication.service_account_signing_key_file = Some(path);
    }
    Ok(authentication)
}

fn make_key(path: &Path) -> anyhow::Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    }
    let key = rcgen::KeyPair::generate().context("make a key for service account tokens")?;
    tls::write_private(path, key.serialize_pem().as_bytes())
}
