//! What types and fields are about: the API's own documentation where there is some, our words for the rest (lists,
//! events of a watch, options in the query).

use super::descriptions::{self, Descriptions};
use super::schema::names;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";
/// A type with all fields that objects have in common.
const MODEL: &str = "io.k8s.api.core.v1.ConfigMap";

/// All descriptions. Several megabytes: not to be kept.
pub struct Texts {
    documented: Descriptions,
}

impl Texts {
    /// Unpacks them.
    #[must_use]
    pub fn load() -> Self {
        Self { documented: descriptions::all() }
    }

    fn find(&self, name: &str, field: &str) -> Option<String> {
        self.documented.get(&(name.to_owned(), field.to_owned())).cloned()
    }

    /// What a type is about.
    #[must_use]
    pub fn of_type(&self, name: &str) -> Option<String> {
        self.find(name, "").or_else(|| match name {
            names::PATCH => Some("A patch, in one of the forms that its media type tells apart.".to_owned()),
            _ if name == format!("{META}WatchEvent") => Some("One change that a watch reports.".to_owned()),
            _ => item_of(name).map(|item| format!("{item}List is a list of {item} objects.")),
        })
    }

    /// What a field is about.
    #[must_use]
    pub fn of_field(&self, name: &str, field: &str) -> Option<String> {
        if let Some(text) = self.find(name, field) {
            return Some(text);
        }
        match (item_of(name), field) {
            (Some(_), "apiVersion" | "kind") => self.find(MODEL, field),
            (Some(item), "items") => Some(format!("items is the list of {item} objects.")),
            (Some(_), "metadata") => Some(self.list_metadata()),
            _ if name == format!("{META}WatchEvent") => Some(of_event(field)?.to_owned()),
            _ => None,
        }
    }

    /// What `apiVersion` or `kind` of any object is about.
    #[must_use]
    pub fn of_type_meta(&self, field: &str) -> String {
        self.find(MODEL, field).unwrap_or_default()
    }

    /// What the metadata of any object is about.
    #[must_use]
    pub fn object_metadata(&self) -> String {
        self.find(MODEL, "metadata").unwrap_or_default()
    }

    /// What the metadata of any list is about.
    #[must_use]
    pub fn list_metadata(&self) -> String {
        // The same convention documents both.
        self.object_metadata().replace("object's metadata", "list metadata")
    }

    /// What an option in the query is about; `owner` is the kind that has it.
    #[must_use]
    pub fn of_option(&self, owner: &str, field: &str) -> Option<String> {
        let own = option(owner, field).map(str::to_owned);
        own.or_else(|| self.find(&format!("{META}{owner}"), field))
            .or_else(|| self.find(&format!("{META}DeleteOptions"), field))
    }
}

/// The kind that a list is of.
fn item_of(name: &str) -> Option<&str> {
    let short = name.rsplit('.').next()?;
    short.strip_suffix("List").filter(|item| !item.is_empty())
}

fn of_event(field: &str) -> Option<&'static str> {
    Some(match field {
        "type" => "What happened: ADDED, MODIFIED, DELETED, BOOKMARK or ERROR.",
        "object" => {
            "The object as it is after the change, or as it was before it was deleted; for a bookmark an object that \
             has a resourceVersion only, for an error a Status."
        }
        _ => return None,
    })
}

fn option(owner: &str, field: &str) -> Option<&'static str> {
    Some(match (owner, field) {
        (_, "pretty") => {
            "Whether JSON is indented. Without it, it is for browsers and for the command-line clients curl and wget."
        }
        (_, "allowWatchBookmarks") => {
            "Asks a watch for events of type \"BOOKMARK\", which carry nothing but a resourceVersion that the client \
             has seen. The server may send them at any time, or never. Without effect unless watching."
        }
        (_, "continue") => {
            "Asks for the next part of a list that was answered in parts: the `continue` of the part before. All other \
             parameters have to stay as they were. A value that is too old is answered with 410 ResourceExpired and, \
             where possible, a value to go on with from the next name at a newer state. Not possible with a watch."
        }
        (_, "fieldSelector") => "Only objects whose fields are like this are answered.",
        (_, "labelSelector") => "Only objects whose labels are like this are answered.",
        (_, "limit") => {
            "The most objects that are answered at once. If there are more, the list has a `continue` in its metadata \
             that asks for the next part; all parts show the same state. Not possible with a watch."
        }
        (_, "resourceVersion") => {
            "The state that is read. Empty means the newest, 0 any that the server has at hand, another value one that \
             is not older than that; see resourceVersionMatch."
        }
        (_, "resourceVersionMatch") => {
            "How resourceVersion is meant for a list: NotOlderThan or Exact. Needs a resourceVersion."
        }
        (_, "sendInitialEvents") => {
            "Makes a watch begin with an event for each object that exists, then a bookmark with the annotation \
             \"k8s.io/initial-events-end\", then the changes. Needs resourceVersionMatch=NotOlderThan."
        }
        (_, "shardSelector") => "Only objects of this shard of the collection are answered.",
        (_, "timeoutSeconds") => "When a list or watch ends at the latest, in seconds.",
        (_, "watch") => {
            "Whether changes are streamed as they happen, from resourceVersion on, in place of a list."
        }
        ("PatchOptions", "fieldManager") => {
            "Who changes the fields: at most 128 printable characters. Needed for an apply, optional for other patches."
        }
        (_, "fieldManager") => "Who sets the fields: at most 128 printable characters.",
        (_, "fieldValidation") => {
            "What happens to fields that are unknown or given twice: Ignore drops them in silence, Warn drops them and \
             says so in Warning headers (this is the default), Strict refuses the request and names them all."
        }
        (_, "force") => {
            "Whether an apply takes fields over from other managers. Not for other kinds of patch."
        }
        ("PodLogOptions", "container") => "The container whose log is read; not needed if there is only one.",
        (_, "container") => "The container that is meant; not needed if there is only one.",
        (_, "command") => "The command and its arguments. No shell reads them.",
        (_, "stdin") => "Whether standard input is sent to the process.",
        (_, "stdout") => "Whether standard output is sent back.",
        (_, "stderr") => "Whether standard error is sent back.",
        (_, "tty") => "Whether the process has a terminal.",
        (_, "follow") => "Whether new lines are sent as they come.",
        (_, "insecureSkipTLSVerifyBackend") => {
            "Whether the log is read from a kubelet whose serving certificate could not be verified."
        }
        (_, "limitBytes") => "The most bytes that are answered; the last line may be cut.",
        (_, "previous") => "Whether the log of the container before the last restart is read.",
        (_, "sinceSeconds") => "Only lines of the last so many seconds are answered.",
        (_, "stream") => "Which stream is read: All (the default), Stdout or Stderr.",
        (_, "tailLines") => "How many lines at the end of the log are answered.",
        (_, "timestamps") => "Whether each line begins with its time.",
        (_, "ports") => "The ports that are forwarded.",
        (_, "path") => "The rest of the URL that the request is sent on to.",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_options_are_described() {
        let texts = Texts::load();
        let list = "io.k8s.api.core.v1.PodList";
        assert_eq!(texts.of_type(list).as_deref(), Some("PodList is a list of Pod objects."));
        assert!(
            texts.of_field(list, "metadata").is_some_and(|text| text.starts_with("Standard list metadata."))
        );
        assert_eq!(texts.of_field(list, "kind"), texts.of_field(MODEL, "kind"));
        assert!(texts.of_option("DeleteOptions", "gracePeriodSeconds").is_some());
        assert_ne!(
            texts.of_option("PatchOptions", "fieldManager"),
            texts.of_option("CreateOptions", "fieldManager")
        );
        assert_eq!(texts.of_option("ListOptions", "nonsense"), None);
    }
}
