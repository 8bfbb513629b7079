//! batch and transaction (http.html, "batch/transaction").

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::dataset::{Dataset, instant};
use super::interact::{Ask, Conditions, Reply, existing, interact};
use super::problem::Problem;
use super::search::parse_pairs;
use super::{FhirVersion, check};

/// What surrounds a Bundle.
#[derive(Clone, Copy)]
pub(super) struct Frame<'a> {
    pub(super) version: FhirVersion,
    pub(super) base: &'a str,
    pub(super) prefer: &'a str,
    pub(super) max_entries: usize,
}

/// One entry, read.
struct Entry {
    method: Method,
    path: String,
    query: String,
    full_url: Option<String>,
    conditions: Conditions,
    resource: Option<Value>,
    reserved: Option<String>,
}

/// Does a batch (each entry on its own) or a transaction (all or nothing).
///
/// # Errors
/// For a Bundle that cannot be read; for a transaction, also the first entry's failure.
pub(super) fn process(data: &mut Dataset, frame: Frame<'_>, body: &Value) -> Result<Reply, Problem> {
    if body.get("resourceType").and_then(Value::as_str) != Some("Bundle") {
        return Err(Problem::invalid("the base URL takes a Bundle"));
    }
    let entries = body.get("entry").map_or(Some(&[][..]), |entries| entries.as_array().map(Vec::as_slice));
    let entries = entries.ok_or_else(|| Problem::invalid("Bundle.entry is not an array"))?;
    if entries.len() > frame.max_entries {
        let text = format!("a Bundle may have {} entries here", frame.max_entries);
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-long", text));
    }
    match body.get("type").and_then(Value::as_str) {
        Some("batch") => Ok(Reply::document(batch(data, frame, entries))),
        Some("transaction") => transaction(data, frame, entries).map(Reply::document),
        other => {
            let text = format!("a Bundle of type {other:?} cannot be processed here");
            Err(Problem::invalid(text))
        }
    }
}

fn batch(data: &mut Dataset, frame: Frame<'_>, entries: &[Value]) -> Value {
    let answer = |entry: &Value| {
        let done = Entry::read(entry, frame).and_then(|entry| entry.run(data, frame));
        match done {
            Ok(reply) => response(reply),
            Err(problem) => json!({ "response": {
                "status": status_line(problem.status),
                "outcome": problem.outcome(),
            }}),
        }
    };
    answer_bundle("batch-response", entries.iter().map(answer).collect())
}

fn transaction(data: &mut Dataset, frame: Frame<'_>, raw: &[Value]) -> Result<Value, Problem> {
    let at = |index: usize| {
        move |problem: Problem| {
            let text = format!("Bundle.entry[{index}]: {}", problem.text);
            Problem { text, ..problem }
        }
    };
    let mut working = data.clone();
    let mut entries = Vec::with_capacity(raw.len());
    for (index, entry) in raw.iter().enumerate() {
        entries.push(Entry::read(entry, frame).map_err(at(index))?);
    }
    refuse_overlap(&entries)?;
    let known = assign(&mut working, &mut entries)?;
    for resource in entries.iter_mut().filter_map(|entry| entry.resource.as_mut()) {
        resolve(resource, &known);
    }
    let mut order: Vec<_> = entries.into_iter().enumerate().collect();
    order.sort_by_key(|(_, entry)| entry.rank());
    let mut answers: Vec<_> = raw.iter().map(|_| Value::Null).collect();
    for (index, entry) in order {
        let reply = entry.run(&mut working, frame).map_err(at(index))?;
        if let Some(answer) = answers.get_mut(index) {
            *answer = response(reply);
        }
    }
    *data = working;
    Ok(answer_bundle("transaction-response", answers))
}

/// A resource may be written by one entry only.
fn refuse_overlap(entries: &[Entry]) -> Result<(), Problem> {
    let mut seen = HashSet::new();
    for entry in entries {
        let writes = entry.method == Method::PUT || entry.method == Method::DELETE;
        if writes && !seen.insert(entry.path.as_str()) {
            let text = format!("the transaction writes {} twice", entry.path);
            return Err(Problem::invalid(text));
        }
    }
    Ok(())
}

/// Where each `fullUrl` of the Bundle will be: IDs are set aside before anything is stored, so
/// that entries can refer to each other in any order.
fn assign(data: &mut Dataset, entries: &mut [Entry]) -> Result<HashMap<String, String>, Problem> {
    let mut known = HashMap::new();
    for entry in entries {
        let place = if entry.method == Method::POST {
            let kind = entry.path.clone();
            let found = existing(data, &kind, entry.conditions.if_none_exist.as_deref())?;
            let id = found.unwrap_or_else(|| entry.reserved.insert(data.fresh_id(&kind)).clone());
            format!("{kind}/{id}")
        } else {
            entry.path.clone()
        };
        if let Some(full_url) = &entry.full_url {
            known.insert(full_url.clone(), place);
        }
    }
    Ok(known)
}

/// Rewrites every `reference` that names an entry by its `fullUrl`. The JSON parser bounds the
/// depth.
fn resolve(value: &mut Value, known: &HashMap<String, String>) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| resolve(item, known)),
        Value::Object(members) => {
            for (name, member) in members {
                let place = member.as_str().filter(|_| name == "reference").and_then(|text| known.get(text));
                match place {
                    Some(place) => *member = place.as_str().into(),
                    None => resolve(member, known),
                }
            }
        }
        _ => {}
    }
}

impl Entry {
    fn read(entry: &Value, frame: Frame<'_>) -> Result<Self, Problem> {
        let request = entry.get("request");
        let text = |name: &str| request.and_then(|r| r.get(name)).and_then(Value::as_str);
        let missing = |name: &str| Problem::invalid(format!("the entry lacks request.{name}"));
        let method = match text("method").ok_or_else(|| missing("method"))? {
            "GET" => Method::GET,
            "HEAD" => Method::HEAD,
            "POST" => Method::POST,
            "PUT" => Method::PUT,
            "DELETE" => Method::DELETE,
            "PATCH" => Method::PATCH,
            other => return Err(Problem::invalid(format!("{other:?} is not a method of FHIR"))),
        };
        let url = text("url").ok_or_else(|| missing("url"))?.trim_start_matches('/');
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        if method == Method::POST {
            check::kind(frame.version, path)?;
        }
        Ok(Self {
            method,
            path: path.to_owned(),
            query: query.to_owned(),
            full_url: entry.get("fullUrl").and_then(Value::as_str).map(str::to_owned),
            conditions: Conditions {
                if_match: text("ifMatch").map(str::to_owned),
                if_none_match: text("ifNoneMatch").map(str::to_owned),
                if_none_exist: text("ifNoneExist").map(str::to_owned),
                prefer: frame.prefer.to_owned(),
            },
            resource: entry.get("resource").cloned(),
            reserved: None,
        })
    }

    /// A transaction's order: DELETE, POST, PUT and PATCH, GET.
    fn rank(&self) -> u8 {
        match self.method.as_str() {
            "DELETE" => 0,
            "POST" => 1,
            "PUT" | "PATCH" => 2,
            _ => 3,
        }
    }

    fn run(self, data: &mut Dataset, frame: Frame<'_>) -> Result<Reply, Problem> {
        let ask = Ask {
            version: frame.version,
            base: frame.base,
            method: &self.method,
            path: self.path.split('/').filter(|segment| !segment.is_empty()).collect(),
            query: parse_pairs(&self.query)?,
            conditions: self.conditions,
            body: self.resource,
            reserved: self.reserved,
        };
        let reads = ask.method == Method::GET || ask.method == Method::HEAD;
        let prefers_body = ask.conditions.prefer.contains("return=representation");
        let mut reply = interact(data, ask)?;
        // Without being asked to, a Bundle's answer does not repeat what was sent.
        if !reads && !prefers_body {
            reply.body = None;
        }
        Ok(reply)
    }
}

fn status_line(status: StatusCode) -> String {
    format!("{} {}", status.as_str(), status.canonical_reason().unwrap_or_default())
}

fn response(reply: Reply) -> Value {
    let mut response = json!({ "status": status_line(reply.status) });
    let further =
        [("location", reply.location), ("etag", reply.etag), ("lastModified", reply.updated.map(instant))];
    if let Some(response) = response.as_object_mut() {
        for (name, value) in further {
            response.extend(value.map(|value| (name.to_owned(), value.into())));
        }
    }
    match reply.body.map(Arc::unwrap_or_clone) {
        Some(body) => json!({ "resource": body, "response": response }),
        None => json!({ "response": response }),
    }
}

fn answer_bundle(kind: &str, entries: Vec<Value>) -> Value {
    let mut bundle = json!({
        "resourceType": "Bundle",
        "id": uuid::Uuid::new_v4().to_string(),
        "type": kind,
    });
    if let Some(bundle) = bundle.as_object_mut().filter(|_| !entries.is_empty()) {
        bundle.insert("entry".to_owned(), entries.into());
    }
    bundle
}
