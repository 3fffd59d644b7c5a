//! One version of a module, ready to be instantiated.

use std::sync::Arc;

use dormouse_core::Digest;

use crate::bindings::ModulePre;
use crate::state::HostState;

/// A compiled, linked version. Cheap to clone; stays usable as long as a clone lives.
#[derive(Clone)]
pub struct Module(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) digest: Digest,
    pub(crate) imports_http: bool,
    pub(crate) size: u64,
    pub(crate) pre: ModulePre<HostState>,
}

impl Module {
    /// The digest of the component it was compiled from.
    pub fn digest(&self) -> Digest {
        self.0.digest
    }

    /// Whether it can ask for HTTP requests: such a module needs a grant of hosts to do anything with it.
    pub fn imports_http(&self) -> bool {
        self.0.imports_http
    }

    /// The size of the compiled code in bytes.
    pub fn size(&self) -> u64 {
        self.0.size
    }
}

impl std::fmt::Debug for Module {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Module").field(&self.0.digest).finish()
    }
}
