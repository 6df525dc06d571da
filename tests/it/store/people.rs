//! People: sessions, passwords, one-time codes, links, and places in accounts.

use listmill_shared::app::people::{Credentials, PersonError};
use listmill_shared::domain::audit::Origin;
use listmill_shared::domain::id::{AccountId, PersonId};
use listmill_shared::domain::key::Token;
use listmill_shared::domain::ledger::Kind;
use listmill_shared::domain::person::{Role, Session};
use listmill_shared::store::accounts::NewAccount;
use listmill_shared::store::person_links::{LinkKind, SignedUp};
use ring::hmac;

use super::on_both_engines;
use super::world::World;

on_both_engines!(
    log_in_and_out,
    a_password_changed_ends_other_sessions,
    one_time_codes_are_of_use_once,
    links_are_of_use_once,
    a_new_password_ends_links,
    invitations_are_listed_and_replaced,
    who_signs_up_has_one_account,
    an_account_keeps_an_owner,
    sessions_end_by_time_and_by_leaving,
);

pub(super) const OWNER: &str = "owner@example.com";
pub(super) const PASSWORD: &str = "correct horse battery";

pub(super) async fn log_in(
    world: &World,
    email: &str,
    password: &str,
) -> Result<Token, PersonError> {
    let with = Credentials { email, password, code: None };
    world.app.log_in(with, Some("a browser"), &Origin::system()).await
}

pub(super) async fn with_password(world: &World) {
    world.app.open_keyring(true).await.expect("a pepper");
    world.app.set_password(OWNER, PASSWORD, &Origin::operator()).await.expect("a password");
}

pub(super) async fn session(world: &World, token: &Token) -> Session {
    world.app.session(token).await.expect("the database").expect("a session")
}

pub(super) async fn is_over(world: &World, token: &Token) -> bool {
    world.app.session(token).await.expect("the database").is_none()
}

async fn log_in_and_out(world: World) {
    let refused = log_in(&world, OWNER, "anything at all").await;
    assert!(matches!(refused, Err(PersonError::Refused)), "nobody logs in without a password");
    with_password(&world).await;
    for (email, password) in [(OWNER, "wrong"), ("nobody@example.com", PASSWORD), ("", "")] {
        let refused = log_in(&world, email, password).await;
        assert!(matches!(refused, Err(PersonError::Refused)), "{email}: {refused:?}");
    }
    let token = log_in(&world, " OWNER@Example.com ", PASSWORD).await.expect("logged in");
    let found = session(&world, &token).await;
    assert_eq!((found.email.as_str(), found.role), (OWNER, Role::Owner));
    assert_eq!(found.account, world.account);
    assert!(!found.operator);
    let other = log_in(&world, OWNER, PASSWORD).await.expect("another browser");
    assert_ne!(token, other);
    world.app.log_out(&token).await.expect("logged out");
    assert!(is_over(&world, &token).await);
    assert!(!is_over(&world, &other).await);
}

async fn a_password_changed_ends_other_sessions(world: World) {
    with_password(&world).await;
    let (here, there) =
        (log_in(&world, OWNER, PASSWORD).await, log_in(&world, OWNER, PASSWORD).await);
    let (here, there) = (here.expect("here"), there.expect("there"));
    let found = session(&world, &here).await;
    let by = Origin::system();
    let change = |old: &'static str, new: &'static str| {
        world.app.change_password(&here, &found, old, new, &by)
    };
    assert!(matches!(change("wrong", "another password").await, Err(PersonError::Refused)));
    assert!(matches!(change(PASSWORD, "short").await, Err(PersonError::Field(..))));
    assert!(!is_over(&world, &there).await, "nothing was changed");
    change(PASSWORD, "another password").await.expect("changed");
    assert!(is_over(&world, &there).await);
    assert!(!is_over(&world, &here).await);
    assert!(log_in(&world, OWNER, PASSWORD).await.is_err());
    log_in(&world, OWNER, "another password").await.expect("the new one");
}

/// RFC 6238 with the usual values: SHA-1, six digits, 30 seconds.
pub(super) fn code(secret: &str, at: i64) -> String {
    let mut bits = 0u32;
    let (mut held, mut bytes) = (0, Vec::new());
    for letter in secret.bytes().filter(|letter| *letter != b'=') {
        let five = match letter {
            b'A'..=b'Z' => letter - b'A',
            _ => letter - b'2' + 26,
        };
        bits = bits << 5 | u32::from(five);
        held += 5;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &bytes);
    let mac = hmac::sign(&key, &(at / 30_000).to_be_bytes());
    let mac = mac.as_ref();
    let at = usize::from(mac[19] & 15);
    let number = u32::from_be_bytes([mac[at] & 0x7f, mac[at + 1], mac[at + 2], mac[at + 3]]);
    format!("{:06}", number % 1_000_000)
}

async fn one_time_codes_are_of_use_once(world: World) {
    with_password(&world).await;
    let token = log_in(&world, OWNER, PASSWORD).await.expect("no code yet");
    let found = session(&world, &token).await;
    let by = Origin::system();
    let secret = world.app.offer_codes(&found).await.expect("a secret");
    log_in(&world, OWNER, PASSWORD).await.expect("not asked for before it is shown to work");
    let wrong = world.app.switch_codes_on(&found, "000000", &by).await;
    assert!(matches!(wrong, Err(PersonError::Refused)));
    let first = code(&secret, world.app.now());
    let recovery = world.app.switch_codes_on(&found, &first, &by).await.expect("on");
    assert_eq!(recovery.len(), 10);
    let needed = log_in(&world, OWNER, PASSWORD).await;
    assert!(matches!(needed, Err(PersonError::CodeNeeded)));
    let unasked = log_in(&world, OWNER, "wrong").await;
    assert!(
        matches!(unasked, Err(PersonError::Refused)),
        "who lacks the password is asked no code"
    );
    let with = |code: String| {
        let world = &world;
        async move {
            let with = Credentials { email: OWNER, password: PASSWORD, code: Some(&code) };
            world.app.log_in(with, None, &Origin::system()).await
        }
    };
    assert!(with(first).await.is_err(), "it switched the codes on, and is used");
    world.app.clock.advance(30_000);
    let next = code(&secret, world.app.now());
    with(next.clone()).await.expect("the next code");
    assert!(with(next).await.is_err(), "once");
    let spare = recovery[3].to_uppercase();
    with(spare.clone()).await.expect("a recovery code");
    assert!(with(spare).await.is_err(), "once");
    assert_eq!(world.app.store.recovery_codes(found.person).await.expect("counted"), 9);
    world.app.switch_codes_off(&found, &by).await.expect("off");
    log_in(&world, OWNER, PASSWORD).await.expect("no code any more");
}

async fn links_are_of_use_once(world: World) {
    world.app.open_keyring(true).await.expect("a pepper");
    let by = Origin::operator();
    let link = |email: &'static str, kind| world.app.make_person_link(email, kind, &by);
    let open = |token: Token, password: Option<&'static str>| {
        let world = &world;
        async move { world.app.use_person_link(&token, password, None, &Origin::system()).await }
    };
    let token = link(OWNER, LinkKind::Login).await.expect("a link");
    assert!(world.app.find_person_link(&token).await.expect("found").is_some());
    let opened = open(token.clone(), None).await.expect("logged in");
    assert_eq!(session(&world, &opened).await.email, OWNER);
    assert!(matches!(open(token, None).await, Err(PersonError::LinkGone)));
    // Of many at once, one.
    let token = link(OWNER, LinkKind::Login).await.expect("a link");
    let all = futures::future::join_all((0..8).map(|_| open(token.clone(), None))).await;
    assert_eq!(all.iter().filter(|opened| opened.is_ok()).count(), 1);
    // A password is needed, and a short one uses nothing up.
    let invite = LinkKind::Invite { account: world.account, role: Role::Viewer };
    let token = link("guest@example.com", invite).await.expect("an invitation");
    assert!(matches!(open(token.clone(), None).await, Err(PersonError::Field(..))));
    assert!(matches!(open(token.clone(), Some("short")).await, Err(PersonError::Field(..))));
    let guest = open(token, Some("a guest's password")).await.expect("joined");
    let guest = session(&world, &guest).await;
    assert_eq!((guest.role, guest.account), (Role::Viewer, world.account));
    // An invitation is no way to another person's password.
    let invite = LinkKind::Invite { account: world.account, role: Role::Member };
    let token = link("guest@example.com", invite).await.expect("another invitation");
    let stranger = open(token.clone(), Some("a stranger's password")).await;
    assert!(matches!(stranger, Err(PersonError::Refused)));
    log_in(&world, "guest@example.com", "a guest's password").await.expect("as before");
    open(token, Some("a guest's password")).await.expect("a member now");
    // Over by time.
    let token = link(OWNER, LinkKind::Password).await.expect("a link");
    world.app.clock.advance(3_600_001);
    assert!(matches!(open(token, Some("a new password")).await, Err(PersonError::LinkGone)));
}

async fn a_new_password_ends_links(world: World) {
    with_password(&world).await;
    let by = Origin::operator();
    let link = |email: &'static str, kind| world.app.make_person_link(email, kind, &by);
    let is_there = |token: Token| {
        let world = &world;
        async move { world.app.find_person_link(&token).await.expect("looked up").is_some() }
    };
    let mut links = Vec::new();
    for kind in [LinkKind::Login, LinkKind::Password, LinkKind::Password] {
        links.push(link(OWNER, kind).await.expect("a link"));
    }
    let other = link("ada@example.com", LinkKind::Password).await.expect("a link");
    let invite = LinkKind::Invite { account: world.account, role: Role::Owner };
    let invited = link(OWNER, invite).await.expect("an invitation");
    // Of several links of one person that are used at once, one is served.
    let uses = links
        .iter()
        .skip(1)
        .map(|link| world.app.use_person_link(link, Some("another password"), None, &by));
    let used = futures::future::join_all(uses).await;
    assert_eq!(used.iter().filter(|used| used.is_ok()).count(), 1, "{used:?}");
    for link in links {
        assert!(!is_there(link).await);
    }
    assert!(is_there(other).await, "another person's");
    assert!(is_there(invited).await, "it lets nobody in without the password");
    let again = link(OWNER, LinkKind::Login).await.expect("a link");
    world.app.set_password(OWNER, PASSWORD, &by).await.expect("set");
    assert!(!is_there(again).await);
}

async fn invitations_are_listed_and_replaced(world: World) {
    world.app.open_keyring(true).await.expect("a pepper");
    let by = Origin::operator();
    let invite = |email, role| world.app.invite(world.account, email, role, &by);
    let listed = || async {
        let all = world.app.invites(world.account).await.expect("listed");
        all.into_iter().map(|one| (one.email, one.role)).collect::<Vec<_>>()
    };
    let first = invite("bert@example.com", Role::Member).await.expect("invited");
    let second = invite("Bert@Example.com", Role::Viewer).await.expect("invited");
    invite("ada@example.com", Role::Owner).await.expect("invited");
    let pair = |email: &str, role: &str| (email.to_owned(), role.to_owned());
    assert_eq!(
        listed().await,
        [pair("ada@example.com", "owner"), pair("bert@example.com", "viewer")]
    );
    let find = |token: Token| {
        let world = &world;
        async move { world.app.find_person_link(&token).await.expect("looked up").is_some() }
    };
    assert!(!find(first).await && find(second.clone()).await);
    // Who is known and has no password chooses none by an invitation: who invites has it in hand, too.
    let owner = world.app.invite(world.account, OWNER, Role::Owner, &by).await.expect("invited");
    let joined = world.app.use_person_link(&owner, Some("not theirs to choose"), None, &by).await;
    assert!(matches!(joined, Err(PersonError::CodeNeeded)), "{joined:?}");
    assert!(log_in(&world, OWNER, "not theirs to choose").await.is_err());
    let withdraw = |email| world.app.withdraw_invite(world.account, email, &by);
    assert!(withdraw("bert@example.com").await.expect("withdrawn"));
    assert!(!withdraw("bert@example.com").await.expect("looked up"), "once");
    assert!(!find(second).await);
    world.app.clock.advance(7 * 86_400_000);
    assert!(listed().await.is_empty());
}

async fn who_signs_up_has_one_account(world: World) {
    world.app.open_keyring(true).await.expect("a pepper");
    let (app, by) = (&world.app, Origin::system());
    assert!(app.sign_up("eve@example.com", PASSWORD, None, &by).await.is_err(), "it is off");
    let email = "new@example.com";
    let tokens =
        [app.sign_up_link(email, &by).await, app.sign_up_link("New@Example.com", &by).await];
    let tokens = tokens.map(|token| token.expect("asked").expect("not known"));
    assert!(app.find_person_link(&tokens[0]).await.expect("looked up").is_none(), "it is off");
    let make = |token: usize| {
        let (hash, token) = (Some("a hash"), tokens[token].hash());
        let by = &by;
        async move {
            let id = AccountId::new(&app.ids, app.now());
            let new = NewAccount { id, email, password_hash: hash, admin: false };
            let made = app.store.sign_up(&new, 25, Some(&token), by, app.now()).await;
            (id, made)
        }
    };
    let both = tokio::join!(make(0), make(0));
    let made: Vec<_> = [both.0, both.1]
        .into_iter()
        .filter(|(_, made)| matches!(made, Ok(SignedUp::Made(_))))
        .collect();
    assert_eq!(made.len(), 1, "{made:?}");
    let balance = app.store.balance(made[0].0, Kind::Email).await.expect("a balance");
    assert_eq!(balance, 25);
    assert!(matches!(make(1).await.1, Ok(SignedUp::Gone)), "the password ended it");
    assert!(app.sign_up_link(email, &by).await.expect("asked").is_none(), "known");
}

async fn an_account_keeps_an_owner(world: World) {
    world.app.open_keyring(true).await.expect("a pepper");
    let by = Origin::operator();
    let members = world.app.store.members(world.account).await.expect("members");
    assert_eq!(members.len(), 1);
    let owner = members[0].person_id;
    let change = |person, role| world.app.change_role(world.account, person, role, &by);
    for role in [None, Some(Role::Member)] {
        assert!(matches!(change(owner, role).await, Err(PersonError::State(_))));
    }
    let nobody = PersonId::new(&world.app.ids, world.app.now());
    assert!(change(nobody, Some(Role::Owner)).await.is_err(), "none of theirs");
    let invite = LinkKind::Invite { account: world.account, role: Role::Owner };
    let token = world.app.make_person_link("ada@example.com", invite, &by).await.expect("a link");
    let used = world.app.use_person_link(&token, Some("ada's password"), None, &by).await;
    let ada = session(&world, &used.expect("joined")).await.person;
    // Of two owners that leave at once, one stays.
    let both = tokio::join!(change(owner, None), change(ada, None));
    assert_eq!([both.0.is_ok(), both.1.is_ok()].iter().filter(|ok| **ok).count(), 1);
    assert_eq!(world.app.store.members(world.account).await.expect("members").len(), 1);
}

async fn sessions_end_by_time_and_by_leaving(world: World) {
    with_password(&world).await;
    let token = log_in(&world, OWNER, PASSWORD).await.expect("logged in");
    let found = session(&world, &token).await;
    assert!(world.app.is_proven(&found));
    world.app.clock.advance(600_000);
    let found = session(&world, &token).await;
    assert!(!world.app.is_proven(&found));
    assert!(world.app.prove(&token, &found, "wrong", None).await.is_err());
    world.app.prove(&token, &found, PASSWORD, None).await.expect("proven");
    assert!(world.app.is_proven(&session(&world, &token).await));
    let listed = world.app.store.sessions_of(found.person, world.app.now()).await.expect("listed");
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].agent.as_deref(), Some("a browser"));
    // Who has no place in the account any more is logged out at once.
    let by = Origin::operator();
    let invite = LinkKind::Invite { account: world.account, role: Role::Member };
    let link = world.app.make_person_link("bert@example.com", invite, &by).await.expect("a link");
    let bert = world.app.use_person_link(&link, Some("bert's password"), None, &by).await;
    let bert = bert.expect("joined");
    let who = session(&world, &bert).await.person;
    world.app.change_role(world.account, who, Some(Role::Viewer), &by).await.expect("changed");
    assert_eq!(session(&world, &bert).await.role, Role::Viewer, "on the state of this moment");
    world.app.change_role(world.account, who, None, &by).await.expect("removed");
    assert!(is_over(&world, &bert).await);
    world.app.clock.advance(14 * 86_400_000);
    assert!(is_over(&world, &token).await);
}
