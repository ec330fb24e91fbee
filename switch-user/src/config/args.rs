//! The command line as a source of configuration.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{BridgeConfig, Config, ConfigError};
use crate::cli::daemon_args::DaemonArgs;

impl Config {
    /// Puts the flags together; what contradicts itself is refused by name.
    pub fn from_args(args: &DaemonArgs) -> Result<Config, ConfigError> {
        let mut bridges = BTreeMap::new();
        for bridge in &args.bridges {
            let config = BridgeConfig {
                ports: BTreeMap::new(),
                local: bridge.local.clone(),
                mac_age: Duration::from_secs(args.mac_age_s),
                mac_limit: args.mac_limit,
                forward_bpdu: args.forward_bpdu,
            };
            if bridges.insert(bridge.name.clone(), config).is_some() {
                return Err(ConfigError::BridgeTwice(bridge.name.clone()));
            }
        }
        let first = args.bridges.first().ok_or(ConfigError::NoBridge)?.name.clone();
        let mut owner: BTreeMap<&str, &str> = BTreeMap::new();
        for port in &args.ports {
            let name = port.bridge.as_ref().unwrap_or(&first);
            if bridges.contains_key(&port.name) {
                return Err(ConfigError::IsBridge(port.name.clone()));
            }
            match owner.insert(&port.name, name) {
                Some(other) if other == name => {
                    return Err(ConfigError::Twice { port: port.name.clone(), bridge: name.clone() });
                }
                Some(other) => {
                    return Err(ConfigError::TwoBridges {
                        port: port.name.clone(),
                        first: other.to_owned(),
                        second: name.clone(),
                    });
                }
                None => {}
            }
            let Some(bridge) = bridges.get_mut(name) else {
                return Err(ConfigError::NoSuchBridge { port: port.name.clone(), bridge: name.clone() });
            };
            bridge.ports.insert(port.name.clone(), port.config.clone());
        }
        Ok(Config {
            bridges,
            upcall_rate: args.upcall_rate,
            upcall_burst: args.upcall_burst,
            flow_limit: args.flow_limit,
            max_idle: Duration::from_millis(args.max_idle_ms),
        })
    }
}
