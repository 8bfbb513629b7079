//! Who may do what in the data mesh: every caller, method and kind of path, as a table to be read.
//!
//! `tests/golden/data-mesh.txt` is what the engine decides over `config/data-mesh`, entered through
//! the gateway as users do. It is compared whole, and each cell besides with the tutorial's promise
//! in its shortest form, so that a renewed table cannot quietly promise something else.

use std::{fmt::Write as _, path::PathBuf};

use fhirward::policy_test::{self, CaseReport, World};
use serde_json::{Value, json};
use tests::harness::{ISSUER_BASE, repository};

/// Set to renew the table on purpose.
const RENEW: &str = "FHIRWARD_RENEW_GOLDEN";
const HEADER: &str = "\
# Who may do what in the data mesh (config/data-mesh), through its gateway.
# Compared by tests/tests/properties/golden.rs; renew it on purpose, and read the difference, with
#   FHIRWARD_RENEW_GOLDEN=1 cargo test -p tests --test properties golden
#
# Patient, Medic: a token with that role. Both: with both. Nurse: with another role. no sub: Patient, but
# the token names nobody (Keycloak without the scope `basic`). none: no token. expired, forged: Patient's
# token, out of date or with a wrong signature. stranger: a token of an issuer that nobody named.
# 200: forwarded, as the last column says. 400: refused before anybody's rights are looked at.
";

/// A caller: the column's name and the token of the case.
fn callers() -> Vec<(&'static str, Value)> {
    let issuer = format!("{ISSUER_BASE}/realms/IDEA4RC");
    let claims = |roles: &[&str]| json!({"iss": issuer, "sub": "u", "realm_access": {"roles": roles}});
    let token = |kind: &str| json!({"claims": claims(&["Patient"]), "token": kind});
    let with = |claims: Value| json!({"claims": claims});
    vec![
        ("Patient", with(claims(&["Patient"]))),
        ("Medic", with(claims(&["Medic"]))),
        ("Both", with(claims(&["Medic", "Patient"]))),
        ("Nurse", with(claims(&["Nurse", "patient", "offline_access"]))),
        ("no sub", with(json!({"iss": issuer, "realm_access": {"roles": ["Patient", "Medic"]}}))),
        ("none", json!({"token": "none"})),
        ("expired", token("expired")),
        ("forged", token("wrong-signature")),
        (
            "stranger",
            with(json!({"iss": "https://elsewhere", "sub": "u", "realm_access": {"roles": ["Patient"]}})),
        ),
    ]
}

/// What a row is about: name, method, target, further parts of the request.
type Row = (&'static str, &'static str, &'static str, Value);

fn row(name: &'static str, method: &'static str, target: &'static str) -> Row {
    (name, method, target, json!({}))
}

/// Interactions of FHIR R4 (hl7.org/fhir/R4/http.html), level by level.
fn interactions() -> Vec<Row> {
    vec![
        row("capabilities", "GET", "/metadata"),
        row("batch or transaction", "POST", "/"),
        row("search, system", "GET", "/?_type=Patient&_id=1"),
        row("search by POST, system", "POST", "/_search"),
        row("history, system", "GET", "/_history"),
        row("operation, system", "POST", "/$process-message"),
        row("operation by GET, system", "GET", "/$versions"),
        row("search, type", "GET", "/Patient?name=x"),
        row("search by POST, type", "POST", "/Patient/_search"),
        row("create", "POST", "/Patient"),
        row("update, conditional", "PUT", "/Patient?identifier=x"),
        row("patch, conditional", "PATCH", "/Patient?identifier=x"),
        row("delete, conditional", "DELETE", "/Patient?identifier=x"),
        row("history, type", "GET", "/Patient/_history"),
        row("operation, type", "POST", "/Patient/$match"),
        row("operation by GET, type", "GET", "/Patient/$everything"),
        row("read", "GET", "/Patient/1"),
        row("read, head only", "HEAD", "/Patient/1"),
        row("version read", "GET", "/Patient/1/_history/2"),
        row("history, instance", "GET", "/Patient/1/_history"),
        row("update", "PUT", "/Patient/1"),
        row("patch", "PATCH", "/Patient/1"),
        row("delete", "DELETE", "/Patient/1"),
        row("operation, instance", "POST", "/Patient/1/$everything"),
        row("operation by GET, instance", "GET", "/Patient/1/$everything"),
        row("compartment", "GET", "/Patient/1/Observation"),
        row("compartment, all", "GET", "/Patient/1/*"),
        row("binary", "GET", "/Binary/1"),
        row("graphql", "POST", "/$graphql"),
        row("bulk export", "GET", "/$export"),
        row("unknown type", "GET", "/Nothing/1"),
        row("no FHIR at all", "GET", "/actuator/health"),
        row("options", "OPTIONS", "/Patient"),
        (
            "preflight",
            "OPTIONS",
            "/Patient",
            json!({"headers": {"Origin": "https://app.example", "Access-Control-Request-Method": "GET"}}),
        ),
        row("trace", "TRACE", "/Patient/1"),
        row("query", "QUERY", "/Patient"),
        row("method in lower case", "get", "/Patient/1"),
    ]
}

/// The same read, written in other ways.
fn spellings() -> Vec<Row> {
    let read = |name, target| row(name, "GET", target);
    vec![
        read("as it is", "/Patient/1"),
        read("encoded letter", "/%50atient/1"),
        read("encoded digit", "/Patient/%31"),
        read("encoded slash", "/Patient%2F1"),
        read("encoded slash, small", "/Patient%2f1"),
        read("encoded backslash", "/Patient%5C1"),
        read("backslash", "/Patient\\1"),
        read("two slashes", "//Patient/1"),
        read("two slashes inside", "/Patient//1"),
        read("slash at the end", "/Patient/1/"),
        read("dot segment", "/./Patient/1"),
        read("dot segments up", "/metadata/../Patient/1"),
        read("dot segments above the root", "/../Patient/1"),
        read("encoded dot segments", "/metadata/%2e%2e/Patient/1"),
        read("dot segments with parameter", "/metadata/..;/Patient/1"),
        read("path parameter", "/Patient;v=1/1"),
        read("encoded semicolon", "/Patient%3Bv=1/1"),
        read("nul", "/Patient/1%00"),
        read("encoded question mark", "/Patient/1%3F_format=json"),
        read("encoded percent", "/Patient/%2531"),
        read("encoded twice", "/Patient%252F1"),
        read("overlong slash", "/Patient%c0%af1"),
        read("lone percent", "/Patient/1%"),
        read("bad percent", "/Patient/%zz"),
        read("other case", "/patient/1"),
        read("plus", "/Patient/a+b"),
        read("fragment", "/Patient/1#x"),
        read("absolute form", "http://127.0.0.1/Patient/1"),
        read("absolute form, other host", "http://elsewhere/Patient/1"),
        row("asterisk form", "OPTIONS", "*"),
        ("other host", "GET", "/Patient/1", json!({"headers": {"Host": "elsewhere"}})),
        ("host with port", "GET", "/Patient/1", json!({"headers": {"Host": "127.0.0.1:80"}})),
        ("two hosts", "GET", "/Patient/1", json!({"headers": {"Host": ["127.0.0.1", "elsewhere"]}})),
        (
            "method override header",
            "GET",
            "/Patient/1",
            json!({"headers": {"X-HTTP-Method-Override": "DELETE"}}),
        ),
        ("method override by POST", "POST", "/Patient/1", json!({"headers": {"X-HTTP-Method": "GET"}})),
        ("over HTTP/2", "GET", "/Patient/1", json!({"http": "2"})),
        ("create over HTTP/2", "POST", "/Patient", json!({"http": "2"})),
        ("lower case over HTTP/2", "get", "/Patient/1", json!({"http": "2"})),
    ]
}

/// One case a cell.
fn case((name, method, target, more): &Row, caller: &Value) -> Value {
    let mut request = json!({"method": method, "path": target});
    for part in [more, caller] {
        for (key, value) in part.as_object().unwrap() {
            request[key] = value.clone();
        }
    }
    json!({"name": name, "via": "gateway", "request": request})
}

/// Every cell, asked of the engine: what the offline commands ask.
fn ask(rows: &[Row]) -> Vec<Vec<CaseReport>> {
    let callers = callers();
    let cases = rows.iter().flat_map(|row| callers.iter().map(|(_, caller)| case(row, caller)));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("golden.yaml");
    let test = json!({
        "apiVersion": policy_test::API_VERSION, "kind": policy_test::KIND, "metadata": {"name": "golden"},
        "manifests": [repository().join("config/data-mesh").canonicalize().unwrap()],
        "cases": cases.collect::<Vec<_>>(),
    });
    std::fs::write(&file, test.to_string()).unwrap();
    let test = policy_test::read(&file).unwrap();
    let world = World::build(&test, &file, &[]).unwrap();
    let of_row =
        |cases: &[policy_test::format::Case]| cases.iter().map(|case| world.ask(case).unwrap()).collect();
    test.cases.chunks(callers.len()).map(of_row).collect()
}

fn table(title: &str, rows: &[Row], out: &mut String) {
    let names: Vec<&str> = callers().iter().map(|(name, _)| *name).collect();
    let columns: String = names.iter().map(|name| format!(" {name:<8}")).collect();
    writeln!(out, "\n{title:<28} {:<38}{columns} forwarded", "request").unwrap();
    for (row, answers) in rows.iter().zip(ask(rows)) {
        let (name, method, target, _) = row;
        let mut cells = String::new();
        for (caller, answer) in names.iter().zip(&answers) {
            check(row, caller, answer);
            let status = answer.status.map_or("dropped".to_owned(), |status| status.to_string());
            write!(cells, " {status:<8}").unwrap();
        }
        let same = |status| answers.iter().all(|answer| answer.status == Some(status));
        for status in [400, 404, 405] {
            let some = answers.iter().any(|answer| answer.status == Some(status));
            assert_eq!(some, same(status), "{method} {target}: {status} for some callers, not for all");
        }
        let forwarded = answers.iter().find_map(|answer| answer.forwarded.as_ref());
        let forwarded = forwarded.map(|one| format!("{} {}", one.method, one.path)).unwrap_or_default();
        let request = format!("{method} {target}");
        writeln!(out, "{}", format!("{name:<28} {request:<38}{cells} {forwarded}").trim_end()).unwrap();
    }
}

/// The promise of the two policies: Patients GET, Medics POST, with a token that names somebody.
fn check((name, method, target, _): &Row, caller: &str, answer: &CaseReport) {
    let reads = *method == "GET" && ["Patient", "Both"].contains(&caller);
    let writes = *method == "POST" && ["Medic", "Both"].contains(&caller);
    let passes = answer.status == Some(200);
    let about = || format!("{name}: {method} {target} as {caller}: {:?}", answer.reasons);
    assert_eq!(passes, answer.forwarded.is_some(), "{}", about());
    assert!(!passes || reads || writes, "must not pass: {}", about());
    if let Some(forwarded) = &answer.forwarded {
        assert_eq!(forwarded.method, *method, "{}", about());
        assert!(!forwarded.headers.contains_key("authorization"), "{}", about());
    }
    // Refused whoever asks: unreadable requests, unknown hosts, methods that nobody may use.
    if matches!(answer.status, Some(400 | 404 | 405)) {
        return;
    }
    assert_eq!(passes, reads || writes, "{}", about());
    // A bad token is 401 whatever is asked, but for CORS preflights, which bring none by nature.
    let bad = ["expired", "forged", "stranger"].contains(&caller) && *name != "preflight";
    let wanted = if bad { 401 } else { 403 };
    assert!(passes || answer.status == Some(wanted), "{}", about());
}

fn file() -> PathBuf {
    repository().join("tests/golden/data-mesh.txt")
}

#[test]
fn who_may_do_what_in_the_data_mesh() {
    let mut now = HEADER.to_owned();
    table("interaction", &interactions(), &mut now);
    table("spelling", &spellings(), &mut now);
    if std::env::var_os(RENEW).is_some() {
        std::fs::write(file(), &now).unwrap();
        return;
    }
    let kept = std::fs::read_to_string(file()).unwrap_or_default();
    let difference: Vec<String> = diff(&kept, &now);
    assert!(
        difference.is_empty(),
        "the engine decides otherwise than tests/golden/data-mesh.txt:\n{}\nIf that is meant, renew the \
         table with {RENEW}=1 cargo test -p tests --test properties golden, and say why in the commit.",
        difference.join("\n")
    );
}

/// Lines of one side only, in order.
fn diff(kept: &str, now: &str) -> Vec<String> {
    let missing = |of: &str, from: &str, mark: &str| -> Vec<String> {
        let known: Vec<&str> = from.lines().collect();
        of.lines().filter(|line| !known.contains(line)).map(|line| format!("{mark} {line}")).collect()
    };
    let mut all = missing(kept, now, "-");
    all.extend(missing(now, kept, "+"));
    if all.is_empty() && kept != now {
        all.push("the same lines in another order".to_owned());
    }
    all
}
