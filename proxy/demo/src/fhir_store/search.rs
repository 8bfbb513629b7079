//! Search: the parameters of a request, and the page that answers it.

use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::{Value, json};

use super::dataset::{Dataset, Stored, instant};
use super::matching::{self, Filter, Modifier};
use super::problem::Problem;

/// Entries of a page when `_count` is not given, and the most that `_count` can ask for.
const DEFAULT_PAGE: usize = 50;
const MAX_PAGE: usize = 500;
/// The most parameters of one search, and the most alternatives of one of them.
const MAX_PARAMETERS: usize = 64;
const MAX_ALTERNATIVES: usize = 100;

/// Characters kept as they are in a query of ours.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// Name and value, decoded.
pub(super) type Pairs = Vec<(String, String)>;

/// A search that can be run.
#[derive(Debug)]
pub(super) struct Search {
    filters: Vec<Filter>,
    count: usize,
    offset: usize,
    count_only: bool,
    sort: Vec<Sort>,
    /// What the self link repeats: the parameters that were honoured.
    honoured: Pairs,
}

#[derive(Clone, Copy, Debug)]
struct Sort {
    by_update: bool,
    descending: bool,
}

/// `a=b&c=d`, as in a query or a form.
///
/// # Errors
/// 400 for bytes that are not UTF-8 once decoded, or too many parameters.
pub(super) fn parse_pairs(text: &str) -> Result<Pairs, Problem> {
    let decode = |part: &str| {
        let spaced = part.replace('+', " ");
        let decoded = percent_decode_str(&spaced).decode_utf8().map(|text| text.into_owned());
        decoded.map_err(|_| Problem::invalid(format!("{part:?} is not UTF-8 once decoded")))
    };
    let parts: Vec<_> = text.split('&').filter(|part| !part.is_empty()).collect();
    if parts.len() > MAX_PARAMETERS {
        return Err(Problem::invalid(format!("more than {MAX_PARAMETERS} parameters")));
    }
    let pair = |part: &str| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        Ok((decode(name)?, decode(value)?))
    };
    parts.into_iter().map(pair).collect()
}

impl Search {
    /// Reads the parameters of a search for this type.
    ///
    /// # Errors
    /// 400 for a parameter that is unknown (unless `lenient`: then it is ignored, and missing
    /// from the self link) or that has no usable value.
    pub(super) fn parse(kind: &str, pairs: Pairs, lenient: bool) -> Result<Self, Problem> {
        let mut search = Self {
            filters: Vec::new(),
            count: DEFAULT_PAGE,
            offset: 0,
            count_only: false,
            sort: Vec::new(),
            honoured: Pairs::new(),
        };
        for (name, value) in pairs {
            if search.result_parameter(&name, &value)? {
                continue;
            }
            match filter(kind, &name, &value) {
                Ok(Some(filter)) => {
                    search.filters.push(filter);
                    search.honoured.push((name, value));
                }
                Ok(None) => {}
                Err(_) if lenient => {}
                Err(problem) => return Err(problem),
            }
        }
        Ok(search)
    }

    /// Whether the parameter was one about the result as a whole.
    fn result_parameter(&mut self, name: &str, value: &str) -> Result<bool, Problem> {
        let number = || {
            let parsed = value.parse::<usize>();
            parsed.map_err(|_| Problem::invalid(format!("{name} is not a number: {value:?}")))
        };
        match name {
            "_count" => {
                self.count = number()?.min(MAX_PAGE);
                self.honoured.push((name.to_owned(), value.to_owned()));
            }
            "_offset" => self.offset = number()?,
            "_summary" => match value {
                "count" => self.count_only = true,
                "false" => {}
                _ => return Err(Problem::invalid(format!("_summary={value} is not supported"))),
            },
            "_sort" => {
                self.sort = value.split(',').map(sort_key).collect::<Result<_, _>>()?;
                self.honoured.push((name.to_owned(), value.to_owned()));
            }
            "_format" | "_pretty" | "_total" => {}
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The resources that match, in order.
    pub(super) fn matches<'a>(&self, data: &'a Dataset, kind: &str) -> Vec<(&'a Stored, &'a Arc<Value>)> {
        let fits = |resource: &Value| self.filters.iter().all(|filter| filter.matches(resource));
        let mut found: Vec<_> = data.present(kind).filter(|(_, body)| fits(body)).collect();
        // A stable sort from the last key to the first is a sort by all of them.
        for key in self.sort.iter().rev() {
            found.sort_by(|(a, _), (b, _)| {
                let order = if key.by_update { a.updated.cmp(&b.updated) } else { a.id.cmp(&b.id) };
                if key.descending { order.reverse() } else { order }
            });
        }
        found
    }

    /// The searchset Bundle.
    pub(super) fn run(&self, data: &Dataset, base: &str, kind: &str) -> Value {
        let found = self.matches(data, kind);
        let mut bundle = json!({
            "resourceType": "Bundle",
            "id": uuid::Uuid::new_v4().to_string(),
            "meta": { "lastUpdated": instant(jiff::Timestamp::now()) },
            "type": "searchset",
            "total": found.len(),
            "link": [{ "relation": "self", "url": self.link(base, kind, self.offset) }],
        });
        if self.count_only || self.count == 0 {
            return bundle;
        }
        let next = self.offset.saturating_add(self.count);
        if next < found.len()
            && let Some(links) = bundle.get_mut("link").and_then(Value::as_array_mut)
        {
            links.push(json!({ "relation": "next", "url": self.link(base, kind, next) }));
        }
        let page = found.into_iter().skip(self.offset).take(self.count);
        let entries: Vec<_> = page
            .map(|(stored, resource)| {
                json!({
                    "fullUrl": format!("{base}/{kind}/{}", stored.id),
                    "resource": resource.as_ref(),
                    "search": { "mode": "match" },
                })
            })
            .collect();
        // FHIR forbids empty arrays.
        if let Some(bundle) = bundle.as_object_mut().filter(|_| !entries.is_empty()) {
            bundle.insert("entry".to_owned(), entries.into());
        }
        bundle
    }

    fn link(&self, base: &str, kind: &str, offset: usize) -> String {
        let mut pairs: Vec<_> =
            self.honoured.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        if offset > 0 {
            pairs.push(("_offset", offset.to_string()));
        }
        let query: Vec<_> = pairs
            .iter()
            .map(|(name, value)| {
                let encode = |text| utf8_percent_encode(text, QUERY);
                format!("{}={}", encode(name), encode(value))
            })
            .collect();
        let mark = if query.is_empty() { "" } else { "?" };
        format!("{base}/{kind}{mark}{}", query.join("&"))
    }
}

/// `None`: the parameter has no value, and says nothing.
fn filter(kind: &str, name: &str, value: &str) -> Result<Option<Filter>, Problem> {
    let unknown = || Problem::invalid(format!("unknown search parameter {name:?} for {kind}"));
    let (plain, modifier) = match name.split_once(':') {
        None => (name, Modifier::None),
        Some((plain, "exact")) => (plain, Modifier::Exact),
        Some((plain, "contains")) => (plain, Modifier::Contains),
        Some(_) => return Err(unknown()),
    };
    let values: Vec<_> = alternatives(value).into_iter().filter(|v| !v.is_empty()).collect();
    if values.len() > MAX_ALTERNATIVES {
        let text = format!("more than {MAX_ALTERNATIVES} values for {name:?}");
        return Err(Problem::invalid(text));
    }
    let filter = Filter { kind: matching::kind(kind, plain).ok_or_else(unknown)?, modifier, values };
    filter.check(name)?;
    Ok(Some(filter).filter(|filter| !filter.values.is_empty()))
}

/// Splits at commas; a backslash keeps the next character (search.html, "Escaping").
fn alternatives(value: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        let kept = match character {
            ',' => {
                found.push(String::new());
                continue;
            }
            '\\' => characters.next().unwrap_or('\\'),
            other => other,
        };
        if let Some(last) = found.last_mut() {
            last.push(kept);
        }
    }
    found
}

fn sort_key(text: &str) -> Result<Sort, Problem> {
    let (name, descending) = text.strip_prefix('-').map_or((text, false), |name| (name, true));
    match name {
        "_id" => Ok(Sort { by_update: false, descending }),
        "_lastUpdated" => Ok(Sort { by_update: true, descending }),
        _ => Err(Problem::invalid(format!("cannot sort by {name:?}"))),
    }
}
