//! A running product and the servers it stands on.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::client::Client;
use crate::disk::Disk;
use crate::metrics;
use crate::poll::eventually;
use crate::postgres::Postgres;
use crate::process::{Launch, Process};
use crate::proxy::Proxy;
use crate::redis::{self, Redis};
use crate::setup::{Setup, Size, binary};
use crate::slots::{self, Slot};
use crate::{ports, random, scratch};

/// A process of the product that serves HTTP.
#[derive(Debug)]
pub struct Node {
    pub process: Process,
    pub port: u16,
}

impl Node {
    pub fn base(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Status and body of `/healthz`, `/readyz` or `/metrics`; `None` while nobody answers.
    pub async fn probe(&self, path: &str) -> Option<(u16, String)> {
        let url = format!("{}{path}", self.base());
        let client = crate::client::http().timeout(Duration::from_secs(5));
        let answer = client.build().expect("a client").get(url).send().await.ok()?;
        let status = answer.status().as_u16();
        Some((status, answer.text().await.ok()?))
    }

    pub async fn wait_ready(&self) {
        let what = format!("{} is ready\n{}", self.process.name, self.process.tail(5));
        eventually(&what, Duration::from_secs(30), || async {
            self.probe("/readyz").await.filter(|(status, _)| *status == 200)
        })
        .await;
    }

    pub async fn metric(&self, name: &str) -> Option<f64> {
        let (_, text) = self.probe("/metrics").await?;
        metrics::sum(&text, name)
    }
}

#[derive(Debug)]
enum Database {
    Sqlite(PathBuf),
    Shared(&'static Postgres, String),
    Own(Box<Postgres>),
    /// The test's.
    Brought(String),
}

/// What lies between the processes and their servers.
#[derive(Debug)]
pub struct Wires {
    pub postgres: Proxy,
    pub redis: Proxy,
}

#[derive(Debug)]
pub struct Deployment {
    pub size: Size,
    /// `api` processes; embedded: the one `up` process.
    pub apis: Vec<Node>,
    /// `worker` processes; embedded: none.
    pub workers: Vec<Node>,
    pub(crate) secrets: std::sync::Mutex<Vec<String>>,
    folder: PathBuf,
    database: Database,
    redis: Option<Redis>,
    disk: Option<Disk>,
    wires: Option<Wires>,
    env: Vec<(String, String)>,
    finished: bool,
    _slot: Slot,
}

impl Deployment {
    pub(crate) async fn start(setup: Setup) -> Self {
        let _slot = slots::take(setup.weight).await;
        let folder = scratch::folder("app");
        let disk = setup.disk_mib.map(|mib| Disk::mount(&folder.join("disk"), mib));
        let (database, redis) = match setup.size {
            Size::Embedded => {
                let place = disk.as_ref().map_or(folder.as_path(), Disk::path);
                (Database::Sqlite(place.join("listmill.db")), None)
            }
            Size::Scaled { .. } => {
                let database = match setup.database_url {
                    Some(url) => Database::Brought(url),
                    None => postgres(setup.own_postgres).await,
                };
                (database, Some(Redis::start().await))
            }
        };
        let mut deployment = Self {
            size: setup.size,
            apis: Vec::new(),
            workers: Vec::new(),
            secrets: std::sync::Mutex::default(),
            folder,
            database,
            redis,
            disk,
            wires: None,
            env: setup.env,
            finished: false,
            _slot,
        };
        if setup.through_proxies {
            deployment.lay_wires().await;
        }
        deployment.start_nodes().await;
        deployment
    }

    async fn lay_wires(&mut self) {
        let database = self.server().port();
        let postgres = Proxy::start(database).await;
        let redis = Proxy::start(self.redis().port()).await;
        self.wires = Some(Wires { postgres, redis });
    }

    async fn start_nodes(&mut self) {
        match self.size {
            Size::Embedded => self.add_api("up"),
            Size::Scaled { apis, workers } => {
                self.cli(&["migrate"]).await.expect_success();
                (0..apis).for_each(|_| self.add_api("api"));
                (0..workers).for_each(|_| self.add_worker(&[]));
            }
        }
        self.wait_ready().await;
    }

    fn add_api(&mut self, role: &str) {
        let port = ports::free_port();
        let name = format!("{role}-{}", self.apis.len());
        // `up` may serve the worker's page too; the default port could be somebody else's.
        let worker_bind = format!("127.0.0.1:{}", ports::free_port());
        let own = [("LISTMILL_BIND", address(port)), ("LISTMILL_WORKER_BIND", worker_bind)];
        self.apis.push(Node { process: self.process(&name, role, &own), port });
    }

    /// With an environment of its own, perhaps.
    pub(crate) fn add_worker(&mut self, env: &[(&str, String)]) {
        let port = ports::free_port();
        let name = format!("worker-{}", self.workers.len());
        let mut own = env.to_vec();
        own.push(("LISTMILL_WORKER_BIND", address(port)));
        self.workers.push(Node { process: self.process(&name, "worker", &own), port });
    }

    /// One more API process on the same database.
    pub async fn start_api(&mut self) -> &Node {
        self.add_api("api");
        let node = self.apis.last().expect("just added");
        node.wait_ready().await;
        node
    }

    pub async fn start_worker(&mut self) -> &Node {
        self.add_worker(&[]);
        let node = self.workers.last().expect("just added");
        node.wait_ready().await;
        node
    }

    fn process(&self, name: &str, role: &str, own: &[(&str, String)]) -> Process {
        let mut launch = self.launch().args([role]);
        if let Some(wires) = &self.wires {
            launch.env.extend(self.environment(wires.postgres.port(), wires.redis.port()));
        }
        launch.env.extend(own.iter().map(|(k, v)| ((*k).to_owned(), v.clone())));
        Process::start(name, launch, self.folder.join(format!("{name}.log")))
    }

    /// The binary with this deployment's settings, in a folder without a settings file.
    /// How a command of this deployment is started.
    pub fn launch(&self) -> Launch {
        let mut launch = Launch::new(binary(), &self.folder);
        launch.env = self.env.clone();
        launch.env.push(("LISTMILL_DATABASE_URL".into(), self.database_url()));
        if let Some(redis) = &self.redis {
            launch.env.push(("LISTMILL_REDIS_URL".into(), redis.url()));
        }
        launch
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn database_url(&self) -> String {
        match &self.database {
            Database::Sqlite(path) => format!("sqlite://{}", path.display()),
            Database::Shared(server, name) => server.url(name),
            Database::Own(server) => server.url("postgres"),
            Database::Brought(url) => url.clone(),
        }
    }

    /// Where a process finds its servers.
    fn environment(&self, postgres: u16, redis: u16) -> [(String, String); 2] {
        let name = match &self.database {
            Database::Shared(_, name) => name,
            _ => "postgres",
        };
        let database = self.server().url_at(postgres, name);
        [
            ("LISTMILL_DATABASE_URL".to_owned(), database),
            ("LISTMILL_REDIS_URL".to_owned(), redis::url_at(redis)),
        ]
    }

    fn server(&self) -> &Postgres {
        match &self.database {
            Database::Shared(server, _) => server,
            Database::Own(server) => server,
            Database::Sqlite(_) | Database::Brought(_) => panic!("it has no server of the harness"),
        }
    }

    /// Ask for them with `Setup::through_proxies`.
    pub fn wires(&self) -> &Wires {
        self.wires.as_ref().expect("Setup::through_proxies")
    }

    pub fn postgres(&mut self) -> &mut Postgres {
        match &mut self.database {
            Database::Own(server) => server,
            _ => panic!("ask for it with Setup::own_postgres"),
        }
    }

    /// The server, out of the deployment's hands until it is given back: to restart it while others look on.
    pub fn lend_postgres(&mut self) -> Box<Postgres> {
        let brought = Database::Brought(self.database_url());
        match std::mem::replace(&mut self.database, brought) {
            Database::Own(server) => server,
            _ => panic!("ask for it with Setup::own_postgres"),
        }
    }

    pub fn give_back(&mut self, server: Box<Postgres>) {
        self.database = Database::Own(server);
    }

    pub fn redis(&mut self) -> &mut Redis {
        self.redis.as_mut().expect("a scaled deployment has Redis")
    }

    pub fn disk(&self) -> &Disk {
        self.disk.as_ref().expect("ask for it with Setup::disk")
    }

    pub fn bases(&self) -> Vec<String> {
        self.apis.iter().map(Node::base).collect()
    }

    /// A client that takes the API processes in turn.
    pub fn client(&self, key: &str) -> Client {
        Client::new(self.bases(), Some(key))
    }

    pub fn client_of(&self, api: usize, key: &str) -> Client {
        Client::new(vec![self.apis[api].base()], Some(key))
    }

    pub fn anonymous(&self) -> Client {
        Client::new(self.bases(), None)
    }

    pub async fn wait_ready(&self) {
        for node in self.apis.iter().chain(&self.workers) {
            node.wait_ready().await;
        }
    }

    /// Addresses that are being verified at this moment, over all processes that verify.
    pub async fn inflight(&self) -> f64 {
        let nodes = if self.size.is_scaled() { &self.workers } else { &self.apis };
        let mut sum = 0.0;
        for node in nodes.iter().filter(|node| node.process.is_expected_up()) {
            let value = node.metric("listmill_inflight_addresses").await;
            sum += value.unwrap_or_else(|| panic!("{}: no gauge", node.process.name));
        }
        sum
    }

    /// Kills the process that verifies and starts it again. Embedded: the whole product.
    pub fn kill9_and_restart_worker(&mut self, which: usize) {
        let nodes = if self.size.is_scaled() { &mut self.workers } else { &mut self.apis };
        nodes[which].process.kill9();
        nodes[which].process.start_again();
    }

    /// No process may have ended that the test did not end.
    pub fn assert_all_up(&mut self) {
        for node in self.apis.iter_mut().chain(&mut self.workers) {
            let Some(status) = node.process.ended() else { continue };
            let name = &node.process.name;
            panic!("{name} ended by itself: {status}\n{}", node.process.tail(40));
        }
    }

    /// The end of every test: nothing fell over, the ledger adds up, no secret was logged, stands in an argument,
    /// or would be dumped.
    pub async fn finish(mut self) {
        self.cont();
        self.assert_all_up();
        self.reconcile().await;
        self.assert_no_secret_shown();
        self.stop();
        self.assert_no_secret_logged();
        self.finished = true;
        if let Database::Shared(server, name) = &self.database {
            server.execute(format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await;
        }
    }

    /// A process that is stopped would keep what it holds in the database.
    fn cont(&self) {
        let nodes = self.apis.iter().chain(&self.workers);
        for node in nodes.filter(|node| node.process.is_expected_up()) {
            node.process.cont();
        }
        if let Some(wires) = &self.wires {
            wires.postgres.go_on();
            wires.redis.go_on();
        }
    }

    fn stop(&mut self) {
        for node in self.apis.iter_mut().chain(&mut self.workers) {
            node.process.kill9();
        }
    }

    /// Every user of a machine can read the arguments of its processes; whoever has its disk, their dumps.
    fn assert_no_secret_shown(&self) {
        let secrets = self.secrets.lock().expect("not poisoned").clone();
        for node in self.apis.iter().chain(&self.workers) {
            let Process { name, .. } = &node.process;
            if !node.process.is_expected_up() {
                continue;
            }
            let of = |what: &str| std::fs::read(format!("/proc/{}/{what}", node.process.pid()));
            let arguments = of("cmdline").expect("a process");
            let arguments = String::from_utf8_lossy(&arguments);
            let shown = secrets.iter().any(|secret| arguments.contains(secret.as_str()));
            assert!(!shown, "{name} has an API key among its arguments");
            let limits = String::from_utf8(of("limits").expect("a process")).expect("text");
            let core = limits.lines().find(|line| line.starts_with("Max core file size"));
            let soft = core.and_then(|line| line.split_whitespace().nth(4));
            assert_eq!(soft, Some("0"), "{name} would be dumped: {core:?}");
        }
    }

    fn assert_no_secret_logged(&self) {
        let secrets = self.secrets.lock().expect("not poisoned").clone();
        for node in self.apis.iter().chain(&self.workers) {
            let output = node.process.output();
            let shown = secrets.iter().any(|secret| output.contains(secret.as_str()));
            assert!(!shown, "{} wrote an API key into its log", node.process.name);
        }
    }

    fn print_tails(&self) {
        for node in self.apis.iter().chain(&self.workers) {
            eprintln!("{}", node.process.tail(25));
        }
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            self.print_tails();
        } else {
            assert!(self.finished, "the test did not call Deployment::finish");
        }
        drop(self.disk.take());
        scratch::remove(&self.folder);
    }
}

fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

async fn postgres(own: bool) -> Database {
    if own {
        return Database::Own(Box::new(Postgres::start().await));
    }
    let server = Postgres::shared().await;
    let name = format!("listmill_{:016x}", random::Random::fresh().number());
    server.execute(format!("CREATE DATABASE {name}")).await;
    Database::Shared(server, name)
}
