//! Where this node serves clients of TCP routes.

use std::net::SocketAddr;

use model::{Name, tcp_route::PROXY_TLS};

/// Each listener that is given, as `postgres=0.0.0.0:5432`, by its name; adds what is wrong with them.
pub(super) fn listeners(given: &[String], wrong: &mut Vec<String>) -> Vec<(Name, SocketAddr)> {
    let mut all: Vec<(Name, SocketAddr)> = Vec::with_capacity(given.len());
    for text in given {
        let read = text
            .split_once('=')
            .and_then(|(name, address)| Some((Name::new(name.trim()).ok()?, address.trim().parse().ok()?)));
        match read {
            None => wrong.push(format!("tcp: {text:?} is no NAME=ADDRESS:PORT, as postgres=0.0.0.0:5432")),
            Some((name, _)) if name.as_str() == PROXY_TLS => {
                wrong.push(format!("tcp: {name} is what the listener of proxy_tls is called"));
            }
            Some((name, _)) if all.iter().any(|(other, _)| *other == name) => {
                wrong.push(format!("tcp: {name} is there twice"));
            }
            Some(listener) => all.push(listener),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::Given;

    #[test]
    fn listeners_of_tcp_routes_have_names() {
        let told = |texts: &[&str]| Given {
            tcp: texts.iter().map(|&text| text.to_owned()).collect(),
            ..Given::default()
        };
        let tcp = told(&["postgres=0.0.0.0:5432", "redis = [::1]:6379"]).check().unwrap().tcp;
        let tcp: Vec<_> = tcp.iter().map(|(name, address)| format!("{name} {address}")).collect();
        assert_eq!(tcp, ["postgres 0.0.0.0:5432", "redis [::1]:6379"]);
        let twice = told(&["a=127.0.0.1:1", "a=127.0.0.1:2"]).check().unwrap_err();
        assert!(twice.to_string().contains("tcp: a is there twice"), "{twice}");
    }
}
