//! Which of the tasks at work here have been cancelled or paused.
//!
//! Notices through the queue make it fast; SQL, asked every [`LOOK`], makes it certain.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use listmill_shared::app::App;
use listmill_shared::domain::id::TaskId;
use listmill_shared::domain::task::TaskStatus;
use tokio::sync::watch;

/// How often SQL is asked, and in a large fleet at the least.
const LOOK: Duration = Duration::from_millis(500);
const LOOK_LATE: Duration = Duration::from_secs(3);

/// How a task's batches go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
    /// As before.
    Go,
    /// Start nothing new; what is under way may end.
    Halt,
    /// Stop at once; nothing of it counts any more.
    Drop,
}

/// Tasks at work here and the course of each.
#[derive(Default)]
pub struct Stops(Mutex<HashMap<TaskId, watch::Sender<Course>>>);

impl Stops {
    /// Follows a task for as long as the receiver lives. The caller has just leased a batch of it,
    /// so it was active a moment ago, whatever was heard before.
    pub fn follow(&self, task: TaskId) -> watch::Receiver<Course> {
        let mut tasks = self.lock();
        let course = tasks.entry(task).or_insert_with(|| watch::Sender::new(Course::Go));
        course.send_if_modified(|now| std::mem::replace(now, Course::Go) != Course::Go);
        course.subscribe()
    }

    /// Listens to notices and asks SQL, until dropped.
    pub async fn watch(&self, app: &App) {
        let mut notices = app.queue.stopped();
        let mut look = tokio::time::Instant::now();
        loop {
            let asked = tokio::select! {
                Some(task) = notices.next() => match self.lock().contains_key(&task) {
                    true => vec![task],
                    false => continue,
                },
                () = tokio::time::sleep_until(look) => {
                    look = tokio::time::Instant::now() + app.spread(LOOK, LOOK_LATE);
                    self.followed()
                }
            };
            if asked.is_empty() {
                continue;
            }
            match app.store.task_statuses(&asked).await {
                Ok(statuses) => self.apply(&asked, &statuses),
                Err(error) => tracing::debug!(%error, "cannot look whether tasks go on"),
            }
        }
    }

    /// Tasks that somebody still follows; the others are forgotten.
    fn followed(&self) -> Vec<TaskId> {
        let mut tasks = self.lock();
        tasks.retain(|_, course| course.receiver_count() > 0);
        tasks.keys().copied().collect()
    }

    fn apply(&self, asked: &[TaskId], statuses: &[(TaskId, TaskStatus)]) {
        let tasks = self.lock();
        for task in asked {
            let status = statuses.iter().find(|(id, _)| id == task).map(|(_, status)| *status);
            let course = match status {
                Some(status) if status.is_active() => Course::Go,
                Some(TaskStatus::Paused) => Course::Halt,
                // Its last batches are being settled by somebody; nothing to stop.
                Some(TaskStatus::Completed) => Course::Go,
                _ => Course::Drop,
            };
            if let Some(sender) = tasks.get(task) {
                sender.send_if_modified(|now| std::mem::replace(now, course) != course);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<TaskId, watch::Sender<Course>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
