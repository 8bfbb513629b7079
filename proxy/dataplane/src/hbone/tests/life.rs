//! How connections end: drained, idle, silent, no longer verified.

use certs::{OddRequest, Validity};

use super::*;

/// From a minute ago to so many seconds from now.
fn until(seconds: u64) -> Validity {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    Validity::between(now - 60, now + seconds).unwrap()
}

#[tokio::test]
async fn draining_tunnels_go_on_and_new_ones_are_refused() {
    let stage = Stage::new(NOBODY).await;
    let echo = App::echo(stage.ip).await;
    let tunnels = stage.open("client").await;
    let authority = stage.at(echo.port());
    let mut tunnel = tunnels.tunnel(&authority).await;
    tunnel.write_all(b"\x80").await.unwrap();
    in_time(tunnel.read_u8()).await.unwrap();
    stage.stop.cancel();
    // The client is told, and then no new stream comes about, whether or not it heeds that.
    eventually(async || tunnels.status(&authority).await.is_err()).await;
    assert_eq!(echo.count(), 1);
    tunnel.write_all(b"\x01").await.unwrap();
    assert_eq!(in_time(tunnel.read_u8()).await.unwrap(), 1);
    tunnel.shutdown().await.unwrap();
    in_time(tunnel.read_to_end(&mut Vec::new())).await.unwrap();
    let report = in_time(stage.running).await.unwrap();
    assert_eq!(report.cut, 0, "{report:?}");
    in_time(tunnels.ended).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_drain_that_takes_too_long_cuts() {
    let limits = Limits { drain_timeout_ms: 200, ..Limits::default() };
    let stage = Stage::with(NOBODY, limits, None).await;
    let echo = App::echo(stage.ip).await;
    let mut tunnel = stage.open("client").await.tunnel(&stage.at(echo.port())).await;
    tunnel.write_all(b"\x80").await.unwrap();
    in_time(tunnel.read_u8()).await.unwrap();
    let report = stage.end().await;
    assert!(report.cut > 0, "{report:?}");
    assert!(in_time(tunnel.read_to_end(&mut Vec::new())).await.is_err());
}

#[tokio::test]
async fn an_idle_connection_is_told_to_go() {
    let limits = Limits { idle_timeout_ms: 500, ..Limits::default() };
    let stage = Stage::with(NOBODY, limits, None).await;
    let echo = App::echo(stage.ip).await;
    let tunnels = stage.open("client").await;
    let mut tunnel = tunnels.tunnel(&stage.at(echo.port())).await;
    tunnel.write_all(b"\x80").await.unwrap();
    in_time(tunnel.read_u8()).await.unwrap();
    // A raw tunnel is not idle for saying nothing.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    tunnel.write_all(b"\x02").await.unwrap();
    assert_eq!(in_time(tunnel.read_u8()).await.unwrap(), 2);
    tunnel.shutdown().await.unwrap();
    in_time(tunnel.read_to_end(&mut Vec::new())).await.unwrap();
    drop(tunnel);
    in_time(tunnels.ended).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_that_gives_no_sign_of_life_is_left() {
    let limits = Limits { tunnel_ping_ms: 100, ..Limits::default() };
    let stage = Stage::with(NOBODY, limits, None).await;
    // One that answers stays.
    let tunnels = stage.open("client").await;
    let mut io = stage.dial(stage.entrance, "client").await;
    io.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut said = Vec::new();
    let _ = in_time(io.read_to_end(&mut said)).await;
    assert!(said.windows(5).any(|five| five == [0, 0, 8, 6, 0]), "it was asked: {said:?}");
    let echo = App::echo(stage.ip).await;
    assert_eq!(tunnels.status(&stage.at(echo.port())).await.unwrap(), 200);
}

#[tokio::test]
async fn after_its_clients_certificate_a_connection_takes_no_more_tunnels() {
    let limits = Limits { drain_timeout_ms: 100, ..Limits::default() };
    let stage = Stage::with(NOBODY, limits, None).await;
    let echo = App::echo(stage.ip).await;
    let request = OddRequest { validity: Some(until(10)), ..OddRequest::workload(id("client")) };
    let leaf = stage.peers.root.issue_odd(&request).unwrap();
    let tunnels = Tunnels::over(stage.dial_with(stage.entrance, Some(&leaf)).await.unwrap()).await;
    let authority = stage.at(echo.port());
    let mut tunnel = tunnels.tunnel(&authority).await;
    tunnel.write_all(b"\x80").await.unwrap();
    in_time(tunnel.read_u8()).await.unwrap();
    eventually(async || tunnels.status(&authority).await.is_err()).await;
    // Longer than a drain takes.
    tokio::time::sleep(Duration::from_millis(500)).await;
    tunnel.write_all(b"\x01").await.unwrap();
    assert_eq!(in_time(tunnel.read_u8()).await.unwrap(), 1, "what is under way goes on");
    tunnel.shutdown().await.unwrap();
    in_time(tunnel.read_to_end(&mut Vec::new())).await.unwrap();
    drop(tunnel);
    let _ = in_time(tunnels.ended).await.unwrap();
}

#[tokio::test]
async fn a_connection_ends_with_the_trust_in_its_client() {
    let stage = Stage::new(NOBODY).await;
    let echo = App::echo(stage.ip).await;
    let tunnels = stage.open("client").await;
    let mut tunnel = tunnels.tunnel(&stage.at(echo.port())).await;
    tunnel.write_all(b"\x80").await.unwrap();
    in_time(tunnel.read_u8()).await.unwrap();
    stage.peers.trust(&certs::Authority::mint("another").unwrap());
    assert!(in_time(tunnel.read_to_end(&mut Vec::new())).await.is_err());
    let _ = in_time(tunnels.ended).await.unwrap();
    assert_eq!(stage.end().await.cut, 0);
}
