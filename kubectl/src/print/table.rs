//! Plain tables: columns padded with three spaces, as upstream's.

use serde_json::Value;

/// Rows of cells under headers.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// The headers; printed in capitals.
    pub headers: Vec<String>,
    /// The cells.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// The table as text. `widths` are kept from call to call by watches, so that columns stay where they are.
    #[must_use]
    pub fn render(&self, no_headers: bool, widths: &mut Vec<usize>) -> String {
        let headers: Vec<_> = self.headers.iter().map(|h| h.to_uppercase()).collect();
        let lines = || (!no_headers).then_some(&headers).into_iter().chain(&self.rows);
        widths.resize(widths.len().max(headers.len()), 0);
        for line in lines() {
            for (i, cell) in line.iter().enumerate() {
                if let Some(width) = widths.get_mut(i) {
                    *width = (*width).max(cell.chars().count());
                }
            }
        }
        let mut out = String::new();
        for line in lines() {
            let last = line.len().saturating_sub(1);
            for (i, cell) in line.iter().enumerate() {
                out.push_str(cell);
                if i < last {
                    let pad = widths.get(i).copied().unwrap_or(0).saturating_sub(cell.chars().count()) + 3;
                    out.extend(std::iter::repeat_n(' ', pad));
                }
            }
            out.push('\n');
        }
        out
    }
}

/// What the server's table is printed with.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// All columns.
    pub wide: bool,
    /// A first column with the namespace.
    pub with_namespace: bool,
    /// The names with this before them, for several types at once.
    pub name_prefix: String,
    /// A last column with all labels.
    pub show_labels: bool,
    /// A column for each of these labels.
    pub label_columns: Vec<String>,
}

impl View {
    /// Reads a `meta.k8s.io` Table; none if the answer is not one.
    #[must_use]
    pub fn read(&self, answer: &Value) -> Option<Table> {
        if answer["kind"] != "Table" {
            return None;
        }
        let columns = answer["columnDefinitions"].as_array()?;
        let shown: Vec<_> = (0..columns.len())
            .filter(|i| self.wide || columns[*i]["priority"].as_i64().unwrap_or(0) == 0)
            .collect();
        let mut headers: Vec<_> =
            shown.iter().map(|i| columns[*i]["name"].as_str().unwrap_or_default().to_owned()).collect();
        if self.with_namespace {
            headers.insert(0, "Namespace".to_owned());
        }
        headers.extend(self.label_columns.iter().map(|l| l.rsplit('/').next().unwrap_or(l).to_owned()));
        if self.show_labels {
            headers.push("Labels".to_owned());
        }
        let rows = answer["rows"].as_array().into_iter().flatten().map(|row| self.row(row, &shown)).collect();
        Some(Table { headers, rows })
    }

    fn row(&self, row: &Value, shown: &[usize]) -> Vec<String> {
        let metadata = &row["object"]["metadata"];
        let mut cells: Vec<_> = shown.iter().map(|i| cell(&row["cells"][*i])).collect();
        if let Some(name) = cells.first_mut() {
            name.insert_str(0, &self.name_prefix);
        }
        if self.with_namespace {
            cells.insert(0, metadata["namespace"].as_str().unwrap_or_default().to_owned());
        }
        let labels = metadata["labels"].as_object();
        for label in &self.label_columns {
            cells.push(labels.and_then(|l| l.get(label)?.as_str()).unwrap_or_default().to_owned());
        }
        if self.show_labels {
            let all: Vec<_> = labels
                .into_iter()
                .flatten()
                .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
                .collect();
            cells.push(if all.is_empty() { "<none>".to_owned() } else { all.join(",") });
        }
        cells
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "<none>".to_owned(),
        Value::String(text) => text.lines().next().unwrap_or_default().to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tables_look_like_upstreams() {
        let answer = json!({"kind": "Table",
            "columnDefinitions": [{"name": "Name"}, {"name": "Ready"}, {"name": "IP", "priority": 1}],
            "rows": [{"cells": ["a", 1, "10.0.0.1"], "object": {"metadata": {"namespace": "ns", "labels": {"app": "x"}}}},
                     {"cells": ["longer-name", null, ""], "object": {"metadata": {"namespace": "ns"}}}]});
        let show = |view: View| view.read(&answer).expect("a table").render(false, &mut vec![]);
        assert_eq!(show(View::default()), "NAME          READY\na             1\nlonger-name   <none>\n");
        let view = View {
            with_namespace: true,
            show_labels: true,
            label_columns: vec!["app".into()],
            name_prefix: "pod/".into(),
            wide: false,
        };
        assert_eq!(
            show(view),
            "NAMESPACE   NAME              READY    APP   LABELS\nns          pod/a             1        x     app=x\nns          pod/longer-name   <none>         <none>\n"
        );
    }
}
