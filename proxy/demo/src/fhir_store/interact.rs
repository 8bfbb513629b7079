//! The interactions on one dataset, the same for an HTTP request and for a Bundle's entry
//! (http.html).

use std::sync::Arc;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::dataset::{Dataset, Stored, instant};
use super::problem::{Problem, outcome};
use super::search::{Pairs, Search, parse_pairs};
use super::{FhirVersion, capability, check};

/// Entries of a history page when `_count` is not given, and the most.
const HISTORY_PAGE: usize = 500;

/// One interaction asked for.
pub(super) struct Ask<'a> {
    pub(super) version: FhirVersion,
    /// The base URL that answers name, without a final slash.
    pub(super) base: &'a str,
    pub(super) method: &'a Method,
    /// The path below the base, decoded, split at slashes.
    pub(super) path: Vec<&'a str>,
    pub(super) query: Pairs,
    pub(super) conditions: Conditions,
    pub(super) body: Option<Value>,
    /// The ID that a transaction has set aside for this create.
    pub(super) reserved: Option<String>,
}

/// The conditions and preferences of a request.
#[derive(Clone, Debug, Default)]
pub(super) struct Conditions {
    pub(super) if_match: Option<String>,
    pub(super) if_none_match: Option<String>,
    pub(super) if_none_exist: Option<String>,
    pub(super) prefer: String,
}

impl Conditions {
    fn prefers(&self, wanted: &str) -> bool {
        self.prefer.split([',', ';']).any(|part| part.trim().eq_ignore_ascii_case(wanted))
    }
}

/// The answer to an interaction.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) body: Option<Arc<Value>>,
    pub(super) location: Option<String>,
    pub(super) etag: Option<String>,
    pub(super) updated: Option<jiff::Timestamp>,
}

impl Reply {
    pub(super) fn document(body: Value) -> Self {
        Self::bare(StatusCode::OK).with(Arc::new(body))
    }

    fn bare(status: StatusCode) -> Self {
        Self { status, body: None, location: None, etag: None, updated: None }
    }

    fn with(self, body: Arc<Value>) -> Self {
        Self { body: Some(body), ..self }
    }

    fn stored(status: StatusCode, stored: &Stored) -> Self {
        Self { etag: Some(stored.etag()), updated: Some(stored.updated), ..Self::bare(status) }
    }
}

/// Does one interaction. The dataset is unchanged when it fails.
///
/// # Errors
/// What the OperationOutcome will say.
pub(super) fn interact(data: &mut Dataset, ask: Ask<'_>) -> Result<Reply, Problem> {
    let read_only = *ask.method == Method::GET || *ask.method == Method::HEAD;
    match *ask.path.as_slice() {
        [] => Err(no_interaction()),
        ["metadata"] if read_only => Ok(Reply::document(capability::statement(ask.version, ask.base))),
        ["_history"] if read_only => history(data, &ask, None),
        ["metadata" | "_history"] => Err(Problem::method("GET, HEAD")),
        [kind, ..] if check::kind(ask.version, kind).is_err() => {
            check::kind(ask.version, kind).map(|()| Reply::bare(StatusCode::OK))
        }
        [kind] => on_type(data, ask, kind, read_only),
        [kind, "_search"] if *ask.method == Method::POST => search(data, ask, kind),
        [_, "_search"] => Err(Problem::method("POST")),
        [kind, "_history"] if read_only => history(data, &ask, Some(kind)),
        [_, "_history"] => Err(Problem::method("GET, HEAD")),
        [_, operation] if operation.starts_with('$') => Err(no_operation(operation)),
        [kind, id] => on_instance(data, ask, kind, id, read_only),
        [kind, id, "_history"] if read_only => instance_history(data, &ask, kind, id),
        [kind, id, "_history", version] if read_only => {
            let (stored, resource) = data.vread(kind, id, version)?;
            Ok(Reply::stored(StatusCode::OK, stored).with(Arc::clone(resource)))
        }
        [_, _, "_history"] | [_, _, "_history", _] => Err(Problem::method("GET, HEAD")),
        [_, _, operation] if operation.starts_with('$') => Err(no_operation(operation)),
        _ => Err(Problem::not_found("there is no such interaction")),
    }
}

fn no_interaction() -> Problem {
    Problem::invalid("this is the base URL: it takes a batch or transaction Bundle by POST")
}

fn no_operation(name: &str) -> Problem {
    let text = format!("the operation {name} is not supported");
    Problem::new(StatusCode::NOT_FOUND, "not-supported", text)
}

fn on_type(data: &mut Dataset, ask: Ask<'_>, kind: &str, read_only: bool) -> Result<Reply, Problem> {
    if read_only {
        return search(data, ask, kind);
    }
    if *ask.method == Method::POST {
        create(data, ask, kind)
    } else {
        Err(Problem::method("GET, HEAD, POST"))
    }
}

fn on_instance(
    data: &mut Dataset,
    ask: Ask<'_>,
    kind: &str,
    id: &str,
    read_only: bool,
) -> Result<Reply, Problem> {
    check::id(id)?;
    if read_only {
        return read(data, &ask, kind, id);
    }
    match ask.method.as_str() {
        "PUT" => update(data, ask, kind, id),
        "DELETE" => delete(data, &ask, kind, id),
        _ => Err(Problem::method("GET, HEAD, PUT, DELETE")),
    }
}

fn read(data: &Dataset, ask: &Ask<'_>, kind: &str, id: &str) -> Result<Reply, Problem> {
    let (stored, resource) = data.read(kind, id)?;
    if ask.conditions.if_none_match.as_deref().is_some_and(|tag| same_tag(tag, stored)) {
        return Ok(Reply::stored(StatusCode::NOT_MODIFIED, stored));
    }
    Ok(Reply::stored(StatusCode::OK, stored).with(Arc::clone(resource)))
}

/// `W/"3"`, `"3"` or a bare 3, which clients send too.
fn same_tag(given: &str, stored: &Stored) -> bool {
    let given = given.trim();
    let plain = given.strip_prefix("W/").unwrap_or(given).trim_matches('"');
    plain.parse() == Ok(stored.version)
}

fn search(data: &Dataset, ask: Ask<'_>, kind: &str) -> Result<Reply, Problem> {
    let lenient = ask.conditions.prefers("handling=lenient");
    let search = Search::parse(kind, ask.query, lenient)?;
    Ok(Reply::document(search.run(data, ask.base, kind)))
}

fn create(data: &mut Dataset, ask: Ask<'_>, kind: &str) -> Result<Reply, Problem> {
    let body = ask.body.ok_or_else(|| Problem::invalid("a create needs a body"))?;
    check::resource(ask.version, kind, &body)?;
    if let Some(found) = existing(data, kind, ask.conditions.if_none_exist.as_deref())? {
        let (stored, resource) = data.read(kind, &found)?;
        let reply = Reply::stored(StatusCode::OK, stored).with(Arc::clone(resource));
        return Ok(placed(reply, ask.base, kind, stored));
    }
    let id = ask.reserved.unwrap_or_else(|| data.fresh_id(kind));
    let stored = data.create(kind, &id, body)?;
    Ok(written(StatusCode::CREATED, ask.base, &ask.conditions, kind, &stored))
}

/// The one resource that an `If-None-Exist` query finds.
///
/// # Errors
/// 412 when it finds several, 400 when it cannot be run or says nothing.
pub(super) fn existing(data: &Dataset, kind: &str, query: Option<&str>) -> Result<Option<String>, Problem> {
    let Some(query) = query else { return Ok(None) };
    let pairs = parse_pairs(query.trim_start_matches('?'))?;
    if pairs.is_empty() {
        return Err(Problem::invalid("If-None-Exist is empty"));
    }
    let found = Search::parse(kind, pairs, false)?.matches(data, kind);
    match found.as_slice() {
        [] => Ok(None),
        [(stored, _)] => Ok(Some(stored.id.to_string())),
        several => {
            let text = format!("If-None-Exist matches {} resources", several.len());
            Err(Problem::condition(text))
        }
    }
}

fn update(data: &mut Dataset, ask: Ask<'_>, kind: &str, id: &str) -> Result<Reply, Problem> {
    let body = ask.body.ok_or_else(|| Problem::invalid("an update needs a body"))?;
    check::resource(ask.version, kind, &body)?;
    if body.get("id").and_then(Value::as_str) != Some(id) {
        let text = format!("the body's id must be {id:?}, as in the URL");
        return Err(Problem::invalid(text));
    }
    let present = data.read(kind, id).ok().map(|(stored, _)| stored.clone());
    if let Some(tag) = &ask.conditions.if_match
        && !present.as_ref().is_some_and(|stored| same_tag(tag, stored))
    {
        return Err(Problem::condition(format!("{kind}/{id} is not at version {tag}")));
    }
    let status = if present.is_some() { StatusCode::OK } else { StatusCode::CREATED };
    let stored = data.put(kind, id, body)?;
    Ok(written(status, ask.base, &ask.conditions, kind, &stored))
}

fn delete(data: &mut Dataset, ask: &Ask<'_>, kind: &str, id: &str) -> Result<Reply, Problem> {
    if let Some(tag) = &ask.conditions.if_match
        && !data.read(kind, id).is_ok_and(|(stored, _)| same_tag(tag, stored))
    {
        return Err(Problem::condition(format!("{kind}/{id} is not at version {tag}")));
    }
    let deleted = data.delete(kind, id)?;
    let bare = Reply::bare(StatusCode::NO_CONTENT);
    Ok(deleted.map_or(bare, |stored| Reply::stored(StatusCode::NO_CONTENT, &stored)))
}

fn placed(reply: Reply, base: &str, kind: &str, stored: &Stored) -> Reply {
    let location = format!("{base}/{kind}/{}/_history/{}", stored.id, stored.version);
    Reply { location: Some(location), ..reply }
}

/// The answer to a create or an update, with as much body as was asked for (`Prefer: return=`).
fn written(status: StatusCode, base: &str, conditions: &Conditions, kind: &str, stored: &Stored) -> Reply {
    let reply = placed(Reply::stored(status, stored), base, kind, stored);
    if conditions.prefers("return=minimal") {
        return reply;
    }
    if conditions.prefers("return=OperationOutcome") {
        let text = format!("stored {kind}/{} version {}", stored.id, stored.version);
        return reply.with(Arc::new(outcome("information", "informational", &text)));
    }
    match &stored.resource {
        Some(resource) => reply.with(Arc::clone(resource)),
        None => reply,
    }
}

fn instance_history(data: &Dataset, ask: &Ask<'_>, kind: &str, id: &str) -> Result<Reply, Problem> {
    check::id(id)?;
    let versions = data.versions(kind, id)?.iter().map(|stored| (kind, stored)).collect();
    history_bundle(ask, versions)
}

fn history(data: &Dataset, ask: &Ask<'_>, kind: Option<&str>) -> Result<Reply, Problem> {
    history_bundle(ask, data.all_versions(kind))
}

/// Newest first, deletions included.
fn history_bundle(ask: &Ask<'_>, mut versions: Vec<(&str, &Stored)>) -> Result<Reply, Problem> {
    let asked = ask.query.iter().find(|(name, _)| name == "_count").map(|(_, value)| value);
    let count = asked.map_or(Ok(HISTORY_PAGE), |value| {
        value.parse::<usize>().map_err(|_| Problem::invalid("_count is not a number"))
    })?;
    versions.sort_by(|(_, a), (_, b)| b.updated.cmp(&a.updated).then(b.version.cmp(&a.version)));
    let total = versions.len();
    let page = versions.into_iter().take(count.min(HISTORY_PAGE));
    let entries: Vec<_> = page.map(|(kind, stored)| history_entry(ask.base, kind, stored)).collect();
    let mut bundle = json!({
        "resourceType": "Bundle",
        "id": uuid::Uuid::new_v4().to_string(),
        "meta": { "lastUpdated": instant(jiff::Timestamp::now()) },
        "type": "history",
        "total": total,
        "link": [{ "relation": "self", "url": format!("{}/{}", ask.base, ask.path.join("/")) }],
    });
    if let Some(bundle) = bundle.as_object_mut().filter(|_| !entries.is_empty()) {
        bundle.insert("entry".to_owned(), entries.into());
    }
    Ok(Reply::document(bundle))
}

fn history_entry(base: &str, kind: &str, stored: &Stored) -> Value {
    let url = match stored.made_by {
        "POST" => kind.to_owned(),
        _ => format!("{kind}/{}", stored.id),
    };
    let status = match (stored.made_by, stored.version) {
        ("DELETE", _) => "204 No Content",
        (_, 1) => "201 Created",
        _ => "200 OK",
    };
    let mut entry = json!({
        "fullUrl": format!("{base}/{kind}/{}", stored.id),
        "request": { "method": stored.made_by, "url": url },
        "response": {
            "status": status,
            "etag": stored.etag(),
            "lastModified": stored.instant(),
        },
    });
    if let (Some(entry), Some(resource)) = (entry.as_object_mut(), &stored.resource) {
        entry.insert("resource".to_owned(), resource.as_ref().clone());
    }
    entry
}
