use super::*;
use crate::policy::test::{policy, respond};

static GET: Method = Method::GET;
static OPTIONS: Method = Method::OPTIONS;

/// What a response tells after a request with these headers, `name: value` by lines.
fn told(doc: &str, method: &'static Method, request: &str, response: Response<ResponseBody>) -> Vec<String> {
    let policy = policy(doc).unwrap();
    let prepare = |exchange: &mut Exchange<'_>| {
        exchange.method = method;
        for line in request.lines() {
            let (name, value) = line.split_once(": ").unwrap();
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            exchange.headers.append(name, HeaderValue::from_str(value).unwrap());
        }
    };
    let response = respond(&*policy, prepare, response);
    let mut lines = vec![response.status().as_u16().to_string()];
    let cors = |name: &&HeaderName| name.as_str().starts_with("access-control-") || *name == header::VARY;
    for name in response.headers().keys().filter(cors) {
        let values: Vec<&str> =
            response.headers().get_all(name).iter().map(|value| value.to_str().unwrap()).collect();
        lines.push(format!("{name}: {}", values.join("|")));
    }
    lines[1..].sort();
    lines
}

fn empty() -> Response<ResponseBody> {
    Response::new(ResponseBody::empty())
}

const SHOP: &str = r#"{"type": "cors", "origins": ["https://shop.example"], "methods": ["PUT", "DELETE"],
    "headers": ["X-Cart"], "expose": ["X-Total"], "credentials": true, "max_age": "1h"}"#;

#[test]
fn a_preflight_is_answered_with_what_the_page_may() {
    let asks = "origin: https://shop.example\naccess-control-request-method: PUT";
    let allowed = told(SHOP, &OPTIONS, asks, empty());
    assert_eq!(
        allowed,
        [
            "204",
            "access-control-allow-credentials: true",
            "access-control-allow-headers: X-Cart",
            "access-control-allow-methods: PUT, DELETE",
            "access-control-allow-origin: https://shop.example",
            "access-control-max-age: 3600",
            "vary: origin"
        ]
    );
    let foreign = asks.replace("shop", "evil");
    assert_eq!(told(SHOP, &OPTIONS, &foreign, empty()), ["204", "vary: origin"]);
    // Not a preflight without both headers.
    assert_eq!(told(SHOP, &OPTIONS, "origin: https://evil.example", empty())[0], "200");
    assert_eq!(told(SHOP, &OPTIONS, "access-control-request-method: PUT", empty())[0], "200");
}

#[test]
fn a_response_tells_who_may_read_it_and_a_target_does_not() {
    let of_target = || {
        let mut response = empty();
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, ANY);
        headers.insert(header::VARY, HeaderValue::from_static("cookie"));
        response
    };
    let get = |origin: &str| told(SHOP, &GET, origin, of_target());
    assert_eq!(
        get("origin: https://shop.example"),
        [
            "200",
            "access-control-allow-credentials: true",
            "access-control-allow-origin: https://shop.example",
            "access-control-expose-headers: X-Total",
            "vary: cookie|origin"
        ]
    );
    assert_eq!(get("origin: https://evil.example"), ["200", "vary: cookie|origin"]);
    assert_eq!(get(""), ["200", "vary: cookie|origin"]);
}

#[test]
fn all_may_read_what_needs_no_credentials() {
    let any = r#"{"type": "cors", "origins": ["*"], "methods": ["*"], "headers": ["*", "authorization"]}"#;
    let everyone = ["200", "access-control-allow-origin: *"];
    assert_eq!(told(any, &GET, "origin: https://a.example", empty()), everyone);
    assert_eq!(told(any, &GET, "", empty()), everyone);
    let asks = "origin: null\naccess-control-request-method: PUT\naccess-control-request-headers: x-a";
    assert_eq!(
        told(any, &OPTIONS, asks, empty()),
        [
            "204",
            "access-control-allow-headers: *, authorization",
            "access-control-allow-methods: *",
            "access-control-allow-origin: *",
            "access-control-max-age: 5"
        ]
    );
}

#[test]
fn with_credentials_an_asterisk_is_what_the_page_asks_for() {
    let all = r#"{"type": "cors", "origins": ["https://*.example"], "methods": ["*"], "headers": ["*"], "credentials": true}"#;
    let asks = "origin: https://a.example\naccess-control-request-method: PUT\naccess-control-request-headers: x-a, x-b";
    let allowed = told(all, &OPTIONS, asks, empty());
    assert!(allowed.contains(&"access-control-allow-methods: PUT".to_owned()), "{allowed:?}");
    assert!(allowed.contains(&"access-control-allow-headers: x-a, x-b".to_owned()), "{allowed:?}");
    assert_eq!(
        allowed.last().unwrap(),
        "vary: origin|access-control-request-method|access-control-request-headers"
    );
    let odd = told(all, &OPTIONS, &asks.replace("x-b", "x b"), empty());
    assert!(!odd.iter().any(|line| line.starts_with("access-control-allow-headers")), "{odd:?}");
}

#[test]
fn foreign_requests_are_refused_where_that_is_wanted() {
    let strict = r#"{"type": "cors", "origins": ["https://shop.example"], "foreign": "refuse"}"#;
    let status = |method, request: &str| told(strict, method, request, empty())[0].clone();
    assert_eq!(status(&GET, "origin: https://evil.example"), "403");
    assert_eq!(status(&GET, "origin: null"), "403");
    assert_eq!(status(&OPTIONS, "origin: https://evil.example\naccess-control-request-method: GET"), "403");
    assert_eq!(status(&GET, "origin: https://shop.example"), "200");
    // Its own pages, and what is no page at all.
    assert_eq!(status(&GET, "origin: https://h:8443"), "200");
    assert_eq!(status(&GET, ""), "200");
}

#[test]
fn an_error_of_the_gateway_can_be_read_too() {
    let policy = policy(SHOP).unwrap();
    let origin = HeaderValue::from_static("https://shop.example");
    let prepare = |exchange: &mut Exchange<'_>| drop(exchange.headers.insert(header::ORIGIN, origin));
    let mut response = empty();
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    let response = respond(&*policy, prepare, response);
    assert_eq!(response.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], "https://shop.example");
}

#[test]
fn what_is_wrong_names_its_place() {
    for (doc, places) in [
        (r#"{"type": "cors"}"#, &["policies.p"][..]),
        (r#"{"type": "cors", "origins": []}"#, &["policies.p.origins"]),
        (r#"{"type": "cors", "origins": ["*"], "credentials": true}"#, &["policies.p.credentials"]),
        (
            r#"{"type": "cors", "origins": ["https://a"], "methods": ["A B"], "headers": ["x", "a b"], "expose": ["*"],
                "credentials": true, "max_age": "2d"}"#,
            &["policies.p.max_age", "policies.p.methods[0]", "policies.p.headers[1]", "policies.p.expose"],
        ),
    ] {
        let found: Vec<String> =
            policy(doc).unwrap_err().into_iter().map(|violation| violation.path).collect();
        assert_eq!(found, places, "{doc}");
    }
}
