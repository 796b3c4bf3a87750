//! The project of docker-compose: its name, its folder, and the file that goes over `docker-compose.cluster.yml`.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::PathBuf,
    process::Command,
};

use phalanx_tests::{
    docker::{compose, docker, must, tried},
    node::free_port,
};
use serde_json::{Map, Value, json};

use super::{NodeOptions, Options, Ways, leftovers};

/// Where a node listens for other nodes, in its container.
const PEER_PORT: u16 = 7000;
/// The longest path of a Unix socket, in bytes (unix(7)).
const SOCKET_PATH_MAX: usize = 107;

/// What is known of a node before there is a container of it.
pub(super) struct Plan {
    pub(super) name: String,
    pub(super) options: NodeOptions,
    pub(super) data: PathBuf,
    pub(super) proxy: SocketAddr,
    admin: SocketAddr,
    /// Where other nodes reach it.
    pub(super) advertise: String,
    /// Which member it joins by, if it does not form the cluster.
    pub(super) join: Option<String>,
}

/// The project.
pub(super) struct Project {
    pub(super) name: String,
    pub(super) dir: PathBuf,
    image: String,
    environment: Map<String, Value>,
    origins: bool,
    /// The third number of the nodes' network, `10.213.N.0/24`.
    net: u8,
    pub(super) plans: Vec<Plan>,
}

impl Project {
    /// Without nodes.
    pub(super) fn new(options: &Options) -> Self {
        let name = leftovers::name();
        let dir = leftovers::dir(&name);
        // For this user alone, as a node's own folder is: there are keys in it.
        let made = fs::DirBuilder::new().mode(0o700).create(&dir);
        made.and_then(|()| fs::create_dir(dir.join("shared")))
            .unwrap_or_else(|error| panic!("make {}: {error}", dir.display()));
        let environment = options.environment.iter().map(|(key, value)| (key.clone(), json!(value)));
        // Different processes begin at different ones.
        let net = std::process::id().to_le_bytes()[0];
        Self {
            name,
            dir,
            image: options.image.clone(),
            environment: environment.collect(),
            origins: options.origins,
            net,
            plans: vec![],
        }
    }

    /// The address of this machine among the nodes.
    pub(super) fn gateway(&self) -> IpAddr {
        Ipv4Addr::new(10, 213, self.net, 1).into()
    }

    /// The address of the node at this place among the nodes.
    pub(super) fn address(&self, place: usize) -> SocketAddr {
        let last = u8::try_from(11 + place).expect("a handful of nodes");
        SocketAddr::from(([10, 213, self.net, last], PEER_PORT))
    }

    /// Plans one more node, which forms the cluster or joins it by this member.
    pub(super) fn plan(&mut self, ways: Ways, options: NodeOptions, join: Option<String>) {
        let place = self.plans.len();
        let name = format!("node{}", place + 1);
        let data = options.data.clone().unwrap_or_else(|| self.dir.join(&name));
        let socket = data.join("admin.sock");
        let length = socket.as_os_str().len();
        assert!(length <= SOCKET_PATH_MAX, "{}: a socket can't have so long a path", socket.display());
        fs::create_dir_all(&data).unwrap_or_else(|error| panic!("{}: {error}", data.display()));
        let advertise = match ways {
            // Nothing but relays listens at that address.
            Ways::Relayed => SocketAddr::new(self.gateway(), free_port().port()).to_string(),
            Ways::Direct => format!("{name}.peers:{PEER_PORT}"),
        };
        let (proxy, admin) = (free_port(), free_port());
        self.plans.push(Plan { name, options, data, proxy, admin, advertise, join });
    }

    /// Makes the networks and the containers, which are not started, on a network that nobody has.
    pub(super) fn create(&mut self) {
        for _ in 0..=u8::MAX {
            self.write();
            match tried(self.compose().args(["up", "--no-start"]).args(self.services())) {
                Ok(_) => return,
                Err(why) if why.contains("overlaps") => self.renumber(),
                Err(why) => panic!("{why}"),
            }
        }
        panic!("every network 10.213.N.0/24 is taken: docker network ls");
    }

    /// What is started of the two files.
    pub(super) fn services(&self) -> impl Iterator<Item = &str> {
        let origins = if self.origins { &["origin1", "origin2"][..] } else { &[] };
        self.plans.iter().map(|plan| plan.name.as_str()).chain(origins.iter().copied())
    }

    fn renumber(&mut self) {
        let before = format!("{}:", self.gateway());
        self.net = self.net.wrapping_add(1);
        let after = format!("{}:", self.gateway());
        for plan in &mut self.plans {
            plan.advertise = plan.advertise.replace(&before, &after);
            plan.join = plan.join.as_ref().map(|join| join.replace(&before, &after));
        }
    }

    /// Makes a container of the node at this place, which has none; it is not started. Gives its id.
    pub(super) fn create_node(&self, place: usize) -> String {
        self.write();
        let name = &self.plans[place].name;
        must(self.compose().args(["up", "--no-start", "--no-deps", name]));
        self.id(name)
    }

    /// The container of this service.
    pub(super) fn id(&self, service: &str) -> String {
        // Of docker itself: docker-compose 1 lists none that is not started.
        let of = |label: &str, value: &str| format!("label=com.docker.compose.{label}={value}");
        let (project, service) = (of("project", &self.name), of("service", service));
        docker(&["ps", "-aq", "--no-trunc", "--filter", &project, "--filter", &service])
    }

    /// docker-compose on this project.
    pub(super) fn compose(&self) -> Command {
        let over = self.dir.join("over.json");
        let mut command = compose(&self.name, &[&over.to_string_lossy()]);
        command.env("PHALANX_IMAGE", &self.image);
        for (number, plan) in (1..).zip(&self.plans) {
            command.env(format!("NODE{number}_PROXY_PORT"), plan.proxy.port().to_string());
            command.env(format!("NODE{number}_ADMIN_PORT"), plan.admin.port().to_string());
        }
        command
    }

    /// The image of the node at this place.
    pub(super) fn image(&self, place: usize) -> &str {
        self.plans[place].options.image.as_ref().unwrap_or(&self.image)
    }

    /// Writes the file that goes over the other. JSON is YAML.
    fn write(&self) {
        let services =
            (0..self.plans.len()).map(|place| (self.plans[place].name.clone(), self.service(place)));
        let peers =
            json!({"internal": true, "ipam": {"config": [{"subnet": format!("10.213.{}.0/24", self.net)}]}});
        let file = json!({
            "version": "3.8",
            "services": services.collect::<Map<String, Value>>(),
            "networks": {"peers": peers},
        });
        let path = self.dir.join("over.json");
        fs::write(&path, file.to_string()).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// What is said of a node over, or in place of, what the other file says.
    fn service(&self, place: usize) -> Value {
        let plan = &self.plans[place];
        let Plan { name, options, data, advertise, .. } = plan;
        let mut environment = json!({
            "PHALANX_DATA": "/data",
            "PHALANX_PROXY": "0.0.0.0:8080",
            "PHALANX_PEER": format!("0.0.0.0:{PEER_PORT}"),
            "PHALANX_ADMIN": "0.0.0.0:9000",
            "PHALANX_JOIN_TOKEN_FILE": "/shared/join-token",
            "PHALANX_PROMOTE_AFTER": "1s",
            "PHALANX_NAME": name,
            "PHALANX_ADVERTISE": advertise,
            "PHALANX_ADMIN_ADVERTISE": format!("{name}:9000"),
            "PHALANX_BOOTSTRAP": match &plan.join {
                _ if options.is_alone => "none",
                Some(_) => "join",
                None => "init",
            },
            // Also where the other file has it: it is joined to, once it is wiped. Null takes it away.
            "PHALANX_JOIN": plan.join.as_ref().filter(|_| !options.is_alone),
        });
        let environment = environment.as_object_mut().expect("it is one");
        environment.extend(self.environment.clone());
        environment.extend(options.environment.iter().map(|(key, value)| (key.clone(), json!(value))));
        // Whose the folder is: so this process reaches the node's socket, and removes the files.
        let owner = fs::metadata(&self.dir).expect("it was made");
        let mut service = json!({
            "image": self.image(place),
            "user": format!("{}:{}", owner.uid(), owner.gid()),
            "hostname": name,
            "restart": "no",
            "stop_grace_period": "30s",
            "read_only": true,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges:true"],
            "environment": environment,
            // docker starts a process in the container for each look, which is more than the nodes themselves need.
            "healthcheck": {"interval": "1h"},
            "networks": {
                "clients": {},
                "peers": {"aliases": [format!("{name}.peers")], "ipv4_address": self.address(place).ip()},
            },
            "ports": [format!("{}:8080", plan.proxy), format!("{}:9000", plan.admin)],
            "volumes": [
                format!("{}:/data", data.display()),
                format!("{}:/shared", self.dir.join("shared").display()),
            ],
        });
        let service_object = service.as_object_mut().expect("it is one");
        service_object.extend(options.service.clone());
        service
    }
}
