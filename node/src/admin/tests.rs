//! The API over the socket of a real node, and its small parts.

use std::path::Path;

use http::HeaderMap;
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::net::UnixStream;

use super::*;

#[test]
fn a_query_is_decoded() {
    let read = read_query("a=1&b=x%20y+z&&c&d=%zz");
    let want = [("a", "1"), ("b", "x y z"), ("c", ""), ("d", "%zz")];
    assert_eq!(read, want.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

type Got = (StatusCode, HeaderMap, Value);

async fn ask(
    data: &Path,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: Value,
) -> anyhow::Result<Got> {
    let stream = UnixStream::connect(data.join("admin.sock")).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
    let request = request.body(Full::new(body))?;
    let exchange = async move {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        let body = serde_json::from_slice(&body)
            .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&body).into_owned()));
        anyhow::Ok((head.status, head.headers, body))
    };
    let (answered, _) = tokio::join!(exchange, connection);
    answered
}

/// Asks until the answer has this status.
async fn until(data: &Path, path: &str, status: StatusCode) -> Got {
    let asking = async {
        loop {
            match ask(data, Method::GET, path, &[], Value::Null).await {
                Ok(got) if got.0 == status => return got,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), asking).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_formed_and_configured_over_its_socket() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut settings = crate::settings::Given::default().check().unwrap();
    settings.data = data.clone();
    for address in [&mut settings.proxy, &mut settings.peer, &mut settings.admin] {
        *address = "127.0.0.1:0".parse().unwrap();
    }
    settings.workers = 1;
    settings.advertise = None;
    let running = tokio::spawn(crate::node::run(settings));
    until(&data, "/healthz", StatusCode::OK).await;

    // In no cluster: it says so, and how to change that.
    let (status, headers, problem) = ask(&data, Method::GET, "/v1/routes", &[], Value::Null).await.unwrap();
    assert_eq!((status, &problem["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("not_formed")));
    assert_eq!(headers["content-type"], "application/problem+json");
    until(&data, "/readyz", StatusCode::SERVICE_UNAVAILABLE).await;
    let nowhere = ask(&data, Method::POST, "/v1/cluster/init", &[], json!({})).await.unwrap();
    assert_eq!(nowhere.0, StatusCode::BAD_REQUEST, "{}", nowhere.2);
    let init = json!({"advertise": "127.0.0.1:7000"});
    let (status, _, formed) = ask(&data, Method::POST, "/v1/cluster/init", &[], init).await.unwrap();
    assert_eq!(status, StatusCode::CREATED, "{formed}");
    assert_eq!(formed["join_address"], "127.0.0.1:7000");
    until(&data, "/readyz", StatusCode::OK).await;

    // One object: made, read, read again, changed on a condition, and what is wrong with it told.
    let target = json!({"targets": [{"address": "127.0.0.1:9"}]});
    let put = |headers, body| ask(&data, Method::PUT, "/v1/upstreams/u?wait=all", headers, body);
    let (status, _, made) = put(&[("if-none-match", "*")], target.clone()).await.unwrap();
    assert_eq!((status, &made["changed"]), (StatusCode::OK, &json!(true)), "{made}");
    assert_eq!(made["steps"][0]["verb"], "create");
    let (_, headers, object) = ask(&data, Method::GET, "/v1/upstreams/u", &[], Value::Null).await.unwrap();
    assert_eq!(object["spec"]["targets"], target["targets"]);
    let tag = headers["etag"].to_str().unwrap();
    assert_eq!(tag, format!("\"{}\"", made["revision"]));
    let same =
        ask(&data, Method::GET, "/v1/upstreams/u", &[("if-none-match", tag)], Value::Null).await.unwrap();
    assert_eq!(same.0, StatusCode::NOT_MODIFIED);
    let again = put(&[("if-none-match", "*")], target.clone()).await.unwrap();
    assert_eq!(again.0, StatusCode::PRECONDITION_FAILED, "{}", again.2);
    let stale = put(&[("if-match", "\"999\"")], target.clone()).await.unwrap();
    assert_eq!(stale.0, StatusCode::PRECONDITION_FAILED, "{}", stale.2);
    let unknown = put(&[], json!({"targets": [{"address": "127.0.0.1:9"}], "colour": "red"})).await.unwrap();
    assert_eq!(unknown.0, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(unknown.2["violations"].to_string().contains("colour"), "{}", unknown.2);
    let linear = "/v1/upstreams?consistency=linearizable";
    assert_eq!(ask(&data, Method::GET, linear, &[], Value::Null).await.unwrap().0, StatusCode::OK);

    // A document whose references dangle changes nothing; a good one does, and is pruned again.
    let apply = |document: Value, prune: bool| {
        let body = json!({"document": document.to_string(), "prune": prune, "dry_run": false});
        ask(&data, Method::POST, "/v1/apply", &[], body)
    };
    let dangling =
        json!({"version": 1, "routes": {"r": {"match": [{"path": {"prefix": "/"}}], "upstream": "none"}}});
    assert_eq!(apply(dangling, false).await.unwrap().0, StatusCode::UNPROCESSABLE_ENTITY);
    let good = json!({
        "version": 1,
        "consumers": {"alice": {}},
        "routes": {"r": {"match": [{"path": {"prefix": "/"}}], "respond": {"status": 204}}},
    });
    let (status, _, applied) = apply(good, true).await.unwrap();
    assert_eq!(status, StatusCode::OK, "{applied}");
    assert_eq!(applied["steps"].as_array().unwrap().len(), 3, "{applied}");
    assert_eq!(
        ask(&data, Method::GET, "/v1/upstreams/u", &[], Value::Null).await.unwrap().0,
        StatusCode::NOT_FOUND
    );

    // A document made for a revision that has passed changes nothing, and says so in a dry run too; the newest is a base.
    let on = |base: &str, dry_run: bool| {
        let document = json!({"version": 1, "consumers": {"carol": {}}}).to_string();
        let (data, headers) = (data.clone(), [("if-match".to_owned(), format!("\"{base}\""))]);
        async move {
            let headers = headers.each_ref().map(|(name, value)| (name.as_str(), value.as_str()));
            let body = json!({"document": document, "dry_run": dry_run});
            ask(&data, Method::POST, "/v1/apply", &headers, body).await.unwrap()
        }
    };
    let newest = applied["revision"].to_string();
    for dry_run in [true, false] {
        let (status, _, problem) = on("1", dry_run).await;
        assert_eq!((status, &problem["code"]), (StatusCode::PRECONDITION_FAILED, &json!("conflict")));
        assert_eq!(on("x", dry_run).await.0, StatusCode::BAD_REQUEST);
        assert_eq!(on(&newest, dry_run).await.0, StatusCode::OK);
    }

    // Whoever reads is told how old it may be, and nobody waits for a node that is not there.
    let (_, headers, _) = ask(&data, Method::GET, "/v1/consumers", &[], Value::Null).await.unwrap();
    for name in ["x-phalanx-revision", "x-phalanx-installed", "x-phalanx-leader-contact-ms"] {
        assert!(headers.contains_key(name), "{name}");
    }
    let (status, _, problem) =
        ask(&data, Method::PUT, "/v1/consumers/dave?wait=99", &[], json!({})).await.unwrap();
    assert_eq!(status, StatusCode::BAD_REQUEST, "{problem}");
    let none = ask(&data, Method::GET, "/v1/consumers/dave", &[], Value::Null).await.unwrap();
    assert_eq!(none.0, StatusCode::NOT_FOUND);

    // A key is shown once, never its digest, and is revoked once.
    let issue = json!({"consumer": "alice", "label": "test"});
    let repeated = [("idempotency-key", "k")];
    let (_, _, first) =
        ask(&data, Method::POST, "/v1/keys?wait=all", &repeated, issue.clone()).await.unwrap();
    let (status, _, issued) = ask(&data, Method::POST, "/v1/keys?wait=all", &repeated, issue).await.unwrap();
    assert_eq!(status, StatusCode::CREATED, "{issued}");
    let first = format!("/v1/keys/{}", first["id"].as_str().unwrap());
    assert_eq!(ask(&data, Method::GET, &first, &[], Value::Null).await.unwrap().0, StatusCode::OK);
    let key = format!("/v1/keys/{}", issued["id"].as_str().unwrap());
    let shown = ask(&data, Method::GET, &key, &[], Value::Null).await.unwrap().2;
    assert!(shown["spec"]["digest"].is_null() && shown["spec"]["consumer"] == "alice", "{shown}");
    assert_eq!(ask(&data, Method::DELETE, &key, &[], Value::Null).await.unwrap().0, StatusCode::OK);
    assert_eq!(ask(&data, Method::DELETE, &key, &[], Value::Null).await.unwrap().0, StatusCode::NOT_FOUND);

    let long = json!({"document": "x".repeat(2 << 20)});
    let too_large = ask(&data, Method::POST, "/v1/explain", &[], long).await.unwrap();
    assert_eq!(too_large.0, StatusCode::PAYLOAD_TOO_LARGE);
    let wrong = ask(&data, Method::DELETE, "/v1/cluster", &[], Value::Null).await.unwrap();
    assert_eq!(wrong.0, StatusCode::METHOD_NOT_ALLOWED);
    let status = ask(&data, Method::GET, "/v1/cluster", &[], Value::Null).await.unwrap().2;
    assert_eq!((&status["quorum"], &status["members"][0]["role"]), (&json!(true), &json!("leader")));
    let metrics = ask(&data, Method::GET, "/metrics", &[], Value::Null).await.unwrap().2;
    for name in ["phalanx_raft_term ", "process_open_fds ", "phalanx_ready 1"] {
        assert!(metrics.as_str().unwrap().contains(name), "{name}");
    }

    // Told to stop, it ends well.
    let pid = std::process::id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    running.await.unwrap().unwrap();
    assert!(!data.join("admin.sock").exists());
}
