//! One person in several accounts: one is looked at, with the role there, and nothing of the other shows.

use listmill_tests::dashboard::{PASSWORD, SESSION};
use listmill_tests::{Person, Setup, Size, for_each_size};

use super::sends_to_login;

for_each_size!(accounts_are_looked_at_one_at_a_time);

async fn accounts_are_looked_at_one_at_a_time(size: Size) {
    let app = Setup::new(size).start().await;
    let (own, theirs) = (app.person(7_771).await, app.person(8_882).await);
    let alone = own.person(&app).await;
    alone.get("/account").await.expect(200).assert_lacks("/account/switch");
    let page = alone.submit("/account", "/logout", &[]).await;
    page.expect_redirect("/login");

    let owner = theirs.person(&app).await;
    owner.get("/account/invite").await.expect(200);
    let fields = [("email", own.email.as_str()), ("role", "viewer"), ("password", PASSWORD)];
    let made = owner.post("/account/invite", &fields).await.expect(200);
    let (_, rest) = made.text.split_once("/login/link/").expect("a link");
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
    let path = format!("/login/link/{}", &rest[..end]);
    let person = Person::stranger(&app);
    person.get(&path).await.expect(200);
    person.post(&path, &[("password", PASSWORD)]).await.expect(303);

    let page = person.get("/account").await.expect(200);
    page.assert_has("/account/switch");
    let (old, csrf) = (person.cookie(SESSION).expect("a session"), person.csrf());
    let to = [("account", theirs.account.as_str())];
    let forged = person.post_with("", "/account/switch", &to).await;
    assert_eq!(forged.status, 403, "{}", forged.reply);
    person.post_with(&csrf, "/account/switch", &to).await.expect_redirect("/tasks");
    assert_ne!(person.cookie(SESSION).as_deref(), Some(old.as_str()), "another token");
    let thief = Person::stranger(&app);
    thief.set_cookie(SESSION, &old);
    assert!(sends_to_login(&thief, "/tasks").await, "the one before is of no use");

    // The role of that account, its credits, and none of the other's forms.
    let page = person.get("/account").await.expect(200);
    page.assert_lacks("/account/invite");
    page.assert_has(&theirs.email);
    assert_eq!(person.get("/account/invite").await.status, 403);
    let credits = person.get("/credits").await.expect(200).words();
    assert!(credits.contains("8,882") && !credits.contains("7,771"), "{credits}");
    let open = person.post_with(&csrf, "/account/sessions/end", &[]).await;
    assert_eq!(open.status, 403, "a page of the other account that is still open: {}", open.reply);

    // Back, and nowhere else.
    let stranger = app.person(1).await;
    for account in [stranger.account.as_str(), "", "x"] {
        person.get("/account").await.expect(200);
        let page = person.post("/account/switch", &[("account", account)]).await;
        assert_eq!(page.status, 404, "{account}: {}", page.reply);
    }
    person.get("/account").await.expect(200);
    let page = person.post("/account/switch", &[("account", own.account.as_str())]).await;
    page.expect_redirect("/tasks");
    person.get("/account/invite").await.expect(200);
    app.finish().await;
}
