//! Which TCP route would take a connection, and for each other of its listener why it would not.

use model::{
    api::{TcpCandidate, TcpExplainRequest, TcpExplanation},
    tcp_route::PROXY_TLS,
};

use crate::plan::{
    Plan,
    tcp::{self, CompiledTcpRoute},
};

/// The most candidates in an answer.
const CANDIDATES_MAX: usize = 100;

impl Plan {
    /// Explains what would become of a connection. Looks at every TCP route: for people, not for traffic.
    pub fn explain_tcp(&self, request: &TcpExplainRequest) -> TcpExplanation {
        let listener = request.listener.as_deref().unwrap_or(PROXY_TLS);
        let host = request.host.as_deref().map(tcp::host);
        let on = self.tcp.on(listener);
        let is_tls = listener == PROXY_TLS;
        let (route, action) = if is_tls {
            match self.tcp.of_tls(host.as_deref(), &self.certificates) {
                Some(route) => (Some(route), route.to.in_words()),
                None if self.certificates.has_any_for(host.as_deref()) => {
                    (None, "its TLS is ended here, and its requests go by their routes".to_owned())
                }
                None => (None, "it is refused: neither a TCP route nor a certificate is for it".to_owned()),
            }
        } else {
            match on.and_then(|on| on.of(host.as_deref())) {
                Some(route) => (Some(route), route.to.in_words()),
                None => (None, "it is closed: no TCP route takes it".to_owned()),
            }
        };
        TcpExplanation {
            revision: self.revision(),
            has_listener: self.around.has_listener(listener),
            reads_hello: is_tls || on.is_some_and(|on| on.reads_hello()),
            route: route.map(|route| route.name.clone()),
            action,
            candidates: self.tcp_candidates(listener, host.as_deref(), route.map(|route| &**route)),
            listener: listener.to_owned(),
            host,
        }
    }

    fn tcp_candidates(
        &self,
        listener: &str,
        host: Option<&str>,
        winner: Option<&CompiledTcpRoute>,
    ) -> Vec<TcpCandidate> {
        let of_listener = self.tcp.all().filter(|route| route.spec.on().any(|on| on == listener));
        let mut all: Vec<_> = of_listener
            .flat_map(|route| route.spec.patterns().map(move |pattern| (pattern, route)))
            .collect();
        // Those that are for the host first; of these the exact one, then by length, and what takes any last.
        let rank = |pattern: &str| {
            (!takes(pattern, host), pattern == "*", pattern.starts_with('*'), usize::MAX - pattern.len())
        };
        all.sort_by_key(|(pattern, route)| (rank(pattern), route.created));
        all.truncate(CANDIDATES_MAX);
        let mut has_won = false;
        let candidates = all.into_iter().map(|(pattern, route)| {
            let failed = if !takes(pattern, host) {
                Some(match host {
                    Some(host) => format!("host: want {pattern}, have {host}"),
                    None => format!("host: want {pattern}, have none"),
                })
            } else if !has_won && winner.is_some_and(|winner| winner.name == route.name) {
                has_won = true;
                None
            } else {
                Some(match winner {
                    Some(winner) if has_won => format!("outranked by {}", winner.name),
                    _ => "a certificate is for the host, and more exactly".to_owned(),
                })
            };
            TcpCandidate { route: route.name.clone(), host: pattern.to_owned(), failed }
        });
        candidates.collect()
    }
}

/// Whether the pattern is for this host, or for any.
fn takes(pattern: &str, host: Option<&str>) -> bool {
    match (pattern, pattern.strip_prefix('*'), host) {
        ("*", ..) => true,
        (_, _, None) => false,
        (_, Some(behind), Some(host)) => {
            host.len() > behind.len() && host.ends_with(behind) && !host.starts_with('.')
        }
        (pattern, None, Some(host)) => pattern == host,
    }
}

#[cfg(test)]
mod tests {
    use model::{Config, Kind, Name, Revision, config::Stored};

    use super::*;
    use crate::tls::certificate::tests::made;

    fn plan() -> Plan {
        let mut config = Config::default();
        let mut put = |kind, name: &str, doc: &str| {
            let stored = Stored { created: Revision(1), changed: Revision(1), doc: doc.as_bytes().into() };
            config.insert(kind, Name::new(name).unwrap(), stored);
        };
        put(Kind::Upstream, "u", r#"{"targets":[{"address":"127.0.0.1:1"}]}"#);
        put(Kind::TcpRoute, "exact", r#"{"hosts":["db.example"],"upstream":"u"}"#);
        put(Kind::TcpRoute, "wild", r#"{"hosts":["*.example"],"upstream":"u"}"#);
        put(Kind::TcpRoute, "rest", r#"{"listeners":["proxy-tls","redis"],"upstream":"u"}"#);
        let certificate = serde_json::to_string(&made(&["www.example", "*.example"], false)).unwrap();
        put(Kind::Certificate, "c", &certificate);
        config.revision = Revision(3);
        Plan::empty().install(&config).unwrap()
    }

    #[test]
    fn each_candidate_has_its_reason_and_certificates_have_their_say() {
        let plan = plan();
        let ask = |listener: Option<&str>, host: Option<&str>| {
            plan.explain_tcp(&TcpExplainRequest {
                listener: listener.map(str::to_owned),
                host: host.map(str::to_owned),
            })
        };
        let route = |told: &TcpExplanation| told.route.as_ref().map(|name| name.to_string());
        let told = ask(None, Some("DB.example."));
        assert_eq!((route(&told).as_deref(), &*told.action), (Some("exact"), "forward to u"));
        let reasons: Vec<_> = told.candidates.iter().map(|one| (&*one.host, one.failed.as_deref())).collect();
        assert_eq!(
            reasons,
            [
                ("db.example", None),
                ("*.example", Some("outranked by exact")),
                ("*", Some("outranked by exact"))
            ]
        );
        // A certificate for exactly that host; one that is as exact as the route.
        let told = ask(None, Some("www.example"));
        assert_eq!(route(&told), None);
        assert!(told.action.contains("ended here") && told.candidates[1].failed.is_some(), "{told:?}");
        assert_eq!(route(&ask(None, Some("x.example"))).as_deref(), Some("wild"));
        assert_eq!(route(&ask(None, Some("example.org"))).as_deref(), Some("rest"));
        assert_eq!(route(&ask(None, None)).as_deref(), Some("rest"));
        let told = ask(Some("redis"), None);
        assert_eq!((route(&told).as_deref(), told.reads_hello), (Some("rest"), false));
        assert!(ask(Some("nope"), None).action.contains("closed"));
    }
}
