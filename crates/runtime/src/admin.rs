//! The small HTTP servers of a program: admin pages, metrics and readiness.
//!
//! This module owns what is answered; [`Server`] owns sockets and limits, and
//! `standard` the pages that every program has.

use std::collections::BTreeMap;
use std::fmt;

use http::{Method, StatusCode};

mod query;
mod reply;
mod server;
mod standard;

pub use query::Query;
pub use reply::Reply;
pub use server::{BindError, Server};

/// Which handler answers which path.
pub struct Router {
    title: &'static str,
    routes: BTreeMap<&'static str, Route>,
}

struct Route {
    method: Method,
    about: &'static str,
    handler: Box<dyn Fn(&Query) -> Reply + Send + Sync>,
}

impl Router {
    /// A router with an index page at `/` under this title.
    pub fn new(title: &'static str) -> Self {
        Self { title, routes: BTreeMap::new() }
    }

    /// Answers GET (and HEAD) of `path`; `about` is what the index page says of it. A handler must
    /// not block: it runs where the requests are read.
    #[must_use]
    pub fn get(
        self,
        path: &'static str,
        about: &'static str,
        handler: impl Fn(&Query) -> Reply + Send + Sync + 'static,
    ) -> Self {
        self.route(path, Method::GET, about, Box::new(handler))
    }

    /// Answers POST of `path`: for what changes something. The body of a request is not read.
    #[must_use]
    pub fn post(
        self,
        path: &'static str,
        about: &'static str,
        handler: impl Fn(&Query) -> Reply + Send + Sync + 'static,
    ) -> Self {
        self.route(path, Method::POST, about, Box::new(handler))
    }

    fn route(
        mut self,
        path: &'static str,
        method: Method,
        about: &'static str,
        handler: Box<dyn Fn(&Query) -> Reply + Send + Sync>,
    ) -> Self {
        self.routes.insert(path, Route { method, about, handler });
        self
    }

    /// Answers one request.
    pub fn answer(&self, method: &Method, path: &str, query: Option<&str>) -> Reply {
        let method = if method == Method::HEAD { &Method::GET } else { method };
        let Some(route) = self.routes.get(path) else {
            let status = if path == "/" { StatusCode::OK } else { StatusCode::NOT_FOUND };
            return Reply::text(self.index()).with_status(status);
        };
        if *method != route.method {
            let problem = format!("{path} answers {}, not {method}\n", route.method);
            return Reply::text(problem).with_status(StatusCode::METHOD_NOT_ALLOWED).allowing(&route.method);
        }
        (route.handler)(&Query::parse(query.unwrap_or_default()))
    }

    fn index(&self) -> String {
        let mut text = format!("{}\n\n", self.title);
        for (path, route) in &self.routes {
            text.push_str(&format!("{:<5}{path:<24}{}\n", route.method.as_str(), route.about));
        }
        text
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router").field("title", &self.title).field("paths", &self.routes.keys()).finish()
    }
}

#[cfg(test)]
mod tests;
