//! What PostgreSQL says about the product's sessions (`pg_stat_activity`).
//!
//! The product names each session `listmill <role> <pid>`. One that only says `listmill` could be
//! any process's, so it counts as everybody's.

use sqlx::{Connection, PgConnection};

use crate::deployment::Deployment;

#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Session {
    pid: i32,
    name: String,
    state: String,
    wait: String,
    /// When its transaction began; empty outside of one.
    began: String,
    /// It has written or locked rows.
    writes: bool,
    #[sqlx(skip)]
    pub backend: u32,
}

impl Session {
    /// Inside a transaction, rows locked, and the next word is the client's.
    pub fn holds_rows(&self) -> bool {
        !self.began.is_empty() && self.writes && self.waits_for_client()
    }

    pub fn waits_for_client(&self) -> bool {
        self.wait == "ClientRead"
    }

    pub fn same_transaction(&self, other: &Self) -> bool {
        (self.pid, &self.began) == (other.pid, &other.began)
    }
}

#[derive(Debug)]
pub struct Sessions(PgConnection);

impl Sessions {
    /// Past any proxy.
    pub async fn connect(app: &Deployment) -> Self {
        let connection = PgConnection::connect(&app.database_url()).await;
        Self(connection.expect("PostgreSQL lets us in"))
    }

    pub async fn all(&mut self) -> Vec<Session> {
        const LOOK: &str = "
            SELECT pid, application_name AS name, coalesce(state, '') AS state,
                   coalesce(wait_event, '') AS wait, coalesce(xact_start::text, '') AS began,
                   backend_xid IS NOT NULL AS writes
            FROM pg_stat_activity
            WHERE datname = current_database() AND application_name LIKE 'listmill%'";
        let rows = sqlx::query_as::<_, Session>(LOOK).fetch_all(&mut self.0).await;
        let mut sessions = rows.expect("the server knows its sessions");
        for session in &mut sessions {
            session.backend = u32::try_from(session.pid).expect("a process id");
        }
        sessions
    }

    /// Those of one process of the product.
    pub async fn of(&mut self, pid: u32) -> Vec<Session> {
        let end = format!(" {pid}");
        let mut sessions = self.all().await;
        sessions.retain(|session| session.name == "listmill" || session.name.ends_with(&end));
        sessions
    }
}
