//! Networks from which nobody gets in.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use ipnet::IpNet;
use listmill_shared::store::StoreError;

use crate::Api;
use crate::client_ip::parse_network;

/// The blocked networks, parsed, with the version that they had.
#[derive(Default)]
pub struct Blocks(RwLock<Option<(i64, Arc<[IpNet]>)>>);

impl Blocks {
    /// Is this caller inside a blocked network? `version`: of the networks, as read just now.
    pub async fn hold(&self, api: &Api, caller: IpAddr, version: i64) -> Result<bool, StoreError> {
        let known = {
            let kept = self.0.read().unwrap_or_else(PoisonError::into_inner);
            kept.as_ref().filter(|(at, _)| *at == version).map(|(_, networks)| networks.clone())
        };
        let networks = match known {
            Some(networks) => networks,
            None => {
                // At least as new as `version`; if newer, the next request sees that and reloads.
                let texts = api.app.store.ip_blocks().await?;
                let networks: Arc<[IpNet]> = texts.iter().filter_map(|t| parse_block(t)).collect();
                let mut kept = self.0.write().unwrap_or_else(PoisonError::into_inner);
                *kept = Some((version, networks.clone()));
                networks
            }
        };
        Ok(networks.iter().any(|network| network.contains(&caller)))
    }
}

fn parse_block(text: &str) -> Option<IpNet> {
    let network = parse_network(text);
    if network.is_none() {
        tracing::error!(network = text, "blocked network does not parse; it blocks nobody");
    }
    network
}
