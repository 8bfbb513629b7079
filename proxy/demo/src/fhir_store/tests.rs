#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use reqwest::{Client, Response};
use serde_json::{Value, json};

use super::*;
use crate::clients::http_client;

/// A store and a client of it.
struct Asked {
    store: FhirStore,
    client: Client,
}

const FHIR: &str = "application/fhir+json";

impl Asked {
    async fn new() -> Self {
        Self::with(Settings::default()).await
    }

    async fn with(settings: Settings) -> Self {
        Self { store: start(settings).await.unwrap(), client: http_client(None).unwrap() }
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}{path}", self.store.base_url()))
    }

    async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.unwrap()
    }

    async fn json(&self, path: &str) -> Value {
        let response = self.get(path).await;
        assert_eq!(response.status(), 200, "{path}");
        response.json().await.unwrap()
    }

    async fn send(&self, method: Method, path: &str, body: &Value) -> Response {
        let request = self.request(method, path).header("content-type", FHIR);
        request.body(body.to_string()).send().await.unwrap()
    }

    async fn delete(&self, path: &str) -> u16 {
        self.request(Method::DELETE, path).send().await.unwrap().status().as_u16()
    }
}

fn patient(family: &str) -> Value {
    json!({
        "resourceType": "Patient",
        "identifier": [{ "system": "urn:mrn", "value": family }],
        "name": [{ "family": family, "given": ["Ada", "Bo"] }],
        "gender": "female",
        "birthDate": "1980-04-12",
    })
}

fn with_id(mut resource: Value, id: &str) -> Value {
    resource["id"] = id.into();
    resource
}

async fn outcome(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    assert_eq!(response.headers()["content-type"], "application/fhir+json;charset=utf-8");
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["resourceType"], "OperationOutcome");
    (status, body["issue"][0]["code"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn create_read_update_delete_and_the_versions_between() {
    let asked = Asked::new().await;
    let created = asked.send(Method::POST, "/fhir/Patient", &patient("One")).await;
    assert_eq!(created.status(), 201);
    assert_eq!(created.headers()["etag"], "W/\"1\"");
    let base = asked.store.base_url();
    assert_eq!(created.headers()["location"], format!("{base}/fhir/Patient/1/_history/1"));
    assert_eq!(created.headers()["content-type"], "application/fhir+json;charset=utf-8");
    let body: Value = created.json().await.unwrap();
    assert_eq!((&body["id"], &body["meta"]["versionId"]), (&json!("1"), &json!("1")));
    let updated = body["meta"]["lastUpdated"].as_str().unwrap();
    assert!(updated.parse::<jiff::Timestamp>().is_ok(), "{updated}");

    let second = with_id(patient("Two"), "1");
    let response = asked.send(Method::PUT, "/fhir/Patient/1", &second).await;
    assert_eq!(
        (response.status(), &response.headers()["etag"]),
        (StatusCode::OK, &"W/\"2\"".parse().unwrap())
    );
    assert_eq!(asked.json("/fhir/Patient/1").await["name"][0]["family"], "Two");
    assert_eq!(asked.json("/fhir/Patient/1/_history/1").await["name"][0]["family"], "One");

    assert_eq!(asked.delete("/fhir/Patient/1").await, 204);
    assert_eq!(asked.delete("/fhir/Patient/1").await, 204, "deleting twice is no error");
    assert_eq!(outcome(asked.get("/fhir/Patient/1").await).await, (410, "deleted".into()));
    assert_eq!(outcome(asked.get("/fhir/Patient/1/_history/3").await).await.0, 410);
    assert_eq!(outcome(asked.get("/fhir/Patient/1/_history/9").await).await.0, 404);
    assert_eq!(asked.json("/fhir/Patient/1/_history/2").await["name"][0]["family"], "Two");

    let history = asked.json("/fhir/Patient/1/_history").await;
    assert_eq!((&history["type"], &history["total"]), (&json!("history"), &json!(3)));
    let methods: Vec<_> =
        history["entry"].as_array().unwrap().iter().map(|e| e["request"]["method"].clone()).collect();
    assert_eq!(methods, ["DELETE", "PUT", "POST"]);
    assert!(history["entry"][0].get("resource").is_none());
    assert_eq!(asked.json("/fhir/Patient/_history").await["total"], 3);

    let back = asked.send(Method::PUT, "/fhir/Patient/1", &second).await;
    assert_eq!((back.status().as_u16(), &back.headers()["etag"]), (201, &"W/\"4\"".parse().unwrap()));
}

#[tokio::test]
async fn update_creates_and_minds_conditions() {
    let asked = Asked::new().await;
    let body = with_id(patient("Own"), "own-id");
    assert_eq!(asked.send(Method::PUT, "/fhir/Patient/own-id", &body).await.status(), 201);
    let matching = |tag: &'static str| {
        asked
            .request(Method::PUT, "/fhir/Patient/own-id")
            .header("content-type", FHIR)
            .header("if-match", tag)
            .body(body.to_string())
            .send()
    };
    assert_eq!(outcome(matching("W/\"7\"").await.unwrap()).await, (412, "conflict".into()));
    assert_eq!(matching("W/\"1\"").await.unwrap().status(), 200);
    let conditional = asked.request(Method::GET, "/fhir/Patient/own-id").header("if-none-match", "W/\"2\"");
    assert_eq!(conditional.send().await.unwrap().status(), 304);
    let wrong = asked.send(Method::PUT, "/fhir/Patient/other", &body).await;
    assert_eq!(outcome(wrong).await.0, 400);
    let create = || {
        asked
            .request(Method::POST, "/fhir/Patient")
            .header("content-type", FHIR)
            .header("if-none-exist", "identifier=urn:mrn|Own")
            .body(patient("Own").to_string())
            .send()
    };
    assert_eq!(create().await.unwrap().status(), 200, "it exists");
    asked.send(Method::POST, "/fhir/Patient", &patient("Own")).await;
    assert_eq!(create().await.unwrap().status(), 412, "two exist");
}

#[tokio::test]
async fn refusals_have_their_own_status_and_an_outcome() {
    let asked = Asked::with(Settings { max_body: 2000, ..Settings::default() }).await;
    assert_eq!(outcome(asked.get("/fhir/Patient/9").await).await, (404, "not-found".into()));
    assert_eq!(outcome(asked.get("/fhir/Nonsense").await).await.0, 404);
    assert_eq!(outcome(asked.get("/fhir/Patient/a%20b").await).await.0, 400);
    assert_eq!(outcome(asked.get("/fhir/Patient/%ff").await).await.0, 400);
    assert_eq!(outcome(asked.get("/fhir/Patient/1/$everything").await).await.0, 404);
    assert_eq!(outcome(asked.get("/fhir").await).await.0, 400);
    assert_eq!(outcome(asked.get("/fhir/Patient?nonsense=1").await).await.0, 400);
    let patched = asked.send(Method::PATCH, "/fhir/Patient/1", &json!([])).await;
    assert_eq!(patched.headers()["allow"], "GET, HEAD, PUT, DELETE");
    assert_eq!(outcome(patched).await, (405, "not-supported".into()));
    assert_eq!(asked.delete("/fhir/Patient").await, 405);
    assert_eq!(asked.delete("/fhir/Patient/9").await, 404);
    let post = |content_type: &'static str, body: String| {
        let request = asked.request(Method::POST, "/fhir/Patient");
        request.header("content-type", content_type).body(body).send()
    };
    let good = patient("X").to_string();
    assert_eq!(outcome(post("application/fhir+xml", good.clone()).await.unwrap()).await.0, 415);
    assert_eq!(outcome(post(FHIR, "{".into()).await.unwrap()).await, (400, "structure".into()));
    assert_eq!(outcome(post(FHIR, "[]".into()).await.unwrap()).await.0, 400);
    assert_eq!(outcome(post(FHIR, r#"{"resourceType":"Group"}"#.into()).await.unwrap()).await.0, 400);
    for wrong in [json!({"gender": "f"}), json!({"birthDate": "1980-02-30"}), json!({"birthDate": 1})] {
        let mut body = patient("X");
        body.as_object_mut().unwrap().extend(wrong.as_object().unwrap().clone());
        let response = asked.send(Method::POST, "/fhir/Patient", &body).await;
        assert_eq!(outcome(response).await, (422, "value".into()), "{wrong}");
    }
    let large = patient(&"x".repeat(3000)).to_string();
    assert_eq!(outcome(post(FHIR, large).await.unwrap()).await, (413, "too-long".into()));
    let xml = asked.request(Method::GET, "/fhir/Patient").header("accept", "application/fhir+xml");
    assert_eq!(outcome(xml.send().await.unwrap()).await.0, 406);
    assert_eq!(asked.json("/fhir/Patient").await["total"], 0, "nothing was stored");
}

#[tokio::test]
async fn search_by_get_and_by_post_find_the_same() {
    let asked = Asked::new().await;
    for (id, family) in [("a", "Ångström"), ("b", "Demo"), ("c", "Demonstra")] {
        let path = format!("/fhir/Patient/{id}");
        asked.send(Method::PUT, &path, &with_id(patient(family), id)).await;
    }
    let heart = json!({ "resourceType": "Observation", "id": "o", "status": "final",
        "code": { "coding": [{ "system": "http://loinc.org", "code": "8867-4" }] },
        "subject": { "reference": "Patient/b" } });
    asked.send(Method::PUT, "/fhir/Observation/o", &heart).await;
    let table = [
        ("Patient", "", 3),
        ("Patient", "_id=a", 1),
        ("Patient", "_id=a,b", 2),
        ("Patient", "name=demo", 2),
        ("Patient", "name:exact=Demo", 1),
        ("Patient", "name:contains=str", 2),
        ("Patient", "family=%C3%A5ng", 1),
        ("Patient", "family=demo&_id=c", 1),
        ("Patient", "given=ada", 3),
        ("Patient", "family=ada", 0),
        ("Patient", "gender=female", 3),
        ("Patient", "gender=male,other", 0),
        ("Patient", "birthdate=1980-04-12", 3),
        ("Patient", "birthdate=1980-04", 3),
        ("Patient", "birthdate=gt1980", 0),
        ("Patient", "birthdate=ge1980-04&birthdate=le1981", 3),
        ("Patient", "birthdate=lt1980-04-12", 0),
        ("Patient", "birthdate=ne1980-04-12", 0),
        ("Patient", "identifier=urn:mrn|Demo", 1),
        ("Patient", "identifier=|Demo", 0),
        ("Patient", "identifier=urn:mrn|", 3),
        ("Patient", "name=", 3),
        ("Observation", "subject=Patient/b", 1),
        ("Observation", "patient=b", 1),
        ("Observation", "patient=Patient/a", 0),
        ("Observation", "subject=Group/b", 0),
        ("Observation", "code=http://loinc.org|8867-4", 1),
        ("Observation", "status=final&code=8867-4", 1),
    ];
    for (kind, query, total) in table {
        let bundle = asked.json(&format!("/fhir/{kind}?{query}")).await;
        assert_eq!((&bundle["type"], &bundle["total"]), (&json!("searchset"), &json!(total)), "{query}");
        let entries = bundle.get("entry").map_or(0, |entries| entries.as_array().unwrap().len());
        assert_eq!(entries, total, "{query}");
        let response = asked
            .request(Method::POST, &format!("/fhir/{kind}/_search"))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(query)
            .send()
            .await
            .unwrap();
        let posted: Value = response.json().await.unwrap();
        assert_eq!(posted["total"], total, "POST {query}");
    }
    assert_eq!(asked.get("/fhir/Patient?birthdate=soon").await.status(), 400);
    let lenient = asked.request(Method::GET, "/fhir/Patient?x=1").header("prefer", "handling=lenient");
    assert_eq!(lenient.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn pages_follow_their_next_link_through_everything() {
    let asked = Asked::new().await;
    for number in 0..5 {
        asked.send(Method::POST, "/fhir/Patient", &patient(&format!("P{number}"))).await;
    }
    let mut path = "/fhir/Patient?_count=2&_sort=-_id".to_owned();
    let mut seen = Vec::new();
    for _ in 0..3 {
        let bundle = asked.json(&path).await;
        assert_eq!(bundle["total"], 5);
        let entries = bundle["entry"].as_array().unwrap();
        seen.extend(entries.iter().map(|e| e["resource"]["id"].as_str().unwrap().to_owned()));
        let next = bundle["link"].as_array().unwrap().iter().find(|link| link["relation"] == "next");
        let Some(next) = next else { break };
        path = next["url"].as_str().unwrap().replace(&asked.store.base_url(), "");
    }
    assert_eq!(seen, ["5", "4", "3", "2", "1"]);
    assert!(asked.json("/fhir/Patient?_count=0").await.get("entry").is_none());
    assert!(asked.json("/fhir/Patient?_summary=count").await.get("entry").is_none());
}

fn entry(method: &str, url: &str, resource: Option<Value>) -> Value {
    let mut entry = json!({ "request": { "method": method, "url": url } });
    if let Some(resource) = resource {
        entry["resource"] = resource;
    }
    entry
}

fn bundle(kind: &str, entries: Vec<Value>) -> Value {
    json!({ "resourceType": "Bundle", "type": kind, "entry": entries })
}

#[tokio::test]
async fn transaction_resolves_references_and_answers_in_order() {
    let asked = Asked::new().await;
    let mut observation = entry(
        "POST",
        "Observation",
        Some(json!({
        "resourceType": "Observation", "status": "final",
        "subject": { "reference": "urn:uuid:4f6a" } })),
    );
    observation["fullUrl"] = "urn:uuid:9999".into();
    let mut subject = entry("POST", "Patient", Some(patient("Tx")));
    subject["fullUrl"] = "urn:uuid:4f6a".into();
    let entries = vec![entry("GET", "Patient?name=tx", None), observation, subject];
    let response = asked.send(Method::POST, "/fhir", &bundle("transaction", entries)).await;
    assert_eq!(response.status(), 200);
    let answer: Value = response.json().await.unwrap();
    assert_eq!(answer["type"], "transaction-response");
    assert_eq!(answer["entry"][0]["resource"]["total"], 1, "reads come last");
    assert_eq!(answer["entry"][1]["response"]["status"], "201 Created");
    let location = answer["entry"][2]["response"]["location"].as_str().unwrap();
    let place = location.rsplit_once("/_history").unwrap().0.rsplit_once("/fhir/").unwrap().1;
    let found = asked.json("/fhir/Observation").await;
    assert_eq!(found["entry"][0]["resource"]["subject"]["reference"], place);
}

#[tokio::test]
async fn failed_transaction_changes_nothing_and_failed_batch_entry_only_itself() {
    let asked = Asked::new().await;
    let entries = || {
        vec![
            entry("POST", "Patient", Some(patient("Kept"))),
            entry("PUT", "Patient/x", Some(patient("NoId"))),
            entry("DELETE", "Patient/none", None),
        ]
    };
    let response = asked.send(Method::POST, "/fhir", &bundle("transaction", entries())).await;
    assert_eq!(outcome(response).await.0, 404);
    assert_eq!(asked.json("/fhir/Patient").await["total"], 0);
    let response = asked.send(Method::POST, "/fhir/", &bundle("batch", entries())).await;
    let answer: Value = response.json().await.unwrap();
    let statuses: Vec<_> =
        answer["entry"].as_array().unwrap().iter().map(|e| e["response"]["status"].clone()).collect();
    assert_eq!(statuses, ["201 Created", "400 Bad Request", "404 Not Found"]);
    assert_eq!(answer["entry"][1]["response"]["outcome"]["resourceType"], "OperationOutcome");
    assert_eq!(asked.json("/fhir/Patient").await["total"], 1);
    let twice = || entry("PUT", "Patient/t", Some(with_id(patient("T"), "t")));
    let response = asked.send(Method::POST, "/fhir", &bundle("transaction", vec![twice(), twice()])).await;
    assert_eq!(response.status(), 400);
    assert_eq!(asked.send(Method::POST, "/fhir", &bundle("document", vec![])).await.status(), 400);
    assert_eq!(asked.send(Method::POST, "/fhir", &patient("X")).await.status(), 400);
}

#[tokio::test]
async fn limits_of_resources_entries_and_versions_hold() {
    let settings = Settings { max_resources: 2, max_versions: 2, max_entries: 3, ..Settings::default() };
    let asked = Asked::with(settings).await;
    for id in ["a", "b"] {
        let body = with_id(patient("L"), id);
        asked.send(Method::PUT, &format!("/fhir/Patient/{id}"), &body).await;
    }
    let third = asked.send(Method::POST, "/fhir/Patient", &patient("L")).await;
    assert_eq!(outcome(third).await, (507, "too-costly".into()));
    let body = with_id(patient("L"), "a");
    for _ in 0..3 {
        assert_eq!(asked.send(Method::PUT, "/fhir/Patient/a", &body).await.status(), 200);
    }
    assert_eq!(asked.json("/fhir/Patient/a/_history").await["total"], 2);
    assert_eq!(asked.json("/fhir/Patient/a").await["meta"]["versionId"], "4");
    let many = vec![entry("GET", "Patient", None); 4];
    assert_eq!(asked.send(Method::POST, "/fhir", &bundle("batch", many)).await.status(), 413);
}

#[tokio::test]
async fn r4_and_r5_are_apart_and_say_which_they_are() {
    let asked = Asked::new().await;
    for (base, number, count) in [("/fhir", "4.0.1", 146), ("/fhir-r5", "5.0.0", 158), ("", "4.0.1", 146)] {
        let statement = asked.json(&format!("{base}/metadata")).await;
        assert_eq!(statement["fhirVersion"], number);
        assert_eq!(statement["rest"][0]["resource"].as_array().unwrap().len(), count, "{number}");
        let url = format!("{}{base}", asked.store.base_url());
        assert_eq!(statement["implementation"]["url"], url);
    }
    asked.send(Method::POST, "/fhir/Patient", &patient("Four")).await;
    assert_eq!(asked.json("/Patient").await["total"], 1, "the root is the same R4");
    assert_eq!(asked.json("/fhir-r5/Patient").await["total"], 0);
    assert_eq!(asked.get("/fhir/Transport").await.status(), 404);
    assert_eq!(asked.get("/fhir-r5/Transport").await.status(), 200);
    assert_eq!(asked.get("/fhir/DocumentManifest").await.status(), 200);
    assert_eq!(asked.get("/fhir-r5/DocumentManifest").await.status(), 404);
    assert_eq!(asked.get("/fhirX/Patient").await.status(), 404);
}

#[test]
fn type_lists_are_sorted_as_the_search_needs() {
    for version in [FhirVersion::R4, FhirVersion::R5] {
        assert!(types::all(version).all(|kind| types::knows(version, kind)));
        assert!(!types::knows(version, "patient"));
        assert!(!types::knows(version, "Resource"));
    }
}

#[tokio::test]
async fn h2c_and_http1_share_the_port_and_requests_are_recorded() {
    let asked = Asked::with(Settings { max_recorded: 2, ..Settings::default() }).await;
    asked.get("/actuator/health/readiness").await;
    let health = asked.get("/actuator/health").await;
    assert_eq!(health.json::<Value>().await.unwrap(), json!({ "status": "UP" }));
    let h2 = Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    let url = format!("{}/fhir/Patient?name=a%2Cb", asked.store.base_url());
    let response = h2.get(&url).header("x-seen", "yes").send().await.unwrap();
    assert_eq!((response.version(), response.status()), (http::Version::HTTP_2, StatusCode::OK));
    let recorded = asked.store.recorded();
    assert_eq!(recorded.len(), 2, "the oldest is forgotten");
    assert_eq!(asked.store.requests(), 3);
    let last = recorded.last().unwrap();
    assert_eq!((last.path.as_str(), last.query.as_deref()), ("/fhir/Patient", Some("name=a%2Cb")));
    assert_eq!((last.version, &last.method), (http::Version::HTTP_2, &Method::GET));
    assert_eq!(last.headers["x-seen"], "yes");
    assert_eq!(last.authority, Some(asked.store.addr().to_string()));
    asked.store.clear_recorded();
    assert!(asked.store.recorded().is_empty());
    let head = asked.request(Method::HEAD, "/fhir/metadata").send().await.unwrap();
    assert_eq!(head.status(), 200);
    assert!(head.bytes().await.unwrap().is_empty());
}

#[tokio::test]
async fn seeds_faults_and_restarts() {
    let asked = Asked::new().await;
    asked.store.seed(FhirVersion::R4, with_id(patient("Seed"), "p1")).unwrap();
    assert!(asked.store.seed(FhirVersion::R4, patient("NoId")).is_err());
    assert!(asked.store.seed(FhirVersion::R4, json!({"resourceType": "X", "id": "1"})).is_err());
    asked.store.set_answer(Some(crate::Answer::status(StatusCode::BAD_GATEWAY)));
    assert_eq!(asked.get("/fhir/Patient/p1").await.status(), 502);
    asked.store.set_answer(None);
    asked.store.set_delay(Duration::from_millis(200));
    let begun = Instant::now();
    asked.json("/fhir/Patient/p1").await;
    assert!(begun.elapsed() >= Duration::from_millis(200));
    asked.store.set_delay(Duration::ZERO);
    asked.store.kill().await;
    let gone = asked.request(Method::GET, "/fhir/Patient/p1").send().await;
    assert!(gone.is_err());
    asked.store.resume().await.unwrap();
    assert_eq!(asked.json("/fhir/Patient/p1").await["id"], "p1");
}

#[tokio::test]
async fn stop_lets_a_request_in_flight_finish() {
    let asked = Asked::new().await;
    asked.store.set_delay(Duration::from_millis(300));
    let flight = tokio::spawn(asked.request(Method::GET, "/fhir/metadata").send());
    while asked.store.requests() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    asked.store.stop().await;
    assert_eq!(flight.await.unwrap().unwrap().status(), 200);
    assert!(asked.request(Method::GET, "/fhir/metadata").send().await.is_err());
}

#[tokio::test]
async fn refuses_public_addresses_and_bad_mounts() {
    let public = Settings { addr: "0.0.0.0:0".parse().unwrap(), ..Settings::default() };
    assert!(matches!(start(public).await, Err(Error::NotLoopback { .. })));
    for path in ["fhir", "/fhir/", ""] {
        let mounts = vec![Mount { path: path.into(), version: FhirVersion::R4 }];
        let settings = Settings { mounts, ..Settings::default() };
        assert!(matches!(start(settings).await, Err(Error::Settings(_))), "{path:?}");
    }
}
