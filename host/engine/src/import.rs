//! What a component may import and must export, checked before anything of it runs.

use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;

use crate::load::LoadError;

/// Our own interfaces, of any 0.1 version.
const OWN: [&str; 6] = ["types", "steps", "context", "log", "config", "secrets"];
/// WASI's, of any 0.2 version.
const WASI: [&str; 31] = [
    "io/error",
    "io/poll",
    "io/streams",
    "clocks/wall-clock",
    "clocks/monotonic-clock",
    "random/random",
    "random/insecure",
    "random/insecure-seed",
    "cli/environment",
    "cli/exit",
    "cli/stdin",
    "cli/stdout",
    "cli/stderr",
    "cli/terminal-input",
    "cli/terminal-output",
    "cli/terminal-stdin",
    "cli/terminal-stdout",
    "cli/terminal-stderr",
    "filesystem/types",
    "filesystem/preopens",
    "sockets/network",
    "sockets/instance-network",
    "sockets/ip-name-lookup",
    "sockets/tcp",
    "sockets/tcp-create-socket",
    "sockets/udp",
    "sockets/udp-create-socket",
    "http/types",
    "http/outgoing-handler",
    // Types that generated bindings name and that have no functions of their own.
    "io/types",
    "cli/types",
];
/// The interface a module exports.
const EXPORT: &str = "dormouse:function/functions@0.1.";

/// Checks imports, then exports. Answers whether the component can ask for HTTP requests.
///
/// # Errors
/// Names the first import that nobody offers, or the export that is missing.
pub(crate) fn check(component: &Component) -> Result<bool, LoadError> {
    let engine = component.engine();
    let ty = component.component_type();
    let mut http = false;
    for (name, item) in ty.imports(engine) {
        // Types alone are checked when the component is linked.
        if matches!(item.ty, ComponentItem::Type(_)) {
            continue;
        }
        if !is_offered(name) {
            return Err(LoadError::UnknownImport {
                name: name.to_owned(),
            });
        }
        http |= name.starts_with("wasi:http/outgoing-handler@");
    }
    let exports: Vec<String> = ty.exports(engine).map(|(name, _)| name.to_owned()).collect();
    let functions = ty.exports(engine).find_map(|(name, item)| match item.ty {
        ComponentItem::ComponentInstance(instance) if name.starts_with(EXPORT) => Some(instance),
        _ => None,
    });
    let Some(functions) = functions else {
        return Err(LoadError::NotAModule {
            reason: if exports.is_empty() {
                "it exports nothing".to_owned()
            } else {
                format!("it exports {}", exports.join(", "))
            },
        });
    };
    for needed in ["describe", "run"] {
        let found = functions
            .exports(engine)
            .any(|(name, item)| name == needed && matches!(item.ty, ComponentItem::ComponentFunc(_)));
        if !found {
            return Err(LoadError::NotAModule {
                reason: format!("its `functions` have no `{needed}`"),
            });
        }
    }
    Ok(http)
}

fn is_offered(import: &str) -> bool {
    let Some((path, version)) = import.split_once('@') else {
        return false;
    };
    if let Some(interface) = path.strip_prefix("dormouse:function/") {
        return version.starts_with("0.1.") && OWN.contains(&interface);
    }
    if let Some(interface) = path.strip_prefix("wasi:") {
        return version.starts_with("0.2.") && WASI.contains(&interface);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_its_own_and_wasi() {
        for (name, offered) in [
            ("dormouse:function/steps@0.1.0", true),
            ("dormouse:function/steps@0.2.0", false),
            ("dormouse:function/steps", false),
            ("wasi:io/poll@0.2.6", true),
            ("wasi:io/poll@0.3.0", false),
            ("wasi:http/outgoing-handler@0.2.0", true),
            ("wasi:keyvalue/store@0.2.0", false),
            ("env", false),
        ] {
            assert_eq!(is_offered(name), offered, "{name}");
        }
    }
}
