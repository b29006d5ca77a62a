use super::*;
use crate::readiness::Readiness;
use crate::shutdown;

fn router() -> Router {
    Router::new("ambit test")
        .get("/dump", "what is known", |query| Reply::text(format!("{:?}", query.value("of"))))
        .post("/change", "change it", |_| Reply::text("changed"))
}

#[test]
fn requests_are_answered_by_path_and_method() {
    let rows = [
        (Method::GET, "/dump", Some("of=policies"), StatusCode::OK, "Some(\"policies\")"),
        (Method::HEAD, "/dump", None, StatusCode::OK, "None"),
        (Method::POST, "/dump", None, StatusCode::METHOD_NOT_ALLOWED, "/dump answers GET, not POST"),
        (Method::POST, "/change", None, StatusCode::OK, "changed"),
        (Method::GET, "/change", None, StatusCode::METHOD_NOT_ALLOWED, "/change answers POST, not GET"),
        (Method::GET, "/", None, StatusCode::OK, "GET  /dump                   what is known"),
        (Method::GET, "/nowhere", None, StatusCode::NOT_FOUND, "POST /change"),
        (Method::GET, "/dump/", None, StatusCode::NOT_FOUND, "ambit test"),
    ];
    for (method, path, query, status, body) in rows {
        let reply = router().answer(&method, path, query);
        assert_eq!(reply.status(), status, "{method} {path}");
        assert!(reply.body().contains(body), "{method} {path}: {}", reply.body());
    }
}

#[test]
fn readiness_lists_what_is_pending() {
    let readiness = Readiness::default();
    let router = Router::new("test").with_readiness(&readiness);
    let probe = || {
        let reply = router.answer(&Method::GET, "/healthz/ready", None);
        (reply.status().as_u16(), reply.body().to_owned())
    };
    let (xds, certificates) = (readiness.register("xds"), readiness.register("certificates"));
    assert_eq!(probe(), (500, "not ready: certificates, xds\n".into()));
    xds.ready();
    certificates.ready();
    assert_eq!(probe(), (200, "ready\n".into()));
    xds.unready();
    assert_eq!(probe(), (500, "not ready: xds\n".into()));
}

#[tokio::test]
async fn quitquitquit_ends_the_program() {
    let mut shutdown = shutdown::signals().unwrap();
    let router = Router::new("test").with_quit(shutdown.handle());
    assert_eq!(router.answer(&Method::GET, "/quitquitquit", None).status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(router.answer(&Method::POST, "/quitquitquit", None).status(), StatusCode::OK);
    assert_eq!(shutdown.requested().await, shutdown::Reason::Request);
}
