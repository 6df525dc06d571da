//! Commits that fail on purpose, before or after they took effect: tests put one into a store to show
//! that nothing is lost or done twice. A store without one pays nothing for it.

use super::Result;

/// Decides about each commit.
pub trait Fault: Send + Sync {
    /// Before the commit: an error leaves the transaction to be rolled back.
    fn before(&self) -> Result<()>;
    /// After the commit took effect: an error is all that its caller gets to see.
    fn after(&self) -> Result<()>;
}

/// What a store asks at each commit.
pub struct Faults(Box<dyn Fault>);

impl Faults {
    /// Asks `fault`.
    pub fn new(fault: impl Fault + 'static) -> Self {
        Self(Box::new(fault))
    }

    pub(super) fn before_commit(&self) -> Result<()> {
        self.0.before()
    }

    pub(super) fn after_commit(&self) -> Result<()> {
        self.0.after()
    }
}
