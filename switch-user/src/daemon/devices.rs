//! What the daemon changed on devices, and which it made: kept in the run directory, so that a daemon that comes
//! after one that was killed can put them back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use switch_netdev::Prepared;

use super::instance::Instance;

/// The file's name.
pub const FILE: &str = "devices.json";

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Devices {
    /// Ports, and what was changed on them.
    pub prepared: Vec<Prepared>,
    /// Hidden ends of internal ports, by bridge.
    pub internal: BTreeMap<String, String>,
}

impl Devices {
    /// What an earlier daemon noted, if it was not able to clean up itself.
    pub fn load(instance: &Instance) -> Option<Devices> {
        let text = std::fs::read(instance.path(FILE)).ok()?;
        match serde_json::from_slice(&text) {
            Ok(devices) => Some(devices),
            Err(error) => {
                tracing::warn!(%error, "{FILE} is not understood: devices are left as they are");
                None
            }
        }
    }

    /// Notes it. A failure is logged: the switch works without.
    pub fn save(&self, instance: &Instance) {
        let saved = serde_json::to_vec(self).map_err(|e| e.to_string());
        let result = saved.and_then(|json| instance.replace(FILE, &json).map_err(|e| e.to_string()));
        if let Err(error) = result {
            tracing::warn!(error, "noting what is to be restored");
        }
    }
}
