//! OperationOutcome: how an error is told in FHIR (R4 and R5 operationoutcome.html).

use crate::Format;

/// Codes of the value set `issue-type` that a proxy has use for; the same in R4 and R5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IssueCode {
    /// `login`: the client needs to authenticate.
    Login,
    /// `expired`: the token has expired.
    Expired,
    /// `forbidden`: the user has no right to do it.
    Forbidden,
    /// `structure`: the request is malformed.
    Structure,
    /// `not-supported`: the method is not offered.
    NotSupported,
    /// `not-found`.
    NotFound,
    /// `too-long`: over a limit of size.
    TooLong,
    /// `timeout`.
    Timeout,
    /// `throttled`: too many requests at once.
    Throttled,
    /// `transient`: the server behind is not there; trying again may help.
    Transient,
    /// `exception`: a fault of ours.
    Exception,
}

impl IssueCode {
    /// The code as FHIR writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Expired => "expired",
            Self::Forbidden => "forbidden",
            Self::Structure => "structure",
            Self::NotSupported => "not-supported",
            Self::NotFound => "not-found",
            Self::TooLong => "too-long",
            Self::Timeout => "timeout",
            Self::Throttled => "throttled",
            Self::Transient => "transient",
            Self::Exception => "exception",
        }
    }
}

/// One issue of severity `error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Issue<'a> {
    /// What kind.
    pub code: IssueCode,
    /// What to tell a person.
    pub diagnostics: &'a str,
}

/// The OperationOutcome with this one issue.
#[must_use]
pub fn render(issue: &Issue<'_>, format: Format) -> String {
    match format {
        Format::Json => json(issue),
        Format::Xml => xml(issue),
    }
}

fn json(issue: &Issue<'_>) -> String {
    serde_json::json!({
        "resourceType": "OperationOutcome",
        "issue": [{
            "severity": "error",
            "code": issue.code.as_str(),
            "diagnostics": issue.diagnostics,
        }],
    })
    .to_string()
}

fn xml(issue: &Issue<'_>) -> String {
    let mut text = String::with_capacity(256);
    text.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>");
    text.push_str("<OperationOutcome xmlns=\"http://hl7.org/fhir\"><issue>");
    text.push_str("<severity value=\"error\"/><code value=\"");
    text.push_str(issue.code.as_str());
    text.push_str("\"/><diagnostics value=\"");
    escape_into(&mut text, issue.diagnostics);
    text.push_str("\"/></issue></OperationOutcome>");
    text
}

/// Escapes an attribute's value; what XML 1.0 §2.2 has no room for becomes U+FFFD.
fn escape_into(text: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '&' => text.push_str("&amp;"),
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            '"' => text.push_str("&quot;"),
            '\'' => text.push_str("&apos;"),
            '\t' => text.push_str("&#9;"),
            '\n' => text.push_str("&#10;"),
            '\r' => text.push_str("&#13;"),
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => text.push('\u{fffd}'),
            _ => text.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const HOSTILE: &str = "a\"b'<c>&d\u{0}\n\\";

    #[test]
    fn json_is_an_operation_outcome() {
        let text = render(&Issue { code: IssueCode::Forbidden, diagnostics: HOSTILE }, Format::Json);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["resourceType"], "OperationOutcome");
        assert_eq!(value["issue"][0]["severity"], "error");
        assert_eq!(value["issue"][0]["code"], "forbidden");
        assert_eq!(value["issue"][0]["diagnostics"], HOSTILE);
    }

    #[test]
    fn xml_is_escaped() {
        let text = render(&Issue { code: IssueCode::Login, diagnostics: HOSTILE }, Format::Xml);
        assert_eq!(
            text,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
             <OperationOutcome xmlns=\"http://hl7.org/fhir\"><issue><severity value=\"error\"/>\
             <code value=\"login\"/>\
             <diagnostics value=\"a&quot;b&apos;&lt;c&gt;&amp;d\u{fffd}&#10;\\\"/>\
             </issue></OperationOutcome>"
        );
    }
}
