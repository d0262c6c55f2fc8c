//! `kubectl get`

use futures::StreamExt;
use serde_json::{Value, json};

use super::{connect, items, selector_query, text, with_query};
use crate::failure::{Failure, Result};
use crate::manifest::Files;
use crate::print::table::View;
use crate::print::{Output, jsonpath::Template};
use crate::resource::{Resource, targets};
use crate::server::{AS_TABLE, Connection, Server};

/// Flags of `get`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Types and names.
    words: Vec<String>,
    #[command(flatten)]
    files: Files,
    /// Output format: json, yaml, name, wide, jsonpath=..., custom-columns=...
    #[arg(long, short = 'o')]
    output: Option<String>,
    /// Selector (label query) to filter on.
    #[arg(long, short = 'l')]
    selector: Option<String>,
    /// Selector (field query) to filter on.
    #[arg(long)]
    field_selector: Option<String>,
    /// List the requested object(s) across all namespaces.
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// After listing/getting the requested object, watch for changes.
    #[arg(long, short = 'w')]
    watch: bool,
    /// Watch for changes to the requested object(s), without listing/getting first.
    #[arg(long)]
    watch_only: bool,
    /// Don't print headers.
    #[arg(long)]
    no_headers: bool,
    /// When printing, show all labels as the last column.
    #[arg(long)]
    show_labels: bool,
    /// Accepts a comma separated list of labels that are going to be presented as columns.
    #[arg(long, short = 'L', value_delimiter = ',')]
    label_columns: Vec<String>,
    /// If the requested object does not exist the command will return exit code 0.
    #[arg(long)]
    ignore_not_found: bool,
    /// Sort the list by this JSONPath.
    #[arg(long)]
    sort_by: Option<String>,
    /// Return large lists in chunks of this size; 0 turns it off.
    #[arg(long, default_value_t = 500)]
    chunk_size: usize,
    /// If true, keep the managedFields when printing objects in JSON or YAML format.
    #[arg(long)]
    show_managed_fields: bool,
    /// Print this URL's answer as it is.
    #[arg(long)]
    raw: Option<String>,
}

/// Runs it.
pub async fn run(connection: &Connection, args: Args) -> Result {
    if let Some(path) = &args.raw {
        let server = Server::connect(connection).await?;
        print!("{}", server.text(path).await?);
        return Ok(());
    }
    let (server, resources) = connect(connection).await?;
    let output = Output::parse(args.output.as_deref(), args.no_headers)?;
    let mut wanted = vec![];
    if args.files.filenames.is_empty() {
        for (resource, name) in targets(&resources, &args.words)? {
            wanted.push((resource, name, server.namespace.clone()));
        }
    } else {
        for object in args.files.read()? {
            let resource = resources.of(&object)?;
            let namespace = super::object_namespace(&server, resource, &object)?;
            wanted.push((resource, Some(text(&object, "/metadata/name").to_owned()), namespace));
        }
    }
    if args.all_namespaces && wanted.iter().any(|(_, name, _)| name.is_some()) {
        return Err(Failure::local("a resource cannot be retrieved by name across all namespaces"));
    }
    let command = Get { server: &server, args: &args, output: &output };
    if args.watch || args.watch_only {
        return match wanted.as_slice() {
            [(resource, name, namespace)] => command.watch(resource, name.as_deref(), namespace).await,
            _ => Err(Failure::local("you may only specify a single resource type")),
        };
    }
    match output {
        Output::Table { .. } => command.tables(&wanted).await,
        _ => command.objects(&wanted).await,
    }
}

struct Get<'a> {
    server: &'a Server,
    args: &'a Args,
    output: &'a Output,
}

type Wanted<'a> = (&'a Resource, Option<String>, String);

impl Get<'_> {
    fn path(&self, resource: &Resource, name: Option<&str>, namespace: &str) -> String {
        resource.path((!self.args.all_namespaces).then_some(namespace), name)
    }

    fn selectors(&self) -> [String; 2] {
        [
            selector_query("labelSelector", self.args.selector.as_deref()),
            selector_query("fieldSelector", self.args.field_selector.as_deref()),
        ]
    }

    /// All pages of a list as one, or one object.
    async fn read(&self, (resource, name, namespace): &Wanted<'_>, accept: &str) -> Result<Value> {
        let path = self.path(resource, name.as_deref(), namespace);
        if name.is_some() {
            return self.server.call(http::Method::GET, &path, accept, None).await;
        }
        let [labels, fields] = self.selectors();
        let chunk =
            if self.args.chunk_size == 0 { String::new() } else { format!("limit={}", self.args.chunk_size) };
        let (mut whole, mut token) = (Value::Null, String::new());
        loop {
            let next = if token.is_empty() {
                String::new()
            } else {
                format!("continue={}", crate::resource::encode(&token))
            };
            let url = with_query(&path, &[&chunk, &labels, &fields, &next]);
            let page = self.server.call(http::Method::GET, &url, accept, None).await?;
            token = text(&page, "/metadata/continue").to_owned();
            whole = if whole.is_null() { page } else { joined(whole, page) };
            if token.is_empty() {
                return Ok(whole);
            }
        }
    }

    async fn tables(&self, wanted: &[Wanted<'_>]) -> Result {
        let several =
            wanted.iter().map(|(r, _, _)| r.qualified()).collect::<std::collections::BTreeSet<_>>().len() > 1;
        let (mut failures, mut shown, mut last) = (vec![], 0, String::new());
        let mut pending: Option<(View, Value)> = None;
        for target in wanted {
            let answer = match self.read(target, AS_TABLE).await {
                Ok(answer) => answer,
                Err(failure)
                    if failure.is_not_found() && self.args.ignore_not_found && target.1.is_some() =>
                {
                    continue;
                }
                Err(failure) => {
                    failures.push(failure);
                    continue;
                }
            };
            let (resource, _, _) = target;
            let view = self.view(resource, several);
            // Rows of one type asked for by several names are one table.
            if resource.qualified() == last
                && let Some((_, before)) = pending.as_mut()
            {
                *before = joined(before.take(), answer);
                continue;
            }
            if let Some((view, answer)) = pending.take() {
                shown += self.show(&view, &answer, shown > 0)?;
            }
            last = resource.qualified();
            pending = Some((view, answer));
        }
        if let Some((view, answer)) = pending {
            shown += self.show(&view, &answer, shown > 0)?;
        }
        if shown == 0 && failures.is_empty() && !self.args.ignore_not_found {
            let namespaced = wanted.iter().any(|(r, _, _)| r.namespaced);
            if namespaced && !self.args.all_namespaces {
                eprintln!("No resources found in {} namespace.", self.server.namespace);
            } else {
                eprintln!("No resources found");
            }
        }
        super::all_or_failure(failures)
    }

    fn view(&self, resource: &Resource, several: bool) -> View {
        View {
            wide: matches!(self.output, Output::Table { wide: true }),
            with_namespace: self.args.all_namespaces && resource.namespaced,
            name_prefix: if several { format!("{}/", resource.prefix()) } else { String::new() },
            show_labels: self.args.show_labels,
            label_columns: self.args.label_columns.clone(),
        }
    }

    /// Prints a table; how many rows it had.
    fn show(&self, view: &View, answer: &Value, after_another: bool) -> Result<usize> {
        let mut answer = answer.clone();
        if let (Some(path), Some(rows)) = (&self.args.sort_by, answer["rows"].as_array_mut()) {
            sort(rows, path, |row| &row["object"])?;
        }
        let Some(table) = view.read(&answer) else {
            return Err(Failure::local("the server did not send a table"));
        };
        if table.rows.is_empty() {
            return Ok(0);
        }
        if after_another {
            println!();
        }
        print!("{}", table.render(self.args.no_headers, &mut vec![]));
        Ok(table.rows.len())
    }

    async fn objects(&self, wanted: &[Wanted<'_>]) -> Result {
        let (mut found, mut failures, mut single) = (vec![], vec![], wanted.len() == 1);
        let mut list_version = String::new();
        for target in wanted {
            let (resource, name, _) = target;
            match self.read(target, "application/json").await {
                Ok(object) if name.is_some() => found.push((*resource, object)),
                Ok(list) => {
                    single = false;
                    list_version = text(&list, "/metadata/resourceVersion").to_owned();
                    for mut object in items(list) {
                        object["apiVersion"] = resource.api_version().into();
                        object["kind"] = resource.kind.clone().into();
                        found.push((*resource, object));
                    }
                }
                Err(failure) if failure.is_not_found() && self.args.ignore_not_found && name.is_some() => {}
                Err(failure) => failures.push(failure),
            }
        }
        if !self.args.show_managed_fields {
            for (_, object) in &mut found {
                if let Some(metadata) = object["metadata"].as_object_mut() {
                    metadata.remove("managedFields");
                }
            }
        }
        if let Some(path) = &self.args.sort_by {
            let mut objects: Vec<_> = found.into_iter().collect();
            let template = Template::parse(path)?;
            objects.sort_by(|(_, a), (_, b)| compare(&template, a, b));
            found = objects;
        }
        if matches!(self.output, Output::Name) {
            for (resource, object) in &found {
                println!("{}/{}", resource.prefix(), text(object, "/metadata/name"));
            }
        } else if single {
            if let Some((_, object)) = found.first() {
                self.output.print(object, "")?;
            }
        } else {
            let objects: Vec<_> = found.into_iter().map(|(_, object)| object).collect();
            let list = json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": objects});
            let _ = list_version;
            self.output.print(&list, "")?;
        }
        super::all_or_failure(failures)
    }

    async fn watch(&self, resource: &Resource, name: Option<&str>, namespace: &str) -> Result {
        let table = matches!(self.output, Output::Table { .. });
        let accept = if table { AS_TABLE } else { "application/json" };
        let (view, mut widths, mut headers) = (self.view(resource, false), vec![], self.args.no_headers);
        let [labels, mut fields] = self.selectors();
        if let Some(name) = name {
            fields = selector_query("fieldSelector", Some(&format!("metadata.name={name}")));
        }
        let path = self.path(resource, None, namespace);
        let list = self
            .server
            .call(http::Method::GET, &with_query(&path, &[&labels, &fields]), accept, None)
            .await?;
        let version = text(&list, "/metadata/resourceVersion").to_owned();
        let mut show = |object: &Value| -> Result {
            if !table {
                return self
                    .output
                    .print(object, &format!("{}/{}", resource.prefix(), text(object, "/metadata/name")));
            }
            if let Some(table) = view.read(object).filter(|t| !t.rows.is_empty()) {
                print!("{}", table.render(headers, &mut widths));
                headers = true;
            }
            Ok(())
        };
        if name.is_some() && list["rows"].as_array().or(list["items"].as_array()).is_some_and(Vec::is_empty) {
            // The server's own words for an object that is not there.
            self.server.get(&self.path(resource, name, namespace)).await?;
        }
        if !self.args.watch_only {
            if table {
                show(&list)?;
            } else {
                items(list).iter().try_for_each(&mut show)?;
            }
        }
        let from = format!("resourceVersion={version}");
        let url = with_query(&path, &["watch=true", &labels, &fields, &from]);
        let lines = self.server.lines(&url, accept).await?;
        futures::pin_mut!(lines);
        while let Some(line) = lines.next().await {
            let mut event: Value = serde_json::from_slice(&line?)?;
            match event["type"].as_str() {
                Some("ERROR") => return Err(Failure::local(text(&event, "/object/message").to_owned())),
                Some("BOOKMARK") => {}
                _ => show(&event["object"].take())?,
            }
        }
        Ok(())
    }
}

/// The rows or items of the second after those of the first; objects become lists.
fn joined(mut first: Value, mut second: Value) -> Value {
    for field in ["rows", "items"] {
        if let (Some(into), Some(from)) = (first[field].as_array_mut(), second[field].as_array_mut()) {
            into.append(from);
            return first;
        }
    }
    first
}

fn sort<'a>(rows: &mut [Value], path: &str, object: impl Fn(&Value) -> &Value + 'a) -> Result {
    let template = Template::parse(path)?;
    rows.sort_by(|a, b| compare(&template, object(a), object(b)));
    Ok(())
}

fn compare(template: &Template, a: &Value, b: &Value) -> std::cmp::Ordering {
    let key = |object: &Value| template.find(object).ok().and_then(|found| found.into_iter().next());
    match (key(a), key(b)) {
        (Some(a), Some(b)) => match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => a.total_cmp(&b),
            _ => crate::print::jsonpath::show(&a).cmp(&crate::print::jsonpath::show(&b)),
        },
        (a, b) => a.is_some().cmp(&b.is_some()),
    }
}
