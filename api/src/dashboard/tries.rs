//! How often somebody may try: counted over all processes, in sliding windows.

use std::net::IpAddr;

use listmill_shared::domain::network::home;
use listmill_shared::throttle::windows::Window;
use sha2::{Digest, Sha256};

use crate::Api;

/// Milliseconds.
pub const MINUTE: u32 = 60_000;

/// So many in so long.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// How many.
    pub most: u32,
    /// In how many milliseconds.
    pub in_ms: u32,
}

/// Mails to one address, whoever asks for them.
const MAILS: Limit = Limit { most: 5, in_ms: 60 * MINUTE };
/// Invitations that are sent for one account: they go to whomever its owners name.
const INVITES: Limit = Limit { most: 30, in_ms: 60 * MINUTE };

/// How a caller's network is called; nobody knows that of who comes from nowhere.
pub fn network(ip: Option<IpAddr>) -> String {
    ip.map_or_else(String::new, |ip| home(ip).to_string())
}

/// Counts a try of `owner`; the seconds to wait when it is one too many.
pub async fn take(api: &Api, owner: &str, limit: Limit) -> Option<u64> {
    let hash: [u8; 32] = Sha256::digest(owner).into();
    let owner = hash[..16].iter().fold(0, |all, byte| all << 8 | u128::from(*byte));
    let window = Window { name: "login", limit: limit.most, window_ms: limit.in_ms, cost: 1 };
    let standings = api.windows.take(owner, &[window], api.app.now()).await;
    let full = standings.first().filter(|standing| standing.exceeded)?;
    Some(u64::try_from(full.retry_ms / 1000).unwrap_or(0) + 1)
}

/// The same for what a network asks for without logging in.
pub async fn ask(api: &Api, what: &str, ip: Option<IpAddr>, limit: Limit) -> Option<u64> {
    if !api.app.settings.rate_limits {
        return None;
    }
    take(api, &format!("{what} from {}", network(ip)), limit).await
}

/// May one more mail go to this address? Whatever the setting `rate_limits` says, as it is others who get them.
pub async fn mail(api: &Api, to: &str) -> bool {
    take(api, &format!("mail to {}", to.trim().to_lowercase()), MAILS).await.is_none()
}

/// May one more invitation be sent for this account?
pub async fn invite(api: &Api, account: impl std::fmt::Display) -> bool {
    take(api, &format!("invitations of {account}"), INVITES).await.is_none()
}
