//! Log-ins by an issuer of OpenID Connect, once it has said who somebody is; and one person in several accounts.

use listmill_shared::app::identities::{Entry, Identity, IdentityError};
use listmill_shared::app::people::PersonError;
use listmill_shared::domain::audit::Origin;
use listmill_shared::domain::key::Token;
use listmill_shared::domain::person::Role;
use listmill_shared::store::person_links::LinkKind;

use super::on_both_engines;
use super::people::{OWNER, PASSWORD, code, is_over, log_in, session, with_password};
use super::world::World;

on_both_engines!(
    a_log_in_is_of_use_once_and_for_ten_minutes,
    an_identity_is_one_persons,
    the_issuer_stands_for_no_code,
    who_was_removed_stays_out,
    accounts_are_switched_by_another_token,
);

const ISSUER: &str = "https://login.example";

fn named(subject: &str, email: Option<&str>) -> Identity {
    let email = email.map(str::to_owned);
    Identity { issuer: ISSUER.to_owned(), subject: subject.to_owned(), email }
}

async fn identify(world: &World, identity: &Identity) -> Result<Entry, IdentityError> {
    world.app.identify(identity, "/tasks", None, &Origin::system()).await
}

async fn enter(world: &World, identity: &Identity) -> Token {
    match identify(world, identity).await.expect("let in") {
        Entry::In(token) => token,
        Entry::Code(_) => panic!("no code is needed"),
    }
}

fn token(byte: u8) -> Token {
    Token::from([byte; 32])
}

async fn a_log_in_is_of_use_once_and_for_ten_minutes(world: World) {
    let app = &world.app;
    let (one, late) = (token(1), token(2));
    app.begin_issuer_login(&one, "/credits").await.expect("begun");
    app.begin_issuer_login(&late, "/credits").await.expect("begun");
    assert_eq!(app.take_issuer_login(&token(3)).await.expect("asked"), None);
    let all = futures::future::join_all((0..8).map(|_| app.take_issuer_login(&one))).await;
    let taken: Vec<String> = all.into_iter().filter_map(|one| one.expect("asked")).collect();
    assert_eq!(taken, ["/credits"], "of many at once, one");
    app.clock.advance(600_000);
    assert_eq!(app.take_issuer_login(&late).await.expect("asked"), None);
}

async fn an_identity_is_one_persons(world: World) {
    with_password(&world).await;
    let nobody = identify(&world, &named("x", Some("nobody@example.com"))).await;
    assert!(matches!(nobody, Err(IdentityError::Unknown)));
    let untested = identify(&world, &named("ada", None)).await;
    assert!(matches!(untested, Err(IdentityError::Unverified)));
    let first = enter(&world, &named("ada", Some("Owner@Example.com"))).await;
    let found = session(&world, &first).await;
    assert_eq!(found.email, OWNER);
    assert!(!world.app.is_proven(&found), "the password was not given");
    enter(&world, &named("ada", None)).await;
    let heir = identify(&world, &named("bert", Some(OWNER))).await;
    assert!(matches!(heir, Err(IdentityError::Another)));
    let elsewhere = Identity { issuer: "https://else.example".into(), ..named("ada", None) };
    let elsewhere = identify(&world, &elsewhere).await;
    assert!(matches!(elsewhere, Err(IdentityError::Unverified)), "a name holds at its issuer");
}

async fn the_issuer_stands_for_no_code(world: World) {
    with_password(&world).await;
    let app = &world.app;
    let here = log_in(&world, OWNER, PASSWORD).await.expect("logged in");
    let found = session(&world, &here).await;
    let secret = app.offer_codes(&found).await.expect("a secret");
    let first = code(&secret, app.now());
    app.switch_codes_on(&found, &first, &Origin::system()).await.expect("on");
    app.clock.advance(30_000);
    let ada = named("ada", Some(OWNER));
    let asks = || async {
        match identify(&world, &ada).await.expect("known") {
            Entry::Code(token) => token,
            Entry::In(_) => panic!("in without a code"),
        }
    };
    let pending = asks().await;
    assert!(is_over(&world, &pending).await, "it is no session");
    assert_eq!(app.take_issuer_login(&pending).await.expect("asked"), None, "nor a log-in");
    assert_eq!(app.pending_email(&pending).await.expect("asked").as_deref(), Some(OWNER));
    let give = |token: Token, code: String| async move {
        app.identify_with_code(&token, &code, None, &Origin::system()).await
    };
    let refused = give(pending.clone(), "000000".into()).await;
    assert!(matches!(refused, Err(IdentityError::Person(PersonError::Refused))));
    // Who has not given a code is not tied to the identity either.
    let untied = identify(&world, &named("ada", None)).await;
    assert!(matches!(untied, Err(IdentityError::Unverified)));
    let next = code(&secret, app.now());
    let (token, to) = give(pending.clone(), next.clone()).await.expect("in");
    assert_eq!((session(&world, &token).await.email.as_str(), to.as_str()), (OWNER, "/tasks"));
    assert!(matches!(give(pending, next).await, Err(IdentityError::Gone)), "once");
    app.clock.advance(30_000);
    let pending = asks().await;
    app.clock.advance(300_000);
    let late = give(pending, code(&secret, app.now())).await;
    assert!(matches!(late, Err(IdentityError::Gone)));
}

async fn who_was_removed_stays_out(world: World) {
    world.app.open_keyring(true).await.expect("a pepper");
    let by = Origin::operator();
    let invite = LinkKind::Invite { account: world.account, role: Role::Member };
    let link = world.app.make_person_link("bert@example.com", invite, &by).await.expect("a link");
    let used = world.app.use_person_link(&link, Some("bert's password"), None, &by).await;
    let person = session(&world, &used.expect("joined")).await.person;
    let bert = named("bert", Some("bert@example.com"));
    let token = enter(&world, &bert).await;
    world.app.change_role(world.account, person, None, &by).await.expect("removed");
    assert!(is_over(&world, &token).await);
    let refused = identify(&world, &bert).await;
    assert!(matches!(refused, Err(IdentityError::Person(PersonError::Refused))));
}

async fn accounts_are_switched_by_another_token(world: World) {
    with_password(&world).await;
    let (app, by) = (&world.app, Origin::operator());
    let theirs = app.create_account("theirs@example.com", None, 0, false, &by).await.expect("made");
    let closed = app.create_account("closed@example.com", None, 0, false, &by).await.expect("made");
    let invite = LinkKind::Invite { account: theirs, role: Role::Viewer };
    app.clock.advance(1_000);
    let link = app.make_person_link(OWNER, invite, &by).await.expect("a link");
    app.use_person_link(&link, Some(PASSWORD), None, &by).await.expect("joined");
    let old = log_in(&world, OWNER, PASSWORD).await.expect("logged in");
    let found = session(&world, &old).await;
    assert_eq!((found.account, found.role), (world.account, Role::Owner));
    let places = app.accounts_of(&found).await.expect("accounts");
    let ids: Vec<_> = places.iter().map(|place| place.account_id).collect();
    assert_eq!(ids, [world.account, theirs]);

    let none = app.switch_account(&old, &found, closed, &by).await.expect("asked");
    assert!(none.is_none(), "no place there");
    let new =
        app.switch_account(&old, &found, theirs, &by).await.expect("asked").expect("switched");
    assert!(is_over(&world, &old).await, "the token before is of no use");
    let there = session(&world, &new).await;
    assert_eq!((there.account, there.role, there.id), (theirs, Role::Viewer, found.id));
    let again = app.switch_account(&old, &found, world.account, &by).await.expect("asked");
    assert!(again.is_none());
    // Without a place there any more, they are logged out.
    app.change_role(theirs, found.person, None, &by).await.expect("removed");
    assert!(is_over(&world, &new).await);
    let back = log_in(&world, OWNER, PASSWORD).await.expect("logged in");
    assert_eq!(session(&world, &back).await.account, world.account);
}
