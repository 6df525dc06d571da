//! Networks from which nobody gets in, each with the end of its block: that comes at its very moment, whoever
//! sweeps or does not.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use ipnet::IpNet;
use listmill_shared::domain::clock::Millis;
use listmill_shared::store::StoreError;
use listmill_shared::store::ip_blocks::IpBlock;

use crate::Api;
use crate::client_ip::parse_network;

/// The blocked networks, parsed, with the version that they had.
#[derive(Default)]
pub struct Blocks(RwLock<Option<(i64, Arc<[Block]>)>>);

struct Block {
    network: IpNet,
    /// `Millis::MAX` = when it is lifted.
    ends_at: Millis,
}

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
                let blocks = api.app.store.ip_blocks().await?;
                let networks: Arc<[Block]> = blocks.iter().filter_map(parse_block).collect();
                let mut kept = self.0.write().unwrap_or_else(PoisonError::into_inner);
                *kept = Some((version, networks.clone()));
                networks
            }
        };
        if networks.is_empty() {
            return Ok(false);
        }
        let now = api.app.now();
        Ok(networks.iter().any(|block| block.ends_at > now && block.network.contains(&caller)))
    }
}

fn parse_block(block: &IpBlock) -> Option<Block> {
    let Some(network) = parse_network(&block.cidr) else {
        tracing::error!(network = block.cidr, "blocked network does not parse; it blocks nobody");
        return None;
    };
    Some(Block { network, ends_at: block.ends_at.unwrap_or(Millis::MAX) })
}
