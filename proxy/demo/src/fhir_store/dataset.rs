//! The resources of one release, with their versions. Pure: no HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::StatusCode;
use serde_json::{Map, Value};

use super::problem::Problem;

/// How much a dataset holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) resources: usize,
    pub(super) versions: usize,
}

/// One version of a resource.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) id: Arc<str>,
    pub(super) version: u64,
    pub(super) updated: jiff::Timestamp,
    /// The interaction that made it: `POST`, `PUT` or `DELETE`.
    pub(super) made_by: &'static str,
    /// `None` once deleted.
    pub(super) resource: Option<Arc<Value>>,
}

impl Stored {
    pub(super) fn etag(&self) -> String {
        format!("W/\"{}\"", self.version)
    }

    /// `meta.lastUpdated`: an instant with milliseconds.
    pub(super) fn instant(&self) -> String {
        instant(self.updated)
    }
}

pub(super) fn instant(at: jiff::Timestamp) -> String {
    format!("{at:.3}")
}

/// All resources of one release. A clone is cheap enough to be a transaction's working copy: it
/// copies the index, not the resources.
#[derive(Clone)]
pub(super) struct Dataset {
    limits: Limits,
    types: BTreeMap<String, BTreeMap<Arc<str>, Vec<Stored>>>,
    resources: usize,
    last_id: u64,
}

impl Dataset {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, types: BTreeMap::new(), resources: 0, last_id: 0 }
    }

    /// The present version.
    ///
    /// # Errors
    /// 404 when it never was, 410 when it was deleted.
    pub(super) fn read(&self, kind: &str, id: &str) -> Result<(&Stored, &Arc<Value>), Problem> {
        let last = self.versions(kind, id)?.last().ok_or_else(|| unknown(kind, id))?;
        present(kind, last)
    }

    /// A version by its number.
    ///
    /// # Errors
    /// 404 when it never was or is forgotten, 410 when that version is the deletion.
    pub(super) fn vread(
        &self,
        kind: &str,
        id: &str,
        version: &str,
    ) -> Result<(&Stored, &Arc<Value>), Problem> {
        let number: Option<u64> = version.parse().ok();
        let found = self.versions(kind, id)?.iter().find(|stored| Some(stored.version) == number);
        let missing = || Problem::not_found(format!("{kind}/{id} has no version {version}"));
        present(kind, found.ok_or_else(missing)?)
    }

    /// Every kept version of a resource, oldest first.
    ///
    /// # Errors
    /// 404 when it never was.
    pub(super) fn versions(&self, kind: &str, id: &str) -> Result<&[Stored], Problem> {
        let found = self.types.get(kind).and_then(|of_type| of_type.get(id));
        found.map(Vec::as_slice).ok_or_else(|| unknown(kind, id))
    }

    /// Every kept version of a type's resources, or of all types'.
    pub(super) fn all_versions(&self, kind: Option<&str>) -> Vec<(&str, &Stored)> {
        let wanted = |name: &str| kind.is_none_or(|kind| kind == name);
        let types = self.types.iter().filter(|(name, _)| wanted(name));
        types
            .flat_map(|(name, of_type)| of_type.values().flatten().map(move |stored| (name.as_str(), stored)))
            .collect()
    }

    /// Every present resource of a type, by ID.
    pub(super) fn present(&self, kind: &str) -> impl Iterator<Item = (&Stored, &Arc<Value>)> {
        let all = self.types.get(kind).into_iter().flat_map(BTreeMap::values);
        all.filter_map(|versions| {
            let last = versions.last()?;
            last.resource.as_ref().map(|resource| (last, resource))
        })
    }

    /// An ID that no resource of the type has, numbered as HAPI does.
    pub(super) fn fresh_id(&mut self, kind: &str) -> String {
        loop {
            self.last_id = self.last_id.saturating_add(1);
            let id = self.last_id.to_string();
            if self.versions(kind, &id).is_err() {
                return id;
            }
        }
    }

    /// Stores the first version of a resource under an ID of [`Dataset::fresh_id`].
    ///
    /// # Errors
    /// 507 when the dataset is full.
    pub(super) fn create(&mut self, kind: &str, id: &str, body: Value) -> Result<Stored, Problem> {
        self.add(kind, id, "POST", Some(body))
    }

    /// Stores a further version, or the first one of a client's own ID.
    ///
    /// # Errors
    /// 507 when the dataset is full.
    pub(super) fn put(&mut self, kind: &str, id: &str, body: Value) -> Result<Stored, Problem> {
        self.add(kind, id, "PUT", Some(body))
    }

    /// Deletes; the resource's history stays. `None`: it was deleted before.
    ///
    /// # Errors
    /// 404 when it never was.
    pub(super) fn delete(&mut self, kind: &str, id: &str) -> Result<Option<Stored>, Problem> {
        let gone = self.versions(kind, id)?.last().is_none_or(|last| last.resource.is_none());
        if gone { Ok(None) } else { self.add(kind, id, "DELETE", None).map(Some) }
    }

    fn add(
        &mut self,
        kind: &str,
        id: &str,
        made_by: &'static str,
        body: Option<Value>,
    ) -> Result<Stored, Problem> {
        let last = self.versions(kind, id).ok().and_then(|versions| versions.last());
        let version = last.map_or(1, |last| last.version.saturating_add(1));
        if last.is_none() && self.resources >= self.limits.resources {
            let text = format!("this server keeps at most {} resources", self.limits.resources);
            return Err(Problem::new(StatusCode::INSUFFICIENT_STORAGE, "too-costly", text));
        }
        self.resources += usize::from(last.is_none());
        let updated = jiff::Timestamp::now();
        let stored = Stored {
            id: Arc::from(id),
            version,
            updated,
            made_by,
            resource: body.map(|body| Arc::new(stamped(body, id, version, updated))),
        };
        let of_type = self.types.entry(kind.to_owned()).or_default();
        let versions = of_type.entry(Arc::clone(&stored.id)).or_default();
        if versions.len() >= self.limits.versions.max(1) {
            versions.remove(0);
        }
        versions.push(stored.clone());
        Ok(stored)
    }
}

/// The resource with the ID and the `meta` that the server is in charge of.
fn stamped(mut body: Value, id: &str, version: u64, updated: jiff::Timestamp) -> Value {
    if let Some(body) = body.as_object_mut() {
        body.insert("id".to_owned(), id.into());
        let meta = body.entry("meta").or_insert_with(|| Value::Object(Map::new()));
        if let Some(meta) = meta.as_object_mut() {
            meta.insert("versionId".to_owned(), version.to_string().into());
            meta.insert("lastUpdated".to_owned(), instant(updated).into());
        }
    }
    body
}

fn present<'a>(kind: &str, stored: &'a Stored) -> Result<(&'a Stored, &'a Arc<Value>), Problem> {
    let gone = || {
        let text = format!("{kind}/{} was deleted at {}", stored.id, stored.instant());
        Problem::new(StatusCode::GONE, "deleted", text)
    };
    stored.resource.as_ref().map(|resource| (stored, resource)).ok_or_else(gone)
}

fn unknown(kind: &str, id: &str) -> Problem {
    Problem::not_found(format!("{kind}/{id} is not known"))
}
