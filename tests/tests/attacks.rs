//! Attacks on the running proxy, with raw sockets in front and a recording server behind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    net::SocketAddr,
    process::Stdio,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use demo::idp::{Algorithm, Endpoint};
use serde_json::Value;
use tests::harness::{Hospital, Proxy};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    process::ChildStderr,
    time::timeout,
};

/// What an upstream of these tests does with a request.
type Behaviour = fn(&str) -> Answer;

enum Answer {
    /// These bytes.
    Bytes(&'static [u8]),
    /// These bytes, over and over.
    Endless(&'static [u8]),
    /// These bytes, ten times a second.
    Dripping(&'static [u8]),
    /// Nothing.
    Silence,
}

const OK: Answer = Answer::Bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");

/// A server that keeps every byte it is sent.
struct Upstream {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Upstream {
    async fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, seen) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let all = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(Self::serve(socket, Arc::clone(&all), behaviour));
            }
        });
        Self { address, seen }
    }

    async fn serve(mut socket: TcpStream, all: Arc<Mutex<Vec<u8>>>, behaviour: Behaviour) {
        let (mut buffer, mut head) = ([0; 4096], Vec::new());
        while let Ok(length @ 1..) = socket.read(&mut buffer).await {
            all.lock().unwrap().extend_from_slice(&buffer[..length]);
            head.extend_from_slice(&buffer[..length]);
            if !head.windows(4).any(|window| window == b"\r\n\r\n") {
                continue;
            }
            match behaviour(&String::from_utf8_lossy(&head)) {
                Answer::Bytes(bytes) => drop(socket.write_all(bytes).await),
                Answer::Endless(bytes) => while socket.write_all(bytes).await.is_ok() {},
                Answer::Dripping(bytes) => {
                    while socket.write_all(bytes).await.is_ok() {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
                Answer::Silence => {}
            }
            head.clear();
        }
    }

    fn seen(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned()
    }
}

const DENY_ADMIN: &str = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-admin, namespace: clinic}
spec:
  action: DENY
  rules:
  - to: [{operation: {paths: [/admin, /admin/*]}}]
  - to: [{operation: {methods: [DELETE]}}]
  - to: [{operation: {hosts: [evil, \"evil:*\"]}}]
  - from: [{source: {notRemoteIpBlocks: [127.0.0.0/8]}}]
  - to: [{operation: {notPaths: [/*]}}]
    when: [{key: \"request.headers[x-patient]\", values: [x]}]
";

async fn workload(upstream: SocketAddr, manifest: &str, limits: &str) -> Proxy {
    let settings = format!(
        "listeners:
- {{name: app, address: {{app}}, to: clinic/app, port: 8080, upstream: \"{upstream}\"}}
mesh:
  manifests: [manifests]
  workloads: [{{name: clinic/app, labels: {{app: app}}}}]
limits: {{{limits}}}
"
    );
    Proxy::start(&["app"], &settings, &[("manifests/policy.yaml", manifest)]).await.unwrap()
}

/// Sends bytes, and reads until the proxy closes or says nothing for a second.
async fn say(address: SocketAddr, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let _ = socket.write_all(bytes).await;
    listen(&mut socket, Duration::from_secs(1)).await
}

async fn listen(socket: &mut TcpStream, patience: Duration) -> String {
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(Ok(length @ 1..)) = timeout(patience, socket.read(&mut buffer)).await {
        answer.extend_from_slice(&buffer[..length]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{headers}\r\n")
}

async fn soon<F: AsyncFnMut() -> bool>(what: &str, mut holds: F) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < Duration::from_secs(10), "not soon: {what}");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_forbidden_is_smuggled_past_the_policies() {
    let upstream = Upstream::start(|_| OK).await;
    let proxy = workload(upstream.address, DENY_ADMIN, "").await;
    let address = proxy.address("app");
    let hidden = "GET /admin HTTP/1.1\r\nHost: h\r\n\r\n";
    let post = |headers: &str, body: &str| format!("POST /x HTTP/1.1\r\nHost: h\r\n{headers}\r\n\r\n{body}");
    let mut attacks = vec![
        post("Content-Length: 5\r\nTransfer-Encoding: chunked", &format!("0\r\n\r\n{hidden}")),
        post("Transfer-Encoding: chunked\r\nContent-Length: 4", &format!("5c\r\n{hidden}")),
        post("Transfer-Encoding: chunked\r\nTransfer-Encoding: x", &format!("0\r\n\r\n{hidden}")),
        post("Transfer-Encoding: \x0bchunked\r\nContent-Length: 5", &format!("0\r\n\r\n{hidden}")),
        post("Transfer-Encoding : chunked", &format!("0\r\n\r\n{hidden}")),
        post("Transfer-Encoding: chunked", &format!("0\n\r\n{hidden}")),
        post("Content-Length: 0\r\nContent-Length: 40", hidden),
        post("Content-Length: 0, 40", hidden),
        post("Connection: content-length\r\nContent-Length: 40", hidden),
        // A denied request's body is not read as the next request's head.
        format!("POST /admin HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n{hidden}"),
        format!("GET /x HTTP/1.1\r\nHost: h\r\n\r\n{hidden}"),
        get("/x", "Host: evil\r\n"),
        get("http://evil/x", ""),
        get("/x", "X: a\r\n Host: evil\r\n"),
        get("/x", "X: a\rHost: evil\r\n"),
        get("/x", "x-http-method-override: DELETE\r\n"),
        get("/x", "x-original-url: /admin\r\n"),
        get("/x", "x-forwarded-for: 203.0.113.9\r\n"),
        get("/x?_method=DELETE", ""),
        "GET /admin\r\n".to_owned(),
        "GET /x HTTP/1.1\nHost: evil\n\n".to_owned(),
    ];
    for path in [
        "/./admin",
        "/x/../admin",
        "/%61dmin",
        "/%2561dmin",
        "/admin%2f",
        "/admin;x",
        "/;/admin",
        "/x/..;/admin",
        "/x/%2e%2e/admin",
        "/x/%2e%2e;/admin",
        "/x/..%2fadmin",
        "/x\\..\\admin",
        "/admin#x",
        "/admin%00",
        "/%c0%afadmin",
        "http://127.0.0.1/admin",
    ] {
        attacks.push(get(path, ""));
    }
    for attack in &attacks {
        let before = upstream.seen().len();
        say(address, attack.as_bytes()).await;
        let seen = upstream.seen().split_off(before);
        for word in ["admin", "evil", "DELETE", "203.0.113.9"] {
            assert!(!seen.contains(word), "{attack:?} reached the upstream as {seen:?}");
        }
    }
    assert!(say(address, get("/x", "").as_bytes()).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_end_what_exceeds_them_and_show_in_the_metrics() {
    let upstream = Upstream::start(|head| match head {
        head if head.contains("/silent") => Answer::Silence,
        head if head.contains("/interim") => Answer::Dripping(b"HTTP/1.1 102 Processing\r\n\r\n"),
        head if head.contains("/flood") => {
            Answer::Endless(b"HTTP/1.1 102 Processing\r\n\r\n".repeat(500).leak())
        }
        head if head.contains("/garbage") => Answer::Bytes(b"\0garbage\r\n\r\n"),
        _ => OK,
    })
    .await;
    let limits = "headTimeoutMs: 400, bodyIdleTimeoutMs: 400, requestBodyBytes: 1000, \
        requestsPerWorkload: 1, responseTimeoutMs: 800";
    let proxy = workload(upstream.address, DENY_ADMIN, limits).await;
    let address = proxy.address("app");
    let long = Duration::from_secs(3);
    for (request, status, reason) in [
        (get("/x", &format!("X: {}\r\n", "a".repeat(70_000))), 431, "head_bytes"),
        (get("/x", &"X: a\r\n".repeat(101)), 431, "header_count"),
        ("POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 1001\r\n\r\n".to_owned(), 413, "request_body_bytes"),
        ("GET /x HT".to_owned(), 408, "head_timeout"),
        (
            "POST /silent HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\na".to_owned(),
            408,
            "body_idle_timeout",
        ),
    ] {
        let mut socket = TcpStream::connect(address).await.unwrap();
        let _ = socket.write_all(request.as_bytes()).await;
        let answer = listen(&mut socket, long).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{reason}: {answer}");
        soon(reason, async || {
            let label = format!("reason=\"{reason}\"");
            proxy.metric("fhirward_requests_refused_total", &[&label]).await.unwrap() >= 1.0
        })
        .await;
    }
    for (path, status, flag) in [
        ("/silent", 504, "UT"),
        ("/interim", 504, "UT"),
        // Sooner than the clock: a worker is not to read for one request alone until then.
        ("/flood", 502, "UPE"),
        ("/garbage", 502, "UPE"),
    ] {
        let mut socket = TcpStream::connect(address).await.unwrap();
        let started = Instant::now();
        socket.write_all(get(path, "").as_bytes()).await.unwrap();
        if path == "/silent" {
            // One is under way, one is the limit.
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(say(address, get("/x", "").as_bytes()).await.starts_with("HTTP/1.1 503"));
        }
        let answer = listen(&mut socket, long).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
        assert!(started.elapsed() < long, "{path} took {:?}", started.elapsed());
        let labels = [format!("response_code=\"{status}\""), format!("response_flags=\"{flag}\"")];
        soon(path, async || {
            proxy.metric("istio_requests_total", &[&labels[0], &labels[1]]).await.unwrap() >= 1.0
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stops_reading_does_not_keep_its_place() {
    let upstream =
        Upstream::start(|_| Answer::Endless(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n")).await;
    let proxy =
        workload(upstream.address, DENY_ADMIN, "responseIdleTimeoutMs: 500, requestsPerWorkload: 1").await;
    let mut socket = TcpStream::connect(proxy.address("app")).await.unwrap();
    socket.write_all(get("/x", "").as_bytes()).await.unwrap();
    soon("the exchange is reset", async || {
        proxy.metric("istio_requests_total", &["response_flags=\"SI\""]).await.unwrap() >= 1.0
    })
    .await;
    drop(socket);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_within_its_request_is_no_malformed_request() {
    let upstream = Upstream::start(|_| Answer::Silence).await;
    let proxy = workload(upstream.address, DENY_ADMIN, "").await;
    let mut socket = TcpStream::connect(proxy.address("app")).await.unwrap();
    socket.write_all(b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nabc").await.unwrap();
    soon("the request is forwarded", async || upstream.seen().contains("abc")).await;
    drop(socket);
    soon("it is told", async || {
        proxy.metric("istio_requests_total", &["response_flags=\"DC\""]).await.unwrap() >= 1.0
    })
    .await;
    assert_eq!(proxy.metric("fhirward_requests_refused_total", &[]).await.unwrap(), 0.0);
}

const PERSONAL: &str = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: personal, namespace: datamesh}
spec:
  rules:
  - to: [{operation: {paths: [/Patient/wanted-patient]}}]
    when:
    - {key: \"request.headers[x-patient]\", values: [wanted-patient]}
    - {key: \"request.auth.claims[patient_id]\", values: [wanted-patient]}
    - {key: \"request.auth.claims[email]\", values: [wanted-patient]}
    - {key: \"request.auth.principal\", values: [wanted-patient]}
";

#[tokio::test(flavor = "multi_thread")]
async fn no_token_no_patient_and_no_search_value_is_logged_or_counted() {
    let hospital = Hospital::open("").await.unwrap();
    let proxy = &hospital.proxy;
    proxy.write("manifests/99-personal.yaml", PERSONAL).unwrap();
    soon("the policy is taken up", async || proxy.readiness().await.unwrap()["snapshot"] == 2).await;
    let realm = hospital.idp.realm("IDEA4RC").unwrap();
    let token = realm
        .sign(&serde_json::json!({
            "iss": realm.issuer(), "sub": "secret-sub", "exp": 4_000_000_000_u64,
            "email": "secret-mail", "patient_id": "secret-patient", "realm_access": {"roles": ["None"]},
        }))
        .unwrap();
    let bearer = format!("Authorization: Bearer {token}\r\nx-patient: secret-header\r\n");
    let long = format!("/Patient/secret-{}", "p".repeat(600));
    let requests = [
        get("/Patient/secret-a?name=secret-b", ""),
        get("/Patient/secret-c/Observation/secret-d?name=secret-e", &bearer),
        get(&long, &bearer),
        get("/Patient/secret-f", "Authorization: Bearer secret-g\r\n"),
        get(&format!("/Patient/secret-h?access_token={token}"), ""),
        get("/Patient/secret-i;x=y?name=secret-j", &bearer),
        get("/Patient/secret-k", "Content-Length: secret-l\r\n"),
        get("/Patient/secret-m", "secret-n\r\n"),
        get("http://secret-o:secret-p@127.0.0.1/Patient/secret-q", ""),
        "GET /Patient HTTP/1.1\r\nHost: secret-r:secret-s@127.0.0.1\r\nConnection: close\r\n\r\n".to_owned(),
        "secret-t\r\n\r\n".to_owned(),
    ];
    for request in &requests {
        assert!(say(proxy.address("ingress"), request.as_bytes()).await.starts_with("HTTP/1.1 40"));
    }
    soon("all are logged", async || proxy.log().matches("\"requestId\"").count() >= requests.len()).await;
    let signature = token.rsplit('.').next().unwrap();
    for page in
        [proxy.log(), proxy.page("/metrics").await.unwrap().1, proxy.page("/config_dump").await.unwrap().1]
    {
        for word in ["secret-", signature] {
            let found: Vec<&str> = page.lines().filter(|line| line.contains(word)).collect();
            assert!(found.is_empty(), "{word}: {found:#?}");
        }
    }
    assert!(proxy.log().contains("claim patient_id is there (not shown)"), "{}", proxy.log());
    assert!(!proxy.log().contains(r#"wanted one of [\"wanted-patient\"]"#), "{}", proxy.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_is_not_counted_as_a_request_allowed() {
    let hospital = Hospital::open("").await.unwrap();
    let proxy = &hospital.proxy;
    let request = get("/Patient", "Authorization: Bearer garbage\r\n");
    assert!(say(proxy.address("ingress"), request.as_bytes()).await.starts_with("HTTP/1.1 401"));
    soon("it is logged", async || proxy.log().contains("\"status\":401")).await;
    assert!(!proxy.log().contains("\"verdict\":\"allow\""), "{}", proxy.log());
    assert_eq!(proxy.metric("fhirward_decisions_total", &["allow"]).await.unwrap(), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_made_up_kids_costs_the_provider_one_request() {
    let hospital = Hospital::open("").await.unwrap();
    let realm = hospital.idp.realm("IDEA4RC").unwrap();
    let url = format!("{}/Patient", hospital.proxy.url("ingress"));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let before = realm.requests(Endpoint::Jwks);
    for number in 0..60 {
        let mut header = realm.header(Algorithm::RS256);
        header.kid = Some(format!("made-up-{number}"));
        let claims = serde_json::json!({"iss": realm.issuer(), "sub": "x", "exp": 4_000_000_000_u64});
        let token = realm.sign_with(&header, &claims).unwrap();
        assert_eq!(client.get(&url).bearer_auth(token).send().await.unwrap().status(), 401);
    }
    let cost = realm.requests(Endpoint::Jwks) - before;
    assert!(cost <= 2, "{cost} requests: one for the flood, and a refresh that may fall into it");
    let good = client.get(&url).bearer_auth(&hospital.tokens.alice).send().await.unwrap();
    assert_eq!(good.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_comes_up_late_is_found_without_a_restart() {
    let mut hospital = Hospital::open("").await.unwrap();
    hospital.proxy.terminate().await.unwrap();
    hospital.idp.kill().await;
    hospital.proxy.launch().await.unwrap();
    let request = get("/Patient", &format!("Authorization: Bearer {}\r\n", hospital.tokens.alice));
    let address = hospital.proxy.address("ingress");
    assert!(say(address, request.as_bytes()).await.starts_with("HTTP/1.1 401"));
    hospital.idp.resume().await.unwrap();
    soon("Alice is let in", async || say(address, request.as_bytes()).await.starts_with("HTTP/1.1 200"))
        .await;
}

/// Reads a starting proxy's log until it says where the admin server listens.
async fn admin_address(log: ChildStderr) -> String {
    let (mut lines, mut read) = (BufReader::new(log).lines(), String::new());
    while let Ok(Ok(Some(line))) = timeout(Duration::from_secs(20), lines.next_line()).await {
        let event: Value = serde_json::from_str(&line).unwrap_or_default();
        if event["fields"]["message"] == "admin server listening" {
            return event["fields"]["address"].as_str().unwrap().to_owned();
        }
        read = read + &line + "\n";
    }
    panic!("the proxy did not start; its log: {read}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_any_more_stops_neither_reloads_nor_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let (manifests, settings) = (folder.path().join("manifests"), folder.path().join("fhirward.yaml"));
    std::fs::create_dir(&manifests).unwrap();
    let policy = manifests.join("policy.yaml");
    std::fs::write(&policy, DENY_ADMIN).unwrap();
    let text = "listeners: [{name: app, address: \"127.0.0.1:0\", to: clinic/app, port: 8080}]
mesh: {manifests: [manifests], workloads: [{name: clinic/app, labels: {app: app}}]}
admin: {address: \"127.0.0.1:0\"}
";
    std::fs::write(&settings, text).unwrap();
    let mut child = tokio::process::Command::new(tests::harness::binary().unwrap())
        .arg("run")
        .arg("--config")
        .arg(&settings)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    // The log's reader goes with the answer.
    let admin = admin_address(child.stderr.take().unwrap()).await;
    let snapshot = async || {
        let page = reqwest::get(format!("http://{admin}/readyz")).await.ok()?;
        page.json::<Value>().await.ok()?["snapshot"].as_u64()
    };
    soon("it is up", async || snapshot().await == Some(1)).await;
    std::fs::write(&policy, DENY_ADMIN.replace("/admin/*", "/other")).unwrap();
    soon("the change is taken up", async || snapshot().await == Some(2)).await;
    let pid = rustix::process::Pid::from_raw(child.id().unwrap().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let ended = timeout(Duration::from_secs(5), child.wait()).await;
    assert!(matches!(&ended, Ok(Ok(status)) if status.success()), "{ended:?}");
}
