//! Links that stand in for a password, let a person choose one, or take them into an account.
//!
//! A link is of use once, for an hour; an invitation for a week. What is stored is the hash of its token.

use super::App;
use super::people::PersonError;
use crate::domain::audit::{Actor, Origin};
use crate::domain::clock::Millis;
use crate::domain::id::{AccountId, PersonId};
use crate::domain::key::Token;
use crate::domain::person::{self, Role};
use crate::store::StoreError;
use crate::store::person_links::{Invite, LinkKind, MOST_INVITES, PersonLink};

/// Links that log in, set a password or sign up are of use for so long.
const LINK: Millis = 3_600_000;
/// Invitations.
const INVITE: Millis = 7 * 86_400_000;

impl App {
    /// Makes a link for a person: of use once, and for an hour; invitations for a week.
    pub async fn make_person_link(
        &self,
        email: &str,
        kind: LinkKind,
        by: &Origin,
    ) -> Result<Token, PersonError> {
        let email =
            person::normal_email(email).map_err(|want| PersonError::Field("The email", want))?;
        let token = Token::from(self.ids.bytes::<32>());
        let now = self.now();
        let lasts = if matches!(kind, LinkKind::Invite { .. }) { INVITE } else { LINK };
        let link = PersonLink { kind, email };
        self.store.add_person_link(&token.hash(), &link, now + lasts, by, now).await?;
        Ok(token)
    }

    /// Where such a link leads: below `public_url`, or a path of the dashboard where that is not set.
    pub fn person_link_url(&self, token: &Token) -> String {
        format!("{}/login/link/{}", self.settings.public_url.trim_end_matches('/'), token.reveal())
    }

    /// What a link would do; `None`: it is used or over.
    pub async fn find_person_link(&self, token: &Token) -> Result<Option<PersonLink>, StoreError> {
        let link = self.store.person_link(&token.hash(), self.now()).await?;
        Ok(link.filter(|link| link.kind != LinkKind::SignUp || self.settings.sign_up))
    }

    /// A link to choose another password, for somebody who is known.
    pub async fn reset_link(&self, email: &str, by: &Origin) -> Result<Option<Token>, PersonError> {
        let email = person::normal_email(email).unwrap_or_default();
        match self.store.person_by_email(&email).await? {
            Some(_) => self.make_person_link(&email, LinkKind::Password, by).await.map(Some),
            None => Ok(None),
        }
    }

    /// Invites somebody into an account; an earlier invitation of theirs is over.
    pub async fn invite(
        &self,
        account: AccountId,
        email: &str,
        role: Role,
        by: &Origin,
    ) -> Result<Token, PersonError> {
        if self.invites(account).await?.len() as i64 >= MOST_INVITES {
            let why = "Too many invitations are open: withdraw those that are not needed.";
            return Err(PersonError::State(why));
        }
        self.make_person_link(email, LinkKind::Invite { account, role }, by).await
    }

    /// Who was invited into an account and has not come yet.
    pub async fn invites(&self, account: AccountId) -> Result<Vec<Invite>, StoreError> {
        self.store.invites(account, self.now()).await
    }

    /// Takes an invitation back. `false`: there is none.
    pub async fn withdraw_invite(
        &self,
        account: AccountId,
        email: &str,
        by: &Origin,
    ) -> Result<bool, StoreError> {
        self.store.withdraw_invite(account, email, by, self.now()).await
    }

    /// Uses a link, with the password that the person chooses where one is needed, and logs them in.
    pub async fn use_person_link(
        &self,
        token: &Token,
        password: Option<&str>,
        agent: Option<&str>,
        from: &Origin,
    ) -> Result<Token, PersonError> {
        let link = self.find_person_link(token).await?.ok_or(PersonError::LinkGone)?;
        if link.kind == LinkKind::SignUp {
            return self.finish_sign_up(token, &link.email, password, agent, from).await;
        }
        let known = self.store.person_by_email(&link.email).await?;
        let has_password = known.as_ref().is_some_and(|person| person.password_hash.is_some());
        let hash = match (&link.kind, password) {
            (LinkKind::Login, _) => None,
            // Who has a password keeps it: an invitation is no way to another's.
            (LinkKind::Invite { .. }, Some(given)) if has_password => {
                if !self.proves(known.as_ref(), given, from.ip).await? {
                    return Err(PersonError::Refused);
                }
                None
            }
            // Nor to somebody who logs in another way: who invites has the link in hand.
            (LinkKind::Invite { .. }, Some(_)) if known.is_some() => None,
            (_, Some(password)) => Some(self.hashed(password, from.ip).await?),
            (_, None) => return Err(PersonError::Field("The password", "is missing")),
        };
        let by = Origin { actor: Actor::Person(link.email.clone()), ..from.clone() };
        let new = PersonId::new(&self.ids, self.now());
        let (hash, now, token) = (hash.as_deref(), self.now(), token.hash());
        let used = self.store.use_person_link(&token, new, hash, &by, now).await?;
        let (person, link) = used.ok_or(PersonError::LinkGone)?;
        let invited = matches!(link.kind, LinkKind::Invite { .. });
        if known.is_some_and(|person| person.code_on || (invited && !has_password)) {
            // The link is one proof, the device the other.
            return Err(PersonError::CodeNeeded);
        }
        self.begin_session(person, &link.email, agent, from).await
    }
}
