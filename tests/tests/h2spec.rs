//! h2spec against the proxy: over cleartext by prior knowledge, and over TLS where ALPN says `h2`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{collections::BTreeMap, convert::Infallible, net::SocketAddr, path::Path, process::Command};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tests::harness::Proxy;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use xtask::provision::{Part, ready};

/// What h2spec 2.2.1 has, with `--strict`.
const CASES: usize = 146;
/// How long h2spec waits for a frame, seconds; 2 if nobody says.
const PATIENCE: u32 = 10;
/// How long it waits where it has waited in vain. See [`run`].
const LONG_PATIENCE: u32 = 40;

/// A case that fails and may: its section, its title, and why.
struct Known {
    section: &'static str,
    title: &'static str,
    /// The reason, with the thread where it is talked about.
    reason: &'static str,
}

/// Over cleartext. Over TLS there is none.
const KNOWN: &[Known] = &[Known {
    section: "http2/3.5",
    title: "Sends invalid connection preface",
    reason: "the same port speaks HTTP/1.1: what is no preface is a malformed HTTP/1.1 request, and is \
        told so by `400 Bad Request` before the connection closes. h2spec takes a close without a word \
        only, and calls it an error of its own: https://github.com/summerwind/h2spec/issues/122",
}];

/// Section and title.
type Name = (String, String);

/// What h2spec says of a case: `None` where it passes.
type Cases = BTreeMap<Name, Option<String>>;

#[tokio::test(flavor = "multi_thread")]
async fn http2_by_prior_knowledge_conforms() {
    let proxy = proxy().await;
    let cases = run(proxy.address("plain"), false).await;
    compare(&cases, KNOWN);
    // What the known failure is about is as its reason says.
    let answer = say(proxy.address("plain"), b"INVALID CONNECTION PREFACE\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_over_tls_conforms() {
    let proxy = proxy().await;
    compare(&run(proxy.address("tls"), true).await, &[]);
}

#[test]
fn a_report_is_read_whole() {
    let text = r#"<testsuites><testsuite name="6.1. DATA" tests="3">
        <testcase package="http2/6.1" classname="Sends &#34;a&#34;" time="0.1"></testcase>
        <testcase package="http2/6.1" classname="b" time="0.1">
          <failure>Require: x &amp; y
Actual: Timeout</failure></testcase>
        <testcase package="http2/6.1" classname="c"><error>EOF</error></testcase>
        <testcase package="http2/6.1" classname="d"><skipped></skipped></testcase></testsuite></testsuites>"#;
    let name = |title: &str| ("http2/6.1".to_owned(), title.to_owned());
    let cases = read(text);
    assert_eq!(cases[&name("Sends \"a\"")], None);
    assert_eq!(cases[&name("b")].as_deref(), Some("Require: x & y\nActual: Timeout"));
    assert_eq!(cases[&name("c")].as_deref(), Some("EOF"));
    assert_eq!(cases[&name("d")].as_deref(), Some("skipped"));
    assert_eq!(cases.len(), 4);
}

const ALL: &str = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: all, namespace: clinic}
spec: {rules: [{}]}
";

async fn proxy() -> Proxy {
    let upstream = upstream().await;
    let leaf = certs::Authority::mint("h2spec").unwrap();
    let leaf = leaf.issue(&certs::LeafRequest::for_names(["localhost"])).unwrap();
    let settings = format!(
        "listeners:
- {{name: plain, address: {{plain}}, to: clinic/app, port: 8080, upstream: \"{upstream}\"}}
- name: tls
  address: {{tls}}
  to: clinic/app
  port: 8080
  upstream: \"{upstream}\"
  tls: {{certificate: {{folder}}/tls.crt, key: {{folder}}/tls.key}}
mesh:
  manifests: [manifests]
  workloads: [{{name: clinic/app, labels: {{app: app}}}}]
"
    );
    let files = [("manifests/all.yaml", ALL), ("tls.crt", leaf.chain_pem()), ("tls.key", leaf.key_pem())];
    Proxy::start(&["plain", "tls"], &settings, &files).await.unwrap()
}

/// Reads each request to its end, and answers with as many bytes as the flow-control cases need.
async fn upstream() -> SocketAddr {
    async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let _ = request.into_body().collect().await;
        Ok(Response::new(Full::new(Bytes::from_static(&[b'x'; 64]))))
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), service_fn(answer)));
        }
    });
    address
}

/// Runs every case. A case that waited in vain is given four times as long once more: a loaded
/// machine answers late, a wrong proxy never does. Whatever else fails has failed.
async fn run(address: SocketAddr, tls: bool) -> Cases {
    let mut cases = h2spec(address, tls, PATIENCE, None).await;
    assert_eq!(cases.len(), CASES, "{cases:#?}");
    let late: Vec<Name> = cases.iter().filter(|case| waited(case.1)).map(|case| case.0.clone()).collect();
    for name in late {
        let again = h2spec(address, tls, LONG_PATIENCE, Some(&name.0)).await;
        cases.insert(name.clone(), again.get(&name).expect("the case is in its section").clone());
    }
    cases
}

fn waited(failure: &Option<String>) -> bool {
    failure.as_ref().is_some_and(|text| text.contains("Timeout") || text.contains("i/o timeout"))
}

async fn h2spec(address: SocketAddr, tls: bool, patience: u32, section: Option<&str>) -> Cases {
    let program = ready(Part::H2spec).unwrap().join("bin/h2spec");
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.xml");
    let mut command = Command::new(program);
    command.args(section).args(["--strict", "--host", "127.0.0.1", "--path", "/"]);
    command.args(["--port", &address.port().to_string(), "--timeout", &patience.to_string()]);
    command.arg("--junit-report").arg(&report);
    if tls {
        command.args(["--tls", "--insecure"]);
    }
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    read_file(&report).unwrap_or_else(|| panic!("no report: {output:?}"))
}

fn read_file(report: &Path) -> Option<Cases> {
    Some(read(&std::fs::read_to_string(report).ok()?)).filter(|cases| !cases.is_empty())
}

/// The cases of a JUnit report.
fn read(report: &str) -> Cases {
    let mut cases = Cases::new();
    for case in report.split("<testcase ").skip(1) {
        let case = case.split("</testcase>").next().unwrap();
        let (head, body) = case.split_once('>').unwrap();
        let attribute = |name: &str| {
            let (_, value) = head.split_once(&format!("{name}=\"")).expect("the attribute is there");
            plain(value.split('"').next().unwrap())
        };
        let told = |tag: &str| {
            let (_, text) = body.split_once(&format!("<{tag}"))?;
            let (_, text) = text.split_once('>')?;
            let text = plain(text.split(&format!("</{tag}>")).next()?.trim());
            Some(if text.is_empty() { tag.to_owned() } else { text })
        };
        let outcome = ["failure", "error", "skipped"].into_iter().find_map(told);
        let before = cases.insert((attribute("package"), attribute("classname")), outcome);
        assert!(before.is_none(), "two cases of one name: {head}");
    }
    cases
}

/// Text without XML's entities.
fn plain(text: &str) -> String {
    let entities = [
        ("&#34;", "\""),
        ("&quot;", "\""),
        ("&#39;", "'"),
        ("&#xA;", "\n"),
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&amp;", "&"),
    ];
    entities.iter().fold(text.to_owned(), |text, (entity, means)| text.replace(entity, means))
}

/// What is not known passes, and what is known fails.
fn compare(cases: &Cases, known: &[Known]) {
    let known_name =
        |(section, title): &Name| known.iter().find(|known| known.section == section && known.title == title);
    let failures: Vec<_> =
        cases.iter().filter(|(name, outcome)| outcome.is_some() && known_name(name).is_none()).collect();
    assert!(failures.is_empty(), "{} of {} cases fail: {failures:#?}", failures.len(), cases.len());
    for Known { section, title, reason } in known {
        let outcome = &cases[&((*section).to_owned(), (*title).to_owned())];
        assert!(
            outcome.is_some(),
            "{section} {title} passes now: remove it from the list of known failures ({reason})"
        );
    }
}

/// Sends bytes, and reads until the proxy closes.
async fn say(address: SocketAddr, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}
