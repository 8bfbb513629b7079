//! What dead pods and dead proxies leave.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::{Collected, Kernel};
use crate::{LoadError, wire};

/// No proxy takes longer to accept a connection; its application has given up.
const STALE: Duration = Duration::from_secs(300);

impl Kernel {
    /// Removes the pins of pods whose network namespace is gone, and original destinations that no
    /// proxy has taken for five minutes. A namespace that only the proxy's sockets hold is not gone: let
    /// the proxy release the pod, or un-enrol it.
    pub fn collect(&mut self) -> Result<Vec<Collected>, LoadError> {
        let mut collected = Vec::new();
        for (slot, pod) in self.maps.pods().map_err(LoadError::io("read the map PODS"))? {
            let alive = self.netns_is_alive(slot, &pod).map_err(LoadError::io("read the pins"))?;
            if !alive {
                self.remove(slot, &pod, None)?;
                self.places.remove(&slot);
                collected.push(Collected { slot, name: wire::name_of(&pod) });
            }
        }
        let oldest = now().saturating_sub(STALE);
        let is_stale = |origin: &abi::Origin| Duration::from_nanos(origin.at) < oldest;
        let removed = self.maps.remove_origins(is_stale).map_err(LoadError::io("read the map ORIGINS"))?;
        if removed > 0 {
            tracing::info!(removed, "removed original destinations that no proxy took");
        }
        Ok(collected)
    }

    /// Folders of links without an entry in `PODS` were left by nothing that this code does; they would
    /// hold programs that nobody knows of.
    pub(super) fn remove_orphans(&self) -> Result<(), LoadError> {
        for slot in self.pins.slots().map_err(LoadError::io("read the pins"))? {
            if self.maps.pod(slot).map_err(LoadError::io("read the map PODS"))?.is_some() {
                continue;
            }
            for name in self.pins.link_names(slot).map_err(LoadError::io("read the pins"))? {
                self.pins
                    .remove_link(slot, &name)
                    .map_err(LoadError::io(format!("detach program {name}")))?;
            }
            self.pins.remove_folder(slot).map_err(LoadError::io("remove the folder of the pins"))?;
        }
        Ok(())
    }
}

/// Since the node started, as `bpf_ktime_get_boot_ns` has it.
fn now() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}
