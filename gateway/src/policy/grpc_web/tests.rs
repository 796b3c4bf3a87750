//! What the policy makes of requests and of their answers.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::BodyExt;

use super::*;
use crate::policy::test::{policy, respond, run};

fn web() -> Arc<dyn Policy> {
    policy(r#"{"type":"grpc-web"}"#).unwrap()
}

fn asked(exchange: &mut Exchange<'_>, kind: &'static str, accept: Option<&'static str>) {
    exchange.method = &Method::POST;
    exchange.headers.insert("content-type", HeaderValue::from_static(kind));
    accept
        .into_iter()
        .for_each(|kind| drop(exchange.headers.insert("accept", HeaderValue::from_static(kind))));
}

#[test]
fn a_request_becomes_one_of_grpc() {
    for (kind, grpc, text) in [
        ("application/grpc-web", "application/grpc", false),
        ("application/grpc-web+proto", "application/grpc+proto", false),
        ("application/grpc-web-text", "application/grpc", true),
        ("Application/gRPC-Web-Text+proto", "application/grpc+proto", true),
        ("application/grpc", "application/grpc", false),
        ("application/grpc-webs", "application/grpc-webs", false),
    ] {
        let is_web = kind != grpc;
        crate::policy::test::run_in(
            &crate::plan::Plan::empty().install(&crate::policy::test::config(&[])).unwrap(),
            &*web(),
            |exchange| asked(exchange, kind, None),
            |exchange| {
                assert_eq!(exchange.headers["content-type"], grpc);
                assert_eq!(
                    (exchange.after.from_base64, exchange.after.wants_trailers),
                    (text, is_web),
                    "{kind}"
                );
                assert_eq!(exchange.after.layers.len(), usize::from(is_web));
            },
        )
        .unwrap();
    }
    run(&*web(), |exchange| drop(exchange.headers.insert("content-type", HeaderValue::from_static(WEB))))
        .unwrap();
}

async fn answered(
    kind: &'static str,
    accept: Option<&'static str>,
    head: &[(&'static str, &'static str)],
    body: &'static [u8],
) -> (HeaderMap, Bytes) {
    let mut response = Response::new(ResponseBody::full(Bytes::from_static(body)));
    for (name, value) in head {
        response.headers_mut().insert(*name, HeaderValue::from_static(value));
    }
    let response = respond(&*web(), |exchange| asked(exchange, kind, accept), response);
    assert_eq!(response.status(), StatusCode::OK);
    let (head, body) = response.into_parts();
    (head.headers, body.collect().await.unwrap().to_bytes())
}

#[tokio::test]
async fn an_answer_becomes_one_of_grpc_web() {
    let grpc = [("content-type", "application/grpc+proto"), ("content-length", "2")];
    let (headers, body) = answered("application/grpc-web+proto", None, &grpc, b"ab").await;
    assert_eq!(
        (&headers["content-type"], &body[..]),
        (&HeaderValue::from_static("application/grpc-web+proto"), &b"ab"[..])
    );
    assert!(!headers.contains_key("content-length"));
    for (kind, accept) in [("application/grpc-web-text", None), (WEB, Some("application/grpc-web-text, */*"))]
    {
        let (headers, body) = answered(kind, accept, &grpc, b"ab").await;
        assert_eq!(headers["content-type"], "application/grpc-web-text+proto");
        assert_eq!(body, "YWI=");
    }
}

#[tokio::test]
async fn what_is_no_grpc_stays_as_it_is() {
    for head in [&[("content-type", "text/html")][..], &[("content-type", "application/grpc-web")], &[]] {
        let (headers, body) = answered("application/grpc-web-text", None, head, b"ab").await;
        assert_eq!((headers.len(), &body[..]), (head.len(), &b"ab"[..]));
    }
    let alone = [("content-type", "application/grpc"), ("grpc-status", "12")];
    let (headers, body) = answered("application/grpc-web-text", None, &alone, b"").await;
    assert_eq!(headers["grpc-status"], "12");
    assert!(body.is_empty());
}
