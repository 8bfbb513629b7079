#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::SocketAddr;

use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
};

use super::{
    hello::{self, Hello},
    *,
};

#[test]
fn whatever_could_be_read_as_a_request_is_http() {
    for bytes in [
        &b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..],
        b"GET /",
        b"get /fhir/Patient HTTP/1.1\r\n",
        b"\r\n\r\nGET / HTTP/1.1\r\n",
        b"\n\n  \t GET / HTTP/1.1\r\n",
        b"\0\x01\x7fGET /",
        b"\x0b\x0cPOST /fhir",
        b"GET    /fhir/Patient HTTP/1.1\r\n",
        b"GET\t/fhir/Patient HTTP/1.1\r\n",
        b"FHIR-READ /fhir/Patient HTTP/1.1\r\n",
        b"X /y",
        b"OPTIONS * HTTP/1.1\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT host:443 HTTP/1.1\r\n",
        b"GET http://host/fhir HTTP/1.1\r\n",
        b"GET HTTP://HOST/fhir",
        b"GET host/path http/1.1\n",
        b"GET \xff\xfe HTTP/1.1\r\n",
        b"GET x HTTP/9\n",
        b"GET\r/fhir/Patient HTTP/1.1\r\n",
        b"GET \r\x0b/fhir",
        b"GET \\fhir",
        b"GET  x\r HTTP/1.1",
        b"\x16GET / HTTP/1.1\r\n",
        b"\x16\x02GET / HTTP/1.1\r\n",
    ] {
        assert_eq!(look(bytes), Seen::Http, "{:?}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn a_line_that_may_become_a_request_is_waited_for() {
    for bytes in [
        &b"G"[..],
        b"GET",
        b"GET ",
        b"GET  \t",
        b"\r\nP",
        b"PRI",
        b"GET host",
        b"EHLO mail.example",
        b"\x16G",
    ] {
        assert_eq!(look(bytes), Seen::Line, "{:?}", String::from_utf8_lossy(bytes));
    }
    let long = |unit: &[u8]| unit.repeat(LOOK / unit.len() + 1);
    assert_eq!(look(&long(b"A")), Seen::Http, "too long a method is HTTP's to refuse");
    assert_eq!(look(&[b"GET a".to_vec(), long(b"a")].concat()), Seen::Http);
    for bytes in [&b""[..], b"\r\n", b"\r\n\r\n", b"\n", b"  ", b"\0\0"] {
        assert_eq!(look(bytes), Seen::Silence, "{bytes:?}");
    }
    assert_eq!(look(&long(b"\r\n")), Seen::Bytes, "nobody sends so many empty lines in good faith");
}

#[test]
fn other_protocols_are_told_apart() {
    for (name, bytes) in [
        ("PostgreSQL SSLRequest", &[0, 0, 0, 8, 4, 210, 22, 47][..]),
        ("PostgreSQL startup", b"\0\0\0\x54\0\x03\0\0user\0postgres\0\0"),
        ("PostgreSQL startup of a control length", b"\0\0\0\x10\0\x03\0\0user\0a\0\0"),
        ("SSH", b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n"),
        ("SMTP", b"EHLO mail.example\r\n"),
        ("FTP", b"USER anonymous\r\n"),
        ("Redis", b"*1\r\n$4\r\nPING\r\n"),
        ("Redis inline", b"PING\r\n"),
        ("memcached", b"get key\r\n"),
        ("HL7 MLLP", b"\x0bMSH|^~\\&|LAB|"),
        ("DICOM", &[1, 0, 0, 0, 0, 205, 0, 1, 0, 0]),
        ("MongoDB", &[0x3a, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xdd, 7, 0, 0]),
        ("MQTT", b"\x10\x0c\0\x04MQTT\x04\x02"),
        ("AMQP", b"AMQP\0\0\x09\x01"),
        ("LDAP", &[0x30, 0x0c, 2, 1, 1, 0x60]),
        ("Kafka", &[0, 0, 0, 0x2b, 0, 0x12, 0, 3]),
        ("PROXY protocol v1", b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n"),
        ("PROXY protocol v2", b"\r\n\r\n\0\r\nQUIT\n\x21\x11"),
        ("binary", &[0x80, 0x81]),
        ("JSON", b"{\"a\": 1}\n"),
    ] {
        assert_eq!(look(bytes), Seen::Bytes, "{name}");
    }
}

/// A ClientHello with these extensions.
fn client_hello(extensions: &[u8]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0]); // session id
    body.extend([0, 2, 0x13, 1]); // cipher suites
    body.extend([1, 0]); // compression
    body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend(extensions);
    let mut message = vec![1, 0];
    message.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    message.extend(body);
    message
}

fn records(message: &[u8], size: usize) -> Vec<u8> {
    let record =
        |part: &[u8]| [&[22, 3, 1][..], &u16::try_from(part.len()).unwrap().to_be_bytes(), part].concat();
    message.chunks(size).flat_map(record).collect()
}

const NAME: &[u8] = &[0, 0, 0, 8, 0, 6, 0, 0, 3, b'A', b'.', b'b'];

#[test]
fn the_server_name_is_read_however_the_hello_is_cut() {
    let alpn: &[u8] = &[0, 16, 0, 3, 0, 1, 0];
    let hello = client_hello(&[alpn, NAME].concat());
    let named = Hello::Whole(Asked { sni: Some("a.b".to_owned()), of_mesh: false });
    for size in [1, 2, 3, 5, 40, 1000] {
        assert_eq!(
            hello::read(&records(&hello, size)[..], HELLO),
            if size < 2 { Hello::Malformed } else { named.clone() },
            "{size}"
        );
    }
    let whole = records(&hello, 1000);
    for end in 2..whole.len() {
        assert_eq!(look(&whole[..end]), Seen::Tls(Hello::Partial), "{end}");
    }
    assert_eq!(look(&whole), Seen::Tls(named));
    assert_eq!(hello::read(&records(&client_hello(alpn), 1000), HELLO), Hello::Whole(Asked::default()));
    assert_eq!(hello::read(&records(&client_hello(&[0, 0, 0, 9, 0]), 1000), HELLO), Hello::Malformed);
    assert_eq!(hello::read(&[22, 3, 1, 0, 0], HELLO), Hello::Malformed);
    assert_eq!(hello::read(&[22, 3, 1, 0, 1, 2, 0, 0, 0], HELLO), Hello::Malformed, "a ServerHello");
}

/// An ALPN extension with these names.
fn alpn(names: &[&[u8]]) -> Vec<u8> {
    let list: Vec<u8> =
        names.iter().flat_map(|name| [&[u8::try_from(name.len()).unwrap()], *name].concat()).collect();
    let length = |of: usize| u16::try_from(of).unwrap().to_be_bytes();
    [&[0, 16], &length(list.len() + 2)[..], &length(list.len()), &list].concat()
}

#[test]
fn a_hello_is_the_meshs_by_the_names_that_istio_gives() {
    let of_mesh = |names: &[&[u8]]| match hello::read(&records(&client_hello(&alpn(names)), 1000), HELLO) {
        Hello::Whole(asked) => asked.of_mesh,
        other => panic!("{other:?}"),
    };
    for name in [&b"istio"[..], b"istio-peer-exchange", b"istio-http/1.0", b"istio-http/1.1", b"istio-h2"] {
        assert!(of_mesh(&[name]) && of_mesh(&[b"h2", name]) && of_mesh(&[name, b"foo"]));
    }
    for name in [&b""[..], b"istio-", b"Istio", b"istio-h3", b"h2", b"istio-http/1.1 "] {
        assert!(!of_mesh(&[name]), "{name:?}");
    }
    assert!(!of_mesh(&[]));
    let twice = [alpn(&[b"h2"]), alpn(&[b"istio"])].concat();
    assert_eq!(hello::read(&records(&client_hello(&twice), 1000), HELLO), Hello::Malformed);
    let names = [NAME, NAME].concat();
    assert_eq!(hello::read(&records(&client_hello(&names), 1000), HELLO), Hello::Malformed);
    let mut short = alpn(&[b"istio"]);
    short[6] = 9;
    assert_eq!(hello::read(&records(&client_hello(&short), 1000), HELLO), Hello::Malformed);
}

/// Pieces of one byte cost no more than they must: what is not whole is not put together.
#[test]
fn a_hello_of_many_records_is_read_or_refused() {
    let padding = [&[0, 21, 0x3f, 0xff][..], &[0; 0x3fff]].concat();
    let long = client_hello(&[alpn(&[b"istio"]), padding].concat());
    let named = Hello::Whole(Asked { sni: None, of_mesh: true });
    assert_eq!(hello::read(&records(&long, long.len() / 60), HELLO), named);
    assert_eq!(hello::read(&records(&long, long.len() / 70), HELLO), Hello::Malformed, "too many records");
    assert_eq!(
        hello::read(&[&[22, 3, 1, 0xff, 0xff, 1, 1, 0xff][..], &vec![0; HELLO]].concat(), HELLO),
        Hello::Malformed
    );
}

#[test]
fn no_bytes_make_it_panic() {
    let hello = records(&client_hello(NAME), 30);
    for at in 0..hello.len() {
        for value in [0, 1, 22, 255] {
            let mut bytes = hello.clone();
            bytes[at] = value;
            let _ = look(&bytes);
        }
    }
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (client, listener.accept().await.unwrap().0)
}

fn waits(line_ms: u64, hello_ms: u64) -> Waits {
    let line = Duration::from_millis(line_ms);
    Waits { silence: line, line, hello: Duration::from_millis(hello_ms) }
}

async fn told(parts: &[&[u8]], ends: bool, waits: Waits) -> (io::Result<Told>, BytesMut) {
    let (mut client, mut server) = pair().await;
    let parts: Vec<Vec<u8>> = parts.iter().map(|part| part.to_vec()).collect();
    let client = tokio::spawn(async move {
        for part in parts {
            client.write_all(&part).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if ends {
            client.shutdown().await.unwrap();
        }
        client
    });
    let mut first = BytesMut::new();
    let told = listen(&mut server, &mut first, waits).await;
    drop(client.await.unwrap());
    (told, first)
}

#[tokio::test]
async fn first_bytes_that_come_slowly_are_put_together() {
    let (told, first) =
        told(&[b"\r\n", b"G", b"ET", b" ", b"/x HTTP/1.1\r\n"], false, waits(10_000, 10_000)).await;
    assert_eq!(told.unwrap(), Told::Http);
    assert!(first.starts_with(b"\r\nGET /"));
}

#[tokio::test]
async fn silence_ends_with_the_wait_and_empty_lines_are_silence() {
    assert_eq!(told(&[], false, waits(50, 50)).await.0.unwrap(), Told::Silence { ended: false });
    assert_eq!(told(&[b"\r\n"], false, waits(50, 50)).await.0.unwrap(), Told::Silence { ended: false });
    assert_eq!(told(&[], true, waits(10_000, 50)).await.0.unwrap(), Told::Silence { ended: true });
}

#[tokio::test]
async fn a_partial_line_or_preface_that_dawdles_is_http_and_one_that_ends_is_not() {
    for partial in [&b"GE"[..], b"PRI", b"PRI ", b"EHLO a"] {
        assert_eq!(told(&[partial], false, waits(100, 10)).await.0.unwrap(), Told::Http);
        assert_eq!(told(&[partial], true, waits(10_000, 10)).await.0.unwrap(), Told::Bytes);
    }
    assert_eq!(told(&[b"PRI * "], false, waits(100, 10)).await.0.unwrap(), Told::Http);
}

#[tokio::test]
async fn a_hello_that_dawdles_is_given_up_and_a_whole_one_has_its_name() {
    let hello = records(&client_hello(NAME), 1000);
    let (start, rest) = hello.split_at(20);
    let partial = told(&[start], false, waits(10, 100)).await.0;
    assert_eq!(partial.unwrap_err().kind(), io::ErrorKind::TimedOut);
    let whole = told(&[start, rest], false, waits(10, 10_000)).await.0;
    let asked = Asked { sni: Some("a.b".to_owned()), of_mesh: false };
    assert_eq!(whole.unwrap(), Told::Tls(asked));
}
