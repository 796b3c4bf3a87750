use super::*;
use crate::{
    grpc::Ends,
    policy::test::{policy, respond_to},
};

const PAGES: &str = r#"{"type": "error-pages", "pages": {
    "404": {"html": "<p>{{code}} {{request_id}}", "json": "{\"is\": {{status}}}"},
    "5xx": {"html": "<p>{{title}}"}}}"#;

/// What a response of this status becomes, which is the gateway's problem or a target's, for one who accepts this.
fn told(doc: &str, status: u16, problem: Option<&'static str>, accept: &'static str) -> (String, String) {
    let body = "the body as it was, with the size of it";
    let mut response = Response::new(match problem {
        Some(_) => ResponseBody::full(Bytes::from_static(body.as_bytes())),
        None => ResponseBody::empty(),
    });
    if problem.is_none() {
        let body = ResponseBody::full(Bytes::from_static(body.as_bytes()));
        response.body_mut().wrap(|_| Ends::new(body));
    }
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/plain"),
        (header::CONTENT_LENGTH, "39"),
        (header::ETAG, "\"1\""),
        (header::RETRY_AFTER, "7"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    let prepare = |exchange: &mut Exchange<'_>| {
        exchange.headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
    };
    let response = respond_to(&*policy(doc).unwrap(), prepare, response, problem);
    assert_eq!(
        (response.status().as_u16(), &response.headers()[header::RETRY_AFTER]),
        (status, &HeaderValue::from_static("7"))
    );
    let kind = response.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned();
    let size = http_body::Body::size_hint(response.body()).exact().unwrap();
    let is_as_it_was = size == body.len() as u64;
    assert_eq!(response.headers().contains_key(header::ETAG), is_as_it_was);
    assert_eq!(response.headers().contains_key(header::CONTENT_LENGTH), is_as_it_was);
    (kind, if is_as_it_was { String::new() } else { size.to_string() })
}

fn page(kind: &str, text: &str) -> (String, String) {
    (kind.to_owned(), text.len().to_string())
}

fn as_it_was() -> (String, String) {
    ("text/plain".to_owned(), String::new())
}

const HTML: &str = "text/html; charset=utf-8";

#[test]
fn the_gateways_errors_have_pages_for_those_who_want_them() {
    assert_eq!(told(PAGES, 404, Some("no_route"), "text/html, */*;q=0.1"), page(HTML, "<p>no_route id"));
    assert_eq!(told(PAGES, 404, Some("no_route"), "*/*"), page("application/json", "{\"is\": 404}"));
    assert_eq!(told(PAGES, 502, Some("bad_gateway"), "text/html"), page(HTML, "<p>Bad Gateway"));
    // The problem document is what there is in JSON.
    assert_eq!(told(PAGES, 502, Some("bad_gateway"), "*/*"), as_it_was());
    assert_eq!(told(PAGES, 502, Some("bad_gateway"), "image/png"), as_it_was());
    assert_eq!(told(PAGES, 429, Some("exhausted"), "text/html"), as_it_was());
}

#[test]
fn those_of_targets_have_pages_where_that_is_wanted() {
    assert_eq!(told(PAGES, 404, None, "text/html"), as_it_was());
    let all = PAGES.replace("\"pages\"", "\"of\": \"all\", \"pages\"");
    assert_eq!(told(&all, 404, None, "text/html"), page(HTML, "<p>upstream id"));
    assert_eq!(told(&all, 500, None, "*/*"), page(HTML, "<p>Internal Server Error"));
    assert_eq!(told(&all, 500, None, "application/json"), as_it_was());
    assert_eq!(told(&all, 200, None, "text/html"), as_it_was());
}

#[test]
fn what_the_config_says_word_by_word_stays() {
    let all = r#"{"type": "error-pages", "of": "all", "pages": {"4xx": {"text": "a page"}}}"#;
    let given = |body: &'static str| {
        let mut response = Response::new(ResponseBody::full(Bytes::from_static(body.as_bytes())));
        *response.status_mut() = StatusCode::IM_A_TEAPOT;
        let response = respond_to(&*policy(all).unwrap(), |_| (), response, None);
        http_body::Body::size_hint(response.body()).exact().unwrap()
    };
    assert_eq!(given("short and stout"), 15);
    assert_eq!(given(""), 6);
}

#[test]
fn what_is_wrong_names_its_place() {
    for (doc, places) in [
        (r#"{"type": "error-pages", "pages": {}}"#, &["policies.p.pages"][..]),
        (
            r#"{"type": "error-pages", "pages": {"200": {"html": ""}, "404": {}, "6xx": {"text": ""}, "500": {"json": "{{path}}"}}}"#,
            &[
                "policies.p.pages.200",
                "policies.p.pages.404",
                "policies.p.pages.500.json",
                "policies.p.pages.6xx",
            ],
        ),
    ] {
        let found: Vec<String> =
            policy(doc).unwrap_err().into_iter().map(|violation| violation.path).collect();
        assert_eq!(found, places, "{doc}");
    }
}
