//! `--admission-control-config-file`: what plugins are told (upstream `apiserver/pkg/admission/config.go`).
//!
//! A plugin's own configuration stands in the file, or in another one that it names. It is read strictly, and only if
//! the plugin is on.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::pod_security::Settings;
use crate::config_file::{self, go_error};
use crate::webhook::{CallError, Logins};

const VERSIONS: [&str; 2] = ["apiserver.config.k8s.io/v1", "apiserver.k8s.io/v1alpha1"];
const WEBHOOK_VERSIONS: [&str; 1] = ["apiserver.config.k8s.io/v1"];

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such file.
    #[error("unable to read admission control configuration from {path:?} [open {path}: {why}]", path = .path.display().to_string())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        why: String,
    },
    /// The file is no such configuration.
    #[error("failed to read plugin config")]
    Unreadable(#[source] config_file::Error),
    /// A plugin's own configuration is wrong.
    #[error("couldn't init admission plugin {plugin:?}: {why}")]
    Plugin {
        /// Which plugin.
        plugin: String,
        /// What is wrong.
        why: String,
    },
    /// The kubeconfig of a plugin cannot be used.
    #[error("couldn't init admission plugin {plugin:?}")]
    Kubeconfig {
        /// Which plugin.
        plugin: &'static str,
        /// What is wrong.
        #[source]
        source: CallError,
    },
}

/// What plugins are told; nothing by default.
#[derive(Default)]
pub struct Configured {
    /// Who this server is to mutating webhooks.
    pub mutating: Logins,
    /// Who it is to validating ones.
    pub validating: Logins,
    /// What namespaces demand that demand nothing themselves, and who is exempt.
    pub pod_security: Settings,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    plugins: Vec<Entry>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Entry {
    name: String,
    path: PathBuf,
    configuration: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct WebhookAdmission {
    kube_config_file: PathBuf,
    static_manifests_dir: String,
}

impl Configured {
    /// Reads the file. `is_on`: whether a plugin is.
    ///
    /// # Errors
    /// When something of it cannot be used.
    pub fn load(path: Option<&Path>, is_on: impl Fn(&str) -> bool) -> Result<Self, Error> {
        let Some(path) = path else { return Ok(Self::default()) };
        let failed = |error| Error::File { path: path.to_owned(), why: go_error(&error) };
        let text = std::fs::read(path).map_err(failed)?;
        let (_, file): (_, File) =
            config_file::decode_of(&text, "AdmissionConfiguration", &VERSIONS).map_err(Error::Unreadable)?;
        let mut configured = Self::default();
        // As upstream: the first entry of a plugin counts.
        let mut seen: Vec<&str> = Vec::new();
        for entry in file.plugins.iter().filter(|entry| is_on(&entry.name)) {
            if !seen.contains(&entry.name.as_str()) {
                seen.push(&entry.name);
                configured.take(entry, path.parent().unwrap_or(Path::new(".")))?;
            }
        }
        Ok(configured)
    }

    fn take(&mut self, entry: &Entry, folder: &Path) -> Result<(), Error> {
        let Some(text) = entry.text(folder)? else { return Ok(()) };
        match entry.name.as_str() {
            "MutatingAdmissionWebhook" => self.mutating = logins("MutatingAdmissionWebhook", &text)?,
            "ValidatingAdmissionWebhook" => self.validating = logins("ValidatingAdmissionWebhook", &text)?,
            "PodSecurity" => {
                self.pod_security = Settings::parse(&text).map_err(|why| entry.failed(why))?;
            }
            _ => return Err(entry.failed("this plugin takes no configuration here".to_owned())),
        }
        Ok(())
    }
}

impl Entry {
    fn failed(&self, why: String) -> Error {
        Error::Plugin { plugin: self.name.clone(), why }
    }

    /// What the plugin is told, if it is something.
    fn text(&self, folder: &Path) -> Result<Option<Vec<u8>>, Error> {
        if let Some(configuration) = &self.configuration {
            return Ok(Some(configuration.to_string().into_bytes()));
        }
        if self.path.as_os_str().is_empty() {
            return Ok(None);
        }
        let path = folder.join(&self.path);
        let failed = |error| self.failed(format!("open {}: {}", path.display(), go_error(&error)));
        std::fs::read(&path).map(Some).map_err(failed)
    }
}

/// The kubeconfig that a plugin of webhooks is told.
fn logins(plugin: &'static str, text: &[u8]) -> Result<Logins, Error> {
    let failed = |why: String| Error::Plugin { plugin: plugin.to_owned(), why };
    let (_, config): (_, WebhookAdmission) =
        config_file::decode_of(text, "WebhookAdmissionConfiguration", &WEBHOOK_VERSIONS)
            .map_err(|error| failed(error.to_string()))?;
    if !config.static_manifests_dir.is_empty() {
        let why =
            "staticManifestsDir needs the feature gate ManifestBasedAdmissionControlConfig, which is off";
        return Err(failed(why.to_owned()));
    }
    let path = config.kube_config_file;
    if path.as_os_str().is_empty() {
        return Ok(Logins::default());
    }
    if !path.is_absolute() {
        let at = api::field::Path::new("kubeConfigFile");
        let why = "must be an absolute file path";
        return Err(failed(api::field::Error::invalid(&at, path.display().to_string(), why).to_string()));
    }
    Logins::load(&path).map_err(|source| Error::Kubeconfig { plugin, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n";

    fn load(folder: &Path, plugins: &str) -> Result<Configured, String> {
        let path = folder.join("admission.yaml");
        std::fs::write(&path, format!("{HEAD}{plugins}")).expect("written");
        Configured::load(Some(&path), |plugin| plugin != "Elsewhere").map_err(|error| client::chain(&error))
    }

    #[test]
    fn plugins_are_told_by_the_file_or_by_one_of_their_own() {
        let folder = tempfile::tempdir().expect("a folder");
        let own = "apiVersion: pod-security.admission.config.k8s.io/v1\nkind: PodSecurityConfiguration\n\
                   defaults: {enforce: baseline}\n";
        std::fs::write(folder.path().join("own.yaml"), own).expect("written");
        let configured =
            load(folder.path(), "- {name: PodSecurity, path: own.yaml}\n- {name: Elsewhere, path: none}");
        let by_file = configured.expect("a configuration").pod_security;
        let nested = "- name: PodSecurity\n  configuration:\n    apiVersion: \
                      pod-security.admission.config.k8s.io/v1beta1\n    kind: PodSecurityConfiguration\n    \
                      defaults: {enforce: baseline}\n";
        let nested = load(folder.path(), nested).expect("a configuration").pod_security;
        assert_eq!(by_file, nested);
        assert_ne!(by_file, Settings::default());
        assert_eq!(
            load(folder.path(), "- {name: PodSecurity}").expect("valid").pod_security,
            Settings::default()
        );
    }

    #[test]
    fn what_cannot_be_used_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let webhooks = |more: &str| {
            format!(
                "- name: ValidatingAdmissionWebhook\n  configuration:\n    apiVersion: apiserver.config.k8s.io/v1\n    \
                 kind: WebhookAdmissionConfiguration\n    {more}\n"
            )
        };
        let plugin = "couldn't init admission plugin \"ValidatingAdmissionWebhook\": ";
        for (plugins, expected) in [
            (
                webhooks("kubeConfigFile: a/b"),
                format!("{plugin}kubeConfigFile: Invalid value: \"a/b\": must be an absolute file path"),
            ),
            (webhooks("kubeConfigFile: /no/such"), format!("{plugin}/no/such: ")),
            (webhooks("other: 1"), format!("{plugin}strict decoding error: unknown field `other`")),
            (
                webhooks("staticManifestsDir: /m"),
                format!("{plugin}staticManifestsDir needs the feature gate"),
            ),
            (
                "- {name: ValidatingAdmissionWebhook, path: none}".to_owned(),
                format!("{plugin}open {}/none: no such file or directory", folder.path().display()),
            ),
            (
                "- {name: LimitRanger, configuration: {}}".to_owned(),
                "couldn't init admission plugin \"LimitRanger\": this plugin takes no configuration"
                    .to_owned(),
            ),
            ("- {nome: x}".to_owned(), "failed to read plugin config: strict decoding error".to_owned()),
        ] {
            let error = load(folder.path(), &plugins).err().expect("refused");
            assert!(error.starts_with(&expected), "{error}");
        }
        assert!(load(folder.path(), &webhooks("kubeConfigFile: ''")).is_ok());
        let missing = Configured::load(Some(Path::new("/no/such")), |_| true).err().expect("refused");
        assert_eq!(
            missing.to_string(),
            "unable to read admission control configuration from \"/no/such\" [open /no/such: no such file or \
             directory]"
        );
    }
}
