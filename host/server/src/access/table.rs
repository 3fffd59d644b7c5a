//! Every route: who may use it, and what the audit log calls its use.
//!
//! This is the one place that says so. A route that is not here is for admins. Tests hold it against the router's own
//! description and send every kind of key to every route.

use std::collections::HashMap;
use std::sync::LazyLock;

use dormouse_core::key::Role;
use http::Method;

/// What a route asks of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// No key.
    Nothing,
    /// A key that may send events. Its handler sees to it: the key is in the path.
    Events,
    /// An API key with this role or a greater one.
    Role(Role),
}

/// What a route is about, for keys that are limited to modules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum About {
    /// The module that this part of the path names.
    Module(&'static str),
    /// The run that the path names, and with it the run's module.
    Run,
    /// What the handler finds out: it lists what is of the key's modules and nothing else, or reads the module from the body.
    Chosen,
    /// More than single modules: limited keys are refused.
    Everything,
}

/// What holds for a route.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) needs: Needs,
    pub(crate) about: About,
    /// All that it answers are payloads: without the permission it answers nothing. What only has some leaves them out.
    pub(crate) payloads: bool,
    /// What the audit log calls it. None: it changes nothing.
    pub(crate) action: Option<&'static str>,
}

impl Rule {
    const fn get(path: &'static str, needs: Needs, about: About) -> Rule {
        Rule {
            method: "GET",
            path,
            needs,
            about,
            payloads: false,
            action: None,
        }
    }

    const fn payloads(self) -> Rule {
        Rule {
            payloads: true,
            ..self
        }
    }

    const fn command(
        method: &'static str,
        path: &'static str,
        role: Role,
        about: About,
        action: &'static str,
    ) -> Rule {
        Rule {
            method,
            path,
            needs: Needs::Role(role),
            about,
            payloads: false,
            action: Some(action),
        }
    }
}

const OPEN: Needs = Needs::Nothing;
const LOOK: Needs = Needs::Role(Role::Viewer);
const ADMIN: Needs = Needs::Role(Role::Admin);

use About::{Chosen, Everything, Module, Run};
use Role::{Admin, Deployer, Operator};

/// What holds where nothing is said.
const UNLISTED: Rule = Rule::get("", ADMIN, Everything);

/// All of them.
pub(crate) const RULES: &[Rule] = &[
    // The server itself.
    Rule::get("/health", OPEN, Everything),
    Rule::get("/ready", OPEN, Everything),
    Rule::get("/dev", OPEN, Everything),
    Rule::get("/openapi.json", OPEN, Everything),
    Rule::get("/metrics", LOOK, Everything),
    Rule::get("/v1/nodes", LOOK, Everything),
    Rule::command(
        "POST",
        "/v1/nodes/{node}/drain",
        Operator,
        Everything,
        "node.drain",
    ),
    Rule::get("/v1/keys", ADMIN, Everything),
    Rule::command("POST", "/v1/keys", Admin, Everything, "key.create"),
    Rule::command("DELETE", "/v1/keys/{id}", Admin, Everything, "key.revoke"),
    Rule::get("/v1/audit", ADMIN, Everything),
    Rule::get("/v1/grants", ADMIN, Everything),
    Rule::command("PUT", "/v1/grants", Admin, Everything, "grants.set"),
    // Events. They belong to no module: a limited key sees those of its runs, with the run.
    Rule {
        method: "POST",
        path: "/e/{key}",
        needs: Needs::Events,
        about: Everything,
        payloads: false,
        action: None,
    },
    Rule::get("/v1/events", LOOK, Everything),
    Rule::get("/v1/events/{id}", LOOK, Everything),
    Rule::get("/v1/events/{id}/runs", LOOK, Chosen),
    Rule::get("/v1/events/{id}/triggers", LOOK, Everything).payloads(),
    Rule::command("POST", "/v1/signals", Operator, Everything, "signal.send"),
    // Runs.
    Rule::get("/v1/runs", LOOK, Chosen),
    Rule::get("/v1/runs/{id}", LOOK, Run),
    Rule::get("/v1/runs/{id}/stream", LOOK, Run),
    Rule::get("/v1/runs/{id}/journal", LOOK, Run).payloads(),
    Rule::get("/v1/runs/{id}/logs", LOOK, Run).payloads(),
    Rule::command("DELETE", "/v1/runs/{id}", Operator, Run, "run.cancel"),
    Rule::command("POST", "/v1/runs/{id}/wake", Operator, Run, "run.wake"),
    Rule::command("POST", "/v1/runs/{id}/rerun", Operator, Run, "run.rerun"),
    Rule::command("POST", "/v1/runs/{id}/pause", Operator, Run, "run.pause"),
    Rule::command("POST", "/v1/runs/{id}/resume", Operator, Run, "run.resume"),
    Rule::get("/v1/cancellations", LOOK, Chosen),
    Rule::command(
        "POST",
        "/v1/cancellations",
        Operator,
        Chosen,
        "cancellation.create",
    ),
    Rule::command(
        "DELETE",
        "/v1/cancellations/{id}",
        Operator,
        Chosen,
        "cancellation.delete",
    ),
    // Modules and functions.
    Rule::get("/v1/modules", LOOK, Chosen),
    Rule::get("/v1/modules/{name}/versions", LOOK, Module("name")),
    Rule::command(
        "PUT",
        "/v1/modules/{name}",
        Deployer,
        Module("name"),
        "module.deploy",
    ),
    Rule::command(
        "POST",
        "/v1/modules/{name}/activate",
        Deployer,
        Module("name"),
        "module.activate",
    ),
    Rule::command(
        "DELETE",
        "/v1/modules/{name}/versions/{digest}",
        Deployer,
        Module("name"),
        "version.delete",
    ),
    Rule {
        method: "POST",
        ..Rule::get(
            "/v1/modules/{name}/preflight",
            Needs::Role(Deployer),
            Module("name"),
        )
    },
    Rule::get("/v1/functions", LOOK, Chosen),
    Rule::get("/v1/schedules", LOOK, Chosen),
    Rule::command(
        "POST",
        "/v1/functions/{module}/{function}/pause",
        Operator,
        Module("module"),
        "function.pause",
    ),
    Rule::command(
        "POST",
        "/v1/functions/{module}/{function}/resume",
        Operator,
        Module("module"),
        "function.resume",
    ),
    Rule::command(
        "POST",
        "/invoke/{module}/{function}",
        Operator,
        Module("module"),
        INVOKE,
    ),
    // Pages.
    Rule::get("/", LOOK, Chosen),
    Rule::get("/overview/fragment", LOOK, Chosen),
    Rule::get("/overview/stream", LOOK, Chosen),
    Rule::get("/runs", LOOK, Chosen),
    Rule::get("/runs/{id}", LOOK, Run),
    Rule::get("/runs/{id}/fragment", LOOK, Run),
    Rule::command("POST", "/runs/{id}/cancel", Operator, Run, "run.cancel"),
    Rule::command("POST", "/runs/{id}/wake", Operator, Run, "run.wake"),
    Rule::get("/assets/{name}", OPEN, Everything),
    Rule::get("/sign-in", OPEN, Everything),
    Rule {
        method: "POST",
        ..Rule::get("/sign-in", OPEN, Everything)
    },
    Rule {
        method: "POST",
        ..Rule::get("/sign-out", OPEN, Everything)
    },
];

/// Starting a function is what applications do all the time: [`super::audit`] says what follows from that.
pub(crate) const INVOKE: &str = "function.invoke";

/// What holds for a request. `path` is the route's, with its parameters' names.
pub(crate) fn rule(method: &Method, path: &str) -> &'static Rule {
    static BY_ROUTE: LazyLock<HashMap<(&str, &str), &Rule>> = LazyLock::new(|| {
        let named = RULES.iter().map(|rule| ((rule.method, rule.path), rule));
        named.collect()
    });
    let method = match *method {
        Method::HEAD => "GET",
        _ => method.as_str(),
    };
    BY_ROUTE.get(&(method, path)).copied().unwrap_or(&UNLISTED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_there_once_and_what_changes_something_is_recorded() {
        let mut seen = std::collections::BTreeSet::new();
        for rule in RULES {
            assert!(seen.insert((rule.method, rule.path)), "{rule:?} twice");
            let signs = rule.path.starts_with("/sign-");
            let changes = rule.method != "GET" && rule.needs != Needs::Events && !signs;
            let looks = rule.path.ends_with("/preflight");
            assert_eq!(rule.action.is_some(), changes && !looks, "{rule:?}");
            let least = |least| matches!(rule.needs, Needs::Role(role) if role >= least);
            assert!(!changes || least(Role::Operator), "{rule:?}");
            if let About::Module(name) = rule.about {
                assert!(rule.path.contains(&format!("{{{name}}}")), "{rule:?}");
            }
            if rule.about == About::Run {
                assert!(rule.path.contains("/runs/{id}"), "{rule:?}");
            }
        }
    }

    #[test]
    fn what_is_not_listed_is_for_admins() {
        let unlisted = rule(&Method::PATCH, "/v1/runs");
        assert_eq!((unlisted.needs, unlisted.about), (ADMIN, Everything));
        assert_eq!(rule(&Method::GET, "/v1/nothing").needs, ADMIN);
        assert_eq!(rule(&Method::HEAD, "/v1/runs").needs, LOOK);
    }
}
