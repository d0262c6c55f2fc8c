//! What resources the server has, each in its preferred version.

use client::kube::core::ApiResource;
use client::{Client, kube};
use futures::future::join_all;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIGroup, APIResourceList};

/// A resource as discovery describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// Group, version, kind and plural.
    pub api: ApiResource,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// What can be done with it.
    pub verbs: Vec<String>,
}

impl Resource {
    /// Whether all these verbs work.
    pub fn supports(&self, verbs: &[&str]) -> bool {
        verbs.iter().all(|verb| self.verbs.iter().any(|have| have == verb))
    }

    /// `plural.group`, the name by which messages call it.
    pub fn group_resource(&self) -> String {
        if self.api.group.is_empty() {
            self.api.plural.clone()
        } else {
            format!("{}.{}", self.api.plural, self.api.group)
        }
    }
}

/// The resources, and the groups that could not be asked.
#[derive(Debug, Default)]
pub struct Discovered {
    /// All resources but subresources.
    pub resources: Vec<Resource>,
    /// `group/version: error` for each that failed.
    pub failures: Vec<String>,
}

/// Asks the server for all resources, each once, in the version its group prefers among those that have it.
pub async fn discover(client: &Client) -> Result<Discovered, kube::Error> {
    let mut discovered = Discovered::default();
    collect(&mut discovered.resources, &client.list_core_api_resources("v1").await?);
    let groups = client.list_api_groups().await?;
    let versions: Vec<String> = groups.groups.iter().flat_map(versions_of).collect();
    let lists = join_all(versions.iter().map(|version| client.list_api_group_resources(version))).await;
    for (version, list) in versions.iter().zip(lists) {
        match list {
            Ok(list) => collect(&mut discovered.resources, &list),
            Err(error) => discovered.failures.push(format!("{version}: {error}")),
        }
    }
    Ok(discovered)
}

/// Whether a resource of a group's version is there; also if that cannot be told.
pub async fn is_served(client: &Client, group_version: &str, plural: &str) -> bool {
    match client.list_api_group_resources(group_version).await {
        Ok(list) => list.resources.iter().any(|resource| resource.name == plural),
        Err(kube::Error::Api(status)) => status.code != 404,
        Err(_) => true,
    }
}

/// The versions of a group, preferred first.
fn versions_of(group: &APIGroup) -> Vec<String> {
    let preferred = group.preferred_version.as_ref().map(|version| version.group_version.clone());
    let all = group.versions.iter().map(|version| version.group_version.clone());
    let others: Vec<_> = all.filter(|version| Some(version) != preferred.as_ref()).collect();
    preferred.into_iter().chain(others).collect()
}

fn collect(into: &mut Vec<Resource>, list: &APIResourceList) {
    let (list_group, list_version) = list.group_version.split_once('/').unwrap_or(("", &list.group_version));
    for resource in list.resources.iter().filter(|resource| !resource.name.contains('/')) {
        let group = resource.group.as_deref().filter(|group| !group.is_empty()).unwrap_or(list_group);
        let version =
            resource.version.as_deref().filter(|version| !version.is_empty()).unwrap_or(list_version);
        if into.iter().any(|have| have.api.group == group && have.api.plural == resource.name) {
            continue;
        }
        let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        into.push(Resource {
            api: ApiResource {
                group: group.to_owned(),
                version: version.to_owned(),
                api_version,
                kind: resource.kind.clone(),
                plural: resource.name.clone(),
            },
            namespaced: resource.namespaced,
            verbs: resource.verbs.clone(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResource;

    #[test]
    fn first_version_that_has_a_resource_counts() {
        let list = |version: &str, names: &[&str]| APIResourceList {
            group_version: version.into(),
            resources: names
                .iter()
                .map(|name| APIResource { name: (*name).into(), kind: "K".into(), ..Default::default() })
                .collect(),
        };
        let mut resources = Vec::new();
        collect(&mut resources, &list("apps/v1", &["deployments", "deployments/status"]));
        collect(&mut resources, &list("apps/v1beta1", &["deployments", "widgets"]));
        let names: Vec<_> =
            resources.iter().map(|r| format!("{} {}", r.group_resource(), r.api.api_version)).collect();
        assert_eq!(names, ["deployments.apps apps/v1", "widgets.apps apps/v1beta1"]);
    }
}
