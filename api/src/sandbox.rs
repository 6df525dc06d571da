//! Test keys: what they may see and touch.
//!
//! A test key lives in the sandbox. Tasks and keys that are live are to it as another account's are: not there
//! (404). Of the account it may read, by its scopes, credits, ledger, usage, requests and audit log. A live key
//! sees both. As neither a key nor a task ever changes sides, what is judged here stays true.
//!
//! The judgement stands before every route with the id of a task or a key in its path ([`admit`]), so that a new
//! route of theirs is closed to live things until somebody thinks of it.

use axum::http::Uri;
use listmill_shared::domain::id::{KeyId, TaskId};
use listmill_shared::domain::key::Environment;
use listmill_shared::store::keys::Filter;

use crate::Api;
use crate::gate::Caller;
use crate::problem::Problem;

/// Routes that begin with one of these name something by its id: a task or a key.
const TASKS: [&str; 2] = ["/v1/tasks/{id}", "/api/get-results/{task_id}"];
const KEYS: &str = "/v1/keys/{id}";

/// Fails where a test key asks for something live; `route` as it stands in the router.
pub async fn admit(api: &Api, caller: &Caller, route: &str, uri: &Uri) -> Result<(), Problem> {
    if !caller.is_test() {
        return Ok(());
    }
    if TASKS.iter().any(|task| route.starts_with(task)) {
        let id: Option<TaskId> = named(uri).parse().ok();
        let task = match id {
            Some(id) => api.app.find_task(id).await?,
            None => None,
        };
        let sees = task.is_some_and(|task| task.account == caller.account && task.sandbox);
        return if sees { Ok(()) } else { Err(Problem::task_not_found()) };
    }
    if route.starts_with(KEYS) {
        let id: Option<KeyId> = named(uri).parse().ok();
        let key = match id {
            Some(id) => api.app.store.any_key(id, Some(caller.account)).await?,
            None => None,
        };
        let sees = key.is_some_and(|key| key.is_test());
        return if sees { Ok(()) } else { Err(Problem::key_not_found()) };
    }
    Ok(())
}

/// The third part of a path, as the client wrote it. An id needs no escapes, so one that has some is nobody's.
fn named(uri: &Uri) -> &str {
    uri.path().split('/').nth(3).unwrap_or_default()
}

impl Caller {
    /// Does a test key call?
    pub fn is_test(&self) -> bool {
        self.door.is_test()
    }

    /// Has it a limit of credits of its own that it can use up?
    pub fn key_limited(&self) -> bool {
        self.door.credit_limit.is_some() && !self.is_test()
    }

    /// Which tasks this caller sees of those that it asks for: sandbox tasks, the others, or both (`None`).
    /// `Err`: none at all.
    pub fn sandbox_of(&self, asked: Option<Environment>) -> Result<Option<bool>, Nothing> {
        match (self.is_test(), asked) {
            (false, None) => Ok(None),
            (true, None) | (_, Some(Environment::Test)) => Ok(Some(true)),
            (false, Some(Environment::Live)) => Ok(Some(false)),
            (true, Some(Environment::Live)) => Err(Nothing),
        }
    }

    /// Leaves of the keys that a filter names those that this caller sees. `Err`: none.
    pub fn narrow(&self, filter: Filter) -> Result<Filter, Nothing> {
        let environment = self.sandbox_of(filter.environment)?.map(|sandbox| match sandbox {
            true => Environment::Test,
            false => Environment::Live,
        });
        Ok(Filter { environment, ..filter })
    }

    /// Where answers to its `Idempotency-Key`s are kept: test keys and live ones never get each other's.
    pub fn kept_at(&self, route: String) -> String {
        kept_at(route, self.is_test())
    }
}

/// Likewise, of a request of the sandbox or another.
pub fn kept_at(route: String, sandbox: bool) -> String {
    if sandbox { format!("{route} test") } else { route }
}

/// A test key has asked for live things alone: it sees none.
#[derive(Debug, PartialEq, Eq)]
pub struct Nothing;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use listmill_shared::domain::audit::Origin;
    use listmill_shared::domain::id::{AccountId, Ids};
    use listmill_shared::domain::key::Key;

    use super::*;

    fn caller(environment: Environment) -> Caller {
        let ids = Ids::seeded(1);
        let (id, account) = (KeyId::new(&ids, 1), AccountId::new(&ids, 1));
        let key = Key::new(id, account, String::from("VECabcde"), String::from("a key"), 1);
        let door = Arc::new(Key { environment, ..key });
        Caller { account, key: id, door, origin: Arc::new(Origin::operator()) }
    }

    #[test]
    fn a_test_key_sees_the_sandbox_alone() {
        use Environment::{Live, Test};
        let (live, test) = (caller(Live), caller(Test));
        assert_eq!(live.sandbox_of(None), Ok(None));
        assert_eq!(live.sandbox_of(Some(Test)), Ok(Some(true)));
        assert_eq!(live.sandbox_of(Some(Live)), Ok(Some(false)));
        assert_eq!(test.sandbox_of(None), Ok(Some(true)));
        assert_eq!(test.sandbox_of(Some(Test)), Ok(Some(true)));
        assert_eq!(test.sandbox_of(Some(Live)), Err(Nothing));
        assert_eq!(test.narrow(Filter::default()).unwrap().environment, Some(Test));
        assert_eq!(live.narrow(Filter::default()).unwrap().environment, None);
        assert_ne!(live.kept_at(String::from("POST /x")), test.kept_at(String::from("POST /x")));
    }

    #[test]
    fn the_id_is_the_third_part_of_the_path() {
        let of = |path: &str| named(&path.parse().unwrap()).to_owned();
        assert_eq!(of("/v1/tasks/task_1/results/7?x=1"), "task_1");
        assert_eq!(of("/api/get-results/task_1"), "task_1");
        assert_eq!(of("/v1/keys/key%5F1"), "key%5F1");
        assert_eq!(of("/v1/tasks"), "");
    }
}
