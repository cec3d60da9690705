//! Every address of the API, on one screen. Each leads through [`request::serve`], and so does everything that is no
//! address: no answer can forget the key, the limit, the request's id or the form of an error.

use actix_web::http::Method;
use actix_web::web::{self, Data, Payload, ServiceConfig};
use actix_web::{HttpRequest, Resource};
use store::api_key::Scope;

use crate::gateway::Gateway;
use crate::request;

/// What the API can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    ListWebhooks,
    CreateWebhook,
    ShowWebhook,
    UpdateWebhook,
    DeleteWebhook,
    TestWebhook,
    ListEventTypes,
}

struct Route {
    path: &'static str,
    operations: &'static [(Method, Operation)],
}

/// The first that fits counts: fixed words stand before `{id}`.
static ROUTES: [Route; 4] = [
    Route {
        path: "/api/v1/partners/webhooks",
        operations: &[
            (Method::GET, Operation::ListWebhooks),
            (Method::POST, Operation::CreateWebhook),
        ],
    },
    Route {
        path: "/api/v1/partners/webhooks/events",
        operations: &[(Method::GET, Operation::ListEventTypes)],
    },
    Route {
        path: "/api/v1/partners/webhooks/test",
        operations: &[(Method::POST, Operation::TestWebhook)],
    },
    Route {
        path: "/api/v1/partners/webhooks/{id}",
        operations: &[
            (Method::GET, Operation::ShowWebhook),
            (Method::PATCH, Operation::UpdateWebhook),
            (Method::DELETE, Operation::DeleteWebhook),
        ],
    },
];

impl Operation {
    /// What a key must be allowed to do.
    #[must_use]
    pub fn scope(self) -> Scope {
        match self {
            Self::ListWebhooks | Self::ShowWebhook | Self::ListEventTypes => Scope::Read,
            Self::CreateWebhook | Self::UpdateWebhook | Self::DeleteWebhook | Self::TestWebhook => {
                Scope::Write
            }
        }
    }
}

/// Where a request leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Operation {
        route: &'static str,
        operation: Operation,
    },
    /// A known address and a method that it does not take; those that it takes, as in `Allow`.
    OtherMethod { route: &'static str, allow: String },
    /// No address of ours.
    Nowhere,
}

impl Target {
    /// The address's pattern, for metrics and logs.
    #[must_use]
    pub fn route(&self) -> &'static str {
        match self {
            Self::Operation { route, .. } | Self::OtherMethod { route, .. } => route,
            Self::Nowhere => "none",
        }
    }
}

pub fn register(app: &mut ServiceConfig) {
    for route in &ROUTES {
        app.service(resource(route));
    }
    app.default_service(leads(web::route(), Target::Nowhere));
}

fn resource(route: &'static Route) -> Resource {
    let mut resource = web::resource(route.path);
    for (method, operation) in route.operations {
        let target = Target::Operation {
            route: route.path,
            operation: *operation,
        };
        // A HEAD is a GET whose body the server leaves out.
        if *method == Method::GET {
            resource = resource.route(leads(web::head(), target.clone()));
        }
        resource = resource.route(leads(web::method(method.clone()), target));
    }
    let other = Target::OtherMethod {
        route: route.path,
        allow: allow(route),
    };
    resource.default_service(leads(web::route(), other))
}

fn leads(from: actix_web::Route, target: Target) -> actix_web::Route {
    from.to(
        move |request: HttpRequest, payload: Payload, gateway: Data<Gateway>| {
            request::serve(target.clone(), request, payload, gateway)
        },
    )
}

fn allow(route: &Route) -> String {
    let mut methods = Vec::new();
    for (method, _) in route.operations {
        methods.push(method.as_str());
        if *method == Method::GET {
            methods.push("HEAD");
        }
    }
    methods.push("OPTIONS");
    methods.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_tells_which_methods_it_takes() {
        let allowed: Vec<_> = ROUTES.iter().map(allow).collect();
        assert_eq!(
            allowed,
            [
                "GET, HEAD, POST, OPTIONS",
                "GET, HEAD, OPTIONS",
                "POST, OPTIONS",
                "GET, HEAD, PATCH, DELETE, OPTIONS",
            ]
        );
    }

    #[test]
    fn only_what_reads_can_be_done_with_a_key_that_reads() {
        for (method, operation) in ROUTES.iter().flat_map(|route| route.operations) {
            let scope = if method.is_safe() {
                Scope::Read
            } else {
                Scope::Write
            };
            assert_eq!(operation.scope(), scope, "{operation:?}");
        }
    }
}
