//! `admin task`, `admin worker`, and pages of lists.

use clap::{Args, Subcommand};
use listmill_shared::domain::id::TaskId;
use listmill_shared::domain::task::TaskStatus;

/// A part of a list.
#[derive(Debug, Args)]
pub struct PageArgs {
    /// So many, at the most
    #[arg(long, value_name = "N", default_value_t = 50,
          value_parser = clap::value_parser!(i64).range(1..=1_000))]
    pub limit: i64,
    /// Go on behind this: `next_cursor` of the page before
    #[arg(long, value_name = "CURSOR")]
    pub cursor: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum TaskCommand {
    /// List tasks, the newest first
    List {
        /// Of this account only (id or email)
        #[arg(long, value_name = "ID_OR_EMAIL")]
        account: Option<String>,
        /// With this status only: queued, running, paused, cancelled, completed or failed
        #[arg(long)]
        status: Option<TaskStatus>,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Show a task: where it stands, its addresses and credits
    Show {
        /// The task's id (task_…)
        task: TaskId,
    },
    /// End a task for good; what it held goes back, and not one further credit is charged
    Cancel {
        /// The task's id (task_…)
        task: TaskId,
    },
    /// Let a task stand still until it is resumed
    Pause {
        /// The task's id (task_…)
        task: TaskId,
    },
    /// Let a paused task go on
    Resume {
        /// The task's id (task_…)
        task: TaskId,
    },
    /// Erase an ended task with its addresses and results; what it cost stays in the ledger
    Erase {
        /// The task's id (task_…)
        task: TaskId,
    },
}

#[derive(Debug, Subcommand)]
pub enum WorkerCommand {
    /// List workers that were heard of lately
    List,
    /// Tell a worker to end what it has begun, to begin nothing, and to exit
    Drain {
        /// Its name, as `list` shows it
        name: String,
    },
}
