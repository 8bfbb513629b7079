//! The two proxies in the same worlds, before one recording upstream.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::model::{Body, Http, PORT, Request, Signed, World};
use super::translate::{EnvoyListener, Manifests, Normalization, envoy_config};
use super::view::View;
use super::wire::{Http1, Http2, Reply, Upstream, WireError};
use crate::harness::Proxy;
use crate::real::{Envoy, EnvoyStart, free_port};

/// Why the proxies could not be had, or asked.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// Both proxies, with a listener in each for every world.
pub struct Pair {
    places: Vec<Place>,
    // Dropped before the upstream, which they talk to.
    _ours: Vec<Proxy>,
    _envoy: Envoy,
    _upstream: Upstream,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    envoy: SocketAddr,
    ours: SocketAddr,
}

/// Connections to one world, through both proxies.
pub struct Lane {
    envoy: Client,
    ours: Client,
}

struct Client {
    http1: Http1,
    http2: Http2,
}

impl Pair {
    /// Starts both proxies in these worlds.
    ///
    /// # Errors
    /// When one of them does not start.
    pub async fn start(worlds: &[World], signed: &Signed<'_>) -> Result<Self, Error> {
        Self::start_unequal(worlds, worlds, signed).await
    }

    /// As [`Pair::start`], but with other worlds for ours than for Envoy: to see that it is noticed.
    ///
    /// # Errors
    /// When one of them does not start.
    pub async fn start_unequal(envoys: &[World], ours: &[World], signed: &Signed<'_>) -> Result<Self, Error> {
        let upstream = Upstream::start().await?;
        let (envoy_port, our_port) = (free_port().await?, free_port().await?);
        let place = |index| Place { envoy: address(1, index, envoy_port), ours: address(2, index, our_port) };
        let places: Vec<Place> = (0..envoys.len()).map(place).collect();
        let config = envoy_side(envoys, &places, upstream.address(), signed);
        let admin = SocketAddr::from(([127, 0, 0, 1], free_port().await?));
        let config = envoy_config(&config.0, &config.1, admin)?;
        let start = EnvoyStart { config: &config, admin, concurrency: 1, prefix: &[] };
        let envoy = Envoy::start(start).await?;
        let mut proxies = Vec::new();
        for mode in Normalization::ALL {
            let of_mode: Vec<usize> =
                (0..ours.len()).filter(|index| ours[*index].normalization == mode).collect();
            if !of_mode.is_empty() {
                let (settings, manifests) = our_side(ours, &of_mode, &places, upstream.address(), signed);
                proxies.push(Proxy::start(&[], &settings, &[("m/all.yaml", &manifests)]).await?);
            }
        }
        for proxy in &proxies {
            let readiness = proxy.readiness().await?;
            if readiness["current"] != true {
                return Err(format!("our proxy refuses a generated world: {readiness}").into());
            }
        }
        Ok(Self { places, _ours: proxies, _envoy: envoy, _upstream: upstream })
    }

    /// Connections to the `index`-th world.
    #[must_use]
    pub fn lane(&self, index: usize) -> Lane {
        let Place { envoy, ours } = self.places[index];
        let client = |address| Client { http1: Http1::new(address), http2: Http2::new(address) };
        Lane { envoy: client(envoy), ours: client(ours) }
    }
}

impl Lane {
    /// Sends the request through both: what Envoy did, and what we did.
    ///
    /// # Errors
    /// When a proxy is gone, or answers something that is no HTTP.
    pub async fn ask(&mut self, request: &Request, signed: &Signed<'_>) -> Result<(View, View), Error> {
        let (envoy, ours) = tokio::join!(self.envoy.ask(request, signed), self.ours.ask(request, signed));
        Ok((View::of(envoy)?, View::of(ours)?))
    }

    /// Sends it once more through ours alone, which now knows its tokens.
    ///
    /// # Errors
    /// As [`Lane::ask`].
    pub async fn ask_ours(&mut self, request: &Request, signed: &Signed<'_>) -> Result<View, Error> {
        Ok(View::of(self.ours.ask(request, signed).await)?)
    }
}

impl Client {
    async fn ask(&mut self, request: &Request, signed: &Signed<'_>) -> Result<Reply, WireError> {
        if request.http == Http::V2 {
            let body: &[u8] = match &request.body {
                Body::None => &[],
                Body::Length(body) | Body::Chunked(body) => body,
            };
            return self.http2.exchange(&request.http2(signed), body).await;
        }
        self.http1.exchange(&request.http1(signed), request.method == b"HEAD").await
    }
}

/// An address of loopback for each world: Envoy's is also the workload's, as policies know it.
fn address(side: u8, index: usize, port: u16) -> SocketAddr {
    let [low, high, ..] = (index + 1).to_le_bytes();
    SocketAddr::from(([127, side, high, low], port))
}

fn name(index: usize) -> String {
    format!("w{index}")
}

fn inline<'a>(signed: &'a Signed<'_>) -> impl Fn(&str) -> Vec<(&'static str, Value)> + use<'a> {
    |issuer| vec![("jwks", signed.ring().jwks(issuer).into())]
}

fn envoy_side(
    worlds: &[World],
    places: &[Place],
    upstream: SocketAddr,
    signed: &Signed<'_>,
) -> (Manifests, Vec<EnvoyListener>) {
    let (mut manifests, mut listeners) = (Manifests::default(), Vec::new());
    for (index, (world, place)) in worlds.iter().zip(places).enumerate() {
        let name = name(index);
        world.manifests(&name, inline(signed)).iter().for_each(|object| manifests.add(object));
        let labels = World::labels(&name);
        let labels = labels.as_object().into_iter().flatten();
        let labels: BTreeMap<String, String> =
            labels.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect();
        let mut listener = EnvoyListener::new(&name, &name, place.envoy, upstream);
        (listener.labels, listener.workload_port) = (labels, PORT);
        listener.normalization = world.normalization;
        listeners.push(listener);
    }
    (manifests, listeners)
}

/// Settings (JSON is YAML) and manifests.
fn our_side(
    worlds: &[World],
    chosen: &[usize],
    places: &[Place],
    upstream: SocketAddr,
    signed: &Signed<'_>,
) -> (String, String) {
    let (mut listeners, mut workloads, mut manifests) = (Vec::new(), Vec::new(), Vec::new());
    let mut mode = Normalization::Base;
    for index in chosen {
        let (world, place, name) = (&worlds[*index], places[*index], name(*index));
        mode = world.normalization;
        let to = format!("{name}/fhir");
        listeners.push(json!({
            "name": name, "address": place.ours, "to": to, "port": PORT, "upstream": upstream,
        }));
        workloads.push(json!({
            "name": to, "labels": World::labels(&name), "ip": place.envoy.ip(), "enrolled": true,
            "strictTarget": world.strict,
        }));
        manifests.extend(world.manifests(&name, inline(signed)).iter().map(Value::to_string));
    }
    let settings = json!({
        "listeners": listeners,
        "mesh": {"manifests": ["m"], "pathNormalization": mode.name(), "workloads": workloads},
        "observe": {"accessLog": {"enabled": false}},
    });
    // The harness adds the admin address in block style, so the rest is block style too at its top.
    let fields = settings.as_object().into_iter().flatten();
    let settings = fields.map(|(name, value)| format!("{name}: {value}\n")).collect();
    (settings, manifests.join("\n---\n"))
}
