//! RequestAuthentications and PeerAuthentications: which tokens and connections a workload takes.

use super::{Member, PeerAuthentication, RequestAuthentication, Selection, World, authorize::selects};

/// The token that a request brings in `Authorization: Bearer`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Presented<'a> {
    /// `iss`
    pub issuer: &'a str,
    /// `aud`
    pub audiences: &'a [&'a str],
    /// Whether its times hold.
    pub current: bool,
    /// Whether its signature holds.
    pub signed: bool,
}

/// What comes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credentials {
    /// It goes on without an identity.
    Nobody,
    /// It goes on with the token's.
    Somebody,
    /// 401
    Refused,
    /// 403: the audience is another's.
    WrongAudience,
}

/// What PeerAuthentication says of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// `DISABLE`
    Disable,
    /// `PERMISSIVE`
    Permissive,
    /// `STRICT`
    Strict,
}

fn holding<'a>(world: &'a World, member: &Member) -> Vec<&'a RequestAuthentication> {
    let selected = |one: &&RequestAuthentication| selects(world, one.namespace, &one.selection, member);
    world.requests.iter().filter(selected).collect()
}

/// The issuers that a workload takes tokens of, sorted, each as often as it is named.
#[must_use]
pub fn issuers(world: &World, member: &Member) -> Vec<&'static str> {
    let mut all: Vec<_> =
        holding(world, member).iter().flat_map(|one| &one.rules).map(|rule| rule.issuer).collect();
    all.sort_unstable();
    all
}

/// "If the token is missing, the request is accepted without an authenticated identity; a request
/// with an invalid token is rejected." With rules of several issuers the token has to satisfy one.
/// Checked are the issuer, the times, the audience and the signature, in this order, and a wrong
/// audience is 403 (Envoy).
#[must_use]
pub fn authenticate(world: &World, member: &Member, presented: Option<Presented<'_>>) -> Credentials {
    let rules: Vec<_> = holding(world, member).into_iter().flat_map(|one| &one.rules).collect();
    let Some(token) = presented.filter(|_| !rules.is_empty()) else { return Credentials::Nobody };
    let of_issuer: Vec<_> = rules.iter().filter(|rule| rule.issuer == token.issuer).collect();
    if of_issuer.is_empty() || !token.current {
        return Credentials::Refused;
    }
    let meant = of_issuer.iter().any(|rule| {
        rule.audiences.is_empty() || rule.audiences.iter().any(|one| token.audiences.contains(one))
    });
    match (meant, token.signed) {
        (false, _) => Credentials::WrongAudience,
        (true, false) => Credentials::Refused,
        (true, true) => Credentials::Somebody,
    }
}

/// "Workload-specific, then namespace-wide, then mesh-wide"; UNSET inherits; the oldest of a level
/// holds, and of one age the first by name. With a selector in the root namespace it is ignored.
#[must_use]
pub fn mode(world: &World, member: &Member, port: u16) -> Mode {
    let level = |namespace: &str, selecting: bool| {
        let of_level = world.peers.iter().filter(|one| {
            one.namespace == namespace && one.labels.is_empty() != selecting && {
                let labels = Selection::Labels(one.labels.clone());
                selects(world, one.namespace, &labels, member)
            }
        });
        of_level.min_by_key(|one| (one.created.unwrap_or(u8::MAX), one.name.clone()))
    };
    let in_root = member.namespace == world.root;
    let own: Option<&PeerAuthentication> = if in_root { None } else { level(member.namespace, true) };
    let namespace = if in_root { None } else { level(member.namespace, false) };
    let mesh = level(world.root, false);
    let inherited = [own, namespace, mesh].into_iter().flatten().find_map(|one| one.mode);
    let of_port = own.and_then(|own| own.ports.get(&port).copied().flatten());
    match of_port.or(inherited) {
        Some("DISABLE") => Mode::Disable,
        Some("STRICT") => Mode::Strict,
        _ => Mode::Permissive,
    }
}
