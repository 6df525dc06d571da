//! Credits that verifications take: in order, exactly, and from one limit for all keys that share it.

use futures::future::join_all;
use listmill_shared::domain::audit::Origin;
use listmill_shared::domain::id::{ApiId, KeyId};
use listmill_shared::domain::key::{CreditLimit, Interval, Key, Refill};
use listmill_shared::store::key_edits::Hashed;
use listmill_shared::store::spend::{Spender, Taken, Taking};

use super::world::{START, World};

const DAY: i64 = 86_400_000;

async fn key(world: &World, limit: Option<CreditLimit>) -> KeyId {
    let app = &world.app;
    let id = KeyId::new(&app.ids, START);
    let new = Key::new(id, world.account, String::from("prod_abcd"), String::new(), START);
    let key = Key { api: Some(ApiId::new(&app.ids, START)), credit_limit: limit, ..new };
    let hash = app.ids.bytes();
    app.store
        .create_key(&key, Hashed { hash: &hash, pepper: "p" }, &Origin::operator())
        .await
        .expect("a key");
    id
}

fn limit(left: i64) -> Option<CreditLimit> {
    Some(CreditLimit { limit: left, used: 0, refill: None })
}

async fn left(world: &World, id: KeyId) -> Option<i64> {
    let key = world.app.store.key(id, None).await.expect("read").expect("there");
    key.credit_limit.map(|limit| limit.limit - limit.used)
}

/// Some fit and some do not, whatever stands between them.
async fn in_order(world: World) {
    let (one, other) = (key(&world, limit(10)).await, key(&world, limit(3)).await);
    let free = key(&world, None).await;
    let take = |key, credits| Taking { key, credits, now: START };
    let takings = [
        take(one, 6),
        take(other, 2),
        take(one, 5),
        take(free, 9),
        take(other, 2),
        take(one, 4),
        take(one, 0),
    ];
    let taken = world.app.store.spend(&takings).await.expect("taken");
    let told = |granted, left| Taken { granted, left };
    let want = [
        told(true, Some(4)),
        told(true, Some(1)),
        told(false, Some(4)),
        told(true, None),
        told(false, Some(1)),
        told(true, Some(0)),
        told(true, Some(0)),
    ];
    assert_eq!(taken, want);
    assert_eq!((left(&world, one).await, left(&world, other).await), (Some(0), Some(1)));
    assert_eq!(left(&world, free).await, None);
}

/// A refill that is due is made by whoever takes.
async fn refilled(world: World) {
    let refill = Refill { interval: Interval::Daily, amount: 5, day: 1, at: START + DAY };
    let one = key(&world, Some(CreditLimit { limit: 5, used: 5, refill: Some(refill) })).await;
    let take = |now| Taking { key: one, credits: 4, now };
    let spend = async |now| world.app.store.spend(&[take(now)]).await.expect("taken")[0];
    assert_eq!(spend(START + DAY - 1).await, Taken { granted: false, left: Some(0) });
    assert_eq!(spend(START + DAY).await, Taken { granted: true, left: Some(1) });
    assert_eq!(spend(START + DAY + 1).await, Taken { granted: false, left: Some(1) });
    assert_eq!(left(&world, one).await, Some(1));
}

/// Two processes, each with many callers, on three limits: exactly what was there is granted.
async fn by_many_at_once(world: World) {
    let keys =
        [key(&world, limit(50)).await, key(&world, limit(100)).await, key(&world, limit(7)).await];
    let spenders = [Spender::new(&world.app.store), Spender::new(&world.app.store)];
    let takings = (0..600).map(|n: usize| {
        let (spender, key) = (&spenders[n % 2], keys[n / 2 % 3]);
        async move {
            let taken =
                spender.take(Taking { key, credits: 1, now: START }).await.expect("answered");
            (key, taken.granted)
        }
    });
    let taken = join_all(takings).await;
    for (key, want) in keys.into_iter().zip([50, 100, 7]) {
        let granted = taken.iter().filter(|one| **one == (key, true)).count();
        assert_eq!(granted, want);
        assert_eq!(left(&world, key).await, Some(0));
    }
}

super::on_both_engines!(in_order, refilled, by_many_at_once);
