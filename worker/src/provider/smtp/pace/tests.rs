use super::*;

const FIGURES: Figures =
    Figures { recipients_per_minute: 60, connections_per_minute: 60, connections: 2 };

fn pace() -> (Pace, Clock) {
    let clock = Clock::manual(1_700_000_000_000);
    let pacer = Arc::new(Pacer::alone(clock.clone()));
    (Pace::new("a", FIGURES, &pacer, &clock), clock)
}

async fn wait(pace: &Pace, who: u64) -> Option<u64> {
    match pace.enter(who).await {
        Ok(_) => None,
        Err(PutOff::Paced(wait)) => Some(wait.as_secs()),
        Err(other) => panic!("{other:?}"),
    }
}

/// As many as may join the crowd at once.
async fn crowd(pace: &Pace) -> Vec<Place<'_>> {
    let mut places = Vec::new();
    while let Ok(place) = pace.enter(1_000_000 + places.len() as u64).await {
        places.push(place);
    }
    places
}

#[tokio::test]
async fn those_put_off_come_back_at_the_pace() {
    let (pace, clock) = pace();
    let mut places = crowd(&pace).await;
    assert_eq!(places.len(), 4);
    // One had found the crowd full already.
    for (who, turn) in [(1, 5), (2, 6), (3, 7)] {
        assert_eq!(wait(&pace, who).await, Some(turn));
    }
    clock.advance(1_000);
    assert_eq!(wait(&pace, 2).await, Some(5), "who comes too early has the same turn");
    for who in 4..10_000 {
        assert_eq!(wait(&pace, who).await, Some(who + 3), "however long the line is");
    }
    clock.advance(4_000);
    assert_eq!(wait(&pace, 1).await, None, "who was promised finds room");
    assert_eq!(wait(&pace, 10_000).await, Some(9_999));
    places.clear();
    assert_eq!(wait(&pace, 3).await, None, "nobody waits at a host that is free");
}

#[tokio::test]
async fn who_finds_no_room_at_a_slow_host_comes_back_as_it_answers() {
    let (pace, clock) = pace();
    let mut places = crowd(&pace).await;
    for who in 0..100 {
        wait(&pace, who).await;
    }
    // One is served in 4 s, four times as long as the pace wants.
    let mut again = Vec::new();
    for second in 0..100_u64 {
        clock.advance(1_000);
        if second.is_multiple_of(4) {
            places.pop();
            pace.served().one(clock.now(), SLOWEST * pace.interval);
        }
        match pace.enter(second.saturating_sub(5)).await {
            Ok(place) => places.push(place),
            Err(PutOff::Paced(wait)) => again.push(clock.now() + wait.as_millis() as Millis),
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(places.len() <= 8, "{}", places.len());
    assert!((60..80).contains(&again.len()), "{}", again.len());
    let last = &again[again.len() - 20..];
    let apart = (last[19] - last[0]) / 19;
    assert!((3_000..=5_000).contains(&apart), "{apart}");
}

#[tokio::test]
async fn the_crowd_grows_with_what_is_served() {
    let (pace, clock) = pace();
    assert_eq!(crowd(&pace).await.len(), 4);
    for _ in 0..6 {
        pace.recipient().await;
    }
    assert_eq!(crowd(&pace).await.len(), 10);
    clock.advance(AWAY);
    assert_eq!(crowd(&pace).await.len(), 10);
    pace.recipient().await;
    assert_eq!(crowd(&pace).await.len(), 10);
    clock.advance(AWAY);
    assert_eq!(crowd(&pace).await.len(), 5);
    clock.advance(2 * AWAY);
    assert_eq!(crowd(&pace).await.len(), 4);
}

#[tokio::test]
async fn anybody_is_served_in_time() {
    let (pace, clock) = pace();
    pace.served().now = 100;
    pace.served().since = clock.now();
    assert_eq!(pace.room(clock.now()).0, 10, "ten seconds' turns");
    pace.part.store(1, Ordering::Relaxed);
    assert_eq!(pace.room(clock.now()).0, 5, "shared with another process");
}

#[tokio::test]
async fn a_refusal_is_answered_by_longer_and_longer_rests() {
    let (pace, clock) = pace();
    let rest = |ms| Err(PutOff::LeftAlone(Some(Duration::from_millis(ms))));
    pace.refused();
    // Those who were under way say nothing new, neither way.
    pace.refused();
    pace.answered();
    assert_eq!(pace.not_left_alone(), rest(5_000));
    clock.advance(5_000);
    assert_eq!(pace.not_left_alone(), Ok(()));
    let first = pace.enter(1).await.ok().unwrap();
    assert!(wait(&pace, 2).await.is_some(), "one at a time");
    pace.refused();
    drop(first);
    assert_eq!(pace.not_left_alone(), rest(15_000));
    for _ in 0..3 {
        clock.advance(60_000);
        assert_eq!(pace.not_left_alone(), Ok(()));
        pace.refused();
        assert_eq!(pace.not_left_alone(), Err(PutOff::LeftAlone(None)));
    }
    clock.advance(60_000);
    pace.answered();
    pace.refused();
    assert_eq!(pace.not_left_alone(), rest(5_000));
}
