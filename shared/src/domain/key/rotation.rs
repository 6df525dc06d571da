//! When a key has been the same for so long that its owner is reminded to rotate it.

use super::{Environment, Key};
use crate::domain::clock::Millis;

impl Key {
    /// When its rotation is due, with a reminder so many milliseconds after it was made (0 = never). None for
    /// keys that nobody need think of: those that end by themselves until then, that were rotated, are for
    /// tests or deleted.
    pub fn rotation_due_at(&self, reminder: Millis) -> Option<Millis> {
        let due = self.created_at.saturating_add(reminder);
        let stays = self.expires_at.is_none_or(|end| end > due);
        let concerns = self.environment == Environment::Live
            && self.deleted_at.is_none()
            && self.replaced_by.is_none();
        (reminder > 0 && stays && concerns).then_some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::{AccountId, Ids, KeyId};

    #[test]
    fn a_rotation_is_due_after_the_chosen_age() {
        let ids = Ids::seeded(1);
        let (id, account) = (KeyId::new(&ids, 1), AccountId::new(&ids, 1));
        let key = Key::new(id, account, String::from("VECabcde"), String::from("l"), 100);
        assert_eq!(key.rotation_due_at(50), Some(150));
        assert_eq!(key.rotation_due_at(0), None);
        let later = Key { expires_at: Some(151), ..key.clone() };
        assert_eq!(later.rotation_due_at(50), Some(150));
        for silent in [
            Key { expires_at: Some(150), ..key.clone() },
            Key { deleted_at: Some(120), ..key.clone() },
            Key { replaced_by: Some(id), ..key.clone() },
            Key { environment: Environment::Test, ..key.clone() },
        ] {
            assert_eq!(silent.rotation_due_at(50), None, "{silent:?}");
        }
    }
}
