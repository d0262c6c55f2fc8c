//! Webhooks that a kubeconfig file names (upstream `webhook.LoadKubeconfig`): the cluster is the webhook, the user is
//! this server.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use kube::config::{AuthInfo, Cluster, Kubeconfig};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio_rustls::TlsConnector;

use super::access::{Access, Base, pem};
use super::{CallError, Client, LIMIT, cleaned};
use crate::remote::{Dialer, Listens, Protocol, Proxy, Trust};

/// Where a cluster keeps what programs that make credentials are to know of it.
const EXTENSION: &str = "client.authentication.k8s.io/exec";

/// Reads a kubeconfig file; paths in it are relative to it.
pub(super) fn read(path: &Path) -> Result<Kubeconfig, CallError> {
    let mut config = Kubeconfig::read_from(path)
        .map_err(|error| CallError::new(format!("{}: {error}", path.display())))?;
    // The older version of programs' protocol did not ask for it.
    for exec in config.auth_infos.iter_mut().filter_map(|user| user.auth_info.as_mut()?.exec.as_mut()) {
        if exec.api_version.as_deref() == Some("client.authentication.k8s.io/v1beta1") {
            exec.interactive_mode.get_or_insert(kube::config::ExecInteractiveMode::IfAvailable);
        }
    }
    Ok(config)
}

impl Client {
    /// The client of the webhook that the current context of a kubeconfig file names. `limit`: how long a call may
    /// take; `dialer`: how connections to it are opened.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub fn from_kubeconfig(path: &Path, limit: Option<Duration>, dialer: Dialer) -> Result<Self, CallError> {
        let failed = |why: String| CallError::new(format!("{}: {why}", path.display()));
        let (cluster, user) = current(&read(path)?).map_err(failed)?;
        let server = cluster.server.clone().unwrap_or_default();
        let url = if server.contains("://") { server } else { format!("http://{server}") };
        let base = base(&cluster, dialer).map_err(failed)?;
        let access = Access::of_user(base, &user, told(&cluster).map_err(failed)?).map_err(failed)?;
        Ok(Self { url: cleaned(&url), access, agent: "kube-apiserver", limit: limit.unwrap_or(LIMIT) })
    }
}

/// Cluster and user of the current context, checked (upstream `clientcmd.ConfirmUsable`).
fn current(config: &Kubeconfig) -> Result<(Cluster, AuthInfo), String> {
    let name = config.current_context.clone().unwrap_or_default();
    let context = config.contexts.iter().find(|context| context.name == name);
    let context = context.and_then(|context| context.context.clone());
    if context.is_none() && !name.is_empty() {
        return Err(format!("context was not found for specified context: {name}"));
    }
    let context = context.unwrap_or_default();
    let user_name = context.user.unwrap_or_default();
    let user = config.auth_infos.iter().find(|user| user.name == user_name);
    // One that is not there is nobody.
    let user = user.and_then(|user| user.auth_info.clone()).unwrap_or_default();
    let cluster = config.clusters.iter().find(|cluster| cluster.name == context.cluster);
    let cluster = cluster.and_then(|cluster| cluster.cluster.clone());
    let mut errors = Vec::new();
    check_user(&user_name, &user, &mut errors);
    match &cluster {
        Some(cluster) => check_cluster(&context.cluster, cluster, &mut errors),
        None if errors.is_empty() => errors.push(
            "no configuration has been provided, try setting KUBERNETES_MASTER environment variable"
                .to_owned(),
        ),
        None => errors.push("cluster has no server defined".to_owned()),
    }
    match (errors.as_slice(), cluster) {
        ([], Some(cluster)) => Ok((cluster, user)),
        ([one], _) => Err(format!("invalid configuration: {one}")),
        (many, _) => Err(format!("invalid configuration: [{}]", many.join(", "))),
    }
}

fn is_given(text: &Option<String>) -> bool {
    text.as_ref().is_some_and(|text| !text.is_empty())
}

fn check_cluster(name: &str, cluster: &Cluster, errors: &mut Vec<String>) {
    if !is_given(&cluster.server) {
        errors.push(format!("no server found for cluster {name:?}"));
    }
    if let Some(url) = cluster.proxy_url.as_ref().filter(|url| !url.is_empty())
        && let Err(why) = proxy_url(url)
    {
        errors.push(format!("invalid 'proxy-url' {url:?} for cluster {name:?}: {why}"));
    }
    if is_given(&cluster.certificate_authority) && is_given(&cluster.certificate_authority_data) {
        errors.push(format!(
            "certificate-authority-data and certificate-authority are both specified for {name}. \
             certificate-authority-data will override."
        ));
    }
}

fn check_user(name: &str, user: &AuthInfo, errors: &mut Vec<String>) {
    let has_token = user.token.is_some();
    if has_token && (is_given(&user.username) || user.password.is_some()) {
        errors.push(format!(
            "more than one authentication method found for {name}; found [token basicAuth], only one is allowed"
        ));
    }
    let Some(exec) = &user.exec else { return };
    if user.auth_provider.is_some() {
        errors.push(format!("authProvider cannot be provided in combination with an exec plugin for {name}"));
    }
    let mut needed = |given: bool, what: &str| {
        if !given {
            errors.push(format!("{what} must be specified for {name} to use exec authentication plugin"));
        }
    };
    needed(is_given(&exec.command), "command");
    needed(is_given(&exec.api_version), "apiVersion");
    for variable in exec.env.iter().flatten() {
        needed(variable.get("name").is_some_and(|name| !name.is_empty()), "env variable name");
    }
    needed(exec.interactive_mode.is_some(), "interactiveMode");
}

/// How the server of a cluster is reached.
fn base(cluster: &Cluster, dialer: Dialer) -> Result<Base, String> {
    let trust = if cluster.insecure_skip_tls_verify == Some(true) {
        Trust::Anybody
    } else {
        let (data, file) = (&cluster.certificate_authority_data, &cluster.certificate_authority);
        Trust::Bundle(pem(data.as_deref(), file.as_deref())?.unwrap_or_default())
    };
    let name = cluster.tls_server_name.as_ref().filter(|name| !name.is_empty());
    let name =
        name.map(|name| ServerName::try_from(name.clone()).map_err(|error| format!("{name:?}: {error}")));
    let dialer = match cluster.proxy_url.as_ref().filter(|url| !url.is_empty()) {
        Some(url) => through(url, &trust, dialer)?,
        None => dialer,
    };
    Ok(Base { service: None, dialer, trust, name: name.transpose()? })
}

/// The URL of a proxy, if it is one that is understood.
fn proxy_url(text: &str) -> Result<Uri, String> {
    let (scheme, _) = text.split_once("://").unwrap_or_default();
    match scheme {
        "http" | "https" | "socks5" => {}
        other => return Err(format!("unsupported scheme {other:?}, must be http, https, or socks5")),
    }
    let uri: Uri = text.parse().map_err(|error: http::uri::InvalidUri| error.to_string())?;
    uri.host().filter(|host| !host.is_empty()).ok_or("no host in URL")?;
    Ok(uri)
}

/// Through the proxy of a cluster, which is believed as the cluster's server is. Unlike upstream's client it is asked
/// for a connection even where the server speaks no TLS.
fn through(url: &str, trust: &Trust, dialer: Dialer) -> Result<Dialer, String> {
    let uri = proxy_url(url)?;
    let secure = uri.scheme_str() == Some("https");
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let (protocol, usual) = match uri.scheme_str() {
        Some("https") => (Protocol::HttpConnect, 443),
        Some("socks5") => (Protocol::Socks5, 1080),
        _ => (Protocol::HttpConnect, 80),
    };
    let port = uri.port_u16().unwrap_or(usual);
    let tls = if secure {
        let name = ServerName::try_from(host.clone()).map_err(|error| format!("{host:?}: {error}"))?;
        Some((TlsConnector::from(Arc::new(trust.client(None)?)), name))
    } else {
        None
    };
    let user = uri.authority().and_then(|authority| authority.as_str().rsplit_once('@'));
    let login = user.map(|(user, _)| {
        let (name, password) = user.split_once(':').unwrap_or((user, ""));
        let plain = |text: &str| crate::query::percent_decode(text, false);
        (plain(name), plain(password))
    });
    let listens = Listens::Tcp { host, port, through: dialer };
    let proxy = Proxy { protocol, listens, tls, login, host: None, counted: false };
    Ok(Dialer::Proxy(Arc::new(proxy)))
}

/// What a program that makes credentials may be told of a cluster.
fn told(cluster: &Cluster) -> Result<Value, String> {
    let mut told = json!({"server": cluster.server});
    let texts = [("tls-server-name", &cluster.tls_server_name), ("proxy-url", &cluster.proxy_url)];
    for (field, text) in texts.into_iter().filter(|(_, text)| is_given(text)) {
        told[field] = json!(text);
    }
    let switches = [
        ("insecure-skip-tls-verify", cluster.insecure_skip_tls_verify),
        ("disable-compression", cluster.disable_compression),
    ];
    for (field, _) in switches.into_iter().filter(|(_, on)| *on == Some(true)) {
        told[field] = json!(true);
    }
    let (data, file) = (&cluster.certificate_authority_data, &cluster.certificate_authority);
    if let Some(authorities) = pem(data.as_deref(), file.as_deref())? {
        told["certificate-authority-data"] = json!(STANDARD.encode(authorities));
    }
    let extension = cluster.extensions.iter().flatten().find(|extension| extension.name == EXTENSION);
    told["config"] = extension.map_or(Value::Null, |extension| extension.extension.clone());
    Ok(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(cluster: Value, user: Value) -> Kubeconfig {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "hook", "user": "me"}}],
            "clusters": [{"name": "hook", "cluster": cluster}], "users": [{"name": "me", "user": user}],
        });
        serde_json::from_value(config).expect("a kubeconfig")
    }

    /// Cases of upstream's `validation_test.go`.
    #[test]
    fn configurations_are_checked() {
        let server = || json!({"server": "https://hook"});
        let exec = |more: Value| {
            let mut exec = json!({"command": "x", "apiVersion": "client.authentication.k8s.io/v1",
                                  "interactiveMode": "Never"});
            if let (Some(exec), Value::Object(more)) = (exec.as_object_mut(), more) {
                exec.extend(more);
            }
            json!({"exec": exec})
        };
        let needed = |what: &str| {
            format!(
                "invalid configuration: {what} must be specified for me to use exec authentication plugin"
            )
        };
        for (cluster, user, expected) in [
            (server(), json!({}), None),
            (server(), exec(json!({})), None),
            (json!({}), json!({}), Some("invalid configuration: no server found for cluster \"hook\"".to_owned())),
            (
                json!({"server": "https://hook", "proxy-url": "ftp://a"}),
                json!({}),
                Some(
                    "invalid configuration: invalid 'proxy-url' \"ftp://a\" for cluster \"hook\": unsupported scheme \
                     \"ftp\", must be http, https, or socks5"
                        .to_owned(),
                ),
            ),
            (
                json!({"server": "https://hook", "certificate-authority": "/f", "certificate-authority-data": "eA=="}),
                json!({}),
                Some(
                    "invalid configuration: certificate-authority-data and certificate-authority are both specified \
                     for hook. certificate-authority-data will override."
                        .to_owned(),
                ),
            ),
            (
                server(),
                json!({"token": "t", "username": "u"}),
                Some(
                    "invalid configuration: more than one authentication method found for me; found [token \
                     basicAuth], only one is allowed"
                        .to_owned(),
                ),
            ),
            (server(), exec(json!({"command": ""})), Some(needed("command"))),
            (server(), exec(json!({"apiVersion": ""})), Some(needed("apiVersion"))),
            (server(), exec(json!({"interactiveMode": null})), Some(needed("interactiveMode"))),
            (server(), exec(json!({"env": [{"name": "", "value": "x"}]})), Some(needed("env variable name"))),
            (
                json!({}),
                exec(json!({"command": ""})),
                Some(
                    "invalid configuration: [command must be specified for me to use exec authentication plugin, no \
                     server found for cluster \"hook\"]"
                        .to_owned(),
                ),
            ),
        ] {
            let found = current(&config(cluster.clone(), user.clone())).err();
            assert_eq!(found, expected, "{cluster} {user}");
        }
        let mut unknown = config(server(), json!({}));
        unknown.current_context = Some("other".to_owned());
        let why = current(&unknown).expect_err("refused");
        assert_eq!(why, "context was not found for specified context: other");
        unknown.current_context = None;
        let why = current(&unknown).expect_err("refused");
        assert!(why.starts_with("invalid configuration: no configuration has been provided"), "{why}");
        unknown.current_context = Some("c".to_owned());
        unknown.auth_infos.clear();
        assert!(current(&unknown).is_ok_and(|(_, user)| user.token.is_none()));
    }

    #[test]
    fn programs_hear_of_the_cluster() {
        let cluster = json!({
            "server": "https://hook", "tls-server-name": "n", "insecure-skip-tls-verify": false,
            "certificate-authority-data": "eA==",
            "extensions": [{"name": EXTENSION, "extension": {"audience": "x"}}],
        });
        let cluster: Cluster = serde_json::from_value(cluster).expect("a cluster");
        let expected = json!({"server": "https://hook", "tls-server-name": "n",
                              "certificate-authority-data": "eA==", "config": {"audience": "x"}});
        assert_eq!(told(&cluster), Ok(expected));
    }

    #[test]
    fn proxies_are_of_a_cluster() {
        let shown = |url: &str| match through(url, &Trust::Anybody, Dialer::Direct) {
            Ok(Dialer::Proxy(proxy)) => {
                let login = proxy.login.as_ref().map(|(name, password)| format!("{name} {password}"));
                Ok((proxy.protocol, proxy.to_string(), proxy.tls.is_some(), login))
            }
            Ok(Dialer::Direct) => panic!("no proxy"),
            Err(why) => Err(why),
        };
        let connect = Protocol::HttpConnect;
        assert_eq!(shown("http://a"), Ok((connect, "a:80".to_owned(), false, None)));
        assert_eq!(shown("https://[::1]:8/x"), Ok((connect, "[::1]:8".to_owned(), true, None)));
        let login = Some("u p@w".to_owned());
        assert_eq!(shown("http://u:p%40w@a:1"), Ok((connect, "a:1".to_owned(), false, login)));
        assert_eq!(shown("socks5://a"), Ok((Protocol::Socks5, "a:1080".to_owned(), false, None)));
        let unknown = "unsupported scheme \"ftp\", must be http, https, or socks5";
        assert_eq!(shown("ftp://a"), Err(unknown.to_owned()));
    }
}
