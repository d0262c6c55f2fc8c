//! Who this server is to webhooks of admission: the users of a kubeconfig, whose names are those of webhooks (upstream
//! `apiserver/pkg/util/webhook/authentication.go`).

use std::path::Path;
use std::sync::Arc;

use kube::config::{AuthInfo, Kubeconfig};
use serde_json::json;

use super::access::{Access, Base};
use super::{CallError, kubeconfig};

/// The usual port of webhooks.
const PORT: &str = "443";

/// Who this server is to which webhook; nobody by default. Cheap to clone.
#[derive(Clone, Default)]
pub struct Logins(Option<Arc<Kubeconfig>>);

impl Logins {
    /// Reads a kubeconfig.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn load(path: &Path) -> Result<Self, CallError> {
        Ok(Self(Some(Arc::new(kubeconfig::read(path)?))))
    }

    /// Connections to the webhook of a URL.
    pub(super) fn access(&self, base: Base, url: &str) -> Result<Access, String> {
        let host = url.split_once("://").map_or(url, |(_, rest)| rest);
        let host = host.split('/').next().unwrap_or_default();
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        let user = self.0.as_deref().and_then(|config| find(config, &with_port(host)));
        match user {
            Some(user) => Access::of_user(base, user, json!({"server": url, "config": null})),
            None => Access::anonymous(&base),
        }
    }
}

/// A host with its port.
fn with_port(host: &str) -> String {
    let (_, after) = host.rsplit_once(']').unwrap_or(("", host));
    if after.contains(':') { host.to_owned() } else { format!("{host}:{PORT}") }
}

/// The user for a host and port: of this name, of a name with a star for its beginning, both also without the usual
/// port; or else the one for all, or of the current context.
fn find<'a>(config: &'a Kubeconfig, target: &str) -> Option<&'a AuthInfo> {
    let named = |name: &str| config.auth_infos.iter().find(|user| user.name == name)?.auth_info.as_ref();
    let matching = |target: &str| {
        let mut dots = target.match_indices('.').map(|(at, _)| at);
        named(target).or_else(|| dots.find_map(|at| named(&format!("*{}", &target[at..]))))
    };
    let plain = target.strip_suffix(&format!(":{PORT}")).map(|host| host.trim_matches(['[', ']']));
    let current = || {
        let name = config.current_context.as_deref()?;
        let context = config.contexts.iter().find(|context| context.name == name)?.context.as_ref()?;
        named(context.user.as_deref()?)
    };
    matching(target).or_else(|| plain.and_then(matching)).or_else(|| named("*")).or_else(current)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cases of upstream's `TestAuthenticationDetection`.
    #[test]
    fn users_are_found_by_the_names_of_webhooks() {
        let of = |users: &[&str], current: &str| -> Kubeconfig {
            let user = |name: &&str| json!({"name": name, "user": {"token": *name}});
            let config = json!({
                "apiVersion": "v1", "kind": "Config", "current-context": current,
                "contexts": [{"name": "here", "context": {"cluster": "c", "user": "me"}}],
                "users": users.iter().map(user).collect::<Vec<_>>(),
            });
            serde_json::from_value(config).expect("a kubeconfig")
        };
        for (users, current, host, expected) in [
            (&[][..], "", "foo.com", None),
            (&["foo.com"], "", "foo.com", Some("foo.com")),
            (&["foo.com", "foo.com:443"], "", "foo.com", Some("foo.com:443")),
            (&["foo.com"], "", "foo.com:8443", None),
            (&["foo.com:8443"], "", "foo.com:8443", Some("foo.com:8443")),
            (&["*.com", "*"], "", "foo.com", Some("*.com")),
            (&["*.foo.com", "*.com"], "", "a.foo.com", Some("*.foo.com")),
            (&["*.foo.com"], "", "b.a.foo.com", Some("*.foo.com")),
            (&["*.foo.com:8443", "*.foo.com"], "", "a.foo.com:8443", Some("*.foo.com:8443")),
            (&["*.foo.com"], "", "foo.com", None),
            (&["*", "me"], "here", "foo.com", Some("*")),
            (&["me"], "here", "foo.com", Some("me")),
            (&["me"], "there", "foo.com", None),
            (&["hook.ns.svc"], "", "hook.ns.svc:443", Some("hook.ns.svc")),
            (&["*.ns.svc"], "", "hook.ns.svc:443", Some("*.ns.svc")),
            (&["[::1]:443"], "", "[::1]", Some("[::1]:443")),
            (&["::1"], "", "[::1]", Some("::1")),
        ] {
            let config = of(users, current);
            let found = find(&config, &with_port(host)).and_then(|user| user.token.as_ref());
            let found = found.map(|token| secrecy::ExposeSecret::expose_secret(token).to_owned());
            assert_eq!(found.as_deref(), expected, "{users:?} {host}");
        }
    }
}
