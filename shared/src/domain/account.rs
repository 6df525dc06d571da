//! Accounts: whether one may be used.

use super::clock::Millis;

/// Why an operator has stopped the use of an account. Its people can still log in, look and download; its keys open
/// nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspended {
    /// What its people and programs are told.
    pub reason: String,
    /// Whom they can ask.
    pub contact: String,
    /// Since when.
    pub since: Millis,
}

impl Suspended {
    /// What a program is told.
    pub fn told(&self) -> String {
        let reason = self.reason.trim_end_matches('.');
        format!("This account is suspended: {reason}. Contact: {}", self.contact)
    }
}

/// What becomes of an account's unended tasks when it is suspended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TasksThen {
    /// They go on to their end: they were accepted, and their credits are there.
    #[default]
    Keep,
    /// They stand still until a person resumes them, after the suspension.
    Pause,
    /// They end for good.
    Cancel,
}

impl TasksThen {
    /// All of them.
    pub const ALL: [Self; 3] = [TasksThen::Keep, TasksThen::Pause, TasksThen::Cancel];

    /// As it is posted, and written down.
    pub fn as_str(self) -> &'static str {
        match self {
            TasksThen::Keep => "keep",
            TasksThen::Pause => "pause",
            TasksThen::Cancel => "cancel",
        }
    }

    /// Reads the name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_and_contact_are_told() {
        for reason in ["spam traps", "spam traps."] {
            let suspended = Suspended {
                reason: reason.to_owned(),
                contact: String::from("abuse@a.example"),
                since: 1,
            };
            assert_eq!(
                suspended.told(),
                "This account is suspended: spam traps. Contact: abuse@a.example"
            );
        }
    }
}
