//! Formats a client accepts (R5 http.html, "Content Types and encodings").

/// A format of resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// `application/fhir+json`
    Json,
    /// `application/fhir+xml`
    Xml,
}

impl Format {
    /// The media type of an answer.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/fhir+json",
            Self::Xml => "application/fhir+xml",
        }
    }

    /// The FHIR format that a client names: in `_format`, which wins, or in `Accept`.
    ///
    /// `None` where it names none: `*/*`, `application/json` and browsers' lists are not FHIR's.
    #[must_use]
    pub fn negotiate<'a>(accept: impl IntoIterator<Item = &'a str>, query: Option<&str>) -> Option<Self> {
        query.and_then(of_query).or_else(|| of_accept(accept))
    }
}

/// `_format`, the first that is known.
fn of_query(query: &str) -> Option<Format> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .filter(|(name, _)| *name == "_format")
        .find_map(|(_, value)| of_format_value(value))
}

/// Short names and media types; `+` may stand raw, escaped, or read as a space.
fn of_format_value(value: &str) -> Option<Format> {
    let value = value.split(';').next().unwrap_or_default();
    let value = value.to_ascii_lowercase().replace("%2f", "/").replace("%2b", "+");
    match value.replace(['+', ' '], "+").as_str() {
        "json" | "application/json" | "text/json" | "application/fhir+json" => Some(Format::Json),
        "xml" | "application/xml" | "text/xml" | "application/fhir+xml" => Some(Format::Xml),
        _ => None,
    }
}

/// The FHIR media type of highest weight; the first of equals. (RFC 9110 §12.5.1.)
fn of_accept<'a>(accept: impl IntoIterator<Item = &'a str>) -> Option<Format> {
    let mut best: Option<(u16, Format)> = None;
    for range in accept.into_iter().flat_map(|value| value.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default();
        let format = if media_type.eq_ignore_ascii_case("application/fhir+json") {
            Format::Json
        } else if media_type.eq_ignore_ascii_case("application/fhir+xml") {
            Format::Xml
        } else {
            continue;
        };
        let weight = parts.find_map(weight).unwrap_or(1000);
        if weight > best.map_or(0, |(weight, _)| weight) {
            best = Some((weight, format));
        }
    }
    best.map(|(_, format)| format)
}

/// `q=0.9` as thousandths; a malformed weight counts as none.
fn weight(parameter: &str) -> Option<u16> {
    let (name, value) = parameter.split_once('=')?;
    if !name.trim().eq_ignore_ascii_case("q") {
        return None;
    }
    let (whole, fraction) = value.trim().split_once('.').unwrap_or((value.trim(), ""));
    let digits = fraction.len() <= 3 && fraction.bytes().all(|byte| byte.is_ascii_digit());
    match whole {
        "1" => Some(1000),
        "0" if digits => format!("{fraction:0<3}").parse().ok(),
        _ => Some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_takes() {
        let cases: [(&[&str], Option<&str>, Option<Format>); 17] = [
            (&[], None, None),
            (&["*/*"], None, None),
            (&["application/json"], None, None),
            (&["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"], None, None),
            (&["application/fhir+json"], None, Some(Format::Json)),
            (&["Application/FHIR+JSON; fhirVersion=4.0"], None, Some(Format::Json)),
            (&["application/fhir+xml"], None, Some(Format::Xml)),
            (&["application/fhir+xml;q=0.5, application/fhir+json"], None, Some(Format::Json)),
            (&["application/fhir+xml;q=0.5", "application/fhir+json;q=0.4"], None, Some(Format::Xml)),
            (&["application/fhir+json;q=0"], None, None),
            (&["application/fhir+json;q=abc"], None, None),
            (&["*/*"], Some("_format=json"), Some(Format::Json)),
            (&["*/*"], Some("name=x&_format=application%2Ffhir%2Bxml"), Some(Format::Xml)),
            (&["*/*"], Some("_format=application/fhir+xml"), Some(Format::Xml)),
            (&["application/fhir+json"], Some("_format=xml"), Some(Format::Xml)),
            (&["application/fhir+json"], Some("_format=html"), Some(Format::Json)),
            (&["*/*"], Some("x_format=json"), None),
        ];
        for (accept, query, wanted) in cases {
            let got = Format::negotiate(accept.iter().copied(), query);
            assert_eq!(got, wanted, "{accept:?} {query:?}");
        }
    }
}
