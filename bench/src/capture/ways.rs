//! The rows: who calls whom, and what is between them.

/// What leads connections to the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Led {
    /// Nothing: these pods are not in the mesh.
    Not,
    /// Our programs.
    Bpf,
    /// Our programs, with the sockets joined by sk_msg.
    Accelerated,
    /// iptables.
    Redirect,
}

impl Led {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Not, Self::Bpf, Self::Accelerated, Self::Redirect];

    /// The beginning of its pods' names.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Not => "plain",
            Self::Bpf => "bpf",
            Self::Accelerated => "fast",
            Self::Redirect => "nat",
        }
    }
}

/// A client calls a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// From pod to pod, with nothing between.
    Direct,
    /// By the address of the proxy, which has the policy: no capture.
    Explicit,
    /// Raw TCP through the proxy; no policy.
    Tcp(Led),
    /// HTTP with the policy and a token.
    Policy(Led),
}

impl Way {
    /// In the order of the table.
    pub const ALL: [Self; 8] = [
        Self::Direct,
        Self::Tcp(Led::Bpf),
        Self::Tcp(Led::Accelerated),
        Self::Tcp(Led::Redirect),
        Self::Explicit,
        Self::Policy(Led::Bpf),
        Self::Policy(Led::Accelerated),
        Self::Policy(Led::Redirect),
    ];

    /// For tables and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Explicit => "explicit proxy, policy and JWT",
            Self::Tcp(Led::Bpf) => "captured, raw TCP",
            Self::Tcp(Led::Accelerated) => "captured, raw TCP, accelerated",
            Self::Tcp(_) => "iptables, raw TCP",
            Self::Policy(Led::Bpf) => "captured, policy and JWT",
            Self::Policy(Led::Accelerated) => "captured, policy and JWT, accelerated",
            Self::Policy(_) => "iptables, policy and JWT",
        }
    }

    /// What leads it.
    #[must_use]
    pub const fn led(self) -> Led {
        match self {
            Self::Direct | Self::Explicit => Led::Not,
            Self::Tcp(led) | Self::Policy(led) => led,
        }
    }

    /// Whether a policy with a token stands before the server.
    #[must_use]
    pub const fn has_policy(self) -> bool {
        matches!(self, Self::Explicit | Self::Policy(_))
    }
}
