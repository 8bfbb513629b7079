//! The story: before the label, with it, without the proxy, with it again, without the label.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{FHIR_PORT, Failure, SERVICE, Stage, curl, member::Member, traces};
use crate::{
    clients::{Outcome, Seen, Tokens, tutorial_table, write_rows},
    scene::REALM,
};

/// How long an answer on a connection that should have been ended is waited for.
const OLD_CONNECTION: Duration = Duration::from_secs(3);
const DIRECT: &str = "200 a Bundle resource: no proxy in the way";
const DENIED: &str = "403 RBAC: access denied";
const REFUSED: &str = "refused";

/// Rows of one part of the story.
#[derive(Default)]
struct Rows(Vec<[String; 4]>);

impl Rows {
    fn row(&mut self, case: &str, expected: &str, actual: impl Into<String>, good: bool) {
        let ok = if good { "yes" } else { "NO" };
        self.0.push([case.to_owned(), expected.to_owned(), actual.into(), ok.to_owned()]);
    }

    fn outcome(&mut self, outcome: &Outcome) {
        self.0.push(outcome.row());
    }
}

/// The parts of the story so far.
struct Told<'a, W> {
    out: &'a mut W,
    rows: usize,
    good: usize,
}

impl<W: Write> Told<'_, W> {
    fn part(&mut self, heading: &str, rows: &Rows) -> io::Result<()> {
        writeln!(self.out, "\n{heading}")?;
        write_rows(self.out, &rows.0)?;
        self.rows += rows.0.len();
        self.good += rows.0.iter().filter(|[.., ok]| ok == "yes").count();
        self.out.flush()
    }
}

pub(super) fn tell(stage: &mut Stage, out: &mut impl Write) -> Result<bool, Failure> {
    let mut told = Told { out, rows: 0, good: 0 };
    let looks = traces::Looks::of(stage)?;
    let mut old = connect(stage)?;
    told.part("Without the label: nothing is touched", &before(stage, &mut old))?;
    let (rows, tokens) = labelled(stage, &mut old)?;
    told.part("The label is set: pods as they run, without restart", &rows)?;
    told.part(
        "The tutorial's table, by curl in the pod `client` to the Service's address",
        &table(stage, &tokens),
    )?;
    told.part("A pod without label", &stranger(stage))?;
    told.part(
        "A member of the mesh that speaks mTLS itself, as Istio's sidecars do, in the same pod",
        &member(stage, &tokens)?,
    )?;
    told.part("The proxy is killed (SIGKILL)", &killed(stage, &tokens))?;
    told.part("The proxy is started again", &back(stage, &tokens)?)?;
    told.part("The label is removed", &removed(stage, &looks)?)?;
    writeln!(told.out, "\n{} of {} as expected", told.good, told.rows)?;
    Ok(told.good == told.rows)
}

/// A connection of the client's to the server, which is kept.
fn connect(stage: &Stage) -> Result<TcpStream, Failure> {
    let address = SocketAddr::from((SERVICE, FHIR_PORT));
    let stream = stage.client.namespace().run(|| TcpStream::connect_timeout(&address, OLD_CONNECTION))??;
    stream.set_read_timeout(Some(OLD_CONNECTION))?;
    Ok(stream)
}

/// The first line that comes back for a request on it.
fn use_connection(stream: &mut TcpStream) -> io::Result<String> {
    stream.write_all(b"GET /metadata HTTP/1.1\r\nhost: fhir-service\r\n\r\n")?;
    let mut start = [0; 15];
    stream.read_exact(&mut start)?;
    Ok(String::from_utf8_lossy(&start).into_owned())
}

fn before(stage: &Stage, old: &mut TcpStream) -> Rows {
    let mut rows = Rows::default();
    let seen = patients(stage, None);
    rows.row("client: no token, GET", DIRECT, shown(&seen), is_bundle(&seen));
    let seen = curl::get(&stage.stranger, &at_pod(stage.fhir.v6().map(Into::into))).in_short();
    rows.row("a pod without label, by IPv6: no token, GET", DIRECT, shown(&seen), is_bundle(&seen));
    let answer = use_connection(old);
    let good = matches!(&answer, Ok(line) if line.contains("200"));
    rows.row("client: a connection that stays open", "HTTP/1.1 200 OK", told_of(answer), good);
    let links = traces::links(stage);
    rows.row("programs attached", "0", links.to_string(), links == 0);
    rows
}

fn labelled(stage: &mut Stage, old: &mut TcpStream) -> Result<(Rows, Tokens), Failure> {
    let mut rows = Rows::default();
    stage.label(true)?;
    let mut seen = Seen { status: 0, body: String::new() };
    let took = stage.wait(|stage| {
        seen = patients(stage, None);
        is_denied(&seen)
    })?;
    let actual = format!("{}{}", shown(&seen), after(took));
    rows.row("client: no token, GET", DENIED, actual, took.is_some());
    // Whatever is still in its buffers belongs to the first answer.
    old.set_nonblocking(true)?;
    let _ = io::copy(old, &mut io::sink());
    old.set_nonblocking(false)?;
    let answer = use_connection(old);
    rows.row("client: the connection from before", "ended", told_of_end(&answer), answer.is_err());
    let status = status(stage);
    let named = ["datamesh/client", "datamesh/fhir-server"].iter().all(|name| status.contains(name));
    rows.row(
        "fhirward status",
        "names both pods",
        if named { "names both pods" } else { status.as_str() },
        named,
    );
    let tokens = tokens(stage)?;
    rows.row("client: tokens from the identity provider", "5 tokens", "5 tokens", true);
    Ok((rows, tokens))
}

fn table(stage: &Stage, tokens: &Tokens) -> Rows {
    let mut rows = Rows::default();
    for case in tutorial_table() {
        let (url, words) = (format!("{}{}", stage.fhir_url(), case.path), case.curl(tokens));
        let mut arguments: Vec<&str> = words.iter().map(String::as_str).collect();
        arguments.push(&url);
        let seen = curl::ask(&stage.client, &arguments);
        rows.outcome(&Outcome { case, seen: seen.in_short() });
    }
    rows
}

fn stranger(stage: &Stage) -> Rows {
    let mut rows = Rows::default();
    let realm = curl::get(&stage.stranger, &stage.idp);
    rows.row("to a pod without label", "200: untouched", realm.status.to_string(), realm.status == 200);
    let service = patients_of(stage, "stranger");
    rows.row(
        "to the FHIR server: STRICT wants an identity",
        REFUSED,
        shown(&service),
        curl::is_refused(&service),
    );
    let direct = curl::get(&stage.stranger, &at_pod(stage.fhir.v4().map(Into::into)));
    rows.row(
        "to the FHIR server, by the pod's own address",
        REFUSED,
        shown(&direct),
        curl::is_refused(&direct),
    );
    let direct = curl::get(&stage.stranger, &at_pod(stage.fhir.v6().map(Into::into)));
    rows.row("the same, by IPv6", REFUSED, shown(&direct), curl::is_refused(&direct));
    rows
}

fn member(stage: &Stage, tokens: &Tokens) -> Result<Rows, Failure> {
    let mut rows = Rows::default();
    let url = at_pod(stage.fhir.v4().map(Into::into)).replacen("http:", "https:", 1);
    let seen = curl::ask(&stage.stranger, &["--insecure", &url]);
    rows.row("TLS without a certificate", REFUSED, shown(&seen), curl::is_refused(&seen));
    let words = Member::new(stage)?.curl();
    let mtls = |token: Option<&str>| {
        let mut arguments: Vec<&str> = words.iter().map(String::as_str).collect();
        let header = token.map(|token| format!("Authorization: Bearer {token}"));
        arguments.extend(header.iter().flat_map(|header| ["-H", header.as_str()]));
        arguments.push(&url);
        curl::ask(&stage.stranger, &arguments).in_short()
    };
    let seen = mtls(Some(&tokens.alice));
    rows.row("mTLS: Alice (Patient), GET", "200 a Bundle resource", shown(&seen), is_bundle(&seen));
    for (case, token) in
        [("mTLS: Bob (Medic), GET", Some(tokens.bob.as_str())), ("mTLS: no token, GET", None)]
    {
        let seen = mtls(token);
        rows.row(case, DENIED, shown(&seen), is_denied(&seen));
    }
    Ok(rows)
}

/// The FHIR server by an address of its pod.
fn at_pod(address: Option<IpAddr>) -> String {
    address.map_or_else(String::new, |ip| format!("http://{}/Patient", SocketAddr::from((ip, FHIR_PORT))))
}

fn killed(stage: &mut Stage, tokens: &Tokens) -> Rows {
    let mut rows = Rows::default();
    stage.kill_proxy();
    for (case, token) in
        [("client: Alice (Patient), GET", Some(&tokens.alice)), ("client: no token, GET", None)]
    {
        let began = Instant::now();
        let seen = patients(stage, token.map(String::as_str));
        let actual = format!("{}{}", shown(&seen), after(Some(began.elapsed())));
        rows.row(case, "refused, at once", actual, curl::is_refused(&seen));
    }
    let seen = patients_of(stage, "stranger");
    rows.row("stranger: to the FHIR server", REFUSED, shown(&seen), curl::is_refused(&seen));
    let realm = curl::get(&stage.stranger, &stage.idp);
    rows.row(
        "stranger: to a pod without label",
        "200: untouched",
        realm.status.to_string(),
        realm.status == 200,
    );
    rows
}

fn back(stage: &mut Stage, tokens: &Tokens) -> Result<Rows, Failure> {
    let mut rows = Rows::default();
    let began = Instant::now();
    stage.start_proxy()?;
    let mut seen = Seen { status: 0, body: String::new() };
    let works = stage.wait(|stage| {
        seen = patients(stage, Some(&tokens.alice));
        is_bundle(&seen)
    })?;
    let took = works.map(|_| began.elapsed());
    let actual = format!("{}{}", shown(&seen), after(took));
    rows.row("client: Alice (Patient), GET", "200 a Bundle resource", actual, took.is_some());
    let seen = patients(stage, Some(&tokens.bob));
    rows.row("client: Bob (Medic), GET", DENIED, shown(&seen), is_denied(&seen));
    Ok(rows)
}

fn removed(stage: &mut Stage, looks: &traces::Looks) -> Result<Rows, Failure> {
    let mut rows = Rows::default();
    stage.label(false)?;
    let mut seen = Seen { status: 0, body: String::new() };
    let took = stage.wait(|stage| {
        seen = patients(stage, None);
        is_bundle(&seen)
    })?;
    rows.row("client: no token, GET", DIRECT, format!("{}{}", shown(&seen), after(took)), took.is_some());
    let seen = patients_of(stage, "stranger");
    rows.row("stranger: to the FHIR server", DIRECT, shown(&seen), is_bundle(&seen));
    // The server may be free a moment before the client's pod is.
    let gone = stage.wait(|stage| traces::links(stage) == 0)?;
    rows.row("programs attached", "0", traces::links(stage).to_string(), gone.is_some());
    let mut change = None;
    let same = stage.wait(|stage| {
        change =
            traces::Looks::of(stage).map_or_else(|error| Some(error.to_string()), |now| looks.change(&now));
        change.is_none()
    })?;
    let actual = change.unwrap_or_else(|| "as before".to_owned());
    rows.row("rules, routes and network settings of the pods", "as before", actual, same.is_some());
    Ok(rows)
}

/// `GET /Patient` by the client.
fn patients(stage: &Stage, token: Option<&str>) -> Seen {
    let url = format!("{}/Patient", stage.fhir_url());
    let Some(token) = token else { return curl::get(&stage.client, &url).in_short() };
    curl::ask(&stage.client, &["-H", &format!("Authorization: Bearer {token}"), &url]).in_short()
}

fn patients_of(stage: &Stage, who: &str) -> Seen {
    let pod = if who == stage.stranger.name() { &stage.stranger } else { &stage.client };
    curl::get(pod, &format!("{}/Patient", stage.fhir_url())).in_short()
}

/// As an application gets them, by curl in the client's pod.
fn tokens(stage: &Stage) -> Result<Tokens, Failure> {
    let idp = &stage.idp;
    let text = |arguments: &[&str]| {
        let seen = curl::ask(&stage.client, arguments);
        if seen.status == 200 { Ok(seen.body) } else { Err(format!("no token: {}", shown(&seen))) }
    };
    let token = |realm: &str, form: &[(&str, &str)]| {
        let url = idp.replace(REALM, realm) + "/protocol/openid-connect/token";
        let fields: Vec<String> = form.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut arguments = vec![url.as_str()];
        arguments.extend(fields.iter().flat_map(|field| ["--data-urlencode", field]));
        let body: Value = serde_json::from_str(&text(&arguments)?).map_err(|error| error.to_string())?;
        body.get("access_token")
            .and_then(Value::as_str)
            .map(str::to_owned)
            .ok_or("no access_token".to_owned())
    };
    let person = |realm: &str, name: &str| {
        let password = format!("{name}1234!");
        let grant = ("grant_type", "password");
        token(realm, &[grant, ("client_id", "idea"), ("username", name), ("password", &password)])
    };
    let secret = text(&[&format!("{idp}/fhirward-demo/service-secret")])?;
    let service =
        [("grant_type", "client_credentials"), ("client_id", "idea-svc"), ("client_secret", secret.trim())];
    Ok(Tokens {
        alice: person(REALM, "alice")?,
        bob: person(REALM, "bob")?,
        expired: text(&[&format!("{idp}/fhirward-demo/expired-token")])?.trim().to_owned(),
        other_realm: person("OTHER", "alice")?,
        service: token(REALM, &service)?,
    })
}

fn status(stage: &Stage) -> String {
    let output = stage
        .node
        .command(crate::pods::Place::Other, &stage.program)
        .args(["status", "--config"])
        .arg(stage.config())
        .output();
    output
        .map_or_else(|error| error.to_string(), |output| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn is_bundle(seen: &Seen) -> bool {
    seen.status == 200 && seen.body == "a Bundle resource"
}

fn is_denied(seen: &Seen) -> bool {
    seen.status == 403 && seen.body == "RBAC: access denied"
}

fn shown(seen: &Seen) -> String {
    seen.shown()
}

fn after(took: Option<Duration>) -> String {
    took.map_or_else(|| " (waited in vain)".to_owned(), |took| format!(" (after {} ms)", took.as_millis()))
}

fn told_of(answer: io::Result<String>) -> String {
    answer.unwrap_or_else(|error| error.to_string())
}

fn told_of_end(answer: &io::Result<String>) -> String {
    match answer {
        Ok(line) => format!("still there: {line}"),
        Err(error) => format!("ended: {error}"),
    }
}
