//! A manifest that is no JSON.

lie::module!("certainly, here is your manifest: {".to_owned());
