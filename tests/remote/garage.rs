//! A cluster of three Garage nodes on loopback, one of which is killed and comes back: in the full campaign only.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::tools::{Home, Said, assert_same_tree, skip};
use crate::trees;

struct Node {
    config: PathBuf,
    s3_port: u16,
    rpc_port: u16,
    /// Its identity, once it has one.
    id: String,
    child: Option<Child>,
}

impl Node {
    fn start(&mut self) {
        let child = Command::new("garage")
            .arg("-c")
            .arg(&self.config)
            .arg("server")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(self.config.with_extension("log")).unwrap())
            .spawn()
            .unwrap();
        self.child = Some(child);
        for _ in 0..200 {
            if TcpStream::connect(("127.0.0.1", self.s3_port)).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("garage does not answer");
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn ask(&self, args: &[&str]) -> String {
        let output = Command::new("garage")
            .arg("-c")
            .arg(&self.config)
            .args(args)
            .output()
            .unwrap();
        Said::of(output).ends(0).out
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

fn cluster(dir: &Path) -> Vec<Node> {
    let secret = "7a".repeat(32);
    let mut nodes: Vec<Node> = (0..3)
        .map(|number| {
            let place = dir.join(format!("node{number}"));
            fs::create_dir_all(&place).unwrap();
            let (rpc_port, s3_port, admin_port) = (free_port(), free_port(), free_port());
            let config = place.join("garage.toml");
            fs::write(&config, format!(
                "metadata_dir = '{0}/meta'\ndata_dir = '{0}/data'\ndb_engine = 'sqlite'\nreplication_factor = 3\nrpc_bind_addr = '127.0.0.1:{rpc_port}'\nrpc_public_addr = '127.0.0.1:{rpc_port}'\nrpc_secret = '{secret}'\n[s3_api]\ns3_region = 'garage'\napi_bind_addr = '127.0.0.1:{s3_port}'\nroot_domain = '.s3.garage'\n[admin]\napi_bind_addr = '127.0.0.1:{admin_port}'\n",
                place.display()
            ))
            .unwrap();
            Node {
                config,
                s3_port,
                rpc_port,
                id: String::new(),
                child: None,
            }
        })
        .collect();
    nodes.iter_mut().for_each(Node::start);
    for node in &mut nodes {
        let id = node.ask(&["node", "id", "-q"]);
        id.split('@')
            .next()
            .unwrap()
            .trim()
            .clone_into(&mut node.id);
    }
    connect(&nodes, 0);
    for node in &nodes {
        nodes[0].ask(&["layout", "assign", &node.id, "-z", "here", "-c", "1G"]);
    }
    nodes[0].ask(&["layout", "apply", "--version", "1"]);
    std::thread::sleep(Duration::from_secs(3));
    nodes
}

/// Has a node know the others, and waits until all know each other.
fn connect(nodes: &[Node], one: usize) {
    for other in nodes.iter().filter(|other| other.id != nodes[one].id) {
        let address = format!("{}@127.0.0.1:{}", other.id, other.rpc_port);
        nodes[one].ask(&["node", "connect", &address]);
    }
    let began = std::time::Instant::now();
    let knows_all = |node: &Node| {
        let status = node.ask(&["status"]);
        let healthy = status.split("FAILED").next().unwrap_or_default();
        nodes.iter().all(|other| healthy.contains(&other.id[..16]))
    };
    while !nodes.iter().all(knows_all) {
        assert!(
            began.elapsed() < Duration::from_mins(2),
            "the nodes do not find each other"
        );
        std::thread::sleep(Duration::from_millis(300));
    }
}

fn value(text: &str, name: &str) -> String {
    let line = text
        .lines()
        .find(|line| line.trim_start().starts_with(name))
        .unwrap_or_else(|| panic!("{name} in {text}"));
    line.rsplit(|c: char| c == ':' || c.is_whitespace())
        .next()
        .unwrap()
        .to_owned()
}

#[test]
fn a_node_of_a_cluster_dies_and_comes_back() {
    if std::env::var_os("BTW_TEST_FULL").is_none() {
        return;
    }
    if Command::new("garage").arg("--version").output().is_err() {
        return skip("garage is not installed: cargo install garage --locked");
    }
    let home = Home::new();
    let mut nodes = cluster(&home.path("garage"));
    nodes[0].ask(&["bucket", "create", "backups"]);
    let key = nodes[0].ask(&["key", "create", "tests"]);
    let (id, secret) = (value(&key, "Key ID"), value(&key, "Secret key"));
    nodes[0].ask(&[
        "bucket", "allow", "--read", "--write", "--owner", "backups", "--key", "tests",
    ]);
    let src = home.path("src");
    let run = |node: usize, args: &[&str], port: u16| {
        let config = format!(
            "ROOT_PATH = '{}'\n[remote.garage]\nurl = 's3://backups/here'\nendpoint = 'http://127.0.0.1:{port}'\nregion = 'garage'\n",
            home.path("root").display()
        );
        fs::write(home.path("conf/config.toml"), config).unwrap();
        let mut command = home.command(args);
        command
            .env("AWS_ACCESS_KEY_ID", &id)
            .env("AWS_SECRET_ACCESS_KEY", &secret);
        println!("node {node}: {args:?}");
        Said::of(command.output().unwrap())
    };
    let ports: Vec<u16> = nodes.iter().map(|node| node.s3_port).collect();
    for generation in 1..=6 {
        trees::release(&src, generation);
        trees::image(&src.join("image"), 30 << 20, generation);
        let dead = usize::try_from(generation).unwrap() % 3;
        let (one, other) = ((dead + 1) % 3, (dead + 2) % 3);
        // It dies while a copy is on its way.
        let killer = std::thread::scope(|scope| {
            let backup = scope.spawn(|| {
                run(
                    one,
                    &["fs", "--init", src.to_str().unwrap(), "home"],
                    ports[one],
                )
            });
            std::thread::sleep(Duration::from_millis(400));
            nodes[dead].kill();
            backup.join().unwrap()
        });
        assert!([Some(0), Some(3)].contains(&killer.code), "{}", killer.err);
        run(one, &["sync"], ports[one]).ends(0);
        let target = home.path(&format!("back-{generation}"));
        run(
            other,
            &[
                "restore",
                "--remote",
                "garage",
                "home",
                target.to_str().unwrap(),
            ],
            ports[other],
        )
        .ends(0);
        assert_same_tree(&src, &target);
        nodes[dead].start();
        connect(&nodes, dead);
        // Through the one that was away.
        run(
            dead,
            &["verify", "--deep", "--remote", "garage", "home"],
            ports[dead],
        )
        .ends(0);
    }
    println!("garage: 6 of 6 generations, a node killed in each");
}
