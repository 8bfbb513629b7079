//! What lies between nodes.

use super::{Error, Namespace, Node, ROUTER, interface_number};

/// A node's link-local address towards the fabric; why, [`ROUTER`] says.
const NODE: &str = "fe80::2";

/// A router between nodes. Whatever goes from one to another passes through its network namespace,
/// and nothing else does: an eye there sees the wire.
pub struct Fabric {
    namespace: Namespace,
}

impl Fabric {
    /// Joins nodes of different numbers.
    ///
    /// # Errors
    /// When two have the same number, or a namespace or an interface cannot be made.
    pub fn new(nodes: &[&Node]) -> Result<Self, Error> {
        let first = nodes.first().map(|node| node.name()).unwrap_or_default();
        let namespace = Namespace::new(&format!("{first}.fabric"))?;
        namespace.ip("link set lo up\n")?;
        for name in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            namespace.sysctl(name, "1")?;
        }
        let fabric = Self { namespace };
        for node in nodes {
            fabric.join(node)?;
        }
        Ok(fabric)
    }

    /// Its network namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    fn join(&self, node: &Node) -> Result<(), Error> {
        let number = node.inner.number;
        let pods = 77 + number;
        self.namespace.ip(&format!(
            "link add n{number} index {index} type veth peer name fabric netns {node}
addr add 10.100.{number}.1/30 dev n{number}
addr add fd77:1:{number:x}::1/64 dev n{number} nodad
addr add {ROUTER}/64 dev n{number} nodad
link set n{number} up
",
            index = interface_number(),
            node = node.namespace().name(),
        ))?;
        node.namespace().ip(&format!(
            "addr add 10.100.{number}.2/30 dev fabric
addr add fd77:1:{number:x}::2/64 dev fabric nodad
addr add {NODE}/64 dev fabric nodad
link set fabric up
route add default via 10.100.{number}.1
route add default via fd77:1:{number:x}::1
"
        ))?;
        self.namespace.ip(&format!(
            "route add 10.{pods}.0.0/16 via 10.100.{number}.2
route add fd77:0:{number:x}::/48 via fd77:1:{number:x}::2
"
        ))?;
        Ok(())
    }
}
