//! Maps and sets whose order is the same on every replay and in every process.
//!
//! The standard library's hash maps are keyed by a counter of the thread. Outside bodies a replay goes through the
//! same counts; a map made *inside* a body advances the counter, and a replay skips the body (see `hash_keys`).
//! These maps have fixed keys, so none of that touches them. Fixed keys also mean no protection against input that was
//! chosen to collide: use [`std::collections::BTreeMap`] for keys that strangers choose.

use std::hash::{BuildHasherDefault, DefaultHasher};

/// Makes hashers that are all alike.
pub type FixedState = BuildHasherDefault<DefaultHasher>;

/// [`std::collections::HashMap`] with fixed keys. Make one with `HashMap::default()` or `collect()`.
pub type HashMap<K, V> = std::collections::HashMap<K, V, FixedState>;

/// [`std::collections::HashSet`] with fixed keys. Make one with `HashSet::default()` or `collect()`.
pub type HashSet<T> = std::collections::HashSet<T, FixedState>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_depend_on_the_thread() {
        let order = || {
            (0..100)
                .map(|n| (n, ()))
                .collect::<HashMap<u32, ()>>()
                .into_keys()
                .collect::<Vec<_>>()
        };
        let here = order();
        let _advances_the_counter: std::collections::HashMap<u8, u8> = std::collections::HashMap::new();
        assert_eq!(here, order());
        assert_eq!(here, std::thread::spawn(order).join().expect("no panic"));
    }
}
