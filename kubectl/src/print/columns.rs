//! `-o custom-columns=NAME:.metadata.name,...`

use serde_json::Value;

use super::jsonpath::Template;
use super::table::Table;
use crate::failure::{Failure, Result};

/// Columns chosen by the user.
#[derive(Clone, Debug)]
pub struct Columns {
    columns: Vec<(String, Template)>,
    no_headers: bool,
}

impl Columns {
    /// Reads `HEADER:path,...`; the path may stand without braces and without its first dot.
    pub fn parse(text: &str, no_headers: bool) -> Result<Self> {
        if text.is_empty() {
            return Err(Failure::local("custom-columns format specified but no custom columns given"));
        }
        let columns = text.split(',').map(|part| {
            let (header, path) = part.split_once(':').ok_or_else(|| {
                Failure::local(format!(
                    "unexpected custom-columns spec: {part}, expected <header>:<json-path-expr>"
                ))
            })?;
            let bare = path.trim_start_matches('{').trim_end_matches('}');
            let bare = if bare.starts_with(['.', '[']) { bare.to_owned() } else { format!(".{bare}") };
            Ok((header.to_owned(), Template::parse(&format!("{{{bare}}}"))?))
        });
        Ok(Self { columns: columns.collect::<Result<_>>()?, no_headers })
    }

    /// The table of an object, or of all items of a list.
    pub fn render(&self, object: &Value) -> Result<String> {
        let items: Vec<&Value> = match object["items"].as_array() {
            Some(items) => items.iter().collect(),
            None => vec![object],
        };
        let mut table =
            Table { headers: self.columns.iter().map(|(h, _)| h.clone()).collect(), rows: vec![] };
        for item in items {
            let cell = |(_, template): &(String, Template)| {
                let found = template.find(item).unwrap_or_default();
                let texts: Vec<_> = found.iter().map(super::jsonpath::show).collect();
                if texts.is_empty() { "<none>".to_owned() } else { texts.join(",") }
            };
            table.rows.push(self.columns.iter().map(cell).collect());
        }
        Ok(table.render(self.no_headers, &mut vec![]))
    }
}
