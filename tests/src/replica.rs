//! A streaming replica of a private PostgreSQL: what was committed there is here, and it can take over.

use std::os::unix::fs::chown;
use std::time::Duration;

use crate::poll::eventually;
use crate::postgres::{Postgres, binary, unprivileged_user};
use crate::process::Launch;
use crate::{scratch, sql};

impl Postgres {
    /// A standby that follows this server. From now on no commit here returns before it is on the
    /// standby's disk, unless its transaction says otherwise.
    pub async fn standby(&self) -> Self {
        let folder = scratch::folder("pg-standby");
        let user = unprivileged_user();
        if let Some((uid, gid)) = user {
            chown(&folder, Some(uid), Some(gid)).expect("root can give a folder away");
        }
        let mut launch = Launch::new(binary("pg_basebackup"), &folder).args(["-D"]);
        launch = launch.args([folder.join("data")]);
        launch = launch.args(["-h", "127.0.0.1", "-U", "postgres", "-p", &self.port().to_string()]);
        launch = launch.args(["-R", "-X", "stream", "-c", "fast", "--no-sync"]);
        launch.user = user;
        let output = launch.command().output().expect("pg_basebackup runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "pg_basebackup: {errors}");
        let standby = Self::serve(folder, user).await;
        // After the backup: the standby must not wait for one of its own once it has taken over.
        self.execute("ALTER SYSTEM SET synchronous_standby_names = '*'".to_owned()).await;
        self.execute("SELECT pg_reload_conf()".to_owned()).await;
        let url = self.url("postgres");
        eventually("the standby is synchronous", Duration::from_secs(30), || async {
            let sync = "SELECT count(*)::text FROM pg_stat_replication WHERE sync_state = 'sync'";
            (sql::text(&url, sync).await.as_deref() == Some("1")).then_some(())
        })
        .await;
        standby
    }

    /// The standby becomes a server of its own and takes writes.
    pub async fn promote(&self) {
        let url = self.url("postgres");
        let done = sql::text(&url, "SELECT pg_promote(true, 30)::text").await;
        assert_eq!(done.as_deref(), Some("true"), "{}", self.tail(20));
    }
}
