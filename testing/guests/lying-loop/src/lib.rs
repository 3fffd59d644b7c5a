//! A manifest that never comes.

lie::module!(endless());

fn endless() -> String {
    let mut number = 0u64;
    loop {
        number = std::hint::black_box(number.wrapping_add(1));
    }
}
