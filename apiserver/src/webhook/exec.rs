//! Credentials that a program makes (upstream `client-go/plugin/pkg/client/auth/exec`): it is run when they are first
//! needed, when they have expired, and when a webhook has refused them; what it said is kept between.

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::codec::kind::TypeMeta;
use api::codec::yaml;
use http::HeaderValue;
use jiff::Timestamp;
use kube::config::{ExecConfig, ExecInteractiveMode};
use metrics::counter;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use super::access::{Base, bearer};
use crate::remote::{Identity, Transport};

const GROUP: &str = "client.authentication.k8s.io";
/// The variable that tells the program what is wanted of it.
const INFO: &str = "KUBERNETES_EXEC_INFO";
/// More than that no program has to say.
const LONGEST: u64 = 4 * 1024 * 1024;
/// How often in an hour it is explained that a program is missing.
const HINTS: u32 = 10;
const HOUR: Duration = Duration::from_secs(3600);
const HINT: &str = "\n\nIt looks like you are trying to use a client-go credential plugin that is not installed.\n\n\
                    To learn more about this feature, consult the documentation available at:\n      \
                    https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins";

/// The program, and what it said last.
pub(super) struct Plugin {
    base: Base,
    command: String,
    args: Vec<String>,
    env: Vec<(String, String)>,
    /// `client.authentication.k8s.io/v1` or `/v1beta1`.
    api_version: String,
    /// What it is told.
    info: String,
    install_hint: String,
    hints: Mutex<(Option<Instant>, u32)>,
    /// Held while the program runs: it runs once, however many wait for it.
    held: tokio::sync::Mutex<Option<Arc<Held>>>,
}

/// Credentials, and connections that show them.
pub(super) struct Held {
    pub transport: Transport,
    pub authorization: Option<HeaderValue>,
    /// Certificate and key.
    pair: Option<(String, String)>,
    expires: Option<Timestamp>,
}

/// What the program says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    token: String,
    pair: Option<(String, String)>,
    expires: Option<Timestamp>,
}

impl Plugin {
    /// As a kubeconfig says, which has been checked. `cluster`: what the program is told of the webhook, if it wants to
    /// know.
    ///
    /// # Errors
    /// When programs of this sort are not understood.
    pub fn new(base: Base, config: &ExecConfig, cluster: Value) -> Result<Self, String> {
        let api_version = config.api_version.clone().unwrap_or_default();
        if ![format!("{GROUP}/v1"), format!("{GROUP}/v1beta1")].contains(&api_version) {
            return Err(format!("exec plugin: invalid apiVersion {api_version:?}"));
        }
        if config.interactive_mode == Some(ExecInteractiveMode::Always) {
            return Err(
                "exec plugin cannot support interactive mode: standard input is not a terminal".to_owned()
            );
        }
        let mut spec = json!({"interactive": false});
        if config.provide_cluster_info {
            spec["cluster"] = cluster;
        }
        let info = json!({"kind": "ExecCredential", "apiVersion": api_version, "spec": spec});
        let variable = |variable: &std::collections::HashMap<String, String>| {
            let of = |name: &str| variable.get(name).cloned().unwrap_or_default();
            (of("name"), of("value"))
        };
        Ok(Self {
            base,
            command: config.command.clone().unwrap_or_default(),
            args: config.args.clone().unwrap_or_default(),
            env: config.env.iter().flatten().map(variable).collect(),
            api_version,
            info: info.to_string(),
            install_hint: config.install_hint.clone().unwrap_or_default(),
            hints: Mutex::default(),
            held: tokio::sync::Mutex::default(),
        })
    }

    /// Credentials that have not expired.
    ///
    /// # Errors
    /// When the program gives none.
    pub async fn get(&self) -> Result<Arc<Held>, String> {
        let mut held = self.held.lock().await;
        if let Some(held) = held.as_ref().filter(|held| !held.has_expired(Timestamp::now())) {
            return Ok(Arc::clone(held));
        }
        self.refresh(&mut held).await
    }

    /// Has others made in the place of credentials that were refused, unless that has been done.
    pub async fn refused(&self, refused: &Arc<Held>) {
        let mut held = self.held.lock().await;
        if !held.as_ref().is_some_and(|held| Arc::ptr_eq(held, refused)) {
            return;
        }
        if let Err(error) = self.refresh(&mut held).await {
            tracing::warn!(error, "could not refresh the credentials of a webhook");
        }
    }

    async fn refresh(&self, held: &mut Option<Arc<Held>>) -> Result<Arc<Held>, String> {
        let said = read(&self.run().await?, &self.api_version)?;
        // Connections that show another certificate are used no more.
        let known = held.as_ref().filter(|held| held.pair == said.pair).map(|held| held.transport.clone());
        let transport = match (known, &said.pair) {
            (Some(transport), _) => transport,
            (None, None) => self.base.transport(None)?,
            (None, Some((certificate, key))) => {
                let failed = |why: String| format!("failed parsing client key/certificate: {why}");
                let identity = Identity::parse(certificate.as_bytes(), key.as_bytes());
                let identity = identity.map_err(|error| failed(error.to_string()))?;
                self.base.transport(Some(&identity)).map_err(failed)?
            }
        };
        let authorization = Some(said.token).filter(|token| !token.is_empty());
        let authorization = authorization.map(|token| bearer(&token)).transpose()?;
        let new = Held { transport, authorization, pair: said.pair, expires: said.expires };
        Ok(Arc::clone(held.insert(Arc::new(new))))
    }

    /// Runs the program; gives what it writes.
    async fn run(&self) -> Result<Vec<u8>, String> {
        let mut command = tokio::process::Command::new(&self.command);
        command.args(&self.args).envs(self.env.iter().cloned()).env(INFO, &self.info);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| self.not_started(&error))?;
        let failed = |error: std::io::Error| {
            count(1, "client_internal_error");
            format!("exec: {error}")
        };
        let (mut said, stdout) = (Vec::new(), child.stdout.take());
        if let Some(stdout) = stdout {
            stdout.take(LONGEST).read_to_end(&mut said).await.map_err(failed)?;
        }
        let status = child.wait().await.map_err(failed)?;
        if status.success() {
            count(0, "no_error");
            return Ok(said);
        }
        let code = status.code().unwrap_or(-1);
        count(code, "plugin_execution_error");
        Err(format!("exec: executable {} failed with exit code {code}", self.command))
    }

    fn not_started(&self, error: &std::io::Error) -> String {
        if error.kind() != std::io::ErrorKind::NotFound {
            count(1, "client_internal_error");
            return format!("exec: {error}");
        }
        count(1, "plugin_not_found_error");
        let mut text = format!("exec: executable {} not found", self.command);
        if self.explains(Instant::now()) {
            text.push_str(HINT);
            if !self.install_hint.is_empty() {
                text.push_str("\n\n");
                text.push_str(&self.install_hint);
            }
        }
        text
    }

    /// Whether it may be explained once more.
    fn explains(&self, now: Instant) -> bool {
        let mut hints = self.hints.lock();
        let begin = *hints.0.get_or_insert(now);
        if now.duration_since(begin) >= HOUR {
            *hints = (Some(now), 0);
        }
        hints.1 += 1;
        hints.1 <= HINTS
    }
}

fn count(code: i32, status: &'static str) {
    counter!("rest_client_exec_plugin_call_total", "code" => code.to_string(), "call_status" => status)
        .increment(1);
}

impl Held {
    fn has_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|expires| now > expires)
    }
}

/// What a program has written, which must be of the version that it was asked in.
fn read(text: &[u8], api_version: &str) -> Result<Said, String> {
    let failed = |why: String| format!("decoding stdout: {why}");
    let value = if text.trim_ascii_start().starts_with(b"{") {
        api::codec::json::decode(text)
            .map_err(|why| failed(format!("couldn't get version/kind; json parse error: {why}")))?
    } else {
        yaml::decode(text).map_err(|error| failed(error.to_string()))?
    };
    let found = TypeMeta::of_value(&value).map_err(failed)?;
    if !["", "ExecCredential"].contains(&found.kind.as_str()) {
        return Err(failed(format!(
            "no kind {:?} is registered for version {:?}",
            found.kind, found.api_version
        )));
    }
    if found.api_version != api_version {
        // What says nothing is taken for upstream's own form.
        let version = Some(found.api_version).filter(|version| !version.is_empty());
        let version = version.unwrap_or_else(|| format!("{GROUP}/__internal"));
        return Err(format!(
            "exec plugin is configured to use API version {api_version}, plugin returned version {version}"
        ));
    }
    let status = match value.get("status") {
        None | Some(Value::Null) => return Err("exec plugin didn't return a status field".to_owned()),
        Some(status) => status,
    };
    let text = |field: &str| match status.get(field) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(failed(format!(
            "json: cannot unmarshal {} into Go struct field ExecCredentialStatus.status.{field} of type string",
            api::codec::json::kind_of(other)
        ))),
    };
    let (token, certificate, key) = (text("token")?, text("clientCertificateData")?, text("clientKeyData")?);
    let expires = Some(text("expirationTimestamp")?).filter(|time| !time.is_empty());
    let expires = expires.map(|time| time.parse::<Timestamp>().map_err(|error| failed(error.to_string())));
    let pair = match (certificate.is_empty(), key.is_empty()) {
        (false, false) => Some((certificate, key)),
        (true, true) if token.is_empty() => {
            return Err("exec plugin didn't return a token or cert/key pair".to_owned());
        }
        (true, true) => None,
        _ => return Err("exec plugin returned only certificate or key, not both".to_owned()),
    };
    Ok(Said { token, pair, expires: expires.transpose()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::{Dialer, Trust};

    /// Cases of upstream's `TestRefreshCreds`.
    #[test]
    fn programs_say_credentials_of_the_version_they_were_asked_in() {
        let (v1, v1beta1) = (format!("{GROUP}/v1"), format!("{GROUP}/v1beta1"));
        let said = |version: &str, status: Value| {
            json!({"kind": "ExecCredential", "apiVersion": version, "status": status}).to_string()
        };
        let token = |token: &str| Said { token: token.to_owned(), ..Said::default() };
        let expires = "2006-01-02T15:04:05Z";
        for (text, expected) in [
            (said(&v1, json!({"token": "foo"})), Ok(token("foo"))),
            (
                said(&v1, json!({"token": "foo", "expirationTimestamp": expires})),
                Ok(Said { expires: Some(expires.parse().expect("a time")), ..token("foo") }),
            ),
            (
                said(&v1, json!({"clientCertificateData": "c", "clientKeyData": "k"})),
                Ok(Said { pair: Some(("c".to_owned(), "k".to_owned())), ..Said::default() }),
            ),
            (format!("kind: ExecCredential\napiVersion: {v1}\nstatus: {{token: foo}}\n"), Ok(token("foo"))),
            (
                said(&v1beta1, json!({"token": "foo"})),
                Err(format!(
                    "exec plugin is configured to use API version {v1}, plugin returned version {v1beta1}"
                )),
            ),
            (
                json!({"status": {"token": "foo"}}).to_string(),
                Err(format!(
                    "exec plugin is configured to use API version {v1}, plugin returned version {GROUP}/__internal"
                )),
            ),
            (
                json!({"kind": "ExecCredential", "apiVersion": v1}).to_string(),
                Err("exec plugin didn't return a status field".to_owned()),
            ),
            (said(&v1, json!({})), Err("exec plugin didn't return a token or cert/key pair".to_owned())),
            (
                said(&v1, json!({"token": "foo", "clientKeyData": "k"})),
                Err("exec plugin returned only certificate or key, not both".to_owned()),
            ),
            (
                said(&v1, json!({"token": 1})),
                Err("decoding stdout: json: cannot unmarshal number into Go struct field \
                     ExecCredentialStatus.status.token of type string"
                    .to_owned()),
            ),
        ] {
            assert_eq!(read(text.as_bytes(), &v1), expected, "{text}");
        }
        assert!(read(b"no {", &v1).is_err_and(|why| why.starts_with("decoding stdout: ")));
    }

    fn plugin(script: &str, more: Value) -> Result<Plugin, String> {
        let mut config = json!({
            "apiVersion": format!("{GROUP}/v1"), "command": "/bin/sh", "args": ["-c", script],
            "interactiveMode": "IfAvailable", "env": [{"name": "WORD", "value": "tell"}],
        });
        if let (Some(config), Value::Object(more)) = (config.as_object_mut(), more) {
            config.extend(more);
        }
        let config: ExecConfig = serde_json::from_value(config).expect("a configuration");
        let base = Base { service: None, dialer: Dialer::Direct, trust: Trust::Anybody, name: None };
        Plugin::new(base, &config, json!({"server": "https://hook"}))
    }

    /// A script that counts its runs in a file, and says a token with that number.
    fn counting(folder: &std::path::Path, expires: &str) -> String {
        let file = folder.join("runs");
        format!(
            "echo >> {0}; echo '{{\"kind\":\"ExecCredential\",\"apiVersion\":\"{GROUP}/v1\",\"status\":{{\"token\":\"'\
             $WORD-$(wc -l < {0})'\"{expires}}}}}'",
            file.display()
        )
    }

    fn token(held: &Held) -> &str {
        held.authorization.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    #[tokio::test]
    async fn credentials_are_kept_until_they_expire_or_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let program = plugin(&counting(folder.path(), ""), json!({})).expect("a program");
        let first = program.get().await.expect("credentials");
        assert_eq!(token(&first), "Bearer tell-1");
        assert!(Arc::ptr_eq(&first, &program.get().await.expect("credentials")));
        program.refused(&first).await;
        let second = program.get().await.expect("credentials");
        assert_eq!(token(&second), "Bearer tell-2");
        // That has been done already.
        program.refused(&first).await;
        assert_eq!(token(&program.get().await.expect("credentials")), "Bearer tell-2");

        let folder = tempfile::tempdir().expect("a folder");
        let past = r#","expirationTimestamp":"2006-01-02T15:04:05Z""#;
        let program = plugin(&counting(folder.path(), past), json!({})).expect("a program");
        for expected in ["Bearer tell-1", "Bearer tell-2"] {
            assert_eq!(token(&program.get().await.expect("credentials")), expected);
        }
    }

    #[tokio::test]
    async fn programs_are_told_what_is_wanted() {
        for (more, expected) in [
            (json!({}), json!({"interactive": false})),
            (
                json!({"provideClusterInfo": true}),
                json!({"interactive": false, "cluster": {"server": "https://hook"}}),
            ),
        ] {
            let program = plugin("printf %s \"$KUBERNETES_EXEC_INFO\"", more).expect("a program");
            let told: Value = serde_json::from_slice(&program.run().await.expect("it runs")).expect("JSON");
            let expected =
                json!({"kind": "ExecCredential", "apiVersion": format!("{GROUP}/v1"), "spec": expected});
            assert_eq!(told, expected);
        }
    }

    #[tokio::test]
    async fn programs_that_fail_are_named() {
        let failed = plugin("exit 3", json!({})).expect("a program").get().await.err().expect("a failure");
        assert_eq!(failed, "exec: executable /bin/sh failed with exit code 3");
        let missing = json!({"command": "/no/such/program", "installHint": "get it"});
        let program = plugin("", missing).expect("a program");
        let first = program.get().await.err().expect("a failure");
        assert!(first.starts_with("exec: executable /no/such/program not found\n\nIt looks"), "{first}");
        assert!(first.ends_with("\n\nget it"), "{first}");
        let now = Instant::now();
        let explained = (1..20).filter(|_| program.explains(now)).count();
        assert_eq!((explained, program.explains(now + HOUR)), (9, true));
        for (more, expected) in [
            (
                json!({"apiVersion": format!("{GROUP}/v1alpha1")}),
                "exec plugin: invalid apiVersion \"client.authentication.k8s.io/v1alpha1\"",
            ),
            (
                json!({"interactiveMode": "Always"}),
                "exec plugin cannot support interactive mode: standard input is not a terminal",
            ),
        ] {
            assert_eq!(plugin("", more).err().expect("refused"), expected);
        }
    }
}
