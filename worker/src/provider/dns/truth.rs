//! Does the resolver tell living domains from dead ones?
//!
//! Asked at the same time: names that are surely there, and one that surely is not. One that knows
//! no name of the world (cut off from it, or only there for an office), one that makes answers up (a
//! captive portal; a provider that sells misspelt names) and one that is dead are told apart.

use std::time::Duration;

use futures::future::join_all;

use super::{Dns, Failed, Route};

/// Domains of big mail providers, which the world's resolvers know.
pub const KNOWN: &[&str] = &["gmail.com", "outlook.com", "yahoo.com"];
/// How long one look-up may take.
const LOOK_UP: Duration = Duration::from_secs(3);

/// Why a resolver is not to be believed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Doubt {
    /// It says nothing.
    #[error("it gives no usable answer: {0}")]
    Mute(Failed),
    /// A living domain is dead to it.
    #[error("it says that {0} takes no mail: this resolver cannot resolve public domains")]
    Ignorant(String),
    /// A dead name lives.
    #[error(
        "it makes up answers for names that do not exist, so misspelt domains would look as if \
         they were there"
    )]
    Inventive,
}

impl Dns {
    /// Holds its answers about `known` domains, and about `nowhere`, which nobody has registered,
    /// against the truth. Of several known ones, one that is answered for is enough.
    pub async fn tells_truth(&self, known: &[String], nowhere: &str) -> Result<(), Doubt> {
        let (there, dead, address) = tokio::join!(
            join_all(known.iter().map(|name| self.look_up(name))),
            self.look_up(nowhere),
            async { tokio::time::timeout(LOOK_UP, self.addresses(nowhere)).await },
        );
        let denied = |route: &Route| matches!(route, Route::NoDomain | Route::NullMx);
        if let Some((name, _)) = known.iter().zip(&there).find(|(_, route)| denied(route)) {
            return Err(Doubt::Ignorant(name.clone()));
        }
        let invented = matches!(dead, Route::Hosts(_) | Route::NullMx)
            || matches!(address, Ok(Ok(ref found)) if !found.is_empty());
        if invented {
            return Err(Doubt::Inventive);
        }
        let answered = there.iter().any(|route| !matches!(route, Route::Failed(_)));
        let failed = there.into_iter().filter(|_| !answered).chain([dead]);
        match failed.into_iter().find_map(|route| match route {
            Route::Failed(failed) => Some(failed),
            _ => None,
        }) {
            Some(failed) => Err(Doubt::Mute(failed)),
            None => Ok(()),
        }
    }

    async fn look_up(&self, name: &str) -> Route {
        let late = |_| Route::Failed(Failed::timeout(name));
        tokio::time::timeout(LOOK_UP, self.route(name)).await.unwrap_or_else(late)
    }
}
