//! A manifest that ends in a panic.

lie::module!(panic!("no manifest today"));
