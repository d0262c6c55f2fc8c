//! Pod templates as Go prints them for hashing (upstream `k8s.io/utils/dump.ForHash`).
//!
//! Upstream names ReplicaSets and the revisions of DaemonSets by a hash over a dump of Go's struct: every field, set or
//! not, with its type, in the order of the source. `types` knows these structs from tables; here a template is written
//! along them. What is dumped is the template as upstream's controllers hold it, which is as protobuf brings it: empty
//! lists and maps are not there, amounts were read from their canonical text, times are in the process's zone. Of the
//! zone's name and transitions, which a dump shows too, this writes what a process in UTC has. A `scaleIO` volume always
//! has a `secretRef` here, as the client's struct demands it; upstream's may have none.

mod quantity;
#[cfg(test)]
mod tests;
mod types;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::{Map, Value};
use std::fmt::{self, Write};
use types::{Field, Shape, Table};

/// Writes the dump of a template.
pub fn template(template: &PodTemplateSpec, out: &mut impl Write) -> fmt::Result {
    let value = serde_json::to_value(template).expect("API types always encode");
    let table = Table::of_pod_templates();
    out.write_str("(v1.PodTemplateSpec)")?;
    Dump { table, out }.value(&Shape::Struct(table.root), Some(&value))
}

/// A dump on its way.
struct Dump<'a, W> {
    table: &'static Table,
    out: &'a mut W,
}

impl<W: Write> Dump<'_, W> {
    /// Writes a value; one that is not there is Go's zero value.
    fn value(&mut self, shape: &Shape, value: Option<&Value>) -> fmt::Result {
        let text = || value.and_then(Value::as_str);
        match shape {
            Shape::Text => self.out.write_str(text().unwrap_or_default()),
            Shape::Number => write!(self.out, "{}", value.and_then(Value::as_i64).unwrap_or(0)),
            Shape::Flag => {
                self.out.write_str(if value == Some(&Value::Bool(true)) { "true" } else { "false" })
            }
            Shape::Pointer(to) => match value.filter(|value| !value.is_null()) {
                Some(value) => self.value(to, Some(value)),
                None => self.nil(),
            },
            Shape::Slice(item) => self.slice(item, value.and_then(Value::as_array)),
            Shape::Map(of) => self.map(of, value.and_then(Value::as_object)),
            Shape::Struct(id) => self.fields(self.table.fields(*id), value),
            Shape::Quantity => quantity::write(text().unwrap_or("0"), self.out),
            Shape::Time => self.time(text()),
            Shape::IntOrString => self.int_or_string(value),
            Shape::Fields => self.bytes(value),
        }
    }

    fn nil(&mut self) -> fmt::Result {
        self.out.write_str("<nil>")
    }

    fn slice(&mut self, item: &Shape, items: Option<&Vec<Value>>) -> fmt::Result {
        let Some(items) = items.filter(|items| !items.is_empty()) else { return self.nil() };
        for (at, value) in items.iter().enumerate() {
            self.out.write_char(if at == 0 { '[' } else { ' ' })?;
            self.value(item, Some(value))?;
        }
        self.out.write_char(']')
    }

    fn map(&mut self, of: &Shape, entries: Option<&Map<String, Value>>) -> fmt::Result {
        let Some(entries) = entries.filter(|entries| !entries.is_empty()) else { return self.nil() };
        for (at, (key, value)) in entries.iter().enumerate() {
            self.out.write_str(if at == 0 { "map[" } else { " " })?;
            self.out.write_str(key)?;
            self.out.write_char(':')?;
            self.value(of, Some(value))?;
        }
        self.out.write_char(']')
    }

    fn fields(&mut self, fields: &'static [Field], object: Option<&Value>) -> fmt::Result {
        for (at, field) in fields.iter().enumerate() {
            self.out.write_char(if at == 0 { '{' } else { ' ' })?;
            self.out.write_str(&field.lead)?;
            let value = match field.json {
                Some(name) => object.and_then(|object| object.get(name)),
                None => object,
            };
            self.value(&field.shape, value)?;
        }
        self.out.write_char('}')
    }

    /// A `time.Time`: seconds since the year 1, and where on Earth.
    fn time(&mut self, text: Option<&str>) -> fmt::Result {
        /// From the year 1 to 1970, in seconds.
        const EPOCH: i64 = 62_135_596_800;
        let moment = text.and_then(|text| text.parse::<jiff::Timestamp>().ok());
        let seconds = moment.map_or(0, |moment| moment.as_second() + EPOCH);
        write!(self.out, "{{Time:(time.Time){{wall:(uint64)0 ext:(int64){seconds} loc:(*time.Location)")?;
        self.out.write_str(if seconds == 0 { "<nil>" } else { UTC })?;
        self.out.write_str("}}")
    }

    fn int_or_string(&mut self, value: Option<&Value>) -> fmt::Result {
        let text = value.and_then(Value::as_str);
        let number = value.and_then(Value::as_i64).unwrap_or(0);
        let kind = u8::from(text.is_some());
        write!(
            self.out,
            "{{Type:(intstr.Type){kind} IntVal:(int32){number} StrVal:(string){}}}",
            text.unwrap_or_default()
        )
    }

    /// JSON that Go keeps as bytes. Upstream keeps them as they came; here the order of keys is that of the alphabet.
    fn bytes(&mut self, value: Option<&Value>) -> fmt::Result {
        let json = value.map(Value::to_string).unwrap_or_default();
        self.out.write_str("{Raw:([]uint8)[")?;
        for (at, byte) in json.bytes().enumerate() {
            write!(self.out, "{}{byte}", if at == 0 { "" } else { " " })?;
        }
        self.out.write_str("]}")
    }
}

/// The zone of a process that no zone was told.
const UTC: &str = "{name:(string)UTC zone:([]time.zone)<nil> tx:([]time.zoneTrans)<nil> extend:(string) \
                   cacheStart:(int64)0 cacheEnd:(int64)0 cacheZone:(*time.zone)<nil>}";
