//! Promise 11: what is restored is exactly the backup, with a new epoch and a higher revision; and a cluster that has lost its
//! majority goes on from what one member has.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use phalanx_tests::{
    Cluster, Node, Origin, alone, http,
    invariant::{Restored, State},
    until,
};
use serde_json::json;

fn backup(cluster: &Cluster, place: usize, file: &Path) {
    let socket = cluster.nodes[place].data.join("admin.sock");
    let (socket, file) = (socket.to_str().expect("UTF-8"), file.to_str().expect("UTF-8"));
    cluster.gwctl(&["--socket", socket, "cluster", "backup", file]);
}

fn leads(cluster: &Cluster) {
    until("the restored node leads", || cluster.admin(0).is_ready().then_some(()));
}

/// What a client gets that shows this key.
fn with_key(node: &Node, key: &str) -> u16 {
    http::get(node.proxy, "/keyed", &[("x-api-key", key)]).expect("it answers").status
}

#[test]
fn a_backup_is_restored_exactly_with_a_new_epoch_and_a_higher_revision() {
    let _alone = alone();
    let (mut old, origin, dir) = (Cluster::form(3), Origin::start(), tempfile::tempdir().unwrap());
    let document = json!({
        "version": 1,
        "upstreams": {"origin": {"targets": [{"address": origin.address.to_string()}]}},
        "policies": {"keys": {"type": "api-key"}},
        "consumers": {"ann": {}},
        "routes": {
            "keyed": {"match": [{"path": {"prefix": "/keyed"}}], "upstream": "origin", "policies": ["keys"]},
            "open": {"upstream": "origin"},
        },
    });
    old.admin(1).must("POST", "/v1/apply?wait=all", &json!({"document": document.to_string()}));
    let key = old.admin(0).must("POST", "/v1/keys?wait=all", &json!({"consumer": "ann"}))["key"].clone();
    let key = key.as_str().unwrap();
    let (file, before) = (dir.path().join("backup"), State::of(old.admin(0)));
    backup(&old, 1, &file);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    // What comes after the backup is not in it.
    assert_eq!(old.admin(2).put_route("later", "10s").status, 200);
    // The revision is to be above this, too.
    let before = State { status: old.admin(0).status(), ..before };

    let mut new = Cluster::restored(&file);
    leads(&new);
    let restored = Restored { before, after: State::of(new.admin(0)) };
    assert_eq!(restored.wrong(), Vec::<String>::new());
    assert_eq!(restored.after.status["epoch"], 2);
    assert_eq!(with_key(&new.nodes[0], key), 200);
    assert_eq!(with_key(&new.nodes[0], "no key"), 401);

    // It is a cluster as any other: it grows, changes, and restarts.
    new.join();
    new.join();
    assert_eq!(new.admin(2).put_route("new", "10s").status, 200);
    let place = new.leader();
    new.nodes[place].kill();
    let others = new.others(place);
    new.leader_among(&others);
    new.nodes[place].start();
    until("it has the newest config", || new.admin(place).has_route("new").then_some(()));
    assert_eq!(with_key(&new.nodes[place], key), 200);

    // The old one goes on by itself, and neither learns of the other.
    assert_eq!(old.admin(1).put_route("older", "10s").status, 200);
    assert!(!old.admin(1).has_route("new") && !new.admin(place).has_route("older"));
    assert_eq!(old.admin(1).status()["members"].as_array().unwrap().len(), 3);

    // A second restore of what was restored has the next epoch.
    let second = dir.path().join("second");
    backup(&new, 0, &second);
    new.nodes.iter_mut().for_each(Node::kill);
    old.nodes.iter_mut().for_each(Node::kill);
    let third = Cluster::restored(&second);
    leads(&third);
    assert_eq!(third.admin(0).status()["epoch"], 3);
    assert!(third.admin(0).has_route("new"));
}

#[test]
fn a_cluster_that_lost_its_majority_goes_on_from_what_one_member_has() {
    let _alone = alone();
    let (mut old, origin) = (Cluster::form(3), Origin::start());
    old.route_to(&origin, 0);
    for n in 0..10 {
        assert_eq!(old.admin(n % 3).put_route(&format!("route-{n}"), "10s").status, 200);
    }
    until("the one has them all", || old.admin(2).has_route("route-9").then_some(()));
    let before = State::of(old.admin(2));
    for place in [0, 1] {
        old.nodes[place].kill();
        fs::remove_dir_all(&old.nodes[place].data).unwrap();
    }
    until("there is no quorum", || (old.admin(2).put_route("in-vain", "10s").status == 503).then_some(()));
    assert_eq!(http::get(old.nodes[2].proxy, "/", &[]).unwrap().status, 200);

    // While it runs its folder is not touched.
    let idle = Node::new(&old.nodes[2].program, old.nodes[2].data.with_file_name("restored"), None);
    let refused = idle.restore(&old.nodes[2].data);
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("is in use by a gwnode that runs"), "{said}");

    old.nodes[2].kill();
    let mut new = Cluster::restored(&old.nodes[2].data);
    leads(&new);
    assert_eq!(Restored { before, after: State::of(new.admin(0)) }.wrong(), Vec::<String>::new());
    assert_eq!(http::get(new.nodes[0].proxy, "/", &[]).unwrap().status, 200);
    new.join();
    new.join();
    assert_eq!(new.admin(1).put_route("after", "10s").status, 200);
}

#[test]
fn what_is_no_backup_or_has_no_empty_folder_is_refused_and_nothing_changes() {
    let _alone = alone();
    let (cluster, dir) = (Cluster::form(1), tempfile::tempdir().unwrap());
    assert_eq!(cluster.admin(0).put_route("a", "10s").status, 200);
    let file = dir.path().join("backup");
    backup(&cluster, 0, &file);
    let sound = fs::read(&file).unwrap();
    let node = Node::new(&cluster.nodes[0].program, dir.path().join("data"), None);
    let refused = |source: &Path| {
        let refused = node.restore(source);
        assert_eq!(refused.status.code(), Some(1));
        assert!(!node.data.join("identity.json").exists());
        String::from_utf8_lossy(&refused.stderr).into_owned()
    };
    for at in [0, 9, sound.len() / 2, sound.len() - 1] {
        let mut bytes = sound.clone();
        bytes[at] ^= 0x10;
        fs::write(&file, &bytes).unwrap();
        let said = refused(&file);
        assert!(said.contains(file.to_str().unwrap()) && said.contains("frame"), "{said}");
        fs::write(&file, &sound[..at]).unwrap();
        assert!(refused(&file).contains("frame"));
    }
    assert!(refused(&dir.path().join("none")).contains("No such file"));
    assert!(refused(dir.path()).contains("is no data folder of a node"));
    fs::write(&file, &sound).unwrap();
    fs::create_dir(&node.data).unwrap();
    fs::write(node.data.join("other"), "").unwrap();
    assert!(refused(&file).contains("is not empty (other is there)"));
    fs::remove_file(node.data.join("other")).unwrap();
    assert!(node.restore(&file).status.success());
    // And not over what was restored.
    let identity = fs::read(node.data.join("identity.json")).unwrap();
    assert!(!node.restore(&file).status.success());
    assert_eq!(fs::read(node.data.join("identity.json")).unwrap(), identity);
}
