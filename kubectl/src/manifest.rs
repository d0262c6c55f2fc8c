//! Objects from files, folders and standard input.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::failure::{Failure, Result};

/// Where objects are read from.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Files {
    /// Filename or directory with the resource configuration; `-` is standard input.
    #[arg(long = "filename", short = 'f', value_delimiter = ',')]
    pub filenames: Vec<String>,
    /// Process the directory used in -f, --filename recursively.
    #[arg(long, short = 'R')]
    pub recursive: bool,
}

impl Files {
    /// The objects, in the order they are written; lists are taken apart.
    pub fn read(&self) -> Result<Vec<Value>> {
        let mut objects = vec![];
        for name in &self.filenames {
            if name == "-" {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text)?;
                parse(&text, "STDIN", &mut objects)?;
                continue;
            }
            for file in self.files(Path::new(name))? {
                let text = std::fs::read_to_string(&file).map_err(|error| {
                    Failure::local(format!("the path \"{}\" cannot be read: {error}", file.display()))
                })?;
                parse(&text, &file.display().to_string(), &mut objects)?;
            }
        }
        if objects.is_empty() {
            return Err(Failure::local("no objects passed"));
        }
        Ok(objects)
    }

    fn files(&self, path: &Path) -> Result<Vec<PathBuf>> {
        if !path.exists() {
            return Err(Failure::local(format!("the path \"{}\" does not exist", path.display())));
        }
        if path.is_file() {
            return Ok(vec![path.to_owned()]);
        }
        let mut entries: Vec<_> = std::fs::read_dir(path)?.filter_map(|e| e.ok().map(|e| e.path())).collect();
        entries.sort();
        let mut files = vec![];
        for entry in entries {
            if entry.is_dir() {
                if self.recursive {
                    files.extend(self.files(&entry)?);
                }
            } else if entry.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json") {
                files.push(entry);
            }
        }
        Ok(files)
    }
}

fn parse(text: &str, source: &str, objects: &mut Vec<Value>) -> Result {
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options)
        .map_err(|error| Failure::local(format!("error parsing {source}: {error}")))?;
    for document in documents.into_iter().filter(|d| !d.is_null()) {
        if let Some(items) = document["items"].as_array().filter(|_| is_list(&document)) {
            objects.extend(items.iter().cloned());
            continue;
        }
        for field in ["apiVersion", "kind"] {
            if document[field].as_str().is_none_or(str::is_empty) {
                return Err(Failure::local(format!(
                    "error validating \"{source}\": error validating data: {field} not set; if you choose to ignore these errors, turn validation off with --validate=false"
                )));
            }
        }
        objects.push(document);
    }
    Ok(())
}

fn is_list(document: &Value) -> bool {
    document["kind"].as_str().is_some_and(|kind| kind.ends_with("List"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> String {
        let mut objects = vec![];
        match parse(text, "f.yaml", &mut objects) {
            Ok(()) => objects.iter().filter_map(|o| o["kind"].as_str()).collect::<Vec<_>>().join(" "),
            Err(failure) => failure.to_string(),
        }
    }

    #[test]
    fn documents_and_lists_are_taken_apart() {
        assert_eq!(
            kinds("---\napiVersion: v1\nkind: A\n---\n# nothing\n---\napiVersion: v1\nkind: B\n"),
            "A B"
        );
        let list = r#"{"apiVersion":"v1","kind":"List","items":[{"kind":"A"},{"kind":"B"}]}"#;
        assert_eq!(kinds(list), "A B");
        assert!(kinds("apiVersion: v1\n").contains("kind not set"));
        assert!(kinds("a: [").starts_with("error: error parsing f.yaml"));
    }
}
