#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::table::DEMO_PATIENT;
use super::*;
use crate::{fhir_store, idp};
use serde_json::Value;

fn seen_as_expected() -> Vec<Outcome> {
    let seen = |case: Case| Outcome { case, seen: Seen { status: case.status, body: case.body.short() } };
    tutorial_table().into_iter().map(seen).collect()
}

fn report(outcomes: &[Outcome]) -> (bool, String) {
    let mut out = Vec::new();
    let good = write_report(&mut out, outcomes).unwrap();
    (good, String::from_utf8(out).unwrap())
}

#[test]
fn report_is_aligned_and_says_yes_only_when_all_is_as_expected() {
    let mut outcomes = seen_as_expected();
    let (good, text) = report(&outcomes);
    assert!(good, "{text}");
    assert!(text.ends_with("11 of 11 as expected\n"), "{text}");
    let bars =
        |line: &str| line.char_indices().filter(|(_, c)| *c == '|').map(|(at, _)| at).collect::<Vec<_>>();
    let lines: Vec<_> = text.lines().filter(|line| line.contains('|')).collect();
    assert_eq!(lines.len(), 12);
    assert!(lines.iter().all(|line| bars(line) == bars(lines.first().unwrap())), "{text}");
    outcomes.first_mut().unwrap().seen.status = 200;
    let (good, text) = report(&outcomes);
    assert!(!good && text.contains("10 of 11 as expected"), "{text}");
    assert!(!report(&[]).0, "an empty table proves nothing");
}

#[test]
fn a_body_that_only_begins_as_expected_is_not_expected() {
    let mut outcomes = seen_as_expected();
    let first = outcomes.first_mut().unwrap();
    first.seen.body.push_str(" or so");
    assert!(!first.is_expected());
}

#[test]
fn report_shows_a_hostile_body_on_one_line() {
    let mut outcomes = seen_as_expected();
    outcomes.first_mut().unwrap().seen.body = format!("\x1b[2J\r\n{}", "x".repeat(500));
    let (_, text) = report(&outcomes);
    assert_eq!(text.lines().count(), 14);
    assert!(!text.contains('\x1b') && !text.contains('\r'));
}

#[test]
fn texts_are_envoys_byte_for_byte() {
    let length = |name: &str| {
        let case = tutorial_table().into_iter().find(|case| case.name.starts_with(name)).unwrap();
        case.body.short().len()
    };
    // The content-length that istio-proxy sends with each.
    assert_eq!((length("garbage"), length("no token"), length("expired")), (79, 19, 14));
    assert_eq!(length("another realm"), 28);
}

#[tokio::test]
async fn table_fails_where_nothing_guards_the_store() {
    let idp = idp::start(idp::Settings::default()).await.unwrap();
    let store = fhir_store::start(fhir_store::Settings::default()).await.unwrap();
    let tokens = Tokens::from_demo(&idp).await.unwrap();
    let base = format!("{}/fhir", store.base_url());
    let outcomes = run(&base, None, &tokens, &tutorial_table()).await.unwrap();
    let good: Vec<_> = outcomes.iter().filter(|o| o.is_expected()).map(|o| o.case.name).collect();
    assert_eq!(good, ["Bob (Medic), POST", "Alice (Patient), GET"]);
    assert!(!report(&outcomes).0);
    let bearers: Vec<_> = store.recorded().iter().map(|r| r.headers.contains_key("authorization")).collect();
    assert_eq!(bearers.iter().filter(|has| !**has).count(), 2, "two rows have no token");
}

#[tokio::test]
async fn no_answer_is_an_outcome_that_is_not_expected() {
    let idp = idp::start(idp::Settings::default()).await.unwrap();
    let tokens = Tokens::from_demo(&idp).await.unwrap();
    let gone = idp.base_url();
    idp.kill().await;
    let outcomes = run(&gone, None, &tokens, &tutorial_table()).await.unwrap();
    assert!(outcomes.iter().all(|outcome| outcome.seen.status == 0 && !outcome.is_expected()));
    let refused = IdpClient::new(gone, None).unwrap();
    let grant = Grant::Password { client: "idea", username: "bob", password: "bob1234!" };
    let error = refused.access_token("IDEA4RC", grant).await.unwrap_err();
    assert!(matches!(error, Error::NoAnswer { .. }), "{error}");
}

#[tokio::test]
async fn refused_password_is_an_error_with_the_providers_words() {
    let idp = idp::start(idp::Settings::default()).await.unwrap();
    let grant = Grant::Password { client: "idea", username: "bob", password: "wrong" };
    let error = IdpClient::of(&idp).unwrap().access_token("IDEA4RC", grant).await.unwrap_err();
    assert!(error.to_string().contains("Invalid user credentials"), "{error}");
}

/// Name, method, path and body of each request in the second folder of the Postman collection.
fn postman_rows() -> Vec<Value> {
    let text = include_str!("../../../../postman/fhirward.postman_collection.json");
    let collection: Value = serde_json::from_str(text).unwrap();
    collection.pointer("/item/1/item").and_then(Value::as_array).unwrap().clone()
}

#[test]
fn postman_asserts_every_row_of_the_table() {
    let rows = postman_rows();
    for case in tutorial_table() {
        let row = rows.iter().find(|row| {
            let name = row["name"].as_str().unwrap().to_lowercase();
            let words = case.name.to_lowercase().replace("service without", "service account without");
            name == words
        });
        let row = row.unwrap_or_else(|| panic!("{} is not in the collection", case.name));
        assert_eq!(row["request"]["method"], case.method.as_str());
        let events = row["event"].as_array().unwrap();
        let test = events.iter().find(|event| event["listen"] == "test").unwrap();
        let script: Vec<_> =
            test["script"]["exec"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        let script = script.join("\n");
        assert!(script.contains(&format!(".to.equal({})", case.status)), "{}", case.name);
        let body = match case.body {
            Expected::Text(text) => text,
            Expected::Resource(kind) => kind,
        };
        assert!(script.contains(&format!(".to.equal(\"{body}\")")), "{}", case.name);
    }
}

#[test]
fn postman_sends_the_tutorials_patient() {
    let sent: Value = serde_json::from_str(DEMO_PATIENT).unwrap();
    let mut posts = 0;
    for row in postman_rows().iter().filter(|row| row["request"]["method"] == "POST") {
        let raw = row["request"]["body"]["raw"].as_str().unwrap();
        assert_eq!(serde_json::from_str::<Value>(raw).unwrap(), sent);
        posts += 1;
    }
    assert_eq!(posts, 6);
}

#[test]
fn postman_environments_hold_every_variable_and_no_secret() {
    let files = [
        include_str!("../../../../postman/demo.postman_environment.json"),
        include_str!("../../../../postman/keycloak.postman_environment.json"),
    ];
    for file in files {
        let environment: Value = serde_json::from_str(file).unwrap();
        let value = |key: &str| {
            let values = environment["values"].as_array().unwrap().iter();
            values.clone().find(|entry| entry["key"] == key).map(|entry| entry["value"].clone())
        };
        for key in ["proxy", "idp", "realm", "otherRealm", "clientId", "serviceClientId"] {
            assert!(value(key).is_some_and(|value| value != ""), "{key}");
        }
        for key in ["expiredToken", "serviceClientSecret"] {
            assert_eq!(value(key).unwrap(), "", "{key} is given at the run");
        }
    }
}
