//! `admin account`: accounts, and how their people log in.

use clap::Subcommand;
use listmill_shared::domain::account::TasksThen;

use super::PageArgs;

#[derive(Debug, Subcommand)]
pub enum AccountCommand {
    /// Make an account
    Create {
        /// Its email, which also names it in other commands
        #[arg(long)]
        email: String,
        /// Password of its owner [default: none; `link` and `password` set one later]
        #[arg(long)]
        password: Option<String>,
        /// Email credits to begin with
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..))]
        credits: i64,
        /// An operator's account
        #[arg(long)]
        admin: bool,
    },
    /// List accounts, by email
    List {
        /// Those whose email begins so, in any case
        #[arg(long, value_name = "TEXT")]
        search: Option<String>,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Show an account: its state, credits, keys, tasks and people
    Show {
        /// Which (id or email)
        #[arg(long, value_name = "ID_OR_EMAIL")]
        account: String,
    },
    /// Call an account by another email
    Rename {
        /// Which (id or email)
        #[arg(long, value_name = "ID_OR_EMAIL")]
        account: String,
        /// Its new email; the owner who logs in with the old one logs in with this from then on
        #[arg(long)]
        email: String,
        /// The owner goes on to log in with the old email
        #[arg(long)]
        keep_login: bool,
    },
    /// Print a link that lets a person choose a password, once, within an hour
    Link {
        /// The person's email
        #[arg(long)]
        email: String,
    },
    /// Set a person's password; all their sessions end
    ///
    /// On a terminal it asks for the password and does not show it; else it reads the first line of stdin.
    Password {
        /// The person's email
        #[arg(long)]
        email: String,
        /// The new password, at least 10 characters; everybody on this machine can see it here
        /// [default: asked for, or the first line of stdin]
        #[arg(long)]
        password: Option<String>,
        /// Ask for no one-time codes any more: for people who have lost their device
        #[arg(long)]
        codes_off: bool,
    },
    /// Forget as whom the issuer of OpenID Connect knows a person: the next log-in by it ties them anew
    Disconnect {
        /// The person's email
        #[arg(long)]
        email: String,
    },
    /// Change an account's share of the workers, against the other accounts'
    Weight {
        /// Whose (id or email)
        #[arg(long, value_name = "ID_OR_EMAIL")]
        account: String,
        /// An account of weight 3 gets three times as much as one of weight 1, while both have work
        #[arg(long, value_parser = clap::value_parser!(i32).range(1..=1000))]
        weight: i32,
    },
    /// Suspend an account: its keys and root keys are refused, its people can look and download but begin nothing
    Suspend {
        /// Whose (id or email)
        #[arg(long, value_name = "ID_OR_EMAIL")]
        account: String,
        /// What its people and programs are told
        #[arg(long)]
        reason: String,
        /// Whom they can ask: an email or a page [default: the setting support_contact]
        #[arg(long, default_value = "", hide_default_value = true)]
        contact: String,
        /// What becomes of its unended tasks: keep, pause or cancel
        #[arg(long, default_value = "keep", value_parser = tasks_then)]
        tasks: TasksThen,
    },
    /// Lift the suspension of an account
    Unsuspend {
        /// Whose (id or email)
        #[arg(long, value_name = "ID_OR_EMAIL")]
        account: String,
        /// Why, for the audit log
        #[arg(long)]
        reason: Option<String>,
    },
}

fn tasks_then(name: &str) -> Result<TasksThen, String> {
    TasksThen::parse(name).ok_or_else(|| format!("{name:?} is not keep, pause or cancel"))
}
