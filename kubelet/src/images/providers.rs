//! Registry credentials from programs beside the kubelet: image credential provider plugins, configured by upstream's
//! `CredentialProviderConfig`. What a program answers is kept as long as it says.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use parking_lot::Mutex;
use proto::cri;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::{credentials, name};
use crate::duration::GoDuration;

const TIMEOUT: Duration = Duration::from_secs(60);
const REQUESTS: [&str; 3] = [
    "credentialprovider.kubelet.k8s.io/v1",
    "credentialprovider.kubelet.k8s.io/v1beta1",
    "credentialprovider.kubelet.k8s.io/v1alpha1",
];
const CONFIGS: [&str; 3] =
    ["kubelet.config.k8s.io/v1", "kubelet.config.k8s.io/v1beta1", "kubelet.config.k8s.io/v1alpha1"];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    providers: Vec<Config>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Config {
    name: String,
    match_images: Vec<String>,
    default_cache_duration: GoDuration,
    api_version: String,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: Vec<Variable>,
    token_attributes: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Variable {
    name: String,
    value: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    api_version: &'a str,
    kind: &'a str,
    image: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    api_version: String,
    kind: String,
    cache_key_type: String,
    cache_duration: Option<GoDuration>,
    #[serde(default)]
    auth: Option<BTreeMap<String, Auth>>,
}

#[derive(Clone, Deserialize)]
struct Auth {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
}

type Credentials = BTreeMap<String, Auth>;

/// One program.
struct Provider {
    config: Config,
    program: PathBuf,
    /// What it answered, by image, registry, or for all.
    kept: Mutex<HashMap<String, (Credentials, Instant)>>,
    /// One question at a time: who waits finds the answer kept.
    turn: tokio::sync::Mutex<()>,
}

/// The programs of this node.
pub struct Providers(Vec<Provider>);

/// Where what is good for every image is kept.
const ALL: &str = "<global>";

impl Providers {
    /// Reads which programs there are; their files lie in `directory`.
    pub fn read(config: &Path, directory: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(config).with_context(|| {
            format!(
                "unable to read external registry credential provider configuration from {:?}",
                config.display().to_string()
            )
        })?;
        Self::parse(&text, directory)
    }

    fn parse(text: &str, directory: &Path) -> anyhow::Result<Self> {
        let file: File = serde_saphyr::from_str(text)?;
        ensure!(
            file.kind == "CredentialProviderConfig" && CONFIGS.contains(&file.api_version.as_str()),
            "no kind {:?} is registered for version {:?}",
            file.kind,
            file.api_version
        );
        ensure!(!file.providers.is_empty(), "at least 1 item in plugins is required");
        let provider = |config: Config| {
            ensure!(
                !config.name.is_empty()
                    && !config.name.contains('/')
                    && !matches!(config.name.as_str(), "." | ".."),
                "provider name {:?} is no file name",
                config.name
            );
            ensure!(
                REQUESTS.contains(&config.api_version.as_str()),
                "apiVersion {:?} is not supported",
                config.api_version
            );
            ensure!(!config.match_images.is_empty(), "at least 1 item in matchImages is required");
            ensure!(
                config.token_attributes.is_none(),
                "tokenAttributes of provider {:?} are not supported",
                config.name
            );
            let program = directory.join(&config.name);
            ensure!(program.is_file(), "plugin binary executable {} did not exist", program.display());
            Ok(Provider { config, program, kept: Mutex::default(), turn: tokio::sync::Mutex::default() })
        };
        Ok(Self(file.providers.into_iter().map(provider).collect::<anyhow::Result<_>>()?))
    }

    /// Credentials for an image, the most specific of each program first. A program that fails has none.
    pub async fn for_image(&self, image: &str) -> Vec<cri::AuthConfig> {
        let mut found = Vec::new();
        for provider in &self.0 {
            match provider.for_image(image).await {
                Ok(list) => found.extend(list),
                Err(error) => {
                    tracing::error!(
                        provider = provider.config.name,
                        image,
                        error = format!("{error:#}"),
                        "failed to provide credentials for image"
                    );
                }
            }
        }
        found
    }
}

impl Provider {
    async fn for_image(&self, image: &str) -> anyhow::Result<Vec<cri::AuthConfig>> {
        let repository = name::full_repository(image);
        if !self.config.match_images.iter().any(|pattern| credentials::is_for(pattern, &repository)) {
            return Ok(Vec::new());
        }
        let _turn = self.turn.lock().await;
        let known = self.known(image, &repository, Instant::now());
        let all = match known {
            Some(known) => known,
            None => self.ask(image, &repository).await?,
        };
        let fitting = all.into_iter().filter(|(pattern, _)| credentials::is_for(pattern, &repository));
        let mut fitting: Vec<_> = fitting.collect();
        fitting.sort_by_key(|(pattern, _)| std::cmp::Reverse(pattern.len()));
        let auth = |(_, auth): (String, Auth)| cri::AuthConfig {
            username: auth.username,
            password: auth.password,
            ..Default::default()
        };
        Ok(fitting.into_iter().map(auth).collect())
    }

    fn known(&self, image: &str, repository: &str, now: Instant) -> Option<Credentials> {
        let mut kept = self.kept.lock();
        kept.retain(|_, (_, until)| *until > now);
        [image, registry(repository), ALL]
            .iter()
            .find_map(|key| kept.get(*key))
            .map(|(found, _)| found.clone())
    }

    async fn ask(&self, image: &str, repository: &str) -> anyhow::Result<Credentials> {
        let answer = self.run(image).await?;
        let key = match answer.cache_key_type.as_str() {
            "Image" => image,
            "Registry" => registry(repository),
            "Global" => ALL,
            other => {
                anyhow::bail!("credential provider plugin did not return a valid cacheKeyType: {other:?}")
            }
        };
        let keep = answer.cache_duration.unwrap_or(self.config.default_cache_duration).0;
        let found = answer.auth.unwrap_or_default();
        if !keep.is_zero() {
            self.kept.lock().insert(key.to_owned(), (found.clone(), Instant::now() + keep));
        }
        Ok(found)
    }

    async fn run(&self, image: &str) -> anyhow::Result<Answer> {
        let (config, image_text) = (&self.config, image);
        let request = Request { api_version: &config.api_version, kind: "CredentialProviderRequest", image };
        let question = serde_json::to_vec(&request)?;
        let mut child = tokio::process::Command::new(&self.program)
            .args(&config.args)
            .envs(config.env.iter().map(|v| (&v.name, &v.value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdin = child.stdin.take();
        let talk = async {
            if let Some(mut stdin) = stdin {
                // A program need not read its question; its answer counts.
                drop(stdin.write_all(&question).await);
            }
            child.wait_with_output().await
        };
        let context =
            || format!("error execing credential provider plugin {} for image {image_text}", config.name);
        let output =
            tokio::time::timeout(TIMEOUT, talk).await.with_context(context)?.with_context(context)?;
        ensure!(
            output.status.success(),
            "{}: {}: {}",
            context(),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        // Not the text itself: it holds what must not be told.
        let answer: Answer = serde_json::from_slice(&output.stdout)
            .map_err(|_| anyhow::anyhow!("error decoding credential provider plugin response from stdout"))?;
        ensure!(
            answer.kind == "CredentialProviderResponse",
            "failed to decode CredentialProviderResponse, unexpected Kind: {:?}",
            answer.kind
        );
        ensure!(
            answer.api_version == config.api_version,
            "apiVersion from credential plugin response did not match expected apiVersion:{}, actual apiVersion:{}",
            config.api_version,
            answer.api_version
        );
        Ok(answer)
    }
}

fn registry(repository: &str) -> &str {
    repository.split('/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    struct Place(PathBuf);

    impl Drop for Place {
        fn drop(&mut self) {
            drop(std::fs::remove_dir_all(&self.0));
        }
    }

    /// A program that counts its runs and answers `answer`.
    fn program(answer: &str) -> Place {
        let dir = std::env::temp_dir().join(format!("providers-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&dir).expect("create");
        let script = format!(
            "#!/bin/sh\ncat > {0}/question\necho \"$1 $KIND\" >> {0}/runs\ncat <<'END'\n{answer}\nEND\n",
            dir.display()
        );
        let file = dir.join("helper");
        std::fs::write(&file, script).expect("write");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("executable");
        Place(dir)
    }

    fn config(more: &str) -> String {
        format!(
            "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders:\n- name: helper\n  \
             matchImages: ['*.example.com']\n  defaultCacheDuration: 10m\n  \
             apiVersion: credentialprovider.kubelet.k8s.io/v1\n  args: [get]\n  env: [{{name: KIND, value: test}}]\n{more}"
        )
    }

    const ANSWER: &str = r#"{"apiVersion":"credentialprovider.kubelet.k8s.io/v1","kind":"CredentialProviderResponse",
        "cacheKeyType":"Registry","auth":{"*.example.com":{"username":"wide","password":"w"},
        "r.example.com/team":{"username":"team","password":"t"},"other.net":{"username":"x","password":"x"}}}"#;

    async fn users(providers: &Providers, image: &str) -> Vec<String> {
        providers.for_image(image).await.into_iter().map(|a| a.username).collect()
    }

    #[tokio::test]
    async fn a_program_is_asked_and_its_answer_kept() {
        let place = program(ANSWER);
        let providers = Providers::parse(&config(""), &place.0).expect("valid");
        assert_eq!(users(&providers, "r.example.com/team/app:1").await, ["team", "wide"]);
        assert_eq!(users(&providers, "r.example.com/other:1").await, ["wide"]);
        assert_eq!(users(&providers, "elsewhere.net/app").await, [] as [&str; 0]);
        assert_eq!(
            std::fs::read_to_string(place.0.join("runs")).expect("ran"),
            "get test\n",
            "kept for the registry"
        );
        let question: serde_json::Value =
            serde_json::from_slice(&std::fs::read(place.0.join("question")).expect("asked")).expect("JSON");
        assert_eq!(question["image"], "r.example.com/team/app:1");
        assert_eq!(question["kind"], "CredentialProviderRequest");
    }

    #[tokio::test]
    async fn a_program_that_fails_has_no_credentials() {
        for answer in
            ["nonsense", &ANSWER.replace("/v1\"", "/v1beta1\""), &ANSWER.replace("Registry", "Moon")]
        {
            let place = program(answer);
            let providers = Providers::parse(&config(""), &place.0).expect("valid");
            assert!(providers.for_image("r.example.com/app").await.is_empty(), "{answer}");
        }
    }

    #[test]
    fn configurations_are_checked() {
        let place = program(ANSWER);
        assert!(Providers::parse(&config("  surprise: 1\n"), &place.0).is_err());
        assert!(Providers::parse(&config("").replace("helper", "missing"), &place.0).is_err());
        assert!(Providers::parse(&config("").replace("helper", "../helper"), &place.0).is_err());
        assert!(
            Providers::parse(&config("").replace("kubelet.k8s.io/v1\n", "kubelet.k8s.io/v2\n"), &place.0)
                .is_err()
        );
    }
}
