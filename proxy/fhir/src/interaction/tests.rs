use http::Method;

use super::{Kind, classify};

fn told(method: &str, path: &str, query: Option<&str>) -> String {
    let method = Method::from_bytes(method.as_bytes()).unwrap_or(Method::CONNECT);
    match classify(&method, path, query, "/fhir") {
        None => "-".to_owned(),
        Some(found) => {
            let compartment = found.compartment.map(|name| format!("{name}/"));
            format!(
                "{} {}{}",
                found.kind.as_str(),
                compartment.unwrap_or_default(),
                found.resource.unwrap_or("*")
            )
        }
    }
}

#[test]
fn the_grammar() {
    let long = format!("/fhir/Patient/{}", "a".repeat(65));
    let cases = [
        ("GET", "/fhir/Patient/1", None, "read Patient"),
        ("HEAD", "/fhir/Patient/a-b.c", None, "read Patient"),
        ("GET", "/fhir/Patient/1/", None, "read Patient"),
        ("GET", "/fhir/Patient/1/_history/2", None, "vread Patient"),
        ("GET", "/fhir/Patient/1/_history", None, "history-instance Patient"),
        ("GET", "/fhir/Patient/_history", None, "history-type Patient"),
        ("GET", "/fhir/_history", None, "history-system *"),
        ("PUT", "/fhir/Patient/1", None, "update Patient"),
        ("PUT", "/fhir/Patient", Some("identifier=1"), "update Patient"),
        ("PUT", "/fhir/Patient", None, "-"),
        ("PATCH", "/fhir/Patient/1", None, "patch Patient"),
        ("PATCH", "/fhir/Patient", Some("identifier=1"), "patch Patient"),
        ("DELETE", "/fhir/Patient/1", None, "delete Patient"),
        ("DELETE", "/fhir/Patient", Some("identifier=1"), "delete Patient"),
        ("DELETE", "/fhir/Patient", Some(""), "-"),
        ("DELETE", "/fhir", Some("_id=1"), "delete *"),
        ("DELETE", "/fhir/Patient/1/_history/2", None, "-"),
        ("POST", "/fhir/Patient", None, "create Patient"),
        ("POST", "/fhir/Bundle", None, "create Bundle"),
        ("GET", "/fhir/Patient", Some("name=x"), "search-type Patient"),
        ("POST", "/fhir/Patient/_search", None, "search-type Patient"),
        ("GET", "/fhir/Patient/_search", None, "-"),
        ("GET", "/fhir", Some("_type=Patient"), "search-system *"),
        ("GET", "/fhir/", None, "search-system *"),
        ("POST", "/fhir/_search", None, "search-system *"),
        ("POST", "/fhir/", None, "batch-or-transaction *"),
        ("POST", "/fhir", None, "batch-or-transaction *"),
        ("GET", "/fhir/Patient/1/Observation", None, "search-compartment Patient/Observation"),
        ("GET", "/fhir/Patient/1/*", None, "search-compartment Patient/*"),
        ("POST", "/fhir/Encounter/1/Observation/_search", None, "search-compartment Encounter/Observation"),
        ("GET", "/fhir/Observation/1/Patient", None, "-"),
        ("GET", "/fhir/metadata", None, "capabilities *"),
        ("OPTIONS", "/fhir", None, "capabilities *"),
        ("POST", "/fhir/metadata", None, "-"),
        ("POST", "/fhir/$export", None, "operation *"),
        ("GET", "/fhir/Patient/1/$everything", None, "operation Patient"),
        ("POST", "/fhir/Patient/$match", None, "operation Patient"),
        ("GET", "/fhir/Patient/1/_history/2/$meta", None, "operation Patient"),
        ("GET", "/fhir/$", None, "-"),
        ("PUT", "/fhir/$x", None, "-"),
        ("GET", "/fhir/patient/1", None, "-"),
        ("GET", "/fhir/Nonsense/1", None, "-"),
        ("get", "/fhir/Patient/1", None, "-"),
        ("GET", "/fhir/Patient//1", None, "-"),
        ("GET", "/fhir//Patient/1", None, "-"),
        ("GET", "/fhir/Patient/a_b", None, "-"),
        ("GET", &long, None, "-"),
        ("GET", "/fhirx/Patient/1", None, "-"),
        ("GET", "/Patient/1", None, "-"),
        ("GET", "/fhir/Patient/1/2/3/4/5/6/7/8", None, "-"),
    ];
    for (method, path, query, wanted) in cases {
        assert_eq!(told(method, path, query), wanted, "{method} {path} {query:?}");
    }
}

#[test]
fn the_root_may_be_the_base() {
    for base in ["", "/"] {
        let found = classify(&Method::GET, "/Patient/1", None, base);
        assert_eq!(found.map(|found| found.kind), Some(Kind::Read), "{base:?}");
    }
}
