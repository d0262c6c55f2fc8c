//! Who writes an admission policy must be able to read its parameters, lest the policy read them for its writer
//! (upstream `registry/admissionregistration/*/authz.go`).

use api::field::{self, Path};
use api::names::{GroupVersion, GroupVersionKind};
use k8s_openapi::api::admissionregistration::v1::{ParamKind, ParamRef};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Registry;
use crate::authn::{MASTERS, User};
use crate::authz::Authorizer;
use crate::request::RequestInfo;

const GROUP: &str = "admissionregistration.k8s.io";

/// What decides.
pub struct Reader<'a> {
    /// What is served.
    pub registry: &'a Registry,
    /// Who may do what.
    pub authorizer: &'a dyn Authorizer,
    /// Who writes.
    pub user: &'a User,
}

impl Reader<'_> {
    /// Whether the writer of a policy or a binding may read the parameters it speaks of; else why it is refused.
    #[must_use]
    pub fn check(
        &self,
        kind: &GroupVersionKind,
        object: &Value,
        old: Option<&Value>,
    ) -> Option<field::Error> {
        if kind.group != GROUP || self.user.in_group(MASTERS) {
            return None;
        }
        let (new, old) = (&object["spec"], old.map(|old| &old["spec"]));
        let same = |name: &str| old.is_some_and(|old| old[name] == new[name]);
        let (name, refused) = match &*kind.kind {
            "ValidatingAdmissionPolicy" | "MutatingAdmissionPolicy" if !same("paramKind") => {
                ("paramKind", self.policy(part(&new["paramKind"])?))
            }
            "ValidatingAdmissionPolicyBinding" | "MutatingAdmissionPolicyBinding"
                if !(same("paramRef") && same("policyName")) =>
            {
                let policy = new["policyName"].as_str().unwrap_or_default();
                let plural = match kind.kind.starts_with('V') {
                    true => "validatingadmissionpolicies",
                    false => "mutatingadmissionpolicies",
                };
                ("paramRef", self.binding(&part(&new["paramRef"])?, plural, policy))
            }
            _ => return None,
        };
        refused.map(|why| field::Error::forbidden(&Path::new("spec").child(name), why))
    }

    /// All objects of the kind must be readable.
    fn policy(&self, kind: ParamKind) -> Option<String> {
        let what = self.what(&kind);
        let request = RequestInfo { name: "*".to_owned(), namespace: "*".to_owned(), ..what.request("get") };
        let (kind, version) = (kind.kind.unwrap_or_default(), kind.api_version.unwrap_or_default());
        (!self.may(&request)).then(|| {
            let user = shown(self.user);
            format!(
                "user {user} must have \"get\" permission on all objects of the referenced paramKind (kind={kind}, \
                 apiVersion={version})"
            )
        })
    }

    /// The objects that are meant must be readable.
    fn binding(&self, reference: &ParamRef, plural: &str, policy: &str) -> Option<String> {
        let (name, namespace) = (reference.name.clone(), reference.namespace.clone());
        let (name, namespace) = (name.unwrap_or_default(), namespace.unwrap_or_default());
        let verb = if name.is_empty() { "list" } else { "get" };
        let kind = self.param_kind(plural, policy);
        let what =
            kind.as_ref().ok().and_then(Option::as_ref).map(|kind| self.what(kind)).unwrap_or_default();
        let request = RequestInfo { name, namespace, ..what.request(verb) };
        if self.may(&request) {
            return None;
        }
        let user = shown(self.user);
        let all = format!(
            "to determine minimum required permissions and user {user} does not have \"{verb}\" permission for all \
             groups, versions and resources"
        );
        Some(match kind {
            Err(()) => format!("unable to get policy {policy} {all}"),
            Ok(Some(kind)) if what.version == "*" => {
                format!("unable to parse paramKind {} {all}", text(&kind))
            }
            Ok(Some(kind)) if what.resource == "*" => {
                format!("unable to resolve paramKind {} {all}", text(&kind))
            }
            Ok(_) => format!(
                "user {user} does not have \"{verb}\" permission on the object referenced by paramRef"
            ),
        })
    }

    /// The kind of a policy's parameters, if it has any; an error if there is no such policy.
    fn param_kind(&self, plural: &str, policy: &str) -> Result<Option<ParamKind>, ()> {
        let resource = self.registry.find(GROUP, "v1", plural);
        let cache = resource.as_ref().and_then(|resource| resource.cache.as_ref()).ok_or(())?;
        let found = cache.peek("", policy).ok_or(())?.value().map_err(drop)?;
        Ok(part(&found["spec"]["paramKind"]))
    }

    fn what(&self, kind: &ParamKind) -> What {
        let Some(version) = GroupVersion::parse(kind.api_version.as_deref().unwrap_or_default()) else {
            return What::default();
        };
        let found = self.registry.of_kind(&version.with_kind(kind.kind.clone().unwrap_or_default()));
        let resource = found.map_or_else(|| "*".to_owned(), |found| found.gvr.resource.to_string());
        What { group: version.group.to_string(), version: version.version.to_string(), resource }
    }

    fn may(&self, request: &RequestInfo) -> bool {
        self.authorizer.authorize(self.user, request).allowed()
    }
}

/// What is to be read; anything, where that cannot be told.
#[derive(PartialEq, Eq)]
struct What {
    group: String,
    version: String,
    resource: String,
}

impl Default for What {
    fn default() -> Self {
        let any = || "*".to_owned();
        Self { group: any(), version: any(), resource: any() }
    }
}

impl What {
    fn request(&self, verb: &str) -> RequestInfo {
        RequestInfo {
            is_resource: true,
            verb: verb.to_owned(),
            group: self.group.clone(),
            version: self.version.clone(),
            resource: self.resource.clone(),
            ..RequestInfo::default()
        }
    }
}

fn part<T: DeserializeOwned>(value: &Value) -> Option<T> {
    T::deserialize(value).ok().filter(|_| !value.is_null())
}

/// As Go prints the kind.
fn text(kind: &ParamKind) -> String {
    let (version, name) = (kind.api_version.as_deref(), kind.kind.as_deref());
    format!("&ParamKind{{APIVersion:{},Kind:{},}}", version.unwrap_or_default(), name.unwrap_or_default())
}

/// As Go prints the user.
fn shown(user: &User) -> String {
    let list = |items: &[String]| format!("[{}]", items.join(" "));
    let extra: Vec<String> =
        user.extra.iter().map(|(key, values)| format!("{key}:{}", list(values))).collect();
    format!("&{{{} {} {} map[{}]}}", user.name, user.uid, list(&user.groups), extra.join(" "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::authz::{AlwaysDeny, Decision};

    struct Only(&'static str);

    impl Authorizer for Only {
        fn authorize(&self, _: &User, request: &RequestInfo) -> Decision {
            let RequestInfo { verb, group, resource, namespace, name, .. } = request;
            match format!("{verb} {group}/{resource} {namespace}/{name}") == self.0 {
                true => Decision::allow(),
                false => Decision::no_opinion(""),
            }
        }
    }

    fn check(
        authorizer: &dyn Authorizer,
        kind: &'static str,
        spec: Value,
        old: Option<Value>,
    ) -> Option<String> {
        let groups = vec!["system:authenticated".to_owned()];
        let user = User { name: "bob".into(), groups, ..User::default() };
        let registry = Registry::default();
        let reader = Reader { registry: &registry, authorizer, user: &user };
        let kind = GroupVersionKind::new(GROUP, "v1", kind);
        let object = |spec| json!({"spec": spec});
        reader.check(&kind, &object(spec), old.map(object).as_ref()).map(|error| error.to_string())
    }

    #[test]
    fn writers_must_be_readers() {
        let of_kind = || json!({"paramKind": {"apiVersion": "example.com/v1", "kind": "Limit"}});
        let refused = check(&AlwaysDeny, "ValidatingAdmissionPolicy", of_kind(), None);
        assert_eq!(
            refused.as_deref(),
            Some(
                "spec.paramKind: Forbidden: user &{bob  [system:authenticated] map[]} must have \"get\" permission on all \
                 objects of the referenced paramKind (kind=Limit, apiVersion=example.com/v1)"
            )
        );
        let allowed = Only("get example.com/* */*");
        assert_eq!(check(&allowed, "MutatingAdmissionPolicy", of_kind(), None), None);
        assert_eq!(check(&AlwaysDeny, "MutatingAdmissionPolicy", of_kind(), Some(of_kind())), None);
        assert_eq!(check(&AlwaysDeny, "ValidatingAdmissionPolicy", json!({}), None), None);
        let bound = || json!({"policyName": "p", "paramRef": {"name": "a", "namespace": "ns"}});
        let refused = check(&AlwaysDeny, "ValidatingAdmissionPolicyBinding", bound(), None);
        assert!(
            refused.is_some_and(|why| why.starts_with("spec.paramRef: Forbidden: unable to get policy p to"))
        );
        assert_eq!(check(&Only("get */* ns/a"), "ValidatingAdmissionPolicyBinding", bound(), None), None);
    }
}
