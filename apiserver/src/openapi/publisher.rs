//! Keeps what has been published: documents are made when they are first asked for, off the async threads, and kept
//! compressed. When a custom resource changes, the documents that it is part of are forgotten.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use parking_lot::{Mutex, RwLock};
use sha2::{Digest, Sha512};

use super::custom::{self, CustomVersion};
use super::document::{self, Head, Output};
use super::foreign::Foreign;
use super::resources;
use super::routes::Route;
use super::schema::{Definitions, Edition};
use super::texts::Texts;
use crate::handlers::non_resource;

/// How a document is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// JSON.
    Json,
    /// Protobuf, in gnostic's messages.
    Protobuf,
}

/// What a document is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// Everything, in version 2.
    Everything,
    /// One part, in version 3, called after its path: `apis/apps/v1`.
    Part(String),
}

/// A document that is ready to be sent.
#[derive(Clone, Debug)]
pub struct Packed {
    /// Compressed with gzip.
    pub gzip: Bytes,
    /// How long it is uncompressed.
    pub length: u64,
    /// When it was made.
    pub modified: SystemTime,
    /// Names this state of the document, the same in all encodings.
    pub etag: Arc<str>,
}

#[derive(Default)]
struct Entry {
    etag: OnceLock<Arc<str>>,
    json: OnceLock<Packed>,
    protobuf: OnceLock<Packed>,
}

impl Entry {
    fn packed(&self, format: Format) -> &OnceLock<Packed> {
        match format {
            Format::Json => &self.json,
            Format::Protobuf => &self.protobuf,
        }
    }
}

/// What another server says of itself.
#[derive(Default)]
struct Remote {
    /// The name of its document of version 3, and what names its state.
    part: Option<(String, Arc<str>)>,
    foreign: Foreign,
}

#[derive(Default)]
struct State {
    custom: RwLock<BTreeMap<String, Vec<Arc<CustomVersion>>>>,
    /// By the names of APIServices.
    remote: RwLock<BTreeMap<String, Remote>>,
    entries: Mutex<HashMap<Subject, Arc<Entry>>>,
    /// One document is made at a time: making one takes memory.
    making: tokio::sync::Mutex<()>,
}

/// The published documents. Cheap to clone.
#[derive(Clone, Default)]
pub struct Publisher {
    state: Arc<State>,
}

/// Why a document could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The task that made it was cut short.
    #[error("make OpenAPI document")]
    Stopped(#[source] tokio::task::JoinError),
}

impl Publisher {
    /// Publishes the served versions of a custom resource, in place of those before; none withdraws it. `name` is the
    /// name of its definition.
    pub fn publish(&self, name: &str, versions: Vec<CustomVersion>) {
        let versions: Vec<Arc<CustomVersion>> = versions.into_iter().map(Arc::new).collect();
        let mut affected: BTreeSet<Subject> = versions.iter().map(|version| version.subject()).collect();
        {
            let mut custom = self.state.custom.write();
            let old = if versions.is_empty() {
                custom.remove(name)
            } else {
                custom.insert(name.to_owned(), versions)
            };
            affected.extend(old.iter().flatten().map(|version| version.subject()));
        }
        if !affected.is_empty() {
            affected.insert(Subject::Everything);
        }
        self.state.entries.lock().retain(|subject, _| !affected.contains(subject));
    }

    /// Withdraws a custom resource.
    pub fn withdraw(&self, name: &str) {
        self.publish(name, Vec::new());
    }

    /// Takes in what the server of an APIService says: the name and state of its document of version 3, and, if that
    /// is news, what it says in version 2.
    pub fn set_foreign(&self, name: &str, part: Option<(String, String)>, foreign: Option<Foreign>) {
        let part = part.map(|(part, state)| (part, Arc::from(state)));
        let changed = {
            let mut remote = self.state.remote.write();
            let known = remote.entry(name.to_owned()).or_default();
            known.part = part;
            let new = foreign.filter(|new| *new != known.foreign);
            let changed = new.is_some();
            known.foreign = new.unwrap_or_else(|| std::mem::take(&mut known.foreign));
            changed
        };
        if changed {
            self.state.entries.lock().remove(&Subject::Everything);
        }
    }

    /// Leaves out what the server of an APIService said.
    pub fn forget_foreign(&self, name: &str) {
        if self.state.remote.write().remove(name).is_some() {
            self.state.entries.lock().remove(&Subject::Everything);
        }
    }

    /// A document; `None` if there is none about this.
    pub async fn document(&self, subject: Subject, format: Format) -> Result<Option<Packed>, Error> {
        if !self.state.exists(&subject) {
            return Ok(None);
        }
        let entry = self.state.entry(&subject);
        if let Some(packed) = entry.packed(format).get() {
            return Ok(Some(packed.clone()));
        }
        let _making = self.state.making.lock().await;
        let state = Arc::clone(&self.state);
        let make = move || {
            let packed = entry.packed(format);
            packed.get_or_init(|| state.make(&subject, format, &entry)).clone()
        };
        tokio::task::spawn_blocking(make).await.map(Some).map_err(Error::Stopped)
    }

    /// The names of the parts of version 3, each with what names its state.
    pub async fn parts(&self) -> Result<BTreeMap<String, Arc<str>>, Error> {
        let mut parts = self.own_parts().await?;
        parts.extend(self.state.remote.read().values().filter_map(|remote| remote.part.clone()));
        Ok(parts)
    }

    async fn own_parts(&self) -> Result<BTreeMap<String, Arc<str>>, Error> {
        let subjects = self.state.parts();
        if let Some(known) = self.state.etags(&subjects) {
            return Ok(known);
        }
        let _making = self.state.making.lock().await;
        let state = Arc::clone(&self.state);
        let make = move || {
            let texts = OnceLock::new();
            let named = |name: String| {
                let subject = Subject::Part(name.clone());
                let entry = state.entry(&subject);
                let texts = || texts.get_or_init(Texts::load);
                let hash = || etag(&state.render(&subject, Format::Json, texts()).json);
                (name, Arc::clone(entry.etag.get_or_init(hash)))
            };
            subjects.into_iter().map(named).collect()
        };
        tokio::task::spawn_blocking(make).await.map_err(Error::Stopped)
    }
}

/// As upstream: the SHA-512 of the JSON text.
fn etag(json: &[u8]) -> Arc<str> {
    Sha512::digest(json).iter().map(|byte| format!("{byte:02X}")).collect::<String>().into()
}

fn pack(data: &[u8], etag: Arc<str>) -> Packed {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    // Writing into memory does not fail.
    let gzip = encoder.write_all(data).and_then(|()| encoder.finish()).unwrap_or_default();
    Packed { gzip: gzip.into(), length: data.len() as u64, modified: SystemTime::now(), etag }
}

impl State {
    fn entry(&self, subject: &Subject) -> Arc<Entry> {
        let mut entries = self.entries.lock();
        Arc::clone(entries.entry(subject.clone()).or_default())
    }

    fn custom_versions(&self, subject: &Subject) -> Vec<Arc<CustomVersion>> {
        let ours =
            |version: &&Arc<CustomVersion>| *subject == Subject::Everything || version.subject() == *subject;
        self.custom.read().values().flatten().filter(ours).cloned().collect()
    }

    fn foreign(&self) -> Vec<Foreign> {
        let remote = self.remote.read();
        let said = remote.values().map(|remote| &remote.foreign).filter(|foreign| !foreign.paths.is_empty());
        said.cloned().collect()
    }

    fn exists(&self, subject: &Subject) -> bool {
        match subject {
            Subject::Everything => true,
            Subject::Part(name) => {
                built_in_parts().contains_key(name) || !self.custom_versions(subject).is_empty()
            }
        }
    }

    fn parts(&self) -> BTreeSet<String> {
        let mut names: BTreeSet<String> = built_in_parts().keys().cloned().collect();
        for version in self.custom.read().values().flatten() {
            names.insert(version.part());
        }
        names
    }

    fn etags(&self, names: &BTreeSet<String>) -> Option<BTreeMap<String, Arc<str>>> {
        let entries = self.entries.lock();
        let known = |name: &String| {
            let etag = entries.get(&Subject::Part(name.clone()))?.etag.get()?;
            Some((name.clone(), Arc::clone(etag)))
        };
        names.iter().map(known).collect()
    }

    fn make(&self, subject: &Subject, format: Format, entry: &Entry) -> Packed {
        let output = self.render(subject, format, &Texts::load());
        let etag = entry.etag.get_or_init(|| etag(&output.json));
        let data = match format {
            Format::Json => &output.json,
            Format::Protobuf => &output.protobuf,
        };
        pack(data, Arc::clone(etag))
    }

    fn render(&self, subject: &Subject, format: Format, texts: &Texts) -> Output {
        let edition = match subject {
            Subject::Everything => Edition::V2,
            Subject::Part(_) => Edition::V3,
        };
        let mut routes = Vec::new();
        match subject {
            Subject::Everything => {
                built_in_parts().values().for_each(|part| routes.extend(part.routes(texts)))
            }
            Subject::Part(name) => {
                routes.extend(built_in_parts().get(name).map(|part| part.routes(texts)).into_iter().flatten())
            }
        }
        let head = if routes.is_empty() { custom::head() } else { head() };
        let mut definitions = Definitions::new(edition, texts);
        if let Subject::Part(name) = subject
            && let Some(BuiltIn::Version(group, version)) = built_in_parts().get(name)
        {
            definitions = definitions.of_version(group, version);
        }
        let mut given = BTreeMap::new();
        for version in self.custom_versions(subject) {
            routes.extend(version.routes(texts));
            version.define(edition, &mut definitions, texts, &mut given);
        }
        let foreign = match subject {
            Subject::Everything => self.foreign(),
            Subject::Part(_) => Vec::new(),
        };
        document::write(edition, &head, routes, definitions, given, foreign, format == Format::Protobuf)
    }
}

fn head() -> Head {
    let version = non_resource::version();
    let version = version["gitVersion"].as_str().unwrap_or_default();
    // As upstream: without what comes after the first hyphen.
    let version = version.split('-').next().unwrap_or_default().to_owned();
    Head { title: "Kubernetes", version, secured: true }
}

/// A part of what is built in.
enum BuiltIn {
    Groups,
    Group(&'static str),
    Version(&'static str, &'static str),
    Other(&'static str),
}

impl BuiltIn {
    fn routes(&self, texts: &Texts) -> Vec<Route> {
        match self {
            Self::Groups => resources::of_groups(),
            Self::Group(group) => resources::of_group(group),
            Self::Version(group, version) => resources::of_version(group, version, texts),
            Self::Other(name) => resources::others()
                .into_iter()
                .filter(|(other, _)| other == name)
                .map(|(_, route)| route)
                .collect(),
        }
    }
}

/// The parts of what is built in, by the names of their documents.
fn built_in_parts() -> &'static BTreeMap<String, BuiltIn> {
    static PARTS: OnceLock<BTreeMap<String, BuiltIn>> = OnceLock::new();
    PARTS.get_or_init(|| {
        let mut parts = BTreeMap::from([("apis".to_owned(), BuiltIn::Groups)]);
        for group in api::registry::groups() {
            let name = if group.name.is_empty() { "api".to_owned() } else { format!("apis/{}", group.name) };
            for version in &group.versions {
                parts.insert(format!("{name}/{version}"), BuiltIn::Version(group.name, version));
            }
            parts.insert(name, BuiltIn::Group(group.name));
        }
        for (name, _) in resources::others() {
            parts.insert(name.to_owned(), BuiltIn::Other(name));
        }
        parts
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use serde_json::Value;

    use super::*;

    fn gadget() -> CustomVersion {
        CustomVersion {
            group: "example.com".to_owned(),
            version: "v1".to_owned(),
            kind: "Gadget".to_owned(),
            list_kind: "GadgetList".to_owned(),
            plural: "gadgets".to_owned(),
            schema: Some(
                r#"{"type":"object","properties":{"size":{"type":"integer","default":1}}}"#.to_owned(),
            ),
            ..CustomVersion::default()
        }
    }

    async fn json(publisher: &Publisher, subject: Subject) -> Option<Value> {
        let packed = publisher.document(subject, Format::Json).await.expect("made")?;
        let mut text = String::new();
        flate2::read::GzDecoder::new(&packed.gzip[..]).read_to_string(&mut text).expect("gzip");
        assert_eq!(text.len() as u64, packed.length);
        Some(serde_json::from_str(&text).expect("JSON"))
    }

    #[tokio::test]
    async fn custom_resources_come_and_go() {
        let publisher = Publisher::default();
        let part = || Subject::Part("apis/example.com/v1".to_owned());
        assert_eq!(json(&publisher, part()).await, None);
        let before = publisher.parts().await.expect("made");
        publisher.publish("gadgets.example.com", vec![gadget()]);
        let document = json(&publisher, part()).await.expect("published");
        assert_eq!(document["info"]["title"], "Kubernetes CRD Swagger");
        assert_eq!(
            document["components"]["schemas"]["com.example.v1.Gadget"]["properties"]["size"]["default"],
            1
        );
        let everything = json(&publisher, Subject::Everything).await.expect("published");
        let size = &everything["definitions"]["com.example.v1.Gadget"]["properties"]["size"];
        assert_eq!(*size, serde_json::json!({"type": "integer"}));
        let during = publisher.parts().await.expect("made");
        assert_eq!(during.len(), before.len() + 1);
        publisher.withdraw("gadgets.example.com");
        assert_eq!(json(&publisher, part()).await, None);
        let everything = json(&publisher, Subject::Everything).await.expect("published");
        assert!(everything["definitions"].get("com.example.v1.Gadget").is_none());
        assert_eq!(publisher.parts().await.expect("made"), before);
    }

    #[tokio::test]
    async fn the_document_of_a_version_is_about_that_version() {
        let document = json(&Publisher::default(), Subject::Part("apis/apps/v1".to_owned())).await;
        let schemas = &document.expect("there")["components"]["schemas"];
        let kind = |group| serde_json::json!({"group": group, "version": "v1", "kind": "DeleteOptions"});
        let options = &schemas["io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"];
        assert_eq!(options["x-kubernetes-group-version-kind"], serde_json::json!([kind(""), kind("apps")]));
        let selector = &schemas["io.k8s.api.core.v1.ConfigMapKeySelector"];
        assert_eq!(selector["properties"]["name"]["default"], "");
        let owner = &schemas["io.k8s.apimachinery.pkg.apis.meta.v1.OwnerReference"];
        assert_eq!(owner["required"], serde_json::json!(["apiVersion", "kind", "name", "uid"]));
    }

    #[tokio::test]
    async fn both_encodings_have_one_name() {
        let publisher = Publisher::default();
        let part = || Subject::Part("apis/apps/v1".to_owned());
        let protobuf = publisher.document(part(), Format::Protobuf).await.expect("made").expect("there");
        let json = publisher.document(part(), Format::Json).await.expect("made").expect("there");
        assert_eq!(protobuf.etag, json.etag);
        assert_eq!(publisher.parts().await.expect("made").get("apis/apps/v1"), Some(&json.etag));
        assert!(protobuf.length < json.length);
    }
}
