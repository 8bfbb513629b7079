//! The proxy's part: lookups in maps whose file descriptors the agent handed over. Needs no
//! privilege: since kernel 5.19 whoever holds a map may use it, whatever
//! `kernel.unprivileged_bpf_disabled` says. The only system call is `bpf`, with the commands
//! `BPF_OBJ_GET_INFO_BY_FD` (15), `BPF_MAP_LOOKUP_ELEM` (1) and `BPF_MAP_LOOKUP_AND_DELETE_ELEM` (21);
//! [`Counters::from_fd`] reads `/sys/devices/system/cpu/possible` once.

use std::{fs, io, net::SocketAddr, os::fd::OwnedFd};

use abi::{Address, Counter, DnsKey, Origin, OriginKey};

use crate::{
    sys::{Map, map_kind},
    wire,
};

/// `ORIGINS`: where redirected connections wanted to go.
#[derive(Debug)]
pub struct Origins(Map);

impl Origins {
    /// Makes sure that it is the map it should be.
    pub fn from_fd(map: OwnedFd) -> io::Result<Self> {
        let (key, value) = (size_of::<OriginKey>(), size_of::<Origin>());
        Map::new(map, map_kind::HASH, key, value).map(Self)
    }

    /// Where the connection accepted from `peer` in the namespace with this cookie wanted to go; taken
    /// out of the map. None: unknown, the connection must be closed. An error of the kernel's counts as
    /// unknown too.
    pub fn take(&self, netns: u64, peer: SocketAddr) -> Option<Origin> {
        self.try_take(netns, peer).ok().flatten()
    }

    /// The same, with the kernel's error.
    pub(crate) fn try_take(&self, netns: u64, peer: SocketAddr) -> io::Result<Option<Origin>> {
        let key = wire::from_origin_key(&OriginKey { netns, source: Address::from(peer) });
        let mut value: wire::OriginBytes = [0; _];
        let found = self.0.take(&key, &mut value)?.then(|| wire::to_origin(&value));
        Ok(found.filter(|origin| origin.netns == netns))
    }
}

/// `DNS_ORIGINS`: which server a query was meant for.
#[derive(Debug)]
pub struct DnsOrigins(Map);

impl DnsOrigins {
    /// Makes sure that it is the map it should be.
    pub fn from_fd(map: OwnedFd) -> io::Result<Self> {
        let (key, value) = (size_of::<DnsKey>(), size_of::<Address>());
        Map::new(map, map_kind::LRU_HASH, key, value).map(Self)
    }

    /// The server that the query from `peer` was meant for, which came to the pod's DNS socket number
    /// `server` (0 to 3) of the peer's family. None: unknown, the query must be dropped.
    pub fn server(&self, netns: u64, peer: SocketAddr, server: u32) -> Option<SocketAddr> {
        let key = wire::from_dns_key(&DnsKey { netns, source: Address::from(peer), server, pad: 0 });
        let mut value: wire::AddressBytes = [0; _];
        let found = self.0.get(&key, &mut value).unwrap_or(false);
        found.then(|| wire::to_address(&value).socket_addr())
    }
}

/// `COUNTERS`: what the programs have counted.
#[derive(Debug)]
pub struct Counters {
    map: Map,
    cpus: usize,
}

/// More than any machine has; bounds the buffer.
const MAX_CPUS: usize = 1 << 16;

impl Counters {
    /// Makes sure that it is the map it should be.
    pub fn from_fd(map: OwnedFd) -> io::Result<Self> {
        let text = fs::read_to_string("/sys/devices/system/cpu/possible")?;
        let cpus = possible_cpus(&text).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "cannot read how many CPUs are possible")
        })?;
        // The kernel copies the value of every possible CPU, eight bytes each.
        let map = Map::new(map, map_kind::PERCPU_ARRAY, 4, cpus * 8)?;
        Ok(Self { map, cpus })
    }

    /// All counters, summed over the CPUs.
    pub fn read(&self) -> io::Result<Vec<(Counter, u64)>> {
        let mut values = vec![0; self.cpus * 8];
        let mut read = Vec::with_capacity(Counter::ALL.len());
        for counter in Counter::ALL {
            self.map.get(&(*counter as u32).to_ne_bytes(), &mut values)?;
            let (words, _) = values.as_chunks::<8>();
            read.push((
                *counter,
                words.iter().map(|word| u64::from_ne_bytes(*word)).fold(0, u64::wrapping_add),
            ));
        }
        Ok(read)
    }
}

/// The kernel's list of CPUs, such as `0-3,8`: one more than the highest.
fn possible_cpus(text: &str) -> Option<usize> {
    let highest = text.trim().rsplit(['-', ',']).next()?.parse::<usize>().ok()?;
    (highest < MAX_CPUS).then_some(highest + 1)
}

#[cfg(test)]
mod tests {
    use super::possible_cpus;

    #[test]
    fn the_highest_possible_cpu_counts() {
        assert_eq!(possible_cpus("0\n"), Some(1));
        assert_eq!(possible_cpus("0-1\n"), Some(2));
        assert_eq!(possible_cpus("0-3,8-11"), Some(12));
        assert_eq!(possible_cpus("0-99999999"), None);
        assert_eq!(possible_cpus(""), None);
    }
}
