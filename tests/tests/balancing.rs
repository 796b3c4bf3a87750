//! Whom nodes choose for a request, as processes under traffic while the config and names change.

use std::{collections::BTreeSet, net::SocketAddr};

use phalanx_tests::{
    Cluster, Origin, alone,
    dns::{Dns, Record},
    http, until,
};
use serde_json::{Value, json};

/// A node that asks this name server.
fn node_asking(dns: &Dns) -> Cluster {
    let mut cluster = Cluster::form(1);
    let node = &mut cluster.nodes[0];
    node.environment.insert("PHALANX_DNS_SERVERS".to_owned(), dns.address.to_string());
    assert!(node.stop().success());
    node.start();
    until("it leads", || node.admin.is_ready().then_some(()));
    cluster
}

/// Routes everything to this upstream.
fn route_to(cluster: &Cluster, upstream: Value) {
    let document = json!({"version": 1, "upstreams": {"u": upstream}, "routes": {"all": {"upstream": "u"}}});
    let applied =
        cluster.admin(0).must("POST", "/v1/apply?wait=all", &json!({"document": document.to_string()}));
    assert_eq!(applied["lagging"], Value::Null, "{applied}");
}

/// Which of the origins answer some requests in a row.
fn answering(proxy: SocketAddr, origins: &[&Origin]) -> BTreeSet<usize> {
    let before: Vec<usize> = origins.iter().map(|origin| origin.served()).collect();
    for _ in 0..8 {
        assert_eq!(http::get(proxy, "/", &[]).expect("the node answers").status, 200);
    }
    (0..origins.len()).filter(|at| origins[*at].served() > before[*at]).collect()
}

#[test]
fn names_are_followed_in_the_background() {
    let _alone = alone();
    // One port at several addresses, as the pods of a service have.
    let first = Origin::start();
    let port = first.address.port();
    let at = |host: &str| Origin::start_on(SocketAddr::new(host.parse().expect("an address"), port));
    let (second, third) = (at("127.0.0.2"), at("127.0.0.3"));
    let origins = [&first, &second, &third];
    let dns = Dns::start();
    let cluster = node_asking(&dns);
    let proxy = cluster.nodes[0].proxy;
    dns.set_addresses("orders.test", &["127.0.0.1", "127.0.0.2"]);

    // A request that comes before the first answer waits for it.
    route_to(&cluster, json!({"targets": [{"address": format!("orders.test:{port}")}]}));
    assert_eq!(answering(proxy, &origins), BTreeSet::from([0, 1]));

    // Without an answer what was known stays.
    dns.silence(true);
    let asked = dns.asked();
    until("it is asked again, in vain", || (dns.asked() > asked).then_some(()));
    assert_eq!(answering(proxy, &origins), BTreeSet::from([0, 1]));
    dns.set_addresses("orders.test", &["127.0.0.2", "127.0.0.3"]);
    dns.silence(false);
    until("the new addresses are used", || {
        (answering(proxy, &origins) == BTreeSet::from([1, 2])).then_some(())
    });

    // A name that is gone is no reason to leave where it led to.
    route_to(&cluster, json!({"targets": [{"address": format!("gone.test:{port}")}]}));
    let answer = http::get(proxy, "/", &[]).expect("the node answers");
    assert_eq!((answer.status, &answer.json()["code"]), (503, &json!("unavailable")));
    dns.set_addresses("gone.test", &["127.0.0.3"]);
    until("the name that was not there is used", || {
        (http::get(proxy, "/", &[]).expect("the node answers").status == 200).then_some(())
    });
}

#[test]
fn services_say_hosts_ports_and_weights() {
    let _alone = alone();
    let (heavy, light, v6) = (Origin::start(), Origin::start(), Origin::start_at("::1".parse().expect("v6")));
    let dns = Dns::start();
    let cluster = node_asking(&dns);
    let service = |weight, origin: &Origin, host: &str| Record::Service {
        priority: 0,
        weight,
        port: origin.address.port(),
        host: host.to_owned(),
    };
    dns.set_addresses("pod.test", &["127.0.0.1"]);
    dns.set_addresses("six.test", &["::1"]);
    dns.set("_http._tcp.orders.test", &[service(3, &heavy, "pod.test"), service(1, &light, "pod.test")]);
    route_to(&cluster, json!({"targets": [{"address": "_http._tcp.orders.test"}]}));
    for _ in 0..40 {
        assert_eq!(http::get(cluster.nodes[0].proxy, "/", &[]).expect("the node answers").status, 200);
    }
    assert_eq!((heavy.served(), light.served()), (30, 10));

    dns.set("_http._tcp.orders.test", &[service(1, &v6, "six.test")]);
    until("the new place is used", || {
        (answering(cluster.nodes[0].proxy, &[&heavy, &light, &v6]) == BTreeSet::from([2])).then_some(())
    });
}

/// Which of the origins answers a request with these headers through the node at this place, and the cookie that it sets.
fn answers(
    cluster: &Cluster,
    place: usize,
    origins: &[Origin],
    target: &str,
    headers: &[(&str, &str)],
) -> (usize, Option<String>) {
    let before: Vec<usize> = origins.iter().map(Origin::served).collect();
    let answer = http::get(cluster.nodes[place].proxy, target, headers).expect("the node answers");
    assert_eq!(answer.status, 200);
    let cookie = answer.header("set-cookie").and_then(|set| set.split(';').next()).map(str::to_owned);
    let at = (0..origins.len()).find(|at| origins[*at].served() > before[*at]);
    (at.expect("an origin answers"), cookie)
}

#[test]
fn cookies_and_keys_lead_to_the_same_target_on_all_nodes_while_the_config_changes() {
    let _alone = alone();
    let cluster = Cluster::form(2);
    let origins = [Origin::start(), Origin::start(), Origin::start()];
    let apply = |attempts: u32, targets: &[Origin]| {
        let targets: Vec<Value> =
            targets.iter().map(|origin| json!({"address": origin.address.to_string()})).collect();
        let retry = json!({"attempts": attempts});
        let document = json!({
            "version": 1,
            "upstreams": {
                "carts": {"balance": {"maglev": {"by": {"header": "x-user"}}}, "targets": targets, "retry": retry},
                "shop": {"balance": "p2c", "sticky": {"cookie": "to"}, "targets": targets, "retry": retry},
            },
            "routes": {
                "carts": {"match": [{"path": {"prefix": "/carts"}}], "upstream": "carts"},
                "shop": {"match": [{"path": {"prefix": "/shop"}}], "upstream": "shop"},
            },
        });
        cluster.admin(0).must("POST", "/v1/apply?wait=all", &json!({"document": document.to_string()}));
    };
    apply(2, &origins);
    // So many that each target has some, whatever the secret that they are spread by.
    let users: Vec<String> = (0..48).map(|user| format!("user-{user}")).collect();
    let of_user = |place, user: &str| answers(&cluster, place, &origins, "/carts", &[("x-user", user)]).0;
    let led_to: Vec<usize> = users.iter().map(|user| of_user(0, user)).collect();
    assert!((0..3).all(|at| led_to.contains(&at)), "{led_to:?}");
    let mut cookies: [Option<String>; 3] = [None, None, None];
    until("there is a cookie of each", || {
        let (at, cookie) = answers(&cluster, 0, &origins, "/shop", &[]);
        cookies[at] = cookie;
        cookies.iter().all(Option::is_some).then_some(())
    });
    let cookies = cookies.map(Option::unwrap_or_default);

    for change in 0..6 {
        apply(change, &origins);
        for place in 0..2 {
            let now: Vec<usize> = users.iter().map(|user| of_user(place, user)).collect();
            assert_eq!(now, led_to);
            for (at, cookie) in cookies.iter().enumerate() {
                let answered = answers(&cluster, place, &origins, "/shop", &[("cookie", cookie)]);
                assert_eq!(answered, (at, None), "and no other cookie is set");
            }
        }
    }
    apply(2, &origins[..2]);
    let (at, cookie) = answers(&cluster, 1, &origins, "/shop", &[("cookie", &cookies[2])]);
    assert!(
        at < 2 && cookie.as_ref() == Some(&cookies[at]),
        "who has the cookie of one that is gone gets another"
    );
}
