//! Results as people and scripts want them: `-o`.

pub mod columns;
pub use api::jsonpath;
pub mod table;
pub mod yaml;

use serde_json::Value;

use crate::failure::{Failure, Result};
use jsonpath::Template;

/// What `-o` asks for.
#[derive(Clone, Debug)]
pub enum Output {
    /// The server's table, with or without its wide columns.
    Table {
        /// With all columns.
        wide: bool,
    },
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// `type/name` lines.
    Name,
    /// A template over the object.
    JsonPath(Template),
    /// Columns chosen by the user.
    Columns(columns::Columns),
}

impl Output {
    /// Reads the flag's value; none means the table.
    pub fn parse(flag: Option<&str>, no_headers: bool) -> Result<Self> {
        let Some(flag) = flag.filter(|f| !f.is_empty()) else { return Ok(Self::Table { wide: false }) };
        let (form, argument) = flag.split_once('=').unwrap_or((flag, ""));
        match form {
            "wide" => Ok(Self::Table { wide: true }),
            "json" => Ok(Self::Json),
            "yaml" => Ok(Self::Yaml),
            "name" => Ok(Self::Name),
            "jsonpath" | "jsonpath-as-json" if !argument.is_empty() => {
                Ok(Self::JsonPath(Template::parse(argument)?))
            }
            "jsonpath-file" => {
                let text = std::fs::read_to_string(argument)?;
                Ok(Self::JsonPath(Template::parse(text.trim_end_matches('\n'))?))
            }
            "custom-columns" => columns::Columns::parse(argument, no_headers).map(Self::Columns),
            _ => Err(Failure::local(format!(
                "unable to match a printer suitable for the output format \"{flag}\", allowed formats are: custom-columns,custom-columns-file,go-template,go-template-file,json,jsonpath,jsonpath-as-json,jsonpath-file,name,template,templatefile,wide,yaml"
            ))),
        }
    }

    /// Prints one object (or list) in any form but the table.
    pub fn print(&self, object: &Value, name: &str) -> Result {
        match self {
            Self::Table { .. } | Self::Name => println!("{name}"),
            Self::Json => println!("{}", pretty_json(object)?),
            Self::Yaml => print!("{}", yaml::render(object)),
            Self::JsonPath(template) => print!("{}", template.render(object)?),
            Self::Columns(columns) => print!("{}", columns.render(object)?),
        }
        Ok(())
    }
}

/// JSON as upstream prints it: four spaces.
pub fn pretty_json(value: &Value) -> Result<String> {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    serde::Serialize::serialize(value, &mut serializer)?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}
