//! The lever against overload: set, replaced, lifted, and ended by itself.

use listmill_shared::domain::audit::Origin;
use listmill_shared::domain::factor::{Factor, Tightened};

use super::on_both_engines;
use super::world::{START, World};

on_both_engines!(a_lever_holds_until_it_ends);

async fn a_lever_holds_until_it_ends(world: World) {
    let (store, by) = (&world.app.store, Origin::operator());
    let gate = async || world.app.find_key(None).await.expect("a look-up").limits;
    let never = store.limit_lever().await.expect("the row is there");
    assert_eq!((never.set_at, never.note), (0, None));
    assert_eq!(store.limit_factor(START).await.expect("factor"), Factor::ONE);
    assert_eq!(gate().await.at(START), Factor::ONE);

    let tenth = Tightened { factor: Factor::from_thousandths(100), ends_at: START + 60_000 };
    store.set_limit_factor(&tenth, Some("a storm"), &by, START).await.expect("set");
    assert_eq!(gate().await, tenth, "the gate sees it at once");
    for (at, factor) in [(START + 59_999, tenth.factor), (START + 60_000, Factor::ONE)] {
        assert_eq!(store.limit_factor(at).await.expect("factor"), factor);
        assert_eq!(gate().await.at(at), factor);
    }
    let lever = store.limit_lever().await.expect("lever");
    assert_eq!((lever.set_at, lever.note.as_deref()), (START, Some("a storm")));

    let half = Tightened { factor: Factor::from_thousandths(500), ends_at: START + 10_000 };
    store.set_limit_factor(&half, None, &by, START + 1).await.expect("replaced");
    assert_eq!(gate().await, half);
    let relaxed = Tightened { factor: Factor::ONE, ends_at: START + 2 };
    store.set_limit_factor(&relaxed, None, &by, START + 2).await.expect("lifted");
    assert_eq!(gate().await.at(START + 2), Factor::ONE);
    // Lifted again: nothing is changed, and nothing is written down.
    let relaxed = Tightened { factor: Factor::ONE, ends_at: START + 3 };
    store.set_limit_factor(&relaxed, Some("again"), &by, START + 3).await.expect("lifted");
    let mut walk = world.app.walk_audit(None);
    let mut actions = Vec::new();
    while let Some(piece) = walk.next().await.expect("rows") {
        let of_limits = piece.rows.into_iter().filter(|row| row.target == "limits");
        actions.extend(of_limits.map(|row| (row.action, row.before, row.after)));
    }
    let words: Vec<&str> = actions.iter().map(|(action, ..)| action.as_str()).collect();
    assert_eq!(words, ["limits.tighten", "limits.tighten", "limits.relax"]);
    assert_eq!(actions[1].1, actions[0].2, "each begins where the one before ended");
    assert!(actions[0].2.as_deref().is_some_and(|after| after.contains("a storm")), "{actions:?}");
}
