//! Types by whatever name a user gives them, and the paths they are served at.

use serde_json::Value;

use crate::failure::{Failure, Result};
use crate::server::Server;

/// A type the server serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resource {
    /// API group, empty for core.
    pub group: String,
    /// Version.
    pub version: String,
    /// Name in paths.
    pub plural: String,
    /// Name for one.
    pub singular: String,
    /// Kind.
    pub kind: String,
    /// Whether its objects are in namespaces.
    pub namespaced: bool,
    /// Short names.
    pub short_names: Vec<String>,
    /// Categories, for example `all`.
    pub categories: Vec<String>,
    /// What can be done.
    pub verbs: Vec<String>,
}

impl Resource {
    /// `v1` or `group/version`.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// As messages name it: `pods`, `deployments.apps`.
    #[must_use]
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// As results name its objects: `pod`, `deployment.apps`.
    #[must_use]
    pub fn prefix(&self) -> String {
        let singular =
            if self.singular.is_empty() { self.kind.to_lowercase() } else { self.singular.clone() };
        if self.group.is_empty() { singular } else { format!("{singular}.{}", self.group) }
    }

    /// The path of all objects, of those of a namespace, or of one.
    #[must_use]
    pub fn path(&self, namespace: Option<&str>, name: Option<&str>) -> String {
        let mut path = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        if let (true, Some(namespace)) = (self.namespaced, namespace) {
            path.push_str(&format!("/namespaces/{}", encode(namespace)));
        }
        path.push('/');
        path.push_str(&self.plural);
        if let Some(name) = name {
            path.push('/');
            path.push_str(&encode(name));
        }
        path
    }
}

/// Escapes what may not stand in a path segment or a query value.
#[must_use]
pub fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// All types, in the server's order of groups, the preferred version of a group first.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    /// The types; one may be there in several versions.
    pub all: Vec<Resource>,
}

const AGGREGATED: &str =
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

impl Resources {
    /// Asks the server.
    pub async fn discover(server: &Server) -> Result<Self> {
        let mut all = vec![];
        for root in ["/api", "/apis"] {
            let answer = server.call(http::Method::GET, root, AGGREGATED, None).await?;
            if answer["kind"] == "APIGroupDiscoveryList" {
                aggregated(&answer, &mut all);
            } else {
                legacy(server, root, &answer, &mut all).await;
            }
        }
        Ok(Self { all })
    }

    /// The type a user means by `pods`, `po`, `Pod`, `deployments.apps` or `deployments.v1.apps`.
    pub fn find(&self, name: &str) -> Result<&Resource> {
        let lower = name.to_lowercase();
        let called = |r: &Resource, name: &str| {
            r.plural == name
                || r.singular == name
                || r.short_names.iter().any(|s| s == name)
                || r.kind.to_lowercase() == name
        };
        let exact = self.all.iter().find(|r| called(r, &lower));
        let qualified = || {
            let (first, rest) = lower.split_once('.')?;
            let in_group = self.all.iter().find(|r| called(r, first) && r.group == rest);
            in_group.or_else(|| {
                let (version, group) = rest.split_once('.').unwrap_or((rest, ""));
                self.all.iter().find(|r| called(r, first) && r.version == version && r.group == group)
            })
        };
        exact
            .or_else(qualified)
            .ok_or_else(|| Failure::local(format!("the server doesn't have a resource type \"{name}\"")))
    }

    /// The types a user means by one word of `get`: a type, or all of a category.
    pub fn find_all(&self, name: &str) -> Result<Vec<&Resource>> {
        let mut seen = std::collections::BTreeSet::new();
        let in_category: Vec<_> = self
            .all
            .iter()
            .filter(|r| {
                r.categories.iter().any(|c| c == name) && seen.insert((r.group.clone(), r.plural.clone()))
            })
            .collect();
        if in_category.is_empty() { self.find(name).map(|r| vec![r]) } else { Ok(in_category) }
    }

    /// The type of an object by its apiVersion and kind.
    pub fn of(&self, object: &Value) -> Result<&Resource> {
        let text = |field: &str| object[field].as_str().unwrap_or_default();
        let (version, kind) = (text("apiVersion"), text("kind"));
        let found = self.all.iter().find(|r| r.api_version() == version && r.kind == kind);
        found.ok_or_else(|| {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
            Failure::local(format!(
                "resource mapping not found for name: \"{name}\" namespace: \"{namespace}\" from \"STDIN\": no matches for kind \"{kind}\" in version \"{version}\"\nensure CRDs are installed first"
            ))
        })
    }
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

fn aggregated(answer: &Value, all: &mut Vec<Resource>) {
    for group in answer["items"].as_array().into_iter().flatten() {
        for version in group["versions"].as_array().into_iter().flatten() {
            for resource in version["resources"].as_array().into_iter().flatten() {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                all.push(Resource {
                    group: text(&group["metadata"]["name"]),
                    version: text(&version["version"]),
                    plural: text(&resource["resource"]),
                    singular: text(&resource["singularResource"]),
                    kind: text(&resource["responseKind"]["kind"]),
                    namespaced: resource["scope"] == "Namespaced",
                    short_names: strings(&resource["shortNames"]),
                    categories: strings(&resource["categories"]),
                    verbs: strings(&resource["verbs"]),
                });
            }
        }
    }
}

/// One request for each version of each group; a group that does not answer is left out.
async fn legacy(server: &Server, root: &str, answer: &Value, all: &mut Vec<Resource>) {
    let mut versions = vec![];
    if root == "/api" {
        versions.extend(strings(&answer["versions"]).into_iter().map(|v| (String::new(), v)));
    }
    for group in answer["groups"].as_array().into_iter().flatten() {
        let name = group["name"].as_str().unwrap_or_default();
        for version in group["versions"].as_array().into_iter().flatten() {
            versions.push((name.to_owned(), version["version"].as_str().unwrap_or_default().to_owned()));
        }
    }
    for (group, version) in versions {
        let path =
            if group.is_empty() { format!("{root}/{version}") } else { format!("{root}/{group}/{version}") };
        let Ok(list) = server.get(&path).await else { continue };
        for resource in list["resources"].as_array().into_iter().flatten() {
            let text = |field: &str| resource[field].as_str().unwrap_or_default().to_owned();
            if text("name").contains('/') {
                continue;
            }
            all.push(Resource {
                group: group.clone(),
                version: version.clone(),
                plural: text("name"),
                singular: text("singularName"),
                kind: text("kind"),
                namespaced: resource["namespaced"] == true,
                short_names: strings(&resource["shortNames"]),
                categories: strings(&resource["categories"]),
                verbs: strings(&resource["verbs"]),
            });
        }
    }
}

/// What a user names by words such as `pods`, `pod a b`, `pod/a svc/b`: types with names; no name means all.
pub fn targets<'a>(
    resources: &'a Resources,
    words: &[String],
) -> Result<Vec<(&'a Resource, Option<String>)>> {
    let Some(first) = words.first() else {
        return Err(Failure::local(
            "You must specify the type of resource to get. Use \"kubectl api-resources\" for a complete list of supported resources.",
        ));
    };
    if first.contains('/') {
        let mut found = vec![];
        for word in words {
            let Some((kind, name)) = word.split_once('/') else {
                return Err(Failure::local(
                    "there is no need to specify a resource type as a separate argument when passing arguments in resource/name form (e.g. 'kubectl get resource/<resource_name>' instead of 'kubectl get resource resource/<resource_name>'",
                ));
            };
            if name.is_empty() {
                return Err(Failure::local(
                    "arguments in resource/name form must have a single resource and name",
                ));
            }
            found.push((resources.find(kind)?, Some(name.to_owned())));
        }
        return Ok(found);
    }
    let mut types = vec![];
    for word in first.split(',').filter(|w| !w.is_empty()) {
        types.extend(resources.find_all(word)?);
    }
    let names = &words[1..];
    if names.is_empty() {
        return Ok(types.into_iter().map(|t| (t, None)).collect());
    }
    if names.iter().any(|n| n.contains('/')) {
        return Err(Failure::local(
            "there is no need to specify a resource type as a separate argument when passing arguments in resource/name form (e.g. 'kubectl get resource/<resource_name>' instead of 'kubectl get resource resource/<resource_name>'",
        ));
    }
    Ok(types.iter().flat_map(|t| names.iter().map(move |n| (*t, Some(n.clone())))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources() -> Resources {
        let one = |group: &str, plural: &str, singular: &str, kind: &str, short: &str| Resource {
            group: group.into(),
            version: "v1".into(),
            plural: plural.into(),
            singular: singular.into(),
            kind: kind.into(),
            namespaced: true,
            short_names: vec![short.into()],
            categories: vec!["all".into()],
            verbs: vec![],
        };
        Resources {
            all: vec![
                one("", "pods", "pod", "Pod", "po"),
                one("apps", "deployments", "deployment", "Deployment", "deploy"),
            ],
        }
    }

    #[test]
    fn every_way_to_name_a_type_is_understood() {
        let resources = resources();
        for name in
            ["deployments", "deployment", "deploy", "Deployment", "deployments.apps", "deploy.v1.apps"]
        {
            assert_eq!(resources.find(name).expect(name).plural, "deployments", "{name}");
        }
        let error = resources.find("things").expect_err("no such type").to_string();
        assert_eq!(error, "error: the server doesn't have a resource type \"things\"");
    }

    #[test]
    fn words_become_targets() {
        let resources = resources();
        let show = |words: &[&str]| {
            let words: Vec<_> = words.iter().map(|w| (*w).to_owned()).collect();
            match targets(&resources, &words) {
                Ok(found) => found
                    .iter()
                    .map(|(r, n)| format!("{}/{}", r.plural, n.as_deref().unwrap_or("*")))
                    .collect::<Vec<_>>()
                    .join(" "),
                Err(_) => "error".to_owned(),
            }
        };
        assert_eq!(show(&["po,deploy"]), "pods/* deployments/*");
        assert_eq!(show(&["all"]), "pods/* deployments/*");
        assert_eq!(show(&["pod", "a", "b"]), "pods/a pods/b");
        assert_eq!(show(&["pod/a", "deploy/b"]), "pods/a deployments/b");
        assert_eq!(show(&["pod", "deploy/b"]), "error");
        assert_eq!(show(&[]), "error");
    }

    #[test]
    fn paths_escape_names() {
        let resources = resources();
        assert_eq!(
            resources.all[1].path(Some("ns"), Some("a/b")),
            "/apis/apps/v1/namespaces/ns/deployments/a%2Fb"
        );
        assert_eq!(resources.all[0].path(None, None), "/api/v1/pods");
    }
}
