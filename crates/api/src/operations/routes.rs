//! From paths to operations.

use http::Method;

use super::{Operation, all, call, common};
use crate::surface::{self, Surface};

/// An operation on one surface.
#[derive(Clone)]
pub struct Route {
    /// Not for what is common to all.
    pub surface: Option<&'static Surface>,
    /// With `{name}` for each parameter.
    pub path: String,
    pub operation: &'static Operation,
}

pub struct Routes {
    /// From a path to the operations that have it.
    paths: matchit::Router<usize>,
    resources: Vec<Vec<Route>>,
}

/// What was found at a path.
pub enum Found {
    Operation(FoundOperation),
    /// Others than the one asked for: what `Allow` says, and whether they are open to everybody.
    Methods {
        allowed: String,
        open: bool,
    },
    Nothing,
}

pub struct FoundOperation {
    pub operation: &'static Operation,
    pub parameters: Vec<(String, String)>,
}

impl Route {
    /// All of them.
    pub fn all() -> Vec<Route> {
        let mut routes = Vec::new();
        for surface in surface::ALL {
            for operation in all() {
                for path in surface.paths(operation.path) {
                    routes.push(Route { surface: Some(surface), path, operation });
                }
            }
        }
        routes.extend(common().map(|operation| Route { surface: None, path: operation.path.into(), operation }));
        routes
    }
}

impl Routes {
    pub fn new() -> Routes {
        let mut routes = Routes { paths: matchit::Router::new(), resources: Vec::new() };
        for route in Route::all() {
            match routes.resources.iter_mut().find(|resource| resource[0].path == route.path) {
                Some(resource) => resource.push(route),
                None => {
                    // Two paths that cannot be told apart: the tests make this router, too.
                    let inserted = routes.paths.insert(route.path.clone(), routes.resources.len());
                    debug_assert!(inserted.is_ok(), "{}: {inserted:?}", route.path);
                    routes.resources.push(vec![route]);
                }
            }
        }
        routes
    }

    pub fn find(&self, path: &str, method: &Method) -> Found {
        // Matched before it is decoded: an encoded slash is part of a segment.
        let Ok(matched) = self.paths.at(path) else { return Found::Nothing };
        let resource = &self.resources[*matched.value];
        // Whoever may GET may ask for the HEAD of it.
        let wanted = if method == Method::HEAD { &Method::GET } else { method };
        match resource.iter().find(|route| route.operation.method == *wanted) {
            Some(route) => {
                let decode = |(name, value): (&str, &str)| (name.to_owned(), call::decoded(value).into_owned());
                let parameters = matched.params.iter().map(decode).collect();
                Found::Operation(FoundOperation { operation: route.operation, parameters })
            }
            None => {
                let mut allowed: Vec<_> = resource.iter().map(|route| route.operation.method.as_str()).collect();
                if allowed.contains(&"GET") {
                    allowed.push("HEAD");
                }
                allowed.sort_unstable();
                let open = resource.iter().all(|route| !route.operation.access.needs_credential());
                Found::Methods { allowed: allowed.join(","), open }
            }
        }
    }
}

impl Default for Routes {
    fn default() -> Routes {
        Routes::new()
    }
}
