//! ServiceAccount: every pod runs as one, and gets its token (upstream `plugin/pkg/admission/serviceaccount`).

use std::sync::Arc;
use std::time::Duration;

use api::status::ApiError;
use client::informer::Informer;
use client::{Client, ObjectKey};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::Api;
use rand::Rng as _;
use serde_json::{Value, json};

use super::{Attributes, Deps, Operation, Plugin, Verdict, decode, items, list_member, text};
use crate::authz::node::slim::{Kind, SlimPod};

const DEFAULT: &str = "default";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
const MIRROR: &str = "kubernetes.io/config.mirror";
const ENFORCE_MOUNTABLE: &str = "kubernetes.io/enforce-mountable-secrets";
/// The `default` account is made by a controller soon after the namespace: it is looked for so often.
const ATTEMPTS: u32 = 10;

/// The plugin.
pub struct ServiceAccounts {
    client: Client,
    accounts: Informer<ServiceAccount>,
}

impl ServiceAccounts {
    /// Watches service accounts.
    pub fn new(deps: &Deps<'_>) -> Self {
        Self { client: deps.client.clone(), accounts: deps.informers.informer() }
    }

    fn known(&self, attributes: &Attributes<'_>, name: &str) -> Option<Arc<ServiceAccount>> {
        self.accounts.store().get(&ObjectKey::new(attributes.namespace, name))
    }

    async fn asked_for(
        &self,
        attributes: &Attributes<'_>,
        object: &Value,
        name: &str,
    ) -> Result<Arc<ServiceAccount>, ApiError> {
        let namespace = attributes.namespace;
        let api = Api::<ServiceAccount>::namespaced(self.client.clone(), namespace);
        let refuse = |why: String| {
            Err(attributes
                .forbidden(object, &format!("error looking up service account {namespace}/{name}: {why}")))
        };
        let attempts = if name == DEFAULT { ATTEMPTS } else { 1 };
        let pause = Duration::from_millis(rand::rng().random_range(100..200));
        for attempt in 0..attempts {
            if attempt > 0 {
                tokio::time::sleep(pause).await;
            }
            match api.get_opt(name).await {
                Ok(Some(found)) => return Ok(Arc::new(found)),
                Ok(None) => {}
                Err(error) => return refuse(error.to_string()),
            }
        }
        refuse(format!("serviceaccount {name:?} not found"))
    }
}

fn is_mirror(pod: &Value) -> bool {
    pod["metadata"]["annotations"].get(MIRROR).is_some()
}

fn automounts(account: &ServiceAccount, spec: &Value) -> bool {
    spec["automountServiceAccountToken"].as_bool().or(account.automount_service_account_token).unwrap_or(true)
}

/// Mounts the token into every container that has nothing there yet.
fn mount_token(spec: &mut Value, new_name: &str) {
    let existing = items(spec, "volumes").iter().map(|volume| text(volume, "name"));
    let existing = existing.into_iter().find(|name| name.starts_with(VOLUME_PREFIX)).map(str::to_owned);
    let name = existing.clone().unwrap_or_else(|| new_name.to_owned());
    let mut needed = false;
    for list in ["initContainers", "containers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if items(container, "volumeMounts").iter().any(|mount| text(mount, "mountPath") == MOUNT_PATH) {
                continue;
            }
            let mount = json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH});
            list_member(container, "volumeMounts").push(mount);
            needed = true;
        }
    }
    if needed && existing.is_none() {
        list_member(spec, "volumes").push(json!({"name": name, "projected": {
        "defaultMode": 420,
        "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{
                "path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
        ]}}));
    }
}

/// Five characters that do not make words (upstream `utilrand.String`).
fn random_suffix() -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut random = rand::rng();
    (0..5).map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())])).collect()
}

/// Mirror pods refer to nothing that needs an account.
fn mirror_refusal(pod: &Value) -> Result<Option<&'static str>, ApiError> {
    if !text(&pod["spec"], "serviceAccountName").is_empty() {
        return Ok(Some("a mirror pod may not reference service accounts"));
    }
    // Read without the annotation, which would hide the references.
    let slim: SlimPod = decode(&json!({"metadata": {}, "spec": pod["spec"]}))?;
    if slim.references.iter().any(|(kind, _)| *kind == Kind::Secret) {
        return Ok(Some("a mirror pod may not reference secrets"));
    }
    let volumes = items(&pod["spec"], "volumes").iter();
    let mut sources = volumes.flat_map(|volume| items(&volume["projected"], "sources"));
    let token = sources.any(|source| source.get("serviceAccountToken").is_some());
    Ok(token.then_some("a mirror pod may not use ServiceAccountToken volume projections"))
}

/// Which secret the account does not let the pod use, in words.
fn secret_refusal(account: &ServiceAccount, pod: &Pod, ephemeral_only: bool) -> Option<String> {
    let name = account.metadata.name.as_deref().unwrap_or_default();
    let mountable: Vec<&str> =
        account.secrets.iter().flatten().filter_map(|secret| secret.name.as_deref()).collect();
    let spec = pod.spec.as_ref()?;
    let refused = |secret: &str| !mountable.contains(&secret);
    let end = format!("is not allowed because service account {name} does not reference that secret");
    let container_refusal = |what: &str, container: &k8s_openapi::api::core::v1::Container| {
        let title = format!("{what} {}", container.name);
        for env in container.env.iter().flatten() {
            let secret = env.value_from.as_ref().and_then(|from| from.secret_key_ref.as_ref());
            if let Some(secret) = secret.filter(|secret| refused(&secret.name)) {
                return Some(format!(
                    "{title} with envVar {} referencing secret.secretName=\"{}\" {end}",
                    env.name, secret.name
                ));
            }
        }
        for from in container.env_from.iter().flatten() {
            if let Some(secret) = from.secret_ref.as_ref().filter(|secret| refused(&secret.name)) {
                return Some(format!(
                    "{title} with envFrom referencing secret.secretName=\"{}\" {end}",
                    secret.name
                ));
            }
        }
        None
    };
    if ephemeral_only {
        let ephemeral: Vec<k8s_openapi::api::core::v1::Container> =
            spec.ephemeral_containers.iter().flatten().filter_map(as_container).collect();
        return ephemeral.iter().find_map(|container| container_refusal("ephemeral container", container));
    }
    for volume in spec.volumes.iter().flatten() {
        let secret = volume.secret.as_ref().map(|secret| secret.secret_name.as_deref().unwrap_or_default());
        if let Some(secret) = secret.filter(|secret| refused(secret)) {
            return Some(format!("volume with secret.secretName=\"{secret}\" {end}"));
        }
    }
    let init = spec.init_containers.iter().flatten().find_map(|c| container_refusal("init container", c));
    if let Some(why) = init.or_else(|| spec.containers.iter().find_map(|c| container_refusal("container", c)))
    {
        return Some(why);
    }
    let pull: Vec<&str> =
        account.image_pull_secrets.iter().flatten().map(|secret| secret.name.as_str()).collect();
    let mut asked = spec.image_pull_secrets.iter().flatten().enumerate();
    asked.find(|(_, secret)| !pull.contains(&secret.name.as_str())).map(|(index, secret)| {
        format!(
            "imagePullSecrets[{index}].name=\"{}\" is not allowed because service account {name} does not reference \
             that imagePullSecret",
            secret.name
        )
    })
}

/// The parts of an ephemeral container that refer to secrets.
fn as_container(
    ephemeral: &k8s_openapi::api::core::v1::EphemeralContainer,
) -> Option<k8s_openapi::api::core::v1::Container> {
    Some(k8s_openapi::api::core::v1::Container {
        name: ephemeral.name.clone(),
        env: ephemeral.env.clone(),
        env_from: ephemeral.env_from.clone(),
        ..k8s_openapi::api::core::v1::Container::default()
    })
}

/// As Go's `strconv.ParseBool` reads it.
fn enforces_mountable(account: &ServiceAccount) -> bool {
    let value =
        account.metadata.annotations.as_ref().and_then(|annotations| annotations.get(ENFORCE_MOUNTABLE));
    value.is_some_and(|value| matches!(value.as_str(), "1" | "t" | "T" | "TRUE" | "true" | "True"))
}

impl Plugin for ServiceAccounts {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        match attributes.operation {
            Operation::Create => attributes.is("", "pods"),
            Operation::Update => {
                attributes.is_any("", "pods") && attributes.subresource == "ephemeralcontainers"
            }
            _ => false,
        }
    }

    fn admit<'a>(
        &'a self,
        attributes: &'a Attributes<'_>,
        object: &'a mut Value,
        _: Option<&'a Value>,
        _: &'a mut Vec<String>,
    ) -> Verdict<'a> {
        if attributes.operation != Operation::Create {
            return Verdict::PASS;
        }
        if is_mirror(object) {
            return Verdict::Now(check_mirror(attributes, object));
        }
        let name = match text(&object["spec"], "serviceAccountName") {
            "" => DEFAULT.to_owned(),
            name => name.to_owned(),
        };
        if let Some(account) = self.known(attributes, &name) {
            run_as(object, &name, &account);
            return Verdict::PASS;
        }
        Verdict::later(async move {
            let account = self.asked_for(attributes, object, &name).await?;
            run_as(object, &name, &account);
            Ok(())
        })
    }

    fn validate<'a>(
        &'a self,
        attributes: &'a Attributes<'_>,
        object: &'a Value,
        _: Option<&'a Value>,
        _: &'a mut Vec<String>,
    ) -> Verdict<'a> {
        if is_mirror(object) {
            return Verdict::Now(check_mirror(attributes, object));
        }
        let name = text(&object["spec"], "serviceAccountName");
        if name.is_empty() {
            let pod = format!("{}/{}", attributes.namespace, text(&object["metadata"], "name"));
            let why = format!("no service account specified for pod {pod}");
            return Verdict::Now(Err(attributes.forbidden(object, &why)));
        }
        match self.known(attributes, name) {
            Some(account) => Verdict::Now(check_secrets(attributes, object, &account)),
            None => Verdict::later(async move {
                check_secrets(attributes, object, &*self.asked_for(attributes, object, name).await?)
            }),
        }
    }
}

fn check_mirror(attributes: &Attributes<'_>, pod: &Value) -> Result<(), ApiError> {
    match mirror_refusal(pod)? {
        Some(why) => Err(attributes.forbidden(pod, why)),
        None => Ok(()),
    }
}

/// Makes the account the pod's.
fn run_as(pod: &mut Value, name: &str, account: &ServiceAccount) {
    let Some(spec) = pod.get_mut("spec") else { return };
    spec["serviceAccountName"] = json!(name);
    spec["serviceAccount"] = json!(name);
    if automounts(account, spec) {
        mount_token(spec, &format!("{VOLUME_PREFIX}{}", random_suffix()));
    }
    let pull: Vec<_> =
        account.image_pull_secrets.iter().flatten().map(|secret| json!({"name": secret.name})).collect();
    if items(spec, "imagePullSecrets").is_empty() && !pull.is_empty() {
        spec["imagePullSecrets"] = Value::Array(pull);
    }
}

fn check_secrets(
    attributes: &Attributes<'_>,
    object: &Value,
    account: &ServiceAccount,
) -> Result<(), ApiError> {
    if !enforces_mountable(account) {
        return Ok(());
    }
    let ephemeral_only = attributes.operation == Operation::Update;
    match secret_refusal(account, &decode(object)?, ephemeral_only) {
        Some(why) => Err(attributes.forbidden(object, &why)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(value: Value) -> ServiceAccount {
        serde_json::from_value(value).expect("account")
    }

    #[test]
    fn the_token_is_mounted_once_where_nothing_else_is() {
        let mut spec = json!({
            "initContainers": [{"name": "i"}],
            "containers": [{"name": "a"}, {"name": "b", "volumeMounts": [{"name": "own", "mountPath": MOUNT_PATH}]}]});
        mount_token(&mut spec, "kube-api-access-abcde");
        let mount = json!([{"name": "kube-api-access-abcde", "readOnly": true, "mountPath": MOUNT_PATH}]);
        assert_eq!(spec["initContainers"][0]["volumeMounts"], mount);
        assert_eq!(spec["containers"][0]["volumeMounts"], mount);
        assert_eq!(spec["containers"][1]["volumeMounts"][0]["name"], "own");
        assert_eq!(items(&spec, "volumes").len(), 1);
        let before = spec.clone();
        mount_token(&mut spec, "kube-api-access-zzzzz");
        assert_eq!(spec, before, "a second time changes nothing");
    }

    #[test]
    fn an_existing_volume_is_used() {
        let mut spec = json!({"volumes": [{"name": "kube-api-access-mine"}], "containers": [{"name": "a"}]});
        mount_token(&mut spec, "kube-api-access-abcde");
        assert_eq!(spec["containers"][0]["volumeMounts"][0]["name"], "kube-api-access-mine");
        assert_eq!(items(&spec, "volumes").len(), 1);
    }

    #[test]
    fn the_pod_decides_before_the_account() {
        for (pod, of_account, expected) in [
            (Value::Null, Value::Null, true),
            (Value::Null, json!(false), false),
            (json!(true), json!(false), true),
            (json!(false), Value::Null, false),
        ] {
            let account = account(json!({"automountServiceAccountToken": of_account}));
            assert_eq!(automounts(&account, &json!({"automountServiceAccountToken": pod})), expected);
        }
    }

    #[test]
    fn mirror_pods_refer_to_nothing() {
        for (spec, expected) in [
            (json!({"containers": []}), None),
            (json!({"serviceAccountName": "x"}), Some("a mirror pod may not reference service accounts")),
            (
                json!({"volumes": [{"name": "v", "secret": {"secretName": "s"}}]}),
                Some("a mirror pod may not reference secrets"),
            ),
            (
                json!({"volumes": [{"name": "v", "projected": {"sources": [{"serviceAccountToken": {}}]}}]}),
                Some("a mirror pod may not use ServiceAccountToken volume projections"),
            ),
        ] {
            let pod = json!({"metadata": {"annotations": {MIRROR: "x"}}, "spec": spec});
            assert_eq!(mirror_refusal(&pod).expect("a pod"), expected);
        }
    }

    #[test]
    fn secrets_may_be_limited_to_those_of_the_account() {
        let account = account(json!({
            "metadata": {"name": "sa", "annotations": {ENFORCE_MOUNTABLE: "true"}},
            "secrets": [{"name": "own"}], "imagePullSecrets": [{"name": "pull"}]}));
        assert!(enforces_mountable(&account));
        for (spec, expected) in [
            (json!({"containers": [], "volumes": [{"name": "v", "secret": {"secretName": "own"}}]}), None),
            (
                json!({"containers": [], "volumes": [{"name": "v", "secret": {"secretName": "x"}}]}),
                Some(
                    "volume with secret.secretName=\"x\" is not allowed because service account sa does not reference that secret",
                ),
            ),
            (
                json!({"containers": [{"name": "c", "env": [{"name": "E", "valueFrom": {"secretKeyRef": {"name": "x", "key": "k"}}}]}]}),
                Some(
                    "container c with envVar E referencing secret.secretName=\"x\" is not allowed because service account sa does not reference that secret",
                ),
            ),
            (
                json!({"containers": [], "imagePullSecrets": [{"name": "pull"}, {"name": "x"}]}),
                Some(
                    "imagePullSecrets[1].name=\"x\" is not allowed because service account sa does not reference that imagePullSecret",
                ),
            ),
        ] {
            let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": spec})).expect("pod");
            assert_eq!(secret_refusal(&account, &pod, false).as_deref(), expected);
        }
    }
}
